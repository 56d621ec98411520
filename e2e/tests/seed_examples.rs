//! The documented examples of the Tunnels API, run with curl as they stand: every field that the documentation shows is
//! in the answer, with its type.

use std::process::Command;

use e2e::{
    Hub, Machine, api, eventually,
    hub::ADMIN_KEY,
    ports::free_port,
    targets::{Nginx, succeeds},
    wait::SOON,
};
use serde_json::{Value, json};

/// curl with a key, and its answer: the status on a last line of its own.
fn curl(hub: &Hub, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let url = format!("{}{path}", hub.url());
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", method, &url, "-H", &format!("x-api-key: {ADMIN_KEY}")]);
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let said = succeeds(command.args(["-w", "\\n%{http_code}"]));
    let (body, status) = said.trim_end().rsplit_once('\n').expect("a body and a status");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{method} {path}: {error}: {body}"));
    (status.parse().expect("a status"), body)
}

/// What of the shown JSON is missing in an answer, or of another type.
fn missing(shown: &Value, answered: &Value, place: &str) -> Vec<String> {
    match (shown, answered) {
        (Value::Object(shown), Value::Object(answered)) => {
            let fields = shown.iter().flat_map(|(name, value)| match answered.get(name) {
                Some(found) => missing(value, found, &format!("{place}.{name}")),
                None => vec![format!("{place}.{name} is missing")],
            });
            fields.collect()
        }
        (Value::Array(shown), Value::Array(answered)) => {
            let first = shown.first().zip(answered.first());
            first.map(|(shown, found)| missing(shown, found, &format!("{place}[0]"))).unwrap_or_default()
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null | Value::String(_)) => vec![],
        _ => vec![format!("{place} is {answered}, the documentation shows {shown}")],
    }
}

#[track_caller]
fn shows(answer: (u16, Value), status: u16, shown: &Value) -> Value {
    let (answered, body) = answer;
    assert_eq!(answered, status, "{body}");
    let missing = missing(shown, &body, "body");
    assert!(missing.is_empty(), "{missing:#?} in {body}");
    body
}

/// A machine with a running agent, and the agent's id.
fn agent(hub: &Hub, known: &[String]) -> (Machine, e2e::process::Process, String) {
    let machine = Machine::new(hub);
    let up = machine.up();
    let id = eventually("the agent is online", SOON, || {
        let online = hub.api().get("/v1/agents/online").expect(200);
        let ids = online.as_array().into_iter().flatten().map(|agent| api::text(agent, "id"));
        ids.into_iter().find(|id| !known.contains(id)).ok_or("it is not")
    });
    (machine, up, id)
}

#[test]
fn the_examples_of_the_tunnels_api_answer_what_they_show() {
    let hub = Hub::start();
    let (_exposing, _first, exposing) = agent(&hub, &[]);
    let (_reaching, _second, reaching) = agent(&hub, std::slice::from_ref(&exposing));

    let created = json!({
        "id": "tun_123",
        "name": "prod-db",
        "agentId": "550e8400-e29b-41d4-a716-446655440000",
        "targetHost": "localhost",
        "targetPort": 5432,
        "tunnelPort": 50123,
        "protocol": "tcp",
        "status": "active",
        "isPublic": false,
        "createdAt": "2026-03-02T10:00:00.000Z",
    });
    let body = json!({
        "target": "localhost:5432",
        "name": "prod-db",
        "protocol": "tcp",
        "agentId": exposing,
        "isPublic": false,
    });
    let tunnel = shows(curl(&hub, "POST", "/v1/tunnels", Some(&body)), 201, &created);
    for (field, value) in
        [("name", json!("prod-db")), ("targetPort", json!(5432)), ("protocol", json!("tcp"))]
    {
        assert_eq!(tunnel[field], value, "{tunnel}");
    }
    let path = format!("/v1/tunnels/{}", api::text(&tunnel, "id"));

    let listed = shows(curl(&hub, "GET", "/v1/tunnels", None), 200, &json!([created]));
    assert_eq!(listed.as_array().map(Vec::len), Some(1));

    let mut detailed = created;
    detailed["publicUrl"] = Value::Null;
    detailed["metadata"] = json!({});
    let details = shows(curl(&hub, "GET", &path, None), 200, &detailed);
    // Shown as a time; of a tunnel that nobody used yet there is none.
    assert!(details.get("lastActivityAt").is_some_and(|at| at.is_null() || at.is_string()), "{details}");

    let change = json!({
        "name": "production-database",
        "status": "active",
        "metadata": { "environment": "production" },
    });
    let changed = json!({
        "id": "tun_123",
        "name": "production-database",
        "status": "active",
        "metadata": { "environment": "production" },
    });
    let changed = shows(curl(&hub, "PATCH", &path, Some(&change)), 200, &changed);
    assert_eq!(changed["metadata"], change["metadata"]);

    let local_port = free_port();
    let connect = json!({ "agentId": reaching, "localPort": local_port });
    let connected = json!({
        "success": true,
        "tunnel": {
            "id": "tun_123",
            "name": "prod-db",
            "targetHost": "localhost",
            "targetPort": 5432,
            "localPort": 5432,
            "tunnelPort": 50123,
        },
        "connectionString": "postgres://localhost:5432/postgres",
        "message": "Tunnel active on port 50123",
    });
    let connected = shows(curl(&hub, "POST", &format!("{path}/connect"), Some(&connect)), 200, &connected);
    assert_eq!(connected["connectionString"], format!("postgres://localhost:{local_port}/postgres"));
    let message = format!("Tunnel active on port {}", tunnel["tunnelPort"]);
    assert_eq!(connected["message"], message);

    let deleted = shows(curl(&hub, "DELETE", &path, None), 200, &json!({ "success": true }));
    assert_eq!(deleted["success"], true);
    let (status, _) = curl(&hub, "GET", &path, None);
    assert_eq!(status, 404);
}

#[test]
fn the_examples_of_shares_answer_what_they_show() {
    let hub = Hub::start();
    let nginx = Nginx::answering_everything();
    let (_machine, _up, agent) = agent(&hub, &[]);
    let body =
        json!({ "target": nginx.address.to_string(), "name": "site", "agentId": agent, "protocol": "http" });
    let (status, tunnel) = curl(&hub, "POST", "/v1/tunnels", Some(&body));
    assert_eq!(status, 201, "{tunnel}");
    let id = api::text(&tunnel, "id");

    let body = json!({
        "name": "contractor-access",
        "description": "Temporary access for external team",
        "expiresIn": "24h",
        "allowedMethods": ["GET", "POST"],
        "rateLimitPerMin": 100,
    });
    let shown = json!({
        "id": "share_123",
        "token": "share_tok_1234567890abcdefghijklmnop",
        "name": "contractor-access",
        "expiresAt": "2026-03-03T10:00:00.000Z",
        "shareUrl": "https://link.privateconnect.co/shared/share_tok_1234567890abcdefghijklmnop",
    });
    let share = shows(curl(&hub, "POST", &format!("/v1/tunnels/{id}/share"), Some(&body)), 201, &shown);
    assert!(api::text(&share, "shareUrl").ends_with(&format!("/shared/{}", api::text(&share, "token"))));

    // The services group: the same, wrapped; paths besides; a life without end has no end.
    let body = json!({ "name": "for ever", "expiresIn": "never", "allowedPaths": ["/api/*", "/public/*"] });
    let wrapped = shows(
        curl(&hub, "POST", &format!("/v1/services/{id}/shares"), Some(&body)),
        201,
        &json!({ "success": true, "share": { "id": "", "token": "", "name": "", "shareUrl": "" } }),
    );
    assert_eq!(wrapped["share"]["expiresAt"], Value::Null);

    let listed = json!({ "shares": [{
        "id": "", "name": "", "description": null, "revokedAt": null, "createdAt": "", "lastAccessedAt": null,
        "accessCount": 0, "isActive": true, "tokenPreview": "",
    }] });
    let listed = shows(curl(&hub, "GET", &format!("/v1/services/{id}/shares"), None), 200, &listed);
    for secret in [&share["token"], &wrapped["share"]["token"]] {
        assert!(
            !listed.to_string().contains(secret.as_str().expect("a token")),
            "a list shows a token: {listed}"
        );
    }

    let info = json!({
        "name": "", "description": "", "expiresAt": "", "workspaceName": "", "service": { "name": "", "protocol": "" },
    });
    let info_path = format!("/v1/shared/{}/info", api::text(&share, "token"));
    let info = shows(curl(&hub, "GET", &info_path, None), 200, &info);
    assert!(!info.to_string().contains(&nginx.address.port().to_string()), "it names the target: {info}");

    let share_path = format!("/v1/shares/{}", api::text(&share, "id"));
    shows(curl(&hub, "DELETE", &share_path, None), 200, &json!({ "success": true }));
    let (status, ended) = curl(&hub, "GET", &info_path, None);
    assert_eq!((status, ended["code"].as_str()), (403, Some("share_revoked")));
}

#[test]
fn the_general_rules_of_the_api_hold() {
    let hub = Hub::start();
    let health = json!({ "status": "ok", "database": "connected", "version": "", "uptime": 1 });
    shows(curl(&hub, "GET", "/health", None), 200, &health);
    let problem = json!({
        "statusCode": 404, "error": "Not Found", "code": "tunnel_not_found", "message": "", "requestId": "",
    });
    let none = shows(curl(&hub, "GET", "/v1/tunnels/tun_123", None), 404, &problem);
    assert_eq!(none["code"], "tunnel_not_found");
    let (status, refused) = curl(&hub, "POST", "/v1/tunnels", Some(&json!({ "target": "localhost:1" })));
    assert_eq!((status, &refused["details"][0]["field"]), (400, &json!("agentId")), "{refused}");
}

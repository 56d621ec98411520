//! Tunnels and services over HTTP: status, body and what became of it in the log.

use std::net::TcpListener;

use crate::support::{ADMIN, Running, eventually};
use hub::clock::{Clock as _, SetClock, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

#[actix::test]
async fn a_created_tunnel_is_what_get_and_list_show() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let body = json!({ "target": "localhost:5432", "name": "prod-db", "protocol": "tcp", "agentId": agent });
    let created = hub.post("/v1/tunnels", body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(created.body["targetHost"], "localhost");
    assert_eq!(created.body["targetPort"], 5432);
    assert_eq!(created.body["status"], "connecting", "its agent is away");
    assert_eq!(created.body["isPublic"], false);
    let port = created.body["tunnelPort"].as_u64().unwrap();
    assert!((10_000..32_000).contains(&port));
    let id = created.text("id");
    let shown = hub.get(&format!("/v1/tunnels/{id}")).await;
    assert_eq!(shown.body, created.body);
    assert!(shown.etag.is_some());
    let list = hub.get("/v1/tunnels").await;
    assert_eq!(list.body, json!([created.body]), "the list shows what was just written");
    hub.stop().await;
}

#[actix::test]
async fn names_are_made_up_and_numbered_and_given_ones_are_unique() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let make = |name: Option<&str>| {
        let mut body = json!({ "target": "localhost:5432", "agentId": agent });
        if let Some(name) = name {
            body["name"] = name.into();
        }
        body
    };
    for expected in ["postgres", "postgres-2", "postgres-3"] {
        assert_eq!(hub.post("/v1/tunnels", make(None)).await.text("name"), expected);
    }
    let taken = hub.post("/v1/tunnels", make(Some("postgres-2"))).await;
    assert_eq!((taken.status, taken.code()), (StatusCode::CONFLICT, "tunnel_name_taken"));
    let list = hub.get("/v1/tunnels").await;
    assert_eq!(list.body.as_array().unwrap().len(), 3);
    hub.stop().await;
}

#[actix::test]
async fn bad_input_is_refused_by_field_and_leaves_no_trace() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let before = hub.facts().await;
    let long = "x".repeat(101);
    for (body, field) in [
        (json!({ "target": "localhost:0", "agentId": agent }), "target"),
        (json!({ "target": "localhost:65536", "agentId": agent }), "target"),
        (json!({ "target": "localhost", "agentId": agent }), "target"),
        (json!({ "target": "", "agentId": agent }), "target"),
        (json!({ "target": "http://localhost:1", "agentId": agent }), "target"),
        (json!({ "target": { "host": "a", "port": 65536 }, "agentId": agent }), "target"),
        (json!({ "target": "::1:80", "agentId": agent }), "target"),
        (json!({ "target": "a:1", "agentId": agent, "name": "" }), "name"),
        (json!({ "target": "a:1", "agentId": agent, "name": long }), "name"),
        (json!({ "target": "a:1", "agentId": agent, "name": "a\u{1b}[31mb" }), "name"),
        (json!({ "target": "a:1", "agentId": agent, "protocol": "quic" }), "protocol"),
        (json!({ "target": "a:1", "agentId": agent, "expiresIn": "soon" }), "expiresIn"),
        (json!({ "target": "a:1", "agentId": agent, "isPublic": "yes" }), "isPublic"),
        (json!({ "target": "a:1", "agentId": agent, "colour": "red" }), "colour"),
        (json!({ "target": "a:1" }), "agentId"),
        (json!({ "agentId": agent }), "target"),
    ] {
        let answer = hub.post("/v1/tunnels", body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body} → {answer:?}");
        assert_eq!(answer.body["details"][0]["field"], field, "{body} → {answer:?}");
        assert!(answer.text("requestId").starts_with("req_"));
    }
    let foreign = json!({ "target": "a:1", "agentId": "550e8400-e29b-41d4-a716-446655440000" });
    let answer = hub.post("/v1/tunnels", foreign).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "agent_not_found"));
    let published = json!({ "target": "localhost:5432", "agentId": agent, "isPublic": true });
    let answer = hub.post("/v1/tunnels", published).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "protected_port"));
    assert_eq!(hub.facts().await, before, "a refusal records nothing");
    hub.stop().await;
}

#[actix::test]
async fn ipv6_targets_are_taken_in_brackets() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let created = hub.post("/v1/tunnels", json!({ "target": "[::1]:8080", "agentId": agent })).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(created.body["targetHost"], "::1");
    assert_eq!(created.body["targetPort"], 8080);
    hub.stop().await;
}

#[actix::test]
async fn a_body_must_be_json_and_say_so() {
    let hub = Running::start().await;
    let client = crate::support::client();
    let url = format!("{}/v1/tunnels", hub.hub.api_url());
    let plain = client.post(&url).header("x-api-key", ADMIN).body("{}").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let broken = client
        .post(&url)
        .header("x-api-key", ADMIN)
        .header("content-type", "application/json; charset=utf-8")
        .body("{")
        .send()
        .await
        .unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
    let huge = client
        .post(&url)
        .header("x-api-key", ADMIN)
        .header("content-type", "application/json")
        .body(vec![b' '; 1_000_000])
        .send()
        .await
        .unwrap();
    assert_eq!(huge.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let wrong_method = client.put(&url).header("x-api-key", ADMIN).send().await.unwrap();
    assert_eq!(wrong_method.status(), StatusCode::METHOD_NOT_ALLOWED);
    hub.stop().await;
}

#[actix::test]
async fn pausing_and_resuming_are_facts_and_an_old_etag_is_refused() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await;
    let path = format!("/v1/tunnels/{}", tunnel.text("id"));
    let first = hub.get(&path).await.etag.unwrap();
    let paused = hub.patch(&path, json!({ "status": "paused" })).await;
    assert_eq!(paused.body["status"], "paused", "{paused:?}");
    let stale = hub
        .send(
            Method::PATCH,
            &path,
            &[("x-api-key", ADMIN), ("if-match", &first)],
            Some(json!({ "name": "x" })),
        )
        .await;
    assert_eq!((stale.status, stale.code()), (StatusCode::PRECONDITION_FAILED, "etag_mismatch"));
    let again = hub.patch(&path, json!({ "status": "active", "metadata": { "a": [1, null] } })).await;
    assert_eq!(again.body["metadata"], json!({ "a": [1, null] }));
    let facts = hub.facts().await;
    for fact in ["tunnel.paused", "tunnel.updated", "tunnel.resumed"] {
        assert_eq!(facts.iter().filter(|known| *known == fact).count(), 1, "{fact}: {facts:?}");
    }
    hub.stop().await;
}

#[actix::test]
async fn a_deleted_tunnel_frees_its_name_and_port_and_revokes_its_shares() {
    // One port in all: the second tunnel can only have the freed one.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = Running::start_with(&["--tunnel-ports", &format!("{port}-{port}")]).await;
    let tunnel = hub.tunnel("web").await;
    let id = tunnel.text("id");
    let agent = tunnel.text("agentId");
    let full = hub.post("/v1/tunnels", json!({ "target": "localhost:1", "agentId": agent })).await;
    assert_eq!((full.status, full.code()), (StatusCode::SERVICE_UNAVAILABLE, "tunnel_ports_exhausted"));
    let share = hub.post(&format!("/v1/tunnels/{id}/share"), json!({ "name": "s" })).await;
    assert_eq!(share.status, StatusCode::CREATED, "{share:?}");
    let gone = hub.delete(&format!("/v1/tunnels/{id}")).await;
    assert_eq!(gone.body, json!({ "success": true }));
    assert_eq!(hub.get(&format!("/v1/tunnels/{id}")).await.status, StatusCode::NOT_FOUND);
    eventually("the share's own event is recorded", || async {
        hub.facts().await.contains(&"share.revoked".to_owned())
    })
    .await;
    eventually("the claims are released", || async {
        hub.facts().await.iter().filter(|fact| *fact == "claim.released").count() >= 3
    })
    .await;
    let again = hub.tunnel("web").await;
    assert_eq!(again.body["tunnelPort"], port);
    hub.stop().await;
}

#[actix::test]
async fn a_renamed_tunnel_frees_its_old_name() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("old").await;
    let path = format!("/v1/tunnels/{}", tunnel.text("id"));
    let other = hub.tunnel("taken").await;
    let refused = hub.patch(&path, json!({ "name": "taken" })).await;
    assert_eq!(refused.code(), "tunnel_name_taken");
    let renamed = hub.patch(&path, json!({ "name": "new" })).await;
    assert_eq!(renamed.body["name"], "new");
    eventually("the old name is released", || async {
        hub.facts().await.contains(&"claim.released".to_owned())
    })
    .await;
    assert_eq!(hub.tunnel("old").await.status, StatusCode::CREATED);
    drop(other);
    hub.stop().await;
}

#[actix::test]
async fn a_tunnel_renamed_there_and_back_again_and_again_keeps_its_name_and_frees_the_other() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("here").await;
    let path = format!("/v1/tunnels/{}", tunnel.text("id"));
    for _ in 0..20 {
        for name in ["there", "here"] {
            let renamed = hub.patch(&path, json!({ "name": name })).await;
            assert_eq!(renamed.status, StatusCode::OK, "{renamed:?}");
        }
    }
    let agent = hub.agent().await;
    let body = |name: &str| json!({ "target": "localhost:3000", "agentId": agent, "name": name });
    eventually("the other name is free", || async {
        hub.post("/v1/tunnels", body("there")).await.status == StatusCode::CREATED
    })
    .await;
    // Whatever was to be freed has been: the log ends with the other tunnel's confirmed claims.
    eventually("the follower has seen everything", || async {
        hub.facts().await.last().is_some_and(|last| last == "claim.confirmed")
    })
    .await;
    assert_eq!(hub.post("/v1/tunnels", body("here")).await.code(), "tunnel_name_taken");
    hub.stop().await;
}

#[actix::test]
async fn a_service_is_registered_once_by_name_and_moves() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let body = |port: u16| json!({ "agentId": agent, "name": "api", "targetHost": "localhost", "targetPort": port, "protocol": "http" });
    let first = hub.post("/v1/services/register", body(8080)).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let second = hub.post("/v1/services/register", body(9090)).await;
    assert_eq!(second.status, StatusCode::OK, "{second:?}");
    assert_eq!(second.body["id"], first.body["id"]);
    assert_eq!(second.body["tunnelPort"], first.body["tunnelPort"]);
    assert_eq!(second.body["targetPort"], 9090);
    hub.stop().await;
}

#[actix::test]
async fn everything_is_as_it_was_after_a_restart() {
    // One port in all: the second tunnel can only have the freed one.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = Running::start_with(&["--tunnel-ports", &format!("{port}-{port}")]).await;
    let tunnel = hub.tunnel("web").await;
    let id = tunnel.text("id");
    let agent = tunnel.text("agentId");
    let full = hub.post("/v1/tunnels", json!({ "target": "localhost:1", "agentId": agent })).await;
    assert_eq!((full.status, full.code()), (StatusCode::SERVICE_UNAVAILABLE, "tunnel_ports_exhausted"));
    let share = hub.post(&format!("/v1/tunnels/{id}/share"), json!({ "name": "s" })).await.text("id");
    let list = hub.get("/v1/tunnels").await.body;
    let shown = hub.get(&format!("/v1/shares/{share}")).await.body;
    let hub = hub.restart().await;
    assert_eq!(hub.get("/v1/tunnels").await.body, list);
    assert_eq!(hub.get(&format!("/v1/shares/{share}")).await.body, shown);
    let next = hub.tunnel("next").await;
    assert_ne!(next.body["tunnelPort"], tunnel.body["tunnelPort"], "a kept port is not given away");
    hub.stop().await;
}

#[actix::test]
async fn a_repeated_command_gives_the_same_answer_even_after_a_restart() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await.text("id");
    let path = format!("/v1/tunnels/{tunnel}/share");
    let headers = [("x-api-key", ADMIN), ("idempotency-key", "once")];
    let first = hub.send(Method::POST, &path, &headers, Some(json!({ "name": "s" }))).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = hub.send(Method::POST, &path, &headers, Some(json!({ "name": "s" }))).await;
    assert_eq!(again.body, first.body);
    let hub = hub.restart().await;
    let later = hub.send(Method::POST, &path, &headers, Some(json!({ "name": "s" }))).await;
    // The edge took another free port at its second start.
    for field in ["id", "token", "name", "expiresAt"] {
        assert_eq!(later.body[field], first.body[field], "{field}");
    }
    let other = hub.send(Method::POST, &path, &headers, Some(json!({ "name": "other" }))).await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"));
    let shares = hub.get(&format!("/v1/services/{tunnel}/shares")).await;
    assert_eq!(shares.body["shares"].as_array().unwrap().len(), 1);
    assert!(!shares.body.to_string().contains(&first.text("token")), "a token is shown once");
    hub.stop().await;
}

#[actix::test]
async fn a_tunnel_with_a_lifetime_ends_by_itself() {
    let clock = SetClock::at(SystemClock.now());
    let hub = Running::start_at(TempDir::new().unwrap(), &[], clock.clone()).await;
    let agent = hub.agent().await;
    let body = json!({ "target": "localhost:3000", "agentId": agent, "expiresIn": "1m" });
    let created = hub.post("/v1/tunnels", body).await;
    let id = created.text("id");
    let share = json!({ "name": "short", "expiresIn": "1m" });
    let share = hub.post(&format!("/v1/tunnels/{id}/share"), share).await.text("id");
    // In steps that a clock may make without being suspected.
    clock.advance_ms(59_000);
    assert_eq!(hub.get(&format!("/v1/tunnels/{id}")).await.status, StatusCode::OK);
    clock.advance_ms(1_001);
    eventually("both expiries are facts", || async {
        let facts = hub.facts().await;
        ["tunnel.expired", "share.expired"].iter().all(|fact| facts.iter().any(|known| known == fact))
    })
    .await;
    assert_eq!(hub.get(&format!("/v1/tunnels/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(hub.get(&format!("/v1/shares/{share}")).await.body["isActive"], false);
    hub.stop().await;
}

#[actix::test]
async fn a_long_list_comes_in_pages_that_lead_to_each_other() {
    let hub = Running::start().await;
    for name in ["a", "b", "c"] {
        hub.tunnel(name).await;
    }
    let first = hub.get("/v1/tunnels?limit=2").await;
    assert_eq!(first.body.as_array().unwrap().len(), 2);
    let link = first.link.unwrap();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    let second = hub.get(next).await;
    assert_eq!(second.body.as_array().unwrap().len(), 1, "{next}: {second:?}");
    assert!(second.link.is_none());
    let mut names: Vec<_> =
        first.body.as_array().unwrap().iter().chain(second.body.as_array().unwrap()).collect();
    names.sort_by_key(|tunnel| tunnel["name"].as_str());
    assert_eq!(names.iter().map(|tunnel| &tunnel["name"]).collect::<Vec<_>>(), ["a", "b", "c"]);
    for (query, field) in
        [("limit=0", "limit"), ("limit=1001", "limit"), ("limt=1", "limt"), ("cursor=x", "cursor")]
    {
        let refused = hub.get(&format!("/v1/tunnels?{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(refused.body["details"][0]["field"], field);
    }
    hub.stop().await;
}

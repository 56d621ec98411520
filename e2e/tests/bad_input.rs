//! Bad input over the API: status, code and field of each refusal, and no side effect of any.

use e2e::{Api, Hub, api, hub::shown};
use serde_json::{Value, json};

/// A request that must be refused.
struct Refused {
    what: &'static str,
    method: &'static str,
    path: String,
    body: Value,
    status: u16,
    /// The problem's `code`, where product.md names it or the house's naming fixes it.
    code: Option<&'static str>,
    /// The field that `details` must name.
    field: Option<&'static str>,
}

#[test]
fn bad_tunnels_are_refused_and_leave_nothing_behind() {
    let hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    let kept = api::text(&hub.api().create_tunnel(&agent, "localhost:3000", "taken"), "id");
    let other = api::text(&hub.api().create_tunnel(&agent, "localhost:3001", "other"), "id");
    let with = |more: Value| merge(json!({ "target": "localhost:3000", "agentId": agent }), more);
    let field = |what, field, body| bad("POST", "/v1/tunnels", what, body, 400, None, Some(field));
    let mut cases = vec![
        field("an unknown field", "colour", with(json!({ "colour": "red" }))),
        field("port 0", "target", with(json!({ "target": "localhost:0" }))),
        field("port 65536", "target", with(json!({ "target": "localhost:65536" }))),
        field(
            "port 65536 in parts",
            "target",
            with(json!({ "target": { "host": "localhost", "port": 65536 } })),
        ),
        field("port -1 in parts", "target", with(json!({ "target": { "host": "localhost", "port": -1 } }))),
        field("no port", "target", with(json!({ "target": "localhost" }))),
        field("no host", "target", with(json!({ "target": ":3000" }))),
        field("IPv6 without brackets", "target", with(json!({ "target": "::1:3000" }))),
        field("IPv6 with one bracket", "target", with(json!({ "target": "[::1:3000" }))),
        field("a target of the wrong type", "target", with(json!({ "target": 3000 }))),
        field("no target", "target", json!({ "agentId": agent })),
        field("no agent", "agentId", json!({ "target": "localhost:3000" })),
        field("an empty name", "name", with(json!({ "name": "" }))),
        field("a name of 101 characters", "name", with(json!({ "name": "n".repeat(101) }))),
        field("a name with a control character", "name", with(json!({ "name": "a\u{1b}[31m" }))),
        field("a name of the wrong type", "name", with(json!({ "name": 5 }))),
        field("an unknown protocol", "protocol", with(json!({ "protocol": "smtp" }))),
        field("isPublic of the wrong type", "isPublic", with(json!({ "isPublic": "yes" }))),
        field("an expiry that is none", "expiresIn", with(json!({ "expiresIn": "soon" }))),
    ];
    let post = |what, body, status, code| bad("POST", "/v1/tunnels", what, body, status, Some(code), None);
    let public_database = with(json!({ "target": "localhost:5432", "isPublic": true }));
    cases.push(post("a public database", public_database, 400, "protected_port"));
    let nobody = with(json!({ "agentId": "01890000-0000-7000-8000-000000000000" }));
    cases.push(post("an unknown agent", nobody, 404, "agent_not_found"));
    let again = with(json!({ "name": "taken" }));
    cases.push(post("a name that was given away", again, 409, "tunnel_name_taken"));
    let change = |what, body, status, code, field| {
        bad("PATCH", &format!("/v1/tunnels/{other}"), what, body, status, code, field)
    };
    cases.push(change("a taken name", json!({ "name": "taken" }), 409, Some("tunnel_name_taken"), None));
    cases.push(change("an unknown status", json!({ "status": "sleeping" }), 400, None, Some("status")));
    cases.push(change("an unknown field", json!({ "tunnelPort": 1 }), 400, None, Some("tunnelPort")));
    for (method, body) in
        [("GET", Value::Null), ("PATCH", json!({ "status": "paused" })), ("DELETE", Value::Null)]
    {
        let path = "/v1/tunnels/tun_01890000000070008000000000000000";
        cases.push(bad(method, path, "an unknown tunnel", body, 404, Some("tunnel_not_found"), None));
    }
    refused_without_effect(&hub.api(), &cases);
    let tunnel = hub.api().get(&format!("/v1/tunnels/{kept}")).expect(200);
    assert_eq!(tunnel["name"], "taken");
}

#[test]
fn bad_shares_are_refused_and_leave_nothing_behind() {
    let hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = api::text(&hub.api().create_tunnel(&agent, "localhost:3000", "site"), "id");
    let raw = json!({ "target": "localhost:2222", "agentId": agent, "name": "raw", "protocol": "tcp" });
    let raw = api::text(&hub.api().post("/v1/tunnels", &raw).expect(201), "id");
    let path = format!("/v1/tunnels/{tunnel}/share");
    let with = |more: Value| merge(json!({ "name": "share" }), more);
    let field = |what, field, body| bad("POST", &path, what, body, 400, None, Some(field));
    let rules = |count: usize| -> Vec<String> { (0..count).map(|number| format!("/{number}")).collect() };
    let cases = [
        field("no name", "name", json!({})),
        field("a name of 101 characters", "name", json!({ "name": "n".repeat(101) })),
        field(
            "a description of 501 characters",
            "description",
            with(json!({ "description": "d".repeat(501) })),
        ),
        field("an expiry over a year", "expiresIn", with(json!({ "expiresIn": "366d" }))),
        field("an expiry of nothing", "expiresIn", with(json!({ "expiresIn": "0h" }))),
        field("an expiry of the wrong type", "expiresIn", with(json!({ "expiresIn": 24 }))),
        field("a rule without its slash", "allowedPaths", with(json!({ "allowedPaths": ["api/*"] }))),
        field("51 rules", "allowedPaths", with(json!({ "allowedPaths": rules(51) }))),
        field(
            "a rule of 501 characters",
            "allowedPaths",
            with(json!({ "allowedPaths": [format!("/{}", "p".repeat(500))] })),
        ),
        field(
            "a method that nobody may allow",
            "allowedMethods",
            with(json!({ "allowedMethods": ["TRACE"] })),
        ),
        field("a rate of 0", "rateLimitPerMin", with(json!({ "rateLimitPerMin": 0 }))),
        field("a rate of 1001", "rateLimitPerMin", with(json!({ "rateLimitPerMin": 1001 }))),
        field("a subdomain of two letters", "subdomain", with(json!({ "subdomain": "ab" }))),
        field("a subdomain with a dot", "subdomain", with(json!({ "subdomain": "a.b.c" }))),
        field("an unknown field", "colour", with(json!({ "colour": "red" }))),
        bad(
            "POST",
            &format!("/v1/tunnels/{raw}/share"),
            "raw TCP",
            with(json!({})),
            400,
            Some("not_shareable"),
            None,
        ),
        bad(
            "DELETE",
            "/v1/shares/share_01890000000070008000000000000000",
            "an unknown share",
            Value::Null,
            404,
            Some("share_not_found"),
            None,
        ),
    ];
    refused_without_effect(&hub.api(), &cases);
}

#[test]
fn bad_agents_and_keys_are_refused_and_leave_nothing_behind() {
    let hub = Hub::start();
    let field = |path: &str, what, field, body| bad("POST", path, what, body, 400, None, Some(field));
    let provision = "/v1/agents/provision";
    let cases = [
        field("/v1/agents/register", "an id that is none", "agentId", json!({ "agentId": "me" })),
        field(
            "/v1/agents/register",
            "a label of 101 characters",
            "label",
            json!({ "label": "l".repeat(101) }),
        ),
        field("/v1/agents/register", "an unknown field", "token", json!({ "token": "x" })),
        field(provision, "an unknown kind of client", "clientType", json!({ "clientType": "toaster" })),
        field(
            provision,
            "a life that is too short",
            "ttlSeconds",
            json!({ "clientType": "cli", "ttlSeconds": 299 }),
        ),
        field(
            provision,
            "a life that is too long",
            "ttlSeconds",
            json!({ "clientType": "cli", "ttlSeconds": 86401 }),
        ),
        field("/v1/api-keys", "no name", "name", json!({})),
        field("/v1/api-keys", "an unknown scope", "scopes", json!({ "name": "k", "scopes": ["god"] })),
        field(
            "/v1/api-keys",
            "a range that is none",
            "allowedIpRanges",
            json!({ "name": "k", "allowedIpRanges": ["x"] }),
        ),
    ];
    refused_without_effect(&hub.api(), &cases);
}

#[test]
fn bodies_that_are_no_json_are_refused_before_anything_else() {
    let hub = Hub::start();
    let send = |content_type: &str, body: &[u8]| {
        let headers = [("x-api-key", e2e::hub::ADMIN_KEY), ("content-type", content_type)];
        e2e::http::request(hub.api_address, "POST", "/v1/tunnels", &headers, Some(body)).expect("an answer")
    };
    assert_eq!(send("text/plain", b"{}").status, 415);
    assert_eq!(send("application/json", b"{\"target\":").status, 400);
    assert_eq!(send("application/json", b"[]").status, 400);
    assert_eq!(send("application/json", &[b'['; 10_000]).status, 400);
    assert_eq!(send("application/json", &vec![b' '; 8 << 20]).status, 413);
    assert_eq!(hub.api().get("/v1/nowhere").status, 404);
    assert_eq!(hub.api().tunnels(), Vec::<Value>::new());
}

#[test]
fn nobody_gets_in_without_a_key_that_is_valid_now() {
    let hub = Hub::start();
    let created = hub.api().post("/v1/api-keys", &json!({ "name": "short-lived" })).expect(201);
    let key = api::text(&created, "key");
    assert_eq!(hub.api().with_key(&key).get("/v1/tunnels").status, 200);
    hub.api().delete(&format!("/v1/api-keys/{}", api::text(&created, "id"))).expect(200);
    let changed = format!("{}x", &e2e::hub::ADMIN_KEY[..e2e::hub::ADMIN_KEY.len() - 1]);
    for (what, key) in
        [("a revoked key", key.as_str()), ("no key", ""), ("a wrong key", &changed), ("noise", "\u{e4}")]
    {
        let answer = hub.api().with_key(key).get("/v1/tunnels");
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert!(key.is_empty() || !answer.text().contains(key), "{what} is repeated: {}", answer.text());
    }
}

#[test]
fn a_key_without_the_scope_is_refused_by_name() {
    let hub = Hub::start();
    let body = json!({ "name": "reader", "scopes": ["read"] });
    let key = api::text(&hub.api().post("/v1/api-keys", &body).expect(201), "key");
    let (agent, _) = hub.api().register_agent("machine");
    let reader = hub.api().with_key(&key);
    assert_eq!(reader.get("/v1/tunnels").status, 200);
    let refused = reader.post("/v1/tunnels", &json!({ "target": "localhost:3000", "agentId": agent }));
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("write"), "it names the missing scope: {}", refused.text());
    assert_eq!(hub.api().tunnels(), Vec::<Value>::new());
}

#[test]
fn what_belongs_to_another_workspace_does_not_exist() {
    let mut hub = Hub::start();
    assert!(hub.terminate().success());
    let made = hub.run(&["workspace", "create", "other"]);
    assert!(made.status.success(), "{}", shown(&made));
    hub.restart();
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let is_key_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let foreign_key = said
        .split(|c| !is_key_part(c))
        .find(|word| word.starts_with("pc_"))
        .unwrap_or_else(|| panic!("no key in {}", shown(&made)));

    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = api::text(&hub.api().create_tunnel(&agent, "localhost:3000", "mine"), "id");
    let share = api::text(&hub.api().create_share(&tunnel, &json!({ "name": "mine" })), "id");
    let foreigner = hub.api().with_key(foreign_key);
    let mut cases = Vec::new();
    for (method, path, body, code) in [
        ("GET", format!("/v1/tunnels/{tunnel}"), Value::Null, "tunnel_not_found"),
        ("PATCH", format!("/v1/tunnels/{tunnel}"), json!({ "status": "paused" }), "tunnel_not_found"),
        ("DELETE", format!("/v1/tunnels/{tunnel}"), Value::Null, "tunnel_not_found"),
        ("POST", format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "theirs" }), "tunnel_not_found"),
        ("GET", format!("/v1/services/{tunnel}/shares"), Value::Null, "tunnel_not_found"),
        ("GET", format!("/v1/agents/{agent}"), Value::Null, "agent_not_found"),
        ("DELETE", format!("/v1/shares/{share}"), Value::Null, "share_not_found"),
        ("GET", format!("/v1/shares/{share}/logs"), Value::Null, "share_not_found"),
        (
            "POST",
            "/v1/tunnels".to_owned(),
            json!({ "target": "localhost:1", "agentId": agent }),
            "agent_not_found",
        ),
    ] {
        cases.push(bad(method, &path, "a foreign id", body, 404, Some(code), None));
    }
    refused_without_effect(&foreigner, &cases);
    assert_eq!(foreigner.tunnels(), Vec::<Value>::new());
    assert_eq!(hub.api().tunnels().len(), 1);
    assert_eq!(hub.api().shares(&tunnel).len(), 1);
}

#[test]
fn an_ipv6_target_in_brackets_is_accepted() {
    let hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = hub.api().create_tunnel(&agent, "[::1]:8080", "six");
    assert_eq!((&tunnel["targetHost"], &tunnel["targetPort"]), (&json!("::1"), &json!(8080)), "{tunnel}");
}

fn bad(
    method: &'static str,
    path: &str,
    what: &'static str,
    body: Value,
    status: u16,
    code: Option<&'static str>,
    field: Option<&'static str>,
) -> Refused {
    Refused { what, method, path: path.to_owned(), body, status, code, field }
}

fn merge(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

/// Sends each case and compares what the API lists before and after.
#[track_caller]
fn refused_without_effect(api: &Api, cases: &[Refused]) {
    let before = everything(api);
    let mut wrong = Vec::new();
    for case in cases {
        let body = (!case.body.is_null()).then_some(&case.body);
        let answer = api.call(case.method, &case.path, &[], body).expect("an answer");
        let place = format!("{} ({} {})", case.what, case.method, case.path);
        if answer.status != case.status {
            wrong.push(format!("{place}: {} instead of {}: {}", answer.status, case.status, answer.text()));
            continue;
        }
        let problem = answer.json();
        let shaped = problem["statusCode"] == case.status
            && problem["code"].as_str().is_some_and(|code| !code.is_empty())
            && problem["message"].as_str().is_some_and(|message| !message.is_empty())
            && problem["requestId"].as_str().is_some_and(|id| id.starts_with("req_"));
        if !shaped {
            wrong.push(format!("{place}: not the one shape of errors: {problem}"));
        }
        if case.code.is_some_and(|code| problem["code"] != code) {
            wrong.push(format!("{place}: code {} instead of {:?}", problem["code"], case.code));
        }
        // A member of a list may be named with its place: `allowedPaths[0]`.
        let named = |field: &str| {
            let details = problem["details"].as_array().into_iter().flatten();
            details.filter_map(|detail| detail["field"].as_str()).any(|known| known.starts_with(field))
        };
        if case.field.is_some_and(|field| !named(field)) {
            wrong.push(format!("{place}: details do not name {:?}: {problem}", case.field));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(everything(api), before, "a refused request had an effect");
}

#[track_caller]
fn everything(api: &Api) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = ["/v1/tunnels", "/v1/agents", "/v1/api-keys"]
        .into_iter()
        .map(|path| (path.to_owned(), without_times(api.get(path).expect(200))))
        .collect();
    for tunnel in api.tunnels() {
        let id = api::text(&tunnel, "id");
        all.push((id.clone(), Value::Array(api.shares(&id))));
    }
    all
}

/// Keys say when they were last used, which asking changes.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        Value::Object(members) => {
            members.remove("lastUsedAt");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

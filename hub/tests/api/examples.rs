//! The description's own examples, sent as they stand: they work, and every answer has the shape that is described.

use std::collections::{BTreeMap, BTreeSet};

use hub::api::{
    self,
    describe::{Access, FORM, document::document, places::Place},
    url::Described,
};
use serde_json::{Value, json};

use crate::{
    machines::{Machine, web_server},
    shapes::wrong,
    support::{ADMIN, Answer, Running, client},
    world::{World, filled, unknown},
};

/// Checks status, media type, headers and body of an answer against the description.
fn check(document: &Value, route: &Described, answer: &Answer) {
    let asked = format!("{} {}", route.method, route.path);
    let described = &document["paths"][route.path][route.method.to_lowercase()]["responses"];
    let response = &described[answer.status.as_str()];
    assert!(response.is_object(), "{asked}: {} is not described: {answer:?}", answer.status);
    let media_type = answer.header("content-type").split(';').next().unwrap();
    let content = &response["content"];
    let schema = content.get(media_type).or_else(|| content.get("*/*"));
    let schema = &schema.unwrap_or_else(|| panic!("{asked}: `{media_type}` is not described"))["schema"];
    let found = wrong(document, schema, &answer.body, "body");
    assert!(found.is_empty(), "{asked} {}: {found:#?}\n{}", answer.status, answer.body);
    for (name, reference) in response["headers"].as_object().unwrap() {
        let pointer = reference["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
        let is_required = document.pointer(pointer).unwrap()["required"] == true;
        assert!(!is_required || !answer.header(name).is_empty(), "{asked}: no {name}: {answer:?}");
    }
    if let Some(code) = answer.body.get("code").filter(|_| answer.status.as_u16() >= 400) {
        let words = response["description"].as_str().unwrap();
        assert!(words.contains(&format!("`{}`", code.as_str().unwrap())), "{asked}: {code} is not described");
    }
}

#[actix::test]
async fn every_example_works_and_every_answer_is_as_described() {
    let world = World::start().await;
    let table = api::table();
    let document = document(&table);
    // What needs a live agent; the next test has some.
    let needs_an_agent = BTreeMap::from([
        ("connectTunnel", "agent_offline"),
        ("checkService", "agent_offline"),
        ("reachService", "agent_offline"),
        ("shareEnvironment", "nothing_to_share"),
        ("joinEnvironment", "agent_offline"),
        ("approveJoiner", "not_pending"),
        ("denyJoiner", "not_pending"),
    ]);
    let mut seen = BTreeSet::new();
    // What deletes comes last, shares before what they share.
    let mut routes: Vec<_> = table.iter().collect();
    let places = |route: &Described| route.operation.path.first().map(|parameter| parameter.place);
    routes.sort_by_key(|route| match (route.method, places(route)) {
        ("DELETE", Some(Place::Share)) => 1,
        ("DELETE", Some(Place::Tunnel)) => 2,
        ("DELETE", _) => 3,
        _ => 0,
    });
    let mut deleted = BTreeSet::new();
    for route in routes {
        let place = places(route);
        let is_gone = place.is_some_and(|place| deleted.contains(&place));
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        let answer = world.ask(route.method, &path, &route.operation, &[("x-api-key", ADMIN)]).await;
        check(&document, route, &answer);
        let is_expected = match route.operation.id {
            // The examples' own agent is registered already, and a service of the same name is a tunnel.
            id if needs_an_agent.contains_key(id) => answer.code() == needs_an_agent[id],
            _ if is_gone => answer.status.as_u16() == 404,
            _ => answer.status.is_success(),
        };
        assert!(is_expected, "{} {path}: {answer:?}", route.method);
        if route.method == "DELETE" {
            deleted.extend(place);
        }
        seen.insert(route.operation.id);
    }
    assert_eq!(seen.len(), table.len());
    world.hub.stop().await;
}

/// Asks an operation by its name, at the place that its path names, and checks the answer against the description.
async fn ask(hub: &Running, id: &str, place: &str, body: Value) -> Answer {
    let table = api::table();
    let route = table.iter().find(|route| route.operation.id == id).unwrap();
    let name = route.operation.path.first().map_or("", |parameter| parameter.name);
    let path = route.path.replace(&format!("{{{name}}}"), place);
    let body = Some(body).filter(|body| !body.is_null());
    let answer = hub.send(route.method.parse().unwrap(), &path, &[("x-api-key", ADMIN)], body).await;
    check(&document(&table), route, &answer);
    answer
}

#[actix::test]
async fn what_agents_have_a_part_in_is_answered_as_described() {
    let hub = Running::start().await;
    let (alice, bob) = (Machine::new(&hub, "alice").await, Machine::new(&hub, "bob").await);
    let tunnel = alice.expose(&hub, web_server().await, "web", "http").await.text("id");
    let shared = json!({ "agentId": alice.id, "name": "stack", "requireApproval": true });
    let code = ask(&hub, "shareEnvironment", "", shared).await.text("code");
    let link = ask(&hub, "shareTunnel", &tunnel, json!({ "name": "link" })).await;
    let share = link.text("id");
    for path in ["a", "b"] {
        let url = format!("http://{}/shared/{}/{path}", hub.hub.edge_addr, link.text("token"));
        assert_eq!(client().get(url).send().await.unwrap().status().as_u16(), 200);
    }
    let joiner = json!({ "agentId": bob.id });
    for (id, place, body, status) in [
        ("joinEnvironment", &code, joiner.clone(), 202),
        ("listPendingJoiners", &code, Value::Null, 200),
        ("approveJoiner", &code, joiner.clone(), 200),
        ("joinEnvironment", &code, joiner.clone(), 200),
        ("denyJoiner", &code, joiner.clone(), 409),
        ("joinEnvironment", &code, json!({ "agentId": alice.id }), 409),
        ("getEnvironment", &code, Value::Null, 200),
        ("listEnvironments", &code, Value::Null, 200),
        ("listTeammates", &code, Value::Null, 200),
        ("getStatus", &code, Value::Null, 200),
        ("checkService", &tunnel, json!({}), 200),
        ("reachService", &tunnel, json!({ "sourceAgentId": bob.id }), 200),
        ("configureHealth", &tunnel, json!({ "enabled": true, "intervalSeconds": 3600 }), 200),
        ("getDiagnostics", &tunnel, Value::Null, 200),
        // Both machines are this one, where the target has that port.
        ("connectTunnel", &tunnel, joiner, 409),
        ("listAccesses", &share, Value::Null, 200),
        ("getAccessStats", &share, Value::Null, 200),
        ("exportAccesses", &share, Value::Null, 200),
    ] {
        let answer = ask(&hub, id, place, body).await;
        assert_eq!(answer.status.as_u16(), status, "{id}: {answer:?}");
    }
    alice.stop().await;
    bob.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn every_refusal_is_as_described() {
    let world = World::start().await;
    let table = api::table();
    let document = document(&table);
    for route in &table {
        let operation = &route.operation;
        let known = filled(route.path, operation, |place| world.own[&place].clone());
        let nowhere = filled(route.path, operation, unknown);
        let key = ("x-api-key", ADMIN);
        if operation.access.is_guarded() {
            check(&document, route, &world.ask(route.method, &known, operation, &[]).await);
            let foreign = [("x-api-key", world.foreign_key.as_str())];
            check(&document, route, &world.ask(route.method, &known, operation, &foreign).await);
            let refused = [("x-api-key", world.agent_token.as_str())];
            check(&document, route, &world.ask(route.method, &nowhere, operation, &refused).await);
        }
        if !operation.path.is_empty() {
            check(&document, route, &world.ask(route.method, &nowhere, operation, &[key]).await);
        }
        let method = || route.method.parse::<reqwest::Method>().unwrap();
        if operation.takes.as_ref().is_some_and(|takes| takes.media_type == FORM) {
            let answer = world.hub.send(method(), &known, &[key], Some(serde_json::json!({}))).await;
            assert_eq!(answer.status.as_u16(), 415, "{known}: {answer:?}");
            check(&document, route, &answer);
            for (field, status) in [("api_key", 401), ("user_code", 404), ("decision", 400)] {
                let mut fields = operation.takes.as_ref().unwrap().example.clone();
                fields["api_key"] = ADMIN.into();
                fields[field] = "none".into();
                let answer = world.hub.send_form(method(), &known, &[], &fields).await;
                assert_eq!(answer.status.as_u16(), status, "{known} {field}: {answer:?}");
                check(&document, route, &answer);
            }
        } else if operation.takes.is_some() {
            for body in [Value::Null, serde_json::json!([]), serde_json::json!({ "colour": "red" })] {
                let answer = world.hub.send(method(), &known, &[key], Some(body)).await;
                assert_eq!(answer.status.as_u16(), 400, "{known}: {answer:?}");
                check(&document, route, &answer);
            }
            let text = [key, ("content-type", "text/plain")];
            let answer = world.hub.send(method(), &known, &text, None).await;
            assert_eq!(answer.status.as_u16(), 415, "{known}: {answer:?}");
            check(&document, route, &answer);
            let large = serde_json::json!({ "name": "x".repeat(70_000) });
            let answer = world.hub.send(method(), &known, &[key], Some(large)).await;
            assert_eq!(answer.status.as_u16(), 413, "{known}: {answer:?}");
            check(&document, route, &answer);
        }
        if operation.headers.contains("IfMatch") {
            for (etag, status) in [("\"999999\"", 412), ("W/\"1\"", 412), ("1", 400), ("\"1", 400), ("", 400)]
            {
                let answer = world.ask(route.method, &known, operation, &[key, ("if-match", etag)]).await;
                assert_eq!(answer.status.as_u16(), status, "{known} {etag}: {answer:?}");
                check(&document, route, &answer);
            }
        }
        // Where the credential stands in the body, a repetition with another one is a stranger's.
        if operation.headers.contains("IdempotencyKey") && operation.access != Access::InBody {
            let spent = ("idempotency-key", operation.id);
            let first = world.ask(route.method, &known, operation, &[key, spent]).await;
            check(&document, route, &first);
            // The same key with another request of the same kind: a white space makes another.
            let mut other = operation.takes.as_ref().unwrap().example.clone();
            match other.as_object_mut() {
                Some(fields) if fields.contains_key("name") => {
                    fields.insert("name".to_owned(), "another".into())
                }
                Some(fields) if fields.contains_key("label") => {
                    fields.insert("label".to_owned(), "another".into())
                }
                Some(fields) if fields.contains_key("localPort") => {
                    fields.insert("localPort".to_owned(), 5433.into())
                }
                Some(fields) if fields.contains_key("timeoutMs") => {
                    fields.insert("timeoutMs".to_owned(), 6000.into())
                }
                Some(fields) if fields.contains_key("userCode") => {
                    fields.insert("userCode".to_owned(), "ZZZZ-ZZZZ".into())
                }
                Some(fields) if fields.contains_key("payload") => {
                    fields.insert("payload".to_owned(), "another".into())
                }
                Some(fields) if fields.contains_key("ttlSeconds") => {
                    fields.insert("ttlSeconds".to_owned(), 700.into())
                }
                Some(fields) if fields.contains_key("capabilities") => {
                    fields.insert("capabilities".to_owned(), serde_json::json!([]))
                }
                Some(fields) if operation.id == "markMessagesRead" => {
                    fields.insert("messageIds".to_owned(), serde_json::json!([]))
                }
                Some(_) | None => continue,
            };
            let answer = world.hub.send(method(), &known, &[key, spent], Some(other)).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (422, "idempotency_key_reused"), "{known}");
            check(&document, route, &answer);
        }
    }
    world.hub.stop().await;
}

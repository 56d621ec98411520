//! What methods and parameters have in common that no description of a route says.

use crate::support::{ADMIN, Running};
use reqwest::{Method, StatusCode};
use serde_json::json;

#[actix::test]
async fn a_check_takes_no_body_or_an_empty_object_and_nothing_else() {
    let hub = Running::start().await;
    let path = format!("/v1/services/{}/check", hub.tunnel("web").await.text("id"));
    let key = [("x-api-key", ADMIN)];
    for body in [None, Some(json!({}))] {
        let answer = hub.send(Method::POST, &path, &key, body).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "agent_offline"));
    }
    let refused = hub.send(Method::POST, &path, &key, Some(json!({ "timeoutMs": 1 }))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.body["details"][0]["field"], "timeoutMs");
    let text = [("x-api-key", ADMIN), ("content-type", "text/plain")];
    let refused = hub.send(Method::POST, &path, &text, None).await;
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    hub.stop().await;
}

#[actix::test]
async fn a_parameter_that_is_given_twice_or_is_no_cursor_is_refused() {
    let hub = Running::start().await;
    for (path, field) in [
        ("/v1/tunnels?limit=1&limit=2", "limit"),
        ("/v1/api-keys?cursor=x", "cursor"),
        ("/v1/agents/online?cursor=x", "cursor"),
        ("/v1/agents/online?limit=0", "limit"),
    ] {
        let refused = hub.get(path).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}: {refused:?}");
        assert_eq!(refused.body["details"][0]["field"], field, "{path}");
    }
    for name in ["a", "b"] {
        hub.post("/v1/api-keys", json!({ "name": name, "scopes": ["read", "read"] })).await;
    }
    let (mut names, mut path) = (Vec::new(), "/v1/api-keys?limit=2".to_owned());
    loop {
        let page = hub.get(&path).await;
        for key in page.body.as_array().unwrap() {
            names.push(key["name"].as_str().unwrap().to_owned());
        }
        let Some(link) = page.link else { break };
        path = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    }
    // Keys of one millisecond stand in any order.
    names[1..].sort();
    assert_eq!(names[1..], ["a", "b"], "each key on one page");
    hub.stop().await;
}

#[actix::test]
async fn an_idempotency_key_is_not_spent_on_a_request_that_is_refused() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    for (path, wrong, right) in [
        ("/v1/api-keys", json!({ "name": "k", "scopes": ["all"] }), json!({ "name": "k" })),
        ("/v1/api-keys", json!({ "name": "k", "scopes": [] }), json!({ "name": "k" })),
        (
            "/v1/tunnels",
            json!({ "target": "localhost", "agentId": agent }),
            json!({ "target": "localhost:1", "agentId": agent }),
        ),
        ("/v1/agents/register", json!({ "label": "" }), json!({ "label": "m" })),
        (
            "/v1/agents/provision",
            json!({ "clientType": "cli", "label": "" }),
            json!({ "clientType": "cli", "label": "m" }),
        ),
    ] {
        let key = format!("{path} {wrong}").replace('"', "'");
        let headers = [("x-api-key", ADMIN), ("idempotency-key", key.as_str())];
        let refused = hub.send(Method::POST, path, &headers, Some(wrong)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}: {refused:?}");
        let made = hub.send(Method::POST, path, &headers, Some(right.clone())).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {made:?}");
        let again = hub.send(Method::POST, path, &headers, Some(right)).await;
        assert_eq!((again.status, again.body), (made.status, made.body), "{path}");
    }
    hub.stop().await;
}

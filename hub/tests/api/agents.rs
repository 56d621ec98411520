//! Agents over HTTP: registered, listed, deleted, and what an agent's own token may do.

use crate::support::{ADMIN, Running};
use reqwest::{Method, StatusCode};
use serde_json::json;

#[actix::test]
async fn a_registered_agent_is_in_the_next_list() {
    let hub = Running::start().await;
    for number in 1..=20 {
        let made = hub.post("/v1/agents/register", json!({ "label": "m" })).await;
        assert!(made.etag.is_some());
        assert_eq!(hub.get("/v1/agents").await.body.as_array().unwrap().len(), number);
    }
    hub.stop().await;
}

#[actix::test]
async fn an_agents_own_token_makes_no_agents() {
    let hub = Running::start().await;
    let body = json!({ "clientType": "cli", "ttlSeconds": 300 });
    let agent = hub.post("/v1/agents/provision", body.clone()).await;
    let (id, token) = (agent.text("agentId"), agent.text("token"));
    let before = hub.facts().await.len();
    let headers = [("x-api-key", token.as_str())];
    for (path, body) in [
        ("/v1/agents/register", json!({})),
        ("/v1/agents/register", json!({ "agentId": id })),
        ("/v1/agents/provision", body),
    ] {
        let refused = hub.send(Method::POST, path, &headers, Some(body)).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "scope_missing"), "{path}");
    }
    assert_eq!(hub.facts().await.len(), before, "no agent that outlives the first one's end or key");
    assert_eq!(hub.send(Method::GET, "/v1/whoami", &headers, None).await.text("agentId"), id);
    hub.stop().await;
}

#[actix::test]
async fn an_agent_that_changed_meanwhile_is_not_deleted() {
    let hub = Running::start().await;
    let path = format!("/v1/agents/{}", hub.agent().await);
    let etag = hub.get(&path).await.etag.unwrap();
    let delete = async |etag: &str| {
        hub.send(Method::DELETE, &path, &[("x-api-key", ADMIN), ("if-match", etag)], None).await
    };
    let refused = delete("\"99\"").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::PRECONDITION_FAILED, "etag_mismatch"));
    assert_eq!(delete(&etag).await.status, StatusCode::OK);
    hub.stop().await;
}

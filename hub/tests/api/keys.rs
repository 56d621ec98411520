//! Keys, scopes and the border between workspaces, over HTTP.

use crate::support::{ADMIN, Running};
use hub::secrets::Secret;
use reqwest::{Method, StatusCode};
use serde_json::json;

async fn key(hub: &Running, scope: &str) -> (String, String) {
    let made = hub.post("/v1/api-keys", json!({ "name": scope, "scopes": [scope] })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    (made.text("id"), made.text("key"))
}

#[actix::test]
async fn a_key_is_shown_once_and_recognised_by_its_beginning() {
    let hub = Running::start().await;
    let (id, secret) = key(&hub, "read").await;
    assert!(secret.starts_with("pc_") && secret.len() == 46);
    let list = hub.get("/v1/api-keys").await;
    let shown = list.body.as_array().unwrap().iter().find(|key| key["id"] == id.as_str()).unwrap().clone();
    assert!(secret.starts_with(shown["prefix"].as_str().unwrap()));
    assert!(!list.body.to_string().contains(&secret));
    hub.stop().await;
}

#[actix::test]
async fn a_scope_opens_what_it_says_and_nothing_else() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    let tunnel = json!({ "target": "localhost:3000", "agentId": agent });
    let (_, read) = key(&hub, "read").await;
    let (_, write) = key(&hub, "write").await;
    let (_, agent_key) = key(&hub, "agent").await;
    let ask = async |secret: &str, method: Method, path: &str, body| {
        hub.send(method, path, &[("x-api-key", secret)], body).await.status
    };
    assert_eq!(ask(&read, Method::GET, "/v1/tunnels", None).await, StatusCode::OK);
    assert_eq!(ask(&read, Method::POST, "/v1/tunnels", Some(tunnel.clone())).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(&write, Method::POST, "/v1/tunnels", Some(tunnel.clone())).await, StatusCode::CREATED);
    assert_eq!(ask(&write, Method::GET, "/v1/api-keys", None).await, StatusCode::FORBIDDEN);
    assert_eq!(ask(&agent_key, Method::GET, "/v1/tunnels", None).await, StatusCode::FORBIDDEN);
    let register = Some(json!({ "label": "ci" }));
    assert_eq!(ask(&agent_key, Method::POST, "/v1/agents/register", register).await, StatusCode::CREATED);
    hub.stop().await;
}

#[actix::test]
async fn missing_wrong_and_revoked_credentials_are_401() {
    let hub = Running::start().await;
    let (id, secret) = key(&hub, "read").await;
    let status = async |headers: &[(&str, &str)]| hub.send(Method::GET, "/v1/tunnels", headers, None).await;
    let bearer = format!("Bearer {secret}");
    assert_eq!(status(&[("authorization", &bearer)]).await.status, StatusCode::OK);
    assert_eq!(status(&[]).await.code(), "credentials_missing");
    assert_eq!(status(&[("x-api-key", "pc_wrong")]).await.code(), "credentials_invalid");
    assert_eq!(status(&[("x-api-key", "")]).await.code(), "credentials_invalid");
    assert_eq!(status(&[("authorization", "Basic eDp5")]).await.code(), "credentials_invalid");
    let both = [("x-api-key", ADMIN), ("authorization", bearer.as_str())];
    assert_eq!(status(&both).await.code(), "credentials_invalid", "which of the two was meant?");
    assert_eq!(hub.delete(&format!("/v1/api-keys/{id}")).await.status, StatusCode::OK);
    assert_eq!(status(&[("x-api-key", &secret)]).await.status, StatusCode::UNAUTHORIZED);
    hub.stop().await;
}

#[actix::test]
async fn the_last_admin_key_stays() {
    let hub = Running::start().await;
    let list = hub.get("/v1/api-keys").await;
    let id = list.body[0]["id"].as_str().unwrap().to_owned();
    let refused = hub.delete(&format!("/v1/api-keys/{id}")).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "last_admin_key"));
    hub.stop().await;
}

#[actix::test]
async fn a_key_for_other_addresses_is_refused_here() {
    let hub = Running::start().await;
    let body = json!({ "name": "far", "scopes": ["read"], "allowedIpRanges": ["10.0.0.0/8"] });
    let secret = hub.post("/v1/api-keys", body).await.text("key");
    let answer = hub.send(Method::GET, "/v1/tunnels", &[("x-api-key", &secret)], None).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, "ip_not_allowed"));
    hub.stop().await;
}

#[actix::test]
async fn nothing_crosses_a_workspace_border() {
    let hub = Running::start().await;
    let other = hub.hub.core.create_workspace("other").await.unwrap();
    let secret = Secret::brought("pc_other0other0other0other0other0other0other0oth");
    let scopes = vec![domain::workspace::Scope::Admin];
    hub.hub.core.create_key(other, "other", scopes, None, Some(secret.clone())).await.unwrap();
    let tunnel = hub.tunnel("mine").await;
    let (id, agent) = (tunnel.text("id"), tunnel.text("agentId"));
    let share = hub.post(&format!("/v1/tunnels/{id}/share"), json!({ "name": "s" })).await.text("id");
    let before = hub.facts().await.len();
    let ask = async |method: Method, path: String, body: Option<serde_json::Value>| {
        hub.send(method, &path, &[("x-api-key", secret.reveal())], body).await
    };
    let unknown = "tun_00000000000000000000000000000000";
    for (method, path, body) in [
        (Method::GET, format!("/v1/tunnels/{id}"), None),
        (Method::PATCH, format!("/v1/tunnels/{id}"), Some(json!({ "status": "paused" }))),
        (Method::DELETE, format!("/v1/tunnels/{id}"), None),
        (Method::POST, format!("/v1/tunnels/{id}/share"), Some(json!({ "name": "x" }))),
        (Method::POST, format!("/v1/tunnels/{id}/connect"), Some(json!({ "agentId": agent }))),
        (Method::GET, format!("/v1/services/{id}/shares"), None),
        (Method::POST, format!("/v1/services/{id}/check"), Some(json!({}))),
        (Method::GET, format!("/v1/shares/{share}"), None),
        (Method::GET, format!("/v1/shares/{share}/logs"), None),
        (Method::DELETE, format!("/v1/shares/{share}"), None),
        (Method::GET, format!("/v1/agents/{agent}"), None),
        (Method::DELETE, format!("/v1/agents/{agent}"), None),
        (Method::POST, "/v1/tunnels".to_owned(), Some(json!({ "target": "a:1", "agentId": agent }))),
        (Method::POST, "/v1/agents/register".to_owned(), Some(json!({ "agentId": agent }))),
    ] {
        let answer = ask(method.clone(), path.clone(), body.clone()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {answer:?}");
        // A foreign id must be indistinguishable from an unknown one.
        if path.contains(&id) {
            let stranger = ask(method, path.replace(&id, unknown), body).await;
            let plain = |text: String| text.replace(&id, "ID").replace(unknown, "ID");
            assert_eq!(plain(answer.text("message")), plain(stranger.text("message")));
            assert_eq!(answer.code(), stranger.code());
        }
    }
    for path in ["/v1/tunnels", "/v1/agents"] {
        assert_eq!(ask(Method::GET, path.to_owned(), None).await.body, json!([]), "{path}");
    }
    assert_eq!(ask(Method::GET, "/v1/shares".to_owned(), None).await.body, json!({ "shares": [] }));
    assert_eq!(hub.facts().await.len(), before, "a foreigner's try records nothing");
    hub.stop().await;
}

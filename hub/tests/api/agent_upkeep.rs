//! Tokens, takeovers, signs of life, and what ends with a key.

use std::sync::Arc;

use agent_cli::agent::{AgentHandle, AgentOptions, TokenCell, UDP_IDLE_MS};
use hub::clock::{Clock as _, SetClock, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{ADMIN, Answer, Running, eventually};

const MINUTE_MS: i64 = 60_000;

/// A hub whose time is set, beginning now.
pub(crate) async fn hub_at() -> (Running, Arc<SetClock>) {
    let clock = SetClock::at(SystemClock.now());
    let hub = Running::start_at(TempDir::new().unwrap(), &[], clock.clone()).await;
    (hub, clock)
}

/// Runs the real agent, up to its first session.
pub(crate) async fn run(hub: &Running, id: &str, token: &str) -> AgentHandle {
    run_remembering(hub, id, token, None).await
}

pub(crate) async fn run_remembering(
    hub: &Running,
    id: &str,
    token: &str,
    remembers: Option<std::path::PathBuf>,
) -> AgentHandle {
    let handle = agent_cli::agent::start(AgentOptions {
        hub_url: hub.hub.api_url(),
        believing: wire::tls::trust::nobody(),
        agent_id: id.to_owned(),
        token: TokenCell::new(token),
        host_name: "a-machine".to_owned(),
        instance: uuid::Uuid::new_v4(),
        agent_version: "1.2.3".to_owned(),
        allow_loopback: true,
        udp_idle_ms: UDP_IDLE_MS,
        identity: wire::sealed::handshake::Identity::generate(),
        known: Arc::new(agent_cli::agent::trust::InMemory::default()),
        remembers,
    });
    eventually("the agent is online", || is_online(hub, id)).await;
    handle
}

pub(crate) async fn is_online(hub: &Running, id: &str) -> bool {
    hub.get(&format!("/v1/agents/{id}")).await.body["status"] == "online"
}

pub(crate) async fn register(hub: &Running, key: &str) -> (String, String) {
    let headers = [("x-api-key", key)];
    let made = hub.send(Method::POST, "/v1/agents/register", &headers, Some(json!({ "label": "m" }))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    (made.text("agentId"), made.text("token"))
}

async fn rotate(hub: &Running, id: &str, token: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "agentId": id, "currentToken": token });
    hub.send(Method::POST, "/v1/agents/rotate-token", headers, Some(body)).await
}

async fn is_good(hub: &Running, token: &str) -> bool {
    let answer = hub.send(Method::GET, "/v1/whoami", &[("x-api-key", token)], None).await;
    answer.status == StatusCode::OK
}

async fn key(hub: &Running, body: serde_json::Value) -> (String, String) {
    let made = hub.post("/v1/api-keys", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    (made.text("id"), made.text("key"))
}

#[actix::test]
async fn a_rotated_token_is_good_and_the_former_one_for_the_grace_period() {
    let (hub, clock) = hub_at().await;
    let (id, former) = register(&hub, ADMIN).await;
    let rotated = rotate(&hub, &id, &former, &[]).await;
    assert_eq!(rotated.status, StatusCode::OK, "{rotated:?}");
    assert_eq!(rotated.text("agentId"), id);
    let token = rotated.text("token");
    assert!(token != former && is_good(&hub, &token).await && is_good(&hub, &former).await);
    clock.advance_ms(5 * MINUTE_MS);
    assert!(is_good(&hub, &token).await && !is_good(&hub, &former).await);
    hub.stop().await;
}

#[actix::test]
async fn a_rotation_whose_answer_was_lost_is_repeated_also_after_a_restart() {
    let hub = Running::start().await;
    let (id, former) = register(&hub, ADMIN).await;
    let key = [("idempotency-key", "rotate-1")];
    let token = rotate(&hub, &id, &former, &key).await.text("token");
    let hub = hub.restart().await;
    let again = rotate(&hub, &id, &former, &key).await;
    assert_eq!((again.status, again.text("token")), (StatusCode::OK, token));
    hub.stop().await;
}

#[actix::test]
async fn only_the_current_token_of_that_agent_rotates() {
    let hub = Running::start().await;
    let (id, former) = register(&hub, ADMIN).await;
    let (other, others_token) = register(&hub, ADMIN).await;
    let token = rotate(&hub, &id, &former, &[]).await.text("token");
    let before = hub.facts().await.len();
    for (id, token) in [
        (&id, "pca_wrong"),
        (&id, former.as_str()),
        (&id, others_token.as_str()),
        (&other, token.as_str()),
        (&id, ADMIN),
    ] {
        let refused = rotate(&hub, id, token, &[]).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "invalid_agent_token"));
    }
    let no_id = rotate(&hub, "x", &token, &[]).await;
    assert_eq!(no_id.status, StatusCode::BAD_REQUEST);
    assert_eq!(hub.facts().await.len(), before);
    hub.stop().await;
}

#[actix::test]
async fn a_provisioned_agent_ends_when_it_was_to_end_whatever_it_rotates() {
    let hub = Running::start().await;
    let body = json!({ "clientType": "cli", "ttlSeconds": 300 });
    let made = hub.post("/v1/agents/provision", body).await;
    let rotated = rotate(&hub, &made.text("agentId"), &made.text("token"), &[]).await;
    assert_eq!(rotated.text("expiresAt"), made.text("expiresAt"));
    hub.stop().await;
}

#[actix::test]
async fn a_session_goes_on_when_its_token_is_rotated() {
    let (hub, clock) = hub_at().await;
    let (rotating, registering) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    let handle = run(&hub, &rotating.0, &rotating.1).await;
    let other = run(&hub, &registering.0, &registering.1).await;
    let epoch = hub.hub.core.routes.agent(rotating.0.parse().unwrap()).unwrap().state.epoch;
    rotate(&hub, &rotating.0, &rotating.1, &[]).await;
    hub.post("/v1/agents/register", json!({ "agentId": registering.0 })).await;
    clock.advance_ms(6 * MINUTE_MS);
    // Whose token was replaced by somebody with a key is cut: then everybody has been looked at.
    eventually("the other one is cut", || async { !is_online(&hub, &registering.0).await }).await;
    assert!(is_online(&hub, &rotating.0).await);
    let now = hub.hub.core.routes.agent(rotating.0.parse().unwrap()).unwrap().state.epoch;
    assert_eq!(now, epoch, "the same session");
    handle.stop().await;
    other.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_key_that_only_runs_agents_takes_over_its_own_and_no_others() {
    let hub = Running::start().await;
    let agent = |name: &str| json!({ "name": name, "scopes": ["agent"] });
    let (_, mine) = key(&hub, agent("mine")).await;
    let (_, theirs) = key(&hub, agent("theirs")).await;
    let (_, write) = key(&hub, json!({ "name": "w", "scopes": ["write"] })).await;
    let (id, token) = register(&hub, &mine).await;
    let take = async |secret: &str| {
        let body = json!({ "agentId": id, "label": "taken" });
        hub.send(Method::POST, "/v1/agents/register", &[("x-api-key", secret)], Some(body)).await
    };
    let refused = take(&theirs).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "agent_not_yours"));
    assert!(is_good(&hub, &token).await);
    assert_eq!(hub.get(&format!("/v1/agents/{id}")).await.text("label"), "m", "nothing changed");
    assert_eq!(take(&mine).await.status, StatusCode::OK, "it comes back with its own key");
    assert_eq!(take(&write).await.status, StatusCode::OK, "who may change agents moves any");
    assert_eq!(take(&mine).await.code(), "agent_not_yours", "it is the other key's now");
    hub.stop().await;
}

#[actix::test]
async fn a_heartbeat_makes_an_agent_seen_and_says_what_waits() {
    let (hub, clock) = hub_at().await;
    let (_, agent_key) = key(&hub, json!({ "name": "a", "scopes": ["agent"] })).await;
    let (id, token) = register(&hub, &agent_key).await;
    let (stranger, _) = register(&hub, ADMIN).await;
    let beat = async |secret: &str, body| {
        hub.send(Method::POST, "/v1/agents/heartbeat", &[("x-api-key", secret)], Some(body)).await
    };
    hub.post(&format!("/v1/agents/{id}/command"), json!({ "action": "status" })).await;
    clock.advance_ms(MINUTE_MS);
    let own = beat(&token, json!({ "agentId": id })).await;
    assert_eq!(own.status, StatusCode::OK, "{own:?}");
    assert_eq!((&own.body["status"], &own.body["pendingCommands"]), (&json!("offline"), &json!(1)));
    assert_eq!((&own.body["rotateToken"], &own.body["unreadMessages"]), (&json!(false), &json!(0)));
    assert_eq!(hub.get(&format!("/v1/agents/{id}")).await.text("lastSeenAt"), own.text("serverTime"));
    for secret in [agent_key.as_str(), ADMIN, token.as_str()] {
        assert_eq!(beat(secret, json!({ "agentId": id })).await.status, StatusCode::OK);
        assert_eq!(beat(secret, json!({})).await.status, StatusCode::BAD_REQUEST);
    }
    for secret in [agent_key.as_str(), token.as_str()] {
        let refused = beat(secret, json!({ "agentId": stranger })).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "agent_not_yours"));
    }
    clock.advance_ms(25 * 24 * 60 * MINUTE_MS);
    let late = beat(&token, json!({ "agentId": id })).await;
    assert_eq!(late.body["rotateToken"], true, "five of thirty days are left");
    hub.stop().await;
}

#[actix::test]
async fn sessions_and_agents_end_with_their_key_revoked_or_expired() {
    let (hub, clock) = hub_at().await;
    let (revoked, secret) = key(&hub, json!({ "name": "r", "scopes": ["agent"] })).await;
    let (_, expiring) = key(&hub, json!({ "name": "e", "scopes": ["agent"], "expiresIn": "1h" })).await;
    let (under_revoked, first) = register(&hub, &secret).await;
    let (under_expiring, second) = register(&hub, &expiring).await;
    // A rotation does not lead away from the key.
    let second = rotate(&hub, &under_expiring, &second, &[]).await.text("token");
    let (lasting, third) = register(&hub, ADMIN).await;
    let handles = [
        run(&hub, &under_revoked, &first).await,
        run(&hub, &under_expiring, &second).await,
        run(&hub, &lasting, &third).await,
    ];
    assert_eq!(hub.delete(&format!("/v1/api-keys/{revoked}")).await.status, StatusCode::OK);
    eventually("the revoked key's agent is cut", || async { !is_online(&hub, &under_revoked).await }).await;
    assert!(!is_good(&hub, &first).await && is_online(&hub, &under_expiring).await);
    clock.advance_ms(60 * MINUTE_MS);
    eventually("the expired key's agent is cut", || async { !is_online(&hub, &under_expiring).await }).await;
    assert!(!is_good(&hub, &second).await);
    assert!(is_online(&hub, &lasting).await && is_good(&hub, &third).await);
    for handle in handles {
        handle.stop().await;
    }
    hub.stop().await;
}

#[actix::test]
async fn agents_are_found_by_what_they_offer() {
    let hub = Running::start().await;
    let (_, agent_key) = key(&hub, json!({ "name": "a", "scopes": ["agent"] })).await;
    let ((one, token), (two, _)) = (register(&hub, &agent_key).await, register(&hub, ADMIN).await);
    let offer = async |secret: &str, id: &str, capabilities| {
        let body = json!({ "capabilities": capabilities });
        let path = format!("/v1/agents/{id}/capabilities");
        hub.send(Method::POST, &path, &[("x-api-key", secret)], Some(body)).await
    };
    let gpu = json!([{ "name": "gpu", "metadata": { "memory": 24 } }, { "name": "deploy" }]);
    let set = offer(&token, &one, gpu).await;
    assert_eq!(set.status, StatusCode::OK, "{set:?}");
    assert_eq!(
        set.body["capabilities"],
        json!([{ "name": "deploy" }, { "name": "gpu", "metadata": { "memory": 24 } }])
    );
    assert_eq!(offer(ADMIN, &two, json!([{ "name": "gpu" }])).await.status, StatusCode::OK);
    let found = async |secret: &str, query: &str| {
        let path = format!("/v1/agents/by-capability/{query}");
        hub.send(Method::GET, &path, &[("x-api-key", secret)], None).await
    };
    let ids = |answer: &Answer| -> Vec<String> {
        answer.body.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut both = [one.clone(), two.clone()];
    both.sort();
    assert_eq!(ids(&found(ADMIN, "gpu").await), both);
    assert_eq!(ids(&found(&token, "deploy").await), [one.as_str()], "agents look for each other");
    let first = found(ADMIN, "gpu?limit=1").await;
    assert!(first.link.is_some() && ids(&first) == both[..1]);
    assert_eq!(ids(&found(ADMIN, "gpu?online=true").await), [""; 0]);
    assert_eq!(ids(&found(ADMIN, "nothing").await), [""; 0]);
    assert_eq!(offer(&token, &one, json!([])).await.body["capabilities"], json!([]), "replaced as a whole");
    assert_eq!(ids(&found(ADMIN, "gpu").await), [two.as_str()]);
    assert_eq!(offer(&token, &two, json!([])).await.code(), "agent_not_yours");
    for wrong in [json!([{ "name": "" }]), json!([{ "name": "a" }, { "name": "a" }])] {
        let refused = offer(ADMIN, &one, wrong).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "validation_failed"));
    }
    hub.delete(&format!("/v1/agents/{two}")).await;
    assert_eq!(ids(&found(ADMIN, "gpu").await), [""; 0], "it is gone");
    hub.stop().await;
}

#[actix::test]
async fn an_agents_history_is_paged_newest_first_and_shows_no_hash() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    for label in ["a", "b", "c"] {
        hub.post("/v1/agents/register", json!({ "agentId": id, "label": label })).await;
    }
    let handle = {
        let again = hub.post("/v1/agents/register", json!({ "agentId": id })).await;
        run(&hub, &id, &again.text("token")).await
    };
    let path = format!("/v1/agents/{id}/audit-logs");
    let all = hub.get(&path).await;
    assert_eq!(all.status, StatusCode::OK, "{all:?}");
    let types: Vec<_> = all.body["logs"].as_array().unwrap().iter().map(|log| log["type"].clone()).collect();
    let issued = "agent.token_issued";
    assert_eq!(types, ["agent.connected", issued, issued, issued, issued, "agent.registered"]);
    assert!(!all.body.to_string().contains("Hash") && !all.body.to_string().contains(&token));
    let mut paged = Vec::new();
    let mut next = Some(format!("{path}?limit=4"));
    while let Some(path) = next {
        let page = hub.get(&path).await;
        paged.extend(page.body["logs"].as_array().unwrap().clone());
        next = page.link.map(|link| link[1..link.find('>').unwrap()].to_owned());
    }
    assert_eq!(&paged, all.body["logs"].as_array().unwrap());
    assert_eq!(hub.get(&format!("{path}?cursor=x")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(hub.get(&format!("{path}?cursor=0")).await.status, StatusCode::BAD_REQUEST);
    let beyond = hub.get(&format!("{path}?cursor=9999999999999999999")).await;
    assert_eq!(beyond.body, hub.get(&path).await.body, "beyond the newest are the newest");
    handle.stop().await;
    hub.stop().await;
}

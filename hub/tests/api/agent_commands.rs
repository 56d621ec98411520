//! Commands to agents: carried out by the real agent, waiting for one that is away, refused, expired.

use std::net::TcpListener;

use agent_cli::agent::AgentStatus;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    agent_upkeep::{hub_at, is_online, register, run, run_remembering},
    support::{ADMIN, Answer, Running, eventually},
};

async fn send(hub: &Running, agent: &str, body: Value) -> Answer {
    let sent = hub.post(&format!("/v1/agents/{agent}/command"), body).await;
    assert_eq!(sent.status, StatusCode::CREATED, "{sent:?}");
    assert_eq!(sent.body["success"], true);
    sent
}

async fn look(hub: &Running, agent: &str, command: &str) -> Answer {
    hub.get(&format!("/v1/agents/{agent}/commands/{command}")).await
}

/// What became of a command, once something has.
async fn ended(hub: &Running, agent: &str, command: &str) -> Value {
    eventually("the command has ended", || async {
        let status = look(hub, agent, command).await.text("status");
        !["queued", "delivered"].contains(&status.as_str())
    })
    .await;
    look(hub, agent, command).await.body
}

/// Sends a command and waits for its end.
async fn told(hub: &Running, agent: &str, body: Value) -> Value {
    let id = send(hub, agent, body).await.text("commandId");
    ended(hub, agent, &id).await
}

#[actix::test]
async fn a_connected_agent_does_what_it_is_told_and_says_what_came_of_it() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    let handle = run(&hub, &id, &token).await;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target.local_addr().unwrap();

    let exposed = told(
        &hub,
        &id,
        json!({ "action": "expose", "params": { "target": target.to_string(), "name": "web", "protocol": "tcp" } }),
    )
    .await;
    assert_eq!(exposed["status"], "done", "{exposed}");
    let tunnel = exposed["result"]["tunnelId"].as_str().unwrap().to_owned();
    eventually("its tunnel is active", || async {
        hub.get(&format!("/v1/tunnels/{tunnel}")).await.body["status"] == "active"
    })
    .await;
    let again = told(
        &hub,
        &id,
        json!({ "action": "expose", "params": { "target": target.to_string(), "name": "web" } }),
    )
    .await;
    assert_eq!(again["result"]["tunnelId"], tunnel.as_str(), "its own service of that name is brought there");

    let reached =
        told(&hub, &id, json!({ "action": "reach", "params": { "service": "web", "port": 0 } })).await;
    assert_eq!(reached["status"], "done", "{reached}");
    let local = u16::try_from(reached["result"]["localPort"].as_u64().unwrap()).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", local)).is_ok(), "somebody listens");
    let taken =
        told(&hub, &id, json!({ "action": "reach", "params": { "service": tunnel, "port": target.port() } }))
            .await;
    assert_eq!(taken["error"]["code"], "local_port_taken", "{taken}");

    let status = told(&hub, &id, json!({ "action": "status" })).await;
    assert_eq!(status["result"]["agentVersion"], "1.2.3", "{status}");
    assert_eq!(status["result"]["tunnels"][0]["tunnelId"], tunnel.as_str());
    assert_eq!(status["result"]["ports"][0]["localPort"], local);

    let listed = hub.get(&format!("/v1/agents/{id}/commands?limit=2")).await;
    let actions: Vec<_> =
        listed.body["commands"].as_array().unwrap().iter().map(|it| it["action"].clone()).collect();
    assert_eq!(actions, ["status", "reach"], "newest first");
    assert!(listed.link.is_some());
    let facts = hub.facts().await;
    for fact in ["command.queued", "command.delivered", "command.finished"] {
        assert_eq!(facts.iter().filter(|known| *known == fact).count(), 5, "{fact}");
    }
    handle.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn what_the_agents_owner_does_not_allow_is_refused_there_and_leaves_no_tunnel() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    let handle = run(&hub, &id, &token).await;
    let refused = told(&hub, &id, json!({ "action": "expose", "params": { "target": "10.0.0.1:22" } })).await;
    assert_eq!(
        (&refused["status"], &refused["error"]["code"]),
        (&json!("failed"), &json!("target_not_allowed"))
    );
    assert_eq!(hub.get("/v1/tunnels").await.body, json!([]));
    handle.allow("10.0.0.1", 22);
    let allowed = told(&hub, &id, json!({ "action": "expose", "params": { "target": "10.0.0.1:22" } })).await;
    assert_eq!(allowed["status"], "done", "{allowed}");
    let other = hub.tunnel("theirs").await;
    let theirs = json!({ "action": "expose", "params": { "target": "localhost:1", "name": "theirs" } });
    let taken = told(&hub, &id, theirs).await;
    assert_eq!(
        taken["error"]["code"], "tunnel_name_taken",
        "no service of another agent is moved: {other:?}"
    );
    handle.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_command_waits_for_its_agent_across_a_restart_of_the_hub() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    let sent = send(&hub, &id, json!({ "action": "status" })).await;
    assert_eq!(sent.body["agentOnline"], false);
    let command = sent.text("commandId");
    let hub = hub.restart().await;
    assert_eq!(look(&hub, &id, &command).await.text("status"), "queued");
    let handle = run(&hub, &id, &token).await;
    assert_eq!(ended(&hub, &id, &command).await["status"], "done");
    handle.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_command_that_nobody_came_for_expires_and_is_not_carried_out() {
    let (hub, clock) = hub_at().await;
    let (id, token) = register(&hub, ADMIN).await;
    let command = send(&hub, &id, json!({ "action": "stop", "ttlSeconds": 10 })).await.text("commandId");
    clock.advance_ms(10_000);
    assert_eq!(look(&hub, &id, &command).await.text("status"), "expired");
    eventually("it is a fact", || async { hub.facts().await.contains(&"command.expired".to_owned()) }).await;
    let handle = run(&hub, &id, &token).await;
    assert_eq!(told(&hub, &id, json!({ "action": "status" })).await["status"], "done");
    assert!(is_online(&hub, &id).await, "it was not stopped");
    assert_eq!(look(&hub, &id, &command).await.text("status"), "expired");
    handle.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_restart_brings_the_agent_back_with_its_tunnels_and_a_stop_ends_it() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    let handle = run(&hub, &id, &token).await;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let body =
        json!({ "target": target.local_addr().unwrap().to_string(), "agentId": id, "protocol": "tcp" });
    let tunnel = hub.post("/v1/tunnels", body).await.text("id");
    let epoch = |handle: &agent_cli::agent::AgentHandle| match *handle.status().borrow() {
        AgentStatus::Connected { epoch } => epoch,
        AgentStatus::Connecting { .. } | AgentStatus::Refused { .. } | AgentStatus::Stopped => 0,
    };
    let before = epoch(&handle);
    let restarted = told(&hub, &id, json!({ "action": "restart" })).await;
    assert_eq!(restarted["status"], "done", "{restarted}");
    assert!(restarted["result"]["epoch"].as_u64().unwrap() > before);
    eventually("its tunnel is back", || async {
        hub.get(&format!("/v1/tunnels/{tunnel}")).await.body["status"] == "active"
    })
    .await;

    let stopped = told(&hub, &id, json!({ "action": "stop" })).await;
    assert_eq!(stopped["status"], "done", "{stopped}");
    eventually("it is gone", || async { !is_online(&hub, &id).await }).await;
    eventually("it says why", || async { *handle.status().borrow() == AgentStatus::Stopped }).await;
    hub.stop().await;
}

#[actix::test]
async fn a_command_is_not_carried_out_again_by_the_agents_next_process() {
    let hub = Running::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("commands.json");
    let (id, token) = register(&hub, ADMIN).await;
    let command = send(&hub, &id, json!({ "action": "stop" })).await.text("commandId");
    // As a process leaves it that was killed in the middle.
    let bare = uuid::Uuid::try_parse(command.strip_prefix("cmd_").unwrap()).unwrap();
    std::fs::write(&file, json!([{ "command": bare }]).to_string()).unwrap();
    let handle = run_remembering(&hub, &id, &token, Some(file)).await;
    let doubtful = ended(&hub, &id, &command).await;
    assert_eq!((&doubtful["status"], &doubtful["error"]["code"]), (&json!("failed"), &json!("in_doubt")));
    assert!(is_online(&hub, &id).await);
    handle.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn only_so_many_commands_wait_and_a_repeated_request_is_one_command() {
    let hub = Running::start().await;
    let id = hub.agent().await;
    let path = format!("/v1/agents/{id}/command");
    let again = async || {
        let headers = [("x-api-key", ADMIN), ("idempotency-key", "once")];
        hub.send(Method::POST, &path, &headers, Some(json!({ "action": "status" }))).await
    };
    let first = again().await.text("commandId");
    for _ in 1..100 {
        send(&hub, &id, json!({ "action": "status" })).await;
    }
    let full = hub.post(&path, json!({ "action": "status" })).await;
    assert_eq!((full.status, full.code()), (StatusCode::CONFLICT, "commands_full"));
    assert_eq!(again().await.text("commandId"), first, "that one waits already");
    assert_eq!(
        hub.get(&format!("/v1/agents/{id}/commands")).await.body["commands"].as_array().unwrap().len(),
        100
    );
    hub.stop().await;
}

#[actix::test]
async fn a_command_is_checked_before_anything_is_recorded() {
    let hub = Running::start().await;
    let id = hub.agent().await;
    let before = hub.facts().await.len();
    for (body, field) in [
        (json!({ "action": "dance" }), "action"),
        (json!({ "action": "stop", "params": { "now": true } }), "params.now"),
        (json!({ "action": "expose" }), "params.target"),
        (json!({ "action": "expose", "params": { "target": "nowhere" } }), "params.target"),
        (json!({ "action": "expose", "params": { "target": 7 } }), "params.target"),
        (json!({ "action": "expose", "params": { "target": "a:1", "protocol": "quic" } }), "params.protocol"),
        (json!({ "action": "expose", "params": { "target": "a:1", "name": "" } }), "params.name"),
        (json!({ "action": "expose", "params": { "target": "a:1", "colour": 1 } }), "params.colour"),
        (json!({ "action": "reach" }), "params.service"),
        (json!({ "action": "reach", "params": { "service": "x", "port": 70_000 } }), "params.port"),
        (json!({ "action": "reach", "params": { "service": "x", "port": 80.5 } }), "params.port"),
        (json!({ "action": "reach", "params": { "service": "x", "port": 80.0 } }), ""),
        (json!({ "action": "status", "ttlSeconds": 1 }), "ttlSeconds"),
        (json!({ "action": "status", "colour": 1 }), "colour"),
    ] {
        let refused = hub.post(&format!("/v1/agents/{id}/command"), body.clone()).await;
        if field.is_empty() {
            assert_eq!(
                (refused.status, refused.code()),
                (StatusCode::NOT_FOUND, "tunnel_not_found"),
                "{body}"
            );
        } else {
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(refused.body["details"][0]["field"], field, "{body}");
        }
    }
    assert_eq!(hub.facts().await.len(), before);
    hub.stop().await;
}

#[actix::test]
async fn commands_are_sent_by_who_may_write_and_seen_within_the_workspace() {
    let hub = Running::start().await;
    let (id, token) = register(&hub, ADMIN).await;
    let (other, _) = register(&hub, ADMIN).await;
    let command = send(&hub, &id, json!({ "action": "status" })).await.text("commandId");
    let unknown = "cmd_00000000000000000000000000000000";
    let own = [("x-api-key", token.as_str())];
    let path = format!("/v1/agents/{id}/commands/{command}");
    assert_eq!(
        hub.send(Method::GET, &path, &own, None).await.status,
        StatusCode::OK,
        "an agent sees its own"
    );
    let body = Some(json!({ "action": "stop" }));
    let by_agent = hub.send(Method::POST, &format!("/v1/agents/{id}/command"), &own, body).await;
    assert_eq!((by_agent.status, by_agent.code()), (StatusCode::FORBIDDEN, "scope_missing"));
    for (agent, command) in [(&other, command.as_str()), (&id, unknown), (&id, "x")] {
        let missing = look(&hub, agent, command).await;
        assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, "command_not_found"));
    }
    let foreign = hub.hub.core.create_workspace("other").await.unwrap();
    let secret = hub::secrets::Secret::brought("pc_other0other0other0other0other0other0other0oth");
    let scopes = vec![domain::workspace::Scope::Admin];
    hub.hub.core.create_key(foreign, "other", scopes, None, Some(secret.clone())).await.unwrap();
    let headers = [("x-api-key", secret.reveal())];
    for (method, path, body) in [
        (Method::POST, format!("/v1/agents/{id}/command"), Some(json!({ "action": "stop" }))),
        (Method::GET, format!("/v1/agents/{id}/commands"), None),
        (Method::GET, format!("/v1/agents/{id}/commands/{command}"), None),
        (Method::POST, format!("/v1/agents/{id}/capabilities"), Some(json!({ "capabilities": [] }))),
        (Method::GET, format!("/v1/agents/{id}/messages"), None),
        (
            Method::POST,
            format!("/v1/agents/{id}/messages/send"),
            Some(json!({ "toAgentId": id, "payload": 1 })),
        ),
        (Method::POST, format!("/v1/agents/{id}/messages/broadcast"), Some(json!({ "payload": 1 }))),
        (Method::POST, format!("/v1/agents/{id}/messages/read"), Some(json!({}))),
        (Method::GET, format!("/v1/agents/{id}/audit-logs"), None),
        (Method::POST, "/v1/agents/heartbeat".to_owned(), Some(json!({ "agentId": id }))),
    ] {
        let stranger = "00000000-0000-7000-8000-000000000000";
        let answer = hub.send(method.clone(), &path, &headers, body.clone()).await;
        let body = body.map(|body| serde_json::from_str(&body.to_string().replace(&id, stranger)).unwrap());
        let missing = hub.send(method.clone(), &path.replace(&id, stranger), &headers, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::NOT_FOUND, "agent_not_found"),
            "{method} {path}"
        );
        let plain = |answer: &Answer| answer.text("message").replace(&id, "ID").replace(stranger, "ID");
        assert_eq!(plain(&answer), plain(&missing), "{method} {path}");
    }
    hub.stop().await;
}

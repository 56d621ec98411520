//! Environment shares over HTTP, with agents that really listen: share, join, approve, end, come back.

use std::sync::Arc;

use domain::time::Timestamp;
use futures_util::future::join_all;
use hub::clock::SetClock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    machines::{Machine, closed, get, serves, web_server},
    support::{ADMIN, Answer, Running, eventually},
};

/// A hub with two machines; the first exposes a web server and shared it.
pub(crate) struct Shared {
    pub(crate) hub: Running,
    alice: Machine,
    pub(crate) bob: Machine,
    code: String,
}

impl Shared {
    pub(crate) async fn new(extra: Value) -> Self {
        Self::on(Running::start().await, extra).await
    }

    pub(crate) async fn on(hub: Running, extra: Value) -> Self {
        let (alice, bob) = (Machine::new(&hub, "alice").await, Machine::new(&hub, "bob").await);
        alice.expose(&hub, web_server().await, "web", "http").await;
        let mut body = json!({ "agentId": alice.id });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let made = hub.post("/v1/env-shares", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let code = made.text("code");
        Self { hub, alice, bob, code }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/env-shares/{}{rest}", self.code)
    }

    async fn join(&self, agent: &str) -> Answer {
        self.hub.post(&self.path("/join"), json!({ "agentId": agent })).await
    }

    /// The local port of the one route.
    async fn joined(&self) -> u16 {
        let joined = self.join(&self.bob.id).await;
        assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
        port_of(&joined)
    }

    async fn count(&self, event_type: &str) -> usize {
        self.hub.facts().await.iter().filter(|it| *it == event_type).count()
    }

    pub(crate) async fn stop(self) {
        self.alice.stop().await;
        self.bob.stop().await;
        self.hub.stop().await;
    }
}

fn port_of(joined: &Answer) -> u16 {
    u16::try_from(joined.body["routes"][0]["localPort"].as_u64().unwrap()).unwrap()
}

/// A key with a scope.
pub(crate) async fn key(hub: &Running, scope: &str) -> String {
    hub.post("/v1/api-keys", json!({ "name": scope, "scopes": [scope] })).await.text("key")
}

pub(crate) async fn ask(hub: &Running, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    hub.send(method, path, &[("x-api-key", key)], body).await
}

#[actix::test]
async fn an_environment_that_was_shared_is_used_on_another_machine_until_it_is_revoked() {
    let shared = Shared::new(json!({ "name": "Bug #123" })).await;
    let hub = &shared.hub;
    assert_eq!(shared.code.len(), 6);
    // Case and spaces do not matter.
    let typed = format!(" {} {} ", shared.code[..3].to_uppercase(), &shared.code[3..]).replace(' ', "%20");
    let looked = hub.get(&format!("/v1/env-shares/{typed}")).await;
    assert_eq!((looked.status, looked.text("code")), (StatusCode::OK, shared.code.clone()));
    let joined = hub.post(&format!("/v1/env-shares/{typed}/join"), json!({ "agentId": shared.bob.id })).await;
    assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
    assert_eq!((joined.text("status"), joined.text("name")), ("joined".to_owned(), "Bug #123".to_owned()));
    let port = port_of(&joined);
    assert!(get(port).await.unwrap().ends_with("ok"));
    assert_eq!(port_of(&shared.join(&shared.bob.id).await), port, "asked again, answered alike");
    assert_eq!(shared.count("environment.joined").await, 1);

    let list = hub.get("/v1/env-shares").await;
    assert_eq!(list.body[0]["code"], shared.code.as_str());
    assert_eq!(list.body[0]["joined"][0]["name"], "bob");
    assert_eq!(list.body[0]["routes"][0]["name"], "web");

    assert_eq!(hub.delete(&shared.path("")).await.status, StatusCode::OK);
    closed(port).await;
    assert_eq!(hub.get(&shared.path("")).await.code(), "environment_not_found");
    assert_eq!(shared.join(&shared.bob.id).await.status, StatusCode::NOT_FOUND);
    assert_eq!(hub.get("/v1/env-shares").await.body, json!([]));
    shared.stop().await;
}

#[actix::test]
async fn no_event_holds_a_code() {
    let shared = Shared::new(json!({})).await;
    shared.joined().await;
    let families = domain::recorded::Families::ALL;
    let events = shared.hub.hub.core.log.read_all(0, families, 100_000).await.unwrap();
    assert!(events.iter().any(|event| &*event.event_type == "environment.shared"));
    for event in events {
        // Six characters can stand in some digest by chance; a code stands in quotes or not at all.
        assert!(!event.data.contains(&format!("\"{}\"", shared.code)), "{event:?}");
    }
    shared.stop().await;
}

#[actix::test]
async fn without_an_active_tunnel_there_is_nothing_to_share() {
    let hub = Running::start().await;
    let machine = Machine::new(&hub, "alice").await;
    let create = async |agent: &str| hub.post("/v1/env-shares", json!({ "agentId": agent })).await;
    let none = create(&machine.id).await;
    assert_eq!((none.status, none.code()), (StatusCode::BAD_REQUEST, "nothing_to_share"));
    let tunnel = machine.expose(&hub, web_server().await, "web", "http").await;
    let path = format!("/v1/tunnels/{}", tunnel.text("id"));
    assert_eq!(hub.patch(&path, json!({ "status": "paused" })).await.status, StatusCode::OK);
    assert_eq!(create(&machine.id).await.code(), "nothing_to_share", "a paused one is not active");
    hub.patch(&path, json!({ "status": "active" })).await;
    let made = create(&machine.id).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.body["routes"].as_array().unwrap().len(), 1);
    machine.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn what_is_asked_for_is_checked_field_by_field() {
    let hub = Running::start().await;
    let agent = hub.agent().await;
    for (body, field) in [
        (json!({ "agentId": agent, "expiresIn": "8d" }), "expiresIn"),
        (json!({ "agentId": agent, "expiresIn": "never" }), "expiresIn"),
        (json!({ "agentId": agent, "expiresIn": "soon" }), "expiresIn"),
        (json!({ "agentId": agent, "name": "" }), "name"),
        (json!({ "agentId": agent, "colour": "red" }), "colour"),
        (json!({}), "agentId"),
    ] {
        let answer = hub.post("/v1/env-shares", body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.body["details"][0]["field"], field, "{body}");
    }
    let unknown = hub.post("/v1/env-shares", json!({ "agentId": "nobody" })).await;
    assert_eq!(unknown.code(), "agent_not_found");
    hub.stop().await;
}

#[actix::test]
async fn with_approval_a_join_waits_until_the_owner_decides() {
    let shared = Shared::new(json!({ "requireApproval": true })).await;
    let hub = &shared.hub;
    let asked = shared.join(&shared.bob.id).await;
    assert_eq!((asked.status, asked.text("status").as_str()), (StatusCode::ACCEPTED, "pending"));
    assert!(asked.body.get("routes").is_none(), "nothing is told before");
    let pending = hub.get(&shared.path("/pending")).await;
    assert_eq!(pending.body[0]["agentId"], shared.bob.id.as_str());
    let body = || json!({ "agentId": shared.bob.id });
    let approved = hub.post(&shared.path("/approve"), body()).await;
    assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
    assert_eq!(hub.get(&shared.path("/pending")).await.body, json!([]));
    serves(shared.joined().await).await;
    assert_eq!(hub.post(&shared.path("/deny"), body()).await.code(), "not_pending");

    let carol = Machine::new(hub, "carol").await;
    assert_eq!(shared.join(&carol.id).await.status, StatusCode::ACCEPTED);
    assert_eq!(hub.post(&shared.path("/deny"), json!({ "agentId": carol.id })).await.status, StatusCode::OK);
    let denied = shared.join(&carol.id).await;
    assert_eq!((denied.status, denied.code()), (StatusCode::FORBIDDEN, "join_denied"));
    carol.stop().await;
    shared.stop().await;
}

#[actix::test]
async fn only_the_owner_decides_and_lists() {
    let shared = Shared::new(json!({ "requireApproval": true })).await;
    let hub = &shared.hub;
    let other = key(hub, "write").await;
    let body = || Some(json!({ "agentId": shared.bob.id }));
    let joined = ask(hub, &other, Method::POST, &shared.path("/join"), body()).await;
    assert_eq!(joined.status, StatusCode::ACCEPTED, "whoever has the code may ask");
    for (method, rest, body) in [
        (Method::GET, "/pending", None),
        (Method::POST, "/approve", body()),
        (Method::POST, "/deny", body()),
        (Method::DELETE, "", None),
    ] {
        let answer = ask(hub, &other, method.clone(), &shared.path(rest), body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "not_the_owner"),
            "{method} {rest}"
        );
    }
    assert_eq!(ask(hub, &other, Method::GET, "/v1/env-shares", None).await.body, json!([]));
    // One's own is listed and revoked.
    let create = Some(json!({ "agentId": shared.alice.id }));
    let own = ask(hub, &other, Method::POST, "/v1/env-shares", create).await;
    let list = ask(hub, &other, Method::GET, "/v1/env-shares", None).await;
    assert_eq!(list.body.as_array().unwrap().len(), 1);
    assert_eq!(hub.get("/v1/env-shares").await.body.as_array().unwrap().len(), 2, "an admin sees all");
    let path = format!("/v1/env-shares/{}", own.text("code"));
    assert_eq!(ask(hub, &other, Method::DELETE, &path, None).await.status, StatusCode::OK);
    shared.stop().await;
}

#[actix::test]
async fn of_many_decisions_at_once_exactly_one_wins() {
    let shared = Shared::new(json!({ "requireApproval": true })).await;
    assert_eq!(shared.join(&shared.bob.id).await.status, StatusCode::ACCEPTED);
    let decide = async |n: usize| {
        let rest = if n.is_multiple_of(2) { "/approve" } else { "/deny" };
        let answer = shared.hub.post(&shared.path(rest), json!({ "agentId": shared.bob.id })).await;
        (answer.status, answer.code().to_owned())
    };
    let answers = join_all((0..16).map(decide)).await;
    let won = answers.iter().filter(|(status, _)| *status == StatusCode::OK).count();
    assert_eq!(won, 1, "{answers:?}");
    assert!(
        answers.iter().all(|(status, code)| *status == StatusCode::OK || code == "not_pending"),
        "{answers:?}"
    );
    let decided =
        shared.count("environment.join_approved").await + shared.count("environment.join_denied").await;
    assert_eq!(decided, 1);
    shared.stop().await;
}

#[actix::test]
async fn many_joins_of_one_agent_at_once_join_once() {
    let shared = Shared::new(json!({})).await;
    let answers = join_all((0..16).map(|_| shared.join(&shared.bob.id))).await;
    let ports: Vec<u16> = answers.iter().map(port_of).collect();
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    assert_eq!(shared.count("environment.joined").await, 1);
    shared.stop().await;
}

#[actix::test]
async fn a_repeated_decision_and_a_repeated_creation_are_answered_as_the_first() {
    let shared = Shared::new(json!({ "requireApproval": true })).await;
    let hub = &shared.hub;
    let again = async |path: &str, body: Value| {
        let headers = [("x-api-key", ADMIN), ("idempotency-key", "once")];
        hub.send(Method::POST, path, &headers, Some(body)).await
    };
    let create = || json!({ "agentId": shared.alice.id });
    let (one, two) = (again("/v1/env-shares", create()).await, again("/v1/env-shares", create()).await);
    assert_eq!((one.status, &one.body), (StatusCode::CREATED, &two.body));
    assert_eq!(shared.count("environment.shared").await, 2);
    let reused = again("/v1/env-shares", json!({ "agentId": shared.bob.id })).await;
    assert_eq!(reused.status, StatusCode::UNPROCESSABLE_ENTITY);

    shared.join(&shared.bob.id).await;
    let headers = [("x-api-key", ADMIN), ("idempotency-key", "decision")];
    for _ in 0..2 {
        let body = Some(json!({ "agentId": shared.bob.id }));
        let answer = hub.send(Method::POST, &shared.path("/approve"), &headers, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert_eq!(shared.count("environment.join_approved").await, 1);
    shared.stop().await;
}

#[actix::test]
async fn joined_routes_are_there_again_after_a_restart_of_agent_and_hub() {
    let shared = Shared::new(json!({})).await;
    let port = shared.joined().await;
    let Shared { hub, alice, bob, code } = shared;
    let bob = bob.again(&hub).await;
    serves(port).await;

    alice.stop().await;
    bob.stop().await;
    let hub = hub.restart().await;
    let (alice, bob) = (alice.again(&hub).await, bob.again(&hub).await);
    serves(port).await;
    let list = hub.get("/v1/env-shares").await;
    assert_eq!(list.body[0]["code"], code.as_str(), "the code is the same");

    // What ends while an agent is away is closed when it is back.
    bob.stop().await;
    assert_eq!(hub.delete(&format!("/v1/env-shares/{code}")).await.status, StatusCode::OK);
    let bob = bob.again(&hub).await;
    closed(port).await;
    alice.stop().await;
    bob.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_route_that_another_share_gives_too_stays_open() {
    let shared = Shared::new(json!({})).await;
    let port = shared.joined().await;
    let second = shared.hub.post("/v1/env-shares", json!({ "agentId": shared.alice.id })).await.text("code");
    let join = format!("/v1/env-shares/{second}/join");
    let joined = shared.hub.post(&join, json!({ "agentId": shared.bob.id })).await;
    let other = port_of(&joined);
    assert_eq!(shared.hub.delete(&shared.path("")).await.status, StatusCode::OK);
    serves(other).await;
    assert_eq!(shared.hub.delete(&format!("/v1/env-shares/{second}")).await.status, StatusCode::OK);
    closed(port).await;
    closed(other).await;
    shared.stop().await;
}

#[actix::test]
async fn when_its_time_is_over_the_routes_close() {
    let clock = SetClock::at(Timestamp::from_millis(1_772_445_600_000));
    let hub = Running::start_at(TempDir::new().unwrap(), &[], Arc::clone(&clock) as _).await;
    let shared = Shared::on(hub, json!({ "expiresIn": "1m" })).await;
    let port = shared.joined().await;
    // In small steps: the timekeeper does not believe a clock that jumps.
    eventually("the share has expired", || async {
        clock.advance_ms(500);
        shared.count("environment.expired").await == 1
    })
    .await;
    closed(port).await;
    assert_eq!(shared.hub.get(&shared.path("")).await.status, StatusCode::NOT_FOUND);
    shared.stop().await;
}

#[actix::test]
async fn an_agent_that_is_deleted_shares_nothing() {
    let shared = Shared::new(json!({})).await;
    let path = format!("/v1/agents/{}", shared.alice.id);
    assert_eq!(shared.hub.delete(&path).await.status, StatusCode::OK);
    eventually("its environment is revoked", || async { shared.count("environment.revoked").await == 1 })
        .await;
    assert_eq!(shared.join(&shared.bob.id).await.status, StatusCode::NOT_FOUND);
    shared.stop().await;
}

#[actix::test]
async fn an_agent_joins_neither_its_own_environment_nor_while_it_is_away() {
    let shared = Shared::new(json!({})).await;
    assert_eq!(shared.join(&shared.alice.id).await.code(), "own_environment");
    let away = shared.hub.agent().await;
    let answer = shared.join(&away).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::SERVICE_UNAVAILABLE, "agent_offline"));
    shared.stop().await;
}

#[actix::test]
async fn anothers_code_is_an_unknown_one() {
    let shared = Shared::new(json!({})).await;
    let core = &shared.hub.hub.core;
    let other = core.create_workspace("other").await.unwrap();
    let scopes = vec![domain::workspace::Scope::Admin];
    let (_, key) = core.create_key(other, "other", scopes, None, None).await.unwrap();
    let foreign = ask(&shared.hub, key.reveal(), Method::GET, &shared.path(""), None).await;
    let unknown = ask(&shared.hub, key.reveal(), Method::GET, "/v1/env-shares/zzzzzz", None).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "environment_not_found"));
    assert_eq!((foreign.status, &foreign.body["message"]), (unknown.status, &unknown.body["message"]));
    shared.stop().await;
}

#[actix::test]
async fn teammates_are_known_by_the_names_of_their_agents() {
    let shared = Shared::new(json!({})).await;
    let hub = &shared.hub;
    let second = hub.post("/v1/agents/register", json!({ "label": "desk", "name": "alice" })).await;
    hub.post("/v1/agents/provision", json!({ "clientType": "cursor", "name": "robot" })).await;
    let teammates = hub.get("/v1/teammates").await;
    let expected = json!([
        { "name": "alice", "agentIds": [second.text("agentId"), shared.alice.id], "serviceCount": 1 },
        { "name": "bob", "agentIds": [shared.bob.id], "serviceCount": 0 },
    ]);
    assert_eq!(teammates.body, expected);
    let page = hub.get("/v1/teammates?limit=1").await;
    assert_eq!(page.body.as_array().unwrap().len(), 1);
    let next = page.link.unwrap();
    let next = hub.get(next.split(['<', '>']).nth(1).unwrap()).await;
    assert_eq!((&next.body[0]["name"], next.link), (&json!("bob"), None));
    assert_eq!(hub.get("/v1/teammates?cursor=x").await.status, StatusCode::BAD_REQUEST);

    let status = hub.get("/v1/status").await;
    assert_eq!(status.body["agents"], json!({ "total": 4, "online": 2 }));
    let tunnels = json!({ "total": 1, "active": 1, "connecting": 0, "error": 0, "paused": 0 });
    assert_eq!(status.body["tunnels"], tunnels);
    assert_eq!(status.body["environmentShares"], json!({ "active": 1 }));
    shared.stop().await;
}

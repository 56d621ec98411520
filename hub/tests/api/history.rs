//! `?at=`: what GET answers of the past is what it answered then.

use hub::clock::Clock as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    agent_upkeep::hub_at,
    machines::{Machine, web_server},
    support::{Answer, Running, eventually},
};

/// So many answers are compared at least.
const MOMENTS: usize = 1_000;
/// What readers count and facts do not decide.
const COUNTED: [&str; 7] = [
    "accessCount",
    "bytesIn",
    "bytesOut",
    "connectionCount",
    "lastAccessedAt",
    "lastActivityAt",
    "lastSeenAt",
];

/// What facts decide of an answer.
fn decided(answer: &Answer) -> (StatusCode, Value, Option<String>) {
    let mut body = answer.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !COUNTED.contains(&name.as_str()) && name != "requestId");
    }
    (answer.status, body, answer.etag.clone())
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }
    fn pick<'a>(&mut self, from: &'a [String]) -> Option<&'a String> {
        if from.is_empty() { None } else { from.get(self.roll(from.len())) }
    }
}

#[derive(Default)]
struct Things {
    agents: Vec<String>,
    tunnels: Vec<String>,
    shares: Vec<String>,
}

impl Things {
    /// Something happens, or is refused.
    async fn step(&mut self, hub: &Running, dice: &mut Dice, number: usize) {
        match dice.roll(12) {
            0 | 1 => self.agents.push(hub.agent().await),
            2 | 3 => {
                let Some(agent) = dice.pick(&self.agents) else { return };
                let mut body = json!({ "target": "localhost:3000", "agentId": agent, "protocol": "http" });
                if dice.roll(3) == 0 {
                    body["isPublic"] = true.into();
                }
                if dice.roll(3) == 0 {
                    body["expiresIn"] = "2m".into();
                }
                let made = hub.post("/v1/tunnels", body).await;
                if made.status == StatusCode::CREATED {
                    self.tunnels.push(made.text("id"));
                }
            }
            4 | 5 => {
                let Some(tunnel) = dice.pick(&self.tunnels) else { return };
                let life = ["1m", "3m", "never"][dice.roll(3)];
                let path = format!("/v1/tunnels/{tunnel}/share");
                let made = hub.post(&path, json!({ "name": "link", "expiresIn": life })).await;
                if made.status == StatusCode::CREATED {
                    self.shares.push(made.text("id"));
                }
            }
            6 | 7 => {
                let Some(tunnel) = dice.pick(&self.tunnels) else { return };
                let change = match dice.roll(4) {
                    0 => json!({ "status": "paused" }),
                    1 => json!({ "status": "active" }),
                    2 => json!({ "name": format!("renamed-{number}") }),
                    _ => json!({ "metadata": { "number": number } }),
                };
                hub.patch(&format!("/v1/tunnels/{tunnel}"), change).await;
            }
            8 => {
                let Some(share) = dice.pick(&self.shares) else { return };
                hub.delete(&format!("/v1/shares/{share}")).await;
            }
            9 => {
                let Some(agent) = dice.pick(&self.agents) else { return };
                let body = json!({ "capabilities": [{ "name": format!("skill-{number}") }] });
                hub.post(&format!("/v1/agents/{agent}/capabilities"), body).await;
            }
            10 => {
                let Some(tunnel) = dice.pick(&self.tunnels) else { return };
                hub.delete(&format!("/v1/tunnels/{tunnel}")).await;
            }
            _ if dice.roll(4) == 0 => {
                let Some(agent) = dice.pick(&self.agents) else { return };
                hub.delete(&format!("/v1/agents/{agent}")).await;
            }
            _ => {}
        }
    }

    /// Some things to look at, of each kind.
    fn some(&self, dice: &mut Dice) -> Vec<String> {
        let mut paths = Vec::new();
        for (group, ids) in [("agents", &self.agents), ("tunnels", &self.tunnels), ("shares", &self.shares)] {
            for _ in 0..2 {
                paths.extend(dice.pick(ids).map(|id| format!("/v1/{group}/{id}")));
            }
        }
        paths
    }
}

/// The number of the workspace's last fact, when the audit shows all of the log; and when that was recorded.
async fn last_fact(hub: &Running) -> (u64, String) {
    let answer = hub.get("/v1/audit?limit=1").await;
    let entry = &answer.body["logs"][0];
    (entry["position"].as_u64().unwrap(), entry["recordedAt"].as_str().unwrap().to_owned())
}

struct Seen {
    path: String,
    position: u64,
    at: String,
    answer: (StatusCode, Value, Option<String>),
}

#[actix::test]
async fn an_answer_of_the_past_is_the_one_that_was_given_then() {
    let (hub, clock) = hub_at().await;
    let (mut dice, mut things, mut seen) = (Dice(20_260_302), Things::default(), Vec::new());
    let mut number = 0;
    while seen.len() < MOMENTS {
        number += 1;
        assert!(number < 5_000, "a history of {number} steps has only {} moments", seen.len());
        clock.advance_ms(1 + i64::try_from(dice.roll(20_000)).unwrap());
        things.step(&hub, &mut dice, number).await;
        // A fact of this very moment, so that expiry is judged now and then alike.
        things.agents.push(hub.agent().await);
        let head = *hub.hub.core.log.head().borrow();
        let mut answers = Vec::new();
        for path in things.some(&mut dice) {
            let answer = decided(&hub.get(&path).await);
            answers.push((path, answer));
        }
        let (position, at) = last_fact(&hub).await;
        // What follows from what was decided, or what time brings, may be recorded while one looks: no moment then.
        let is_still = *hub.hub.core.log.head().borrow() == head && at == clock.now().to_string();
        for (path, answer) in answers.into_iter().filter(|_| is_still) {
            seen.push(Seen { path, position, at: at.clone(), answer });
        }
    }
    let statuses = |status: StatusCode| seen.iter().filter(|it| it.answer.0 == status).count();
    assert!(statuses(StatusCode::OK) > 300 && statuses(StatusCode::NOT_FOUND) > 20, "a history of one kind");
    let mut by_time = 0;
    for Seen { path, position, at, answer } in &seen {
        let then = hub.get(&format!("{path}?at={position}")).await;
        assert_eq!(&decided(&then), answer, "{path} at {position}");
        // By time it is the same, if nothing else was recorded in that millisecond.
        let after = hub.get(&format!("/v1/events?fromPosition={}&limit=1", position + 1)).await;
        let next = after.body["events"].as_array().unwrap().first();
        if next.is_none_or(|next| next["recordedAt"].as_str().unwrap() > at.as_str()) {
            let then = hub.get(&format!("{path}?at={at}")).await;
            assert_eq!(&decided(&then), answer, "{path} at {at}");
            by_time += 1;
        }
    }
    assert!(by_time > MOMENTS / 2, "only {by_time} could be asked by time");
    hub.stop().await;
}

#[actix::test]
async fn whether_an_agent_was_connected_is_known_of_the_past() {
    let hub = Running::start().await;
    let machine = Machine::new(&hub, "alice").await;
    let tunnel = machine.expose(&hub, web_server().await, "web", "http").await.text("id");
    let (agent, tunnel) = (format!("/v1/agents/{}", machine.id), format!("/v1/tunnels/{tunnel}"));
    let (connected, _) = last_fact(&hub).await;
    machine.stop().await;
    eventually("the agent is gone, and that is recorded", || async {
        hub.get(&agent).await.text("status") == "offline"
            && hub.facts().await.iter().any(|it| it == "agent.disconnected")
    })
    .await;
    let (gone, _) = last_fact(&hub).await;
    let status = async |path: &str, at: u64| hub.get(&format!("{path}?at={at}")).await.text("status");
    assert_eq!(
        (status(&agent, connected).await, status(&tunnel, connected).await),
        ("online".into(), "active".into())
    );
    assert_eq!(status(&agent, gone).await, "offline");
    let then = hub.get(&format!("{agent}?at={connected}")).await;
    assert!(then.body["connectedAt"].is_string() && then.body.get("lastSeenAt").is_none(), "{then:?}");
    // A hub that was killed had no time to record who was connected: its next start ends their sessions.
    let hub = hub.restart().await;
    let now = last_fact(&hub).await.0;
    assert_eq!(hub.get(&format!("{agent}?at={now}")).await.text("status"), "offline");
    hub.stop().await;
}

#[actix::test]
async fn counters_are_absent_and_a_moment_must_be_one_of_the_past() {
    let (hub, clock) = hub_at().await;
    let before = clock.now();
    clock.advance_ms(1_000);
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub.post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link" })).await.text("id");
    let (position, _) = last_fact(&hub).await;
    clock.advance_ms(1_000);
    for (path, code) in [
        (format!("/v1/tunnels/{tunnel}"), "tunnel_not_found"),
        (format!("/v1/shares/{share}"), "share_not_found"),
    ] {
        let then = hub.get(&format!("{path}?at={position}")).await;
        assert_eq!(then.status, StatusCode::OK, "{then:?}");
        assert!(then.etag.is_some());
        for counted in COUNTED {
            assert!(then.body.get(counted).is_none(), "{counted} in {then:?}");
        }
        let early = hub.get(&format!("{path}?at={before}")).await;
        assert_eq!((early.status, early.code()), (StatusCode::NOT_FOUND, code), "it was not there yet");
        for at in ["0", "", "999999", "tomorrow", "2100-01-01T00:00:00Z", "-1", "1.5", "99999999999999999999"]
        {
            let refused = hub.get(&format!("{path}?at={at}")).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{at}: {refused:?}");
            assert_eq!(refused.body["details"][0]["field"], "at");
        }
    }
    // A service is a tunnel, in the past as well.
    assert_eq!(hub.get(&format!("/v1/services/{tunnel}?at={position}")).await.text("id"), tunnel);
    hub.stop().await;
}

#[actix::test]
async fn a_foreign_thing_was_not_there_either() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub.post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link" })).await.text("id");
    let agent = hub.agent().await;
    let core = &hub.hub.core;
    let other = core.create_workspace("other").await.unwrap();
    let scopes = vec![domain::workspace::Scope::Admin];
    let (_, key) = core.create_key(other, "all", scopes, None, None).await.unwrap();
    let foreign = [("x-api-key", key.reveal())];
    let now = core.clock.now();
    for path in
        [format!("/v1/tunnels/{tunnel}"), format!("/v1/shares/{share}"), format!("/v1/agents/{agent}")]
    {
        for at in ["1".to_owned(), now.to_string()] {
            let path = format!("{path}?at={at}");
            let answer = hub.send(reqwest::Method::GET, &path, &foreign, None).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
        }
    }
    hub.stop().await;
}

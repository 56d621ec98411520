//! A request whose agent has just gone waits for it, and nobody notices that it was away.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, eventually, http, targets::Nginx, wait::SOON};
use serde_json::json;

/// Longer than an agent needs on a busy machine; the default is two seconds.
const WAIT: (&str, &str) = ("HUB_AGENT_WAIT_MS", "20000");

fn online(hub: &Hub) -> usize {
    hub.api().get("/v1/agents/online").expect(200).as_array().map_or(0, Vec::len)
}

fn share(hub: &Hub, tunnel_id: &str) -> (SocketAddr, String) {
    let share = hub.api().create_share(tunnel_id, &json!({ "name": "kept" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    (edge, path)
}

#[test]
fn a_request_waits_for_an_agent_that_is_started_again() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start_with(&[WAIT]);
    let machine = Machine::new(&hub);
    let mut exposed = machine.expose(nginx.address, "site");
    let (edge, path) = share(&hub, &exposed.tunnel_id());
    exposed.process.kill9();
    eventually("the agent to be gone", SOON, || if online(&hub) == 0 { Ok(()) } else { Err("still online") });
    thread::scope(|scope| {
        let asked = scope.spawn(|| http::get(edge, &path).status);
        let _again = machine.expose(nginx.address, "site");
        assert_eq!(asked.join().expect("asking does not panic"), 200);
    });
}

#[test]
fn a_request_waits_for_the_agents_of_a_hub_that_was_started_again() {
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start_with(&[WAIT]);
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let (edge, path) = share(&hub, &exposed.tunnel_id());
    hub.kill9();
    hub.restart();
    assert_eq!(http::get(edge, &path).status, 200, "after a kill");
    assert!(hub.terminate().success());
    hub.restart();
    assert_eq!(http::get(edge, &path).status, 200, "after an orderly end");
}

#[test]
fn an_agent_that_left_long_ago_is_not_waited_for() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start_with(&[("HUB_AGENT_WAIT_MS", "1500")]);
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let (edge, path) = share(&hub, &exposed.tunnel_id());
    drop(exposed);
    eventually("a refusal without a wait", Duration::from_secs(30), || {
        let asked = Instant::now();
        let refused = http::get(edge, &path);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.json()["code"], "agent_offline");
        let waited = asked.elapsed();
        if waited < Duration::from_millis(1_000) { Ok(()) } else { Err(format!("it took {waited:?}")) }
    });
}

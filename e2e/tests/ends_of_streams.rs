//! Whatever ends a share, a tunnel, a key or an agent ends what runs under it within a second, at both ends, and nothing
//! else: kinds of streams by kinds of ends.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Hub, Machine, api,
    conversations::{ALL, Conversations, Kind, OF_A_REACH, OF_A_SHARE, Ways},
    eventually, faketime, http, ports,
    process::Process,
    targets::Nginx,
    wait::SOON,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The bar of the contract, and what the command that ends it and a busy machine take.
const SOON_ENOUGH: Duration = Duration::from_millis(1_500);
/// What goes on is looked at so long after the end.
const AFTERWARDS: Duration = Duration::from_millis(1_500);

/// Streams of every kind, and everything that they run under.
struct Scene<'a> {
    hub: &'a Hub,
    talks: Conversations,
    ways: Ways,
    server: Process,
    laptop: Process,
    agent_id: String,
    key_id: String,
    tunnel_ids: [String; 2],
    share_id: String,
    _machines: [Machine; 2],
}

/// What happens, which streams it ends, and what the next visitor gets.
type Row = (&'static str, fn(&Scene<'_>), &'static [Kind], Option<(u16, &'static str)>);
/// The same of what happens by itself.
type Expiry = (&'static str, Lives, &'static [Kind], (u16, &'static str));

/// How long what is made lives.
#[derive(Clone, Copy, Default)]
struct Lives {
    tunnels: Option<&'static str>,
    share: Option<&'static str>,
}

impl<'a> Scene<'a> {
    #[track_caller]
    fn new(hub: &'a Hub, lives: Lives) -> Self {
        let api = hub.api();
        let key = api.post("/v1/api-keys", &json!({ "name": "server", "scopes": ["admin"] })).expect(201);
        let machines = [Machine::with(&hub.url(), &api::text(&key, "key")), Machine::new(hub)];
        let [(server, agent_id), (laptop, laptop_id)] = machines.each_ref().map(is_up);
        let talks = Conversations::with_nobody();
        let create = |protocol: &str, target: String| {
            let mut body = json!({ "agentId": agent_id, "target": target, "protocol": protocol });
            if let Some(expires) = lives.tunnels {
                body["expiresIn"] = json!(expires);
            }
            let tunnel = api.post("/v1/tunnels", &body).expect(201);
            assert_eq!(tunnel["status"], "active", "{tunnel}");
            (api::text(&tunnel, "id"), api::port(&tunnel, "tunnelPort"))
        };
        let reach = |tunnel_id: &str| {
            let body = json!({ "agentId": laptop_id, "localPort": ports::free_port() });
            let answer = api.post(&format!("/v1/tunnels/{tunnel_id}/connect"), &body).expect(200);
            api::port(&answer["tunnel"], "localPort")
        };
        let (tunnel, tunnel_port) = create("http", talks.target.to_string());
        let (datagrams, datagram_port) = create("udp", talks.datagram_target.to_string());
        let (reach_port, reach_datagram_port) = (reach(&tunnel), reach(&datagrams));
        let expires = lives.share.unwrap_or("never");
        let share = api.create_share(&tunnel, &json!({ "name": "talks", "expiresIn": expires }));
        let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
        let path = path.trim_end_matches('/').to_owned();
        let ways = Ways { edge, path, tunnel_port, reach_port, datagram_port, reach_datagram_port };
        talks.begin(&ways);
        Self {
            hub,
            talks,
            ways,
            server,
            laptop,
            agent_id,
            key_id: api::text(&key, "id"),
            tunnel_ids: [tunnel, datagrams],
            share_id: api::text(&share, "id"),
            _machines: machines,
        }
    }

    /// These have ended within a second of `began`, the others live on.
    #[track_caller]
    fn has_ended(&self, what: &str, began: Instant, ended: &[Kind]) {
        let mut slowest = Duration::ZERO;
        for kind in ended {
            let at = eventually(&format!("{what}: {kind:?} to end"), SOON, || {
                self.talks.ended(*kind).ok_or_else(|| self.talks.shown(*kind))
            });
            let took = at.saturating_duration_since(began);
            assert!(took < SOON_ENOUGH, "{what}: {kind:?} ended after {took:?}");
            slowest = slowest.max(took);
        }
        eprintln!("{what}: {} streams ended, the last after {} ms", ended.len(), slowest.as_millis());
        let going_on: Vec<Kind> = ALL.into_iter().filter(|kind| !ended.contains(kind)).collect();
        if !going_on.is_empty() {
            thread::sleep(AFTERWARDS.saturating_sub(began.elapsed()));
        }
        going_on.into_iter().for_each(|kind| self.talks.lives(kind));
    }

    #[track_caller]
    fn next_visitor_gets(&self, what: &str, status: u16, code: &str) {
        let next = http::get(self.ways.edge, &format!("{}/events", self.ways.path));
        assert_eq!((next.status, next.json()["code"].as_str()), (status, Some(code)), "{what}");
    }

    fn on_both_tunnels(&self, call: impl Fn(&str)) {
        self.tunnel_ids.iter().for_each(|id| call(&format!("/v1/tunnels/{id}")));
    }
}

/// `connect up` that is connected, and its agent's id.
#[track_caller]
fn is_up(machine: &Machine) -> (Process, String) {
    let up = machine.up();
    let registered = up.line("`registered`", SOON, |line| {
        serde_json::from_str::<Value>(line).ok().filter(|line| line["event"] == "registered")
    });
    up.line("`connected`", SOON, |line| line.contains("\"connected\"").then_some(()));
    let agent_id = api::text(&registered, "agentId");
    (up, agent_id)
}

#[test]
fn what_ends_a_share_a_tunnel_a_key_or_an_agent_ends_what_runs_under_it_and_nothing_else() {
    let rows: [Row; 9] = [
        (
            "the share is revoked",
            |scene| drop(scene.hub.api().delete(&format!("/v1/shares/{}", scene.share_id)).expect(200)),
            &OF_A_SHARE,
            Some((403, "share_revoked")),
        ),
        (
            "the tunnels are paused",
            |scene| {
                let pause = json!({ "status": "paused" });
                scene.on_both_tunnels(|tunnel| drop(scene.hub.api().patch(tunnel, &pause).expect(200)));
            },
            &ALL,
            Some((503, "tunnel_paused")),
        ),
        (
            "the tunnels are deleted",
            |scene| scene.on_both_tunnels(|tunnel| drop(scene.hub.api().delete(tunnel).expect(200))),
            &ALL,
            Some((403, "share_revoked")),
        ),
        (
            "the agent's key is revoked",
            |scene| drop(scene.hub.api().delete(&format!("/v1/api-keys/{}", scene.key_id)).expect(200)),
            &ALL,
            Some((503, "agent_offline")),
        ),
        (
            "the agent is deleted",
            |scene| drop(scene.hub.api().delete(&format!("/v1/agents/{}", scene.agent_id)).expect(200)),
            &ALL,
            None,
        ),
        (
            "the agent is stopped",
            |scene| scene.server.signal(Signal::TERM),
            &ALL,
            Some((503, "agent_offline")),
        ),
        (
            "the agent is killed",
            |scene| scene.server.signal(Signal::KILL),
            &ALL,
            Some((503, "agent_offline")),
        ),
        ("the teammate's agent is stopped", |scene| scene.laptop.signal(Signal::TERM), &OF_A_REACH, None),
        ("the teammate's agent is killed", |scene| scene.laptop.signal(Signal::KILL), &OF_A_REACH, None),
    ];
    let hub = Hub::start();
    for (what, end, ended, next) in rows {
        let scene = Scene::new(&hub, Lives::default());
        let began = Instant::now();
        end(&scene);
        scene.has_ended(what, began, ended);
        if let Some((status, code)) = next {
            scene.next_visitor_gets(what, status, code);
        }
    }
}

#[test]
fn what_expires_ends_what_runs_under_it_when_its_time_has_come() {
    let minute = Duration::from_secs(60);
    let rows: [Expiry; 2] = [
        (
            "the share expires",
            Lives { share: Some("1m"), tunnels: None },
            &OF_A_SHARE,
            (403, "share_expired"),
        ),
        ("the tunnels expire", Lives { share: None, tunnels: Some("1m") }, &ALL, (403, "share_revoked")),
    ];
    for (what, lives, ended, (status, code)) in rows {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let clock = folder.path().join("clock");
        set(&clock, Duration::ZERO);
        let hub = Hub::start_with(&[
            ("LD_PRELOAD", &faketime::library()),
            ("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]);
        // The moment lies between these two; what was made first may expire first.
        let earliest = Instant::now();
        let scene = Scene::new(&hub, lives);
        let elapsed = earliest.elapsed();
        assert!(elapsed < minute / 2, "{what}: a slow start: {elapsed:?}");
        // Less than what the hub takes for a clock that is wrong.
        set(&clock, minute - Duration::from_secs(1) - elapsed);
        let began = Instant::now();
        scene.has_ended(what, began + Duration::from_secs(1) + elapsed, ended);
        for kind in ended {
            let lived = scene.talks.ended(*kind).expect("it has ended") - began;
            assert!(lived > Duration::from_millis(900), "{what}: {kind:?} ended too early, after {lived:?}");
        }
        scene.next_visitor_gets(what, status, code);
    }
}

#[test]
fn a_target_that_died_is_a_502_with_a_reason_and_an_agent_that_left_a_503_at_once() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let nginx = Nginx::answering_everything();
    let mut exposed = machine.expose(nginx.address, "site");
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "site" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    assert_eq!(http::get(edge, &path).status, 200);

    drop(nginx);
    let died = Instant::now();
    let answer = http::get(edge, &path);
    assert!(died.elapsed() < SOON_ENOUGH, "after {:?}", died.elapsed());
    let said = answer.expect(502);
    assert_eq!(said["code"], "upstream_failed");
    assert!(said["message"].as_str().is_some_and(|message| !message.is_empty()), "{said}");

    exposed.process.signal(Signal::TERM);
    exposed.process.wait(SOON);
    let left = Instant::now();
    let answer = http::get(edge, &path);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("agent_offline")));
    assert!(left.elapsed() < SOON_ENOUGH, "after {:?}", left.elapsed());
}

/// Sets the clock of a hub forward, or where it is.
fn set(clock: &Path, forward: Duration) {
    let next = clock.with_extension("next");
    fs::write(&next, format!("+{}\n", forward.as_secs_f64())).expect("the folder is ours");
    fs::rename(&next, clock).expect("the folder is ours");
}

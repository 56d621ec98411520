//! gRPC through a share: a real client, a real server, and everything in between.

use std::{net::SocketAddr, time::SystemTime};

use e2e::{Hub, Machine, agent::Exposed, api, http, process::Process, targets::Grpc, wait::SOON};
use serde_json::{Value, json};

/// A hub, an agent with a gRPC server behind it, and a share of that.
struct Scene {
    grpc: Grpc,
    edge: SocketAddr,
    host: String,
    share_id: String,
    exposed: Exposed,
    _machine: Machine,
    hub: Hub,
}

impl Scene {
    #[track_caller]
    fn set() -> Self {
        let (grpc, hub) = (Grpc::start(), Hub::start());
        let machine = Machine::new(&hub);
        let exposed = machine.expose_with(grpc.address, "orders", &["--protocol", "http"]);
        let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "orders" }));
        let (edge, host, _) = http::split_link(&api::text(&share, "subdomainUrl"));
        Self { grpc, edge, host, share_id: api::text(&share, "id"), exposed, _machine: machine, hub }
    }

    #[track_caller]
    fn call(&self, words: &[&str]) -> Value {
        self.grpc.call(self.edge, &self.host, words)
    }

    /// A call that runs on.
    #[track_caller]
    fn watch(&self) -> Process {
        let watching =
            Process::spawn("gRPC client", &mut self.grpc.client(self.edge, &self.host, &["watch"]));
        watching.line("`begun`", SOON, |line| (line == "begun").then_some(()));
        watching
    }

    /// When the server saw the end of a watching call.
    #[track_caller]
    fn ended_at(&self) -> f64 {
        self.grpc.process.line("`ended`", SOON, |line| line.strip_prefix("ended ")?.parse().ok())
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with what another process read from its clock")]
fn now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    now.as_secs_f64()
}

#[test]
fn calls_and_their_errors_arrive_as_they_are() {
    let scene = Scene::set();
    let seen = scene.call(&["get", "hello"]);
    assert_eq!(seen["answer"], "hello");
    assert_eq!(seen["initial"]["x-initial"], "i");
    assert_eq!(seen["trailing"], json!({ "x-trailing": "t", "x-bytes-bin": "00ff" }));
    let failed = scene.call(&["get", "fail"]);
    assert_eq!(failed, json!({ "code": "FAILED_PRECONDITION", "details": "not now, 100%" }));
    let sizes = scene.call(&["sizes"]);
    assert_eq!(sizes, json!({ "equal": [true, true, true, true, true, true], "collected": 10_000_000 }));
    assert_eq!(scene.call(&["many", "1000"]), json!({ "equal": true }));
    let accesses = scene.hub.api().accesses(&scene.share_id);
    assert_eq!(accesses.len(), 1 + 1 + 7 + 1_000);
    assert!(accesses.iter().all(|access| access["statusCode"] == 200 && access["method"] == "POST"));
}

#[test]
fn a_conversation_goes_back_and_forth() {
    let scene = Scene::set();
    let seen = scene.call(&["chat", "300"]);
    let expected: Vec<String> = (0..300).map(|n| format!("echo {n}")).collect();
    assert_eq!(seen["came"], json!(expected));
}

#[test]
fn the_server_notices_within_a_second_that_a_client_gave_up() {
    let scene = Scene::set();
    let seen = scene.call(&["deadline"]);
    assert_eq!(seen["code"], "DEADLINE_EXCEEDED");
    let late = scene.ended_at() - seen["at"].as_f64().expect("a time");
    assert!(late < 1.0, "the server noticed after {late} s");
}

#[test]
fn a_client_that_is_killed_is_noticed_within_a_second() {
    let scene = Scene::set();
    let mut watching = scene.watch();
    let killed = now();
    watching.kill9();
    assert!(scene.ended_at() - killed < 1.0);
}

#[test]
fn whatever_ends_a_share_ends_a_running_call_within_a_second_and_says_so() {
    type End = fn(&Scene);
    let ends: [(&str, End, &str); 4] = [
        (
            "revoke",
            |scene| drop(scene.hub.api().delete(&format!("/v1/shares/{}", scene.share_id)).expect(200)),
            "PERMISSION_DENIED",
        ),
        (
            "pause",
            |scene| {
                let path = format!("/v1/tunnels/{}", scene.exposed.tunnel_id());
                scene.hub.api().patch(&path, &json!({ "status": "paused" })).expect(200);
            },
            "UNAVAILABLE",
        ),
        (
            "delete",
            |scene| {
                let path = format!("/v1/tunnels/{}", scene.exposed.tunnel_id());
                assert!(scene.hub.api().delete(&path).status < 300);
            },
            "PERMISSION_DENIED",
        ),
        (
            "agent",
            |scene| {
                let agents = scene.hub.api().get("/v1/agents/online").expect(200);
                let agents = if agents.is_array() { agents } else { agents["agents"].clone() };
                for agent in agents.as_array().expect("a list") {
                    let id = agent["id"].as_str().or(agent["agentId"].as_str()).expect("an id").to_owned();
                    assert!(scene.hub.api().delete(&format!("/v1/agents/{id}")).status < 300);
                }
            },
            "PERMISSION_DENIED",
        ),
    ];
    for (what, end, code) in ends {
        let scene = Scene::set();
        let watching = scene.watch();
        let ended = now();
        end(&scene);
        let seen: Value = watching.line("how it ended", SOON, |line| serde_json::from_str(line).ok());
        assert_eq!(seen["code"], code, "{what}: {seen}");
        let late = seen["at"].as_f64().expect("a time") - ended;
        // The request that ends it takes its time, too.
        assert!(late < 1.5, "{what}: the client was told after {late} s");
        assert!(scene.ended_at() - ended < 1.5, "{what}: the server was not told in time");
        let refused = scene.call(&["get", "hello"]);
        assert_eq!(refused["code"], code, "{what}: {refused}");
    }
}

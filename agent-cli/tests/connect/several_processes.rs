//! Several `connect` processes of one machine, really started and really killed. The hub is a stand-in that knows one
//! service and takes no agent sessions: what is tested here is what the processes do among themselves.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::TcpStream,
    process::Child,
    sync::mpsc,
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Hub, Machine, PATIENCE, WHO, hub, problem};

const SERVICE: &str = r#"[{"id":"tun_00000000000000000000000000000007","name":"prod-db","agentId":"other","targetHost":"localhost","targetPort":5432,"tunnelPort":10001,"protocol":"tcp","status":"active","isPublic":false,"publicUrl":null,"metadata":{},"createdAt":"x","expiresAt":null,"lastActivityAt":null}]"#;
const WEB: &str = r#"{"id":"tun_00000000000000000000000000000008","name":"web","agentId":"11111111-1111-4111-8111-111111111111","targetHost":"web.internal","targetPort":3000,"tunnelPort":10002,"protocol":"auto","status":"connecting","isPublic":false,"publicUrl":null,"metadata":{},"createdAt":"x","expiresAt":null,"lastActivityAt":null}"#;
const LINK: &str = r#"{"success":true,"share":{"id":"share_1","token":"share_tok_x","name":"web","expiresAt":null,"shareUrl":"http://127.0.0.1:7080/shared/share_tok_x"}}"#;
const AGENT: &str = r#"{"agentId":"11111111-1111-4111-8111-111111111111","token":"pca_canary","expiresAt":"2999-01-01T00:00:00.000Z","workspaceId":"ws_1"}"#;

fn one_service() -> Hub {
    hub(|line| {
        let path = line.split(' ').nth(1).unwrap_or_default();
        match path {
            "/v1/whoami" => Some((200, WHO.to_owned())),
            "/v1/services" => Some((200, SERVICE.to_owned())),
            "/v1/services/register" => Some((201, WEB.to_owned())),
            "/v1/services/tun_00000000000000000000000000000008/shares" => Some((201, LINK.to_owned())),
            "/v1/agents/register" => Some((201, AGENT.to_owned())),
            _ => problem(503, "agent_offline"),
        }
    })
}

/// A `connect reach` that runs, with its lines as they come.
struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Running {
    fn reach(machine: &Machine, hub: &Hub) -> Self {
        // Port 0: any, so that tests never meet.
        let arguments = ["reach", "prod-db", "--port", "0", "-v", "-H", &hub.url, "--api-key", "pc_x"];
        let mut child = machine.command(&arguments).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, out, err }
    }
    fn wait_for(&self, words: &str) {
        wait_for(&self.err, words);
    }
    fn port(&self) -> u16 {
        let line = wait_for(&self.out, "is reachable at localhost:");
        line.rsplit(':').next().unwrap().parse().unwrap()
    }
    fn end(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            tell.send(line).ok();
        }
    });
    lines
}

fn wait_for(lines: &mpsc::Receiver<String>, words: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(words) => return line,
            Ok(line) => seen.push(line),
            Err(_) => panic!("never said \"{words}\", but {seen:?}"),
        }
    }
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_process_attaches_and_takes_over_with_its_port_when_the_first_is_killed() {
    let (machine, hub) = (Machine::new(), one_service());
    let first = Running::reach(&machine, &hub);
    let first_port = first.port();
    let second = Running::reach(&machine, &hub);
    let second_port = second.port();
    second.wait_for("attached to the connect process");
    assert!(listens(first_port) && listens(second_port));

    first.end(Signal::KILL);
    second.wait_for("this process holds the agent session");
    eventually("the port of the second is back", || listens(second_port));
    assert!(!listens(first_port), "the first one's port went with it");

    assert_eq!(second.end(Signal::TERM), Some(0));
    assert!(!listens(second_port), "freed before the end");
}

#[test]
fn the_port_of_an_attached_process_is_freed_when_it_is_killed() {
    let (machine, hub) = (Machine::new(), one_service());
    let first = Running::reach(&machine, &hub);
    let first_port = first.port();
    let second = Running::reach(&machine, &hub);
    let second_port = second.port();
    assert!(listens(second_port));
    second.end(Signal::KILL);
    eventually("the port is freed", || !listens(second_port));
    assert!(listens(first_port));
    assert_eq!(first.end(Signal::INT), Some(130));
}

#[test]
fn two_first_starts_at_once_register_one_agent_and_save_it_for_its_owner_only() {
    use std::os::unix::fs::MetadataExt as _;
    let (machine, hub) = (Machine::new(), one_service());
    let both = [Running::reach(&machine, &hub), Running::reach(&machine, &hub)];
    for running in &both {
        running.port();
    }
    for running in both {
        assert_eq!(running.end(Signal::INT), Some(130));
    }
    let registrations = hub.requests.try_iter().filter(|line| line.contains("/v1/agents/register")).count();
    assert_eq!(registrations, 1);
    let config = std::fs::read_to_string(machine.config()).unwrap();
    assert!(
        config.contains("pca_canary") && !config.contains("pc_x"),
        "the key is saved by a login only: {config}"
    );
    assert_eq!(std::fs::metadata(machine.config()).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn with_json_a_command_that_stays_prints_one_object_a_line() {
    let (machine, hub) = (Machine::new(), one_service());
    let arguments = ["reach", "prod-db", "--port", "0", "--json", "-H", &hub.url, "--api-key", "pc_x"];
    let mut child = machine.command(&arguments).spawn().unwrap();
    let out = lines(child.stdout.take().unwrap());
    let event: Value = serde_json::from_str(&wait_for(&out, "reaching")).unwrap();
    assert_eq!(
        (&event["event"], &event["service"]["name"]),
        (&Value::from("reaching"), &Value::from("prod-db"))
    );
    let port = event["localPort"].as_u64().unwrap();
    assert_eq!(event["connectionString"], format!("postgres://localhost:{port}/postgres"));
    let state: Value = serde_json::from_str(&wait_for(&out, "")).unwrap();
    assert_eq!(state["event"], "connecting");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn exposing_goes_on_while_the_session_is_still_on_its_way_and_remembers_the_target() {
    let (machine, hub) = (Machine::new(), one_service());
    let link = ["expose", "web.internal:3000", "--name", "web", "--link", "--link-expires", "never"];
    let mut child =
        machine.command(&[&link[..], &["-H", &hub.url, "--api-key", "pc_x"]].concat()).spawn().unwrap();
    let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    wait_for(&err, "Teammates reach it with: connect reach web");
    wait_for(&err, "Not connected to the hub");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let shown: Vec<String> = out.iter().collect();
    assert_eq!(
        shown,
        [
            "[ok] Service \"web\" is now accessible through the hub",
            "Public URL: http://127.0.0.1:7080/shared/share_tok_x",
            "Expires: never",
        ]
    );
    let config = std::fs::read_to_string(machine.config()).unwrap();
    assert!(config.contains("exposed = [\"web.internal:3000\"]"), "{config}");
}

//! What people are told when a connection through `connect reach` is refused, and when an exposed target dies.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
};

use e2e::{Hub, Machine, agent::Reached, eventually, ports, process::Process, wait::SOON};
use serde_json::{Value, json};

#[test]
fn both_sides_say_why_connections_are_refused_and_that_the_target_is_back() {
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    // Nobody accepts: the system takes connections for whoever listens.
    let target = TcpListener::bind(ports::loopback(0)).expect("a free port");
    let at = target.local_addr().expect("it listens");
    let exposed = server.expose_with(at, "prod-db", &["--protocol", "tcp"]);
    let reached = laptop.reach("prod-db");
    // A second process on the laptop has no session of its own, and people read it.
    let people = people(&laptop);

    drop(target);
    refused(&reached, "target_unreachable");
    let words = target_is(&exposed.process, "unreachable");
    assert!(e2e::api::text(&words, "message").contains(&at.to_string()), "{words}");
    said(&people, &format!("[!] prod-db: the target {at} did not take the connection (Connection refused"));

    let _target = TcpListener::bind(at).expect("the port is free again");
    target_is(&exposed.process, "answers");

    let tunnel = format!("/v1/tunnels/{}", exposed.tunnel_id());
    hub.api().patch(&tunnel, &json!({ "status": "paused" })).expect(200);
    refused(&reached, "tunnel_paused");
    said(&people, "[!] prod-db: the tunnel is paused.");
    hub.api().patch(&tunnel, &json!({ "status": "active" })).expect(200);
    drop(exposed);
    refused(&reached, "agent_offline");
    said(&people, "[!] prod-db: the exposing agent is offline.");
    hub.api().delete(&tunnel).expect(200);
    refused(&reached, "tunnel_gone");
    said(&people, "[!] prod-db: the service was deleted.");
}

/// A `connect reach` as somebody starts it at a terminal, and its local port.
fn people(machine: &Machine) -> (Process, u16) {
    let port = ports::free_port();
    let process = Process::spawn(
        "connect reach",
        &mut machine.connect(&["reach", "prod-db", "--port", &port.to_string()]),
    );
    process.line("that it is reachable", SOON, |line| line.contains("is reachable at").then_some(()));
    (process, port)
}

/// Connects, which is refused, until the reason is told to programs.
fn refused(reached: &Reached, reason: &str) {
    eventually(reason, SOON, || {
        knock(reached.local_port);
        event(&reached.process, |event| event["event"] == "refused" && event["reason"] == reason)
            .ok_or("not told yet")
    });
}

/// The same for people.
fn said((process, port): &(Process, u16), line: &str) {
    eventually(line, SOON, || {
        knock(*port);
        let lines = process.stderr_lines();
        if lines.iter().any(|said| said.starts_with(line)) { Ok(()) } else { Err(lines.join("\n")) }
    });
}

/// What the exposing side tells of its target.
fn target_is(process: &Process, state: &str) -> Value {
    eventually(state, SOON, || {
        event(process, |event| event["event"] == "target" && event["state"] == state).ok_or("not told yet")
    })
}

fn event(process: &Process, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
    let events = process.stdout_lines().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
    events.into_iter().find(is_it)
}

/// A connection up to its end, whatever that is.
fn knock(port: u16) {
    if let Ok(mut socket) = TcpStream::connect(ports::loopback(port)) {
        socket.set_read_timeout(Some(SOON)).expect("not zero");
        let _end = socket.read(&mut [0]);
    }
}

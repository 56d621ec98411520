//! Connections on which nothing is said for a while work on afterwards, and messages may be large.
//!
//! Two seconds here; `ops/long-silence` takes five minutes, or what it is told (`E2E_SILENCE_SECONDS`).

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, http, ports::loopback, targets::WebSockets};
use serde_json::json;
use tungstenite::Message;

const SECONDS_VARIABLE: &str = "E2E_SILENCE_SECONDS";
const SECONDS: u64 = 2;
const LARGE_BYTES: usize = 64 << 20;

#[test]
fn what_was_silent_for_long_works_on() {
    let seconds = std::env::var(SECONDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let silence = Duration::from_secs(seconds);
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(target(silence), "silent", &["--protocol", "http"]);
    let sockets_machine = Machine::new(&hub);
    let sockets =
        sockets_machine.expose_with(WebSockets::start().address, "sockets", &["--protocol", "http"]);
    let reached = laptop.reach("silent");
    let link = |tunnel_id: &str, name: &str| {
        let share = hub.api().create_share(tunnel_id, &json!({ "name": name }));
        let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
        (edge, path.trim_end_matches('/').to_owned())
    };
    let (edge, events) = link(&exposed.tunnel_id(), "events");
    let (_, socket) = link(&sockets.tunnel_id(), "sockets");

    thread::scope(|scope| {
        scope.spawn(|| events_around(edge, &events, silence));
        scope.spawn(|| {
            let mut socket = WebSockets::connect(edge, &format!("{socket}/"));
            for (word, before) in [("before", Duration::ZERO), ("after", silence)] {
                thread::sleep(before);
                socket.send(Message::text(word)).expect("the WebSocket takes it");
                assert_eq!(socket.read().expect("it comes back"), Message::text(word));
            }
            socket.close(None).expect("a WebSocket can be closed");
        });
        for port in [exposed.tunnel_port(), reached.local_port] {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(loopback(port)).expect("the port listens");
                stream.set_read_timeout(Some(http::READ_TIMEOUT)).expect("a timeout can be set");
                for (word, before) in [(b"before\n", Duration::ZERO), (b"after.\n", silence)] {
                    thread::sleep(before);
                    stream.write_all(word).expect("the connection takes it");
                    let mut back = [0; 7];
                    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("port {port}: {error}"));
                    assert_eq!(&back, word);
                }
            });
        }
    });
}

#[test]
fn a_message_of_64_mib_comes_back_through_a_share() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(WebSockets::start().address, "sockets", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "sockets" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let mut socket = WebSockets::connect(edge, &format!("{}/", path.trim_end_matches('/')));
    let message: Vec<u8> = (0..LARGE_BYTES).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let before = [hub.resident_bytes(), exposed.process.resident_bytes()];
    for sent in [Message::binary(message), Message::text("and a short one")] {
        socket.send(sent.clone()).expect("the WebSocket takes it");
        assert!(socket.read().expect("it comes back") == sent, "another message came back");
    }
    let after = [hub.resident_bytes(), exposed.process.resident_bytes()];
    for ((who, before), after) in ["hub", "agent"].iter().zip(before).zip(after) {
        let grown = after.saturating_sub(before);
        assert!(grown < LARGE_BYTES as u64 / 2, "{who} grew by {grown} bytes: it holds messages whole");
    }
}

/// An event, the silence, an event, the end.
fn events_around(edge: SocketAddr, path: &str, silence: Duration) {
    let stream = TcpStream::connect(edge).expect("the edge listens");
    stream.set_read_timeout(Some(silence + http::READ_TIMEOUT)).expect("a timeout can be set");
    let request = format!("GET {path}/events HTTP/1.1\r\nhost: {edge}\r\naccept: text/event-stream\r\n\r\n");
    (&stream).write_all(request.as_bytes()).expect("the edge takes it");
    let lines = BufReader::new(&stream).lines().map(|line| line.expect("a line"));
    let mut said = lines.filter(|line| line.starts_with("data:"));
    assert_eq!(said.next().as_deref(), Some("data: before"));
    let began = Instant::now();
    assert_eq!(said.next().as_deref(), Some("data: after"));
    assert!(began.elapsed() > silence / 2, "the first event came with the second one");
}

/// A target that sends events around a silence, and anything else back.
fn target(silence: Duration) -> SocketAddr {
    let listener = TcpListener::bind(loopback(0)).expect("the loopback has free ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(&stream);
                let mut line = String::new();
                while matches!(lines.read_line(&mut line), Ok(1..)) {
                    if line.starts_with("GET ") {
                        return send_events(&stream, silence);
                    }
                    // The peer may have left.
                    let _gone = (&stream).write_all(line.as_bytes());
                    line.clear();
                }
            });
        }
    });
    address
}

fn send_events(mut stream: &TcpStream, silence: Duration) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: before\n\n";
    if stream.write_all(head.as_bytes()).is_ok() {
        thread::sleep(silence);
        let _gone = stream.write_all(b"data: after\n\n");
    }
}

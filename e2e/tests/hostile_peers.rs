//! Peers that stop reading, never finish, or talk nonsense: they are cut, and nobody else notices.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use e2e::{
    Api, Hub, Machine, api, eventually,
    http::{self, Connection},
    targets::Nginx,
    wait::SOON,
};
use schemas::frames::{Frame, Hello, Ping, SESSION_PATH, SUBPROTOCOL};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// A peer that does not read is cut within 15 s (product.md section 4); the rest is for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(15 + 5);
/// A request head must be complete within 15 s.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// What a hub may grow by while somebody misbehaves.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

#[test]
fn an_agent_that_never_reads_is_cut_and_others_work_on() {
    cut_while_others_work(|_session| {});
}

#[test]
fn an_agent_that_asks_and_asks_but_never_reads_is_cut_and_others_work_on() {
    let ping = message(&Frame::Ping(Ping { nonce: 7 }).encode().expect("a ping is short")).repeat(512);
    cut_while_others_work(move |session| {
        // As much as the socket takes: the hub's answers pile up until its socket is full, too.
        let _full_or_cut = session.write(&ping);
    });
}

#[track_caller]
fn cut_while_others_work(misbehave: impl Fn(&mut TcpStream)) {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "others" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));

    let (agent_id, token) = hub.api().register_agent("never-reads");
    let mut session = session_socket(hub.api_address);
    session.write_all(&handshake(hub.api_address, &token)).expect("the hub takes a handshake");
    session.write_all(&message(&hello(&agent_id))).expect("the hub takes a hello");
    eventually("the session to be known", SOON, || is_online(&hub.api(), &agent_id, true));
    let (since, memory) = (Instant::now(), hub.resident_bytes());

    session.set_nonblocking(true).expect("a socket can be non-blocking");
    eventually("the silent agent to be cut", CUT_WITHIN, || {
        misbehave(&mut session);
        let asked = Instant::now();
        assert_eq!(http::get(edge, &path).status, 200, "another agent's share");
        assert!(asked.elapsed() < Duration::from_secs(2), "others had to wait {:?}", asked.elapsed());
        is_online(&hub.api(), &agent_id, false)
    });
    let grown = hub.resident_bytes().saturating_sub(memory);
    assert!(grown < GROWTH_BYTES_MAX, "the hub grew by {grown} bytes in {:?}", since.elapsed());
    // The socket itself is closed, not only forgotten.
    session.set_nonblocking(false).expect("a socket can block");
    session.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    let mut rest = Vec::new();
    if let Err(error) = session.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the socket is still open: {error}");
    }
}

#[test]
fn a_broken_frame_ends_that_session_and_no_other() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let _exposed = machine.expose(nginx.address, "site");
    let broken: [(&str, Vec<u8>); 5] = [
        ("an unknown kind", vec![0xff, 0xff, 0, 0, 0, 0, 0]),
        ("a body that is too short", vec![0, 3, 0, 0, 0, 0, 9, 1]),
        ("a body that is too long", vec![0, 3, 0, 0, 0, 0, 1, 1, 2, 3]),
        ("a length over every limit", vec![0, 3, 0, 0xff, 0xff, 0xff, 0xff]),
        ("no frame at all", b"hello there".to_vec()),
    ];
    for (what, bytes) in broken {
        let (agent_id, token) = hub.api().register_agent("nonsense");
        let mut session = session_socket(hub.api_address);
        session.write_all(&handshake(hub.api_address, &token)).expect("the hub takes a handshake");
        session.write_all(&message(&hello(&agent_id))).expect("the hub takes a hello");
        eventually("the session to be known", SOON, || is_online(&hub.api(), &agent_id, true));
        session.write_all(&message(&bytes)).expect("the hub takes the bytes");
        eventually(&format!("{what} to end the session"), SOON, || is_online(&hub.api(), &agent_id, false));
    }
    hub.api().active_tunnel("site").expect("the other agent is connected");
}

#[test]
fn a_session_without_a_valid_token_is_refused() {
    let hub = Hub::start();
    for token in ["", "nonsense", "pc_0000000000000000000000000000000000000000000"] {
        let mut connection = Connection::open(hub.api_address).expect("the hub listens");
        connection.send(&handshake(hub.api_address, token)).expect("the hub takes a handshake");
        let answer = connection.answer("GET").expect("an answer");
        assert_eq!(answer.status, 401, "token {token:?}: {}", answer.text());
    }
}

#[test]
fn a_request_head_that_is_not_complete_in_time_is_answered_408() {
    let hub = Hub::start();
    std::thread::scope(|scope| {
        for address in [hub.edge_address, hub.api_address] {
            // One says nothing more; the other keeps sending a little, which must not buy it time.
            for dripping in [false, true] {
                scope.spawn(move || slow_head(address, dripping));
            }
        }
    });
}

fn slow_head(address: SocketAddr, dripping: bool) {
    let mut stream = TcpStream::connect(address).expect("the hub listens");
    stream.write_all(b"GET /shared/x HTTP/1.1\r\nhost: x\r\n").expect("the hub takes a beginning");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout can be set");
    let begun = Instant::now();
    let mut answer = Vec::new();
    eventually("408 and a closed connection", HEAD_WITHIN + Duration::from_secs(5), || {
        if dripping && answer.is_empty() {
            let _cut = stream.write_all(b"x: y\r\n");
        }
        let mut buffer = [0; 1_024];
        match stream.read(&mut buffer) {
            Ok(0) => Ok(()),
            Ok(length) => {
                answer.extend_from_slice(&buffer[..length]);
                Err("not closed")
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            Err(_) => Err("no answer"),
        }
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{address}, dripping: {dripping}: {answer:?}");
    assert!(begun.elapsed() > HEAD_WITHIN / 3, "a slow line deserves some patience: {:?}", begun.elapsed());
}

#[test]
fn a_visitor_who_never_reads_is_cut_and_others_work_on() {
    const STALL: Duration = Duration::from_secs(3);
    let big = vec![b'x'; 96 << 20];
    let nginx = Nginx::serving(&[("big.bin", &big), ("small.bin", b"small")]);
    let hub = Hub::start_with(&[("HUB_VISITOR_STALL_MS", &STALL.as_millis().to_string())]);
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "files");
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "files" }));
    let (edge, _, prefix) = http::split_link(&api::text(&share, "shareUrl"));
    let prefix = prefix.trim_end_matches('/');
    let share_id = api::text(&share, "id");
    let small =
        || assert_eq!(http::get(edge, &format!("{prefix}/small.bin")).body, b"small", "another visitor");
    // Caches and buffers that every hub has after a while are not what is measured.
    (0..100).for_each(|_| small());
    hub.api().accesses(&share_id);
    let memory = hub.resident_bytes();

    let mut visitor = session_socket(edge);
    let request = format!("GET {prefix}/big.bin HTTP/1.1\r\nhost: {edge}\r\n\r\n");
    visitor.write_all(request.as_bytes()).expect("the edge takes a request");
    eventually("the visitor who never reads to be cut", STALL + SOON, || {
        small();
        let grown = hub.resident_bytes().saturating_sub(memory);
        assert!(grown < GROWTH_BYTES_MAX, "the hub grew by {grown} bytes");
        let accesses = hub.api().accesses(&share_id);
        let ended =
            accesses.iter().find(|access| access["path"] == "/big.bin" && access["endedBy"].is_string());
        ended.cloned().ok_or("its access has not ended")
    });
    let mut rest = Vec::new();
    visitor.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout can be set");
    let _reset = visitor.read_to_end(&mut rest);
    assert!(rest.len() < big.len(), "a visitor who was cut cannot have everything");
}

/// A socket with a receive buffer so small that it is soon full.
fn session_socket(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("the buffer's size can be set");
    socket.connect(&address.into()).expect("the hub listens");
    socket.into()
}

/// The WebSocket handshake of an agent's control connection, by hand.
fn handshake(host: SocketAddr, token: &str) -> Vec<u8> {
    format!(
        "GET {SESSION_PATH} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: bm90IHJhbmRvbSBhdCBhbA==\r\n\
         sec-websocket-protocol: {SUBPROTOCOL}\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

fn hello(agent_id: &str) -> Vec<u8> {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        agent_id: agent_id.to_owned(),
        instance: "0123456789abcdef0123456789abcdef".to_owned(),
        host_name: "hostile".to_owned(),
        agent_version: "0.0.0".to_owned(),
    };
    Frame::Hello(hello).encode().expect("a hello is short")
}

/// A binary WebSocket message of a client; a mask of zeros is a mask.
fn message(payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x82];
    match u8::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(0x80 | length),
        Ok(_) | Err(_) => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).expect("test messages are short").to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Whether the API shows the agent as it should be.
fn is_online(api: &Api, agent_id: &str, expected: bool) -> Result<(), String> {
    let agent = api.get(&format!("/v1/agents/{agent_id}")).expect(200);
    if (agent["status"] == "online") == expected { Ok(()) } else { Err(agent.to_string()) }
}

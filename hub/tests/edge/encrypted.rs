//! The edge behind TLS: the same answers, who is turned away, and who is cut before a request.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::Duration,
};

use hub::{
    edge::Entrance,
    tls::{
        EDGE_PROTOCOLS, Speaker,
        certificates::{Certificates, PairFiles},
    },
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use wire::tls::{HTTP_11, trust::Trust};

use super::harness::*;

/// A listener's certificate and a client that believes it.
struct Trusted {
    speaker: Arc<Speaker>,
    client: Arc<ClientConfig>,
}

fn trusted() -> Trusted {
    let folder = tempfile::tempdir().unwrap();
    let slug = format!("{SLUG}.localhost");
    let names = ["localhost", "other.localhost", &slug, "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = PairFiles { cert: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
    fs::write(&files.cert, made.cert.pem()).unwrap();
    fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut client = Trust::File(files.cert.clone()).client_config().unwrap();
    client.alpn_protocols = vec![HTTP_11.to_vec()];
    let speaker = Speaker::new(Certificates::open(Some(files), None).unwrap(), EDGE_PROTOCOLS).unwrap();
    Trusted { speaker, client: Arc::new(client) }
}

impl Trusted {
    fn rig(&self, target: SocketAddr, mut setup: Setup) -> Rig {
        setup.edge.tls = Some(Arc::clone(&self.speaker));
        Rig::with(target, setup)
    }

    /// A visitor who asks for this name.
    fn visitor(&self, rig: &Rig, name: &str) -> Conn {
        self.visitor_on(TcpStream::connect(rig.edge.local_addr).unwrap(), name)
    }

    fn visitor_on(&self, socket: TcpStream, name: &str) -> Conn {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        Conn::on(Wire::Tls(Box::new(StreamOwned::new(tls, socket))))
    }

    /// A visitor of the share's own host.
    fn guest(&self, rig: &Rig) -> Conn {
        self.visitor(rig, &format!("{SLUG}.localhost"))
    }
}

/// Answers with the request's headers.
fn mirror() -> SocketAddr {
    answering(|head, body| {
        let lines: Vec<String> = head.lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        ok(&format!("{}\n{}", lines.join("\n"), body.len()))
    })
}

#[test]
fn a_share_answers_over_tls_and_its_target_is_told_so() {
    let trusted = trusted();
    let rig = trusted.rig(mirror(), Setup::default());
    let mut guest = trusted.guest(&rig);
    for _ in 0..3 {
        let answer = guest.ask(rig.request("GET /x", "X-Forwarded-Proto: gopher\r\n", ""));
        assert_eq!(answer.status(), 200);
        let seen = answer.text();
        assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");
        assert!(
            seen.contains(&format!("forwarded: for=127.0.0.1;host=\"{}\";proto=https\n", rig.host())),
            "{seen}"
        );
    }
    let body = "x".repeat(1 << 20);
    let upload = rig.request("POST /x", &format!("Content-Length: {}\r\n", body.len()), &body);
    assert!(guest.ask(upload).text().ends_with("\n1048576"));
    let last = guest.ask(rig.request("GET /x", "Connection: close\r\n", ""));
    assert_eq!(last.status(), 200);
    // An end in order, with a farewell: the answer was whole.
    assert!(guest.rest_or_break().unwrap().is_empty());
    assert_eq!(rig.records(5).len(), 5);
    eventually("the place is free", || rig.edge.metrics.connections_open.get() == 0);
}

#[test]
fn a_large_answer_arrives_whole_at_a_reader_who_takes_his_time() {
    let trusted = trusted();
    let large = "0123456789abcdef".repeat(1 << 18);
    let sent = large.clone();
    let rig = trusted.rig(answering(move |_, _| ok(&sent)), Setup::default());
    let mut guest = trusted.guest(&rig);
    guest.send(rig.request("GET /large", "", ""));
    let head = guest.head();
    let mut whole = Vec::new();
    while whole.len() < large.len() {
        whole.extend(guest.exactly(1 << 18));
        std::thread::yield_now();
    }
    assert!(head.status() == 200 && whole == large.as_bytes());
}

#[test]
fn an_upgraded_connection_carries_both_ways_until_it_ends() {
    let trusted = trusted();
    let target = target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let said = conn.exactly(4);
        conn.send(said);
        conn.finish();
    });
    let rig = trusted.rig(target, Setup::default());
    let mut guest = trusted.guest(&rig);
    guest.send(rig.request("GET /ws", "Connection: upgrade\r\nUpgrade: websocket\r\n", ""));
    assert_eq!(guest.head().status(), 101);
    guest.send("ping");
    assert_eq!(guest.exactly(4), b"ping");
    assert!(guest.rest_or_break().unwrap().is_empty());
}

#[test]
fn plain_http_is_sent_to_https_or_told_and_leaves_no_record() {
    let trusted = trusted();
    let rig = trusted.rig(mirror(), Setup::default());
    let answer = rig.get("/x?y=1");
    assert_eq!(answer.status(), 308);
    assert_eq!(answer.head.get("location"), Some(format!("https://{}/x?y=1", rig.host()).as_str()));
    let told = rig.visitor().ask(rig.request("POST /x", "Content-Length: 0\r\n", ""));
    assert_eq!(told.status(), 400);
    assert!(told.text().contains("\"tls_required\""), "{}", told.text());
    assert_eq!(trusted.guest(&rig).ask(rig.request("GET /", "", "")).status(), 200);
    rig.records(1);
    eventually("all places are free but one", || rig.edge.metrics.connections_open.get() <= 1);
}

#[test]
fn a_request_for_another_host_than_the_handshake_named_is_misdirected() {
    let trusted = trusted();
    let rig = trusted.rig(mirror(), Setup::default());
    let (ours, link) =
        (rig.request("GET /", "", ""), format!("GET /shared/{TOKEN}/ HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    for (name, request, status) in [
        (&*format!("{SLUG}.localhost"), &ours, 200),
        ("other.localhost", &ours, 421),
        ("localhost", &ours, 421),
        ("localhost", &link, 200),
        (&*format!("{SLUG}.localhost"), &link, 421),
        // By address no name is asked for.
        ("127.0.0.1", &ours, 200),
    ] {
        let answer = trusted.visitor(&rig, name).ask(request);
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        if status == 421 {
            assert_eq!(answer.code(), "misdirected_request");
        }
    }
    // What was misdirected is nobody's access.
    rig.records(3);
    let mut setup = Setup::default();
    setup.edge.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let behind_proxy = trusted.rig(mirror(), setup);
    let request = behind_proxy.request("GET /", "", "");
    assert_eq!(trusted.visitor(&behind_proxy, "localhost").ask(request).status(), 200);
}

#[test]
fn a_browser_on_the_bare_host_is_sent_to_the_shares_origin_in_https() {
    let trusted = trusted();
    let rig = trusted.rig(mirror(), Setup::default());
    let port = rig.edge.local_addr.port();
    let request = format!(
        "GET /shared/{TOKEN}/x HTTP/1.1\r\nHost: localhost:{port}\r\nSec-Fetch-Mode: navigate\r\n\r\n"
    );
    let answer = trusted.visitor(&rig, "localhost").ask(request);
    assert_eq!(answer.status(), 302);
    assert_eq!(answer.head.get("location"), Some(format!("https://{SLUG}.localhost:{port}/x").as_str()));
}

#[test]
fn who_is_slow_before_his_first_request_is_cut_and_counted() {
    let trusted = trusted();
    let mut setup = Setup::default();
    setup.edge.head_timeout_ms = 200;
    let rig = trusted.rig(mirror(), setup);
    let at = rig.edge.local_addr;
    let (silent, mut half_hello, mut half_plain) = (Conn::to(at), Conn::to(at), Conn::to(at));
    half_hello.send([0x16, 3, 1, 2, 0, 1]);
    half_plain.send("GET / HTT");
    // Shaken hands, and then half a head.
    let mut half_head = trusted.guest(&rig);
    half_head.send("GET / HTTP/1.1\r\nHost:");
    assert_eq!(half_head.head().status(), 408);
    for mut conn in [silent, half_hello, half_plain] {
        conn.until_over();
    }
    eventually("all places are free", || rig.edge.metrics.connections_open.get() == 0);
    assert!(rig.edge.metrics.slow_heads.get() >= 3);
    assert!(trusted.speaker.failures.load(std::sync::atomic::Ordering::Relaxed) >= 2);
    assert_eq!(trusted.guest(&rig).ask(rig.request("GET /", "", "")).status(), 200);
}

#[test]
fn a_visitor_who_never_reads_is_cut_for_it() {
    let trusted = trusted();
    let mut setup = Setup::default();
    setup.edge.visitor_stall_ms = 300;
    let endless = target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while conn.try_send([b'x'; 65_536]).is_ok() {}
    });
    let rig = trusted.rig(endless, setup);
    let mut guest = trusted.guest(&rig);
    guest.send(rig.request("GET /endless", "", ""));
    assert_eq!(guest.head().status(), 200);
    eventually("he is cut", || rig.edge.metrics.stalled.get() == 1);
    eventually("his place is free", || rig.edge.metrics.connections_open.get() == 0);
    // Nothing that he could take for the end of the answer.
    guest.rest_or_break().unwrap_err();
}

#[test]
fn a_drain_waits_for_no_handshake() {
    let trusted = trusted();
    let rig = trusted.rig(mirror(), Setup::default());
    let mut half_hello = rig.visitor();
    half_hello.send([0x16, 3, 1, 2, 0, 1]);
    eventually("it is open", || rig.edge.metrics.connections_open.get() == 1);
    let began = std::time::Instant::now();
    rig.block_on(rig.edge.drain(Duration::from_secs(8)));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    half_hello.until_over();
}

#[test]
fn connections_that_another_listener_accepted_are_answered_too() {
    let trusted = trusted();
    let mut setup = Setup::default();
    setup.edge.entrance = Entrance::Shared;
    setup.edge.threads = 2;
    let rig = trusted.rig(mirror(), setup);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hand_over = rig.edge.hand_over();
    for _ in 0..4 {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        hand_over(far);
        let mut guest = trusted.visitor_on(near, &format!("{SLUG}.localhost"));
        assert_eq!(guest.ask(rig.request("GET /", "Connection: close\r\n", "")).status(), 200);
    }
    rig.block_on(rig.edge.drain(Duration::ZERO));
    let mut late = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    hand_over(listener.accept().unwrap().0);
    assert_eq!(late.read(&mut [0; 1]).unwrap(), 0, "nobody is left to take it");
}

//! Bytes between a client and a target: exact, half-closed, and ended when they must end.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, eventually, http, ports::loopback, wait::SOON};
use serde_json::{Value, json};

/// Running streams end within a second of what ends them (product.md section 2); the rest is for a busy machine.
const ENDED_WITHIN: Duration = Duration::from_secs(1 + 1);

#[test]
fn bytes_pass_exactly_both_ways_and_a_half_close_is_carried() {
    let target = serve(|mut stream| {
        // Answers only after the client has finished: that needs the client's half-close.
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("the tunnel reads");
        received.reverse();
        stream.write_all(&received).expect("the tunnel writes");
    });
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(target, "reverse", &["--protocol", "tcp"]);
    let reached = laptop.reach("reverse");
    let sent: Vec<u8> = (0..4_000_003_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for port in [reached.local_port, exposed.tunnel_port()] {
        let mut stream = TcpStream::connect(loopback(port)).expect("the port listens");
        let mut reader = stream.try_clone().expect("a socket can be cloned");
        let answer = thread::spawn(move || {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).map(|_| answer)
        });
        stream.write_all(&sent).expect("the tunnel takes it all");
        stream.shutdown(Shutdown::Write).expect("a socket can be half-closed");
        let mut answer = answer.join().expect("reading does not panic").expect("the answer comes");
        answer.reverse();
        assert!(
            answer == sent,
            "port {port}: {} bytes came back for {}, or others",
            answer.len(),
            sent.len()
        );
    }
}

#[test]
fn revoking_a_link_ends_the_download_that_runs_through_it() {
    let target = endless_page();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(target, "endless", &["--protocol", "http"]);
    let (share, mut download) = begin_download(&hub, &exposed.tunnel_id());
    hub.api().delete(&format!("/v1/shares/{}", api::text(&share, "id"))).expect(200);
    ends(&mut download, "the download");
}

#[test]
fn deleting_a_tunnel_ends_its_connections_and_its_links() {
    let target = endless_page();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(target, "endless", &["--protocol", "http"]);
    let (share, mut download) = begin_download(&hub, &exposed.tunnel_id());
    let mut raw = TcpStream::connect(loopback(exposed.tunnel_port())).expect("the tunnel port listens");
    raw.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("the tunnel takes it");
    raw.read_exact(&mut [0; 64]).expect("the page begins");

    hub.api().delete(&format!("/v1/tunnels/{}", exposed.tunnel_id())).expect(200);
    ends(&mut download, "the download");
    ends(&mut raw, "the connection on the tunnel port");
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    assert_eq!(http::get(edge, &path).status, 403);
    eventually("the tunnel port to be closed", SOON, || {
        match TcpStream::connect(loopback(exposed.tunnel_port())) {
            Err(_) => Ok(()),
            Ok(_) => Err("it still listens"),
        }
    });
}

#[test]
fn a_paused_tunnel_refuses_until_it_is_resumed() {
    let target = serve(|mut stream| {
        if matches!(stream.read(&mut [0; 4_096]), Ok(1..)) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            let _closed = stream.write_all(answer);
        }
    });
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(target, "site", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "site" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let set = |status: &str| {
        hub.api()
            .patch(&format!("/v1/tunnels/{}", exposed.tunnel_id()), &json!({ "status": status }))
            .expect(200);
    };
    assert_eq!(http::get(edge, &path).status, 200);
    set("paused");
    let refused = http::get(edge, &path);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "tunnel_paused");
    assert_eq!(hub.api().tunnel_named("site").expect("it is listed")["tunnelPort"], exposed.tunnel_port());
    set("active");
    assert_eq!(http::get(edge, &path).status, 200);
}

#[test]
fn a_visitor_who_leaves_ends_the_request_at_the_target() {
    let (left, leaving) = mpsc::channel();
    let target = serve(move |mut stream| {
        if !begin_page(&mut stream) {
            return;
        }
        while stream.write_all(b"5\r\nmore\n\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        let _test_is_over = left.send(Instant::now());
    });
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(target, "endless", &["--protocol", "http"]);
    let (_share, download) = begin_download(&hub, &exposed.tunnel_id());
    let gone = Instant::now();
    drop(download);
    let noticed = leaving.recv_timeout(SOON).expect("the target notices that its client has left");
    assert!(noticed.duration_since(gone) < ENDED_WITHIN, "noticed after {:?}", noticed.duration_since(gone));
}

/// A target that treats each connection like this.
fn serve(treat: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind(loopback(0)).expect("the loopback has free ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let treat = treat.clone();
            thread::spawn(move || treat(stream));
        }
    });
    address
}

/// A page that never ends.
fn endless_page() -> SocketAddr {
    serve(|mut stream| {
        let asked = begin_page(&mut stream);
        while asked && stream.write_all(b"5\r\nmore\n\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    })
}

/// Answers a request's head; false for a connection without one: an agent looks whether somebody listens.
fn begin_page(stream: &mut TcpStream) -> bool {
    let asked = matches!(stream.read(&mut [0; 4_096]), Ok(1..));
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
    asked && stream.write_all(head).is_ok()
}

/// A share of the tunnel, and a download through it that has begun.
#[track_caller]
fn begin_download(hub: &Hub, tunnel_id: &str) -> (Value, TcpStream) {
    let share = hub.api().create_share(tunnel_id, &json!({ "name": "endless" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let mut download = TcpStream::connect(edge).expect("the edge listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {edge}\r\n\r\n");
    download.write_all(request.as_bytes()).expect("the edge takes a request");
    let mut beginning = [0; 15];
    download.read_exact(&mut beginning).expect("the answer begins");
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    (share, download)
}

/// The peer closes within the time that is promised.
#[track_caller]
fn ends(stream: &mut TcpStream, what: &str) {
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
    eventually(&format!("{what} to end"), ENDED_WITHIN, || match stream.read(&mut [0; 65_536]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("bytes still come"),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err("still open")
        }
        Err(_) => Ok(()),
    });
}

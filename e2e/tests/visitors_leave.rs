//! A visitor who leaves, and a link that ends, are noticed at the target within a second: through hub and agent, over
//! both protocols, whether the answer has begun or not.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, http, process::Process, wait::SOON};
use serde_json::json;

/// The bar of the contract, and what a busy machine and the command that ends a link take.
const SOON_ENOUGH: Duration = Duration::from_millis(1_500);

/// What the target tells.
#[derive(Debug)]
enum Told {
    /// A request has come.
    Begun,
    /// Its connection ended.
    Ended(Instant),
}

/// A target that never ends an answer: `/events` begins one, `/poll` does not.
fn target() -> (SocketAddr, mpsc::Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let tell = tell.clone();
            thread::spawn(move || serve(&stream, &tell));
        }
    });
    (address, told)
}

fn serve(stream: &TcpStream, tell: &mpsc::Sender<Told>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) && line != "\r\n" {
        if first.is_empty() {
            first.clone_from(&line);
        }
        line.clear();
    }
    // The agent looks whether anybody is there before it says that the tunnel works.
    if first.is_empty() {
        return;
    }
    if first.contains("/events") {
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                     d\r\ndata: begin\n\n\r\n";
        let mut stream = stream;
        stream.write_all(begin.as_bytes()).expect("somebody reads");
    }
    tell.send(Told::Begun).expect("the test listens");
    let _reset_or_closed = reader.read_to_end(&mut Vec::new());
    // The test may have ended.
    let _ = tell.send(Told::Ended(Instant::now()));
}

fn begun(told: &mpsc::Receiver<Told>) {
    assert!(matches!(told.recv_timeout(SOON), Ok(Told::Begun)), "the request reaches the target");
}

fn ended(told: &mpsc::Receiver<Told>) -> Instant {
    match told.recv_timeout(SOON) {
        Ok(Told::Ended(at)) => at,
        other => panic!("the target was to learn of the end: {other:?}"),
    }
}

#[test]
fn the_target_learns_within_a_second_that_its_visitor_left_or_that_the_link_ended() {
    let (address, told) = target();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(address, "events", &["--protocol", "http"]);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["events", "poll"] {
            let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "events" }));
            let (edge, _, link) = http::split_link(&api::text(&share, "shareUrl"));
            let url = format!("http://{edge}{}/{path}", link.trim_end_matches('/'));
            let visit = || {
                let visitor = Process::spawn("curl", Command::new("curl").args(["-sN", protocol, &url]));
                begun(&told);
                if path == "events" {
                    visitor.line("the first event", SOON, |line| line.contains("begin").then_some(()));
                }
                visitor
            };
            let mut visitor = visit();
            let left = Instant::now();
            visitor.kill9();
            assert!(ended(&told) - left < SOON_ENOUGH, "{protocol} {path}: the visitor left");

            let visitor = visit();
            let revoked = Instant::now();
            hub.api().delete(&format!("/v1/shares/{}", api::text(&share, "id"))).expect(200);
            assert!(ended(&told) - revoked < SOON_ENOUGH, "{protocol} {path}: the link was revoked");
            drop(visitor);
        }
    }
}

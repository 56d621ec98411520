//! Heads that are slow, too long, or readable in two ways.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hub::edge::EdgeOptions;

use crate::harness::*;

fn counting() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let address = answering(move |head, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        ok(head.path())
    });
    (address, count)
}

#[test]
fn a_head_that_takes_too_long_is_answered_with_408() {
    let (address, count) = counting();
    let setup = Setup::default();
    let edge = EdgeOptions { head_timeout_ms: 100, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = rig.visitor();
    visitor.send("GET / HTTP/1.1\r\nHost: a");
    let answer = visitor.ask("");
    assert_eq!(answer.status(), 408);
    assert!(answer.text().contains("\"code\":\"request_timeout\""));
    assert!(visitor.is_over());
    // On a kept connection the time begins with the first byte of the next head.
    let mut visitor = rig.visitor();
    assert_eq!(visitor.ask(rig.request("GET /", "", "")).status(), 200);
    visitor.send("G");
    assert_eq!(visitor.ask("").status(), 408);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert_eq!(rig.edge.metrics.slow_heads.get(), 2);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let (address, _) = counting();
    let setup = Setup::default();
    let edge = EdgeOptions { keep_alive_ms: 100, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = rig.visitor();
    assert_eq!(visitor.ask(rig.request("GET /", "", "")).status(), 200);
    assert_eq!(visitor.rest(), b"");
}

#[test]
fn a_head_that_is_too_long_is_answered_with_431() {
    let (address, count) = counting();
    let rig = Rig::new(address);
    let long = format!("X-Long: {}\r\n", "a".repeat(70_000));
    let many = "X-Many: 1\r\n".repeat(100);
    for more in [long, many] {
        let mut visitor = rig.visitor();
        visitor.send(rig.request("GET /", &more, ""));
        let answer = String::from_utf8(visitor.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{} bytes: {answer}", more.len());
    }
    let fits = format!("X-Long: {}\r\n", "a".repeat(60_000));
    assert_eq!(rig.get_with("/", &fits).status(), 200);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (address, _) = counting();
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    let requests: String = (0..20).map(|n| rig.request(&format!("GET /{n}"), "", "")).collect();
    visitor.send(requests);
    for n in 0..20 {
        let head = visitor.head();
        assert_eq!(visitor.response_body(&head), format!("/{n}").as_bytes());
    }
    rig.records(20);
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let rig = Rig::new(answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec()
    }));
    let answer = rig.visitor().ask(format!("GET /shared/{TOKEN}/ HTTP/1.0\r\n\r\n"));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hi"));
    assert_eq!(answer.head.get("transfer-encoding"), None);
}

#[test]
fn what_can_be_read_as_two_requests_reaches_the_target_as_one_at_most() {
    let (address, count) = counting();
    let rig = Rig::new(address);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for more in [
        "Content-Length: 5\r\nContent-Length: 6\r\n".to_owned(),
        "Content-Length: +5\r\n".to_owned(),
        "Content-Length: 0x5\r\n".to_owned(),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 5, 6\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "X-A: b\r\n folded\r\n".to_owned(),
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", smuggled.len() + 5),
        "X-A: b\rc\r\n".to_owned(),
        "X-A: b\0c\r\n".to_owned(),
    ] {
        count.store(0, Ordering::SeqCst);
        let mut visitor = rig.visitor();
        visitor.send(rig.request("POST /", &more, &format!("0\r\n\r\n{smuggled}")));
        let answer = visitor.rest();
        let answers = String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "{more:?}: {answers} answers");
        assert!(count.load(Ordering::SeqCst) <= 1, "{more:?}");
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("/smuggled"), "{more:?}");
    }
}

#[test]
fn a_head_with_two_hosts_reaches_nobody() {
    let (address, count) = counting();
    let rig = Rig::new(address);
    let host = rig.host();
    for head in [
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET http://other.localhost/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: a@{host}\r\n\r\n"),
    ] {
        let answer = rig.visitor().ask(&head);
        assert_eq!((answer.status(), answer.code().as_str()), (400, "bad_request"), "{head}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[test]
fn a_fragment_in_the_request_line_is_refused() {
    let (address, count) = counting();
    let rig = Rig::new(address);
    assert_eq!(rig.get("/a#b").code(), "bad_request");
    let rig = Rig::with(address, Setup::default().paths(&["/a"]));
    assert_eq!(rig.get("/a#b").code(), "ambiguous_path");
    assert_eq!(rig.get("/a").status(), 200);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    rig.records(2);
}

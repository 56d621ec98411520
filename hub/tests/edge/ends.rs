//! Who ends an exchange, and how fast everybody else learns of it.

use std::{
    sync::{atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use domain::{
    access::EndedBy,
    recorded::StreamName,
    share::{self, RevokeReason, ShareExpired, ShareRevoked},
    tunnel,
};
use hub::{edge::EdgeOptions, running::Under};

use crate::harness::*;

/// The bar of the contract.
const A_SECOND: Duration = Duration::from_secs(1);

/// A target that reads a head, says `first`, and tells when its visitor was gone.
fn watched(first: &'static str) -> (std::net::SocketAddr, mpsc::Receiver<Instant>, mpsc::Receiver<()>) {
    let (began, has_begun) = mpsc::channel();
    let (ended, has_ended) = mpsc::channel();
    let address = target(move |mut conn| {
        conn.head();
        conn.send(first);
        began.send(()).unwrap();
        conn.until_over();
        ended.send(Instant::now()).unwrap();
    });
    (address, has_ended, has_begun)
}

const ENDLESS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";

fn revoke(rig: &Rig) {
    rig.apply_to_share(share::Event::Revoked(ShareRevoked { reason: RevokeReason::Requested }));
    rig.running.end(Under::Share(share_id()));
}

#[test]
fn a_visitor_who_leaves_ends_the_stream_to_the_target() {
    for (first, request) in [
        (ENDLESS, "GET /download"),
        ("", "GET /long-poll"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n", "GET /page"),
    ] {
        let (address, has_ended, has_begun) = watched(first);
        let rig = Rig::new(address);
        let mut visitor = rig.visitor();
        visitor.send(rig.request(request, "", ""));
        has_begun.recv_timeout(PATIENCE).unwrap();
        if first == ENDLESS {
            assert_eq!(visitor.head().status(), 200);
        }
        let left = Instant::now();
        drop(visitor);
        let seen = has_ended.recv_timeout(PATIENCE).expect("the target learns of it");
        assert!(seen - left < A_SECOND, "{request}: after {:?}", seen - left);
        assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Visitor), "{request}");
    }
}

#[test]
fn a_visitor_who_leaves_within_his_upload_ends_the_stream_to_the_target() {
    let (address, has_ended, has_begun) = watched("");
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Content-Length: 1000000\r\n", "begin"));
    has_begun.recv_timeout(PATIENCE).unwrap();
    let left = Instant::now();
    drop(visitor);
    assert!(has_ended.recv_timeout(PATIENCE).unwrap() - left < A_SECOND);
    let (access, _) = &rig.records(1)[0];
    assert_eq!((access.status_code, access.ended_by, access.bytes_in), (499, Some(EndedBy::Visitor), 5));
}

#[test]
fn revoking_a_share_ends_a_running_download_and_refuses_the_next_request() {
    let (address, has_ended, _begun) = watched(ENDLESS);
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    assert_eq!(visitor.chunk(), b"begin");
    let revoked = Instant::now();
    revoke(&rig);
    assert!(visitor.is_over());
    assert!(revoked.elapsed() < A_SECOND);
    assert!(has_ended.recv_timeout(PATIENCE).unwrap() - revoked < A_SECOND);
    let next = rig.get("/");
    assert_eq!((next.status(), next.code().as_str()), (403, "share_revoked"));
    let records = rig.records(2);
    assert_eq!(records[0].0.ended_by, Some(EndedBy::Revoked));
}

#[test]
fn whoever_still_waits_for_an_answer_when_the_share_is_revoked_gets_one() {
    let (address, has_ended, has_begun) = watched("");
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    has_begun.recv_timeout(PATIENCE).unwrap();
    revoke(&rig);
    let answer = visitor.ask("");
    assert_eq!((answer.status(), answer.code().as_str()), (403, "share_revoked"));
    has_ended.recv_timeout(PATIENCE).unwrap();
    rig.records(1);
}

#[test]
fn a_websocket_ends_with_its_tunnel() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        conn.until_over();
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "Connection: Upgrade\r\nUpgrade: websocket\r\n", ""));
    assert_eq!(visitor.head().status(), 101);
    let ended = Instant::now();
    rig.running.end(Under::Tunnel(tunnel_id()));
    assert!(visitor.is_over());
    assert!(ended.elapsed() < A_SECOND);
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Revoked));
}

#[test]
fn a_share_that_expires_ends_its_running_streams_without_being_told() {
    let (address, ..) = watched(ENDLESS);
    let mut setup = Setup::default();
    setup.share.expires_at = Some("2026-03-02T11:00:00.000Z".parse().unwrap());
    let rig = Rig::with(address, setup);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    assert_eq!(visitor.chunk(), b"begin");
    rig.clock.advance_ms(3_600_000);
    let expired = Instant::now();
    assert!(visitor.is_over());
    assert!(expired.elapsed() < A_SECOND);
    assert_eq!(rig.get("/").code(), "share_expired");
    rig.apply_to_share(share::Event::Expired(ShareExpired {}));
    assert_eq!(rig.get("/").code(), "share_expired");
}

#[test]
fn a_pause_refuses_new_requests_and_ends_running_ones() {
    let (address, has_ended, _begun) = watched(ENDLESS);
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    assert_eq!(visitor.chunk(), b"begin");
    let paused = Instant::now();
    rig.apply_to_tunnel(tunnel::Event::Paused(tunnel::TunnelPaused {}));
    let refused = rig.get("/");
    assert_eq!((refused.status(), refused.code().as_str()), (503, "tunnel_paused"));
    assert!(visitor.is_over());
    assert!(has_ended.recv_timeout(PATIENCE).unwrap() - paused < A_SECOND);
}

#[test]
fn a_visitor_who_never_reads_holds_the_target_back_and_is_cut() {
    let (sent, total) = mpsc::channel();
    let rig = Rig::with(
        target(move |mut conn| {
            conn.head();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
            let block = [7; 64 * 1024];
            let mut bytes = 0_u64;
            while conn.try_send(block).is_ok() {
                bytes += block.len() as u64;
            }
            sent.send(bytes).unwrap();
        }),
        Setup { edge: EdgeOptions { visitor_stall_ms: 200, ..Setup::default().edge }, ..Setup::default() },
    );
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    let bytes = total.recv_timeout(PATIENCE).expect("the target's stream ends");
    // What the kernel's buffers of four sockets hold (36 MiB each way on a large machine): not the gigabyte.
    assert!(bytes < 400 * 1024 * 1024, "{bytes} bytes were taken from the target");
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Stalled));
    assert_eq!(rig.edge.metrics.stalled.get(), 1);
}

#[test]
fn a_visitor_who_never_sends_the_body_he_promised_is_cut() {
    let (address, has_ended, _begun) = watched("");
    let setup = Setup::default();
    let edge = EdgeOptions { visitor_stall_ms: 200, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Content-Length: 10\r\n", "half"));
    has_ended.recv_timeout(PATIENCE).unwrap();
    assert!(visitor.is_over());
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Stalled));
}

#[test]
fn a_target_that_breaks_off_breaks_the_answer_off() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    assert_eq!(visitor.head().get("content-length"), Some("10"));
    assert_eq!(visitor.rest(), b"half");
    let (access, _) = &rig.records(1)[0];
    assert_eq!((access.ended_by, access.bytes_out), (Some(EndedBy::Upstream), 4));
}

#[test]
fn a_target_that_does_not_answer_is_given_up() {
    let (address, has_ended, _begun) = watched("");
    let setup = Setup::default();
    let edge = EdgeOptions { upstream_timeout_ms: 100, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let answer = rig.get("/");
    assert_eq!((answer.status(), answer.code().as_str()), (504, "upstream_timeout"));
    has_ended.recv_timeout(PATIENCE).unwrap();
    rig.records(1);
}

#[test]
fn a_kept_connection_that_died_is_replaced_once_where_that_does_no_harm() {
    // Answers one request on each connection and closes at the second one.
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send(ok("first"));
        conn.line();
    }));
    let mut visitor = rig.visitor();
    assert_eq!(visitor.ask(rig.request("GET /", "", "")).text(), "first");
    assert_eq!(visitor.ask(rig.request("GET /", "", "")).text(), "first");
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 2);
    assert_eq!(rig.edge.metrics.upstream_retried.get(), 1);
    let refused = visitor.ask(rig.request("POST /", "Content-Length: 1\r\n", "x"));
    assert_eq!(refused.code(), "upstream_failed", "a POST may have been carried out");
    rig.records(3);
}

#[test]
fn a_connection_is_not_used_again_after_an_answer_before_the_end_of_the_upload() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send(ok("early"));
        conn.until_over();
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Content-Length: 1000\r\n", "part"));
    assert_eq!(visitor.head().status(), 200);
    assert_eq!(rig.get("/").text(), "early");
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 2);
}

#[test]
fn a_target_that_closes_after_each_answer_gets_a_connection_each() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
    }));
    let mut visitor = rig.visitor();
    for _ in 0..3 {
        assert_eq!(visitor.ask(rig.request("GET /", "", "")).text(), "until the end");
    }
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 3);
    assert_eq!(rig.edge.metrics.upstream_retried.get(), 0);
}

#[test]
fn a_drain_lets_a_running_answer_finish_and_then_closes() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        conn.send(ENDLESS);
        wait.lock().recv().unwrap();
        conn.send("3\r\nend\r\n0\r\n\r\n");
    }));
    let (mut idle, mut visitor) = (rig.visitor(), rig.visitor());
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    assert_eq!(visitor.chunk(), b"begin");
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(rig.edge.drain(PATIENCE));
        });
        assert!(idle.is_over());
        eventually("new connections are refused", || {
            std::net::TcpStream::connect(rig.edge.local_addr).is_err()
        });
        go.send(()).unwrap();
        assert_eq!(visitor.chunk(), b"end");
        assert_eq!(visitor.chunk(), b"");
        assert_eq!(visitor.line(), "");
        assert!(visitor.is_over());
        drained.join().unwrap();
    });
    assert_eq!(rig.records(1)[0].0.ended_by, None);
}

#[test]
fn a_drain_that_takes_too_long_cuts_what_still_runs() {
    let (address, has_ended, _begun) = watched(ENDLESS);
    let rig = Rig::new(address);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    rig.block_on(rig.edge.drain(Duration::from_millis(50)));
    has_ended.recv_timeout(PATIENCE).unwrap();
    visitor.until_over();
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Hub));
}

#[test]
fn a_tunnel_that_leads_elsewhere_now_is_not_reached_through_kept_connections() {
    let rig = Rig::new(answering(|_, _| ok("here")));
    assert_eq!(rig.get("/").text(), "here");
    let update = tunnel::TunnelUpdated {
        target: Some(domain::target::Target { host: "elsewhere.test".to_owned(), port: 80 }),
        ..tunnel::TunnelUpdated::default()
    };
    rig.apply(
        StreamName::tunnel(tunnel_id()),
        2,
        &domain::event::Event::Tunnel(tunnel::Event::Updated(update)),
    );
    assert_eq!(rig.get("/").text(), "here");
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 2);
}

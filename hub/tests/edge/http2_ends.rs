//! Who ends a request of an HTTP/2 connection, or the connection, and how fast everybody else learns of it.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use domain::{access::EndedBy, share, tunnel};
use hub::{edge::EdgeOptions, running::Under};

use crate::{
    h2_side::{
        ByHand, CANCEL, DATA, END_HEADERS, GOAWAY, HEADERS, NO_ERROR, RST_STREAM, SETTINGS, Visitor,
        WINDOW_UPDATE, block, frame, rest,
    },
    harness::*,
};

/// The bar of the contract.
const A_SECOND: Duration = Duration::from_secs(1);

/// A target that says when its connection ended, and how the answers to its requests begin.
fn watched(begin: &'static str) -> (std::net::SocketAddr, mpsc::Receiver<Instant>, mpsc::Receiver<()>) {
    let (ended, has_ended) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let address = target(move |mut conn| {
        conn.head();
        conn.send(begin);
        begun.send(()).unwrap();
        conn.until_over();
        ended.send(Instant::now()).unwrap();
    });
    (address, has_ended, has_begun)
}

const ENDLESS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";

#[test]
fn the_target_notices_within_a_second_that_a_visitor_gave_a_request_up() {
    for begin in ["", ENDLESS] {
        let (address, has_ended, has_begun) = watched(begin);
        let rig = Rig::new(address);
        let mut visitor = ByHand::to(&rig);
        visitor.get(1, "/");
        has_begun.recv_timeout(PATIENCE).unwrap();
        if !begin.is_empty() {
            assert_eq!(visitor.expect(DATA).payload, b"begin");
        }
        let left = Instant::now();
        visitor.send(frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
        assert!(has_ended.recv_timeout(PATIENCE).unwrap() - left < A_SECOND);
        let (access, _) = &rig.records(1)[0];
        let status = if begin.is_empty() { 499 } else { 200 };
        assert_eq!((access.status_code, access.ended_by), (status, Some(EndedBy::Visitor)));
        assert!(visitor.is_alive(), "the connection goes on");
    }
}

#[test]
fn a_visitor_who_leaves_takes_all_of_his_requests_along() {
    let (address, has_ended, has_begun) = watched(ENDLESS);
    let rig = Rig::new(address);
    let mut visitor = ByHand::to(&rig);
    for stream in [1, 3, 5] {
        visitor.get(stream, "/");
        has_begun.recv_timeout(PATIENCE).unwrap();
    }
    let left = Instant::now();
    drop(visitor);
    for _ in 0..3 {
        assert!(has_ended.recv_timeout(PATIENCE).unwrap() - left < A_SECOND);
    }
    for (access, _) in rig.records(3) {
        assert_eq!(access.ended_by, Some(EndedBy::Visitor));
    }
}

#[test]
fn whatever_ends_a_share_ends_its_streams_within_a_second_and_leaves_the_connection() {
    type End = fn(&Rig);
    let ends: [(&str, End, u16, &str); 4] = [
        (
            "revoke",
            |rig| {
                let reason = share::RevokeReason::Requested;
                rig.apply_to_share(share::Event::Revoked(share::ShareRevoked { reason }));
                rig.running.end(Under::Share(share_id()));
            },
            403,
            "share_revoked",
        ),
        ("expire", |rig| rig.clock.advance_ms(3_600_000), 403, "share_expired"),
        (
            "pause",
            |rig| {
                rig.apply_to_tunnel(tunnel::Event::Paused(tunnel::TunnelPaused {}));
                rig.running.end(Under::Tunnel(tunnel_id()));
            },
            503,
            "tunnel_paused",
        ),
        (
            "delete",
            |rig| {
                let reason = tunnel::DeleteReason::Requested;
                rig.apply_to_tunnel(tunnel::Event::Deleted(tunnel::TunnelDeleted { reason }));
                rig.running.end(Under::Tunnel(tunnel_id()));
            },
            403,
            "tunnel_gone",
        ),
    ];
    for (what, end, status, code) in ends {
        let (address, has_ended, has_begun) = watched(ENDLESS);
        let mut setup = Setup::default();
        setup.share.expires_at = Some("2026-03-02T11:00:00.000Z".parse().unwrap());
        let rig = Rig::with(address, setup);
        let ended = rig.block_on(async {
            let visitor = Visitor::to(&rig).await;
            let response = visitor.start(visitor.request("GET", "/")).await.0.await.unwrap();
            has_begun.recv_timeout(PATIENCE).unwrap();
            let ended = Instant::now();
            end(&rig);
            let error = rest(response.into_body()).await.unwrap_err();
            assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{what}");
            assert!(ended.elapsed() < A_SECOND, "{what}");
            let refused = visitor.get("/").await;
            assert_eq!((refused.status.as_u16(), refused.code().as_str()), (status, code), "{what}");
            ended
        });
        assert!(has_ended.recv_timeout(PATIENCE).unwrap() - ended < A_SECOND, "{what}");
        assert_eq!(rig.records(2)[0].0.ended_by, Some(EndedBy::Revoked), "{what}");
    }
}

#[test]
fn a_visitor_who_makes_no_room_is_cut_off_and_his_other_requests_go_on() {
    let (address, ..) = (answering(|head, _| {
        if head.path() == "/small" {
            return ok("small");
        }
        let body = vec![b'x'; 4 << 20];
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    }),);
    let setup = Setup::default();
    let edge = EdgeOptions { visitor_stall_ms: 300, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    // A window of nothing, and one of a little.
    for window in [0, 10_000] {
        let mut visitor = ByHand::with_settings(&rig, &[(4, window)]);
        visitor.get(1, "/big");
        let begun = Instant::now();
        let reset = visitor.expect(RST_STREAM);
        assert_eq!((reset.stream, reset.reason()), (1, CANCEL));
        assert!(begun.elapsed() < 3 * A_SECOND);
        visitor.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]));
        visitor.get(3, "/small");
        let data = visitor.expect(DATA);
        assert_eq!((data.stream, data.payload.as_slice()), (3, b"small".as_slice()));
    }
    let records = rig.records(4);
    let stalled = records.iter().filter(|(access, _)| access.ended_by == Some(EndedBy::Stalled));
    assert_eq!(stalled.count(), 2);
    assert_eq!(rig.edge.metrics.stalled.get(), 2);
}

#[test]
fn a_visitor_who_reads_nothing_at_all_is_cut() {
    let rig = Rig::with(
        answering(|_, _| {
            let body = vec![b'x'; 32 << 20];
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        }),
        Setup { edge: EdgeOptions { visitor_stall_ms: 300, ..Setup::default().edge }, ..Setup::default() },
    );
    let mut visitor = ByHand::with_settings(&rig, &[(4, 0x7fff_ffff)]);
    visitor.send(frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes()));
    visitor.get(1, "/");
    eventually("the visitor is cut", || rig.edge.metrics.stalled.get() > 0);
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Stalled));
}

#[test]
fn an_upload_that_stalls_ends_alone() {
    let (address, has_ended, has_begun) = watched("");
    let setup = Setup::default();
    let edge = EdgeOptions { visitor_stall_ms: 300, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = ByHand::to(&rig);
    let head = block(&visitor.lines("POST", "/"));
    visitor.send(frame(HEADERS, END_HEADERS, 1, &head));
    visitor.send(frame(DATA, 0, 1, b"begin"));
    has_begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(visitor.expect(RST_STREAM).reason(), CANCEL);
    has_ended.recv_timeout(PATIENCE).unwrap();
    assert_eq!(rig.records(1)[0].0.ended_by, Some(EndedBy::Stalled));
    assert!(visitor.is_alive());
}

#[test]
fn an_upload_that_breaks_off_is_not_taken_for_whole() {
    let (sent, seen) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        begun.send(()).unwrap();
        sent.send(conn.rest()).unwrap();
    }));
    for reason in [NO_ERROR, CANCEL] {
        let mut visitor = ByHand::to(&rig);
        let head = block(&visitor.lines("POST", "/"));
        visitor.send(frame(HEADERS, END_HEADERS, 1, &head));
        visitor.send(frame(DATA, 0, 1, b"begin"));
        has_begun.recv_timeout(PATIENCE).unwrap();
        visitor.send(frame(RST_STREAM, 0, 1, &reason.to_be_bytes()));
        let body = String::from_utf8(seen.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert!(!body.ends_with("0\r\n\r\n"), "{body:?}");
    }
}

#[test]
fn a_draining_edge_says_goodbye_and_lets_requests_finish() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let (begun, has_begun) = mpsc::channel();
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        begun.send(()).unwrap();
        wait.lock().recv().unwrap();
        conn.send(ok("done"));
    }));
    let mut visitor = ByHand::to(&rig);
    visitor.get(1, "/");
    has_begun.recv_timeout(PATIENCE).unwrap();
    let mut idle = ByHand::to(&rig);
    assert!(idle.is_alive());
    std::thread::scope(|scope| {
        scope.spawn(|| rig.block_on(rig.edge.drain(PATIENCE)));
        assert_eq!(visitor.next_of(GOAWAY).reason(), NO_ERROR);
        assert_eq!(idle.farewell(), Some(NO_ERROR));
        go.send(()).unwrap();
        assert_eq!(visitor.next_of(DATA).payload, b"done");
        assert!(visitor.farewell().is_none_or(|reason| reason == NO_ERROR));
    });
    rig.records(1);
}

#[test]
fn an_idle_connection_is_closed_with_a_goodbye() {
    let setup = Setup::default();
    let edge = EdgeOptions { keep_alive_ms: 200, ..setup.edge.clone() };
    let rig = Rig::with(answering(|head, _| ok(head.path())), Setup { edge, ..setup });
    let mut visitor = ByHand::to(&rig);
    visitor.get(1, "/x");
    assert_eq!(visitor.expect(DATA).payload, b"/x");
    assert_eq!(visitor.farewell(), Some(NO_ERROR));
}

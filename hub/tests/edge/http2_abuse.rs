//! HTTP/2 visitors who make work and carry nothing, or more than anybody should hold: they are cut, and nobody else
//! notices.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hub::edge::EdgeOptions;

use crate::{
    h2_side::{
        ByHand, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS,
        PING, PRIORITY, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
    },
    harness::*,
};

/// Another visitor is served well while somebody misbehaves.
fn others_are_served(rig: &Rig) {
    let asked = Instant::now();
    assert_eq!(rig.get("/other").text(), "/other");
    assert!(asked.elapsed() < Duration::from_millis(500), "another visitor waited {:?}", asked.elapsed());
}

fn answering_paths() -> Rig {
    Rig::new(answering(|head, _| ok(head.path())))
}

/// Sends until the connection ends, which it must; the reason that was given.
#[track_caller]
fn flood(rig: &Rig, bytes: &[u8], most: usize) -> Option<u32> {
    let mut visitor = ByHand::to(rig);
    visitor.get(1, "/first");
    assert_eq!(visitor.expect(DATA).payload, b"/first");
    for _ in 0..most {
        visitor.send(bytes);
    }
    others_are_served(rig);
    visitor.farewell()
}

#[test]
fn frames_that_carry_nothing_end_the_connection() {
    let rig = answering_paths();
    let floods: [(&str, Vec<u8>); 6] = [
        ("ping", frame(PING, 0, 0, b"12345678")),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("priority", frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 0])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("unknown frames", frame(0xee, 0, 0, b"x")),
        ("resets", frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())),
    ];
    for (n, (what, one)) in floods.iter().enumerate() {
        let reason = flood(&rig, &one.repeat(100), 50);
        // The goodbye may be overtaken by the reset that unread bytes make of a close.
        assert!(matches!(reason, None | Some(ENHANCE_YOUR_CALM)), "{what}: {reason:?}");
        assert_eq!(rig.edge.metrics.floods.get(), n as u64 + 1, "{what}");
    }
}

#[test]
fn requests_that_are_given_up_at_once_end_the_connection() {
    let reached = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reached);
    let rig = Rig::new(answering(move |head, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        ok(head.path())
    }));
    let mut visitor = ByHand::to(&rig);
    let head = block(&visitor.lines("GET", "/"));
    for n in 0..20_000 {
        let stream = n * 2 + 1;
        let pair = [
            frame(HEADERS, END_STREAM | END_HEADERS, stream, &head),
            frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()),
        ];
        visitor.send(pair.concat());
    }
    others_are_served(&rig);
    assert!(matches!(visitor.farewell(), None | Some(ENHANCE_YOUR_CALM)));
    assert!(reached.load(Ordering::SeqCst) < 2_000, "{reached:?} of them reached the target");
    eventually("nothing is left of it", || rig.edge.metrics.streams_open.get() == 0);
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let rig = answering_paths();
    let mut visitor = ByHand::to(&rig);
    let head = block(&visitor.lines("GET", "/"));
    visitor.send(frame(HEADERS, END_STREAM, 1, &head));
    // Empty ones, and ones that carry more than anybody may hold.
    let more = block(&[("x-more", &"a".repeat(1_000))]);
    let mut other = ByHand::to(&rig);
    other.send(frame(HEADERS, END_STREAM, 1, &head));
    for _ in 0..2_000 {
        visitor.send(frame(CONTINUATION, 0, 1, &[]));
        other.send(frame(CONTINUATION, 0, 1, &more));
    }
    others_are_served(&rig);
    for mut visitor in [visitor, other] {
        assert!(matches!(visitor.farewell(), None | Some(ENHANCE_YOUR_CALM)));
    }
}

#[test]
fn a_head_that_takes_too_long_ends_the_connection() {
    let setup = Setup::default();
    let edge = EdgeOptions { head_timeout_ms: 200, ..setup.edge.clone() };
    let rig = Rig::with(answering(|head, _| ok(head.path())), Setup { edge, ..setup });
    let mut visitor = ByHand::to(&rig);
    visitor.get(1, "/x");
    assert_eq!(visitor.expect(DATA).payload, b"/x");
    let head = block(&visitor.lines("GET", "/"));
    visitor.send(frame(HEADERS, END_STREAM, 3, &head));
    assert_eq!(visitor.farewell(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(rig.edge.metrics.slow_heads.get(), 1);
    // A preface that is never complete.
    let mut visitor = rig.visitor();
    visitor.send("PRI * HTTP/2.0\r\n");
    assert_eq!(visitor.head().status(), 408);
}

#[test]
fn a_list_of_headers_that_is_too_long_is_refused_and_costs_one_request() {
    let rig = answering_paths();
    let mut visitor = ByHand::to(&rig);
    // A bomb of HPACK: one long line is put into the table, and then named again and again by one byte each.
    let mut bomb = block(&visitor.lines("GET", "/"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 127, 0xd1, 0x0e]);
    bomb.extend_from_slice(&[b'y'; 2_000]);
    bomb.extend_from_slice(&[0x80 | 62; 14_000]);
    visitor.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb));
    let answer = loop {
        match visitor.next() {
            Some(frame) if frame.kind == HEADERS || frame.kind == RST_STREAM => break Some(frame),
            Some(frame) if frame.kind == GOAWAY => break None,
            Some(_) => {}
            None => break None,
        }
    };
    assert!(answer.is_none_or(|frame| frame.stream == 1));
    others_are_served(&rig);
    assert_eq!(rig.records(1).len(), 1, "only the other visitor was let in");
}

#[test]
fn a_connection_has_a_bounded_number_of_requests_under_way() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.until_over();
    }));
    let mut visitor = ByHand::to(&rig);
    for n in 0..129 {
        visitor.get(n * 2 + 1, "/");
    }
    let refused = visitor.expect(RST_STREAM);
    assert_eq!((refused.stream, refused.reason()), (257, REFUSED_STREAM));
    eventually("the others are under way", || rig.edge.metrics.streams_open.get() == 128);
    assert!(visitor.is_alive());
    drop(visitor);
    eventually("nothing is left", || rig.edge.metrics.streams_open.get() == 0);
}

#[test]
fn requests_of_http_2_count_as_connections_where_these_are_bounded() {
    let setup = Setup::default();
    let edge = EdgeOptions { connections_max: 4, ..setup.edge.clone() };
    let address = target(|mut conn| {
        conn.head();
        conn.until_over();
    });
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = ByHand::to(&rig);
    for n in 0..4 {
        visitor.get(n * 2 + 1, "/");
    }
    let refused = visitor.expect(RST_STREAM);
    assert_eq!((refused.stream, refused.reason()), (7, REFUSED_STREAM));
}

#[test]
fn a_visitor_who_gives_no_sign_of_life_is_asked_and_then_gone() {
    let (address, ..) = (target(|mut conn| {
        conn.head();
        conn.until_over();
    }),);
    let setup = Setup::default();
    let edge = EdgeOptions { silence_ms: 200, ..setup.edge.clone() };
    let rig = Rig::with(address, Setup { edge, ..setup });
    let mut visitor = ByHand::to(&rig);
    visitor.get(1, "/");
    // Whoever answers stays.
    assert_eq!(visitor.expect(PING).flags, 0);
    assert_eq!(visitor.expect(PING).flags, 0);
    assert!(visitor.is_alive());
    visitor.answers_pings = false;
    visitor.farewell();
    eventually("the silent one is gone", || rig.edge.metrics.streams_open.get() == 0);
    assert_eq!(rig.records(1)[0].0.ended_by, Some(domain::access::EndedBy::Stalled));
}

/// SplitMix64: the same nonsense every time.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn nonsense_costs_nobody_but_its_sender() {
    let rig = answering_paths();
    let mut state = 2026;
    for round in 0..400 {
        let mut visitor = ByHand::to(&rig);
        let head = block(&visitor.lines("POST", "/x"));
        for _ in 0..40 {
            let [kind, flags, stream, length] = std::array::from_fn(|_| next(&mut state));
            let mut payload: Vec<u8> = (0..length % 64).map(|_| next(&mut state) as u8).collect();
            if length % 3 == 0 {
                payload = head.clone();
                payload.truncate(payload.len() - usize::from(length % 7 == 0));
            }
            // Mostly frames that exist, on streams that may.
            let kind = if kind % 8 == 0 { (kind >> 8) as u8 } else { (kind >> 8) as u8 % 10 };
            visitor.send(frame(kind, flags as u8 & 0x2d, (stream % 12) as u32, &payload));
        }
        if round % 50 == 0 {
            others_are_served(&rig);
        }
    }
    others_are_served(&rig);
    eventually("nothing is left of it", || rig.edge.metrics.streams_open.get() == 0);
    eventually("all are gone", || rig.edge.metrics.connections_open.get() == 0);
}

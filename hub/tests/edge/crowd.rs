//! Slow visitors: a few are borne with for as long as they move at all, a crowd is asked for a pace.

use std::{thread::sleep, time::Duration};

use hub::edge::EdgeOptions;

use crate::harness::*;

/// Longer than the sweeps, and than the pauses between two bytes.
const STALL_MS: u64 = 1_500;
const PAUSE: Duration = Duration::from_millis(250);
/// Twice as long as a visitor of a crowd may be slow.
const WHILE: u32 = 2 * 1_500 / 250;

fn rig() -> Rig {
    let setup = Setup::default();
    let edge = EdgeOptions { threads: 1, visitor_stall_ms: STALL_MS, ..setup.edge.clone() };
    Rig::with(answering(|_, _| ok("done")), Setup { edge, ..setup })
}

/// Visitors who send a byte of a large body now and then; how many are still there in the end.
fn dawdling(rig: &Rig, count: usize) -> usize {
    let request = rig.request("POST /slow", "Content-Length: 1000000\r\n", "");
    let mut visitors: Vec<Conn> = (0..count)
        .map(|_| {
            let mut visitor = rig.visitor();
            visitor.send(&request);
            visitor
        })
        .collect();
    for _ in 0..WHILE {
        sleep(PAUSE);
        // Who was cut does not take it.
        visitors.retain_mut(|visitor| visitor.try_send("x").is_ok());
    }
    visitors.len()
}

#[test]
fn a_few_slow_visitors_are_borne_with() {
    assert_eq!(dawdling(&rig(), 20), 20);
}

#[test]
fn of_a_crowd_nobody_keeps_his_place_with_a_byte_now_and_then_and_others_are_served() {
    let rig = rig();
    assert_eq!(dawdling(&rig, 160), 0);
    assert!(rig.edge.metrics.stalled.get() >= 160);
    assert_eq!(rig.get("/x").status(), 200);
}

#[test]
fn in_a_crowd_nobody_keeps_a_place_by_silence_either() {
    let rig = rig();
    let request = rig.request("GET /x", "", "");
    let kept = || {
        let mut visitor = rig.visitor();
        assert_eq!(visitor.ask(&request).status(), 200);
        visitor
    };
    let mut alone = kept();
    sleep(2 * Duration::from_millis(STALL_MS));
    assert_eq!(alone.ask(&request).status(), 200, "without a crowd there is time");
    let mut among = kept();
    assert_eq!(dawdling(&rig, 160), 0);
    assert!(among.is_reset(), "what the system still kept for such a visitor is thrown away");
}

#[test]
fn many_who_ask_for_nothing_more_are_a_crowd_too() {
    let rig = rig();
    let request = rig.request("GET /x", "", "");
    let _silent: Vec<Conn> = (0..1_200)
        .map(|_| {
            let mut visitor = rig.visitor();
            visitor.send(&request);
            visitor
        })
        .collect();
    eventually("nobody is there any more", || rig.edge.metrics.connections_open.get() == 0);
    assert_eq!(rig.get("/x").status(), 200);
}

#[test]
fn what_one_of_many_visitors_is_answered_may_be_as_large_as_ever() {
    let body = "0123456789abcdef".repeat(1 << 14);
    let cookie = "c".repeat(30_000);
    let answer =
        format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let rig = Rig::new(answering(move |_, _| answer.clone().into_bytes()));
    let _others: Vec<Conn> = (0..260).map(|_| rig.visitor()).collect();
    eventually("all are there", || rig.edge.metrics.connections_open.get() >= 260);
    let answer = rig.get("/large");
    assert_eq!((answer.status(), answer.head.get("set-cookie")), (200, Some(cookie.as_str())));
    assert!(answer.text() == body);
}

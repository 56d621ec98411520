//! Every outcome is one record, and what happens when there can be none.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use domain::access::{Denied, EndedBy};
use hub::{
    edge::{EdgeOptions, recorder::RecorderOptions},
    event_log::memory::Fault,
    settings::AccessLogMode,
};

use crate::harness::*;

fn before_response() -> Setup {
    let setup = Setup::default();
    let edge = EdgeOptions { access_log: AccessLogMode::BeforeResponse, ..setup.edge.clone() };
    Setup { edge, ..setup }
}

#[test]
fn a_record_says_who_asked_for_what_and_what_came_of_it() {
    let rig = Rig::new(answering(|_, _| ok("four")));
    let agent = "a".repeat(300);
    let path = format!("/{}", "p".repeat(2_000));
    rig.visitor().ask(rig.request(
        &format!("POST {path}?secret=1"),
        &format!("User-Agent: {agent}\r\nContent-Length: 3\r\n"),
        "abc",
    ));
    rig.bare(&format!("GET /shared/{TOKEN}/plain?x"), "");
    let records = rig.records(2);
    let (access, visitor) = &records[0];
    assert_eq!((access.method.as_str(), access.status_code), ("POST", 200));
    assert_eq!((access.bytes_in, access.bytes_out), (3, 4));
    assert_eq!(access.accessed_at.to_string(), "2026-03-02T10:00:00.000Z");
    assert_eq!((access.denied, access.ended_by, access.running, access.repeat), (None, None, false, None));
    assert_eq!(visitor.path, path[..1_024]);
    assert_eq!(visitor.user_agent.as_deref(), Some(&agent[..256]));
    assert_eq!(visitor.ip, "127.0.0.1");
    assert_eq!(records[1].1.path, "/plain", "neither token nor query");
    let log = format!("{:?}", rig.log.events());
    assert!(!log.contains("TheTokenOfTheShare") && !log.contains("secret"), "{log}");
}

#[test]
fn every_outcome_has_exactly_one_record() {
    let setup = Setup::default().paths(&["/a/*", "/b"]);
    let rig =
        Rig::with(
            answering(|head, _| {
                if head.path() == "/b" { b"HTTP/1.1 204 No Content\r\n\r\n".to_vec() } else { ok("in") }
            }),
            setup,
        );
    let mut expected = 0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut visitor = rig.visitor();
                for n in 0..100 {
                    let line = ["GET /a/x", "GET /c", "GET /a//x", "TRACE /b", "HEAD /b"][n % 5];
                    visitor.send(rig.request(line, "", ""));
                    let head = visitor.head();
                    if !line.starts_with("HEAD") {
                        visitor.response_body(&head);
                    }
                }
            });
        }
        expected += 400;
    });
    // A record is queued before the last byte leaves, so all of them are there after one flush.
    let (accesses, completions) = rig.accesses();
    assert_eq!((accesses.len(), completions.len()), (expected, 0));
    let count = |denied| accesses.iter().filter(|(access, _)| access.denied == denied).count();
    assert_eq!(count(None), 160);
    for denied in [Denied::PathNotAllowed, Denied::AmbiguousPath, Denied::MethodNotAllowed] {
        assert_eq!(count(Some(denied)), 80);
    }
    for recorded in rig.log.events() {
        let domain::recorded::Personal::Sealed(personal) = &recorded.personal else { panic!() };
        assert!(recorded.data.len() + personal.len() <= domain::access::PACKED_BYTES_MAX);
    }
}

#[test]
fn a_long_request_is_recorded_while_it_runs_and_completed_later() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let setup = Setup::default();
    let edge = EdgeOptions { running_after_ms: 50, ..setup.edge.clone() };
    let rig = Rig::with(
        target(move |mut conn| {
            conn.head();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-");
            wait.lock().recv().unwrap();
            conn.send("whole");
        }),
        Setup { edge, ..setup },
    );
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    assert_eq!(visitor.head().status(), 200);
    let (running, _) = &rig.records(1)[0];
    assert!(running.running);
    assert_eq!((running.status_code, running.bytes_out), (200, 5));
    let event = rig.log.events()[0].id;
    go.send(()).unwrap();
    assert_eq!(visitor.exactly(10), b"half-whole");
    let (accesses, completions) = rig.accesses();
    assert_eq!(accesses.len(), 1);
    assert_eq!(completions.len(), 1);
    assert_eq!((completions[0].event_id, completions[0].index, completions[0].bytes_out), (event, 0, 10));
    assert_eq!(completions[0].ended_by, None);
}

#[test]
fn before_response_holds_the_end_of_the_answer_until_the_record_is_durable() {
    const DELAY: Duration = Duration::from_millis(300);
    for (answer, line) in [
        (ok("whole"), "GET /length"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n".to_vec(),
            "GET /chunked",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), "GET /empty"),
        (ok(""), "HEAD /head"),
    ] {
        let rig = Rig::with(answering(move |_, _| answer.clone()), before_response());
        rig.log.inject(Fault::Delay(DELAY));
        let asked = Instant::now();
        let mut visitor = rig.visitor();
        visitor.send(rig.request(line, "", ""));
        let head = visitor.head();
        if head.status() == 200 && line.starts_with("GET") {
            assert_eq!(visitor.response_body(&head), b"whole");
        }
        assert!(asked.elapsed() >= DELAY, "{line} was answered before its record was durable");
        assert_eq!(rig.log.events().len(), 1, "{line}");
    }
}

#[test]
fn before_response_gives_no_answer_that_could_not_be_recorded() {
    let rig = Rig::with(answering(|_, _| ok("whole")), before_response());
    assert_eq!(rig.get("/").status(), 200);
    rig.log.set_unwritable(Some("full"));
    eventually("new requests are refused", || {
        let mut visitor = rig.visitor();
        visitor.send(rig.request("GET /", "", ""));
        // Until the failure is known an answer may have begun; its end never comes.
        let head = visitor.try_head();
        if head.as_ref().is_some_and(|head| head.status() == 200) {
            assert!(visitor.rest().len() < 5);
        }
        head.is_some_and(|head| head.status() == 503)
    });
    assert_eq!(rig.get("/").code(), "cannot_log");
}

#[test]
fn a_log_that_takes_no_writes_stops_the_shares_until_it_does_and_loses_no_record() {
    let rig = Rig::new(answering(|_, _| ok("in")));
    rig.log.set_unwritable(Some("disk full"));
    let answered = std::cell::Cell::new(0);
    eventually("requests are refused", || {
        let answer = rig.get("/");
        answered.set(answered.get() + u32::from(answer.status() == 200));
        answer.status() == 503
    });
    let refused = rig.get("/");
    assert_eq!((refused.status(), refused.code().as_str()), (503, "cannot_log"));
    assert!(rig.edge.metrics.cannot_log.get() >= 2);
    rig.log.set_unwritable(None);
    eventually("requests are answered again", || {
        let answer = rig.get("/");
        answered.set(answered.get() + u32::from(answer.status() == 200));
        answer.status() == 200
    });
    rig.records(answered.get() as usize);
}

#[test]
fn an_append_in_doubt_is_repeated_and_recorded_once() {
    for fault in [Fault::InDoubtWritten, Fault::InDoubtLost, Fault::Refuse("busy".to_owned())] {
        let rig = Rig::new(answering(|_, _| ok("in")));
        rig.log.inject(fault);
        assert_eq!(rig.get("/").status(), 200);
        rig.records(1);
    }
}

#[test]
fn a_full_queue_refuses_instead_of_growing() {
    let (began, has_begun) = mpsc::channel();
    let setup = Setup::default();
    let recorder = RecorderOptions { queue_max: 3, ..setup.recorder };
    let rig = Rig::with(
        target(move |mut conn| {
            conn.head();
            began.send(()).unwrap();
            conn.until_over();
        }),
        Setup { recorder, ..setup },
    );
    let mut waiting: Vec<_> = (0..3).map(|_| rig.visitor()).collect();
    for visitor in &mut waiting {
        visitor.send(rig.request("GET /", "", ""));
        has_begun.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(rig.get("/").code(), "cannot_log");
    drop(waiting);
    assert_eq!(rig.records(3)[0].0.ended_by, Some(EndedBy::Visitor));
    eventually("there is room again", || rig.recorder.queued() == 0);
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 3);
}

#[test]
fn a_flood_of_refusals_becomes_one_record_that_counts_them() {
    let setup = Setup::default().paths(&["/in"]);
    let recorder = RecorderOptions { refusals_per_min: 10, ..setup.recorder };
    let rig = Rig::with(answering(|_, _| ok("in")), Setup { recorder, ..setup });
    let mut visitor = rig.visitor();
    for _ in 0..50 {
        assert_eq!(visitor.ask(rig.request("GET /out", "", "")).status(), 403);
    }
    assert_eq!(visitor.ask(rig.request("GET /in", "", "")).status(), 200);
    let records = rig.accesses().0;
    let refusals: u32 = records
        .iter()
        .filter(|(access, _)| access.denied.is_some())
        .map(|(access, _)| access.repeat.unwrap_or(1))
        .sum();
    assert_eq!(refusals, 50);
    assert_eq!(records.len(), 12, "ten refusals, the others in one, and what was let in");
}

#[test]
fn a_flush_waits_for_everything_queued_so_far() {
    let setup = Setup::default();
    let recorder = RecorderOptions { access_flush_ms: 60_000, ..setup.recorder };
    let rig = Rig::with(answering(|_, _| ok("in")), Setup { recorder, ..setup });
    for n in 1..=5_usize {
        assert_eq!(rig.get("/").status(), 200);
        let position = rig.block_on(rig.recorder.flushed());
        assert_eq!(position, n as u64);
        assert_eq!(rig.log.events().len(), n);
    }
}

#[test]
fn closing_the_recorder_writes_what_is_queued() {
    let setup = Setup::default();
    let recorder = RecorderOptions { access_flush_ms: 60_000, ..setup.recorder };
    let rig = Rig::with(answering(|_, _| ok("in")), Setup { recorder, ..setup });
    let log = Arc::clone(&rig.log);
    assert_eq!(rig.get("/").status(), 200);
    assert_eq!(log.events().len(), 0);
    drop(rig);
    assert_eq!(log.events().len(), 1);
}

//! Packing: sizes, places and folds; and when it is written.

use domain::{
    access::{self, Denied, PACKED_BYTES_MAX, ShareAccessed},
    event::Event,
    ids::TunnelId,
};
use proptest::prelude::*;

use super::{pack::Gathered, *};
use crate::{
    clock::SetClock,
    event_log::{
        EventLog as _,
        memory::{Fault, Memory},
    },
};

const NOON: i64 = 1_772_452_800_000;

fn visit(share: u128, at_ms: i64, path: &str, user_agent: &[u8]) -> Box<Visit> {
    Box::new(Visit {
        workspace: WorkspaceId::new(Uuid::from_u128(1)),
        share: ShareId::new(Uuid::from_u128(share)),
        tunnel: TunnelId::new(Uuid::from_u128(2)),
        accessed_at: Timestamp::from_millis(at_ms),
        method: http::Method::GET,
        ip: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
        path: path.into(),
        user_agent: Some(user_agent.into()),
    })
}

fn outcome(denied: Option<Denied>) -> Outcome {
    let status = if denied.is_some() { 403 } else { 200 };
    Outcome { status, latency_ms: u32::MAX, bytes_in: u64::MAX, bytes_out: u64::MAX, denied, ended_by: None }
}

/// Every packed event with its id and the size of what would be stored before sealing.
fn packed(gathered: &mut Gathered, now_ms: i64) -> Vec<(EventId, ShareAccessed, usize)> {
    let mut next = 0;
    let fresh = || {
        next += 1;
        EventId::new(Uuid::from_u128(next))
    };
    let shares = gathered.pack(Timestamp::from_millis(now_ms), fresh);
    let events = shares.into_iter().flat_map(|share| share.events);
    events
        .map(|packed| {
            let bytes = packed.event.encode().data.len() + packed.visitors.as_ref().map_or(0, String::len);
            let Event::Access(access::Event::Accessed(accessed)) = packed.event else { panic!() };
            (packed.id, accessed, bytes)
        })
        .collect()
}

proptest! {
    #[test]
    fn no_event_is_longer_than_the_contract_whatever_visitors_send(
        paths in prop::collection::vec("\\PC{0,300}|[\u{1}-\u{1f}\"\\\\]{0,1000}", 1..60),
        user_agent in prop::collection::vec(any::<u8>(), 0..256),
        refused in any::<bool>(),
    ) {
        let mut gathered = Gathered::new(1_000);
        for path in &paths {
            let cut = &path[..path.floor_char_boundary(1024)];
            gathered.take(visit(7, NOON, cut, &user_agent), outcome(refused.then_some(Denied::MethodNotAllowed)));
        }
        let events = packed(&mut gathered, NOON);
        let accesses: usize = events.iter().map(|(_, event, _)| event.accesses.len()).sum();
        prop_assert_eq!(accesses, paths.len());
        for (_, _, bytes) in events {
            // Sealing adds a header and a tag.
            prop_assert!(bytes + 100 <= PACKED_BYTES_MAX, "{} bytes", bytes);
        }
    }
}

#[test]
fn an_event_holds_accesses_of_one_share_only() {
    let mut gathered = Gathered::new(1_000);
    for share in [5, 3, 5, 4, 3] {
        gathered.take(visit(share, NOON, "/", b""), outcome(None));
    }
    let events = packed(&mut gathered, NOON);
    let counts: Vec<_> = events.iter().map(|(_, event, _)| event.accesses.len()).collect();
    assert_eq!(counts, [2, 1, 2]);
    assert!(packed(&mut gathered, NOON).is_empty(), "packed once");
}

#[test]
fn a_completion_names_the_event_and_place_of_its_access() {
    let mut gathered = Gathered::new(1_000);
    gathered.take(visit(5, NOON, "/short", b""), outcome(None));
    gathered.take_running(visit(5, NOON, "/long", b""), outcome(None), 77);
    let events = packed(&mut gathered, NOON);
    let (id, event, _) = &events[0];
    assert!(event.accesses[1].running && !event.accesses[0].running);
    gathered.complete(77, outcome(None));
    gathered.complete(77, outcome(None));
    let events = packed(&mut gathered, NOON);
    let (_, later, _) = &events[0];
    assert!(later.accesses.is_empty());
    assert_eq!(later.completions.len(), 1, "once");
    assert_eq!((later.completions[0].event_id, later.completions[0].index), (*id, 1));
}

#[test]
fn an_access_that_ends_before_it_is_packed_is_one_plain_record() {
    let mut gathered = Gathered::new(1_000);
    gathered.take_running(visit(5, NOON, "/", b""), outcome(None), 1);
    gathered.complete(1, Outcome { status: 201, ..outcome(None) });
    let events = packed(&mut gathered, NOON);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].1.accesses[0].status_code, 201);
    assert!(!events[0].1.accesses[0].running && events[0].1.completions.is_empty());
}

#[test]
fn refusals_beyond_the_bound_are_counted_until_the_minute_is_over() {
    let mut gathered = Gathered::new(2);
    let denied = outcome(Some(Denied::PathNotAllowed));
    for n in 0..5 {
        assert_eq!(gathered.take(visit(5, NOON, "/", b""), denied), n >= 2);
    }
    gathered.take(visit(5, NOON, "/", b""), outcome(Some(Denied::MethodNotAllowed)));
    gathered.take(visit(6, NOON, "/", b""), denied);
    assert!(!gathered.take(visit(5, NOON, "/", b""), outcome(None)), "what passed is never folded");
    let repeats = |events: Vec<(EventId, ShareAccessed, usize)>| -> Vec<Option<u32>> {
        events.iter().flat_map(|(_, event, _)| event.accesses.iter().map(|access| access.repeat)).collect()
    };
    assert_eq!(repeats(packed(&mut gathered, NOON)), [None, None, None, None]);
    assert_eq!(repeats(packed(&mut gathered, NOON + 60_000)), [None, Some(3)]);
    assert!(!gathered.take(visit(5, NOON + 60_000, "/", b""), denied), "a new minute begins");
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_disk_is_slow_is_not_gathered_a_second_time() {
    let log = Arc::new(Memory::new());
    let deps = RecorderDeps {
        log: Arc::clone(&log) as _,
        sealer: Arc::new(|_, _, _, text| Ok(text.as_bytes().into())),
        clock: SetClock::at(Timestamp::from_millis(NOON)),
        boot: Uuid::from_u128(9),
    };
    let options = RecorderOptions { access_flush_ms: 20, ..RecorderOptions::default() };
    let (recorder, writer) = Recorder::with_writer(options, deps);
    let writer = tokio::spawn(writer.run());
    let began = Instant::now();
    let record = |path| {
        let slot = recorder.admit().expect("there is room");
        recorder.record(slot, visit(5, NOON, path, b""), outcome(None), None);
    };
    let written_at = |events: usize| {
        let (mut head, log) = (log.head(), Arc::clone(&log));
        async move {
            head.wait_for(|_| log.events().len() >= events).await.unwrap();
            began.elapsed().as_millis()
        }
    };
    log.inject(Fault::Delay(Duration::from_millis(300)));
    record("/first");
    tokio::time::sleep(Duration::from_millis(100)).await;
    record("/second");
    assert_eq!(written_at(1).await, 320);
    assert_eq!(written_at(2).await, 320, "it had waited for longer than records are gathered");
    tokio::time::sleep_until(began + Duration::from_millis(400)).await;
    record("/third");
    assert_eq!(written_at(3).await, 420, "after silence records are gathered");
    writer.abort();
}

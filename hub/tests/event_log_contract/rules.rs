//! The rules that hold for every engine. Each gets an empty log.

use std::collections::HashSet;

use domain::{
    ids::{AgentId, EventId, KeyId, RequestId},
    recorded::{Actor, Families, Family, Personal},
    time::Timestamp,
};
use futures_util::future::join_all;
use hub::event_log::{
    AppendError, Expected, SharedLog,
    limits::{EVENT_BYTES_MAX, EVENTS_MAX},
};
use uuid::Uuid;

use crate::support::{NOON, accesses, any, append, event, facts, read_everything, workspace};

pub(crate) async fn events_are_found_where_they_were_expected(log: SharedLog) {
    let (stream, other) = (facts(1), facts(2));
    let first = log.append(append(&stream, Expected::Revision(0), 2)).await.unwrap();
    assert_eq!((first.position, first.revision, first.recorded_at), (2, 2, NOON));
    log.append(append(&other, Expected::Revision(0), 1)).await.unwrap();
    let second = log.append(append(&stream, Expected::Revision(2), 3)).await.unwrap();
    assert_eq!((second.position, second.revision), (6, 5));
    let events = log.read_stream(&stream, 1, 100).await.unwrap();
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(events.iter().map(|event| event.position).collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
    let part = log.read_stream(&stream, 3, 2).await.unwrap();
    assert_eq!(part, events[2..4]);
    assert_eq!(log.read_stream(&stream, 6, 10).await.unwrap(), []);
    assert_eq!(log.read_stream(&facts(3), 1, 10).await.unwrap(), []);
    assert_eq!(log.read_all(4, Families::ALL, 1).await.unwrap(), events[3..4]);
}

pub(crate) async fn every_field_comes_back(log: SharedLog) {
    let id = Uuid::from_u128(5);
    let actors = [Actor::Key(KeyId::new(id)), Actor::Agent(AgentId::new(id)), Actor::System("hub".into())];
    for (n, actor) in (1..).zip(actors) {
        let mut full = append(&accesses(n), Expected::Any, 1);
        full.actor = actor;
        full.correlation = Some(RequestId::new(id));
        full.events[0].causation = Some(EventId::new(id));
        full.events[0].personal = Some(vec![0, 255, 0].into());
        full.events[0].version = 9;
        full.events[0].data = format!("{{\"text\":\"{}\"}}", "ü".repeat(9_000));
        log.append(full.clone()).await.unwrap();
        let read = log.read_stream(&full.stream, 1, 1).await.unwrap().remove(0);
        assert_eq!((read.position, read.seq, read.revision), (n as u64, n as u64, 1));
        assert_eq!(
            (read.workspace, read.actor, read.correlation),
            (full.workspace, full.actor, full.correlation)
        );
        let sent = full.events.remove(0);
        assert_eq!((read.id, read.version, read.causation), (sent.id, 9, sent.causation));
        assert_eq!((&*read.event_type, &*read.data), (sent.event_type, &*sent.data));
        assert_eq!(read.personal, Personal::Sealed(sent.personal.unwrap()));
    }
}

pub(crate) async fn a_writer_with_another_view_gets_a_conflict(log: SharedLog) {
    let stream = facts(1);
    log.append(append(&stream, Expected::Revision(0), 2)).await.unwrap();
    for wrong in [0, 1, 3, 100] {
        let error = log.append(append(&stream, Expected::Revision(wrong), 1)).await.unwrap_err();
        assert_eq!(error, AppendError::Conflict { stream: stream.clone(), actual: 2 });
    }
    assert_eq!(*log.head().borrow(), 2);
}

pub(crate) async fn a_repeated_append_answers_like_the_first_time(log: SharedLog) {
    let stream = facts(1);
    let mut firsts = Vec::new();
    for revision in [0, 2, 4] {
        let first = append(&stream, Expected::Revision(revision), 2);
        firsts.push((first.clone(), log.append(first).await.unwrap()));
    }
    let one = accesses(1);
    for _ in 0..3 {
        let first = append(&one, Expected::Any, 3);
        firsts.push((first.clone(), log.append(first).await.unwrap()));
    }
    for (first, appended) in firsts {
        let mut later = first;
        later.at = NOON.plus_ms(60_000);
        assert_eq!(log.append(later).await.unwrap(), appended);
    }
    assert_eq!(*log.head().borrow(), 15);
}

pub(crate) async fn an_id_is_recorded_once(log: SharedLog) {
    let stream = facts(1);
    let first = append(&stream, Expected::Revision(0), 3);
    log.append(first.clone()).await.unwrap();
    // A known id at a place where it does not stand is no repetition.
    let mut longer = first.clone();
    longer.events.push(event("{}"));
    let error = log.append(longer.clone()).await.unwrap_err();
    assert_eq!(error, AppendError::Conflict { stream: stream.clone(), actual: 3 });
    longer.expected = Expected::Any;
    assert!(matches!(log.append(longer).await.unwrap_err(), AppendError::Refused(_)));
    let mut elsewhere = first.clone();
    elsewhere.expected = Expected::Revision(3);
    assert!(matches!(log.append(elsewhere).await.unwrap_err(), AppendError::Refused(_)));
    let mut mixed = append(&stream, Expected::Any, 2);
    mixed.events[1].id = first.events[1].id;
    assert!(matches!(log.append(mixed).await.unwrap_err(), AppendError::Refused(_)));
    let mut shorter = first;
    shorter.events.truncate(2);
    assert_eq!(log.append(shorter).await.unwrap().revision, 2);
    assert_eq!(*log.head().borrow(), 3);
}

pub(crate) async fn one_append_sent_many_times_at_once_is_recorded_once(log: SharedLog) {
    for (stream, expected) in [(facts(1), Expected::Revision(0)), (accesses(1), Expected::Any)] {
        let one = append(&stream, expected, 2);
        let answers = join_all((0..64).map(|_| log.append(one.clone()))).await;
        let first = answers[0].clone().unwrap();
        assert!(answers.into_iter().all(|answer| answer.unwrap() == first));
        assert_eq!(log.read_stream(&stream, 1, 10).await.unwrap().len(), 2);
    }
}

pub(crate) async fn writers_of_different_streams_lose_and_double_nothing(log: SharedLog) {
    let writers = (0..256).map(|n| {
        let log = log.clone();
        tokio::spawn(async move {
            let stream = if n % 3 == 0 { accesses(n) } else { facts(n) };
            let mut ids = Vec::new();
            for revision in 0..10 {
                let one = append(&stream, Expected::Revision(revision), 1);
                ids.push(one.events[0].id);
                assert_eq!(log.append(one).await.unwrap().revision, revision + 1);
            }
            let stored = log.read_stream(&stream, 1, 100).await.unwrap();
            assert_eq!(stored.iter().map(|event| event.id).collect::<Vec<_>>(), ids);
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let events = read_everything(&*log).await;
    assert_eq!(events.len(), 2560);
    assert_eq!(events.iter().map(|event| event.id).collect::<HashSet<_>>().len(), 2560);
}

pub(crate) async fn writers_of_one_stream_lose_and_double_nothing(log: SharedLog) {
    let stream = accesses(1);
    let writers = (0..256).map(|_| {
        let (log, stream) = (log.clone(), stream.clone());
        tokio::spawn(async move {
            for _ in 0..10 {
                log.append(any(&stream)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let events = log.read_stream(&stream, 1, 10_000).await.unwrap();
    assert!(events.iter().zip(1..).all(|(event, revision)| event.revision == revision));
    assert_eq!(events.iter().map(|event| event.id).collect::<HashSet<_>>().len(), 2560);
}

pub(crate) async fn of_writers_with_one_expectation_one_wins(log: SharedLog) {
    let stream = facts(1);
    for round in 0..20 {
        let all = join_all((0..64).map(|_| log.append(append(&stream, Expected::Revision(round), 1)))).await;
        assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 1);
        let conflict = AppendError::Conflict { stream: stream.clone(), actual: round + 1 };
        assert_eq!(all.iter().filter(|answer| answer.as_ref() == Err(&conflict)).count(), 63);
    }
}

pub(crate) async fn readers_see_every_position_in_order_while_writers_write(log: SharedLog) {
    const TOTAL: u64 = 32 * 40 * 3;
    let writers = (0..32).map(|n| {
        let log = log.clone();
        tokio::spawn(async move {
            for _ in 0..40 {
                let stream = if n % 2 == 0 { facts(n) } else { accesses(n) };
                log.append(append(&stream, Expected::Any, 3)).await.unwrap();
            }
        })
    });
    let readers = (0..4).map(|n| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut head = log.head();
            let mut next = 1;
            while next <= TOTAL {
                let shown = *head.borrow_and_update();
                let events = log.read_all(next - 1, Families::ALL, 7 + n).await.unwrap();
                assert!(!events.is_empty() || shown < next, "position {next} was shown but not readable");
                for event in &events {
                    assert_eq!(event.position, next);
                    next += 1;
                }
                if events.is_empty() {
                    head.changed().await.unwrap();
                }
            }
        })
    });
    let tasks: Vec<_> = writers.collect();
    let readers: Vec<_> = readers.collect();
    for task in tasks.into_iter().chain(readers) {
        task.await.unwrap();
    }
}

/// Readers take files in pieces: whatever lies across the end of one is no damage.
pub(crate) async fn many_small_commits_are_read_from_wherever_one_begins(log: SharedLog) {
    const COUNT: u64 = 2_500;
    for n in 0..COUNT {
        let mut small = append(&facts(1), Expected::Revision(n), 1);
        small.events = vec![event(&format!("\"{}\"", "x".repeat(usize::try_from(n % 61).unwrap())))];
        log.append(small).await.unwrap();
    }
    for after in 0..64 {
        let events = log.read_all(after, Families::ALL, 10_000).await.unwrap();
        let positions: Vec<u64> = events.iter().map(|event| event.position).collect();
        assert_eq!(positions, (after + 1..=COUNT).collect::<Vec<_>>());
    }
}

pub(crate) async fn a_reader_of_some_families_gets_only_those(log: SharedLog) {
    for n in 1..=30 {
        let stream = if n % 3 == 0 { accesses(n) } else { facts(n) };
        log.append(any(&stream)).await.unwrap();
    }
    let some = log.read_all(0, Families::only(Family::Accesses), 100).await.unwrap();
    let positions: Vec<u64> = some.iter().map(|event| event.position).collect();
    assert_eq!(positions, [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]);
    assert_eq!(log.read_all(14, Families::only(Family::Accesses), 2).await.unwrap(), some[4..6]);
    assert_eq!(log.read_all(0, Families::only(Family::Facts), 100).await.unwrap().len(), 20);
    assert_eq!(log.read_all(0, Families::only(Family::Deliveries), 100).await.unwrap(), []);
    assert_eq!(log.read_all(30, Families::ALL, 100).await.unwrap(), []);
    assert_eq!(log.read_all(u64::MAX, Families::ALL, 100).await.unwrap(), []);
}

pub(crate) async fn seq_is_gapless_in_each_workspace_and_family(log: SharedLog) {
    join_all((0..60).map(|n| {
        let mut one = any(&if n % 2 == 0 { facts(n) } else { accesses(n) });
        one.workspace = workspace(n % 3);
        log.append(one)
    }))
    .await;
    let events = read_everything(&*log).await;
    for n in 0..3 {
        for family in [Family::Facts, Family::Accesses] {
            let here =
                events.iter().filter(|event| event.workspace == workspace(n) && event.family() == family);
            assert_eq!(here.map(|event| event.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<u64>>());
        }
    }
}

pub(crate) async fn recorded_time_never_runs_backwards(log: SharedLog) {
    let stream = facts(1);
    let mut times = Vec::new();
    for millis in [5, 3, -7, 9, 8] {
        let mut one = any(&stream);
        one.at = Timestamp::from_millis(millis);
        times.push(log.append(one).await.unwrap().recorded_at.millis());
    }
    assert_eq!(times, [5, 5, 5, 9, 9]);
    let stored = log.read_stream(&stream, 1, 10).await.unwrap();
    assert_eq!(stored.iter().map(|event| event.recorded_at.millis()).collect::<Vec<_>>(), times);
}

pub(crate) async fn the_head_wakes_its_watchers_and_is_readable(log: SharedLog) {
    let mut head = log.head();
    assert_eq!(*head.borrow_and_update(), 0);
    let watcher = tokio::spawn(async move {
        head.changed().await.unwrap();
        *head.borrow()
    });
    let appended = log.append(append(&facts(1), Expected::Any, 2)).await.unwrap();
    assert_eq!(watcher.await.unwrap(), appended.position);
    assert_eq!(log.read_all(0, Families::ALL, 10).await.unwrap().len(), 2);
}

pub(crate) async fn an_append_beyond_the_limits_is_refused(log: SharedLog) {
    let stream = facts(1);
    let mut large = any(&stream);
    large.events[0].data = "x".repeat(EVENT_BYTES_MAX);
    let mut larger = any(&stream);
    larger.events[0].data = "x".repeat(EVENT_BYTES_MAX);
    larger.events[0].personal = Some(vec![1].into());
    let mut twice = append(&stream, Expected::Any, 2);
    twice.events[1].id = twice.events[0].id;
    let mut huge = append(&stream, Expected::Any, 17);
    for event in &mut huge.events {
        event.data = "x".repeat(EVENT_BYTES_MAX);
    }
    let refused = [
        append(&stream, Expected::Any, 0),
        append(&stream, Expected::Any, EVENTS_MAX + 1),
        larger,
        twice,
        huge,
    ];
    for append in refused {
        assert!(matches!(log.append(append).await.unwrap_err(), AppendError::Refused(_)));
    }
    assert_eq!(log.append(append(&stream, Expected::Any, EVENTS_MAX)).await.unwrap().revision, 1_000);
    assert_eq!(log.append(large).await.unwrap().position, 1_001);
    let read = log.read_stream(&stream, 1_001, 1).await.unwrap();
    assert_eq!(read[0].data.len(), EVENT_BYTES_MAX);
}

pub(crate) async fn a_closed_log_takes_no_appends(log: SharedLog) {
    let stream = facts(1);
    assert_eq!(log.writable(), Ok(()));
    let waiting = join_all((0..20).map(|_| log.append(any(&stream))));
    let (answers, ()) = tokio::join!(waiting, log.close());
    for answer in &answers {
        assert!(matches!(answer, Ok(_) | Err(AppendError::Unavailable(_))), "{answer:?}");
    }
    let acknowledged = answers.iter().filter(|answer| answer.is_ok()).count();
    log.close().await;
    assert!(matches!(log.append(any(&stream)).await.unwrap_err(), AppendError::Unavailable(_)));
    assert!(log.writable().is_err());
    assert_eq!(log.read_stream(&stream, 1, 100).await.unwrap().len(), acknowledged);
}

//! Who has the log, what a restart finds, and what is noticed when somebody changes it by hand.

use std::time::Duration;

use domain::recorded::{Families, StreamName};
use e2e::targets;
use hub::event_log::{
    AppendError, EventLog, Expected,
    postgres::{Address, OpenError, Options, Postgres, Reading},
    verify::VerifyFailure,
};

use crate::{
    open, options,
    support::{NOON, accesses, append, eventually, facts, read_everything, workspace},
    try_open, verify, verify_clean,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_opens_again_as_it_was_closed() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log = open(&url, folder.path()).await;
    let (id, stream, one) = (log.log_id(), facts(1), accesses(1));
    let first = append(&stream, Expected::Revision(0), 3);
    let appended = log.append(first.clone()).await.unwrap();
    let second = append(&one, Expected::Any, 2);
    let second_appended = log.append(second.clone()).await.unwrap();
    let before = read_everything(&*log).await;
    log.close().await;
    drop(log);

    let log = open(&url, folder.path()).await;
    // The end was sealed in the log itself too.
    assert_eq!((log.log_id(), *log.head().borrow()), (id, 6));
    assert_eq!(read_everything(&*log).await[..5], before);
    assert_eq!(log.append(first).await.unwrap(), appended);
    assert_eq!(log.append(second).await.unwrap(), second_appended);
    let mut early = append(&stream, Expected::Revision(3), 1);
    early.at = NOON.plus_ms(-1);
    let next = log.append(early).await.unwrap();
    assert_eq!((next.position, next.revision, next.recorded_at), (7, 4, NOON));
    assert_eq!(read_everything(&*log).await[6].seq, 4, "the seal is in the hub's own workspace");
    log.close().await;
    verify_clean(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_only_looked_at_does_not_grow() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        open(&url, folder.path()).await.close().await;
    }
    assert_eq!(verify_clean(&url, folder.path()).await.position, 0);
    let log = open(&url, folder.path()).await;
    log.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
    log.close().await;
    drop(log);
    for _ in 0..3 {
        open(&url, folder.path()).await.close().await;
    }
    let report = verify_clean(&url, folder.path()).await;
    assert_eq!((report.position, report.events[0].1), (2, 2), "an event and one seal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_head_is_sealed_while_the_log_runs_and_recorded_in_it() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let often = Duration::from_millis(10);
    let options = Options { seal_every: often, record_seal_every: often, ..options(&url, folder.path()) };
    let log = Postgres::open(options).await.unwrap();
    log.append(append(&facts(1), Expected::Any, 3)).await.unwrap();
    eventually("a seal is recorded", || *log.head().borrow() == 4).await;
    let sealed = log.read_stream(&StreamName::seals(), 1, 10).await.unwrap();
    assert_eq!((sealed.len(), sealed[0].position, &*sealed[0].event_type), (1, 4, "log.sealed"));
    assert!(sealed[0].data.contains("\"position\":3"), "{}", sealed[0].data);
    // Seals of nothing but seals would never end.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(*log.head().borrow(), 4);
    log.close().await;
    let report = verify_clean(&url, folder.path()).await;
    assert!(report.seals >= 2, "{report:?}");
    assert_eq!(report.last_seal.map(|seal| seal.position), Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_hub_is_refused_and_told_which_one_has_the_log() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first =
        Postgres::open(Options { node: "first".into(), ..options(&url, folder.path()) }).await.unwrap();
    let impatient = |url: &str| Options { open_patience: Duration::ZERO, ..options(url, other.path()) };
    let refused = Postgres::open(impatient(&url)).await.unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { node, .. } if node == "first"), "{refused}");
    first.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
    first.close().await;
    drop(first);
    let second = Postgres::open(impatient(&url)).await.unwrap();
    assert_eq!(*second.head().borrow(), 2);
    // One that vanishes without a word is gone as soon as the server knows.
    drop(second);
    open(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_log_was_taken_over_writes_nothing_more() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log = open(&url, folder.path()).await;
    log.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
    // As another hub does it, when the server has given up this one's lock.
    let take = "UPDATE private_connect.head SET holder = gen_random_uuid(), term = term + 1, node = 'other'";
    server.sql("pc", take);
    let refused = log.append(append(&facts(1), Expected::Any, 1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
    eventually("the log says why", || log.writable().is_err_and(|reason| reason.contains("another hub")))
        .await;
    assert_eq!(server.sql("pc", "SELECT count(*) FROM private_connect.events"), "1");
    assert_eq!(log.read_all(0, Families::ALL, 10).await.unwrap().len(), 1);
    log.close().await;
    assert!(log.writable().unwrap_err().contains("another hub"), "a close does not hide why");
    drop(log);

    // The same while nobody writes, and after a connection that was lost.
    for end in ["", "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"] {
        let log = open(&url, folder.path()).await;
        server.sql("pc", &format!("{take}; {end}"));
        eventually("the log says why", || log.writable().is_err_and(|reason| reason.contains("another hub")))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_ended_is_made_anew_and_the_log_goes_on() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log = open(&url, folder.path()).await;
    for revision in 0..5 {
        log.append(append(&facts(1), Expected::Revision(revision), 1)).await.unwrap();
        let ours = "application_name = 'private-connect-hub'";
        server.sql("pc", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"));
        // Readers do not even notice.
        assert_eq!(log.read_stream(&facts(1), 1, 10).await.unwrap().len() as u64, revision + 1);
        eventually("it was noticed", || log.writable().is_ok()).await;
        eventually("the lock is held again", || {
            server.sql("pc", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "1"
        })
        .await;
        eventually("the log takes writes", || log.writable().is_ok()).await;
    }
    log.close().await;
    verify_clean(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_a_log_that_somebody_else_writes() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let none = Reading::open(Address::parse(&url).unwrap()).await.unwrap_err();
    assert!(none.to_string().contains("no event log"), "{none}");
    let log = open(&url, folder.path()).await;
    let reading = Reading::open(Address::parse(&url).unwrap()).await.unwrap();
    assert_eq!(reading.log_id(), log.log_id());
    let mut head = reading.head();
    for n in 1..=20 {
        log.append(append(&facts(1), Expected::Any, 1)).await.unwrap();
        head.wait_for(|head| *head >= n).await.unwrap();
        assert_eq!(reading.read_all(n - 1, Families::ALL, 10).await.unwrap().len(), 1);
    }
}

/// A statement, and the position that is named afterwards.
const MEDDLING: [(&str, u64); 11] = [
    ("UPDATE events SET data = replace(data, '1', '0') WHERE position = 4", 4),
    ("UPDATE events SET personal = '\\x00' WHERE position = 5", 5),
    ("UPDATE events SET actor = 'system:other' WHERE position = 6", 6),
    ("UPDATE events SET recorded_at = recorded_at + 1 WHERE position = 8", 8),
    ("UPDATE events SET link = set_byte(link, 0, get_byte(link, 0) # 1) WHERE position = 3", 3),
    ("UPDATE events SET id = gen_random_uuid() WHERE position = 7", 7),
    ("DELETE FROM events WHERE position = 2", 2),
    ("DELETE FROM events WHERE position = 9", 9),
    (
        "UPDATE events SET position = -position WHERE position IN (2, 4);
         UPDATE events SET position = 6 + position WHERE position < 0",
        2,
    ),
    ("DELETE FROM events WHERE position > 6; UPDATE head SET position = 6", 7),
    ("UPDATE chains SET seq = seq + 1", 9),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_by_hand_is_named_with_its_position() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log = open(&url, folder.path()).await;
    for n in 0..4 {
        let mut one = append(&if n % 2 == 0 { facts(n) } else { accesses(n) }, Expected::Any, 2);
        one.workspace = workspace(1 + n % 3);
        log.append(one).await.unwrap();
    }
    log.close().await;
    drop(log);
    let clean = verify_clean(&url, folder.path()).await;
    assert_eq!((clean.position, clean.workspaces), (9, 4), "the hub's own workspace has the seal");
    for (n, (meddling, position)) in MEDDLING.into_iter().enumerate() {
        let copy = format!("copy_{n}");
        server.sql("postgres", &format!("CREATE DATABASE {copy} TEMPLATE pc"));
        server.sql(&copy, &format!("SET search_path = private_connect; {meddling}"));
        let url = format!("postgres://postgres@{}/{copy}", server.address);
        let failure = verify(&url, folder.path()).await.unwrap_err();
        let VerifyFailure::BadRow(bad) = failure else { panic!("{meddling}: {failure}") };
        assert_eq!(bad.position, position, "{meddling}: {bad}");
        // Of a log that is shorter than what was sealed, or does not fit together, nobody may go on.
        if meddling.contains("position > 6") || meddling.contains("position = 9") {
            let refused = try_open(&url, folder.path()).await.unwrap_err();
            assert!(matches!(refused, OpenError::Damaged { .. }), "{meddling}: {refused}");
        }
    }
    // Events that were taken out are missed by readers too.
    let url = format!("postgres://postgres@{}/copy_6", server.address);
    let log = open(&url, folder.path()).await;
    let missed = log.read_all(0, Families::ALL, 10).await.unwrap_err();
    assert!(missed.to_string().contains("position 2 is missing"), "{missed}");
    assert!(log.intact().is_err());
}

//! The server goes away, is killed, or cannot be heard: what was acknowledged is there, once, and without a gap.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{ids::EventId, recorded::Families};
use e2e::targets;
use hub::event_log::{AppendError, EventLog, Expected, SharedLog, postgres::Postgres};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    open, options,
    proxy::{Loses, Proxy},
    support::{accesses, append, eventually, facts, read_everything},
    verify_clean,
};

const ROUNDS: usize = 6;
const WRITERS: u128 = 16;

/// What writers were told.
#[derive(Debug, Default)]
struct Told {
    acknowledged: Mutex<Vec<EventId>>,
    /// How often they were told that it is in doubt, and that it was not written.
    in_doubt: Mutex<u64>,
    unavailable: Mutex<u64>,
}

/// Appends until it is told to stop, each event until it is acknowledged.
async fn write(log: SharedLog, n: u128, told: Arc<Told>, stop: Arc<AtomicBool>) {
    let mut revision = 0;
    while !stop.load(Ordering::SeqCst) {
        // Some streams have one writer and do not count.
        let (stream, expected) = match n % 3 {
            0 => (accesses(n), Expected::Any),
            _ => (facts(n), Expected::Revision(revision)),
        };
        let one = append(&stream, expected, 1 + usize::try_from(revision % 3).unwrap());
        let appended = loop {
            match log.append(one.clone()).await {
                Ok(appended) => break appended,
                Err(AppendError::Unavailable(_)) => *told.unavailable.lock() += 1,
                Err(AppendError::InDoubt(_)) => *told.in_doubt.lock() += 1,
                Err(error) => panic!("writer {n} at revision {revision}: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(appended.revision, revision + one.events.len() as u64, "writer {n}");
        revision = appended.revision;
        told.acknowledged.lock().extend(one.events.iter().map(|event| event.id));
    }
}

/// Reads along: every position in its order, and never one before the one before it.
async fn read_along(log: SharedLog, stop: Arc<AtomicBool>) -> u64 {
    let mut next = 1;
    loop {
        let last_look = stop.load(Ordering::SeqCst);
        match log.read_all(next - 1, Families::ALL, 100).await {
            Ok(events) if events.is_empty() && last_look => return next - 1,
            Ok(events) => {
                for event in &events {
                    assert_eq!(event.position, next, "a gap");
                    next += 1;
                }
                if events.is_empty() {
                    sleep(Duration::from_millis(2)).await;
                }
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_survives_every_kill_of_the_server_once_and_without_a_gap() {
    let mut server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log: SharedLog = open(&url, folder.path()).await;
    let (told, stop) = (Arc::<Told>::default(), Arc::<AtomicBool>::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(log.clone(), n, Arc::clone(&told), Arc::clone(&stop))))
        .collect();
    let readers_stop = Arc::<AtomicBool>::default();
    let reader = tokio::spawn(read_along(log.clone(), Arc::clone(&readers_stop)));
    for round in 0..ROUNDS {
        let before = told.acknowledged.lock().len();
        eventually("events are acknowledged", || {
            told.acknowledged.lock().len() > before + 200 + 100 * round && log.writable().is_ok()
        })
        .await;
        server.kill9();
        eventually("the log says that it is away", || log.writable().is_err()).await;
        let reason = log.writable().unwrap_err();
        assert!(reason.contains("is away") && reason.contains("PostgreSQL at 127.0.0.1"), "{reason}");
        server.start_again();
        eventually("the log takes writes again", || log.writable().is_ok()).await;
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    readers_stop.store(true, Ordering::SeqCst);
    let read = reader.await.unwrap();

    let events = read_everything(&*log).await;
    assert_eq!(events.len() as u64, read);
    assert!(events.iter().zip(1..).all(|(event, position)| event.position == position));
    let ids: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "an event twice");
    let acknowledged: HashSet<EventId> = told.acknowledged.lock().iter().copied().collect();
    assert_eq!(acknowledged, ids, "lost, or there without having been acknowledged in the end");
    let mut revisions = HashMap::new();
    for event in &events {
        let revision = revisions.entry(event.stream.clone()).or_insert(0);
        *revision += 1;
        assert_eq!(event.revision, *revision);
    }
    assert!(*told.unavailable.lock() > 0, "nobody was turned away: was the server ever away?");
    log.close().await;
    let report = verify_clean(&url, folder.path()).await;
    // The seal of the end is an event too.
    assert_eq!(report.position, read + 1);
    println!(
        "{read} events, {ROUNDS} kills: {} in doubt, {} turned away",
        told.in_doubt.lock(),
        told.unavailable.lock()
    );
}

async fn through(proxy: &Proxy, url: &str, folder: &Path, doubt_patience: Duration) -> Arc<Postgres> {
    let options = hub::event_log::postgres::Options { doubt_patience, ..options(&proxy.url(url), folder) };
    Arc::new(Postgres::open(options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_and_acknowledged_once() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::to(server.address).await;
    let log = through(&proxy, &url, folder.path(), Duration::from_secs(20)).await;
    log.append(append(&facts(1), Expected::Revision(0), 1)).await.unwrap();
    for (round, lost) in [Loses::Answers, Loses::Questions].into_iter().enumerate() {
        let one = append(&facts(1), Expected::Revision(1 + 2 * round as u64), 2);
        let appended = loop {
            let before = proxy.lost();
            proxy.lose(lost);
            let appending = tokio::spawn({
                let (log, one) = (Arc::clone(&log), one.clone());
                async move { log.append(one).await }
            });
            match lost {
                // The server has it, and nobody knows.
                Loses::Answers => {
                    let there = "SELECT count(*) FROM private_connect.events";
                    eventually("the commit is done", || server.sql("pc", there) == "3").await;
                }
                Loses::Questions | Loses::Nothing | Loses::Everybody => {
                    eventually("the commit is lost", || proxy.lost() > before + 500).await;
                }
            }
            assert!(!appending.is_finished(), "nobody can know yet");
            proxy.lose(Loses::Nothing);
            proxy.cut();
            match appending.await.unwrap() {
                // It was a question of the writer's own that was lost: nothing was sent, as the next time shows.
                Err(AppendError::Unavailable(_)) if matches!(lost, Loses::Questions) => {
                    eventually("the server is there again", || log.writable().is_ok()).await;
                }
                appended => break appended.unwrap(),
            }
        };
        assert_eq!((appended.position, appended.revision), (3 + 2 * round as u64, 3 + 2 * round as u64));
        // Whoever asks again hears the same, or that the server is away.
        let again = loop {
            match log.append(one.clone()).await {
                Err(AppendError::Unavailable(_)) => sleep(Duration::from_millis(20)).await,
                again => break again.unwrap(),
            }
        };
        assert_eq!(again, appended);
    }
    assert_eq!(read_everything(&*log).await.len(), 5);
    log.close().await;
    verify_clean(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_too_long_is_told_that_it_is_in_doubt_and_a_retry_fits_both_ways() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::to(server.address).await;
    let log = through(&proxy, &url, folder.path(), Duration::from_millis(300)).await;
    // So that nothing has to be asked before the next commit.
    log.append(append(&facts(1), Expected::Revision(0), 1)).await.unwrap();
    for (round, lost) in [Loses::Answers, Loses::Questions].into_iter().enumerate() {
        let expected = 1 + 2 * round as u64;
        let head = *log.head().borrow();
        proxy.lose(lost);
        let one = append(&facts(1), Expected::Revision(expected), 2);
        let appending = tokio::spawn({
            let (log, one) = (Arc::clone(&log), one.clone());
            async move { log.append(one).await }
        });
        eventually("the connection is lost in the middle", || match lost {
            Loses::Answers => server.sql("pc", "SELECT count(*) FROM private_connect.events") == "3",
            Loses::Questions | Loses::Nothing | Loses::Everybody => proxy.lost() > 500,
        })
        .await;
        proxy.lose(Loses::Everybody);
        proxy.cut();
        let doubt = appending.await.unwrap().unwrap_err();
        assert!(matches!(&doubt, AppendError::InDoubt(reason) if reason.contains("is away")), "{doubt}");
        assert_eq!(*log.head().borrow(), head, "nobody is shown what nobody knows");
        // Meanwhile nothing is taken, and nobody waits for that.
        let asked = Instant::now();
        let refused = log.append(append(&facts(2), Expected::Any, 1)).await.unwrap_err();
        assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "turned away at once, not after {:?}",
            asked.elapsed()
        );
        assert!(log.read_all(0, Families::ALL, 10).await.is_err());
        proxy.lose(Loses::Nothing);
        eventually("the log is back", || log.writable().is_ok()).await;
        assert_eq!(log.append(one).await.unwrap().revision, expected + 2);
    }
    let events = read_everything(&*log).await;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    log.close().await;
    verify_clean(&url, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_commits_is_asked_again_until_it_takes_them() {
    let server = targets::Postgres::start();
    let url = server.database("pc");
    let folder = tempfile::tempdir().unwrap();
    let log = open(&url, folder.path()).await;
    log.append(append(&facts(1), Expected::Revision(0), 1)).await.unwrap();
    // As a full disk does it: an error, and everything as it was.
    server.sql(
        "pc",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON private_connect.head
             FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let refused = log.append(append(&facts(1), Expected::Revision(1), 1)).await.unwrap_err();
    assert!(matches!(&refused, AppendError::Unavailable(reason) if reason.contains("no room")), "{refused}");
    assert!(log.writable().unwrap_err().contains("53100"));
    assert_eq!(log.read_stream(&facts(1), 1, 10).await.unwrap().len(), 1, "it is read on");
    server.sql("pc", "DROP FUNCTION refuse() CASCADE");
    eventually("the log notices by itself", || log.writable().is_ok()).await;
    assert_eq!(log.append(append(&facts(1), Expected::Revision(1), 1)).await.unwrap().position, 2);
    log.close().await;
    verify_clean(&url, folder.path()).await;
}

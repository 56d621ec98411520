//! The embedded engine over restarts and kills.

use std::{fs, path::Path, sync::Arc};

use domain::{recorded::Families, time::Timestamp};
use hub::event_log::{
    EventLog, Expected,
    segments::{OpenError, Options, Segments},
    verify::{VerifyFailure, verify},
};

use crate::support::{
    DAY_MS, NOON, accesses, any, append, copy_dir, event, facts, files_below, open, options, quick_dir,
    read_everything, segments_of, small, try_large, try_small, used, workspace,
};

#[tokio::test]
async fn a_log_opens_again_as_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (id, stream, one) = (log.log_id(), facts(1), accesses(1));
    let first = append(&stream, Expected::Revision(0), 3);
    let appended = log.append(first.clone()).await.unwrap();
    let second = append(&one, Expected::Any, 2);
    let second_appended = log.append(second.clone()).await.unwrap();
    let before = read_everything(&*log).await;
    log.close().await;

    let log = open(dir.path());
    assert_eq!((log.log_id(), *log.head().borrow()), (id, 5));
    assert_eq!(read_everything(&*log).await, before);
    assert_eq!(log.append(first).await.unwrap(), appended);
    assert_eq!(log.append(second).await.unwrap(), second_appended);
    let mut early = append(&stream, Expected::Revision(3), 1);
    early.at = NOON.plus_ms(-1);
    let next = log.append(early).await.unwrap();
    assert_eq!((next.position, next.revision, next.recorded_at), (6, 4, NOON));
    let events = read_everything(&*log).await;
    assert_eq!(events[5].seq, 4);
    assert_eq!(events[..5], before);
}

#[tokio::test]
async fn a_repeated_append_is_known_however_long_ago_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let stream = facts(1);
    let log = open(dir.path());
    let first = append(&stream, Expected::Revision(0), 2);
    let appended = log.append(first.clone()).await.unwrap();
    for _ in 0..5 {
        log.append(append(&stream, Expected::Any, 1_000)).await.unwrap();
    }
    assert_eq!(log.append(first.clone()).await.unwrap(), appended);
    let last = append(&stream, Expected::Any, 1_000);
    let last_appended = log.append(last.clone()).await.unwrap();
    log.close().await;
    let log = open(dir.path());
    assert_eq!(log.append(first).await.unwrap(), appended);
    assert_eq!(log.append(last).await.unwrap(), last_appended);
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let error = Segments::open(dir.path(), options(dir.path())).unwrap_err();
    assert!(matches!(&error, OpenError::InUse(path) if path == dir.path()));
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    let failure = verify(dir.path(), None).unwrap_err();
    assert!(matches!(failure, VerifyFailure::CannotJudge(_)), "{failure}");
    assert_eq!(failure.exit_code(), 2);
    log.close().await;
    open(dir.path()).close().await;
    verify(dir.path(), None).unwrap();
}

/// A small log as a kill leaves it: no seal, no checkpoint; events in both families.
async fn killed(dir: &Path) -> (std::path::PathBuf, Vec<domain::recorded::Recorded>) {
    let (data, image) = (dir.join("data"), dir.join("image"));
    let log = try_small(&data).unwrap();
    for n in 0..4 {
        log.append(append(&facts(n % 2), Expected::Any, 2)).await.unwrap();
        log.append(any(&accesses(n % 2))).await.unwrap();
    }
    let events = read_everything(&log).await;
    copy_dir(&data, &image);
    (image, events)
}

#[tokio::test]
async fn an_acknowledged_append_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (image, events) = killed(dir.path()).await;
    assert_eq!(verify(&image, None).unwrap().position, 12);
    let log = open(&image);
    assert_eq!(read_everything(&*log).await, events);
}

#[tokio::test]
async fn a_log_cut_at_any_byte_opens_with_what_stood_before_or_is_refused() {
    let dir = quick_dir();
    let (image, events) = killed(dir.path()).await;
    // The last commit of the log is in accesses, the one before it in facts.
    for (family, first_of_last, may_lose) in [("accesses", 12, true), ("facts", 10, false)] {
        let segment = segments_of(&image, family).pop().unwrap();
        let whole = fs::read(&segment).unwrap();
        let end = used(&segment);
        let mut kept = Vec::new();
        for length in 64..=end {
            fs::write(&segment, &whole[..length]).unwrap();
            let verified = verify(&image, None).map(|report| report.position);
            let copy = dir.path().join("copy");
            copy_dir(&image, &copy);
            match try_small(&copy) {
                Ok(log) => {
                    let read = read_everything(&log).await;
                    assert_eq!(read, events[..read.len()], "{family} cut at {length}");
                    assert_eq!(verified, Ok(read.len() as u64));
                    log.append(any(&facts(9))).await.unwrap();
                    log.close().await;
                    assert_eq!(verify(&copy, None).unwrap().position, read.len() as u64 + 1);
                    kept.push(read.len());
                }
                Err(OpenError::Damaged(damage)) => {
                    assert!(length < end);
                    assert!(damage.position.is_some(), "{damage}");
                    assert!(matches!(verified, Err(VerifyFailure::Bad(_))));
                }
                Err(other) => panic!("{other}"),
            }
            fs::remove_dir_all(&copy).unwrap();
        }
        fs::write(&segment, &whole).unwrap();
        kept.dedup();
        let expected: &[usize] = if may_lose { &[first_of_last - 1, 12] } else { &[12] };
        assert_eq!(kept, expected, "{family}");
    }
}

#[tokio::test]
async fn a_sealed_log_that_ends_early_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = try_small(dir.path()).unwrap();
    for _ in 0..3 {
        log.append(any(&facts(1))).await.unwrap();
    }
    let before = used(&segments_of(dir.path(), "facts")[0]);
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    let segment = segments_of(dir.path(), "facts").remove(0);
    fs::File::options().write(true).open(&segment).unwrap().set_len(before as u64).unwrap();
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    let Err(OpenError::Damaged(damage)) = try_small(dir.path()) else { panic!("opened") };
    assert_eq!((damage.position, &damage.file), (Some(4), &segment));
    assert!(damage.reason.contains("seal"), "{damage}");
    assert!(matches!(verify(dir.path(), None), Err(VerifyFailure::Bad(_))));
}

#[tokio::test]
async fn segments_roll_by_size_and_by_day_and_read_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = try_large(dir.path()).unwrap();
    let mut last = NOON;
    for day in 0..3 {
        for n in 0..40 {
            let mut one = any(&if n % 4 == 0 { accesses(n) } else { facts(n) });
            one.at = NOON.plus_ms(day * DAY_MS);
            last = log.append(one).await.unwrap().recorded_at;
        }
    }
    // A commit that is larger than a segment.
    let mut large = any(&facts(1));
    large.events[0].data = "x".repeat(100_000);
    log.append(large).await.unwrap();
    log.append(any(&facts(1))).await.unwrap();
    let before = read_everything(&log).await;
    assert_eq!(before.len(), 122);
    assert_eq!(log.read_all(100, Families::ALL, 10).await.unwrap(), before[100..110]);
    let names: Vec<String> = segments_of(dir.path(), "facts")
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    for day in 0..3 {
        let date = last.plus_ms((day - 2) * DAY_MS).to_string()[..10].to_owned();
        let of_day = names.iter().filter(|name| name.contains(&date)).count();
        assert!(of_day > 1, "{of_day} segments of {date} in {names:?}");
    }
    log.close().await;
    assert_eq!(verify(dir.path(), None).unwrap().events.map(|(_, count)| count), [92, 30, 0]);
    for use_checkpoint in [true, false] {
        if !use_checkpoint {
            fs::remove_dir_all(dir.path().join("state")).unwrap();
        }
        let log = try_large(dir.path()).unwrap();
        assert_eq!(log.opened().from_checkpoint, use_checkpoint);
        assert_eq!(log.opened().events_read, if use_checkpoint { 0 } else { 122 });
        assert_eq!(read_everything(&log).await, before);
        assert_eq!(log.read_stream(&facts(1), 1, 100).await.unwrap().len(), 5);
        log.close().await;
    }
}

#[tokio::test]
async fn a_checkpoint_is_used_when_it_fits_and_its_tail_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = try_large(dir.path()).unwrap();
    for n in 0..10 {
        log.append(any(&facts(n % 3))).await.unwrap();
    }
    log.close().await;
    let state = dir.path().join("state");
    let kept = fs::read(state.join("index")).unwrap();
    let log = try_large(dir.path()).unwrap();
    for n in 0..30 {
        log.append(any(&if n % 2 == 0 { facts(n % 5) } else { accesses(n % 3) })).await.unwrap();
    }
    let events = read_everything(&log).await;
    log.close().await;
    fs::write(state.join("index"), kept).unwrap();
    let log = try_large(dir.path()).unwrap();
    assert!(log.opened().from_checkpoint);
    assert_eq!(log.opened().events_read, 30);
    assert_eq!(read_everything(&log).await, events);
    assert_eq!(log.append(append(&facts(0), Expected::Revision(7), 1)).await.unwrap().position, 41);
}

#[tokio::test]
async fn a_checkpoint_that_does_not_fit_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    for path in [&data, &other] {
        let log = try_large(path).unwrap();
        for n in 0..10 {
            log.append(any(&facts(n % 3))).await.unwrap();
        }
        log.close().await;
    }
    let index = data.join("state").join("index");
    let whole = fs::read(&index).unwrap();
    let events = {
        let log = try_large(&data).unwrap();
        assert!(log.opened().from_checkpoint);
        read_everything(&log).await
    };
    let mut wrong: Vec<Vec<u8>> = (0..whole.len())
        .step_by(7)
        .map(|at| {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            changed
        })
        .collect();
    wrong.push(fs::read(other.join("state").join("index")).unwrap());
    wrong.push(whole[..whole.len() / 2].to_vec());
    wrong.push(Vec::new());
    for (n, bytes) in wrong.into_iter().enumerate() {
        fs::write(&index, bytes).unwrap();
        let log = try_large(&data).unwrap();
        assert!(!log.opened().from_checkpoint, "case {n}");
        assert_eq!(read_everything(&log).await, events);
        log.close().await;
    }
}

#[tokio::test]
async fn a_checkpoint_of_a_longer_log_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let log = try_large(&data).unwrap();
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    copy_dir(&data, &backup);
    let log = try_large(&data).unwrap();
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    // A restored backup, with state that somebody copied from the newer directory; then written on differently.
    fs::copy(data.join("state").join("index"), backup.join("state").join("index")).unwrap();
    let log = try_large(&backup).unwrap();
    assert!(!log.opened().from_checkpoint);
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    fs::copy(data.join("state").join("index"), backup.join("state").join("index")).unwrap();
    let log = try_large(&backup).unwrap();
    assert!(!log.opened().from_checkpoint, "the same position, another history");
    assert_eq!(read_everything(&log).await.len(), 2);
}

#[tokio::test]
async fn the_head_is_sealed_while_the_log_runs() {
    let dir = tempfile::tempdir().unwrap();
    let every = std::time::Duration::from_millis(10);
    let log = Segments::open(dir.path(), Options { seal_every: every, ..small(dir.path()) }).unwrap();
    log.append(any(&facts(1))).await.unwrap();
    let stats = log.stats();
    crate::support::eventually("a seal is written", || {
        stats.seals.load(std::sync::atomic::Ordering::Relaxed) == 1
    })
    .await;
    let image = dir.path().join("image");
    for part in ["log", "keyring"] {
        let from = dir.path().join(part);
        if from.is_dir() {
            copy_dir(&from, &image.join(part));
        } else {
            fs::copy(&from, image.join(part)).unwrap();
        }
    }
    let report = verify(&image, None).unwrap();
    assert_eq!(report.last_seal.map(|seal| (seal.position, seal.recorded_at)), Some((1, NOON)));
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    let report = verify(dir.path(), None).unwrap();
    assert_eq!(report.last_seal.map(|seal| seal.position), Some(2));
}

#[tokio::test]
async fn verify_reports_figures_and_knows_every_head_the_log_had() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(dir.path(), None), Err(VerifyFailure::CannotJudge(_))));
    let log = try_small(dir.path()).unwrap();
    log.append(append(&facts(1), Expected::Any, 2)).await.unwrap();
    log.close().await;
    let early = verify(dir.path(), None).unwrap();
    let log = try_small(dir.path()).unwrap();
    let mut foreign = any(&accesses(1));
    foreign.workspace = workspace(2);
    foreign.at = Timestamp::from_millis(NOON.millis() + 1);
    foreign.events.push(event("{}"));
    log.append(foreign).await.unwrap();
    log.close().await;

    let before: Vec<_> = files_below(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let report = verify(dir.path(), Some(&early.head)).unwrap();
    assert_eq!(report.events.map(|(_, count)| count), [2, 2, 0]);
    assert_eq!((report.position, report.workspaces, report.seals), (4, 2, 2));
    assert_eq!(report.expected_head_at, Some(2));
    assert_ne!(report.head, early.head);
    assert_eq!(report.head.len(), 64);
    let failure = verify(dir.path(), Some(&"0".repeat(64))).unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    assert!(matches!(failure, VerifyFailure::OtherHead { .. }));
    let after: Vec<_> = files_below(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after, "verify changes no byte");
    fs::remove_file(dir.path().join("keyring")).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap_err().exit_code(), 2);
}

#[tokio::test]
async fn a_dropped_log_closes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log: Arc<dyn EventLog> = open(dir.path());
    log.append(any(&facts(1))).await.unwrap();
    drop(log);
    assert_eq!(verify(dir.path(), None).unwrap().last_seal.map(|seal| seal.position), Some(1));
}

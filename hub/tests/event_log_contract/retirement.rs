//! Accesses that were retired: the log is whole without them, wherever the process ended, and nothing else may be missing.

use std::{fs, path::Path};

use domain::{
    recorded::{Families, Family, Recorded, StreamName},
    time::Day,
};
use hub::event_log::{
    Append, EventLog, Expected, NewEvent,
    segments::{OpenError, Retirement, Segments},
    verify::{VerifyFailure, verify},
};

use crate::support::{
    DAY_MS, NOON, accesses, append, copy_dir, event, eventually, facts, large, read_everything, segments_of,
    small, try_large, try_small, workspace,
};

fn on_day(n: i64, append: Append) -> Append {
    Append { at: NOON.plus_ms(n * DAY_MS), ..append }
}

fn first_day() -> Day {
    Day::of(NOON)
}

/// Five days with facts and accesses of two workspaces, in commits of their own and together.
async fn five_days(log: &Segments) {
    for day in 0..5 {
        for n in 0..30 {
            let of_workspace = |append: Append| Append { workspace: workspace(1 + n % 2), ..append };
            let visit = append(&accesses(n % 3), Expected::Any, 2);
            log.append(on_day(day, of_workspace(visit))).await.unwrap();
            if n % 5 == 0 {
                let fact = append(&facts(n), Expected::Any, 1);
                log.append(on_day(day, of_workspace(fact))).await.unwrap();
            }
        }
    }
}

/// What the log has to know before anything goes.
async fn record(log: &Segments, retirement: &Retirement) {
    let retired = NewEvent {
        event_type: "history.retired",
        ..event(&format!("{{\"statement\":\"{}\"}}", retirement.statement_hash))
    };
    let stream = StreamName::history(Family::Accesses);
    let append = Append { events: vec![retired], ..append(&stream, Expected::Any, 1) };
    log.append(on_day(5, append)).await.unwrap();
}

/// Waits for the check in the background, which reads what is to go.
async fn retirable(log: &Segments, before: i64) -> Retirement {
    let before = Day::new(first_day().number() + before);
    eventually("the log is checked", || log.retirable(before, None).unwrap().is_some()).await;
    log.retirable(before, None).unwrap().unwrap()
}

fn kept(all: &[Recorded], before: i64) -> Vec<Recorded> {
    let first = NOON.plus_ms(before * DAY_MS).day();
    let is_kept = |it: &&Recorded| it.family() != Family::Accesses || it.recorded_at.day() >= first;
    all.iter().filter(is_kept).cloned().collect()
}

#[tokio::test]
async fn what_was_retired_is_gone_and_everything_else_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = try_small(&data).unwrap();
    five_days(&log).await;
    let before = segments_of(&data, "accesses").len();
    let retirement = retirable(&log, 2).await;
    record(&log, &retirement).await;
    let all = read_everything(&log).await;
    let expected = kept(&all, 2);
    assert!(expected.len() < all.len());
    log.retire(&retirement).unwrap();
    // In the process that retired it, …
    assert_eq!(read_everything(&log).await, expected);
    assert!(segments_of(&data, "accesses").len() < before);
    let revision = log.append(on_day(6, append(&accesses(1), Expected::Any, 1))).await.unwrap().revision;
    let stream: Vec<_> = all.iter().filter(|it| it.stream == accesses(1)).collect();
    assert_eq!(revision, stream.len() as u64 + 1, "revisions go on");
    let read = log.read_stream(&accesses(1), 1, 1_000).await.unwrap();
    let first = stream.iter().copied().find(|it| expected.contains(*it)).unwrap();
    assert_eq!(&read[0], first);
    assert_eq!(read.last().unwrap().revision, revision);
    let now = read_everything(&log).await;
    log.close().await;
    // … offline, …
    let report = verify(&data, None).unwrap();
    assert_eq!(report.retired.unwrap().before, retirement.before);
    // … and in the next ones, with and without a checkpoint.
    for open in [try_large as fn(&Path) -> Result<Segments, OpenError>, try_small] {
        let reopened = open(&data).unwrap();
        assert_eq!(read_everything(&reopened).await, now);
        reopened.close().await;
    }
    fs::remove_dir_all(data.join("state")).unwrap();
    let log = try_small(&data).unwrap();
    assert_eq!(read_everything(&log).await, now);
    let again = append(&accesses(1), Expected::Revision(revision), 1);
    assert_eq!(log.append(on_day(6, again)).await.unwrap().revision, revision + 1);
    log.close().await;
    verify(&data, None).unwrap();
}

#[tokio::test]
async fn a_start_from_a_checkpoint_after_a_retirement_reads_little_and_checks_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (data, image) = (dir.path().join("data"), dir.path().join("image"));
    let log = try_small(&data).unwrap();
    five_days(&log).await;
    let retirement = retirable(&log, 3).await;
    record(&log, &retirement).await;
    log.retire(&retirement).unwrap();
    let events = read_everything(&log).await;
    // What a kill leaves: no checkpoint but the one that retiring wrote.
    copy_dir(&data, &image);
    log.close().await;
    let log = Segments::open(&image, large(&image)).unwrap();
    assert!(log.opened().from_checkpoint);
    assert_eq!(read_everything(&log).await, events);
    // The next retirement waits for the check, which finds nothing.
    let next = retirable(&log, 4).await;
    assert_eq!(log.intact(), Ok(()));
    record(&log, &next).await;
    log.retire(&next).unwrap();
    assert_eq!(next.after, retirement.up_to);
    log.close().await;
    verify(&image, None).unwrap();
}

/// The images of a retirement, as a kill at each place leaves them.
async fn images(dir: &Path) -> (Vec<Recorded>, [std::path::PathBuf; 4]) {
    let data = dir.join("data");
    let log = try_small(&data).unwrap();
    five_days(&log).await;
    let images = ["summed", "recorded", "stated", "retired"].map(|name| dir.join(name));
    let retirement = retirable(&log, 2).await;
    copy_dir(&data, &images[0]);
    record(&log, &retirement).await;
    copy_dir(&data, &images[1]);
    let all = read_everything(&log).await;
    log.retire(&retirement).unwrap();
    copy_dir(&data, &images[3]);
    // The statement is there and no segment is gone yet.
    copy_dir(&images[1], &images[2]);
    fs::copy(images[3].join("log").join("retired"), images[2].join("log").join("retired")).unwrap();
    log.close().await;
    (all, images)
}

#[tokio::test]
async fn a_kill_anywhere_on_the_way_leaves_a_log_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (all, [summed, recorded, stated, retired]) = images(dir.path()).await;
    for (image, expected) in [
        (&summed, all[..all.len() - 1].to_vec()),
        (&recorded, all.clone()),
        (&stated, kept(&all, 2)),
        (&retired, kept(&all, 2)),
    ] {
        verify(image, None).unwrap_or_else(|failure| panic!("{}: {failure}", image.display()));
        let log = try_small(image).unwrap();
        assert_eq!(read_everything(&log).await, expected, "{}", image.display());
        // What was recorded and not done is the same when it is looked at again.
        if image == &recorded {
            let retirement = retirable(&log, 2).await;
            let known = &all.last().unwrap().data;
            assert!(known.contains(&retirement.statement_hash), "{known}");
            log.retire(&retirement).unwrap();
            assert!(log.retire(&retirement).is_err(), "once");
        }
        log.close().await;
        verify(image, None).unwrap();
    }
    assert_eq!(segments_of(&stated, "accesses"), {
        let names = segments_of(&retired, "accesses");
        names.iter().map(|path| stated.join(path.strip_prefix(&retired).unwrap())).collect::<Vec<_>>()
    });
}

#[tokio::test]
async fn nothing_is_missing_but_what_was_retired_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (_, [summed, recorded, _, retired]) = images(dir.path()).await;
    let statement = retired.join("log").join("retired");
    let bytes = fs::read(&statement).unwrap();
    let bad = |image: &Path| match verify(image, None) {
        Err(VerifyFailure::Bad(damage)) => damage.to_string(),
        other => panic!("{}: {other:?}", image.display()),
    };
    // Gone without a statement, with a changed one, or with one that the log does not know.
    fs::remove_file(&statement).unwrap();
    bad(&retired);
    assert!(matches!(try_small(&retired), Err(OpenError::Damaged(_))));
    for at in [0, 30, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&statement, changed).unwrap();
        assert!(bad(&retired).contains("statement"), "byte {at}");
        assert!(matches!(try_small(&retired), Err(OpenError::Damaged(_))));
    }
    fs::write(&statement, &bytes).unwrap();
    verify(&retired, None).unwrap();
    fs::write(summed.join("log").join("retired"), &bytes).unwrap();
    assert!(bad(&summed).contains("does not know"));
    // One day more than that.
    let more = segments_of(&retired, "accesses").remove(0);
    let kept = fs::read(&more).unwrap();
    fs::remove_file(&more).unwrap();
    bad(&retired);
    // A byte of an access, or of a fact of the retired days.
    for (file, whole) in [(more, kept), {
        let file = segments_of(&retired, "facts").remove(0);
        let whole = fs::read(&file).unwrap();
        (file, whole)
    }] {
        let mut changed = whole.clone();
        let at = changed.windows(3).position(|window| window == b"{\"n").unwrap();
        changed[at] ^= 4;
        fs::write(&file, &changed).unwrap();
        bad(&retired);
        fs::write(&file, &whole).unwrap();
    }
    verify(&retired, None).unwrap();
    // A fact of the retired days is missing, with its whole commit.
    let file = segments_of(&retired, "facts").remove(0);
    let whole = fs::read(&file).unwrap();
    let length = |at: usize| 12 + u32::from_le_bytes(whole[at + 4..at + 8].try_into().unwrap()) as usize;
    let second = 64 + length(64) + length(64 + length(64));
    let mut without = whole[..64].to_vec();
    without.extend_from_slice(&whole[second..]);
    fs::write(&file, without).unwrap();
    bad(&retired);
    drop(recorded);
}

#[tokio::test]
async fn the_segment_that_is_written_stays_and_facts_are_never_retired() {
    let dir = tempfile::tempdir().unwrap();
    let log = Segments::open(dir.path(), small(dir.path())).unwrap();
    assert_eq!(log.retirable(Day::new(i64::MAX / 2), None).unwrap(), None, "nothing is there");
    log.append(append(&accesses(1), Expected::Any, 1)).await.unwrap();
    assert_eq!(log.retirable(Day::new(30_000), None).unwrap(), None, "it is being written");
    five_days(&log).await;
    let retirement = log.retirable(Day::new(30_000), None).unwrap().unwrap();
    record(&log, &retirement).await;
    let facts_before = log.read_all(0, Families::only(Family::Facts), 1_000).await.unwrap();
    log.retire(&retirement).unwrap();
    assert_eq!(segments_of(dir.path(), "accesses").len(), 1);
    assert_eq!(log.read_all(0, Families::only(Family::Facts), 1_000).await.unwrap(), facts_before);
    log.close().await;
    verify(dir.path(), None).unwrap();
}

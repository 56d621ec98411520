//! The embedded engine when bytes of its files are wrong: noticed and named, or harmless; never a wrong event.

use std::{
    fs,
    path::{Path, PathBuf},
};

use domain::recorded::{Families, Recorded};
use hub::event_log::{
    EventLog, Expected,
    segments::{OpenError, Options, Segments},
    verify::{VerifyFailure, verify},
};

use crate::support::{
    accesses, any, append, copy_dir, eventually, facts, files_below, large, quick_dir, read_everything,
    segments_of, try_large, try_small, used,
};

/// A log of some commits, closed or as a kill leaves it.
async fn small_log(data: &Path, closed_to: Option<&Path>) -> Vec<Recorded> {
    let log = try_small(data).unwrap();
    log.append(append(&facts(1), Expected::Any, 2)).await.unwrap();
    log.append(any(&accesses(1))).await.unwrap();
    log.append(append(&facts(2), Expected::Any, 2)).await.unwrap();
    let events = read_everything(&log).await;
    match closed_to {
        Some(image) => copy_dir(data, image),
        None => log.close().await,
    }
    events
}

/// Flips one byte at a time, and judges what opens.
async fn flip_every_byte(image: &Path, events: &[Recorded]) {
    for file in files_below(image) {
        let name = file.strip_prefix(image).unwrap().to_owned();
        // The keyring has tests of its own.
        if name.starts_with("keyring") {
            continue;
        }
        let whole = fs::read(&file).unwrap();
        let meaningful = used(&file);
        let is_segment = file.extension().is_some_and(|extension| extension == "seg");
        for at in 0..whole.len() {
            // Beyond what is used a few places are as good as all of them.
            if at > meaningful + 16 && at % 251 != 0 {
                continue;
            }
            let mut changed = whole.clone();
            changed[at] ^= if at % 2 == 0 { 0x01 } else { 0x80 };
            fs::write(&file, &changed).unwrap();
            let verified = verify(image, None);
            if is_segment && at < meaningful {
                let Err(VerifyFailure::Bad(damage)) = &verified else {
                    panic!("{name:?} {at}: {verified:?}")
                };
                assert_eq!(damage.file, file, "byte {at}");
                assert!(
                    damage.offset <= at as u64 && at as u64 - damage.offset < 1000,
                    "byte {at}: {damage}"
                );
            }
            let copy = image.with_extension("copy");
            copy_dir(image, &copy);
            if is_segment && at < meaningful {
                let refused = try_small(&copy).map(drop).unwrap_err();
                let OpenError::Damaged(damage) = &refused else { panic!("{name:?} {at}: {refused}") };
                let there = file.strip_prefix(image).unwrap();
                assert_eq!(damage.file.strip_prefix(&copy).unwrap(), there, "byte {at}");
            }
            // A start from a checkpoint may not see it: then nobody reads a wrong event.
            if let Ok(log) = try_large(&copy) {
                let read = log.read_all(0, domain::recorded::Families::ALL, 100).await;
                assert!(
                    read.as_ref().is_ok_and(|read| read == events) || (read.is_err() && verified.is_err()),
                    "{name:?} byte {at}: {read:?}"
                );
                for event in events {
                    let read = log.read_stream(&event.stream, event.revision, 1).await;
                    assert!(read.is_err() || read.unwrap() == [event.clone()], "{name:?} byte {at}");
                }
            }
            fs::remove_dir_all(&copy).unwrap();
        }
        fs::write(&file, &whole).unwrap();
    }
}

#[tokio::test]
async fn a_flip_of_any_byte_of_a_closed_log_is_noticed_or_harmless() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    let events = small_log(&data, None).await;
    flip_every_byte(&data, &events).await;
}

#[tokio::test]
async fn a_flip_of_any_byte_of_a_killed_log_is_noticed_or_harmless() {
    let dir = quick_dir();
    let image = dir.path().join("image");
    let events = small_log(&dir.path().join("data"), Some(&image)).await;
    flip_every_byte(&image, &events).await;
}

#[tokio::test]
async fn a_commit_that_misses_a_sector_was_torn_and_is_dropped_only_if_it_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let (data, image) = (dir.path().join("data"), dir.path().join("image"));
    let log = crate::support::open(&data);
    log.append(any(&facts(1))).await.unwrap();
    let segment = |data: &Path| segments_of(data, "facts").remove(0);
    let before = used(&segment(&data));
    log.append(append(&facts(1), Expected::Any, 20)).await.unwrap();
    copy_dir(&data, &image);
    let end = used(&segment(&image));
    let whole = fs::read(segment(&image)).unwrap();
    let first = before.next_multiple_of(512);
    for sector in (first..end - 512).step_by(512) {
        let mut torn = whole.clone();
        torn[sector..sector + 512].fill(0);
        fs::write(segment(&image), &torn).unwrap();
        // The seals may say that it was acknowledged: then it is no tear.
        drop(fs::remove_dir_all(image.join("log").join("seals")));
        assert_eq!(verify(&image, None).unwrap().position, 1, "sector at {sector}");
        let copy = dir.path().join("copy");
        copy_dir(&image, &copy);
        let reopened = crate::support::open(&copy);
        assert_eq!(*reopened.head().borrow(), 1);
        reopened.append(any(&facts(1))).await.unwrap();
        reopened.close().await;
        assert_eq!(verify(&copy, None).unwrap().position, 2);
        fs::remove_dir_all(&copy).unwrap();
    }
    // Once another commit stands after it, it was acknowledged.
    log.append(any(&accesses(1))).await.unwrap();
    fs::remove_dir_all(&image).unwrap();
    copy_dir(&data, &image);
    let mut torn = whole;
    torn[first..first + 512].fill(0);
    fs::write(segment(&image), &torn).unwrap();
    refused_at(&image, &segment(&image));
}

/// Opening and verifying name this file, and nothing was changed.
fn refused_at(data: &Path, file: &PathBuf) {
    let before: Vec<_> = files_below(&data.join("log")).iter().map(|path| fs::read(path).unwrap()).collect();
    match try_small(data) {
        Err(OpenError::Damaged(damage)) => assert_eq!(&damage.file, file, "{damage}"),
        other => panic!("{other:?}"),
    }
    match verify(data, None) {
        Err(VerifyFailure::Bad(damage)) => assert_eq!(&damage.file, file, "{damage}"),
        other => panic!("{other:?}"),
    }
    let after: Vec<_> = files_below(&data.join("log")).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(before, after, "a refused log is left as it is");
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_and_the_event_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let log = try_small(&data).unwrap();
    for n in 0..100 {
        log.append(any(&facts(n % 7))).await.unwrap();
    }
    let events = read_everything(&log).await;
    log.close().await;
    fs::remove_dir_all(data.join("state")).unwrap();
    let segments = segments_of(&data, "facts");
    assert!(segments.len() > 3);

    // A byte in the payload of a known event.
    let whole = fs::read(&segments[1]).unwrap();
    let victim = events
        .iter()
        .find(|event| segments[1].to_str().unwrap().contains(&format!("{:020}", event.position)));
    let victim = victim.unwrap();
    let mut changed = whole.clone();
    let at = changed.windows(16).position(|window| window == victim.id.uuid().as_bytes()).unwrap();
    let at = at + changed[at..].windows(3).position(|window| window == b"{\"n").unwrap();
    changed[at] ^= 4;
    fs::write(&segments[1], &changed).unwrap();
    refused_at(&data, &segments[1]);
    let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else { panic!("verified") };
    assert_eq!((damage.position, damage.event), (Some(victim.position), Some(victim.id)));
    assert_eq!(damage.stream.as_deref(), Some(victim.stream.as_str()));
    assert!(damage.offset <= at as u64);
    fs::write(&segments[1], &whole).unwrap();
    verify(&data, None).unwrap();

    // A whole segment is gone.
    fs::remove_file(&segments[1]).unwrap();
    refused_at(&data, &segments[2]);
    // The last one is gone: no chain is broken, but a seal is not reached.
    fs::write(&segments[1], &whole).unwrap();
    fs::remove_file(segments.last().unwrap()).unwrap();
    refused_at(&data, &segments[segments.len() - 2]);
}

/// A closed log of several segments, with a checkpoint; its events and the segments of its facts.
async fn log_of_many_segments(data: &Path) -> (Vec<Recorded>, Vec<PathBuf>) {
    let log = try_small(data).unwrap();
    for n in 0..100 {
        log.append(any(&facts(n % 7))).await.unwrap();
    }
    let events = read_everything(&log).await;
    log.close().await;
    let segments = segments_of(data, "facts");
    assert!(segments.len() > 3);
    (events, segments)
}

/// Changes one byte of an event in this segment; answers the event.
fn damage_in<'a>(segment: &Path, events: &'a [Recorded]) -> &'a Recorded {
    let mut bytes = fs::read(segment).unwrap();
    let first = segment.file_name().unwrap().to_str().unwrap()[..20].parse::<u64>().unwrap();
    let victim = events.iter().find(|event| event.position == first + 1).unwrap();
    let at = bytes.windows(16).position(|window| window == victim.id.uuid().as_bytes()).unwrap();
    let at = at + bytes[at..].windows(3).position(|window| window == b"{\"n").unwrap();
    bytes[at] ^= 4;
    fs::write(segment, bytes).unwrap();
    victim
}

#[tokio::test]
async fn damage_in_an_old_segment_is_refused_although_a_checkpoint_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (events, segments) = log_of_many_segments(dir.path()).await;
    assert!(dir.path().join("state").join("index").is_file());
    let victim = damage_in(&segments[1], &events);
    let Err(OpenError::Damaged(damage)) = try_small(dir.path()) else { panic!("opened") };
    assert_eq!((&damage.file, damage.event), (&segments[1], Some(victim.id)));
    refused_at(dir.path(), &segments[1]);
}

#[tokio::test]
async fn damage_that_a_start_did_not_read_is_found_in_the_background_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (events, segments) = log_of_many_segments(dir.path()).await;
    let victim = damage_in(&segments[1], &events);
    let log = try_large(dir.path()).unwrap();
    assert!(log.opened().from_checkpoint);
    eventually("the damage is reported", || log.intact().is_err()).await;
    let said = log.intact().unwrap_err();
    for part in [segments[1].to_str().unwrap(), "byte", &victim.id.to_string()] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(log.read_all(0, Families::ALL, 2).await.unwrap(), events[..2]);
    log.append(any(&facts(1))).await.unwrap();
    assert_eq!(log.writable(), Ok(()));
    log.close().await;
}

#[tokio::test]
async fn a_reader_that_meets_damage_makes_it_known() {
    let dir = tempfile::tempdir().unwrap();
    let (events, segments) = log_of_many_segments(dir.path()).await;
    let victim = damage_in(&segments[2], &events);
    // The check in the background has not come that far.
    let slow = Options { scrub_bytes_per_s: 1, ..large(dir.path()) };
    let log = Segments::open(dir.path(), slow).unwrap();
    assert_eq!(log.intact(), Ok(()));
    log.read_stream(&victim.stream, victim.revision, 1).await.unwrap_err();
    assert!(log.intact().unwrap_err().contains(segments[2].to_str().unwrap()));
    // Nor does anybody wait for it.
    log.close().await;
}

#[tokio::test]
async fn the_check_in_the_background_reads_all_that_a_start_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let (events, segments) = log_of_many_segments(dir.path()).await;
    let log = try_large(dir.path()).unwrap();
    let stats = log.stats();
    let committed: usize = segments.iter().map(|segment| used(segment) - 64).sum();
    let read = || stats.scrubbed_bytes.load(std::sync::atomic::Ordering::Relaxed);
    // While it is at work the log goes on, in the very segment where it will end.
    for _ in 0..20 {
        log.append(any(&facts(1))).await.unwrap();
    }
    eventually("everything is read", || read() == committed as u64).await;
    assert_eq!(log.intact(), Ok(()));
    assert_eq!(read_everything(&log).await[..100], events);
    log.close().await;
    assert_eq!(read(), committed as u64);
    verify(dir.path(), None).unwrap();
}

#[tokio::test]
async fn a_segment_of_another_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (dir.path().join("data"), dir.path().join("other"));
    for path in [&data, &other] {
        small_log(path, None).await;
        fs::remove_dir_all(path.join("state")).unwrap();
    }
    let segment = segments_of(&data, "facts").remove(0);
    fs::copy(segments_of(&other, "facts").remove(0), &segment).unwrap();
    refused_at(&data, &segment);
}

#[tokio::test]
async fn seals_of_another_key_or_another_history_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_log(&data, None).await;
    let keyring = data.join("keyring");
    let kept = fs::read(&keyring).unwrap();
    fs::remove_file(&keyring).unwrap();
    drop(hub::keyring::Keyring::open(&keyring).unwrap());
    let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else { panic!("verified") };
    assert!(damage.reason.contains("key"), "{damage}");
    fs::write(&keyring, kept).unwrap();
    verify(&data, None).unwrap();
}

#[tokio::test]
async fn a_log_without_its_identity_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    small_log(&data, None).await;
    fs::remove_file(data.join("log").join("identity")).unwrap();
    assert!(matches!(try_small(&data), Err(OpenError::NoIdentity(_))));
    assert!(matches!(verify(&data, None), Err(VerifyFailure::CannotJudge(_))));
}

/// A closed log with so many seals, one for each time that it was open.
async fn log_with_seals(data: &Path, count: usize) -> PathBuf {
    for _ in 0..count {
        let log = try_small(data).unwrap();
        log.append(any(&facts(1))).await.unwrap();
        log.close().await;
    }
    let mut files = files_below(&data.join("log").join("seals"));
    assert_eq!(files.len(), 1, "all of one day");
    files.remove(0)
}

const SEAL_BYTES: usize = 172;

#[tokio::test]
async fn a_seal_that_misses_a_sector_said_nothing_and_is_in_nobodys_way() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    let file = log_with_seals(&data, 10).await;
    let whole = fs::read(&file).unwrap();
    assert_eq!(whole.len(), 10 * SEAL_BYTES);
    let mut torn = 0;
    // Of every seal that lies in two sectors, either may be missing when it was the last one.
    for number in 0..10 {
        let (start, end) = (number * SEAL_BYTES, (number + 1) * SEAL_BYTES);
        let border = end / 512 * 512;
        if border <= start || border == end {
            continue;
        }
        for missing in [start..border, border..end] {
            let mut bytes = whole[..end].to_vec();
            bytes[missing].fill(0);
            fs::write(&file, &bytes).unwrap();
            let report = verify(&data, None).unwrap();
            assert_eq!((report.seals, report.position), (number as u64, 10), "seal {number}");
            // The next start goes on over it, for good.
            let copy = dir.path().join("copy");
            copy_dir(&data, &copy);
            let log = try_small(&copy).unwrap();
            log.append(any(&facts(1))).await.unwrap();
            log.close().await;
            assert_eq!(verify(&copy, None).unwrap().seals, number as u64 + 1, "seal {number}");
            fs::remove_dir_all(&copy).unwrap();
            torn += 1;
        }
    }
    assert!(torn >= 6, "{torn}");
}

#[tokio::test]
async fn a_seal_with_a_changed_byte_was_not_torn() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    let file = log_with_seals(&data, 4).await;
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&file, &bytes).unwrap();
        let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else {
            panic!("byte {at} was not noticed")
        };
        assert_eq!(
            (&damage.file, damage.offset),
            (&file, (at / SEAL_BYTES * SEAL_BYTES) as u64),
            "byte {at}"
        );
    }
    // A sector that is missing in the middle was there once: what stands behind it was written later.
    let mut bytes = whole;
    bytes[SEAL_BYTES * 2..512].fill(0);
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(verify(&data, None), Err(VerifyFailure::Bad(_))));
}

/// Where the frames of a segment's events begin and end, its header left out; commits are one event and a mark.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut at, mut found) = (64, Vec::new());
    while bytes.get(at..at + 3) == Some(b"pcE") || bytes.get(at..at + 3) == Some(b"pcM") {
        let length = 12 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        found.push(at..at + length);
        at += length;
    }
    found
}

#[tokio::test]
async fn an_event_that_was_removed_or_swapped_is_named() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    let log = crate::support::open(&data);
    for n in 0..6 {
        log.append(any(&facts(n))).await.unwrap();
    }
    let events = read_everything(&*log).await;
    log.close().await;
    let segment = segments_of(&data, "facts").remove(0);
    let whole = fs::read(&segment).unwrap();
    let frames = frames(&whole);
    assert_eq!(frames.len(), 12, "an event and a mark for each");
    let pieces = |order: &[usize]| {
        let mut bytes = whole[..64].to_vec();
        order.iter().for_each(|n| bytes.extend_from_slice(&whole[frames[*n].clone()]));
        bytes.resize(whole.len(), 0);
        bytes
    };
    assert_eq!(pieces(&(0..12).collect::<Vec<_>>()), whole);
    let all: Vec<usize> = (0..12).collect();
    for (victim, event) in events.iter().enumerate().take(5) {
        // The event alone, or its whole commit.
        let event_only: Vec<usize> = all.iter().copied().filter(|n| *n != 2 * victim).collect();
        let commit: Vec<usize> = all.iter().copied().filter(|n| n / 2 != victim).collect();
        // Two events change places, or their commits do.
        let (mut events_swapped, mut commits_swapped) = (all.clone(), all.clone());
        events_swapped.swap(2 * victim, 2 * victim + 2);
        commits_swapped.swap(2 * victim, 2 * victim + 2);
        commits_swapped.swap(2 * victim + 1, 2 * victim + 3);
        for order in [event_only, commit, events_swapped, commits_swapped] {
            fs::write(&segment, pieces(&order)).unwrap();
            let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else { panic!("{order:?} verified") };
            assert_eq!(damage.position, Some(event.position), "{order:?}: {damage}");
            assert_eq!(damage.file, segment);
        }
    }
    // The last one is missing: nothing but the seal knows.
    fs::write(&segment, pieces(&all[..10])).unwrap();
    let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else { panic!("verified") };
    assert_eq!(damage.position, Some(6), "{damage}");
    assert!(damage.reason.contains("ends at position 5"), "{damage}");
}

#[tokio::test]
async fn a_tail_cut_below_what_a_witness_remembers_is_noticed() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    let log = try_small(&data).unwrap();
    log.append(any(&facts(1))).await.unwrap();
    log.close().await;
    let early = verify(&data, None).unwrap().head;
    let log = try_small(&data).unwrap();
    log.append(any(&facts(2))).await.unwrap();
    log.close().await;
    let witness = verify(&data, None).unwrap().head;
    assert_eq!(verify(&data, Some(&early)).unwrap().expected_head_at, Some(1));
    assert_eq!(verify(&data, Some(&witness)).unwrap().expected_head_at, Some(2));
    // Somebody cuts the last event off, and the seals that know of it.
    let segment = segments_of(&data, "facts").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let last = frames(&bytes).remove(2).start;
    bytes[last..].fill(0);
    fs::write(&segment, bytes).unwrap();
    let seals = files_below(&data.join("log").join("seals")).remove(0);
    let kept = fs::read(&seals).unwrap()[..SEAL_BYTES].to_vec();
    fs::write(&seals, kept).unwrap();
    assert_eq!(verify(&data, None).unwrap().position, 1, "nothing within can know");
    let Err(VerifyFailure::OtherHead { expected, position, .. }) = verify(&data, Some(&witness)) else {
        panic!("the witness was not heard")
    };
    assert_eq!((expected, position), (witness, 1));
}

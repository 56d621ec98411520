//! Whatever byte of a log is changed, `verify` names the very event that it belongs to.

use std::{collections::BTreeMap, fs, ops::Range, path::Path};

use hub::event_log::{
    EventLog, Expected,
    verify::{VerifyFailure, verify},
};

use crate::support::{
    accesses, any, append, facts, quick_dir, read_everything, segments_of, try_small, used,
};

const HEADER: usize = 64;

/// What stands where in a segment, and the position that is to be named when a byte of it is wrong: an event's own, of a
/// mark its commit's first, of the header the segment's first.
fn places(bytes: &[u8], first: u64) -> Vec<(Range<usize>, u64)> {
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (mut at, mut found) = (HEADER, vec![(0..HEADER, first)]);
    while let Some(magic) = bytes.get(at..at + 4).filter(|magic| magic.starts_with(b"pc")) {
        let length = 12 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let position = if magic == b"pcE1" { long(at + 12) } else { long(at + 12 + 8) };
        found.push((at..at + length, position));
        at += length;
    }
    found
}

/// A log whose commits have events of one and of several families.
async fn log_of_every_kind(data: &Path) {
    let log = try_small(data).unwrap();
    for round in 0..3 {
        log.append(append(&facts(round), Expected::Any, 2)).await.unwrap();
        // Appends that wait together share a commit.
        let (one, two, three, four) = tokio::join!(
            log.append(append(&facts(10 + round), Expected::Any, 2)),
            log.append(any(&accesses(round))),
            log.append(append(&facts(20 + round), Expected::Any, 1)),
            log.append(append(&accesses(30 + round), Expected::Any, 2)),
        );
        for appended in [one, two, three, four] {
            appended.unwrap();
        }
    }
    assert_eq!(read_everything(&log).await.len(), 24);
    log.close().await;
}

#[tokio::test]
async fn verify_names_the_event_that_any_changed_byte_belongs_to() {
    let dir = quick_dir();
    let data = dir.path().join("data");
    log_of_every_kind(&data).await;
    verify(&data, None).unwrap();
    let mut named: BTreeMap<u64, usize> = BTreeMap::new();
    for family in ["facts", "accesses"] {
        for segment in segments_of(&data, family) {
            let whole = fs::read(&segment).unwrap();
            let first = segment.file_name().unwrap().to_str().unwrap()[..20].parse().unwrap();
            let places = places(&whole, first);
            assert_eq!(places.last().unwrap().0.end, used(&segment), "every byte belongs to something");
            for (range, position) in places {
                for at in range {
                    // One bit, each in its turn, and all of them.
                    for mask in [1 << (at % 8), 0xff] {
                        let mut changed = whole.clone();
                        changed[at] ^= mask;
                        fs::write(&segment, &changed).unwrap();
                        let Err(VerifyFailure::Bad(damage)) = verify(&data, None) else {
                            panic!("{family} byte {at} ^ {mask:#x} was not noticed")
                        };
                        assert_eq!(
                            (&damage.file, damage.position),
                            (&segment, Some(position)),
                            "{family} byte {at} ^ {mask:#x}: {damage}"
                        );
                        *named.entry(position).or_default() += 1;
                    }
                }
            }
            fs::write(&segment, &whole).unwrap();
        }
    }
    assert_eq!(named.len(), 24, "every event was the first bad one at some time");
    verify(&data, None).unwrap();
}

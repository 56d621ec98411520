//! Opens the segments: walks them, drops what was never acknowledged, or refuses.
//!
//! A log of at most so many bytes is read whole, checkpoint or not: damage anywhere in it is refused. Of a larger one
//! only the tail after the checkpoint is; the scrub reads the rest while the log is in use.

use std::{fs, os::unix::fs::FileExt, path::Path, sync::Arc};

use domain::recorded::Family;

use super::{
    OpenError,
    chain::Chains,
    checkpoint::{self, Loaded},
    disk::{AtPath, PathError, sync_dir},
    files::{SEGMENT_HEADER_BYTES, Segment, family_dir, list_segments, spare_path},
    index::{Beginning, Index, Location},
    published::{Durable, End},
    retired::{self, Retired},
    scan::{AllSegments, Cut, Damage, Extent, Found, Resume, Step, Walk, stream_of},
    scrub::Unread,
};

/// The log as it was found, ready to be written on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) durable: Durable,
    pub(crate) index: Index,
    /// What a checkpoint spared this start to read.
    pub(crate) unread: Option<Unread>,
    /// Events that had to be read.
    pub(crate) events_read: u64,
}

/// Recovers the log in a locked data directory. `sealed` is the highest position that a seal acknowledges; with more
/// than `read_whole_bytes_max` bytes of segments a checkpoint is used if there is one that fits.
pub(crate) fn recover(
    data: &Path,
    log_id: uuid::Uuid,
    sealed: u64,
    read_whole_bytes_max: u64,
) -> Result<Recovered, OpenError> {
    for family in Family::ALL {
        let spare = spare_path(data, family);
        if spare.exists() {
            fs::remove_file(&spare).at(&spare)?;
        }
    }
    let retired = retired::read(data, log_id)?.map(|(retired, _)| retired);
    let retired = retired.as_ref();
    finish_retirement(data, retired)?;
    let segments = all_segments(data, retired)?;
    let loaded =
        (bytes_of(&segments)? > read_whole_bytes_max).then(|| checkpoint::load(data, log_id, &segments));
    // A checkpoint that does not fit what follows it, or saw more than there is, is not of this log.
    let resumed = loaded.flatten().and_then(|loaded| {
        let reaches = loaded.reaches;
        let unread = Unread::before(&loaded.durable);
        let resumed = read_on(log_id, sealed, &segments, retired, loaded, Some(unread));
        resumed.ok().filter(|(recovered, _)| recovered.durable.position >= reaches)
    });
    let (mut recovered, cuts) = match resumed {
        Some(resumed) => resumed,
        None => {
            let durable = Durable { chains: Chains::after(retired), ..Durable::default() };
            let nothing = Loaded { durable, index: Index::default(), reaches: 0 };
            read_on(log_id, sealed, &segments, retired, nothing, None)?
        }
    };
    apply_cuts(data, &mut recovered, &segments, &cuts)?;
    Ok(recovered)
}

/// The segments of all families as they lie there, but for those that were retired and are not removed yet.
pub(crate) fn all_segments(data: &Path, retired: Option<&Retired>) -> Result<AllSegments, PathError> {
    let of = |family| {
        let kept = |segment: &Segment| !retired::covers(retired, family, segment.first_position);
        let listed = list_segments(data, family)?.into_iter().filter(kept);
        Ok(listed.map(Arc::new).collect::<Vec<_>>())
    };
    Ok([of(Family::Facts)?, of(Family::Accesses)?, of(Family::Deliveries)?])
}

/// Removes what was retired when the process ended.
fn finish_retirement(data: &Path, retired: Option<&Retired>) -> Result<(), PathError> {
    for segment in list_segments(data, Family::Accesses)? {
        if retired::covers(retired, Family::Accesses, segment.first_position) {
            fs::remove_file(&segment.path).at(&segment.path)?;
        }
    }
    Ok(())
}

fn bytes_of(segments: &AllSegments) -> Result<u64, PathError> {
    let length =
        |segment: &Arc<Segment>| fs::metadata(&segment.path).at(&segment.path).map(|file| file.len());
    segments.iter().flatten().map(length).sum()
}

fn read_on(
    log_id: uuid::Uuid,
    sealed: u64,
    segments: &AllSegments,
    retired: Option<&Retired>,
    Loaded { mut durable, index, .. }: Loaded,
    unread: Option<Unread>,
) -> Result<(Recovered, Vec<Cut>), Damage> {
    for family in Family::ALL {
        index.family(family).write().segments = segments[family as usize].clone();
    }
    let from = durable.ends.map(|end| end.map(|end| end.at));
    let boundary = retired.map(|it| it.boundary).unwrap_or_default();
    let start = (durable.commit, durable.position, from);
    let mut walk = Walk::new(segments, log_id, Extent::File, start, boundary)?;
    let mut events_read = 0;
    let cuts = loop {
        let mut take = |found: Found<'_>| {
            events_read += 1;
            take_event(found, &mut durable, &index, retired).map_err(|reason| found.damage(segments, reason))
        };
        match walk.step(sealed, &mut take)? {
            Step::End(cuts) => break cuts,
            Step::Commit => {
                for (family, segment, _, end) in &walk.last_parts {
                    segments[*family as usize][*segment].publish_end(*end);
                    let last = index.family(*family).read().last;
                    durable.ends[*family as usize] =
                        Some(End { at: Resume { segment: *segment, offset: *end }, last });
                }
            }
        }
    };
    (durable.commit, durable.position) = (walk.commit, walk.position);
    // If the sync of the last commit failed, the system may show bytes that never reached the disk. Nobody may read them
    // before they have: write them again.
    for (family, segment, start, end) in &walk.last_parts {
        rewrite(&segments[*family as usize][*segment], *start, *end).map_err(|error| Damage {
            file: error.path,
            offset: *start,
            position: Some(walk.position),
            stream: None,
            event: None,
            reason: format!("the last commit could not be made durable: {}", error.source),
            unreadable: true,
        })?;
    }
    Ok((Recovered { durable, index, unread, events_read }, cuts))
}

fn take_event(
    found: Found<'_>,
    durable: &mut Durable,
    index: &Index,
    retired: Option<&Retired>,
) -> Result<(), &'static str> {
    let event = found.event;
    let beginning = match retired {
        Some(_) if found.family == Family::Accesses => Beginning::MayBeRetired,
        Some(_) | None => Beginning::IsThere,
    };
    durable.chains.follow(found.family, event)?;
    let location = Location::new(found.segment, found.offset);
    index.found(stream_of(found)?, event.revision(), location, event.id(), beginning)?;
    index.family(found.family).write().note(event.position(), location);
    Ok(())
}

fn rewrite(segment: &Segment, start: u64, end: u64) -> Result<(), PathError> {
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment.path).at(&segment.path)?;
    let mut bytes = vec![0; usize::try_from(end - start).expect("a commit fits into memory")];
    file.read_exact_at(&mut bytes, start)
        .and_then(|()| file.write_all_at(&bytes, start))
        .and_then(|()| file.sync_data())
        .at(&segment.path)
}

/// Cuts off what was never acknowledged, and removes segments that hold nothing. Done twice or half, it comes to the
/// same: the next start finds the rest of the unfinished commit and drops that.
fn apply_cuts(
    data: &Path,
    recovered: &mut Recovered,
    segments: &AllSegments,
    cuts: &[Cut],
) -> Result<(), PathError> {
    for cut in cuts {
        let segment = &segments[cut.family as usize][cut.segment];
        tracing::warn!(file = %segment.path.display(), offset = cut.offset, "an unacknowledged commit is dropped");
        let file = fs::OpenOptions::new().write(true).open(&segment.path).at(&segment.path)?;
        file.set_len(cut.offset).and_then(|()| file.sync_all()).at(&segment.path)?;
    }
    for family in Family::ALL {
        let mut index = recovered.index.family(family).write();
        let holds = recovered.durable.ends[family as usize].map_or(0, |end| end.at.segment + 1);
        for empty in index.segments.drain(holds..) {
            debug_assert!(empty.end() <= SEGMENT_HEADER_BYTES, "nothing was committed there");
            fs::remove_file(&empty.path).at(&empty.path)?;
        }
        drop(index);
        sync_dir(&family_dir(data, family))?;
    }
    Ok(())
}

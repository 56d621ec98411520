//! Walks the segments of all families commit by commit, and judges how they end.
//!
//! Everybody who must believe the log reads it here: recovery and `verify`. A commit counts when every family that
//! its marks name holds its whole part. The writer begins a commit when the one before it is durable, so at most the
//! last one can be unfinished, and it was never acknowledged. What is left of it may be dropped if
//! - it lies in the last segment of its family, nothing of a later commit stands anywhere,
//! - no seal reaches it, and
//! - it *looks torn*: its end is missing, or a whole disk sector of it is still as the filler left it, zero.
//!
//! A commit with all its bytes there and a wrong one among them was not torn but damaged: that is refused.

use std::path::PathBuf;

use domain::recorded::Family;

use super::{
    super::frame::{self, MARK_MAGIC, Mark, Parsed, TRAILER, is_zero},
    super::retired::Boundary,
    Ahead, AllSegments, Damage, Extent, Found, Part, Resume, Scan,
};

/// The smallest piece that a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// A part that may be dropped: the family's last segment is to end at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) family: Family,
    pub(crate) segment: usize,
    pub(crate) offset: u64,
}

/// What is behind a walk when it begins: a commit, the position of its last event, and where each family goes on.
pub(crate) type Start = (u64, u64, [Option<Resume>; 3]);

/// Nothing is.
pub(crate) const FROM_THE_START: Start = (0, 0, [None; 3]);

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole commit was visited.
    Commit,
    /// There are no more; these remains of an unacknowledged one may be dropped.
    End(Vec<Cut>),
}

/// A walk through all families, in the order of positions.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    scans: [Scan<'a>; 3],
    /// The last whole commit.
    pub(crate) commit: u64,
    /// The position of the last event of it.
    pub(crate) position: u64,
    /// Where the parts of the last whole commit lie: (family, segment, start, end).
    pub(crate) last_parts: Vec<(Family, usize, u64, u64)>,
    /// Accesses up to here may be missing.
    retired: Boundary,
}

impl<'a> Walk<'a> {
    /// Walks on after `commit`, whose last event has `position`; from the start with [`FROM_THE_START`].
    ///
    /// # Errors
    /// [`Damage`] that the first look shows.
    pub(crate) fn new(
        segments: &'a AllSegments,
        log_id: uuid::Uuid,
        extent: Extent,
        (commit, position, from): Start,
        retired: Boundary,
    ) -> Result<Self, Damage> {
        let scan = |family: Family| -> Result<Scan<'a>, Damage> {
            let mut scan = Scan::new(family, &segments[family as usize], log_id, extent);
            scan.start(from[family as usize])?;
            Ok(scan)
        };
        let scans = [scan(Family::Facts)?, scan(Family::Accesses)?, scan(Family::Deliveries)?];
        Ok(Self { scans, commit, position, last_parts: Vec::new(), retired })
    }

    /// Visits the events of the next commit in order. `sealed` is the highest position that a seal acknowledges.
    ///
    /// # Errors
    /// [`Damage`]: the walk found it, or `visit` did.
    pub(crate) fn step(
        &mut self,
        sealed: u64,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), Damage>,
    ) -> Result<Step, Damage> {
        self.pass_retired()?;
        // No commit at or below the boundary was unacknowledged.
        let sealed = sealed.max(self.retired.position);
        let expected = self.commit + 1;
        let Some(mark) = self.scans.iter().find_map(|scan| scan.part_of(expected).map(|part| part.mark))
        else {
            return self.ending(sealed);
        };
        let events: u64 = mark.counts.iter().map(|count| u64::from(*count)).sum();
        let mut whole = true;
        for scan in &self.scans {
            match (scan.part_of(expected), mark.counts[scan.family as usize]) {
                (Some(_), _) if mark.first != self.position + 1 || mark.last + 1 != mark.first + events => {
                    return Err(scan.part_damage("its commit mark does not continue the positions"));
                }
                (Some(part), _) if !part.mark.same_commit(&mark) => {
                    return Err(scan.part_damage("the marks of one commit contradict each other"));
                }
                (None, count) if count > 0 && !self.is_retired(scan.family, expected) => whole = false,
                _ => {}
            }
        }
        if !whole {
            return self.ending(sealed);
        }
        self.visit_commit(mark, visit)?;
        self.commit = expected;
        self.position = mark.last;
        self.last_parts.clear();
        for scan in &mut self.scans {
            if let Some(part) = scan.part_of(expected) {
                self.last_parts.push((scan.family, part.segment, part.start, part.end));
                scan.advance()?;
            }
        }
        Ok(Step::Commit)
    }

    fn is_retired(&self, family: Family, commit: u64) -> bool {
        family == Family::Accesses && commit <= self.retired.commit
    }

    /// Goes on to the next commit of which anything is left, past those that had accesses only and were retired. Whether
    /// a fact is missing among them its chain shows.
    fn pass_retired(&mut self) -> Result<(), Damage> {
        let expected = self.commit + 1;
        let is_there = self.scans.iter().any(|scan| scan.part_of(expected).is_some());
        let is_stopped = self.scans.iter().any(|scan| matches!(scan.ahead, Ahead::Stopped(_)));
        if expected > self.retired.commit || is_there || is_stopped {
            return Ok(());
        }
        let next = self.scans.iter().filter_map(Scan::part).min_by_key(|part| part.mark.commit);
        let (commit, position) = match next.map(|part| part.mark) {
            Some(mark) if mark.commit <= self.retired.commit => (mark.commit - 1, mark.first - 1),
            Some(_) | None => (self.retired.commit, self.retired.position),
        };
        if commit < self.commit || position < self.position {
            let scan = self.scans.iter().find(|scan| scan.part().is_some());
            return Err(match scan {
                Some(scan) => scan.part_damage("its commit stands where an earlier one should"),
                None => self.ends_early(self.retired.position),
            });
        }
        (self.commit, self.position) = (commit, position);
        Ok(())
    }

    fn visit_commit(
        &self,
        mark: Mark,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let mut next = [0; 3];
        let is_gone = |scan: &Scan<'_>| {
            scan.part_of(mark.commit).is_none() && self.is_retired(scan.family, mark.commit)
        };
        let gone =
            self.scans.iter().filter(|scan| is_gone(scan)).map(|scan| mark.counts[scan.family as usize]);
        let mut gone: u32 = gone.sum();
        for position in mark.first..=mark.last {
            let found = self.scans.iter().find_map(|scan| {
                scan.part_of(mark.commit)?;
                let (offset, event) = scan.event(next[scan.family as usize])?;
                (event.position() == position).then_some((scan, offset, event))
            });
            if found.is_none() && gone > 0 {
                gone -= 1;
                continue;
            }
            let Some((scan, offset, event)) = found else {
                let scan = self.scans.iter().find(|scan| scan.part().is_some()).expect("a commit has a part");
                return Err(Damage {
                    position: Some(position),
                    ..scan.part_damage("an event of this commit is missing or stands in another order")
                });
            };
            if next[scan.family as usize] == 0 {
                scan.check_name(offset, event)?;
            }
            next[scan.family as usize] += 1;
            let segment = scan.part().expect("its event was found").segment;
            visit(Found { family: scan.family, segment, offset, event })?;
        }
        Ok(())
    }

    /// Another commit stands here while `expected` does not stand anywhere, or not whole.
    fn hole(&self, scan: &Scan<'_>, part: &Part, expected: u64, elsewhere: &[u64]) -> Damage {
        let expected_position = self.position + 1;
        let stopped = self.scans.iter().find_map(|scan| scan.stop_damage(expected_position, elsewhere));
        stopped.unwrap_or_else(|| Damage {
            position: Some(expected_position),
            ..scan.part_damage(&format!(
                "commit {} stands here, but commit {expected} is missing or not whole",
                part.mark.commit
            ))
        })
    }

    /// Judges what stands after the last whole commit.
    fn ending(&mut self, sealed: u64) -> Result<Step, Damage> {
        let unfinished = self.commit + 1;
        let mut cuts = Vec::new();
        // Before they are passed: what is whole of this commit says which place is left for what is not.
        let elsewhere: Vec<u64> = self.scans.iter().flat_map(|scan| scan.positions_in(unfinished)).collect();
        for scan in &mut self.scans {
            if let Some(part) = scan.part_of(unfinished) {
                cuts.push(Cut { family: scan.family, segment: part.segment, offset: part.start });
                scan.advance()?;
            }
        }
        for scan in &self.scans {
            if let Some(part) = scan.part() {
                return Err(self.hole(scan, part, unfinished, &elsewhere));
            }
            let Ahead::Stopped(stop) = &scan.ahead else { continue };
            let remains = scan.from(stop.start);
            let last = stop.segment + 1 == scan.segments.len();
            if !last || holds_later_commit(remains, unfinished) || !looks_torn(remains, stop.start) {
                let damage = scan.stop_damage(self.position + 1, &elsewhere);
                return Err(damage.expect("this scan has stopped"));
            }
            if cuts.iter().all(|cut: &Cut| cut.family != scan.family) {
                cuts.push(Cut { family: scan.family, segment: stop.segment, offset: stop.start });
            }
        }
        if sealed > self.position {
            return Err(self.ends_early(sealed));
        }
        Ok(Step::End(cuts))
    }

    fn ends_early(&self, sealed: u64) -> Damage {
        let reason = format!(
            "the log ends at position {}, but a seal or a checkpoint covers position {sealed}",
            self.position
        );
        let stopped = self.scans.iter().find_map(|scan| scan.stop_damage(self.position + 1, &[]));
        let at = stopped.or_else(|| {
            let scan = self
                .scans
                .iter()
                .rev()
                .max_by_key(|scan| scan.segments.last().map(|last| last.first_position))?;
            let file = scan.segments.last()?.path.clone();
            let offset = scan.base + scan.cursor as u64;
            Some(Damage {
                file,
                offset,
                position: None,
                stream: None,
                event: None,
                reason: String::new(),
                unreadable: false,
            })
        });
        match at {
            Some(damage) => Damage { position: Some(self.position + 1), reason, ..damage },
            None => Damage {
                file: PathBuf::from("log"),
                offset: 0,
                position: Some(self.position + 1),
                stream: None,
                event: None,
                reason,
                unreadable: false,
            },
        }
    }
}

/// Whether a valid mark of a commit above `unfinished` stands anywhere in `bytes`.
fn holds_later_commit(bytes: &[u8], unfinished: u64) -> bool {
    memchr::memmem::find_iter(bytes, &MARK_MAGIC)
        .any(|at| matches!(frame::parse(&bytes[at..]), (Parsed::Mark(mark), _) if mark.commit > unfinished))
}

/// Whether these remains of a commit, which begin at `start` in their file, can come from a write that did not finish.
fn looks_torn(bytes: &[u8], start: u64) -> bool {
    let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { return true };
    let written = &bytes[..=last];
    // One wrong byte may be what we look for, so the trailer may have one.
    let complete = written
        .last_chunk::<{ TRAILER.len() }>()
        .is_some_and(|end| end.iter().zip(TRAILER).filter(|(is, should)| **is != *should).count() <= 1);
    if !complete {
        return true;
    }
    let mut rest = written;
    let mut offset = start;
    while !rest.is_empty() {
        let piece =
            usize::try_from(SECTOR_BYTES - offset % SECTOR_BYTES).expect("at most a sector").min(rest.len());
        // A piece of one byte could be a damaged byte.
        if piece > 1 && is_zero(&rest[..piece]) {
            return true;
        }
        offset += piece as u64;
        rest = &rest[piece..];
    }
    false
}

//! Retiring accesses: whole days of segments go, and a signed statement takes their place.
//!
//! In this order, so that a kill between any two lines leaves a log that is whole: what is to go is read and its chains
//! followed ([`Segments::retirable`]); the caller records `history.retired` with the statement's hash; the statement
//! becomes durable, and from then on the segments count for nothing; then they are removed ([`Segments::retire`]). The
//! next start removes what is left.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use domain::{ids::WorkspaceId, recorded::Family, time::Day};

use super::{
    Segments,
    disk::{AtPath, PathError, read_between, sync_dir},
    files::{Segment, family_dir},
    retired::{self, Boundary},
};

/// What can be retired now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// Accesses recorded before this day.
    pub before: Day,
    /// They have positions above this one…
    pub after: u64,
    /// … up to this one.
    pub up_to: u64,
    /// Where the numbers of accesses stood then, by workspace.
    pub numbers: Vec<(WorkspaceId, u64)>,
    /// By what the log has to know the statement, in hex.
    pub statement_hash: String,
    statement: Vec<u8>,
    segments: Vec<PathBuf>,
}

/// Why nothing was retired.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error(transparent)]
    Io(#[from] PathError),
    #[error("the event log is damaged: {0}")]
    Damaged(#[from] super::Damage),
    /// The log has gone on to another statement.
    #[error("it is retired already, or something else is")]
    Stale,
}

impl Segments {
    /// How many bytes the accesses of each day take, oldest first; the segment that is being written counts as well.
    ///
    /// # Errors
    /// The files cannot be looked at.
    pub fn access_days(&self) -> Result<Vec<(Day, u64)>, PathError> {
        let kept = self.shared.index.family(Family::Accesses).read().kept().to_vec();
        let mut days: Vec<(Day, u64)> = Vec::new();
        for segment in kept {
            let Some(day) = segment.day() else { continue };
            let day = Day::new(day);
            match days.last_mut() {
                Some((last, bytes)) if *last == day => *bytes += segment.end(),
                Some(_) | None => days.push((day, segment.end())),
            }
        }
        Ok(days)
    }

    /// What there is of accesses that were recorded before a day, and up to a position; `None` when there is nothing, or while the check in the
    /// background reads the log. The segment that is being written stays. Reads all of them; changes nothing.
    ///
    /// # Errors
    /// They cannot be read, or are damaged.
    pub fn retirable(&self, before: Day, up_to: Option<u64>) -> Result<Option<Retirement>, RetireError> {
        if self.shared.scrubbing.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut old = self.old_segments(before);
        old.retain(|segment| up_to.is_none_or(|up_to| segment.first_position <= up_to));
        let known = retired::read(&self.shared.data, self.shared.log_id)?.map(|(retired, _)| retired);
        let (mut heads, after) =
            known.map_or_else(Default::default, |known| (known.heads, known.boundary.position));
        let mut boundary = Boundary::default();
        for segment in &old {
            let path = &segment.path;
            let read = fs::File::open(path).and_then(|file| read_between(&file, 0, segment.end()));
            boundary = retired::follow(path, &read.at(path)?, &mut heads)?;
        }
        if boundary == Boundary::default() {
            return Ok(None);
        }
        let numbers = heads.iter().map(|(workspace, head)| (*workspace, head.seq)).collect();
        let key = &self.seal_key;
        let statement =
            retired::unsigned(self.shared.log_id, before.number(), boundary, heads, key).encode(key);
        let statement_hash = retired::hash(&statement);
        let segments = old.iter().map(|segment| segment.path.clone()).collect();
        let up_to = boundary.position;
        Ok(Some(Retirement { before, after, up_to, numbers, statement_hash, statement, segments }))
    }

    /// Retires what the log has recorded as retired.
    ///
    /// # Errors
    /// Something was retired since, or the disk says no: the next start finishes what was begun.
    pub fn retire(&self, retirement: &Retirement) -> Result<(), RetireError> {
        let shared = &self.shared;
        let still = shared.retiring.lock();
        let known = retired::read(&shared.data, shared.log_id)?.map(|(retired, _)| retired);
        if known.map_or(0, |known| known.boundary.position) != retirement.after {
            return Err(RetireError::Stale);
        }
        retired::write(&shared.data, &retirement.statement)?;
        let gone = {
            let mut index = shared.index.family(Family::Accesses).write();
            let gone = index.gone + retirement.segments.len();
            index.retire(gone);
            gone
        };
        for mut entry in shared.index.streams.iter_mut() {
            if entry.key().family() == Family::Accesses {
                entry.retire(gone);
            }
        }
        for path in &retirement.segments {
            fs::remove_file(path).at(path)?;
        }
        sync_dir(&family_dir(&shared.data, Family::Accesses))?;
        drop(still);
        // The one there is names segments that are gone, and would not be used.
        if let Err(error) = super::checkpoint::write(shared) {
            tracing::warn!(%error, "no checkpoint of the log's index; the next start takes longer");
        }
        Ok(())
    }

    /// The segments of days before this one, oldest first, without the one that is being written.
    fn old_segments(&self, before: Day) -> Vec<Arc<Segment>> {
        let index = self.shared.index.family(Family::Accesses).read();
        let Some((_, done)) = index.kept().split_last() else { return Vec::new() };
        let old = done.iter().take_while(|segment| segment.day().is_some_and(|day| day < before.number()));
        old.cloned().collect()
    }
}

//! Reads a log from its segments alone: no index, no lock, nothing is changed. For the operator's commands, which may
//! look at a log while a hub writes it.
//!
//! The end of a log that is being written may look torn, or be further in one family than in another. Where a lock says
//! that somebody writes, that is an end like any other, and the next look goes on from there.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use domain::recorded::Recorded;

use super::segments::{
    Damage, Extent, FROM_THE_START, Found, IdentityError, LaterFormat, Lock, LockError, Resume, Start, Step,
    Walk, all_segments, log_dir, read_identity, read_retired,
};

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    #[error("there is no event log in {}", .0.display())]
    NoLog(PathBuf),
    #[error("the event log's identity is missing or damaged")]
    NoIdentity,
    /// A later release laid its files.
    #[error("{0}")]
    Later(LaterFormat),
    #[error("the event log is damaged: {0}; `hub verify` says more")]
    Damaged(Damage),
    #[error("the event log cannot be read: {0}")]
    Io(String),
}

/// A log that is read from its beginning, and further when there is more.
#[derive(Debug)]
pub struct Tape {
    data: PathBuf,
    log_id: uuid::Uuid,
    start: Start,
    /// The last position that was visited.
    seen: u64,
    /// Up to where accesses were retired at the last look.
    retired: u64,
}

impl Tape {
    /// Opens the log in a data directory, at its beginning.
    ///
    /// # Errors
    /// [`TapeError`]: there is none.
    pub fn open(data: &Path) -> Result<Self, TapeError> {
        if !log_dir(data).is_dir() {
            return Err(TapeError::NoLog(data.to_owned()));
        }
        let log_id = read_identity(data).map_err(|error| match error {
            IdentityError::Missing | IdentityError::Damaged => TapeError::NoIdentity,
            IdentityError::Later(later) => TapeError::Later(later),
            IdentityError::Io(error) => TapeError::Io(error.to_string()),
        })?;
        Ok(Self { data: data.to_owned(), log_id, start: FROM_THE_START, seen: 0, retired: 0 })
    }

    /// Visits every event that was not visited yet, in the order of the log, until there is none or the visitor has
    /// enough; then the next call begins with the commit that it broke off in.
    ///
    /// # Errors
    /// The log is damaged or cannot be read; what was visited before is as it was written.
    pub fn play(
        &mut self,
        visit: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, TapeError> {
        let retired = read_retired(&self.data, self.log_id).map_err(TapeError::Damaged)?.map(|(it, _)| it);
        let boundary = retired.as_ref().map(|it| it.boundary).unwrap_or_default();
        let segments = all_segments(&self.data, retired.as_ref());
        let segments = segments.map_err(|error| TapeError::Io(error.to_string()))?;
        // Segments that went take their numbers with them.
        let has_gone = |(resume, kept): (&Option<Resume>, &Vec<_>)| {
            resume.is_some_and(|resume| resume.segment >= kept.len())
        };
        if boundary.position != self.retired || self.start.2.iter().zip(&segments).any(has_gone) {
            (self.start, self.retired) = (FROM_THE_START, boundary.position);
        }
        let began = self.start.0;
        let mut walk = match Walk::new(&segments, self.log_id, Extent::File, self.start, boundary) {
            Ok(walk) => walk,
            Err(damage) => return self.judge(damage, began),
        };
        loop {
            let mut flow = ControlFlow::Continue(());
            let mut seen = self.seen;
            let mut take = |found: Found<'_>| {
                if flow.is_continue() && found.event.position() > seen {
                    let recorded = found.event.decode();
                    let recorded =
                        recorded.ok_or_else(|| found.damage(&segments, "an event without its form"))?;
                    flow = visit(recorded);
                    seen = found.event.position();
                }
                Ok(())
            };
            let step = walk.step(0, &mut take);
            self.seen = seen;
            match step {
                Ok(Step::Commit) if flow.is_break() => return Ok(flow),
                Ok(Step::Commit) => {
                    self.start.0 = walk.commit;
                    self.start.1 = walk.position;
                    for (family, segment, _, end) in &walk.last_parts {
                        self.start.2[*family as usize] = Some(Resume { segment: *segment, offset: *end });
                    }
                }
                Ok(Step::End(_)) => return Ok(ControlFlow::Continue(())),
                Err(damage) => return self.judge(damage, began),
            }
        }
    }

    /// What looks like damage while somebody writes is looked at again later; from the beginning if nothing could be read
    /// from here, because segments may have gone.
    fn judge(&mut self, damage: Damage, began: u64) -> Result<ControlFlow<()>, TapeError> {
        match Lock::take_if_there(&self.data) {
            Err(LockError::InUse) => {
                if self.start.0 == began {
                    self.start = FROM_THE_START;
                }
                Ok(ControlFlow::Continue(()))
            }
            Ok(_) | Err(LockError::Io(_)) => Err(TapeError::Damaged(damage)),
        }
    }
}

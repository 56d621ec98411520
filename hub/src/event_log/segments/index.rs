//! What can be found where: streams by revision, families by position. Derived from the segments, never the truth.

use std::sync::Arc;

use dashmap::DashMap;
use domain::{
    ids::EventId,
    recorded::{Family, StreamName},
};
use parking_lot::RwLock;

use super::files::Segment;

/// How far back a stream remembers event ids in memory; at least one whole append ([`super::super::limits::EVENTS_MAX`]).
pub(crate) const IDS_KEPT: usize = 1_024;
/// Positions are noted about every that many bytes of a family, so a reader skips at most that much.
const SPARSE_BYTES: u64 = 64 * 1024;

/// Where an event's frame begins: which segment of its family, and the offset there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location(u64);

impl Location {
    /// Segments end long before 4 GiB, and 4 G segments do not fit into a disk.
    pub(crate) fn new(segment: usize, offset: u64) -> Self {
        Self(((segment as u64) << 32) | (offset & 0xffff_ffff))
    }
    pub(crate) fn segment(self) -> usize {
        (self.0 >> 32) as usize
    }
    pub(crate) fn offset(self) -> u64 {
        self.0 & 0xffff_ffff
    }
    /// The same place when so many segments fewer come before it.
    pub(crate) fn moved_down(self, segments: usize) -> Self {
        Self::new(self.segment() - segments, self.offset())
    }
    pub(crate) fn raw(self) -> u64 {
        self.0
    }
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

/// A stream: where each revision is, and the ids of the newest.
#[derive(Debug, Default, Clone)]
pub(crate) struct StreamEntry {
    /// How many revisions there were before these: they were retired.
    pub(crate) base: u64,
    /// The n-th is revision `base` + n + 1.
    pub(crate) locations: Vec<Location>,
    /// The ids of the last events, oldest first: between [`IDS_KEPT`] and twice that many, or all.
    pub(crate) recent: Vec<EventId>,
}

impl StreamEntry {
    pub(crate) fn revision(&self) -> u64 {
        self.base + self.locations.len() as u64
    }
    /// Where a revision is; `None` for one that was retired, or is not there yet.
    pub(crate) fn location(&self, revision: u64) -> Option<Location> {
        let nth = revision.checked_sub(self.base + 1)?;
        self.locations.get(usize::try_from(nth).ok()?).copied()
    }
    /// Forgets what stands in the segments below `segment`.
    pub(crate) fn retire(&mut self, segment: usize) {
        let gone = self.locations.partition_point(|location| location.segment() < segment);
        self.locations.drain(..gone);
        self.base += gone as u64;
    }
    pub(crate) fn push(&mut self, location: Location, id: EventId) {
        if self.recent.len() >= 2 * IDS_KEPT {
            self.recent.drain(..IDS_KEPT);
        }
        self.locations.push(location);
        self.recent.push(id);
    }
}

/// A place in a family's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) position: u64,
    pub(crate) location: Location,
}

/// A family: its segments and some of its positions.
#[derive(Debug, Default)]
pub(crate) struct FamilyIndex {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Ascending; the first event of every segment is noted.
    pub(crate) noted: Vec<Noted>,
    /// The last position in this family.
    pub(crate) last: u64,
    /// So many of the segments were retired since the log was opened: they keep their numbers and have no files.
    pub(crate) gone: usize,
}

impl FamilyIndex {
    /// Remembers an event, if the last noted one is far enough away.
    pub(crate) fn note(&mut self, position: u64, location: Location) {
        self.last = position;
        let near = self.noted.last().is_some_and(|noted| {
            noted.location.segment() == location.segment()
                && location.offset() - noted.location.offset() < SPARSE_BYTES
        });
        if !near {
            self.noted.push(Noted { position, location });
        }
    }
    /// The segments that are there.
    pub(crate) fn kept(&self) -> &[Arc<Segment>] {
        &self.segments[self.gone..]
    }
    /// Forgets what stands in the segments below `segment`.
    pub(crate) fn retire(&mut self, segment: usize) {
        self.gone = segment;
        let gone = self.noted.partition_point(|noted| noted.location.segment() < segment);
        self.noted.drain(..gone);
    }
    /// Where to begin reading for the first event above `after`.
    pub(crate) fn seek(&self, after: u64) -> Option<Location> {
        if self.last <= after {
            return None;
        }
        let at = self.noted.partition_point(|noted| noted.position <= after + 1);
        self.noted.get(at.saturating_sub(1)).map(|noted| noted.location)
    }
}

/// Whether a stream's first events may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    IsThere,
    /// Accesses of its family were retired. That nothing else is missing the chain shows.
    MayBeRetired,
}

/// The whole index. The writer adds to it when a commit is durable; readers take what they need and let go.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) streams: DashMap<StreamName, StreamEntry>,
    families: [RwLock<FamilyIndex>; 3],
}

impl Index {
    pub(crate) fn family(&self, family: Family) -> &RwLock<FamilyIndex> {
        &self.families[family as usize]
    }
    pub(crate) fn revision(&self, stream: &StreamName) -> u64 {
        self.streams.get(stream).map_or(0, |entry| entry.revision())
    }
    /// Takes an event that a walk found. One that is known already (a checkpoint may hold a little more than it says)
    /// changes nothing.
    ///
    /// # Errors
    /// The revision does not follow, or the known event stands elsewhere.
    pub(crate) fn found(
        &self,
        stream: StreamName,
        revision: u64,
        location: Location,
        id: EventId,
        beginning: Beginning,
    ) -> Result<(), &'static str> {
        let mut entry = self.streams.entry(stream).or_default();
        if beginning == Beginning::MayBeRetired && entry.revision() == 0 {
            entry.base = revision.saturating_sub(1);
        }
        if revision == entry.revision() + 1 {
            entry.push(location, id);
            return Ok(());
        }
        if entry.location(revision) == Some(location) {
            Ok(())
        } else {
            Err("its revision does not follow the one before")
        }
    }
}

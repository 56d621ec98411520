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

use std::{fmt, path::PathBuf, sync::Arc};

use domain::{
    ids::EventId,
    recorded::{Family, StreamName},
};

use super::{
    disk::read_from,
    files::{SEGMENT_HEADER_BYTES, Segment, segment_header},
    frame::{self, EventView, MARK_MAGIC, Mark, Parsed, TRAILER, is_zero},
};

/// The smallest piece that a disk writes whole.
const SECTOR_BYTES: u64 = 512;

/// What is wrong with a log, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// The position of the event, as far as it can be told.
    pub position: Option<u64>,
    pub stream: Option<String>,
    pub event: Option<EventId>,
    pub reason: String,
    /// The file could not be read at all: nothing is known about its content.
    pub unreadable: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.offset, self.reason)?;
        if let Some(position) = self.position {
            write!(f, "; position {position}")?;
        }
        if let Some(event) = self.event {
            write!(f, "; event {event}")?;
        }
        if let Some(stream) = &self.stream {
            write!(f, "; stream `{stream}`")?;
        }
        Ok(())
    }
}
impl std::error::Error for Damage {}

/// An event on the walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) family: Family,
    /// Which of the family's segments.
    pub(crate) segment: usize,
    pub(crate) offset: u64,
    pub(crate) event: EventView<'a>,
}

/// Where a walk begins in a family: the segment, and the offset of the first frame to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resume {
    pub(crate) segment: usize,
    pub(crate) offset: u64,
}

/// A part that may be dropped: the family's last segment is to end at `offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) family: Family,
    pub(crate) segment: usize,
    pub(crate) offset: u64,
}

/// One step of a walk.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole commit was visited.
    Commit,
    /// There are no more; these remains of an unacknowledged one may be dropped.
    End(Vec<Cut>),
}

/// The segments of every family, in the order of [`Family::ALL`].
pub(crate) type AllSegments = [Vec<Arc<Segment>>; 3];

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
}

impl<'a> Walk<'a> {
    /// Walks on after `commit`, whose last event has `position`; from the start with `(0, 0, [None; 3])`.
    ///
    /// # Errors
    /// [`Damage`] that the first look shows.
    pub(crate) fn new(
        segments: &'a AllSegments,
        log_id: uuid::Uuid,
        (commit, position, from): (u64, u64, [Option<Resume>; 3]),
    ) -> Result<Self, Damage> {
        let scan = |family: Family| -> Result<Scan<'a>, Damage> {
            let mut scan = Scan::new(family, &segments[family as usize], log_id);
            scan.start(from[family as usize])?;
            Ok(scan)
        };
        let scans = [scan(Family::Facts)?, scan(Family::Accesses)?, scan(Family::Deliveries)?];
        Ok(Self { scans, commit, position, last_parts: Vec::new() })
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
                (None, count) if count > 0 => whole = false,
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

    fn visit_commit(
        &self,
        mark: Mark,
        visit: &mut dyn FnMut(Found<'_>) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let mut next = [0; 3];
        for position in mark.first..=mark.last {
            let found = self.scans.iter().find_map(|scan| {
                scan.part_of(mark.commit)?;
                let (offset, event) = scan.event(next[scan.family as usize])?;
                (event.position() == position).then_some((scan, offset, event))
            });
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
    fn hole(&self, scan: &Scan<'_>, part: &Part, expected: u64) -> Damage {
        let expected_position = self.position + 1;
        let stopped = self.scans.iter().find_map(|scan| scan.stop_damage(expected_position));
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
        for scan in &mut self.scans {
            if let Some(part) = scan.part_of(unfinished) {
                cuts.push(Cut { family: scan.family, segment: part.segment, offset: part.start });
                scan.advance()?;
            }
        }
        for scan in &self.scans {
            if let Some(part) = scan.part() {
                return Err(self.hole(scan, part, unfinished));
            }
            let Ahead::Stopped(stop) = &scan.ahead else { continue };
            let remains = scan.from(stop.start);
            let last = stop.segment + 1 == scan.segments.len();
            if !last || holds_later_commit(remains, unfinished) || !looks_torn(remains, stop.start) {
                return Err(scan.stop_damage(self.position + 1).expect("this scan has stopped"));
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
        let reason =
            format!("the log ends at position {}, but a seal covers position {sealed}", self.position);
        let stopped = self.scans.iter().find_map(|scan| scan.stop_damage(self.position + 1));
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

/// A whole part of a commit in one family.
#[derive(Debug)]
struct Part {
    mark: Mark,
    segment: usize,
    start: u64,
    end: u64,
}

/// Where a family cannot be read on.
#[derive(Debug)]
struct Stop {
    segment: usize,
    /// The end of the last whole part.
    start: u64,
    /// The frame that is wrong.
    bad: u64,
    reason: &'static str,
}

#[derive(Debug)]
enum Ahead {
    Part(Part),
    Clean,
    Stopped(Stop),
}

/// Reads one family, a segment at a time.
#[derive(Debug)]
struct Scan<'a> {
    family: Family,
    segments: &'a [Arc<Segment>],
    log_id: uuid::Uuid,
    at: usize,
    /// The bytes of segment `at` from `base` on.
    data: Vec<u8>,
    base: u64,
    cursor: usize,
    ahead: Ahead,
    /// The frames of the part ahead: offsets in `data`.
    frames: Vec<usize>,
}

impl<'a> Scan<'a> {
    fn new(family: Family, segments: &'a [Arc<Segment>], log_id: uuid::Uuid) -> Self {
        Self {
            family,
            segments,
            log_id,
            at: 0,
            data: Vec::new(),
            base: 0,
            cursor: 0,
            ahead: Ahead::Clean,
            frames: Vec::new(),
        }
    }

    fn start(&mut self, from: Option<Resume>) -> Result<(), Damage> {
        if self.segments.is_empty() {
            return Ok(());
        }
        match from {
            Some(resume) => {
                self.at = resume.segment;
                self.base = resume.offset;
                self.data = self.read(resume.offset)?;
                self.advance()
            }
            None => {
                self.load(0)?;
                self.advance()
            }
        }
    }

    fn read(&self, offset: u64) -> Result<Vec<u8>, Damage> {
        let segment = &self.segments[self.at];
        segment.open().and_then(|file| read_from(&file, offset)).map_err(|error| Damage {
            unreadable: true,
            ..self.damage(offset, &format!("it cannot be read: {error}"))
        })
    }

    fn load(&mut self, at: usize) -> Result<(), Damage> {
        self.at = at;
        self.base = 0;
        self.data = self.read(0)?;
        let header = segment_header(self.log_id, self.family);
        if self.data.starts_with(&header) {
            self.cursor = header.len();
            return Ok(());
        }
        // A header is durable before the segment gets its name: there is no torn one.
        Err(self.damage(0, "the segment's header is damaged or belongs to another log"))
    }

    /// Looks at what comes next.
    fn advance(&mut self) -> Result<(), Damage> {
        self.frames.clear();
        let mut start = self.cursor;
        self.ahead = loop {
            let (parsed, length) = frame::parse(&self.data[self.cursor..]);
            let reason = match parsed {
                Parsed::Event(_) => {
                    self.frames.push(self.cursor);
                    self.cursor += length;
                    continue;
                }
                Parsed::Mark(mark) => {
                    let bytes = self.cursor + length - start;
                    if mark.family == self.family
                        && mark.part_bytes as usize == bytes
                        && mark.counts[self.family as usize] as usize == self.frames.len()
                        && !self.frames.is_empty()
                    {
                        self.cursor += length;
                        let (start, end) = (self.base + start as u64, self.base + self.cursor as u64);
                        break Ahead::Part(Part { mark, segment: self.at, start, end });
                    }
                    "a commit mark does not fit the events before it"
                }
                Parsed::Empty if self.frames.is_empty() && is_zero(&self.data[self.cursor..]) => {
                    if self.at + 1 == self.segments.len() {
                        break Ahead::Clean;
                    }
                    self.load(self.at + 1)?;
                    start = self.cursor;
                    continue;
                }
                Parsed::Empty => "nothing stands here, but something after it",
                Parsed::Bad(reason) => reason,
            };
            let (start, bad) = (self.base + start as u64, self.base + self.cursor as u64);
            break Ahead::Stopped(Stop { segment: self.at, start, bad, reason });
        };
        Ok(())
    }

    /// The part ahead, if it belongs to this commit.
    fn part_of(&self, commit: u64) -> Option<&Part> {
        self.part().filter(|part| part.mark.commit == commit)
    }

    fn part(&self) -> Option<&Part> {
        match &self.ahead {
            Ahead::Part(part) => Some(part),
            Ahead::Clean | Ahead::Stopped(_) => None,
        }
    }

    /// The n-th event of the part ahead and its offset in the file.
    fn event(&self, n: usize) -> Option<(u64, EventView<'_>)> {
        self.part()?;
        let at = *self.frames.get(n)?;
        frame::parse_again(&self.data[at..]).map(|event| (self.base + at as u64, event))
    }

    fn from(&self, offset: u64) -> &[u8] {
        let at = usize::try_from(offset - self.base).expect("an offset in a loaded segment");
        &self.data[at..]
    }

    /// The first event of a segment must be the one that its name says.
    fn check_name(&self, offset: u64, event: EventView<'_>) -> Result<(), Damage> {
        let segment = &self.segments[self.at];
        if offset == SEGMENT_HEADER_BYTES && event.position() != segment.first_position {
            return Err(self.damage(offset, "the segment's name does not fit its first event"));
        }
        Ok(())
    }

    fn damage(&self, offset: u64, reason: &str) -> Damage {
        let bytes = offset.checked_sub(self.base).and_then(|at| self.data.get(usize::try_from(at).ok()?..));
        let event = bytes.and_then(frame::suspect);
        Damage {
            file: self.segments[self.at].path.clone(),
            offset,
            position: event.map(EventView::position),
            stream: event.and_then(EventView::stream).map(str::to_owned),
            event: event.map(EventView::id),
            reason: reason.to_owned(),
            unreadable: false,
        }
    }

    fn part_damage(&self, reason: &str) -> Damage {
        self.damage(self.part().map_or(0, |part| part.start), reason)
    }

    /// `next` is the position at which the whole log goes on: what is bad stands there or later.
    fn stop_damage(&self, next: u64) -> Option<Damage> {
        match &self.ahead {
            Ahead::Stopped(stop) => {
                let damage = self.damage(stop.bad, stop.reason);
                Some(Damage { position: damage.position.or(Some(next)), ..damage })
            }
            Ahead::Part(_) | Ahead::Clean => None,
        }
    }
}

/// The stream that an event says it belongs to, if it may stand in this family.
pub(crate) fn stream_of(found: Found<'_>) -> Result<StreamName, &'static str> {
    let stream = found.event.stream().and_then(StreamName::parse).ok_or("its stream has no name")?;
    if stream.family() == found.family { Ok(stream) } else { Err("its stream belongs to another family") }
}

impl Found<'_> {
    /// This event as the place of a damage.
    pub(crate) fn damage(self, segments: &AllSegments, reason: &str) -> Damage {
        Damage {
            file: segments[self.family as usize][self.segment].path.clone(),
            offset: self.offset,
            position: Some(self.event.position()),
            stream: self.event.stream().map(str::to_owned),
            event: Some(self.event.id()),
            reason: reason.to_owned(),
            unreadable: false,
        }
    }
}

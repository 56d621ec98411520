//! Reads one family's segments part by part, in the order of commits; [`walk`] puts the families together.

mod walk;

use std::{fmt, path::PathBuf, sync::Arc};

use domain::{
    ids::EventId,
    recorded::{Family, StreamName},
};

use super::{
    disk::read_between,
    files::{SEGMENT_HEADER_BYTES, Segment, later_segment, segment_header},
    frame::{self, EventView, Mark, Parsed, is_zero},
};

pub(crate) use walk::{Cut, FROM_THE_START, Start, Step, Walk};

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
    /// The file could not be read at all, or is of a later release: nothing is known about its content.
    pub unreadable: bool,
}

impl Damage {
    /// What to say of the log.
    pub(super) fn verb(&self) -> &'static str {
        if self.unreadable { "cannot be read" } else { "is damaged" }
    }
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

/// How far a walk reads in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of the file, whatever it holds: the log stands still.
    File,
    /// What is committed: beyond that the writer may be at work.
    Committed,
}

/// The segments of every family, in the order of [`Family::ALL`].
pub(crate) type AllSegments = [Vec<Arc<Segment>>; 3];

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
    extent: Extent,
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
    fn new(family: Family, segments: &'a [Arc<Segment>], log_id: uuid::Uuid, extent: Extent) -> Self {
        Self {
            family,
            segments,
            log_id,
            extent,
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
        let end = match self.extent {
            Extent::File => u64::MAX,
            Extent::Committed => segment.end(),
        };
        segment.open().and_then(|file| read_between(&file, offset, end)).map_err(|error| Damage {
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
        if let Some(format) = later_segment(&self.data, self.log_id) {
            let reason = format!(
                "a segment of the storage format {format}, which a later release than this one wrote"
            );
            return Err(Damage { unreadable: true, ..self.damage(0, &reason) });
        }
        // A header is durable before the segment gets its name: there is no torn one.
        let damage = self.damage(0, "the segment's header is damaged or belongs to another log");
        Err(Damage { position: Some(self.segments[at].first_position), ..damage })
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

    /// `first` is the position at which the whole log goes on, with a commit of which other families have `elsewhere`.
    /// What is bad is named by the place where it stands: nothing that it says of itself can be trusted.
    fn stop_damage(&self, first: u64, elsewhere: &[u64]) -> Option<Damage> {
        let Ahead::Stopped(stop) = &self.ahead else { return None };
        let damage = self.damage(stop.bad, stop.reason);
        let position = if self.stands_for_an_event(stop.bad) {
            let before = self.frames.last().and_then(|at| frame::parse_again(&self.data[*at..]));
            let next = before.map_or(first, |event| event.position().saturating_add(1));
            (next..).find(|position| !elsewhere.contains(position))
        } else {
            // A mark stands for all of its commit.
            Some(first)
        };
        Some(Damage { position, ..damage })
    }

    /// Whether what stands there was an event, or is to be counted as one: of a mark its beginning or its end still says
    /// what it was.
    fn stands_for_an_event(&self, offset: u64) -> bool {
        let bytes = self.from(offset);
        if frame::ends_like_a_mark(bytes) {
            return false;
        }
        if !bytes.starts_with(&frame::MARK_MAGIC) {
            return true;
        }
        // Either a mark, or an event whose magic was changed into one: then a frame follows where it says that it ends.
        frame::event_length(bytes).is_some_and(|length| {
            let rest = bytes.get(length..);
            rest.is_some_and(|rest| matches!(frame::parse(rest).0, Parsed::Event(_) | Parsed::Mark(_)))
        })
    }

    /// The positions of the part ahead, if it belongs to this commit.
    fn positions_in(&self, commit: u64) -> Vec<u64> {
        if self.part_of(commit).is_none() {
            return Vec::new();
        }
        (0..self.frames.len()).filter_map(|n| Some(self.event(n)?.1.position())).collect()
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

//! Reads events by stream and by position, checking every frame. Takes no lock for longer than a look-up.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use domain::recorded::{Families, Family, Recorded, StreamName};

use super::{
    super::ReadError,
    files::Segment,
    frame::{self, Parsed},
    index::Location,
    published::Shared,
};

/// The most bytes of frames that one `read_all` answers with, beyond the first event.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a sequential reader takes from a file at once.
const CHUNK_BYTES: usize = 128 * 1024;
/// What is read for a single event at first: most are smaller.
const GUESS_BYTES: usize = 2 * 1024;

/// See [`super::super::EventLog::read_stream`].
pub(crate) fn read_stream(
    shared: &Shared,
    stream: &StreamName,
    from_revision: u64,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    let found = shared.index.streams.get(stream).map(|entry| {
        let first = from_revision.max(entry.base + 1);
        let skip = usize::try_from(first - entry.base - 1).unwrap_or(usize::MAX);
        (first, entry.locations.iter().skip(skip).take(limit).copied().collect::<Vec<Location>>())
    });
    let Some((first, locations)) = found else { return Ok(Vec::new()) };
    let mut files = OpenFile::default();
    let mut events = Vec::with_capacity(locations.len());
    for (revision, location) in (first..).zip(locations) {
        let (segment, file) = files.at(shared, stream.family(), location.segment())?;
        let event = read_event(&segment, &file, location.offset())?;
        if event.stream != *stream || event.revision != revision {
            return Err(damaged(&segment, location.offset(), "the index names another event here"));
        }
        events.push(event);
    }
    Ok(events)
}

/// Reads the event whose frame begins at `offset`.
pub(crate) fn read_event(segment: &Segment, file: &File, offset: u64) -> Result<Recorded, ReadError> {
    let mut bytes = vec![0; GUESS_BYTES];
    let got = read_up_to(file, &mut bytes, offset).map_err(|error| unavailable(segment, &error))?;
    bytes.truncate(got);
    if let Some(whole) = frame::event_frame_bytes(&bytes).filter(|whole| *whole > got) {
        bytes.resize(whole, 0);
        file.read_exact_at(&mut bytes[got..], offset + got as u64)
            .map_err(|error| unavailable(segment, &error))?;
    }
    match frame::parse(&bytes).0 {
        Parsed::Event(event) => {
            event.decode().ok_or_else(|| damaged(segment, offset, "an event without its form"))
        }
        Parsed::Bad(reason) => Err(damaged(segment, offset, reason)),
        Parsed::Empty | Parsed::Mark(_) => Err(damaged(segment, offset, "no event stands here")),
    }
}

/// The event at a location of a family.
pub(crate) fn read_at(shared: &Shared, family: Family, location: Location) -> Result<Recorded, ReadError> {
    let (segment, file) = OpenFile::default().at(shared, family, location.segment())?;
    read_event(&segment, &file, location.offset())
}

/// See [`super::super::EventLog::read_all`].
pub(crate) fn read_all(
    shared: &Shared,
    after: u64,
    families: Families,
    limit: usize,
) -> Result<Vec<Recorded>, ReadError> {
    // Taken first: whatever is at or below it is in the index by now, and nothing above it is answered.
    let head = *shared.head.borrow();
    let mut cursors = Vec::with_capacity(Family::ALL.len());
    for family in Family::ALL {
        if !families.contains(family) {
            continue;
        }
        // In a statement of its own: the lock must be free again when the cursor takes it.
        let start = shared.index.family(family).read().seek(after);
        if let Some(location) = start {
            let mut cursor = Cursor::new(family, location);
            if cursor.advance(shared, after, head)? {
                cursors.push(cursor);
            }
        }
    }
    let mut events = Vec::new();
    let mut bytes = 0;
    while events.len() < limit && bytes <= ANSWER_BYTES_MAX {
        let Some(at) = (0..cursors.len()).min_by_key(|at| cursors[*at].position) else { break };
        let (event, length) = cursors[at].decode()?;
        bytes += length;
        events.push(event);
        if !cursors[at].advance(shared, after, head)? {
            cursors.swap_remove(at);
        }
    }
    Ok(events)
}

/// The file that was used last: neighbours are mostly in the same.
#[derive(Default)]
struct OpenFile(Option<(usize, Arc<Segment>, Arc<File>)>);

impl OpenFile {
    fn at(
        &mut self,
        shared: &Shared,
        family: Family,
        number: usize,
    ) -> Result<(Arc<Segment>, Arc<File>), ReadError> {
        if let Some((open, segment, file)) = &self.0
            && *open == number
        {
            return Ok((Arc::clone(segment), Arc::clone(file)));
        }
        let segment = shared.index.family(family).read().segments.get(number).cloned();
        let segment = segment
            .ok_or_else(|| ReadError::Damaged(format!("{} has no segment {number}", family.name())))?;
        let file = segment.open().map_err(|error| unavailable(&segment, &error))?;
        self.0 = Some((number, Arc::clone(&segment), Arc::clone(&file)));
        Ok((segment, file))
    }
}

/// Walks one family forward.
struct Cursor {
    family: Family,
    number: usize,
    segment: Option<(Arc<Segment>, Arc<File>)>,
    /// The committed end of the open segment.
    end: u64,
    /// The offset of `bytes[at]`.
    offset: u64,
    bytes: Vec<u8>,
    at: usize,
    /// The event that [`Cursor::advance`] stopped at.
    position: u64,
    length: usize,
}

impl Cursor {
    fn new(family: Family, from: Location) -> Self {
        Self {
            family,
            number: from.segment(),
            segment: None,
            end: 0,
            offset: from.offset(),
            bytes: Vec::new(),
            at: 0,
            position: 0,
            length: 0,
        }
    }

    /// Goes to the next event above `after`; `false` when there is none up to `head`.
    fn advance(&mut self, shared: &Shared, after: u64, head: u64) -> Result<bool, ReadError> {
        self.at += self.length;
        self.offset += self.length as u64;
        self.length = 0;
        loop {
            if !self.open_here(shared)? {
                return Ok(false);
            }
            // Enough for a header, or for a whole mark: a mark that lies across two chunks is no damage.
            self.fill(frame::MARK_BYTES)?;
            if let Some(whole) = frame::event_frame_bytes(&self.bytes[self.at..]) {
                self.fill(whole)?;
            }
            let (position, length) = match frame::parse(&self.bytes[self.at..]) {
                (Parsed::Event(event), length) => (event.position(), length),
                (Parsed::Mark(_), length) => (0, length),
                (Parsed::Bad(reason), _) => return Err(self.damaged(reason)),
                (Parsed::Empty, _) => return Err(self.damaged("nothing stands where an event should")),
            };
            if position > head {
                return Ok(false);
            }
            if position > after {
                (self.position, self.length) = (position, length);
                return Ok(true);
            }
            self.at += length;
            self.offset += length as u64;
        }
    }

    fn decode(&self) -> Result<(Recorded, usize), ReadError> {
        let frame = &self.bytes[self.at..self.at + self.length];
        let event = frame::parse_again(frame).and_then(|event| event.decode());
        event.map(|event| (event, self.length)).ok_or_else(|| self.damaged("an event without its form"))
    }

    /// Has a segment open with something at `offset`; `false` at the end of the family.
    fn open_here(&mut self, shared: &Shared) -> Result<bool, ReadError> {
        loop {
            if let Some((segment, _)) = &self.segment {
                if self.offset < self.end {
                    return Ok(true);
                }
                self.end = segment.end();
                if self.offset < self.end {
                    return Ok(true);
                }
                self.number += 1;
                self.offset = super::files::SEGMENT_HEADER_BYTES;
                (self.bytes, self.at) = (Vec::new(), 0);
            }
            let Some(segment) = shared.index.family(self.family).read().segments.get(self.number).cloned()
            else {
                return Ok(false);
            };
            let file = segment.open().map_err(|error| unavailable(&segment, &error))?;
            self.end = segment.end();
            self.segment = Some((segment, file));
        }
    }

    /// Has at least `wanted` bytes from `at` on, unless the committed part ends before.
    fn fill(&mut self, wanted: usize) -> Result<(), ReadError> {
        let (Some((segment, file)), held) = (&self.segment, self.bytes.len() - self.at) else {
            return Ok(());
        };
        if held >= wanted {
            return Ok(());
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let whole = wanted.max(CHUNK_BYTES).min(left.max(held));
        self.bytes.resize(whole, 0);
        let from = self.offset + held as u64;
        let got =
            read_up_to(file, &mut self.bytes[held..], from).map_err(|error| unavailable(segment, &error))?;
        self.bytes.truncate(held + got);
        Ok(())
    }

    fn damaged(&self, reason: &str) -> ReadError {
        match &self.segment {
            Some((segment, _)) => damaged(segment, self.offset, reason),
            None => ReadError::Damaged(reason.to_owned()),
        }
    }
}

fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn damaged(segment: &Segment, offset: u64, reason: &str) -> ReadError {
    ReadError::Damaged(format!("{} at byte {offset}: {reason}", segment.path.display()))
}
fn unavailable(segment: &Segment, error: &io::Error) -> ReadError {
    ReadError::Unavailable(format!("{}: {error}", segment.path.display()))
}

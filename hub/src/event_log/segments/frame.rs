//! The frame codec: how one event and one commit mark lie in a segment.
//!
//! A frame is `magic 4 ‖ body length u32 ‖ CRC-32 u32 ‖ body`, little-endian; the CRC covers magic, length and body,
//! so no byte of a frame is uncovered. An event's body is `position u64 ‖ seq u64 ‖ link 32 ‖ stored bytes`, where
//! the stored bytes are what every engine would store alike (no position of this store): the chain covers them,
//! `link = SHA-256(previous link ‖ seq ‖ stored bytes)`. Each commit ends, in every family that it touches, with a
//! mark that says what belongs to it. This format is for ever; a change is a new magic.

use domain::{
    ids::{AgentId, EventId, KeyId, RequestId, WorkspaceId},
    recorded::{Actor, Family, Personal, Recorded, StreamName},
    time::Timestamp,
};

use super::super::{Append, NewEvent, limits};

/// Bytes before a body.
pub(crate) const HEADER_BYTES: usize = 12;
const EVENT_MAGIC: [u8; 4] = *b"pcE1";
pub(crate) const MARK_MAGIC: [u8; 4] = *b"pcM1";
/// The last bytes of every mark, hence of every commit: a prefix of a commit does not end like this.
pub(crate) const TRAILER: [u8; 8] = *b"pcCOMMIT";
const MARK_BODY_BYTES: usize = 64;
pub(crate) const MARK_BYTES: usize = HEADER_BYTES + MARK_BODY_BYTES;
/// The longest body of an event: payload, and the envelope with its names at their longest.
const BODY_BYTES_MAX: usize = limits::EVENT_BYTES_MAX + 4096;

const POSITION: usize = 0;
const SEQ: usize = 8;
const LINK: usize = 16;
const STORED: usize = 48;
const REVISION: usize = 48;
const RECORDED_AT: usize = 56;
const WORKSPACE: usize = 64;
const ID: usize = 80;
const VERSION: usize = 96;
const FLAGS: usize = 98;
const STREAM: usize = 99;

const HAS_CAUSATION: u8 = 1;
const HAS_CORRELATION: u8 = 2;
const HAS_PERSONAL: u8 = 4;

/// A link of a chain. The link before the first event is all zeros.
pub(crate) type Link = [u8; 32];

/// What lies at some offset of a segment.
#[derive(Debug)]
pub(crate) enum Parsed<'a> {
    /// Nothing was written here (zeros, or the end of the file).
    Empty,
    Event(EventView<'a>),
    Mark(Mark),
    /// Something else, and why it is no frame.
    Bad(&'static str),
}

/// The frame at the start of `bytes` and its length in bytes.
pub(crate) fn parse(bytes: &[u8]) -> (Parsed<'_>, usize) {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return if is_zero(bytes) { (Parsed::Empty, 0) } else { (Parsed::Bad("a frame that breaks off"), 0) };
    };
    let magic = [header[0], header[1], header[2], header[3]];
    if magic == [0; 4] {
        return (Parsed::Empty, 0);
    }
    let length = u32_at(header, 4) as usize;
    let body_max = match magic {
        EVENT_MAGIC if length <= STREAM => return (Parsed::Bad("an event that is too short"), 0),
        EVENT_MAGIC => BODY_BYTES_MAX,
        MARK_MAGIC => MARK_BODY_BYTES,
        _ => return (Parsed::Bad("no frame starts here"), 0),
    };
    if length > body_max {
        return (Parsed::Bad("a frame longer than any can be"), 0);
    }
    let Some(body) = bytes.get(HEADER_BYTES..HEADER_BYTES + length) else {
        return (Parsed::Bad("a frame that breaks off"), 0);
    };
    if checksum(header, body) != u32_at(header, 8) {
        return (Parsed::Bad("the checksum does not match"), 0);
    }
    let parsed = if magic == EVENT_MAGIC {
        Parsed::Event(EventView { body })
    } else {
        Mark::read(body).map_or(Parsed::Bad("a commit mark without its form"), Parsed::Mark)
    };
    (parsed, HEADER_BYTES + length)
}

/// An event frame that [`parse`] has accepted already.
pub(crate) fn parse_again(bytes: &[u8]) -> Option<EventView<'_>> {
    let length = event_frame_bytes(bytes)?;
    bytes.get(HEADER_BYTES..length).map(|body| EventView { body })
}

/// The length of the whole frame that starts with this header, if it can be an event's.
pub(crate) fn event_frame_bytes(header: &[u8]) -> Option<usize> {
    event_length(header).filter(|_| header.starts_with(&EVENT_MAGIC))
}

/// What a damaged event frame seems to be, for the message that names it: nothing in it can be trusted.
pub(crate) fn suspect(bytes: &[u8]) -> Option<EventView<'_>> {
    if !bytes.starts_with(&EVENT_MAGIC) {
        return None;
    }
    let view = EventView { body: bytes.get(HEADER_BYTES..)? };
    view.stream()?;
    Some(view)
}

/// The length of the frame that starts with this header as an event's, whatever its magic.
pub(crate) fn event_length(header: &[u8]) -> Option<usize> {
    let length = u32_at(header.get(..HEADER_BYTES)?, 4) as usize;
    (length > STREAM && length <= BODY_BYTES_MAX).then_some(HEADER_BYTES + length)
}

/// Whether what starts here ends where a mark ends, whatever its header says.
pub(crate) fn ends_like_a_mark(bytes: &[u8]) -> bool {
    bytes.get(..MARK_BYTES).is_some_and(|mark| mark.ends_with(&TRAILER))
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // In chunks without an early exit, so that the compiler can compare many bytes at once.
    bytes.chunks(128).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..8]);
    hasher.update(body);
    hasher.finalize()
}

fn seal_frame(frame: &mut [u8]) {
    let (header, body) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("every frame has a header");
    let crc = checksum(header, body);
    header[8..].copy_from_slice(&crc.to_le_bytes());
}

/// An event's frame that passed its checksum; fields are read in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventView<'a> {
    body: &'a [u8],
}

impl<'a> EventView<'a> {
    pub(crate) fn position(self) -> u64 {
        u64_at(self.body, POSITION)
    }
    pub(crate) fn seq(self) -> u64 {
        u64_at(self.body, SEQ)
    }
    pub(crate) fn link(self) -> Link {
        self.body[LINK..STORED].try_into().expect("a link has 32 bytes")
    }
    pub(crate) fn revision(self) -> u64 {
        u64_at(self.body, REVISION)
    }
    pub(crate) fn recorded_at(self) -> Timestamp {
        Timestamp::from_millis(u64_at(self.body, RECORDED_AT).cast_signed())
    }
    pub(crate) fn workspace(self) -> WorkspaceId {
        WorkspaceId::new(uuid_at(self.body, WORKSPACE))
    }
    pub(crate) fn id(self) -> EventId {
        EventId::new(uuid_at(self.body, ID))
    }
    /// `None` when the frame is not in its form.
    pub(crate) fn stream(self) -> Option<&'a str> {
        let length = usize::from(*self.body.get(STREAM)?);
        let name = self.body.get(STREAM + 1..STREAM + 1 + length)?;
        std::str::from_utf8(name).ok().filter(|name| !name.is_empty())
    }
    /// The link that this event should carry after `previous`.
    pub(crate) fn link_after(self, previous: &Link) -> Link {
        link_after(previous, self.seq(), &self.body[STORED..])
    }

    /// The event as readers get it; `None` when the frame is not in its form (which its checksum rules out,
    /// short of a writer's bug).
    pub(crate) fn decode(self) -> Option<Recorded> {
        let flags = self.body[FLAGS];
        let mut rest = Fields { bytes: self.body, at: STREAM };
        let stream = StreamName::parse(rest.short_text()?)?;
        let event_type = rest.short_text()?.into();
        let actor = match rest.take(1)?[0] {
            0 => Actor::Key(KeyId::new(rest.uuid()?)),
            1 => Actor::Agent(AgentId::new(rest.uuid()?)),
            2 => Actor::System(rest.short_text()?.to_owned()),
            _ => return None,
        };
        let causation = if flags & HAS_CAUSATION == 0 { None } else { Some(EventId::new(rest.uuid()?)) };
        let correlation =
            if flags & HAS_CORRELATION == 0 { None } else { Some(RequestId::new(rest.uuid()?)) };
        let data = std::str::from_utf8(rest.long()?).ok()?.into();
        let personal =
            if flags & HAS_PERSONAL == 0 { Personal::None } else { Personal::Sealed(rest.long()?.into()) };
        (rest.at == self.body.len()).then(|| Recorded {
            position: self.position(),
            seq: self.seq(),
            stream,
            revision: self.revision(),
            id: self.id(),
            event_type,
            version: u16::from_le_bytes([self.body[VERSION], self.body[VERSION + 1]]),
            recorded_at: self.recorded_at(),
            workspace: self.workspace(),
            actor,
            causation,
            correlation,
            data,
            personal,
        })
    }
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }
    fn uuid(&mut self) -> Option<uuid::Uuid> {
        uuid::Uuid::from_slice(self.take(16)?).ok()
    }
    fn short_text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.take(1)?[0]);
        std::str::from_utf8(self.take(length)?).ok()
    }
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = u32_at(self.take(4)?, 0) as usize;
        self.take(length)
    }
}

/// What an event says, apart from its place: all that goes into the stored bytes besides revision and time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) workspace: WorkspaceId,
    pub(crate) id: EventId,
    pub(crate) version: u16,
    pub(crate) stream: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) actor: &'a Actor,
    pub(crate) causation: Option<EventId>,
    pub(crate) correlation: Option<RequestId>,
    pub(crate) data: &'a str,
    pub(crate) personal: Option<&'a [u8]>,
}

impl Content<'_> {
    /// Whether a frame has room for it; whoever changed a database by hand may have left something that has none.
    pub(crate) fn is_within_limits(&self) -> bool {
        let name = match self.actor {
            Actor::System(name) => name.len(),
            Actor::Key(_) | Actor::Agent(_) => 0,
        };
        let payload = self.data.len() + self.personal.map_or(0, <[u8]>::len);
        let longest = [self.stream.len(), self.event_type.len(), name].into_iter().max();
        payload <= limits::EVENT_BYTES_MAX && longest <= Some(usize::from(u8::MAX))
    }
}

/// Appends the event's frame to `out`, all but what only the writer knows (see [`place`]). The append has passed
/// [`limits::check`].
pub(crate) fn encode(out: &mut Vec<u8>, append: &Append, event: &NewEvent) {
    let content = Content {
        workspace: append.workspace,
        id: event.id,
        version: event.version,
        stream: append.stream.as_str(),
        event_type: event.event_type,
        actor: &append.actor,
        causation: event.causation,
        correlation: append.correlation,
        data: &event.data,
        personal: event.personal.as_deref(),
    };
    encode_content(out, &content);
}

/// The same of an event that is within the limits, wherever it comes from.
pub(crate) fn encode_content(out: &mut Vec<u8>, event: &Content<'_>) {
    let start = out.len();
    out.extend_from_slice(&EVENT_MAGIC);
    out.resize(start + HEADER_BYTES + WORKSPACE, 0);
    out.extend_from_slice(event.workspace.uuid().as_bytes());
    out.extend_from_slice(event.id.uuid().as_bytes());
    out.extend_from_slice(&event.version.to_le_bytes());
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    out.push(
        flag(event.causation.is_some(), HAS_CAUSATION)
            | flag(event.correlation.is_some(), HAS_CORRELATION)
            | flag(event.personal.is_some(), HAS_PERSONAL),
    );
    put_short(out, event.stream.as_bytes());
    put_short(out, event.event_type.as_bytes());
    match event.actor {
        Actor::Key(id) => put_id(out, 0, id.uuid()),
        Actor::Agent(id) => put_id(out, 1, id.uuid()),
        Actor::System(name) => {
            out.push(2);
            put_short(out, name.as_bytes());
        }
    }
    if let Some(causation) = event.causation {
        out.extend_from_slice(causation.uuid().as_bytes());
    }
    if let Some(correlation) = event.correlation {
        out.extend_from_slice(correlation.uuid().as_bytes());
    }
    put_long(out, event.data.as_bytes());
    if let Some(personal) = event.personal {
        put_long(out, personal);
    }
    let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("limits::check bounds an event");
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
}

fn put_id(out: &mut Vec<u8>, kind: u8, id: uuid::Uuid) {
    out.push(kind);
    out.extend_from_slice(id.as_bytes());
}
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("limits::check bounds names to 255 bytes"));
    out.extend_from_slice(bytes);
}
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("limits::check bounds an event to 1 MiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Where an event stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) seq: u64,
    pub(crate) revision: u64,
    pub(crate) recorded_at: Timestamp,
}

/// Gives an encoded frame its place and checksum, and answers its link.
pub(crate) fn place(frame: &mut [u8], place: Place, previous: &Link) -> Link {
    let body = &mut frame[HEADER_BYTES..];
    body[POSITION..SEQ].copy_from_slice(&place.position.to_le_bytes());
    body[SEQ..LINK].copy_from_slice(&place.seq.to_le_bytes());
    body[REVISION..RECORDED_AT].copy_from_slice(&place.revision.to_le_bytes());
    body[RECORDED_AT..WORKSPACE].copy_from_slice(&place.recorded_at.millis().to_le_bytes());
    let link = link_after(previous, place.seq, &body[STORED..]);
    body[LINK..STORED].copy_from_slice(&link);
    seal_frame(frame);
    link
}

fn link_after(previous: &Link, seq: u64, stored: &[u8]) -> Link {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(previous);
    context.update(&seq.to_le_bytes());
    context.update(stored);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The end of one family's part of a commit, and what the whole commit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of the commit, from 1, gapless: a commit is begun when the one before it is durable.
    pub(crate) commit: u64,
    /// The first and last position of the commit, over all families.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How many events each family has of it, in the order of [`Family::ALL`].
    pub(crate) counts: [u32; 3],
    /// The bytes of this family's part, this mark included.
    pub(crate) part_bytes: u32,
    /// The family that this mark lies in.
    pub(crate) family: Family,
}

impl Mark {
    /// Whether both are of one commit, in whatever families.
    pub(crate) fn same_commit(&self, other: &Self) -> bool {
        (self.commit, self.first, self.last, self.counts)
            == (other.commit, other.first, other.last, other.counts)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MARK_MAGIC);
        out.extend_from_slice(&u32::try_from(MARK_BODY_BYTES).expect("a small constant").to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [self.commit, self.first, self.last] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in self.counts.iter().chain([&self.part_bytes]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[self.family as u8; 16]);
        out.extend_from_slice(&TRAILER);
        seal_frame(&mut out[start..]);
    }

    fn read(body: &[u8]) -> Option<Self> {
        if body.len() != MARK_BODY_BYTES || !body.ends_with(&TRAILER) {
            return None;
        }
        let family = *Family::ALL.get(usize::from(body[40]))?;
        Some(Self {
            commit: u64_at(body, 0),
            first: u64_at(body, 8),
            last: u64_at(body, 16),
            counts: [u32_at(body, 24), u32_at(body, 28), u32_at(body, 32)],
            part_bytes: u32_at(body, 36),
            family,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
fn uuid_at(bytes: &[u8], at: usize) -> uuid::Uuid {
    uuid::Uuid::from_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

#[cfg(test)]
mod tests;

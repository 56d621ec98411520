//! A checkpoint of the index, so that a start reads only the tail of the log.
//!
//! It can be wrong in no way that matters: it names its layout, the log, the position and the link there, and ends with
//! a checksum; any difference means that it is ignored and the index rebuilt. It is taken while the log runs, so its
//! streams may hold a little more than its position says (all of it durable): the walk over the tail knows that.

use std::{os::unix::fs::FileExt, path::Path, sync::Arc};

use domain::{
    ids::{EventId, WorkspaceId},
    recorded::{Family, StreamName},
    time::Timestamp,
};

use super::{
    chain::{Chains, Head, heads_hash},
    disk::{PathError, write_whole},
    files::{Segment, checkpoint_path},
    frame::{self, Parsed},
    index::{FamilyIndex, Index, Location, Noted, StreamEntry},
    published::{Durable, End, Shared},
    scan::{AllSegments, Resume},
};

/// Type and layout; a change of what is written below is a new number.
const LAYOUT: &[u8; 16] = b"pconnect index 2";

/// Writes a checkpoint of the running log. Answers its size in bytes.
///
/// # Errors
/// As the system says; the old checkpoint stays.
pub(crate) fn write(shared: &Shared) -> Result<u64, PathError> {
    // In memory first: no lock is held while a disk is slow.
    let mut out = Vec::new();
    out.extend_from_slice(LAYOUT);
    out.extend_from_slice(shared.log_id.as_bytes());
    // Nothing is retired while a checkpoint is written: numbers of segments begin anew with the next start.
    let _still = shared.retiring.lock();
    let gone = Family::ALL.map(|family| shared.index.family(family).read().gone);
    let position = put_durable(&mut out, &shared.durable.lock(), gone);
    for family in Family::ALL {
        let index = shared.index.family(family).read();
        put_number(&mut out, index.kept().len() as u64);
        for segment in index.kept() {
            put_short(&mut out, segment.name());
            put_number(&mut out, segment.end());
        }
        let noted = index.noted.iter().take_while(|noted| noted.position <= position);
        put_number(&mut out, noted.clone().count() as u64);
        for noted in noted {
            put_number(&mut out, noted.position);
            put_number(&mut out, noted.location.moved_down(index.gone).raw());
        }
    }
    // Not under one lock: streams may grow meanwhile, and new ones come. Each is whole, which is all that counts.
    for entry in &shared.index.streams {
        put_short(&mut out, entry.key().as_str());
        let gone = gone[entry.key().family() as usize];
        put_number(&mut out, entry.base);
        put_number(&mut out, entry.locations.len() as u64);
        for location in &entry.locations {
            put_number(&mut out, location.moved_down(gone).raw());
        }
        put_number(&mut out, entry.recent.len() as u64);
        for id in &entry.recent {
            out.extend_from_slice(id.uuid().as_bytes());
        }
    }
    out.push(0);
    // How far the streams may be ahead of `position`: a log that ends before this is not the one seen here.
    put_number(&mut out, *shared.head.borrow());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    write_whole(&checkpoint_path(&shared.data), &out)?;
    Ok(out.len() as u64)
}

fn put_durable(out: &mut Vec<u8>, durable: &Durable, gone: [usize; 3]) -> u64 {
    put_number(out, durable.commit);
    put_number(out, durable.position);
    put_number(out, durable.recorded_at().millis().cast_unsigned());
    out.extend_from_slice(&heads_hash(&durable.chains.heads));
    put_number(out, durable.chains.heads.len() as u64);
    for ((workspace, family), head) in &durable.chains.heads {
        out.extend_from_slice(workspace.uuid().as_bytes());
        out.push(*family as u8);
        put_number(out, head.seq);
        out.extend_from_slice(&head.link);
    }
    for (end, gone) in durable.ends.iter().zip(gone) {
        put_number(out, end.map_or(u64::MAX, |end| (end.at.segment - gone) as u64));
        put_number(out, end.map_or(0, |end| end.at.offset));
        put_number(out, end.map_or(0, |end| end.last));
    }
    durable.position
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}
fn put_short(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("names have at most 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

/// What a checkpoint gives a start.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) durable: Durable,
    pub(crate) index: Index,
    /// The log must reach this, else the checkpoint is of another one.
    pub(crate) reaches: u64,
}

/// Reads the checkpoint of this log; `None` when there is none that fits these segments.
pub(crate) fn load(data: &Path, log_id: uuid::Uuid, segments: &AllSegments) -> Option<Loaded> {
    let bytes = std::fs::read(checkpoint_path(data)).ok()?;
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content).to_le_bytes() != *crc {
        return None;
    }
    let mut input = In(content);
    if input.take(16)? != LAYOUT || input.take(16)? != log_id.as_bytes() {
        return None;
    }
    let durable = read_durable(&mut input)?;
    let index = Index::default();
    for family in Family::ALL {
        read_family(&mut input, &index, family, &segments[family as usize], &durable)?;
    }
    while let Some(stream) = input.short()? {
        let base = input.number()?;
        let count = input.count(8)?;
        let mut entry = StreamEntry { base, locations: Vec::with_capacity(count), recent: Vec::new() };
        for _ in 0..count {
            entry.locations.push(Location::from_raw(input.number()?));
        }
        let count = input.count(16)?;
        entry.recent.reserve(count);
        for _ in 0..count {
            entry.recent.push(EventId::new(input.uuid()?));
        }
        index.streams.insert(StreamName::parse(stream)?, entry);
    }
    let reaches = input.number()?;
    let loaded = Loaded { durable, index, reaches };
    input.0.is_empty().then_some(loaded)
}

fn read_durable(input: &mut In<'_>) -> Option<Durable> {
    let mut durable = Durable { commit: input.number()?, position: input.number()?, ..Durable::default() };
    let recorded_at = Timestamp::from_millis(input.number()?.cast_signed());
    let hash = input.take(32)?;
    let mut chains =
        Chains { recorded_at: (durable.position > 0).then_some(recorded_at), ..Chains::default() };
    for _ in 0..input.count(57)? {
        let workspace = WorkspaceId::new(input.uuid()?);
        let family = *Family::ALL.get(usize::from(input.take(1)?[0]))?;
        let head = Head { seq: input.number()?, link: input.take(32)?.try_into().ok()? };
        chains.heads.insert((workspace, family), head);
    }
    if heads_hash(&chains.heads) != hash {
        return None;
    }
    durable.chains = chains;
    for end in &mut durable.ends {
        let (segment, offset, last) = (input.number()?, input.number()?, input.number()?);
        if segment != u64::MAX {
            *end = Some(End { at: Resume { segment: usize::try_from(segment).ok()?, offset }, last });
        }
    }
    Some(durable)
}

fn read_family(
    input: &mut In<'_>,
    index: &Index,
    family: Family,
    segments: &[Arc<Segment>],
    durable: &Durable,
) -> Option<()> {
    let end = durable.ends[family as usize];
    for at in 0..input.count(9)? {
        // The segments must be the same ones; newer ones may have come.
        let segment = segments.get(at)?;
        let (name, committed) = (input.short()??, input.number()?);
        if segment.name() != name {
            return None;
        }
        match end {
            Some(end) if at < end.at.segment => segment.publish_end(committed),
            Some(end) if at == end.at.segment => segment.publish_end(end.at.offset),
            _ => {}
        }
    }
    let mut family_index = index.family(family).write();
    family_index.segments = segments.to_vec();
    family_index.last = end.map_or(0, |end| end.last);
    for _ in 0..input.count(16)? {
        let noted = Noted { position: input.number()?, location: Location::from_raw(input.number()?) };
        family_index.noted.push(noted);
    }
    end.is_none_or(|end| tail_fits(&family_index, family, end, durable)).then_some(())
}

/// Whether the family holds, where the checkpoint ends, the very event that it saw last.
fn tail_fits(index: &FamilyIndex, family: Family, end: End, durable: &Durable) -> bool {
    let Some(noted) = index.noted.last() else { return false };
    let Some(segment) = index.segments.get(end.at.segment) else { return false };
    let from = noted.location.offset();
    let Some(length) = end.at.offset.checked_sub(from).and_then(|length| usize::try_from(length).ok()) else {
        return false;
    };
    let mut bytes = vec![0; length];
    let read = segment.open().and_then(|file| file.read_exact_at(&mut bytes, from));
    if noted.location.segment() != end.at.segment || read.is_err() {
        return false;
    }
    let (mut at, mut last) = (0, None);
    while at < bytes.len() {
        match frame::parse(&bytes[at..]) {
            (Parsed::Event(event), length) => {
                last = Some(event);
                at += length;
            }
            (Parsed::Mark(_), length) => at += length,
            (Parsed::Empty | Parsed::Bad(_), _) => return false,
        }
    }
    last.is_some_and(|event| {
        let head = durable.chains.heads.get(&(event.workspace(), family));
        event.position() == end.last && head == Some(&Head { seq: event.seq(), link: event.link() })
    })
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
    /// A count of things of at least `each` bytes: never more than can follow.
    fn count(&mut self, each: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|count| count.saturating_mul(each) <= self.0.len())
    }
    fn uuid(&mut self) -> Option<uuid::Uuid> {
        uuid::Uuid::from_slice(self.take(16)?).ok()
    }
    /// A short text; the inner `None` for an empty one, which ends a list.
    fn short(&mut self) -> Option<Option<&'a str>> {
        let length = usize::from(self.take(1)?[0]);
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        Some((!text.is_empty()).then_some(text))
    }
}

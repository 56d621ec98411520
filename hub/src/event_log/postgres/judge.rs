//! Judging appends and giving them their places: pure, on what is known of the log.
//!
//! What the batch in the making adds counts as if it were there: nobody is answered before it is committed. Whether an
//! id is recorded somewhere is asked of the database only where it matters: most are new, and a batch in which one is
//! not is refused by the database and judged again.

use std::collections::{BTreeMap, HashMap};

use domain::{
    ids::{EventId, WorkspaceId},
    recorded::{Family, StreamName},
    time::Timestamp,
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Durable, unsigned, writer::Request};
use crate::event_log::{
    AppendError, Appended, Expected, limits,
    segments::{
        chain::Head,
        frame::{self, Link, Place},
    },
};

/// Revisions of streams: `$1` names them.
pub(super) const REVISIONS: &str = "
SELECT wanted.stream, coalesce((
    SELECT events.revision FROM private_connect.events
    WHERE events.stream = wanted.stream ORDER BY events.revision DESC LIMIT 1), 0)
FROM unnest($1::text[]) AS wanted (stream)";

/// Where events are recorded: `$1` has their ids.
pub(super) const KNOWN: &str = "
SELECT id, stream, revision, position, recorded_at FROM private_connect.events WHERE id = ANY ($1::uuid[])";

/// Where an event is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    stream: StreamName,
    revision: u64,
    position: u64,
    recorded_at: Timestamp,
}

/// A row of [`KNOWN`].
pub(super) fn found(row: &Row) -> Option<(EventId, Found)> {
    let id: Uuid = row.try_get(0).ok()?;
    let found = Found {
        stream: StreamName::parse(row.try_get(1).ok()?)?,
        revision: unsigned(row.try_get(2).ok()?)?,
        position: unsigned(row.try_get(3).ok()?)?,
        recorded_at: Timestamp::from_millis(row.try_get(4).ok()?),
    };
    Some((EventId::new(id), found))
}

/// What is known of the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) durable: &'a Durable,
    /// Of every stream that is appended to.
    pub(super) revisions: &'a HashMap<StreamName, u64>,
    /// Of all events that are appended, if that was asked: those that are recorded.
    pub(super) known: Option<&'a HashMap<EventId, Found>>,
}

/// An event of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Which request, and which of its events.
    pub(super) request: usize,
    pub(super) event: usize,
    pub(super) place: Place,
    pub(super) link: Link,
}

/// What becomes of an append.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) result: Result<Appended, AppendError>,
    /// Whether it depends on the batch being committed.
    pub(super) rests_on_commit: bool,
}

/// Appends in their order, judged; events in their places.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// One for each request.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) placed: Vec<Placed>,
    /// The new ends of chains.
    pub(super) heads: BTreeMap<(WorkspaceId, Family), Head>,
    /// The new revisions of streams.
    pub(super) revisions: HashMap<StreamName, u64>,
    pub(super) position: u64,
    pub(super) recorded_at: Option<Timestamp>,
    ids: HashMap<EventId, Found>,
}

/// It matters which ids are recorded, and that was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeedsKnown;

/// Judges requests in their order and writes the places into their frames.
///
/// # Errors
/// [`NeedsKnown`]; never when that is there.
pub(super) fn judge(requests: &mut [Box<Request>], view: View<'_>) -> Result<Batch, NeedsKnown> {
    let mut judging = Judging { view, batch: Batch::default() };
    judging.batch.position = view.durable.position;
    judging.batch.recorded_at = view.durable.recorded_at;
    for (number, request) in requests.iter_mut().enumerate() {
        let looked_up = judging.look_up(request)?;
        let verdict = match looked_up {
            Ok(Some(appended)) => {
                Verdict { rests_on_commit: appended.position > view.durable.position, result: Ok(appended) }
            }
            Ok(None) => Verdict { result: Ok(judging.place(number, request)), rests_on_commit: true },
            Err(error) => Verdict {
                result: Err(error),
                rests_on_commit: judging.batch.revisions.contains_key(&request.append.stream),
            },
        };
        judging.batch.verdicts.push(verdict);
    }
    Ok(judging.batch)
}

struct Judging<'a> {
    view: View<'a>,
    batch: Batch,
}

impl Judging<'_> {
    fn revision(&self, stream: &StreamName) -> u64 {
        let grown = self.batch.revisions.get(stream);
        grown.or_else(|| self.view.revisions.get(stream)).copied().unwrap_or(0)
    }

    /// As far as it is known.
    fn seen(&self, id: EventId) -> Option<&Found> {
        self.batch.ids.get(&id).or_else(|| self.view.known?.get(&id))
    }

    fn certainly(&self, id: EventId) -> Result<Option<&Found>, NeedsKnown> {
        match (self.seen(id), self.view.known) {
            (None, None) => Err(NeedsKnown),
            (seen, _) => Ok(seen),
        }
    }

    /// The first answer again, if these events are recorded where they would go; `None`, if they may be placed.
    fn look_up(&self, request: &Request) -> Result<Result<Option<Appended>, AppendError>, NeedsKnown> {
        let append = &request.append;
        let actual = self.revision(&append.stream);
        let conflict = || AppendError::Conflict { stream: append.stream.clone(), actual };
        let elsewhere = |id| AppendError::Refused(limits::recorded_elsewhere(id));
        let first = match append.expected {
            Expected::Revision(revision) if revision > actual => return Ok(Err(conflict())),
            Expected::Revision(revision) if revision < actual => revision + 1,
            Expected::Revision(_) | Expected::Any => {
                let id = append.events[0].id;
                match self.seen(id) {
                    Some(found) if append.expected == Expected::Any && found.stream == append.stream => {
                        found.revision
                    }
                    Some(_) => return Ok(Err(elsewhere(id))),
                    None => {
                        let known = append.events.iter().find(|event| self.seen(event.id).is_some());
                        return Ok(known.map_or(Ok(None), |event| Err(elsewhere(event.id))));
                    }
                }
            }
        };
        let mut last = None;
        for (revision, event) in (first..).zip(&append.events) {
            last = self
                .certainly(event.id)?
                .filter(|found| found.stream == append.stream && found.revision == revision);
            if last.is_none() {
                break;
            }
        }
        Ok(match (last, append.expected) {
            (Some(found), _) => Ok(Some(Appended {
                position: found.position,
                revision: found.revision,
                recorded_at: found.recorded_at,
            })),
            (None, Expected::Revision(_)) => Err(conflict()),
            (None, Expected::Any) => Err(elsewhere(append.events[0].id)),
        })
    }

    /// Gives the events of a request their places in the batch.
    fn place(&mut self, number: usize, request: &mut Request) -> Appended {
        let append = &request.append;
        let family = append.stream.family();
        // Time in the log never runs backwards.
        let recorded_at = self.batch.recorded_at.map_or(append.at, |last| last.max(append.at));
        let mut revision = self.revision(&append.stream);
        let batch = &mut self.batch;
        batch.recorded_at = Some(recorded_at);
        let chain = (append.workspace, family);
        let durable = self.view.durable;
        let head = batch
            .heads
            .entry(chain)
            .or_insert_with(|| durable.heads.get(&chain).copied().unwrap_or_default());
        let mut offset = 0;
        for (event, new) in append.events.iter().enumerate() {
            let frames = &mut request.frames[offset..];
            let length = frame::event_frame_bytes(frames).expect("encoded by the caller of this very append");
            batch.position += 1;
            revision += 1;
            let place = Place { position: batch.position, seq: head.seq + 1, revision, recorded_at };
            let link = frame::place(&mut frames[..length], place, &head.link);
            *head = Head { seq: place.seq, link };
            batch.placed.push(Placed { request: number, event, place, link });
            let (stream, position) = (append.stream.clone(), place.position);
            batch.ids.insert(new.id, Found { stream, revision, position, recorded_at });
            offset += length;
        }
        batch.revisions.insert(append.stream.clone(), revision);
        Appended { position: batch.position, revision, recorded_at }
    }
}

#[cfg(test)]
mod tests;

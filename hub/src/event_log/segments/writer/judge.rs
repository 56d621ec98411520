//! Judging an append: is the stream where its writer expects it, are these events recorded already?
//!
//! What the commit in the making adds counts as if it were there: nobody is answered before it is durable.

use domain::{
    ids::EventId,
    recorded::{Recorded, StreamName},
};

use super::{
    super::{
        super::{AppendError, Appended, Expected, limits},
        index::Location,
        reader,
    },
    Growth, NewPlace, Request, Writer,
};

impl Writer {
    fn revision(&self, stream: &StreamName) -> u64 {
        let growth = self.batch.streams.get(stream);
        growth.map_or_else(|| self.shared.index.revision(stream), Growth::revision)
    }

    /// The first answer again, if these events are recorded where they would go; `None`, if they may be placed.
    pub(super) fn look_up(&self, request: &Request) -> Result<Option<Appended>, AppendError> {
        let actual = self.revision(&request.stream);
        let conflict = || AppendError::Conflict { stream: request.stream.clone(), actual };
        let first = match request.expected {
            Expected::Revision(revision) if revision > actual => return Err(conflict()),
            Expected::Revision(revision) if revision < actual => revision + 1,
            Expected::Revision(_) | Expected::Any => match self.recent(request, actual) {
                None => return Ok(None),
                Some((revision, _)) if request.expected == Expected::Any => revision,
                Some((_, id)) => return Err(AppendError::Refused(limits::recorded_elsewhere(id))),
            },
        };
        let last = first + request.ids.len() as u64 - 1;
        let same = last <= actual && self.ids_match(request, first)?;
        match (same, request.expected) {
            (true, _) => self.at_revision(&request.stream, last).map(Some),
            (false, Expected::Revision(_)) => Err(conflict()),
            (false, Expected::Any) => Err(AppendError::Refused(limits::recorded_elsewhere(request.ids[0]))),
        }
    }

    /// The revision at which the stream's newer events hold one of these ids; of the first, if it is there.
    fn recent(&self, request: &Request, actual: u64) -> Option<(u64, EventId)> {
        let find = |recorded: &EventId, revision: u64| {
            request.ids.iter().position(|id| id == recorded).map(|nth| (nth, revision, *recorded))
        };
        let growth = self.batch.streams.get(&request.stream);
        let base = growth.map_or(actual, |growth| growth.base);
        let grown = growth.map_or(&[][..], |growth| &growth.events[..]);
        let mut found = (base + 1..).zip(grown).filter_map(|(revision, new)| find(&new.id, revision)).min();
        if base > 0
            && let Some(entry) = self.shared.index.streams.get(&request.stream)
        {
            let from = entry.revision() - entry.recent.len() as u64 + 1;
            // One pass for one event, the usual case; a large append is rare.
            let known = (from..).zip(&entry.recent).filter_map(|(revision, id)| find(id, revision)).min();
            found = [found, known].into_iter().flatten().min();
        }
        found.map(|(_, revision, id)| (revision, id))
    }

    /// Whether the stream holds exactly these ids from `first` on.
    fn ids_match(&self, request: &Request, first: u64) -> Result<bool, AppendError> {
        for (revision, id) in (first..).zip(&request.ids) {
            if self.id_at(&request.stream, revision)? != Some(*id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn id_at(&self, stream: &StreamName, revision: u64) -> Result<Option<EventId>, AppendError> {
        if let Some(new) = self.grown(stream, revision) {
            return Ok(Some(new.id));
        }
        let location = {
            let Some(entry) = self.shared.index.streams.get(stream) else { return Ok(None) };
            let oldest = entry.revision() - entry.recent.len() as u64 + 1;
            if revision >= oldest {
                return Ok(entry.recent.get((revision - oldest) as usize).copied());
            }
            entry.location(revision)
        };
        location.map(|location| self.read(stream, location).map(|event| event.id)).transpose()
    }

    fn grown(&self, stream: &StreamName, revision: u64) -> Option<&NewPlace> {
        let growth = self.batch.streams.get(stream)?;
        let nth = usize::try_from(revision.checked_sub(growth.base + 1)?).ok()?;
        growth.events.get(nth)
    }

    fn at_revision(&self, stream: &StreamName, revision: u64) -> Result<Appended, AppendError> {
        if let Some(new) = self.grown(stream, revision) {
            return Ok(Appended { position: new.position, revision, recorded_at: new.recorded_at });
        }
        let location = {
            let entry = self.shared.index.streams.get(stream);
            entry.and_then(|entry| entry.location(revision))
        };
        let location = location.ok_or_else(|| AppendError::Unavailable("the index lost a stream".into()))?;
        let event = self.read(stream, location)?;
        Ok(Appended { position: event.position, revision, recorded_at: event.recorded_at })
    }

    fn read(&self, stream: &StreamName, location: Location) -> Result<Recorded, AppendError> {
        reader::read_at(&self.shared, stream.family(), location)
            .map_err(|error| AppendError::Unavailable(error.to_string()))
    }
}

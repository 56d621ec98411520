//! The in-memory engine, for tests: the semantics of the port without a disk, and faults on demand.
//!
//! Nothing survives it; everything else (expected revisions, idempotence, order, limits, close) is as in
//! `segments`, and one contract suite holds for both.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use domain::{
    ids::{EventId, WorkspaceId},
    recorded::{Families, Family, Personal, Recorded, StreamName},
    time::Timestamp,
};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Append, AppendError, Appended, EventLog, Expected, ReadError, limits};

/// What goes wrong with one append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Certainly not written: [`AppendError::Unavailable`].
    Refuse(String),
    /// Written, but the writer is told [`AppendError::InDoubt`].
    InDoubtWritten,
    /// Not written, and the writer is told [`AppendError::InDoubt`].
    InDoubtLost,
    /// Not written: [`AppendError::Conflict`], as if another writer had been faster.
    Conflict,
    /// Takes that long, then goes on as usual.
    Delay(Duration),
}

/// An event log in memory. Cheap to make, one per test.
#[derive(Debug)]
pub struct Memory {
    log_id: uuid::Uuid,
    state: Mutex<State>,
    head: watch::Sender<u64>,
    /// Events that readers of the whole log were given.
    given: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Recorded>,
    /// Stream → positions, oldest first.
    streams: HashMap<StreamName, Vec<u64>>,
    ids: HashMap<EventId, u64>,
    seqs: HashMap<(WorkspaceId, Family), u64>,
    last_recorded: Option<Timestamp>,
    faults: VecDeque<(Option<String>, Fault)>,
    unwritable: Option<String>,
    closed: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty log.
    pub fn new() -> Self {
        Self {
            log_id: uuid::Uuid::new_v4(),
            state: Mutex::new(State::default()),
            head: watch::Sender::new(0),
            given: AtomicU64::new(0),
        }
    }

    /// Lets the next append that no earlier fault waits for run into `fault`.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push_back((None, fault));
    }

    /// Lets the next append to a stream whose name starts with `prefix` run into `fault`.
    pub fn inject_on(&self, prefix: &str, fault: Fault) {
        self.state.lock().faults.push_back((Some(prefix.to_owned()), fault));
    }

    /// Refuses every append with this reason until it is `None` again; `writable()` says so.
    pub fn set_unwritable(&self, reason: Option<&str>) {
        self.state.lock().unwritable = reason.map(str::to_owned);
    }

    /// How many events readers of the whole log were given so far: what they cost.
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Everything recorded so far, in order.
    pub fn events(&self) -> Vec<Recorded> {
        self.state.lock().events.clone()
    }

    fn take_fault(&self, stream: &StreamName) -> Option<Fault> {
        let mut state = self.state.lock();
        let at = state.faults.iter().position(|(prefix, _)| {
            prefix.as_ref().is_none_or(|prefix| stream.as_str().starts_with(prefix))
        })?;
        state.faults.remove(at).map(|(_, fault)| fault)
    }

    fn record(&self, append: Append) -> Result<Appended, AppendError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(AppendError::Unavailable("the event log is closed".into()));
        }
        if let Some(reason) = &state.unwritable {
            return Err(AppendError::Unavailable(reason.clone()));
        }
        limits::check(&append).map_err(AppendError::Refused)?;
        if let Some(appended) = state.recorded_before(&append)? {
            return Ok(appended);
        }
        let appended = state.push(append);
        self.head.send_replace(appended.position);
        Ok(appended)
    }
}

impl State {
    fn revision(&self, stream: &StreamName) -> u64 {
        self.streams.get(stream).map_or(0, |positions| positions.len() as u64)
    }

    /// The first answer again if these very events stand at the expected place; an error if they may not be
    /// written; `None` if they are new and their place is free.
    fn recorded_before(&self, append: &Append) -> Result<Option<Appended>, AppendError> {
        let actual = self.revision(&append.stream);
        let first = match (append.expected, self.ids.get(&append.events[0].id)) {
            (Expected::Revision(revision), _) if revision > actual => {
                return Err(AppendError::Conflict { stream: append.stream.clone(), actual });
            }
            (Expected::Revision(revision), _) if revision < actual => revision + 1,
            (_, Some(position)) => {
                let event = &self.events[*position as usize - 1];
                if event.stream != append.stream || append.expected != Expected::Any {
                    return Err(AppendError::Refused(limits::recorded_elsewhere(event.id)));
                }
                event.revision
            }
            (_, None) => {
                let known = append.events.iter().find(|event| self.ids.contains_key(&event.id));
                return known.map_or(Ok(None), |event| {
                    Err(AppendError::Refused(limits::recorded_elsewhere(event.id)))
                });
            }
        };
        let positions = self.streams.get(&append.stream).map_or(&[][..], |positions| &positions[..]);
        let there =
            positions.iter().skip(first as usize - 1).map(|position| &self.events[*position as usize - 1]);
        let last = there.clone().take(append.events.len()).next_back();
        let same = there.clone().count() >= append.events.len()
            && there.zip(&append.events).all(|(event, new)| event.id == new.id);
        match (last, same, append.expected) {
            (Some(last), true, _) => Ok(Some(Appended {
                position: last.position,
                revision: last.revision,
                recorded_at: last.recorded_at,
            })),
            (_, _, Expected::Revision(_)) => {
                Err(AppendError::Conflict { stream: append.stream.clone(), actual })
            }
            (_, _, Expected::Any) => {
                Err(AppendError::Refused(limits::recorded_elsewhere(append.events[0].id)))
            }
        }
    }

    fn push(&mut self, append: Append) -> Appended {
        let recorded_at = self.last_recorded.map_or(append.at, |last| last.max(append.at));
        self.last_recorded = Some(recorded_at);
        let mut revision = self.revision(&append.stream);
        for event in append.events {
            let position = self.events.len() as u64 + 1;
            revision += 1;
            let seq = self.seqs.entry((append.workspace, append.stream.family())).or_default();
            *seq += 1;
            self.ids.insert(event.id, position);
            self.streams.entry(append.stream.clone()).or_default().push(position);
            self.events.push(Recorded {
                position,
                seq: *seq,
                stream: append.stream.clone(),
                revision,
                id: event.id,
                event_type: event.event_type.into(),
                version: event.version,
                recorded_at,
                workspace: append.workspace,
                actor: append.actor.clone(),
                causation: event.causation,
                correlation: append.correlation,
                data: event.data.into(),
                personal: event.personal.map_or(Personal::None, Personal::Sealed),
            });
        }
        Appended { position: self.events.len() as u64, revision, recorded_at }
    }
}

impl EventLog for Memory {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            match self.take_fault(&append.stream) {
                None => self.record(append),
                Some(Fault::Refuse(reason)) => Err(AppendError::Unavailable(reason)),
                Some(Fault::Conflict) => {
                    let actual = self.state.lock().revision(&append.stream);
                    Err(AppendError::Conflict { stream: append.stream, actual })
                }
                Some(Fault::InDoubtLost) => Err(AppendError::InDoubt("injected, not written".into())),
                Some(Fault::InDoubtWritten) => {
                    self.record(append)?;
                    Err(AppendError::InDoubt("injected, written".into()))
                }
                Some(Fault::Delay(span)) => {
                    tokio::time::sleep(span).await;
                    self.record(append)
                }
            }
        }
        .boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        from_revision: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, ReadError>> {
        async move {
            let state = self.state.lock();
            let positions = state.streams.get(stream).map_or(&[][..], |positions| &positions[..]);
            let skip = usize::try_from(from_revision.max(1) - 1).unwrap_or(usize::MAX);
            let events = positions.iter().skip(skip).take(limit);
            Ok(events.map(|position| state.events[*position as usize - 1].clone()).collect())
        }
        .boxed()
    }

    fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, ReadError>> {
        async move {
            let state = self.state.lock();
            let skip = usize::try_from(after).unwrap_or(usize::MAX);
            let wanted = state.events.iter().skip(skip).filter(|event| families.contains(event.family()));
            let found: Vec<Recorded> = wanted.take(limit).cloned().collect();
            self.given.fetch_add(u64::try_from(found.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
            Ok(found)
        }
        .boxed()
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    fn log_id(&self) -> uuid::Uuid {
        self.log_id
    }

    fn intact(&self) -> Result<(), String> {
        Ok(())
    }

    fn writable(&self) -> Result<(), String> {
        let state = self.state.lock();
        if state.closed {
            return Err("the event log is closed".into());
        }
        state.unwritable.clone().map_or(Ok(()), Err)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move { self.state.lock().closed = true }.boxed()
    }
}

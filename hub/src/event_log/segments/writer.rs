//! The writer: one thread that judges, places, writes and syncs; the only one that changes the log.
//!
//! What waits becomes one commit: judged in order, one write and one sync per family that it touches, then every caller
//! is answered. Nothing is shown to readers and nobody is told anything before that. There is no timer: a lone append
//! is written at once, and while the disk works the next commit gathers.

mod judge;

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use domain::{
    ids::{EventId, WorkspaceId},
    recorded::{Family, StreamName},
    time::Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    super::{AppendError, Appended, Expected},
    chain::Head,
    frame::{self, Mark, Place},
    index::Location,
    keeper::Keeper,
    output::{Output, WriteError},
    published::{End, Health, Shared},
    scan::Resume,
};

/// A commit takes no more appends from here on: what waits longer than this takes to write is felt as latency.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// Nor more appends than this.
const COMMIT_APPENDS: usize = 4_096;
/// How often a log that ran out of room looks whether there is some again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// An append on its way to the writer: encoded by its caller, but for its place.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) stream: StreamName,
    pub(crate) expected: Expected,
    pub(crate) workspace: WorkspaceId,
    pub(crate) at: Timestamp,
    pub(crate) ids: Vec<EventId>,
    /// One frame after the other.
    pub(crate) frames: Vec<u8>,
    pub(crate) queued: Instant,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
    /// Its share of the queue.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What the writer is told.
#[derive(Debug)]
pub(crate) enum Message {
    Append(Box<Request>),
    Close,
}

/// An event of the commit in the making.
#[derive(Debug, Clone, Copy)]
struct NewPlace {
    id: EventId,
    position: u64,
    recorded_at: Timestamp,
    /// Offset in its family's part.
    offset: usize,
}

/// What the commit in the making adds to a stream.
#[derive(Debug, Default)]
struct Growth {
    /// The durable revision.
    base: u64,
    events: Vec<NewPlace>,
}

impl Growth {
    fn revision(&self) -> u64 {
        self.base + self.events.len() as u64
    }
}

/// The commit in the making. Dropping it undoes it: nothing durable knows of it.
#[derive(Debug, Default)]
struct Batch {
    streams: HashMap<StreamName, Growth>,
    heads: HashMap<(WorkspaceId, Family), Head>,
    parts: [Vec<u8>; 3],
    counts: [u32; 3],
    /// Position and offset of each event, per family.
    placed: [Vec<(u64, usize)>; 3],
    position: u64,
    recorded_at: Option<Timestamp>,
    answers: Vec<Answer>,
}

#[derive(Debug)]
struct Answer {
    reply: oneshot::Sender<Result<Appended, AppendError>>,
    queued: Instant,
    result: Result<Appended, AppendError>,
    /// Whether the answer depends on this commit becoming durable.
    rests_on_commit: bool,
}

/// The writer's state.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    output: Output,
    queue: mpsc::Receiver<Message>,
    /// Taken from the queue, but for another day's segment.
    held: Option<Box<Request>>,
    closing: bool,
    batch: Batch,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, output: Output, queue: mpsc::Receiver<Message>) -> Self {
        Self { shared, output, queue, held: None, closing: false, batch: Batch::default() }
    }

    /// Runs until it is told to close, then lets `keeper` seal and gives up its files.
    pub(crate) fn run(mut self, keeper: Keeper) {
        // A panic must not leave a log that looks writable: every later append is told.
        let guard = FailOnUnwind(Arc::clone(&self.shared));
        while let Some(first) = self.next() {
            self.commit(*first);
        }
        keeper.stop();
        self.output.close();
        {
            let mut health = self.shared.health.lock();
            if !matches!(*health, Health::Failed(_)) {
                *health = Health::Closed;
            }
        }
        // What came too late is told so; what comes even later finds the queue gone.
        for message in self.queue.try_iter() {
            if let Message::Append(request) = message {
                let reason = "the event log is closed".to_owned();
                drop(request.reply.send(Err(AppendError::Unavailable(reason))));
            }
        }
        drop(guard);
    }

    /// Waits for an append; `None`: close.
    fn next(&mut self) -> Option<Box<Request>> {
        loop {
            if let Some(held) = self.held.take() {
                return Some(held);
            }
            if self.closing {
                return None;
            }
            let full = matches!(*self.shared.health.lock(), Health::Full(_));
            let received = if full {
                self.queue.recv_timeout(PROBE_EVERY)
            } else {
                self.queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            };
            match received {
                Ok(Message::Append(request)) => return Some(request),
                Ok(Message::Close) | Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => self.probe(),
            }
        }
    }

    fn probe(&self) {
        if self.output.has_room() {
            *self.shared.health.lock() = Health::Writable;
        }
    }

    /// Gathers what waits behind `first` and commits it.
    fn commit(&mut self, first: Request) {
        {
            let durable = self.shared.durable.lock();
            self.batch.position = durable.position;
            self.batch.recorded_at = durable.chains.recorded_at;
        }
        let day = self.recorded_at(first.at).day();
        self.judge(first);
        while self.batch.answers.len() < COMMIT_APPENDS && self.bytes() < COMMIT_BYTES {
            match self.queue.try_recv() {
                // A segment holds one day.
                Ok(Message::Append(request)) if self.recorded_at(request.at).day() != day => {
                    self.held = Some(request);
                    break;
                }
                Ok(Message::Append(request)) => self.judge(*request),
                Ok(Message::Close) => {
                    self.closing = true;
                    break;
                }
                Err(_) => break,
            }
        }
        let outcome = if self.bytes() == 0 { Ok(()) } else { self.write(day) };
        self.answer(outcome);
    }

    fn bytes(&self) -> usize {
        self.batch.parts.iter().map(Vec::len).sum()
    }

    /// Time in the log never runs backwards.
    fn recorded_at(&self, at: Timestamp) -> Timestamp {
        self.batch.recorded_at.map_or(at, |last| last.max(at))
    }

    /// Places the events of a request, or finds out why not. The answer waits for the commit.
    fn judge(&mut self, request: Request) {
        let rests_on_commit;
        let result = match self.look_up(&request) {
            Ok(Some(appended)) => {
                rests_on_commit = appended.position > self.shared.durable.lock().position;
                Ok(appended)
            }
            Ok(None) => {
                rests_on_commit = true;
                let health = self.shared.health.lock().clone();
                if let Health::Failed(reason) = health {
                    Err(AppendError::Unavailable(reason))
                } else {
                    Ok(self.place(&request))
                }
            }
            Err(error) => {
                rests_on_commit = self.batch.streams.contains_key(&request.stream);
                Err(error)
            }
        };
        // Out of the queue, so the next may come in.
        drop(request.permit);
        self.batch.answers.push(Answer {
            reply: request.reply,
            queued: request.queued,
            result,
            rests_on_commit,
        });
    }

    /// Gives the events their places in the commit.
    fn place(&mut self, request: &Request) -> Appended {
        let family = request.stream.family();
        let recorded_at = self.recorded_at(request.at);
        let base = self.shared.index.revision(&request.stream);
        let batch = &mut self.batch;
        batch.recorded_at = Some(recorded_at);
        let head = batch.heads.entry((request.workspace, family)).or_insert_with(|| {
            let durable = self.shared.durable.lock();
            durable.chains.heads.get(&(request.workspace, family)).copied().unwrap_or_default()
        });
        let growth = batch
            .streams
            .entry(request.stream.clone())
            .or_insert_with(|| Growth { base, events: Vec::new() });
        let part = &mut batch.parts[family as usize];
        let mut offset = part.len();
        part.extend_from_slice(&request.frames);
        for id in &request.ids {
            let length =
                frame::event_frame_bytes(&part[offset..]).expect("encoded by the caller of this very append");
            batch.position += 1;
            let place = Place {
                position: batch.position,
                seq: head.seq + 1,
                revision: growth.revision() + 1,
                recorded_at,
            };
            let link = frame::place(&mut part[offset..offset + length], place, &head.link);
            *head = Head { seq: place.seq, link };
            growth.events.push(NewPlace { id: *id, position: place.position, recorded_at, offset });
            batch.placed[family as usize].push((place.position, offset));
            batch.counts[family as usize] += 1;
            offset += length;
        }
        Appended { position: batch.position, revision: growth.revision(), recorded_at }
    }

    /// Makes the batch durable and shows it.
    fn write(&mut self, day: i64) -> Result<(), WriteError> {
        let (commit, first) = {
            let durable = self.shared.durable.lock();
            (durable.commit + 1, durable.position + 1)
        };
        for family in Family::ALL {
            let part = &mut self.batch.parts[family as usize];
            if part.is_empty() {
                continue;
            }
            let part_bytes =
                u32::try_from(part.len() + frame::MARK_BYTES).expect("a commit is bounded to 20 MiB");
            let (last, counts) = (self.batch.position, self.batch.counts);
            Mark { commit, first, last, counts, part_bytes, family }.write(part);
            self.output.write(family, part, self.batch.placed[family as usize][0].0, day);
        }
        self.output.finish()?;
        self.publish(commit);
        Ok(())
    }

    /// Shows a durable commit: index first, then the state, then the head that readers watch.
    fn publish(&mut self, commit: u64) {
        let batch = &mut self.batch;
        let mut ends = [None; 3];
        let mut bases = [(0, 0); 3];
        let mut bytes = 0;
        for written in self.output.take_written() {
            let family = written.family as usize;
            let mut index = self.shared.index.family(written.family).write();
            if written.new_segment {
                index.segments.push(Arc::clone(&written.segment));
            }
            let number = index.segments.len() - 1;
            for (position, offset) in &batch.placed[family] {
                index.note(*position, Location::new(number, written.start + *offset as u64));
            }
            written.segment.publish_end(written.end);
            bases[family] = (number, written.start);
            ends[family] =
                Some(End { at: Resume { segment: number, offset: written.end }, last: index.last });
            bytes += written.end - written.start;
        }
        let mut events = 0;
        for (stream, growth) in batch.streams.drain() {
            let (number, start) = bases[stream.family() as usize];
            events += growth.events.len() as u64;
            let mut entry = self.shared.index.streams.entry(stream).or_default();
            for new in growth.events {
                entry.push(Location::new(number, start + new.offset as u64), new.id);
            }
        }
        {
            let mut durable = self.shared.durable.lock();
            (durable.commit, durable.position) = (commit, batch.position);
            durable.chains.recorded_at = batch.recorded_at;
            durable.chains.heads.extend(batch.heads.drain());
            durable.bytes += bytes;
            for (end, new) in durable.ends.iter_mut().zip(ends) {
                *end = new.or(*end);
            }
        }
        self.shared.stats.committed(events, bytes);
        self.shared.head.send_replace(batch.position);
        let mut health = self.shared.health.lock();
        if matches!(*health, Health::Full(_)) {
            *health = Health::Writable;
        }
    }

    /// Answers everybody, and clears the batch.
    fn answer(&mut self, outcome: Result<(), WriteError>) {
        let failure = outcome.err().map(|error| match error {
            WriteError::NotWritten(reason) => {
                tracing::warn!(reason, "an append was not written; the log is as it was");
                *self.shared.health.lock() = Health::Full(reason.clone());
                AppendError::Unavailable(reason)
            }
            WriteError::Unknown(reason) => {
                tracing::error!(reason, "the event log takes no more writes");
                *self.shared.health.lock() = Health::Failed(reason.clone());
                AppendError::InDoubt(reason)
            }
        });
        for answer in self.batch.answers.drain(..) {
            let result = match (&failure, answer.rests_on_commit, answer.result) {
                (Some(failure), true, Ok(_)) => Err(failure.clone()),
                // It was judged by an append that did not come to be: certainly not written, try again.
                (Some(_), true, Err(_)) => {
                    Err(AppendError::Unavailable("the append that it waited for failed".into()))
                }
                (_, _, result) => result,
            };
            self.shared.stats.answered(result.as_ref().map(drop), answer.queued.elapsed());
            // A caller that went away does not want to know.
            drop(answer.reply.send(result));
        }
        let batch = &mut self.batch;
        batch.streams.clear();
        batch.heads.clear();
        batch.parts.iter_mut().for_each(Vec::clear);
        batch.placed.iter_mut().for_each(Vec::clear);
        batch.counts = [0; 3];
    }
}

/// Marks the log as failed when the writer's thread unwinds.
struct FailOnUnwind(Arc<Shared>);

impl Drop for FailOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.health.lock() = Health::Failed("the log's writer panicked".into());
        }
    }
}

//! The access log's writing end: every outcome of a request to a share becomes one record in the event log.
//!
//! A request takes a [`Slot`] before anything is done for it, so that what was answered can always be recorded; when
//! there is none, or the log takes no writes, it is refused with `cannot_log`. Records are gathered for
//! `access_flush_ms`, packed per share and appended; an append that failed is repeated with the same event ids until
//! the log has it, before anything newer is written.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::{
    ids::{EventId, ShareId, WorkspaceId},
    recorded::{Actor, StreamName},
    time::Timestamp,
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use uuid::{Builder, Uuid};

use self::pack::{Gathered, PackedShare, RunningKey};
pub use self::pack::{Outcome, Visit};
use crate::{
    clock::SharedClock,
    event_log::{Append, AppendError, Expected, NewEvent, SharedLog},
    priority,
    secrets::random_bytes,
};

mod pack;

/// Requests whose record is not in the log yet; each takes at most 1.5 KiB.
pub const QUEUE_MAX: usize = 65_536;
/// Refusals of one share that get a record each, per minute.
pub const REFUSALS_PER_MIN: u32 = 600;

/// So many records are written without waiting for the flush interval: small batches keep the cores free for requests.
const MANY: usize = 256;
/// When a flush had as many records, the next ones are gathered longer: a flush costs the processor much the same,
/// however many share it.
const BUSY: usize = 32;
const BUSY_GATHERS: u32 = 3;
/// Events in one append.
const EVENTS_PER_APPEND: usize = 64;
/// How long a failed append rests, and how often a silent log is asked whether it takes writes.
const RETRY: Duration = Duration::from_millis(100);
/// Attempts at shutdown before the rest is given up.
const CLOSING_ATTEMPTS: u32 = 30;

/// Seals the personal part of an event under the key of workspace, share and day.
pub type Sealer =
    Arc<dyn Fn(WorkspaceId, ShareId, Timestamp, &str) -> Result<Box<[u8]>, String> + Send + Sync>;

/// How accesses are recorded.
#[derive(Debug, Clone, Copy)]
pub struct RecorderOptions {
    /// How long records are gathered (milliseconds); three times as long while many come.
    pub access_flush_ms: u64,
    pub queue_max: usize,
    pub refusals_per_min: u32,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self { access_flush_ms: 20, queue_max: QUEUE_MAX, refusals_per_min: REFUSALS_PER_MIN }
    }
}

/// What the writer needs.
pub struct RecorderDeps {
    pub log: SharedLog,
    pub sealer: Sealer,
    pub clock: SharedClock,
    /// This boot of this node: part of the streams' names, so that each stream has one writer.
    pub boot: Uuid,
}

impl std::fmt::Debug for RecorderDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecorderDeps").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// Told `true` when the record is durable, `false` when the log did not take it.
pub type Ack = oneshot::Sender<bool>;

/// Room for one record, held until the log has it.
#[derive(Debug)]
pub struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Shared {
    slots: AtomicUsize,
    queue_max: usize,
    queued: AtomicUsize,
    healthy: AtomicBool,
    closed: AtomicBool,
    position: AtomicU64,
    next_key: AtomicU64,
    hurry: Notify,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
enum Item {
    Over { slot: Slot, visit: Box<Visit>, outcome: Outcome, ack: Option<Ack> },
    Running { slot: Slot, visit: Box<Visit>, outcome: Outcome, key: RunningKey, ack: Option<Ack> },
    Completed { key: RunningKey, outcome: Outcome, ack: Option<Ack> },
    Flush(oneshot::Sender<u64>),
    Close(oneshot::Sender<u64>),
}

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Item>,
}

/// A running access that has a record already.
#[derive(Debug, Clone, Copy)]
pub struct Running(RunningKey);

impl Recorder {
    /// Starts the writer on a thread of its own, which [`Recorder::close`] ends.
    ///
    /// # Errors
    /// The system gives no thread or no timer.
    pub fn start(options: RecorderOptions, deps: RecorderDeps) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (recorder, writer) = Self::with_writer(options, deps);
        let thread = std::thread::Builder::new().name("access-recorder".to_owned()).spawn(move || {
            priority::go_first("access-recorder");
            runtime.block_on(writer.run());
        })?;
        *recorder.shared.thread.lock() = Some(thread);
        Ok(recorder)
    }

    fn with_writer(options: RecorderOptions, deps: RecorderDeps) -> (Self, Writer) {
        let (queue, items) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            slots: AtomicUsize::new(0),
            queue_max: options.queue_max,
            queued: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            position: AtomicU64::new(0),
            next_key: AtomicU64::new(1),
            hurry: Notify::new(),
            thread: Mutex::new(None),
        });
        let writer = Writer {
            items,
            shared: Arc::clone(&shared),
            flush_after: Duration::from_millis(options.access_flush_ms),
            last_flush: 0,
            flush_began: Instant::now(),
            gathered: Gathered::new(options.refusals_per_min),
            packed: VecDeque::new(),
            unwritten: Vec::new(),
            waiting: Waiting::default(),
            deps,
        };
        (Self { shared, queue }, writer)
    }

    /// Room for one record; `None` when the queue is full or the log takes no writes: refuse the request with
    /// `cannot_log`.
    pub fn admit(&self) -> Option<Slot> {
        if !self.shared.healthy.load(Ordering::Relaxed) || self.shared.closed.load(Ordering::Relaxed) {
            return None;
        }
        let slot = {
            self.shared.slots.fetch_add(1, Ordering::Relaxed);
            Slot(Arc::clone(&self.shared))
        };
        (self.shared.slots.load(Ordering::Relaxed) <= self.shared.queue_max).then_some(slot)
    }

    /// Queues the record of a request that is over.
    pub fn record(&self, slot: Slot, visit: Box<Visit>, outcome: Outcome, ack: Option<Ack>) {
        let hurry = ack.is_some();
        self.put(Item::Over { slot, visit, outcome, ack }, hurry);
    }

    /// Queues the record of a request that still runs; [`Recorder::complete`] must follow.
    pub fn record_running(
        &self,
        slot: Slot,
        visit: Box<Visit>,
        outcome: Outcome,
        ack: Option<Ack>,
    ) -> Running {
        let key = self.shared.next_key.fetch_add(1, Ordering::Relaxed);
        let hurry = ack.is_some();
        self.put(Item::Running { slot, visit, outcome, key, ack }, hurry);
        Running(key)
    }

    /// Queues the end of a running request.
    pub fn complete(&self, running: Running, outcome: Outcome, ack: Option<Ack>) {
        let hurry = ack.is_some();
        self.put(Item::Completed { key: running.0, outcome, ack }, hurry);
    }

    /// Waits until everything queued so far is in the log, or certainly cannot be written now; the position of the
    /// last access in the log (0: none of this boot).
    pub async fn flushed(&self) -> u64 {
        let (done, answer) = oneshot::channel();
        self.put(Item::Flush(done), true);
        answer.await.unwrap_or_else(|_| self.position())
    }

    /// Refuses new requests, writes what is queued and ends the writer. Idempotent.
    pub async fn close(&self) -> u64 {
        self.shared.closed.store(true, Ordering::Relaxed);
        let (done, answer) = oneshot::channel();
        self.put(Item::Close(done), true);
        let position = answer.await.unwrap_or_else(|_| self.position());
        let thread = self.shared.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the access recorder panicked");
        }
        position
    }

    /// Whether new accesses can be recorded.
    pub fn is_healthy(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    /// Requests whose record is not in the log yet.
    pub fn queued(&self) -> usize {
        self.shared.slots.load(Ordering::Relaxed)
    }

    fn position(&self) -> u64 {
        self.shared.position.load(Ordering::Acquire)
    }

    fn put(&self, item: Item, hurry: bool) {
        // The writer is gone only after `close`; its slots were dropped with it.
        let _ = self.queue.send(item);
        if self.shared.queued.fetch_add(1, Ordering::Relaxed) + 1 == MANY || hurry {
            self.shared.hurry.notify_one();
        }
    }
}

/// Who waits for the records of the next flush.
#[derive(Debug, Default)]
struct Waiting {
    slots: Vec<Slot>,
    acks: Vec<Ack>,
    flushes: Vec<oneshot::Sender<u64>>,
    closing: bool,
}

struct Writer {
    items: mpsc::UnboundedReceiver<Item>,
    shared: Arc<Shared>,
    deps: RecorderDeps,
    flush_after: Duration,
    /// How many records the last flush had, and when it began.
    last_flush: usize,
    flush_began: Instant,
    gathered: Gathered,
    /// Not sealed yet.
    packed: VecDeque<PackedShare>,
    /// Sealed, and not acknowledged yet by the log.
    unwritten: Vec<Append>,
    waiting: Waiting,
}

impl Writer {
    async fn run(mut self) {
        let mut attempts = 0;
        loop {
            self.gather().await;
            self.flush().await;
            if self.waiting.closing {
                attempts += 1;
                if self.is_all_written() || attempts >= CLOSING_ATTEMPTS {
                    break;
                }
            }
        }
        if !self.is_all_written() {
            tracing::error!("access records were given up: the event log takes no writes");
        }
        self.answer_flushes();
    }

    /// Waits for something to write, then for more of it.
    async fn gather(&mut self) {
        if self.is_all_written() && !self.waiting.closing {
            let since = if let Ok(item) = self.items.try_recv() {
                self.take(item);
                // What came while the disk was slow has waited long enough.
                self.flush_began
            } else {
                // In silence it still looks, now and then, whether the log takes writes.
                match tokio::time::timeout(RETRY, self.items.recv()).await {
                    Ok(Some(item)) => self.take(item),
                    Ok(None) => self.waiting.closing = true,
                    Err(_) => return,
                }
                Instant::now()
            };
            let gathers = if self.last_flush >= BUSY { BUSY_GATHERS } else { 1 };
            tokio::select! {
                () = tokio::time::sleep_until(since + self.flush_after * gathers) => {}
                () = self.shared.hurry.notified() => {}
            }
        } else if !self.is_all_written() {
            tokio::time::sleep(RETRY).await;
        }
        self.last_flush = self.shared.queued.swap(0, Ordering::Relaxed);
        self.flush_began = Instant::now();
        while let Ok(item) = self.items.try_recv() {
            self.take(item);
        }
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Over { slot, visit, outcome, ack } => {
                let folded = self.gathered.take(visit, outcome);
                if let Some(ack) = ack {
                    self.waiting.acks.push(ack);
                } else if folded {
                    return;
                }
                self.waiting.slots.push(slot);
            }
            Item::Running { slot, visit, outcome, key, ack } => {
                self.gathered.take_running(visit, outcome, key);
                self.waiting.slots.push(slot);
                self.waiting.acks.extend(ack);
            }
            Item::Completed { key, outcome, ack } => {
                self.gathered.complete(key, outcome);
                self.waiting.acks.extend(ack);
            }
            Item::Flush(done) => self.waiting.flushes.push(done),
            Item::Close(done) => {
                self.waiting.flushes.push(done);
                self.waiting.closing = true;
            }
        }
    }

    /// Writes what failed before, then what was gathered since.
    async fn flush(&mut self) {
        self.write().await;
        if self.unwritten.is_empty() {
            if !self.waiting.acks.is_empty() || !self.waiting.flushes.is_empty() {
                self.gathered.unfold();
            }
            let now = self.deps.clock.now();
            let millis = u64::try_from(now.millis()).unwrap_or(0);
            self.packed.extend(self.gathered.pack(now, || fresh_id(millis)));
            if let Err(reason) = self.seal(now) {
                tracing::warn!(reason, "access records wait for the keyring");
            }
            self.write().await;
        }
        let written = self.is_all_written();
        if written {
            self.waiting.slots.clear();
        }
        for ack in self.waiting.acks.drain(..) {
            // Whoever no longer waits has left.
            let _ = ack.send(written);
        }
        let healthy = written && self.deps.log.writable().is_ok();
        if self.shared.healthy.swap(healthy, Ordering::Relaxed) != healthy {
            tracing::warn!(healthy, "whether accesses can be recorded has changed");
        }
        if !self.waiting.closing {
            self.answer_flushes();
        }
    }

    fn is_all_written(&self) -> bool {
        self.packed.is_empty() && self.unwritten.is_empty()
    }

    fn answer_flushes(&mut self) {
        let position = self.shared.position.load(Ordering::Acquire);
        for done in self.waiting.flushes.drain(..) {
            let _ = done.send(position);
        }
    }

    /// Turns packed events into appends; what cannot be sealed now stays.
    fn seal(&mut self, now: Timestamp) -> Result<(), String> {
        while let Some(PackedShare { workspace, share, events }) = self.packed.front() {
            let mut sealed = Vec::with_capacity(events.len());
            for packed in events {
                let seal = |visitors: &String| (self.deps.sealer)(*workspace, *share, now, visitors);
                let personal = packed.visitors.as_ref().map(seal).transpose()?;
                let encoded = packed.event.encode();
                sealed.push(NewEvent {
                    id: packed.id,
                    event_type: encoded.event_type,
                    version: encoded.version,
                    data: encoded.data,
                    personal,
                    causation: None,
                });
            }
            let (workspace, stream) = (*workspace, StreamName::accesses(*share, self.deps.boot));
            while !sealed.is_empty() {
                let rest = sealed.split_off(sealed.len().min(EVENTS_PER_APPEND));
                self.unwritten.push(Append {
                    stream: stream.clone(),
                    expected: Expected::Any,
                    workspace,
                    actor: Actor::System("edge".to_owned()),
                    correlation: None,
                    at: now,
                    events: std::mem::replace(&mut sealed, rest),
                });
            }
            self.packed.pop_front();
        }
        Ok(())
    }

    /// Appends what is not written yet: shares beside each other, each share's appends in order.
    async fn write(&mut self) {
        let mut shares: Vec<Vec<Append>> = Vec::new();
        for unwritten in self.unwritten.drain(..) {
            match shares.last_mut() {
                Some(share) if share[0].stream == unwritten.stream => share.push(unwritten),
                Some(_) | None => shares.push(vec![unwritten]),
            }
        }
        let log = &self.deps.log;
        let position = &self.shared.position;
        let mut writes: FuturesUnordered<_> = shares
            .into_iter()
            .map(|share| async move {
                let mut left = share.into_iter();
                for unwritten in left.by_ref() {
                    match log.append(unwritten.clone()).await {
                        Ok(appended) => {
                            position.fetch_max(appended.position, Ordering::AcqRel);
                        }
                        // Repeating it could never succeed; the records are lost, and that is said.
                        Err(error @ (AppendError::Refused(_) | AppendError::Conflict { .. })) => {
                            tracing::error!(%error, "access records were refused by the event log");
                        }
                        Err(error @ (AppendError::Unavailable(_) | AppendError::InDoubt(_))) => {
                            tracing::warn!(%error, "access records wait for the event log");
                            return std::iter::once(unwritten).chain(left).collect();
                        }
                    }
                }
                Vec::new()
            })
            .collect();
        let mut failed: Vec<Append> = Vec::new();
        while let Some(rest) = writes.next().await {
            failed.extend(rest);
        }
        drop(writes);
        // Appends of one share stand together and in order.
        failed.sort_by(|one, other| one.stream.cmp(&other.stream));
        self.unwritten = failed;
    }
}

fn fresh_id(millis: u64) -> EventId {
    let random = random_bytes();
    let random = random.first_chunk::<10>().expect("32 random bytes");
    EventId::new(Builder::from_unix_timestamp_millis(millis, random).into_uuid())
}

#[cfg(test)]
mod tests;

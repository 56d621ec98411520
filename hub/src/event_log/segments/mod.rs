//! The embedded engine: append-only segments, one writer, group commit.
//!
//! | part | does |
//! |---|---|
//! | `frame`, `chain` | how an event lies in a file, and the hash chains over events |
//! | `files`, `disk` | where files are; the calls that change them |
//! | `writer`, `output`, `filler` | judge and place, write and sync, make segments ready ahead |
//! | `index`, `reader`, `checkpoint` | what is where (derived), reading, a start without reading everything |
//! | `scan`, `recovery` | walk the whole log; what to drop or refuse after a crash |
//! | `scrub` | reads, behind everybody's back, what a start did not |
//! | `seals`, `keeper` | signed heads, every second |
//!
//! Invariants: acknowledged means synced; the index knows nothing that is not durable; positions are handed out in the
//! order of commits and a commit counts in all its families or in none, so no reader sees a gap that fills later;
//! after a failed sync nothing is acknowledged any more. Why not a database: docs/adr/0001.

pub(crate) mod chain;
mod checkpoint;
mod disk;
mod extent;
mod files;
mod filler;
pub(crate) mod frame;
mod index;
mod keeper;
mod output;
mod published;
mod reader;
mod recovery;
mod retired;
mod retiring;
mod scan;
mod scrub;
mod seals;
mod stats;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use domain::recorded::{Families, Family, Recorded, StreamName};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use ring::signature::Ed25519KeyPair;
use tokio::sync::{Semaphore, oneshot, watch};

pub use disk::{Disk, PathError, SystemDisk};
pub use extent::{LogExtent, Piece};
pub use scan::Damage;
pub use stats::{EVENTS_BOUNDS, LATENCY_BOUNDS_US, LogStats};

pub(crate) use chain::{Chains, heads_hash};
pub(crate) use files::{IdentityError, LockError, log_dir, read_identity};
pub use files::{LaterFormat, Lock};
pub(crate) use frame::is_zero;
pub(crate) use recovery::all_segments;
pub(crate) use retired::{hash as statement_hash, read as read_retired};
pub use retiring::{RetireError, Retirement};
pub(crate) use scan::{Extent, FROM_THE_START, Found, Resume, Start, Step, Walk, stream_of};
pub(crate) use seals::{
    SEAL_BYTES, Seal, Sealer, copied as copied_seals, highest_in as highest_seal_in, list as list_seals,
    list_in as list_seals_in, looks_torn as seal_looks_torn,
};

use self::{
    filler::Filler,
    keeper::Keeper,
    output::{Output, Sizes},
    published::{Health, Shared},
    scrub::Scrub,
    writer::{Message, Request, Writer},
};
use super::{Append, AppendError, Appended, EventLog, ReadError, limits};
use crate::keyring::Keyring;

/// The most bytes that wait for the writer; further appends wait at their caller.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// What an append takes of the queue besides its frames.
const REQUEST_BYTES: usize = 512;

/// A start reads a log of at most this size whole, so that it notices damage anywhere in it: a third of a second.
const READ_WHOLE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What the scrub of a larger log reads in a second: a twentieth of a core, and little of any disk.
const SCRUB_BYTES_PER_S: u64 = 32 * 1024 * 1024;

/// How to open a log.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose seal key signs the heads.
    pub keyring: Arc<Keyring>,
    /// The size of a family's first segment; it doubles while segments fill within a minute.
    pub segment_bytes_min: u64,
    /// A segment ends at this size (a single commit may exceed it).
    pub segment_bytes_max: u64,
    /// How often the head is sealed when it moved.
    pub seal_every: Duration,
    /// A log whose segments together are larger starts from its checkpoint, if it has one that fits, and the rest is
    /// checked while the log is in use.
    pub read_whole_bytes_max: u64,
    /// How fast that check goes.
    pub scrub_bytes_per_s: u64,
    /// Where tests let the disk fail.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// What production uses: segments of 1 to 32 MiB, a seal every second.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self {
            keyring,
            segment_bytes_min: 1024 * 1024,
            segment_bytes_max: 32 * 1024 * 1024,
            seal_every: Duration::from_secs(1),
            read_whole_bytes_max: READ_WHOLE_BYTES_MAX,
            scrub_bytes_per_s: SCRUB_BYTES_PER_S,
            disk: Arc::new(SystemDisk),
        }
    }
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Nothing was changed.
    #[error("the event log {verb}: {damage}", verb = .0.verb(), damage = .0)]
    Damaged(#[from] Damage),
    /// A later release laid its files. Nothing was changed.
    #[error("{0}")]
    Later(LaterFormat),
    /// Nothing was changed.
    #[error("the event log's identity {} is missing or damaged, but there are events", .0.display())]
    NoIdentity(PathBuf),
    #[error(transparent)]
    Io(#[from] PathError),
}

/// How a log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Whether the index came from a checkpoint.
    pub from_checkpoint: bool,
    /// Events that had to be read.
    pub events_read: u64,
    pub took: Duration,
}

/// The embedded event log.
#[derive(Debug)]
pub struct Segments {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    /// The room in the queue, in bytes.
    room: Arc<Semaphore>,
    closed: watch::Receiver<bool>,
    writer: Mutex<Option<JoinHandle<()>>>,
    scrub: Mutex<Option<Scrub>>,
    opened: Opened,
    seal_key: Arc<Ed25519KeyPair>,
}

impl Segments {
    /// Takes the exclusive right to a data directory, which is made when missing. Whoever changes anything there (the
    /// keyring too, by opening it) has it first.
    ///
    /// # Errors
    /// [`OpenError::InUse`], or the disk.
    pub fn lock(data: &Path) -> Result<Lock, OpenError> {
        std::fs::create_dir_all(data).map_err(|source| PathError { path: data.to_owned(), source })?;
        Lock::take(data).map_err(|error| match error {
            LockError::InUse => OpenError::InUse(data.to_owned()),
            LockError::Io(error) => OpenError::Io(error),
        })
    }

    /// Locks the data directory and opens its log.
    ///
    /// # Errors
    /// As [`Segments::lock`] and [`Segments::open_locked`].
    pub fn open(data: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_locked(Self::lock(data)?, data, options)
    }

    /// Opens the log in `<data>/log`, or makes one. Blocks: seconds after a crash of a large log without checkpoint.
    ///
    /// # Errors
    /// [`OpenError`]: damaged (file, offset and event are named, nothing was changed), or the disk.
    pub fn open_locked(lock: Lock, data: &Path, options: Options) -> Result<Self, OpenError> {
        let began = Instant::now();
        files::make_dirs(data)?;
        let log_id = identity(data)?;
        let sealed = seals::highest(data, log_id)?;
        let recovered = recovery::recover(data, log_id, sealed, options.read_whole_bytes_max)?;
        let opened = Opened {
            from_checkpoint: recovered.unread.is_some(),
            events_read: recovered.events_read,
            took: began.elapsed(),
        };
        let shared = Arc::new(Shared {
            data: data.to_owned(),
            log_id,
            head: watch::Sender::new(recovered.durable.position),
            index: recovered.index,
            durable: Mutex::new(recovered.durable),
            health: Mutex::new(Health::Writable),
            damage: Mutex::new(None),
            stats: Arc::default(),
            retiring: Mutex::new(()),
            scrubbing: AtomicBool::new(recovered.unread.is_some()),
        });
        let seal_key = options.keyring.seal_key();
        let (queue, messages) = mpsc::channel();
        let thread_error = |source| PathError { path: data.to_owned(), source };
        let sizes = Sizes { min: options.segment_bytes_min, max: options.segment_bytes_max };
        let filler = Filler::start(data.to_owned(), log_id).map_err(thread_error)?;
        let mut output = Output::new(data.to_owned(), log_id, options.disk, sizes, filler);
        for family in Family::ALL {
            let segments = shared.index.family(family).read().segments.clone();
            if let Some(last) = segments.last() {
                output.resume(family, last, last.end())?;
            }
        }
        let sealer = Sealer::new(data, Arc::clone(&seal_key));
        let keeper =
            Keeper::start(Arc::clone(&shared), sealer, sealed, options.seal_every).map_err(thread_error)?;
        let writer = Writer::new(Arc::clone(&shared), output, messages);
        let (closed_sender, closed) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || {
                writer.run(keeper);
                drop(lock);
                closed_sender.send_replace(true);
            })
            .map_err(thread_error)?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        let scrub = recovered
            .unread
            .map(|unread| Scrub::start(Arc::clone(&shared), unread, options.scrub_bytes_per_s))
            .transpose()
            .map_err(thread_error)?;
        let (writer, scrub) = (Mutex::new(Some(thread)), Mutex::new(scrub));
        Ok(Self { shared, queue, room, closed, writer, scrub, opened, seal_key })
    }

    /// What the log durably holds at this moment, file by file.
    pub fn extent(&self) -> LogExtent {
        LogExtent::of(&self.shared)
    }

    /// Counters for metrics.
    pub fn stats(&self) -> Arc<LogStats> {
        Arc::clone(&self.shared.stats)
    }

    /// How this log was opened.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    async fn send(&self, append: Append) -> Result<Appended, AppendError> {
        limits::check(&append).map_err(AppendError::Refused)?;
        let request = self.request(&append)?;
        let room = u32::try_from((request.1.len() + REQUEST_BYTES).min(QUEUE_BYTES)).expect("64 MiB fit");
        let closed = || AppendError::Unavailable("the event log is closed".into());
        let permit = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let request = Box::new(Request {
            stream: append.stream,
            expected: append.expected,
            workspace: append.workspace,
            at: append.at,
            ids: request.0,
            frames: request.1,
            queued: Instant::now(),
            reply,
            permit,
        });
        self.queue.send(Message::Append(request)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| match &*self.shared.health.lock() {
            // The writer ended in order: it answers everything that it took up.
            Health::Closed => Err(closed()),
            Health::Writable | Health::Full(_) | Health::Failed(_) => {
                Err(AppendError::InDoubt("the log's writer is gone".into()))
            }
        })
    }

    /// Encoded here, in the caller's task: the writer only places and hashes.
    fn request(&self, append: &Append) -> Result<(Vec<domain::ids::EventId>, Vec<u8>), AppendError> {
        if let Health::Closed = *self.shared.health.lock() {
            return Err(AppendError::Unavailable("the event log is closed".into()));
        }
        let mut frames = Vec::with_capacity(512 * append.events.len());
        for event in &append.events {
            frame::encode(&mut frames, append, event);
        }
        Ok((append.events.iter().map(|event| event.id).collect(), frames))
    }

    fn begin_close(&self) {
        self.room.close();
        if let Some(scrub) = &*self.scrub.lock() {
            scrub.begin_stop();
        }
        // An error means that the writer is gone already.
        drop(self.queue.send(Message::Close));
    }

    fn join(&self) {
        let writer = self.writer.lock().take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the log's writer panicked");
        }
        if let Some(scrub) = self.scrub.lock().take() {
            scrub.join();
        }
    }

    /// Passes on what a read says; one that met damage is remembered.
    fn heeded<T>(shared: &Shared, read: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(ReadError::Damaged(damage)) = &read {
            shared.note_damage(damage);
        }
        read
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.begin_close();
        self.join();
    }
}

/// The log's id, made for a log without events.
fn identity(data: &Path) -> Result<uuid::Uuid, OpenError> {
    match files::read_identity(data) {
        Ok(log_id) => Ok(log_id),
        Err(IdentityError::Io(error)) => Err(error.into()),
        Err(IdentityError::Later(later)) => Err(OpenError::Later(later)),
        Err(IdentityError::Missing | IdentityError::Damaged) => {
            if all_segments(data, None)?.iter().any(|segments| !segments.is_empty()) {
                return Err(OpenError::NoIdentity(files::identity_path(data)));
            }
            let log_id = uuid::Uuid::new_v4();
            files::write_identity(data, log_id)?;
            Ok(log_id)
        }
    }
}

/// Runs file reads where they block nobody; in place when there is no runtime.
async fn off_runtime<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let done = runtime.spawn_blocking(read).await;
            done.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string())))
        }
        Err(_) => read(),
    }
}

impl EventLog for Segments {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.send(append).boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        from_revision: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, ReadError>> {
        let (shared, stream) = (Arc::clone(&self.shared), stream.clone());
        off_runtime(move || {
            Self::heeded(&shared, reader::read_stream(&shared, &stream, from_revision, limit))
        })
        .boxed()
    }

    fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, ReadError>> {
        let shared = Arc::clone(&self.shared);
        off_runtime(move || Self::heeded(&shared, reader::read_all(&shared, after, families, limit))).boxed()
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    fn log_id(&self) -> uuid::Uuid {
        self.shared.log_id
    }

    fn writable(&self) -> Result<(), String> {
        self.shared.health.lock().check()
    }

    fn intact(&self) -> Result<(), String> {
        self.shared.damage.lock().clone().map_or(Ok(()), Err)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.begin_close();
            // An error means that the writer died without a word: then there is nothing to wait for.
            drop(self.closed.clone().wait_for(|closed| *closed).await.map(drop));
            self.join();
        }
        .boxed()
    }
}

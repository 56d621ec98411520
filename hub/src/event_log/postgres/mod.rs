//! The engine for PostgreSQL: the log is in a database, and this hub is the only one that writes it.
//!
//! | part | does |
//! |---|---|
//! | `address`, `tls`, `session` | where the server is, whom to believe there, one connection |
//! | `schema` | the tables; taking the log over, and back after a connection was lost |
//! | `writer`, `judge`, `commit` | gather, judge and place, one statement for a whole batch |
//! | `reader`, `reading` | events by stream and by position; a log that is only read |
//! | `keeper` | signed heads: a file every second, an event now and then |
//! | `check` | the whole log against its chains and seals |
//!
//! Invariants: acknowledged means committed; positions come from one locked row, so that commits are visible in their
//! order and no reader sees a gap; a connection that was lost can commit nothing more once another one has taken its
//! place, so what became of its last batch can be read back; nobody waits longer than the patience below; the password
//! is in no error and no line of telemetry. Why so: docs/adr/0020.

mod address;
mod check;
mod commit;
mod judge;
mod keeper;
mod reader;
mod reading;
mod schema;
mod session;
mod tls;
mod writer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    recorded::{Families, Recorded, StreamName},
    time::Timestamp,
};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use uuid::Uuid;

pub use address::{Address, AddressError};
pub use check::verify;
pub use reading::Reading;

use self::{
    keeper::Keeper,
    reader::Readers,
    schema::Taken,
    session::Server,
    writer::{Message, Request, Writer},
};
use super::{
    Append, AppendError, Appended, EventLog, ReadError, limits,
    segments::{LogStats, chain::Heads, frame, highest_seal_in},
};
use crate::keyring::Keyring;

/// The most bytes that wait for the writer; further appends wait at their caller.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// What an append takes of the queue besides its events, twice: as they came and as they are chained.
const REQUEST_BYTES: usize = 1024;
/// How long a start waits for a server that starts itself, or for a hub that is about to end.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// A server that restarts is back by then.
const DOUBT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a log that is dropped without being closed may take to finish.
const DROP_PATIENCE: Duration = Duration::from_secs(10);
/// The threads of the log: the writer's hashing should not wait for a reader's decoding.
const THREADS: usize = 2;

/// How to open a log.
#[derive(Debug, Clone)]
pub struct Options {
    pub address: Address,
    /// Whose seal key signs the heads.
    pub keyring: Arc<Keyring>,
    /// The folder of the files of seals, which is made when missing.
    pub seals: PathBuf,
    /// The log that the data directory belongs to, if it belongs to one: another is not touched.
    pub log_id: Option<Uuid>,
    /// The name of this node, for whoever finds the log taken.
    pub node: String,
    /// How often the head is sealed in a file when it moved.
    pub seal_every: Duration,
    /// How often a seal is recorded in the log itself when the head moved, and when it is closed.
    pub record_seal_every: Duration,
    /// How long a start waits for the server, or for another hub to let go.
    pub open_patience: Duration,
    /// How long a caller waits to hear what became of its append when the connection was lost.
    pub doubt_patience: Duration,
}

impl Options {
    /// What production uses.
    pub fn new(address: Address, keyring: Arc<Keyring>, seals: PathBuf, node: &str) -> Self {
        Self {
            address,
            keyring,
            seals,
            log_id: None,
            node: node.to_owned(),
            seal_every: Duration::from_secs(1),
            // Facts are for ever: one a second would be most of what a busy hub records.
            record_seal_every: Duration::from_secs(60),
            open_patience: OPEN_PATIENCE,
            doubt_patience: DOUBT_PATIENCE,
        }
    }
}

/// Why a log does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody answers, or not as needed; trying again may help.
    #[error("the event log in {server} cannot be reached: {reason}")]
    Away { server: String, reason: String },
    #[error("the event log in {server} is in use by another hub, node `{node}`; stop that one first")]
    InUse { server: String, node: String },
    #[error(
        "the data directory belongs to the event log {known}, and {server} has {}; is it another database, or one made \
         anew?", found.map_or("none".to_owned(), |found| found.to_string())
    )]
    Another { server: String, known: Uuid, found: Option<Uuid> },
    /// Trying again does not help.
    #[error("the event log in {server} cannot be used: {reason}")]
    Unusable { server: String, reason: String },
    #[error("the event log in {server} is damaged: {reason}")]
    Damaged { server: String, reason: String },
    #[error(transparent)]
    Tls(#[from] wire::tls::trust::TrustError),
    #[error("while starting the log's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// Whether appends can be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Writable,
    /// The last commit was refused; the next one may succeed.
    Refused(String),
    /// The server does not answer: what comes is turned away until it does.
    Away(String),
    /// For good, until the log is opened anew.
    Failed(String),
    Closed,
}

impl Health {
    /// Why appends cannot be acknowledged, if so.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Writable => Ok(()),
            Self::Refused(reason) | Self::Away(reason) | Self::Failed(reason) => Err(reason.clone()),
            Self::Closed => Err("the event log is closed".into()),
        }
    }

    /// Whether trying makes sense; if not, why.
    fn admits(&self) -> Result<(), String> {
        match self {
            Self::Writable | Self::Refused(_) => Ok(()),
            Self::Away(_) | Self::Failed(_) | Self::Closed => self.check(),
        }
    }
}

/// The end of what is committed, consistent in itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Durable {
    position: u64,
    /// When the last event was recorded.
    recorded_at: Option<Timestamp>,
    heads: Heads,
}

/// What all parts of one open log share.
#[derive(Debug)]
struct Shared {
    /// The server and the database, for words; without user and password.
    server: String,
    log_id: Uuid,
    head: watch::Sender<u64>,
    durable: Mutex<Durable>,
    health: Mutex<Health>,
    /// The first damage that anybody met while this log was open.
    damage: Mutex<Option<String>>,
    stats: Arc<LogStats>,
}

impl Shared {
    fn note_damage(&self, damage: &str) {
        let mut first = self.damage.lock();
        if first.is_none() {
            tracing::error!(
                damage,
                "the event log is damaged; run `hub verify` and keep a dump of the database"
            );
            *first = Some(damage.to_owned());
        }
    }

    /// Shows what is committed to readers.
    fn publish(&self, durable: Durable) {
        let position = durable.position;
        *self.durable.lock() = durable;
        self.head.send_replace(position);
    }
}

/// The threads that connections live on. Dropped where nothing may wait, they are left to end by themselves.
#[derive(Debug)]
struct Threads(Option<runtime::Runtime>);

impl Threads {
    fn start(name: &str) -> std::io::Result<Self> {
        let mut builder = runtime::Builder::new_multi_thread();
        Ok(Self(Some(builder.worker_threads(THREADS).thread_name(name).enable_all().build()?)))
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("there until it is dropped").spawn(work)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The event log in a PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Message>,
    /// The room in the queue, in bytes.
    room: Arc<Semaphore>,
    readers: Arc<Readers>,
    closed: watch::Receiver<bool>,
    threads: Threads,
}

impl Postgres {
    /// Opens the log in a database, or makes one. It is taken over from whoever had it and is gone.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed but, where the log is damaged, who holds it.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let threads = Threads::start("log")?;
        let opened = threads.spawn(open(options)).await;
        let parts = opened.map_err(|error| OpenError::Threads(std::io::Error::other(error)))??;
        Ok(parts.into_log(threads))
    }

    /// Counters for metrics.
    pub fn stats(&self) -> Arc<LogStats> {
        Arc::clone(&self.shared.stats)
    }

    async fn send(&self, append: Append) -> Result<Appended, AppendError> {
        limits::check(&append).map_err(AppendError::Refused)?;
        // PostgreSQL has no text with it, and JSON writes it as an escape.
        if let Some(event) = append.events.iter().find(|event| event.data.contains('\0')) {
            return Err(AppendError::Refused(format!("the data of event {} has a zero byte", event.id)));
        }
        self.admits()?;
        let mut frames = Vec::with_capacity(512 * append.events.len());
        for event in &append.events {
            frame::encode(&mut frames, &append, event);
        }
        let room = (2 * frames.len() + REQUEST_BYTES).min(QUEUE_BYTES);
        let room = u32::try_from(room).expect("64 MiB fit");
        let closed = || AppendError::Unavailable("the event log is closed".into());
        let permit = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| closed())?;
        // Whoever waited for room may have waited for a server that went away.
        self.admits()?;
        let (reply, answer) = oneshot::channel();
        let request = Request { append, frames, queued: Instant::now(), reply, _permit: Some(permit) };
        self.queue.send(Message::Append(Box::new(request))).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| match &*self.shared.health.lock() {
            Health::Closed => Err(closed()),
            Health::Writable | Health::Refused(_) | Health::Away(_) | Health::Failed(_) => {
                Err(AppendError::InDoubt("the log's writer is gone".into()))
            }
        })
    }

    fn admits(&self) -> Result<(), AppendError> {
        self.shared.health.lock().admits().map_err(AppendError::Unavailable)
    }

    fn begin_close(&self) {
        self.room.close();
        // An error means that the writer is gone already.
        drop(self.queue.send(Message::Close));
    }

    /// Runs a read where connections live, whatever runtime the caller has.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let read = self.threads.spawn(read).await;
        let read = read.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string())));
        if let Err(ReadError::Damaged(damage)) = &read {
            self.shared.note_damage(damage);
        }
        read
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.begin_close();
        let deadline = Instant::now() + DROP_PATIENCE;
        // The writer has threads of its own, so it ends although this one waits.
        while !*self.closed.borrow() && self.closed.has_changed().is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// An open log, but for its runtime.
struct Parts {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Message>,
    readers: Arc<Readers>,
    closed: watch::Receiver<bool>,
}

impl Parts {
    fn into_log(self, threads: Threads) -> Postgres {
        Postgres {
            shared: self.shared,
            queue: self.queue,
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            readers: self.readers,
            closed: self.closed,
            threads,
        }
    }
}

async fn open(options: Options) -> Result<Parts, OpenError> {
    let server = Server::new(options.address.clone())?;
    let holder = Uuid::new_v4();
    let taken = taken_in_time(&server, holder, &options).await?;
    let shown = server.shown();
    let damaged = |reason| OpenError::Damaged { server: shown.clone(), reason };
    let sealed = sealed_before(&options.seals, &taken).map_err(damaged)?;
    let durable = taken.durable.clone();
    let shared = Arc::new(Shared {
        server: server.shown(),
        log_id: taken.log_id,
        head: watch::Sender::new(durable.position),
        durable: Mutex::new(durable),
        health: Mutex::new(Health::Writable),
        damage: Mutex::new(None),
        stats: Arc::default(),
    });
    let (queue, messages) = mpsc::unbounded_channel();
    let keeper = Keeper::start(Arc::clone(&shared), &options, sealed);
    let mut writer = Writer::new(Arc::clone(&shared), server.clone(), holder, messages, keeper, &options);
    writer.has_recorded_seal(taken.last_seal);
    let (closed_sender, closed) = watch::channel(false);
    tokio::spawn(async move {
        writer.run(taken.session).await;
        closed_sender.send_replace(true);
    });
    Ok(Parts { shared, queue, readers: Arc::new(Readers::new(server)), closed })
}

/// A server that is starting and a hub that is ending are waited for a little.
async fn taken_in_time(server: &Server, holder: Uuid, options: &Options) -> Result<Taken, OpenError> {
    let deadline = Instant::now() + options.open_patience;
    loop {
        match schema::take_over(server, holder, options.log_id, &options.node).await {
            Err(OpenError::Away { .. } | OpenError::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            taken => return taken,
        }
    }
}

/// The position of the last seal in the files, which the log must reach.
fn sealed_before(folder: &Path, taken: &Taken) -> Result<u64, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let sealed = highest_seal_in(folder, taken.log_id).map_err(|error| error.to_string())?;
    let position = taken.durable.position;
    if sealed > position {
        return Err(format!(
            "it ends at position {position}, but was sealed up to {sealed}: its end is missing (an older copy of the \
             database, or a replica that was behind?)"
        ));
    }
    Ok(sealed)
}

impl EventLog for Postgres {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.send(append).boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        from_revision: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, ReadError>> {
        let (readers, stream) = (Arc::clone(&self.readers), stream.clone());
        self.read(async move { readers.read_stream(&stream, from_revision, limit).await }).boxed()
    }

    fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, ReadError>> {
        let readers = Arc::clone(&self.readers);
        self.read(async move { readers.read_all(after, families, limit).await }).boxed()
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.head.subscribe()
    }

    fn log_id(&self) -> Uuid {
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
        }
        .boxed()
    }
}

/// Numbers of the log are far below this; PostgreSQL has no unsigned ones.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As [`signed`], the other way; `None` for what no log has.
fn unsigned(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

/// Families by the number that stands in their column, in which they must not change.
fn families() -> BTreeMap<i16, domain::recorded::Family> {
    domain::recorded::Family::ALL.iter().map(|family| (*family as i16, *family)).collect()
}

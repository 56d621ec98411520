//! The event log: the one place where state changes are remembered, as a port with several engines.
//!
//! Invariants: an acknowledged append is durable; positions are total and gapless to readers; an event id is
//! recorded once, however often it is appended; one append goes to one stream.

pub mod limits;
pub mod memory;
pub mod place;
pub mod postgres;
pub mod segments;
pub mod tape;
pub mod verify;

use std::{fmt, sync::Arc};

use domain::{
    ids::{EventId, RequestId, WorkspaceId},
    recorded::{Actor, Families, Recorded, StreamName},
    time::Timestamp,
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// What the writer expects of the stream before its append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The last event of the stream has this revision; 0: the stream has none.
    Revision(u64),
    /// Whatever it is: for streams with one writer.
    Any,
}

/// An event on its way into the log.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub id: EventId,
    pub event_type: &'static str,
    pub version: u16,
    /// JSON.
    pub data: String,
    /// Sealed by the keyring already, or absent.
    pub personal: Option<Box<[u8]>>,
    pub causation: Option<EventId>,
}

/// One append: all of its events or none.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamName,
    pub expected: Expected,
    pub workspace: WorkspaceId,
    pub actor: Actor,
    pub correlation: Option<RequestId>,
    /// The hub's time; the log raises it to the last recorded time if that is later.
    pub at: Timestamp,
    pub events: Vec<NewEvent>,
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The global position of the last event.
    pub position: u64,
    /// The stream's revision now.
    pub revision: u64,
    /// The time the events were recorded at.
    pub recorded_at: Timestamp,
}

/// Why an append was not acknowledged, split by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Certainly not written: the stream is elsewhere. Read on, decide again.
    #[error("stream `{stream}` is at revision {actual}, not where the writer expected it")]
    Conflict { stream: StreamName, actual: u64 },
    /// Certainly not written: the log takes no writes now (disk full, failed, closing). Answer 503.
    #[error("the event log takes no writes: {0}")]
    Unavailable(String),
    /// Certainly not written: the append breaks a limit. A bug of the caller.
    #[error("the append was refused: {0}")]
    Refused(String),
    /// Perhaps written. Forget what you believe, replay from the log, then judge.
    #[error("the append may or may not be in the log: {0}")]
    InDoubt(String),
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("the event log is damaged: {0}")]
    Damaged(String),
    #[error("the event log cannot be read: {0}")]
    Unavailable(String),
}

/// The port. Engines: `segments` (default), `postgres`, `memory` (tests); one contract suite for all.
pub trait EventLog: fmt::Debug + Send + Sync + 'static {
    /// Appends to one stream. Appending events whose ids are recorded already, at the place where they would have
    /// gone, answers like the first time.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Events of a stream from a revision (1 is the first) on, at most `limit`.
    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamName,
        from_revision: u64,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, ReadError>>;

    /// Events of the given families with a position above `after`, in order, at most `limit`. Fewer may come although
    /// there are more (an engine bounds the bytes of one answer); an empty answer means: nothing yet above `after`
    /// up to the head.
    fn read_all(
        &self,
        after: u64,
        families: Families,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Recorded>, ReadError>>;

    /// The position of the last durable event, watched: readers sleep on it and call [`EventLog::read_all`].
    /// Every event up to the shown position is readable.
    fn head(&self) -> watch::Receiver<u64>;

    /// The identity of this log, random at its creation: checkpoints of another log are worthless.
    fn log_id(&self) -> uuid::Uuid;

    /// Whether appends can be acknowledged now, and if not, why (for `/readyz`).
    fn writable(&self) -> Result<(), String>;

    /// Whether all that was read so far is what was written, by anybody and by the check in the background; if not,
    /// the first damage (for `/health`). What is intact is served on.
    fn intact(&self) -> Result<(), String>;

    /// Takes no more appends, seals the head, releases the lock. Idempotent.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// How the rest of the hub holds a log.
pub type SharedLog = Arc<dyn EventLog>;

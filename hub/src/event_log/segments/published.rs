//! What the writer shares: the durable state of the log, its health, its readers' index.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use domain::time::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{chain::Chains, index::Index, scan::Resume, stats::LogStats};

/// Where a family ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Its last segment, and the end of what is committed there.
    pub(crate) at: Resume,
    /// The position of its last event.
    pub(crate) last: u64,
}

/// The durable end of the log, consistent in itself.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    pub(crate) commit: u64,
    pub(crate) position: u64,
    pub(crate) chains: Chains,
    /// In the order of [`domain::recorded::Family::ALL`].
    pub(crate) ends: [Option<End>; 3],
    /// Bytes written since the log was opened.
    pub(crate) bytes: u64,
}

impl Durable {
    pub(crate) fn recorded_at(&self) -> Timestamp {
        self.chains.recorded_at.unwrap_or(Timestamp::from_millis(0))
    }
}

/// Whether appends can be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Writable,
    /// A write failed, the log was put back in order; the next one may succeed.
    Full(String),
    /// Nobody knows what the disk holds. For good, until the log is opened anew.
    Failed(String),
    Closed,
}

impl Health {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Writable => Ok(()),
            Self::Full(reason) | Self::Failed(reason) => Err(reason.clone()),
            Self::Closed => Err("the event log is closed".into()),
        }
    }
}

/// What all threads of one open log share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) data: PathBuf,
    pub(crate) log_id: uuid::Uuid,
    pub(crate) index: Index,
    /// Locked by the writer for a few assignments per commit.
    pub(crate) durable: Mutex<Durable>,
    pub(crate) health: Mutex<Health>,
    /// The first damage that anybody met while this log was open.
    pub(crate) damage: Mutex<Option<String>>,
    /// Held while segments are retired, and by whoever must not be disturbed by that.
    pub(crate) retiring: Mutex<()>,
    /// The check in the background reads segments, so none of them may go.
    pub(crate) scrubbing: AtomicBool,
    pub(crate) head: watch::Sender<u64>,
    pub(crate) stats: Arc<LogStats>,
}

impl Shared {
    /// Remembers that what stands in the log is not what was written, and tells the operator. What is intact is served
    /// on: the place may be one that nobody ever reads again.
    pub(crate) fn note_damage(&self, damage: &str) {
        let mut first = self.damage.lock();
        if first.is_none() {
            tracing::error!(damage, "the event log is damaged; stop the hub, keep a copy, run `hub verify`");
            *first = Some(damage.to_owned());
        }
    }
}

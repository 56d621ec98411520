//! What the commands that look back read: the segments of a data directory, or a log in a database.

use std::{ops::ControlFlow, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use domain::recorded::{Families, Recorded};
use tokio::runtime::{self, Runtime};

use crate::{
    event_log::{
        place::{self, Place},
        postgres::Reading,
        tape::Tape,
    },
    settings::DataDir,
};

/// Events read at once from a database.
const BATCH: usize = 2_048;

/// A log that is read from its beginning, and further when there is more. Not for asynchronous callers.
#[derive(Debug)]
pub(super) enum Source {
    Segments(Tape),
    Database(Box<Database>),
}

/// A log in a database, and how far it was visited.
#[derive(Debug)]
pub(super) struct Database {
    reading: Reading,
    seen: u64,
    runtime: Runtime,
}

impl Source {
    /// Opens the log of a data directory.
    ///
    /// # Errors
    /// There is none, or it cannot be reached.
    pub(super) fn open(data: &DataDir) -> Result<Self> {
        match place::of(&data.path, data.log.as_ref())? {
            Place::Embedded => Self::embedded(&data.path),
            Place::Postgres(address) => {
                let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
                let reading = runtime.block_on(Reading::open(*address))?;
                Ok(Self::Database(Box::new(Database { reading, seen: 0, runtime })))
            }
        }
    }

    fn embedded(data: &Path) -> Result<Self> {
        Ok(Self::Segments(Tape::open(data)?))
    }

    /// Visits every event that was not visited yet, in the order of the log, until there is none or the visitor has
    /// enough.
    ///
    /// # Errors
    /// The log is damaged or cannot be read.
    pub(super) fn play(
        &mut self,
        visit: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        match self {
            Self::Segments(tape) => Ok(tape.play(visit)?),
            Self::Database(database) => database.play(visit),
        }
    }

    /// Waits until there may be more, at most so long.
    pub(super) fn wait(&self, at_most: Duration) {
        match self {
            Self::Segments(_) => std::thread::sleep(at_most),
            Self::Database(database) => database.wait(at_most),
        }
    }
}

impl Database {
    fn play(&mut self, visit: &mut dyn FnMut(Recorded) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        loop {
            let read = self.runtime.block_on(self.reading.read_all(self.seen, Families::ALL, BATCH));
            let batch = read.context("while reading the event log")?;
            if batch.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            for recorded in batch {
                self.seen = recorded.position;
                if visit(recorded).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    fn wait(&self, at_most: Duration) {
        let mut head = self.reading.head();
        let news = head.wait_for(|head| *head > self.seen);
        // Whoever waited in vain looks too: a server that is away is heard of then.
        let waited = async { tokio::time::timeout(at_most, news).await.is_ok() };
        self.runtime.block_on(waited);
    }
}

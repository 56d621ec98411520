//! Seals the head every second when something changed, and writes a checkpoint now and then: a thread of its own.

use std::{
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use super::{chain::heads_hash, checkpoint, published::Shared, seals::Sealer};

/// So much of the log may have to be read at a start, unless the index itself is larger: a second at most.
const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// The thread that keeps seals and checkpoints.
#[derive(Debug)]
pub(crate) struct Keeper {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// `sealed` is the position of the last seal there is.
    pub(crate) fn start(
        shared: Arc<Shared>,
        sealer: Sealer,
        sealed: u64,
        seal_every: Duration,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut work = Work { shared, sealer, sealed, checkpointed: None, threshold: CHECKPOINT_BYTES };
        let thread = std::thread::Builder::new().name("log-keeper".into()).spawn(move || {
            while stopped.recv_timeout(seal_every) == Err(mpsc::RecvTimeoutError::Timeout) {
                work.seal();
                if work.shared.durable.lock().bytes - work.checkpointed.unwrap_or(0) >= work.threshold {
                    work.checkpoint();
                }
            }
            work.seal();
            if work.checkpointed != Some(work.shared.durable.lock().bytes) {
                work.checkpoint();
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Seals and checkpoints a last time.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the log's keeper panicked");
        }
    }
}

struct Work {
    shared: Arc<Shared>,
    sealer: Sealer,
    sealed: u64,
    /// How many bytes this process had written at the last checkpoint.
    checkpointed: Option<u64>,
    threshold: u64,
}

impl Work {
    fn seal(&mut self) {
        let (position, recorded_at, heads) = {
            let durable = self.shared.durable.lock();
            if durable.position == self.sealed {
                return;
            }
            (durable.position, durable.recorded_at(), durable.chains.heads.clone())
        };
        match self.sealer.seal(self.shared.log_id, position, recorded_at, heads_hash(&heads)) {
            Ok(_) => {
                self.sealed = position;
                self.shared.stats.seals.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            // Tried again in a second; the log itself goes on.
            Err(error) => tracing::warn!(%error, "the log's head could not be sealed"),
        }
    }

    fn checkpoint(&mut self) {
        let bytes = self.shared.durable.lock().bytes;
        match checkpoint::write(&self.shared) {
            Ok(size) => self.threshold = CHECKPOINT_BYTES.max(2 * size),
            Err(error) => {
                tracing::warn!(%error, "no checkpoint of the log's index; the next start takes longer");
            }
        }
        self.checkpointed = Some(bytes);
    }
}

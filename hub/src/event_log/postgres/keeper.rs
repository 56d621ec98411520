//! Seals the head in a file every second when something changed: a task of its own.
//!
//! What it sealed last the writer records in the log itself now and then, so that whoever has the database and the
//! public key can check it without this disk.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{Options, Shared};
use crate::event_log::segments::{SEAL_BYTES, Sealer, chain::heads_hash, frame::Link};
use domain::time::Timestamp;

/// A seal that stands in its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) position: u64,
    pub(super) recorded_at: Timestamp,
    pub(super) heads: Link,
    pub(super) bytes: [u8; SEAL_BYTES],
}

/// The task that keeps seals.
#[derive(Debug)]
pub(super) struct Keeper {
    /// What was sealed last since the log was opened.
    latest: watch::Receiver<Option<Sealed>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// `sealed` is the position of the last seal there is.
    pub(super) fn start(shared: Arc<Shared>, options: &Options, sealed: u64) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let (shown, latest) = watch::channel(None);
        let every = options.seal_every;
        let mut work = Work {
            shared,
            folder: options.seals.clone(),
            sealer: Some(Sealer::in_folder(options.seals.clone(), options.keyring.seal_key())),
            sealed,
            shown,
        };
        let task = tokio::spawn(async move {
            while tokio::time::timeout(every, &mut stopped).await.is_err() {
                work.seal().await;
            }
            work.seal().await;
        });
        Self { latest, stop, task }
    }

    /// What was sealed last, if anything was since the log was opened.
    pub(super) fn latest(&self) -> Option<Sealed> {
        *self.latest.borrow()
    }

    /// Seals a last time; answers what was sealed last.
    pub(super) async fn stop(self) -> Option<Sealed> {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the log's keeper did not end by itself");
        }
        *self.latest.borrow()
    }
}

struct Work {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// Away while it works.
    sealer: Option<Sealer>,
    sealed: u64,
    shown: watch::Sender<Option<Sealed>>,
}

impl Work {
    async fn seal(&mut self) {
        let durable = self.shared.durable.lock().clone();
        let (Some(recorded_at), true) = (durable.recorded_at, durable.position != self.sealed) else {
            return;
        };
        let Some(mut sealer) = self.sealer.take() else { return };
        let (position, log_id) = (durable.position, self.shared.log_id);
        let work = tokio::task::spawn_blocking(move || {
            let heads = heads_hash(&durable.heads);
            let sealed = sealer.seal(log_id, position, recorded_at, heads);
            (sealer, sealed.map(|bytes| Sealed { position, recorded_at, heads, bytes }))
        });
        let Ok((sealer, sealed)) = work.await else {
            return tracing::error!("the seals' writer panicked; the head is sealed no more");
        };
        self.sealer = Some(sealer);
        match sealed {
            Ok(sealed) => {
                self.sealed = position;
                self.shown.send_replace(Some(sealed));
                self.shared.stats.seals.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            // Tried again in a second; the log itself goes on.
            Err(error) => {
                tracing::warn!(%error, folder = %self.folder.display(), "the log's head could not be sealed");
            }
        }
    }
}

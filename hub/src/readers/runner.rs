//! One runner per view: sleeps on the log's head, reads on from the view's checkpoint, applies, says how far it is.
//!
//! A wake-up is only a hint: what counts is what the log answers, and a runner also looks when nobody woke it. SQLite
//! and decoding work on the blocking pool, never on a thread that serves requests.

use std::{sync::Arc, time::Duration};

use domain::recorded::Families;
use parking_lot::Mutex;
use projections::view::{self, Applied, View, ViewError};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::event_log::{ReadError, SharedLog};

/// How often a runner looks at the log when nothing woke it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The first pause after a failure; each next one is twice as long, up to the last.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
const BACK_OFF_LAST: Duration = Duration::from_secs(5);

/// How a view likes to be fed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The most events of one transaction.
    pub batch: usize,
    /// After a wake-up, how long to let more events gather while nobody waits for them.
    pub linger: Duration,
}

/// What a runner says of itself. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Follower {
    name: &'static str,
    families: Families,
    reached: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Somebody waits.
    hurry: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<String>,
    skipped: u64,
}

impl Follower {
    /// The view's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// Whose events it is for.
    pub fn families(&self) -> Families {
        self.families
    }
    /// Every event up to this position is in the view, or is none of its business.
    pub fn reached(&self) -> u64 {
        *self.reached.borrow()
    }
    /// The same, watched.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.reached.clone()
    }
    /// What stands in its way now.
    pub fn trouble(&self) -> Option<String> {
        self.shared.state.lock().trouble.clone()
    }
    /// Events skipped since the start, because this build does not know their type or cannot read their data.
    pub fn skipped(&self) -> u64 {
        self.shared.state.lock().skipped
    }

    /// Waits until the view has reached a position; `false` when it has not after `patience`, or never will.
    pub async fn wait_for(&self, position: u64, patience: Duration) -> bool {
        let mut reached = self.reached.clone();
        if *reached.borrow() >= position {
            return true;
        }
        self.shared.hurry.notify_one();
        let arrival = reached.wait_for(|reached| *reached >= position);
        matches!(tokio::time::timeout(patience, arrival).await, Ok(Ok(_)))
    }
}

/// A view that follows the log, on a task of its own that ends with [`Runner::stop`].
#[derive(Debug)]
pub struct Runner {
    follower: Follower,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Runner {
    /// Lets a view follow the log from its checkpoint. Call it on a tokio runtime.
    pub fn start<V: View>(log: SharedLog, view: V, pace: Pace) -> Self {
        let (reached, follows) = watch::channel(view.checkpoint());
        let shared = Arc::<Shared>::default();
        let (name, families) = (V::NAME, V::FAMILIES);
        let follower = Follower { name, families, reached: follows, shared: Arc::clone(&shared) };
        let stop = CancellationToken::new();
        let work = Work { position: view.checkpoint(), log, pace, reached, shared, stop: stop.clone() };
        Self { follower, stop, task: tokio::spawn(work.run(view)) }
    }

    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Lets it stop after the batch that it works on, without waiting for that.
    pub fn tell_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops after the batch that it works on; the view's files are closed then.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(view = self.follower.name, %error, "the view's runner did not end by itself");
        }
    }
}

/// Why a runner pauses.
enum Trouble {
    Log(ReadError),
    View(ViewError),
    /// The view panicked and is gone with its thread.
    Gone(String),
}

struct Work {
    log: SharedLog,
    pace: Pace,
    /// Read on after this.
    position: u64,
    reached: watch::Sender<u64>,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Work {
    async fn run<V: View>(mut self, view: V) {
        let mut head = self.log.head();
        let mut view = Some(view);
        let mut pause = BACK_OFF_FIRST;
        while !self.stop.is_cancelled() {
            let seen = *head.borrow_and_update();
            match self.catch_up(&mut view, seen).await {
                Ok(()) => {
                    self.shared.state.lock().trouble = None;
                    pause = BACK_OFF_FIRST;
                    self.sleep(&mut head).await;
                }
                Err(Trouble::Gone(reason)) => {
                    self.note::<V>(format!("stopped: {reason}"));
                    self.stop.cancelled().await;
                }
                Err(trouble) => {
                    let reason = match trouble {
                        Trouble::Log(error) => error.to_string(),
                        Trouble::View(error) => error.to_string(),
                        Trouble::Gone(reason) => reason,
                    };
                    self.note::<V>(reason);
                    self.pause(pause).await;
                    pause = (pause * 2).min(BACK_OFF_LAST);
                }
            }
        }
        // Closing a file may move its last changes into place.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(view)).await {
            tracing::error!(view = V::NAME, %error, "the view did not close");
        }
    }

    /// Applies everything up to `head`, and whatever came since.
    async fn catch_up<V: View>(&mut self, view: &mut Option<V>, head: u64) -> Result<(), Trouble> {
        while !self.stop.is_cancelled() {
            let batch =
                self.log.read_all(self.position, V::FAMILIES, self.pace.batch).await.map_err(Trouble::Log)?;
            let Some(last) = batch.last().map(|recorded| recorded.position) else {
                // Nothing for this view is between its position and the head that was seen before the question.
                self.publish(head);
                return Ok(());
            };
            let mut owned = view.take().ok_or_else(|| Trouble::Gone("it was lost".to_owned()))?;
            let work = tokio::task::spawn_blocking(move || {
                let applied: Vec<Applied> = batch.into_iter().map(view::prepare::<V>).collect();
                let answer = owned.apply(&applied);
                let skipped = applied.iter().filter(|applied| view::is_unknown::<V>(applied)).count();
                (owned, answer, skipped)
            });
            let (owned, answer, skipped) =
                work.await.map_err(|error| Trouble::Gone(format!("the view panicked: {error}")))?;
            *view = Some(owned);
            answer.map_err(Trouble::View)?;
            if skipped > 0 {
                let skipped = u64::try_from(skipped).unwrap_or(u64::MAX);
                self.shared.state.lock().skipped += skipped;
                tracing::warn!(view = V::NAME, skipped, up_to = last, "skipped events of an unknown type");
            }
            self.position = last;
            self.publish(last);
        }
        Ok(())
    }

    fn publish(&self, position: u64) {
        self.reached.send_if_modified(|reached| {
            let further = position > *reached;
            *reached = position.max(*reached);
            further
        });
    }

    fn note<V: View>(&self, reason: String) {
        tracing::error!(view = V::NAME, position = self.position, %reason, "the view does not follow the log");
        self.shared.state.lock().trouble = Some(reason);
    }

    /// Until there may be news; then, while nobody waits, a little longer.
    async fn sleep(&self, head: &mut watch::Receiver<u64>) {
        tokio::select! {
            () = self.stop.cancelled() => return,
            changed = head.changed() => {
                if changed.is_err() {
                    // The log is gone: there will be no news. What was written before was read above.
                    self.stop.cancelled().await;
                    return;
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => return,
        }
        if self.pace.linger > Duration::ZERO {
            tokio::select! {
                () = self.shared.hurry.notified() => {}
                () = self.pause(self.pace.linger) => {}
            }
        }
    }

    async fn pause(&self, span: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(span) => {}
        }
    }
}

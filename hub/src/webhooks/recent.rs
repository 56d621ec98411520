//! What was recorded lately, read from the log once for all couriers and sorted by workspace.
//!
//! A courier that keeps up finds here what concerns its workspace, and is woken by nothing else: a thousand webhooks read
//! the log once, and one whose workspace is silent does not wake up at all. Whoever is further behind than what is kept
//! here reads by itself ([`super::reading`]) until it is not.
//!
//! Only what a courier asks for is kept, not what events say: messages are made from the log when they are sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use domain::{
    access,
    event::Event,
    ids::{EventId, ShareId, WorkspaceId},
    public_events,
    recorded::{Families, Family, Recorded, StreamName},
    time::Timestamp,
    webhook::Event as WebhookEvent,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    actors::FailFast,
    event_log::{ReadError, SharedLog},
};

/// After news, how long to let more gather: one look for all of them.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait after the log could not be read.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// Events read at once.
const BATCH: usize = 500;
/// The most entries of all workspaces together, some 200 bytes each.
const KEPT_MAX: usize = 100_000;
/// The most entries of one workspace and family, and the fewest that it may count on.
const KEPT_OF_ONE_MAX: usize = 1_000;
const KEPT_OF_ONE_MIN: usize = 20;

/// A fact that a courier may have to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) position: u64,
    pub(super) recorded_at: Timestamp,
    pub(super) id: EventId,
    pub(super) event_type: Box<str>,
    /// What it says of a webhook, if it is about one.
    pub(super) of_webhook: Option<Box<(StreamName, WebhookEvent)>>,
}

impl Fact {
    /// What a courier needs of a fact; `None`: no courier is concerned.
    pub(super) fn of(recorded: &Recorded) -> Option<Self> {
        let of_webhook = match recorded.stream.kind() {
            "webhook" => match recorded.event() {
                Ok(Event::Webhook(event)) => Some(Box::new((recorded.stream.clone(), event))),
                Ok(_) | Err(_) => None,
            },
            _ => None,
        };
        (of_webhook.is_some() || public_events::is_public(&recorded.event_type)).then(|| Self {
            position: recorded.position,
            recorded_at: recorded.recorded_at,
            id: recorded.id,
            event_type: recorded.event_type.clone(),
            of_webhook,
        })
    }
}

/// Accesses of a share, as they were packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visits {
    pub(super) position: u64,
    pub(super) recorded_at: Timestamp,
    pub(super) share: ShareId,
    /// How many; completions of earlier ones say nothing new.
    pub(super) count: usize,
}

impl Visits {
    pub(super) fn of(recorded: &Recorded) -> Option<Self> {
        if &*recorded.event_type != public_events::ACCESSED {
            return None;
        }
        let Ok(Event::Access(access::Event::Accessed(accessed))) = recorded.event() else { return None };
        (!accessed.accesses.is_empty()).then_some(Self {
            position: recorded.position,
            recorded_at: recorded.recorded_at,
            share: accessed.share_id,
            count: accessed.accesses.len(),
        })
    }
}

/// What follows a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Nothing else that concerns the asker stands up to here.
    pub(super) to: u64,
}

/// Entries of one family, oldest first.
#[derive(Debug)]
struct Kept<T> {
    /// All behind this place are here.
    after: u64,
    entries: VecDeque<(u64, T)>,
}

impl<T: Clone> Kept<T> {
    fn new(after: u64) -> Self {
        Self { after, entries: VecDeque::new() }
    }

    fn push(&mut self, position: u64, entry: T, most: usize) {
        self.entries.push_back((position, entry));
        while self.entries.len() > most
            && let Some((gone, _)) = self.entries.pop_front()
        {
            self.after = gone;
        }
    }

    fn page(&self, after: u64, limit: usize, reached: u64) -> Option<Page<T>> {
        if after < self.after {
            return None;
        }
        let from = self.entries.partition_point(|(position, _)| *position <= after);
        let found = self.entries.iter().skip(from).take(limit);
        let items: Vec<T> = found.map(|(_, entry)| entry.clone()).collect();
        let is_cut = self.entries.len() - from > items.len();
        let last = self.entries.get(from + items.len().saturating_sub(1)).map(|(position, _)| *position);
        let to = if is_cut { last.unwrap_or(after) } else { reached.max(after) };
        Some(Page { items, to })
    }
}

/// What is kept of one workspace.
#[derive(Debug)]
struct Lane {
    /// Couriers of the workspace.
    seats: usize,
    facts: Kept<Fact>,
    /// Since somebody asked for them.
    visits: Option<Kept<Visits>>,
    /// The position of the newest entry.
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Sorted {
    /// Everything up to here was read, as far as somebody wanted it.
    reached: u64,
    lanes: HashMap<WorkspaceId, Lane>,
}

/// Reads the log for all couriers.
#[derive(Debug)]
pub(super) struct Recent {
    log: SharedLog,
    sorted: Mutex<Sorted>,
}

/// A courier's place: as long as somebody has one, what happens in a workspace is kept.
#[derive(Debug)]
pub(super) struct Seat {
    recent: Arc<Recent>,
    workspace: WorkspaceId,
    /// Shows when there is something new.
    pub(super) news: watch::Receiver<u64>,
}

impl Recent {
    pub(super) fn new(log: SharedLog) -> Self {
        let reached = *log.head().borrow();
        Self { log, sorted: Mutex::new(Sorted { reached, ..Sorted::default() }) }
    }

    /// Works until it is told to stop.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Without it no courier would ever hear anything again.
        let _fail_fast = FailFast("webhooks' reader");
        let mut head = self.log.head();
        loop {
            // Before the look: what comes after this is news.
            head.mark_unchanged();
            let pause = match self.read_on().await {
                Ok(()) => match stop.run_until_cancelled(head.changed()).await {
                    Some(Ok(())) => GATHER,
                    // The hub stops, or the log is closed.
                    Some(Err(_)) | None => return,
                },
                Err(error) => {
                    tracing::error!(%error, "the log cannot be read for webhooks");
                    TROUBLE_PAUSE
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Reads and sorts everything up to the head.
    async fn read_on(&self) -> Result<(), ReadError> {
        loop {
            let head = *self.log.head().borrow();
            let (after, families) = {
                let mut sorted = self.sorted.lock();
                if sorted.lanes.is_empty() {
                    // Nobody wants to know.
                    sorted.reached = head.max(sorted.reached);
                }
                let visits = sorted.lanes.values().any(|lane| lane.visits.is_some());
                let facts = Families::only(Family::Facts);
                (sorted.reached, if visits { facts.and(Family::Accesses) } else { facts })
            };
            if after >= head {
                return Ok(());
            }
            let batch = self.log.read_all(after, families, BATCH).await?;
            let to = batch.last().map_or(head, |last| last.position);
            self.sort(&batch, to, families);
        }
    }

    fn sort(&self, batch: &[Recorded], to: u64, families: Families) {
        let mut sorted = self.sorted.lock();
        let most = (KEPT_MAX / sorted.lanes.len().max(1)).clamp(KEPT_OF_ONE_MIN, KEPT_OF_ONE_MAX);
        for recorded in batch {
            let Some(lane) = sorted.lanes.get_mut(&recorded.workspace) else { continue };
            let is_new = match recorded.family() {
                Family::Facts => {
                    Fact::of(recorded).map(|fact| lane.facts.push(recorded.position, fact, most)).is_some()
                }
                Family::Accesses => lane.visits.as_mut().is_some_and(|kept| {
                    Visits::of(recorded).map(|it| kept.push(recorded.position, it, most)).is_some()
                }),
                Family::Deliveries => false,
            };
            if is_new {
                lane.news.send_replace(recorded.position);
            }
        }
        if !families.contains(Family::Accesses) {
            // Somebody asked for them while this batch was read without them.
            for kept in sorted.lanes.values_mut().filter_map(|lane| lane.visits.as_mut()) {
                kept.after = kept.after.max(to);
            }
        }
        sorted.reached = sorted.reached.max(to);
    }

    /// Takes a seat for a courier of a workspace.
    pub(super) fn seat(self: &Arc<Self>, workspace: WorkspaceId) -> Seat {
        let mut sorted = self.sorted.lock();
        let reached = sorted.reached;
        let lane = sorted.lanes.entry(workspace).or_insert_with(|| Lane {
            seats: 0,
            facts: Kept::new(reached),
            visits: None,
            news: watch::Sender::new(reached),
        });
        lane.seats += 1;
        Seat { recent: Arc::clone(self), workspace, news: lane.news.subscribe() }
    }
}

impl Seat {
    /// Facts behind a place, at most so many; `None`: not all of them are here.
    pub(super) fn facts(&self, after: u64, limit: usize) -> Option<Page<Fact>> {
        let sorted = self.recent.sorted.lock();
        sorted.lanes.get(&self.workspace)?.facts.page(after, limit, sorted.reached)
    }

    /// Accesses behind a place, at most so many packed events; `None`: not all of them are here.
    pub(super) fn visits(&self, after: u64, limit: usize) -> Option<Page<Visits>> {
        let mut sorted = self.recent.sorted.lock();
        let reached = sorted.reached;
        let lane = sorted.lanes.get_mut(&self.workspace)?;
        lane.visits.get_or_insert_with(|| Kept::new(reached)).page(after, limit, reached)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sorted = self.recent.sorted.lock();
        if let Some(lane) = sorted.lanes.get_mut(&self.workspace) {
            lane.seats -= 1;
            if lane.seats == 0 {
                sorted.lanes.remove(&self.workspace);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Webhooks: a courier for each, what they are asked by the API, and what signs their messages.
//!
//! | part | does |
//! |---|---|
//! | [`courier`] | reads the log for one webhook, sends one message at a time, notes what came of it |
//! | `reading` | which events become which messages, in the log's order |
//! | `recent` | what is new, read once for all couriers and sorted by workspace |
//! | [`behind`] | what a courier reads that is far behind the others |
//! | [`counts`] | what metrics show of all couriers |
//! | `stored` | a courier's state: events of `deliveries-<webhook>` |
//! | [`message`] | a message's body, made from the log |
//! | [`signature`] | secrets and what is signed with them |
//! | [`sending`] | one try: who is connected to, and what counts as an answer |
//! | [`places`] | where in the log a time or a shown position is |

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    delivery::{Lane, Message, Said, Source},
    ids::{DeliveryId, EventId, WebhookId},
    time::Timestamp,
    webhook::Details,
};
use parking_lot::Mutex;
use schemas::rest::events::PublicEvent;
use serde_json::{Map, Value};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub mod behind;
pub mod counts;
pub mod courier;
pub mod message;
pub mod places;
mod reading;
mod recent;
#[cfg(test)]
mod rig;
pub mod sending;
pub mod signature;
mod stored;

use counts::{Counts, Overview, Standing};
pub use courier::Parts;
use courier::{Ears, Order};
use recent::Recent;
use sending::Reply;

/// The most webhooks of one workspace: each has a courier, and messages of its own.
pub const WEBHOOKS_MAX: usize = 100;
/// Orders that wait for one courier; further ones are refused.
const ORDERS_MAX: usize = 64;
/// How long an order may wait for its courier.
const ORDER_PATIENCE: Duration = Duration::from_secs(5);
/// The type of the message that a test sends.
pub const TEST: &str = "webhook.test";

/// The courier did not answer: it is not known whether the order was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCourier;

/// The couriers of this hub.
#[derive(Debug)]
pub struct Webhooks {
    parts: Arc<Parts>,
    recent: Arc<Recent>,
    couriers: Mutex<HashMap<WebhookId, Reached>>,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How a courier is reached.
#[derive(Debug)]
struct Reached {
    orders: mpsc::Sender<Order>,
    changed: Arc<Notify>,
    standing: Arc<Standing>,
    task: AbortHandle,
}

impl Webhooks {
    pub fn new(parts: Parts, runtime: Handle) -> Self {
        Self {
            recent: Arc::new(Recent::new(parts.log.clone())),
            parts: Arc::new(parts),
            couriers: Mutex::default(),
            runtime,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Works until it is told to stop: every webhook has its courier, also what was created before this start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.tasks.spawn_on(Arc::clone(&self.recent).run(self.stop.clone()), &self.runtime);
        for (id, _) in self.parts.routes.all_webhooks() {
            self.follow(id);
        }
        stop.cancelled().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Lets a webhook's courier know what its facts say now; there is one as long as the webhook is there.
    pub fn follow(&self, id: WebhookId) {
        let is_there = self.parts.routes.webhook(id).is_some_and(|entry| entry.state.live().is_some());
        let mut couriers = self.couriers.lock();
        if !is_there {
            if let Some(reached) = couriers.remove(&id) {
                reached.changed.notify_one();
            }
            return;
        }
        if let Some(reached) = couriers.get(&id).filter(|reached| !reached.task.is_finished()) {
            reached.changed.notify_one();
            return;
        }
        if self.stop.is_cancelled() {
            return;
        }
        let (orders, heard) = mpsc::channel(ORDERS_MAX);
        let changed = Arc::<Notify>::default();
        let standing = Arc::<Standing>::default();
        let ears = Ears {
            orders: heard,
            changed: Arc::clone(&changed),
            standing: Arc::clone(&standing),
            stop: self.stop.clone(),
        };
        let courier = courier::run(id, Arc::clone(&self.parts), Arc::clone(&self.recent), ears);
        let task = self.tasks.spawn_on(courier, &self.runtime);
        couriers.insert(id, Reached { orders, changed, standing, task: task.abort_handle() });
    }

    /// How the couriers stand; `head`: of the log.
    pub fn overview(&self, head: u64, now: Timestamp) -> Overview {
        let mut overview = Overview::default();
        for reached in self.couriers.lock().values() {
            overview.add(&reached.standing, head, now);
        }
        overview
    }

    /// What came of their tries so far.
    pub fn counts(&self) -> &Counts {
        &self.parts.counts
    }

    /// Ends every courier where it stands, as a crash does.
    #[cfg(test)]
    fn abort_all(&self) {
        self.stop.cancel();
        for (_, reached) in self.couriers.lock().drain() {
            reached.task.abort();
        }
    }

    /// The current secret, for the answers that show it.
    pub fn secret(&self, id: WebhookId, draw: Uuid) -> crate::secrets::Secret {
        self.parts.secrets.shown(id, draw)
    }

    /// Sends a message that says that it is a test, now and once; it is not in the log, and its sequence is 0.
    pub async fn test(&self, id: WebhookId, details: &Details, message: EventId) -> (Reply, u32) {
        let now = self.parts.clock.now();
        let data = Map::from_iter([
            ("webhookId".to_owned(), Value::String(id.to_string())),
            ("message".to_owned(), Value::String("This is a test of a webhook.".to_owned())),
        ]);
        let event = PublicEvent {
            id: message.to_string(),
            event_type: TEST.to_owned(),
            event: TEST.to_owned(),
            timestamp: now.to_string(),
            workspace_id: details.created.workspace_id.to_string(),
            data,
        };
        let body = message::told(event, 0);
        let keys: Vec<_> = details.signing(now).map(|draw| self.parts.secrets.key(id, draw)).collect();
        let identity =
            courier::Identity { webhook: id, message: message.to_string(), event_type: TEST.to_owned() };
        let outgoing = courier::outgoing(details.created.url.clone(), &identity, &keys, body, now);
        let since = tokio::time::Instant::now();
        let post = self.parts.post.post(outgoing, now);
        // The connection lives on the threads that bytes move on, and ends there though the caller has gone.
        let reply = self.runtime.spawn(post).await;
        let reply = reply.unwrap_or(Reply::nothing(domain::delivery::Problem::BrokenOff));
        (reply, u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX))
    }

    /// Lets a message be sent again, as a delivery of its own; it is in the log when this answers.
    ///
    /// # Errors
    /// [`NoCourier`].
    pub async fn redeliver(&self, id: WebhookId, again: Again) -> Result<(), NoCourier> {
        let message = Message {
            delivery_id: again.delivery_id,
            message_id: again.message_id,
            event_type: again.event_type,
            source: again.source,
            lane: Lane::Alone,
            due_at: self.parts.clock.now(),
        };
        self.order(id, |reply| Order::Redeliver { message, reply }).await
    }

    /// Lets a webhook be sent what happened after a position of the log, and what follows.
    ///
    /// # Errors
    /// [`NoCourier`].
    pub async fn replay(&self, id: WebhookId, position: u64) -> Result<(), NoCourier> {
        self.order(id, |reply| Order::Replay { position, reply }).await
    }

    /// Accesses up to a position are about to leave the log: up to where no webhook needs them any more. With `force`
    /// every courier leaves out what it has not delivered of them, and that is recorded as `webhook.skipped`; then the
    /// answer is less only where a message is on its way.
    ///
    /// # Errors
    /// [`NoCourier`]: somebody may need all of them.
    pub async fn let_go(&self, up_to: u64, force: bool) -> Result<u64, NoCourier> {
        let mut free = up_to;
        for (id, entry) in self.parts.routes.all_webhooks() {
            if entry.state.live().is_some() {
                free = free.min(self.order(id, |reply| Order::LetGo { up_to, force, reply }).await?);
            }
        }
        Ok(free)
    }

    async fn order<T>(
        &self,
        id: WebhookId,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, NoCourier> {
        self.follow(id);
        let orders = self.couriers.lock().get(&id).map(|reached| reached.orders.clone()).ok_or(NoCourier)?;
        let (reply, answer) = oneshot::channel();
        orders.try_send(order(reply)).map_err(|_| NoCourier)?;
        timeout(ORDER_PATIENCE, answer).await.map_err(|_| NoCourier)?.map_err(|_| NoCourier)
    }
}

/// A message that is to be sent again.
#[derive(Debug, Clone)]
pub struct Again {
    pub delivery_id: DeliveryId,
    pub message_id: EventId,
    pub event_type: String,
    pub source: Source,
}

/// Whether a receiver took a message.
pub const fn is_taken(said: Said) -> bool {
    matches!(said, Said::Status(200..=299))
}

//! One courier per webhook: reads the log from its own place, plans, sends one message at a time, notes what came of it.
//!
//! Planned durably before it is tried; tried again after a crash unless its end was noted. Couriers share nothing but the
//! log, so a receiver that is slow or dead costs its own courier's time and nobody else's: one connection for each webhook
//! is the most there is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    delivery::{Answer, Backlog, DeliveriesNoted, Judging, Lane, Message, Problem, Said, Source, Step},
    ids::{ShareId, WebhookId},
    policy::retries::Schedule,
    time::Timestamp,
    webhook::{Command, DisableReason},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use projections::routes::Routes;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    behind::{Behind, Index},
    counts::{Counts, Standing},
    message::{Messages, NoBody},
    reading::{ROOM_NEEDED, Read, Reading},
    recent::Recent,
    sending::{Outgoing, Post, Reply},
    signature::{self, Secrets, SigningKey},
    stored,
};
use crate::{
    actors::{Executor, FailFast, Who},
    clock::SharedClock,
    event_log::{AppendError, SharedLog},
    secrets::random_bytes,
};

mod leaving;

/// The least time between two tries of one webhook: a backlog of 10,000 messages takes a hundred seconds.
pub(super) const GAP: Duration = Duration::from_millis(10);
/// Messages about one share are at least so far apart.
const SHARE_PACE: Duration = Duration::from_secs(1);
/// A share's second that comes so soon is waited for; before a later one others go first.
const PACE_WAITED_FOR: Duration = Duration::from_millis(100);
/// Tries are noted after so many, or so long, or when there is nothing to do: what a crash in between costs is that so many
/// are sent again.
const UNNOTED_MAX: usize = 50;
const UNNOTED_FOR: Duration = Duration::from_millis(250);
/// The longest sleep: the hub's clock may be set.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long to wait after the log could not be read or written.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// How long a message that is being sent when the hub stops may take to its end.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What couriers work with.
#[derive(Debug)]
pub struct Parts {
    pub log: SharedLog,
    pub clock: SharedClock,
    pub routes: Arc<Routes>,
    pub executor: Executor,
    pub messages: Messages,
    pub secrets: Secrets,
    pub post: Box<dyn Post>,
    pub schedule: Schedule,
    /// Where couriers that are far behind find what concerns them; without one they read everything.
    pub index: Option<Index>,
    pub counts: Counts,
}

/// What somebody asks of a courier. Answered when it is in the log.
#[derive(Debug)]
pub(super) enum Order {
    Redeliver {
        message: Message,
        reply: oneshot::Sender<()>,
    },
    Replay {
        position: u64,
        reply: oneshot::Sender<()>,
    },
    /// Accesses up to a position are about to leave the log. Answers up to where this courier needs none; with `force` that
    /// is all of them, and what was not delivered is recorded as skipped.
    LetGo {
        up_to: u64,
        force: bool,
        reply: oneshot::Sender<u64>,
    },
}

/// How a courier is reached.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) orders: mpsc::Receiver<Order>,
    /// Something about the webhook itself has changed.
    pub(super) changed: Arc<Notify>,
    pub(super) standing: Arc<Standing>,
    pub(super) stop: CancellationToken,
}

/// A message on its way.
struct Trying {
    sequence: u64,
    at: Timestamp,
    since: Instant,
    reply: BoxFuture<'static, Result<Reply, NoBody>>,
}

/// Why a courier begins anew.
enum Trouble {
    /// The log says no: later.
    Log(String),
    /// What is in the log may not be what the courier believes.
    Doubt(String),
}

pub(super) struct Courier {
    id: WebhookId,
    parts: Arc<Parts>,
    reading: Reading,
    backlog: Backlog,
    /// The last event of the deliveries' stream.
    revision: u64,
    trying: Option<Trying>,
    /// No try before that.
    next_try: Instant,
    /// When a message about each share was sent last.
    shares: HashMap<ShareId, Instant>,
    /// Since when there is something to note.
    unnoted_since: Option<Instant>,
    disable: Option<DisableReason>,
    /// The last look at the log found nothing, and there is no news since.
    read_all: bool,
    /// When to look at the log again: accesses wait for their second.
    look_at: Option<Timestamp>,
    _fail_fast: FailFast,
}

/// Works until the webhook is deleted or the hub stops.
pub(super) async fn run(id: WebhookId, parts: Arc<Parts>, recent: Arc<Recent>, mut ears: Ears) {
    loop {
        let trouble = match Courier::start(id, &parts, &recent).await {
            Ok(Some(courier)) => courier.work(&mut ears).await,
            Ok(None) => return,
            Err(trouble) => Err(trouble),
        };
        match trouble {
            Ok(()) => return,
            Err(Trouble::Log(reason)) => {
                tracing::error!(webhook = %id, reason, "a webhook's courier waits for the log");
            }
            Err(Trouble::Doubt(reason)) => {
                tracing::warn!(webhook = %id, reason, "a webhook's courier reads its state anew");
            }
        }
        if ears.stop.run_until_cancelled(tokio::time::sleep(TROUBLE_PAUSE)).await.is_none() {
            return;
        }
    }
}

impl Courier {
    async fn start(id: WebhookId, parts: &Arc<Parts>, recent: &Arc<Recent>) -> Result<Option<Self>, Trouble> {
        let known = stored::read(&parts.log, id).await.map_err(|error| Trouble::Log(error.to_string()))?;
        let Some(known) = known else { return Ok(None) };
        let behind = Behind::new(parts.log.clone(), parts.index.clone(), known.workspace);
        let seat = recent.seat(known.workspace);
        Ok(Some(Self {
            id,
            parts: Arc::clone(parts),
            reading: Reading::new(id, seat, behind, known.webhook),
            backlog: known.backlog,
            revision: known.revision,
            trying: None,
            next_try: Instant::now(),
            shares: HashMap::new(),
            unnoted_since: None,
            disable: known.disable,
            read_all: false,
            look_at: None,
            _fail_fast: FailFast("courier"),
        }))
    }

    async fn work(mut self, ears: &mut Ears) -> Result<(), Trouble> {
        let mut news = self.reading.seat.news.clone();
        // What was left out before a crash.
        self.tell_skipped().await?;
        loop {
            if ears.stop.is_cancelled() {
                return self.end().await;
            }
            let Some(active) = self.is_active() else { return Ok(()) };
            self.settle_disabling().await?;
            if !self.read_all {
                // Before the look: what comes after this is news.
                news.mark_unchanged();
            }
            self.read(active).await?;
            let step = self.begin(active).await?;
            ears.standing.tell(&self.backlog, active);
            let nothing_to_do = !matches!(step, Step::Try(_)) && self.trying.is_none();
            if nothing_to_do || self.is_overdue() {
                self.note().await?;
            }
            let (wake_at, wants_news) = (self.wake_at(step), self.wants_news(active));
            tokio::select! {
                // In this order: a try that has begun is on its way before anything else is looked at.
                biased;
                () = ears.stop.cancelled() => {}
                reply = replied(&mut self.trying) => self.take(reply).await?,
                Some(order) = ears.orders.recv() => self.obey(order).await?,
                () = ears.changed.notified() => self.read_all = false,
                () = heard(&mut news, wants_news) => self.read_all = false,
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Whether the webhook is sent what happens; `None`: it is deleted.
    fn is_active(&self) -> Option<bool> {
        let entry = self.parts.routes.webhook(self.id)?;
        entry.state.live().map(|details| details.is_active() && self.disable.is_none())
    }

    fn is_overdue(&self) -> bool {
        self.unnoted_since.is_some_and(|since| since.elapsed() >= UNNOTED_FOR)
    }

    fn wants_news(&self, active: bool) -> bool {
        active && self.read_all && self.look_at.is_none()
    }

    /// Reads on and plans, as long as there is room.
    async fn read(&mut self, active: bool) -> Result<(), Trouble> {
        let now = self.parts.clock.now();
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.read_all = false;
        }
        while active && !self.read_all && self.look_at.is_none() && self.backlog.room() >= ROOM_NEEDED {
            let read = self.reading.read_on(&mut self.backlog, now).await;
            let read = read.map_err(|error| Trouble::Log(error.to_string()))?;
            // What is too old is told when nothing is known behind it, or something that is not too old: once for all of it.
            match read {
                Read::More(0) => {}
                Read::More(_) | Read::Nothing | Read::Wait(_) => self.tell_skipped().await?,
            }
            match read {
                Read::More(_) => {}
                Read::Nothing => self.read_all = true,
                Read::Wait(until) => self.look_at = Some(until),
            }
        }
        Ok(())
    }

    /// Begins with the next try, if it is time for one.
    async fn begin(&mut self, active: bool) -> Result<Step, Trouble> {
        let (step, sequence) = loop {
            let step = self.backlog.next(self.parts.clock.now(), active);
            let Step::Try(sequence) = step else { return Ok(step) };
            if self.trying.is_some() || Instant::now() < self.next_try {
                return Ok(step);
            }
            let wait = self.share_pace(sequence);
            if wait == Duration::ZERO {
                break (step, sequence);
            }
            if wait <= PACE_WAITED_FOR {
                self.next_try = Instant::now() + wait;
                return Ok(step);
            }
            let span = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            self.backlog.postpone(sequence, self.parts.clock.now().plus_ms(span + 1));
        };
        // What is planned is in the log before it is sent: its id and its number are the same after a crash.
        if self.backlog.is_unnoted(sequence) || self.backlog.unnoted() >= UNNOTED_MAX {
            self.note().await?;
        }
        let Some(planned) = self.backlog.message(sequence).cloned() else { return Ok(step) };
        let Some(entry) = self.parts.routes.webhook(self.id) else { return Ok(step) };
        let Some(details) = entry.state.live() else { return Ok(step) };
        let at = self.parts.clock.now();
        let keys: Vec<SigningKey> =
            details.signing(at).map(|draw| self.parts.secrets.key(self.id, draw)).collect();
        let (url, id, workspace) = (details.created.url.clone(), self.id, self.reading.workspace);
        let (parts, source) = (Arc::clone(&self.parts), planned.source.clone());
        let reply = async move {
            let body = parts.messages.body(workspace, &planned).await?;
            let id = Identity {
                webhook: id,
                message: planned.message_id.to_string(),
                event_type: planned.event_type,
            };
            Ok(parts.post.post(outgoing(url, &id, &keys, body, at), at).await)
        };
        if let Source::Accesses { share_id, .. } = &source {
            self.shares.retain(|_, sent| sent.elapsed() < SHARE_PACE);
            self.shares.insert(*share_id, Instant::now());
        }
        self.next_try = Instant::now() + GAP;
        self.trying = Some(Trying { sequence, at, since: Instant::now(), reply: reply.boxed() });
        Ok(step)
    }

    /// How long a message about a share has to wait because another one was sent less than a second ago.
    fn share_pace(&self, sequence: u64) -> Duration {
        let source = self.backlog.message(sequence).map(|message| &message.source);
        let Some(Source::Accesses { share_id, .. }) = source else { return Duration::ZERO };
        self.shares.get(share_id).map_or(Duration::ZERO, |sent| SHARE_PACE.saturating_sub(sent.elapsed()))
    }

    /// Takes in what came of the try that was under way.
    async fn take(&mut self, reply: Result<Reply, NoBody>) -> Result<(), Trouble> {
        let Some(Trying { sequence, at, since, .. }) = self.trying.take() else { return Ok(()) };
        let reply = match reply {
            Ok(reply) => reply,
            Err(NoBody::Lost) => Reply::nothing(Problem::SourceLost),
            Err(NoBody::Log(error)) => return Err(Trouble::Log(error.to_string())),
        };
        let latency_ms = u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX);
        let ended = at.plus_ms(i64::from(latency_ms)).max(self.parts.clock.now());
        let answer = Answer { at: ended, latency_ms, said: reply.said, asked_ms: reply.asked_ms };
        let random = u32::from_be_bytes(*random_bytes().first_chunk().expect("32 bytes"));
        let active = self.is_active().unwrap_or(false);
        let judging = Judging { schedule: &self.parts.schedule, random, active };
        let then = self.backlog.note(sequence, &answer, judging);
        self.parts.counts.tried(answer.said, latency_ms, then);
        tracing::debug!(webhook = %self.id, sequence, ?reply, ?then, "tried a webhook's message");
        self.unnoted_since.get_or_insert_with(Instant::now);
        if answer.is_gone() {
            self.disable = Some(DisableReason::Gone);
        } else if !matches!(answer.said, Said::Status(200..=299)) && self.backlog.is_dead(answer.at) {
            self.disable = Some(DisableReason::Failing);
        }
        if self.disable.is_some() {
            // What the receiver said comes first: a start that finds it finishes the rest.
            self.note().await?;
        }
        Ok(())
    }

    async fn settle_disabling(&mut self) -> Result<(), Trouble> {
        if let Some(reason) = self.disable {
            self.tell(Command::Disable { reason }).await?;
            self.parts.counts.disabled(reason);
            tracing::warn!(webhook = %self.id, ?reason, "a webhook was disabled");
            self.disable = None;
        }
        Ok(())
    }

    /// Has something recorded about the webhook itself.
    fn tell(&self, command: Command) -> impl Future<Output = Result<(), Trouble>> + Send + use<> {
        let (id, executor) = (self.id, self.parts.executor.clone());
        let who = Who::hub(self.reading.workspace, "courier");
        async move {
            let done = executor.webhook(id, who, command).await;
            done.map(|_| ()).map_err(|error| Trouble::Log(format!("{error:?}")))
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), Trouble> {
        let reply = match order {
            Order::LetGo { up_to, force, reply } => {
                let free = self.let_go(up_to, force).await?;
                self.note().await?;
                // Who asked may have gone.
                let _ = reply.send(free);
                return Ok(());
            }
            Order::Redeliver { message, reply } => {
                let known = self.backlog.messages().any(|it| it.delivery_id == message.delivery_id);
                if !known {
                    self.backlog.plan(Message { lane: Lane::Alone, ..message }, self.parts.clock.now());
                }
                reply
            }
            Order::Replay { position, reply } => {
                let head = *self.parts.log.head().borrow();
                self.backlog.replay_from(position, head);
                // Events from before the webhook's last change are judged by what it is now.
                if let Some(entry) = self.parts.routes.webhook(self.id) {
                    self.reading.webhook = entry.state.clone();
                }
                (self.read_all, self.look_at) = (false, None);
                reply
            }
        };
        self.note().await?;
        // Who asked may have gone.
        let _ = reply.send(());
        Ok(())
    }

    /// Appends what no event says yet.
    async fn note(&mut self) -> Result<(), Trouble> {
        self.unnoted_since = None;
        if !self.backlog.is_changed() {
            return Ok(());
        }
        let revision = self.revision + 1;
        let noted: DeliveriesNoted = self.backlog.to_note(revision);
        let of = (self.id, self.reading.workspace);
        match stored::append(&self.parts.log, &self.parts.clock, of, noted.clone(), revision).await {
            Ok(()) => {
                self.backlog.noted(&noted, revision);
                self.revision = revision;
                Ok(())
            }
            Err(AppendError::Unavailable(reason)) => Err(Trouble::Log(reason)),
            Err(
                error @ (AppendError::Conflict { .. } | AppendError::InDoubt(_) | AppendError::Refused(_)),
            ) => Err(Trouble::Doubt(error.to_string())),
        }
    }

    /// The hub stops: what is under way may end, and what is known is noted.
    async fn end(mut self) -> Result<(), Trouble> {
        if let Some(trying) = &mut self.trying
            && let Ok(reply) = tokio::time::timeout(STOP_PATIENCE, &mut trying.reply).await
        {
            self.take(reply).await?;
        }
        self.note().await
    }

    fn wake_at(&self, step: Step) -> Instant {
        let now = self.parts.clock.now();
        let in_ms = |until: Timestamp| {
            let span = u64::try_from(until.millis().saturating_sub(now.millis())).unwrap_or(0);
            Duration::from_millis(span.max(1)).min(SLEEP_MAX)
        };
        let mut wake_at = Instant::now() + SLEEP_MAX;
        if let Some(at) = self.look_at {
            wake_at = wake_at.min(Instant::now() + in_ms(at));
        }
        if let Some(since) = self.unnoted_since {
            wake_at = wake_at.min(since + UNNOTED_FOR);
        }
        if self.trying.is_some() {
            return wake_at;
        }
        match step {
            Step::Try(_) => wake_at.min(self.next_try),
            Step::Wait(until) => wake_at.min(Instant::now() + in_ms(until)),
            Step::Idle => wake_at,
        }
    }
}

/// The end of the try that is under way; never, when none is.
async fn replied(trying: &mut Option<Trying>) -> Result<Reply, NoBody> {
    match trying {
        Some(trying) => (&mut trying.reply).await,
        None => std::future::pending().await,
    }
}

/// When something happens in the courier's workspace; never, when that is not wanted.
async fn heard(news: &mut watch::Receiver<u64>, wanted: bool) {
    // The sender stays as long as the courier has its seat.
    if !wanted || news.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What a message is known by.
pub(super) struct Identity {
    pub(super) webhook: WebhookId,
    pub(super) message: String,
    pub(super) event_type: String,
}

/// A message with its headers.
pub(super) fn outgoing(
    url: String,
    id: &Identity,
    keys: &[SigningKey],
    body: bytes::Bytes,
    at: Timestamp,
) -> Outgoing {
    let mut headers = signature::headers(keys, &id.message, at.millis().div_euclid(1_000), &body);
    headers.push(("x-webhook-event", id.event_type.clone()));
    headers.push(("x-webhook-id", id.webhook.to_string()));
    Outgoing { url, headers, body }
}

#[cfg(test)]
mod tests;

//! How a courier reads the log: what its webhook is sent of the events behind its place, in their order.
//!
//! Facts become a message each. Accesses of one share are gathered, at most a hundred to a message and one message a second;
//! a share that is used more than that has its messages wait for their seconds, and holds nobody. What the webhook's own
//! facts change counts for the events after them and for none before.

use std::collections::{BTreeMap, HashMap};

use domain::{
    access::{self, ShareAccessed},
    aggregate::Aggregate as _,
    delivery::{ACCESSES_MAX, AGE_MS_MAX, Backlog, Lane, Message, Part, Source},
    event::Event,
    ids::{DeliveryId, EventId, ShareId, WebhookId, WorkspaceId},
    public_events,
    recorded::{Families, Family, Recorded, StreamName},
    time::Timestamp,
    webhook::{Event as WebhookEvent, Webhook, WebhookSkipped},
};
use uuid::Uuid;

use crate::event_log::{ReadError, SharedLog};

/// Facts read at once.
const FACTS: usize = 250;
/// Packed accesses read at once.
const PACKED: usize = 100;
/// So many messages may become of one reading at most (facts, full and begun messages of accesses): there must be room.
pub(super) const ROOM_NEEDED: usize = 500;
/// With so many messages of accesses waiting, no further ones are made: facts go on.
const ACCESSES_WAITING_MAX: usize = 300;
/// A share's accesses are sent at most so often (milliseconds).
const PACE_MS: i64 = 1_000;

/// Reads the log for one webhook.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) workspace: WorkspaceId,
    own: StreamName,
    log: SharedLog,
    /// The webhook as of the place that is reached: its filter then.
    pub(super) webhook: Webhook,
    /// When the next message about a share may be sent.
    due: HashMap<ShareId, Timestamp>,
    /// Events that were too old, and are not told yet.
    skipped: Option<WebhookSkipped>,
}

/// What came of a look at the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many messages were planned; there may be more.
    More(usize),
    /// Nothing is behind the place now.
    Nothing,
    /// There are accesses whose second comes then.
    Wait(Timestamp),
}

/// One step of a reading.
struct Batch {
    facts: Vec<Recorded>,
    accesses: Vec<Recorded>,
    /// Everything up to here is in it.
    facts_to: u64,
    accesses_to: u64,
}

/// Accesses of one share on their way into messages.
#[derive(Debug, Default)]
struct Gathered {
    /// Full ones, and at the end the one that is being filled.
    messages: Vec<Vec<Part>>,
    count: usize,
}

impl Reading {
    pub(super) fn new(id: WebhookId, workspace: WorkspaceId, log: SharedLog, webhook: Webhook) -> Self {
        let own = StreamName::webhook(id);
        Self { workspace, own, log, webhook, due: HashMap::new(), skipped: None }
    }

    fn matches(&self, event_type: &str) -> bool {
        self.webhook.live().is_some_and(|details| details.created.events.matches(event_type))
    }

    /// Reads on, and plans what it finds.
    pub(super) async fn read_on(&mut self, backlog: &mut Backlog, now: Timestamp) -> Result<Read, ReadError> {
        // Before the questions: what is appended meanwhile is for the next time.
        let head = *self.log.head().borrow();
        let batch = self.batch(backlog, head).await?;
        if let Some(until) = self.paced(&batch.accesses, now) {
            return Ok(Read::Wait(until));
        }
        let too_old = now.plus_ms(-AGE_MS_MAX);
        let replayed = backlog.replay_up_to;
        let is_old = |recorded: &Recorded| recorded.recorded_at < too_old && recorded.position > replayed;
        let mut found: Vec<(u64, Message)> = Vec::new();
        for recorded in &batch.facts {
            if recorded.workspace != self.workspace {
                continue;
            }
            // What is replayed is judged by the webhook as it is now: it has seen its own past.
            let told_anyway = recorded.position > replayed && self.note_own(recorded);
            if !told_anyway && !self.matches(&recorded.event_type) {
                continue;
            }
            if is_old(recorded) {
                self.skip(recorded.recorded_at, 1);
                continue;
            }
            let source = Source::Event { position: recorded.position };
            found.push((recorded.position, message(recorded.id, &recorded.event_type, source, now)));
        }
        let mut gathered: BTreeMap<ShareId, Gathered> = BTreeMap::new();
        for recorded in &batch.accesses {
            let Some(accessed) = self.of_workspace(recorded) else { continue };
            if is_old(recorded) {
                self.skip(recorded.recorded_at, accessed.accesses.len());
                continue;
            }
            gathered.entry(accessed.share_id).or_default().add(recorded.position, accessed.accesses.len());
        }
        for (share, gathered) in gathered {
            let mut due = self.due.get(&share).copied().unwrap_or(now).max(now);
            for parts in gathered.messages {
                let Some(first) = parts.first().map(|part| part.position) else { continue };
                let id = EventId::new(Uuid::now_v7());
                let source = Source::Accesses { share_id: share, parts };
                found.push((first, message(id, public_events::ACCESSED, source, due)));
                due = due.plus_ms(PACE_MS);
            }
            self.due.insert(share, due);
        }
        self.due.retain(|_, due| *due > now);
        found.sort_by_key(|(position, _)| *position);
        let planned = found.len();
        for (_, message) in found {
            backlog.plan(message, now);
        }
        let moved = (batch.facts_to, batch.accesses_to) != (backlog.facts_after, backlog.accesses_after);
        backlog.read_up_to(batch.facts_to, batch.accesses_to);
        let is_more = planned > 0 || !batch.facts.is_empty() || !batch.accesses.is_empty();
        Ok(if is_more && moved { Read::More(planned) } else { Read::Nothing })
    }

    /// Events that were left out and are to be told now: none is known behind them, or one that is not too old.
    pub(super) fn take_skipped(&mut self, read: &Read) -> Option<WebhookSkipped> {
        match read {
            Read::More(0) => None,
            Read::More(_) | Read::Nothing | Read::Wait(_) => self.skipped.take(),
        }
    }

    async fn batch(&self, backlog: &Backlog, head: u64) -> Result<Batch, ReadError> {
        let (facts_after, accesses_after) = (backlog.facts_after, backlog.accesses_after);
        let mut facts = self.log.read_all(facts_after, Families::only(Family::Facts), FACTS).await?;
        let mut facts_to = facts.last().map_or(head, |last| last.position).max(facts_after);
        // A change of the filter ends the step: what follows is read with the new one.
        let own_change =
            facts.iter().position(|it| it.stream == self.own && it.event_type.as_ref() == "webhook.updated");
        if let Some(place) = own_change {
            facts.truncate(place + 1);
            facts_to = facts[place].position;
        }
        if !self.matches(public_events::ACCESSED) {
            return Ok(Batch {
                facts,
                accesses: Vec::new(),
                facts_to,
                accesses_to: facts_to.max(accesses_after),
            });
        }
        let is_of_accesses =
            |message: &domain::delivery::Planned| matches!(message.source, Source::Accesses { .. });
        if backlog.messages().filter(|it| is_of_accesses(it)).count() >= ACCESSES_WAITING_MAX {
            return Ok(Batch { facts, accesses: Vec::new(), facts_to, accesses_to: accesses_after });
        }
        let mut accesses =
            self.log.read_all(accesses_after, Families::only(Family::Accesses), PACKED).await?;
        let accesses_to = accesses.last().map_or(head, |last| last.position).max(accesses_after);
        // Neither of the two runs ahead of the other, so that messages come in the order of the log. Accesses that were
        // left behind by facts catch up alone.
        let both_to = if accesses_to < facts_after { facts_after } else { facts_to.min(accesses_to) };
        facts.retain(|it| it.position <= both_to);
        accesses.retain(|it| it.position <= both_to);
        let accesses_to = accesses_to.min(both_to.max(accesses_after));
        Ok(Batch { facts, accesses, facts_to: both_to.max(facts_after), accesses_to })
    }

    /// Until when to wait for a share's second, where that comes soon: then everything goes in order. A share that is
    /// used too much is not waited for.
    fn paced(&self, accesses: &[Recorded], now: Timestamp) -> Option<Timestamp> {
        if self.due.is_empty() {
            return None;
        }
        let shares = accesses.iter().filter_map(|it| Some(self.of_workspace(it)?.share_id));
        let due = shares.filter_map(|share| self.due.get(&share)).copied();
        due.filter(|due| *due > now && *due <= now.plus_ms(PACE_MS)).max()
    }

    /// What a packed event of the webhook's workspace says; completions say nothing new.
    fn of_workspace(&self, recorded: &Recorded) -> Option<ShareAccessed> {
        if recorded.workspace != self.workspace || recorded.event_type.as_ref() != public_events::ACCESSED {
            return None;
        }
        match recorded.event() {
            Ok(Event::Access(access::Event::Accessed(accessed))) => {
                Some(accessed).filter(|it| !it.accesses.is_empty())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Remembers what a fact says of the webhook itself; whether the webhook is told, whatever its filter.
    fn note_own(&mut self, recorded: &Recorded) -> bool {
        if recorded.stream != self.own {
            return false;
        }
        let Ok(Event::Webhook(event)) = recorded.event() else { return false };
        self.webhook.evolve(&event);
        matches!(event, WebhookEvent::Skipped(_))
    }

    fn skip(&mut self, at: Timestamp, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let skipped = self.skipped.get_or_insert(WebhookSkipped { from: at, to: at, count: 0 });
        skipped.to = skipped.to.max(at);
        skipped.from = skipped.from.min(at);
        skipped.count += count;
    }
}

impl Gathered {
    fn add(&mut self, position: u64, count: usize) {
        let mut first = 0;
        while first < count {
            if self.messages.is_empty() || self.count == ACCESSES_MAX {
                self.messages.push(Vec::new());
                self.count = 0;
            }
            let taken = (ACCESSES_MAX - self.count).min(count - first);
            let part = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
            let parts = self.messages.last_mut().expect("one was pushed");
            parts.push(Part { position, first: part(first), count: part(taken) });
            self.count += taken;
            first += taken;
        }
    }
}

fn message(id: EventId, event_type: &str, source: Source, due_at: Timestamp) -> Message {
    Message {
        delivery_id: DeliveryId::new(Uuid::now_v7()),
        message_id: id,
        event_type: event_type.to_owned(),
        source,
        lane: Lane::Ordered,
        due_at,
    }
}

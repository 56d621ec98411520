//! How a courier reads the log: what its webhook is sent of the events behind its place, in their order.
//!
//! Facts become a message each. Accesses of one share are gathered, at most a hundred to a message and one message a second;
//! a share that is used more than that has its messages wait for their seconds, and holds nobody. What the webhook's own
//! facts change counts for the events after them and for none before.
//!
//! What is new it finds where it was read for everybody ([`super::recent`]); what is further back it asks the audit's
//! index for ([`super::behind`]), or reads the log itself.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use domain::{
    aggregate::Aggregate as _,
    delivery::{ACCESSES_MAX, AGE_MS_MAX, Backlog, Lane, Message, Part, Source},
    ids::{DeliveryId, EventId, ShareId, WebhookId, WorkspaceId},
    public_events,
    recorded::StreamName,
    time::Timestamp,
    webhook::{Event as WebhookEvent, Webhook},
};
use uuid::Uuid;

use super::{
    behind::Behind,
    recent::{Fact, Page, Seat, Visits},
};
use crate::event_log::ReadError;

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
/// How often, and how long, to wait for what is read for everybody.
const LOOKS_MAX: usize = 100;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Reads the log for one webhook.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) workspace: WorkspaceId,
    own: StreamName,
    pub(super) seat: Seat,
    behind: Behind,
    /// The webhook as of the place that is reached: its filter then.
    pub(super) webhook: Webhook,
    /// When the next message about a share may be sent.
    due: HashMap<ShareId, Timestamp>,
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

/// Which accesses a step is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// None while too many messages of accesses wait.
    WithRoom,
    /// All: they become no messages.
    All,
}

/// One step of a reading.
struct Batch {
    facts: Vec<Fact>,
    accesses: Vec<Visits>,
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
    pub(super) fn new(id: WebhookId, seat: Seat, behind: Behind, webhook: Webhook) -> Self {
        let own = StreamName::webhook(id);
        Self { workspace: behind.workspace(), own, seat, behind, webhook, due: HashMap::new() }
    }

    fn matches(&self, event_type: &str) -> bool {
        self.webhook.live().is_some_and(|details| details.created.events.matches(event_type))
    }

    /// Reads on, and plans what it finds.
    pub(super) async fn read_on(&mut self, backlog: &mut Backlog, now: Timestamp) -> Result<Read, ReadError> {
        let batch = self.batch(backlog, Wanted::WithRoom).await?;
        if let Some(until) = self.paced(&batch.accesses, now) {
            return Ok(Read::Wait(until));
        }
        let too_old = now.plus_ms(-AGE_MS_MAX);
        let replayed = backlog.replay_up_to;
        let is_old = |recorded_at: Timestamp, position: u64| recorded_at < too_old && position > replayed;
        let mut found: Vec<(u64, Message)> = Vec::new();
        for fact in &batch.facts {
            // What is replayed is judged by the webhook as it is now: it has seen its own past.
            let told_anyway = fact.position > replayed && self.note_own(fact);
            if !told_anyway && !self.matches(&fact.event_type) {
                continue;
            }
            if is_old(fact.recorded_at, fact.position) {
                backlog.skip(fact.recorded_at, fact.recorded_at, 1);
                continue;
            }
            let source = Source::Event { position: fact.position };
            found.push((fact.position, message(fact.id, &fact.event_type, source, now)));
        }
        let mut gathered: BTreeMap<ShareId, Gathered> = BTreeMap::new();
        for visits in &batch.accesses {
            if is_old(visits.recorded_at, visits.position) {
                backlog.skip(visits.recorded_at, visits.recorded_at, counted(visits.count));
                continue;
            }
            gathered.entry(visits.share).or_default().add(visits.position, visits.count);
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
        Ok(if moved { Read::More(planned) } else { Read::Nothing })
    }

    /// Leaves out what is behind the place up to a position, because it leaves the log: everything up to there is older
    /// than a webhook can count on. What its filter passes is counted.
    pub(super) async fn let_go(&mut self, backlog: &mut Backlog, up_to: u64) -> Result<(), ReadError> {
        let mut looks = 0;
        while backlog.accesses_after < up_to {
            let mut batch = self.batch(backlog, Wanted::All).await?;
            batch.facts.retain(|fact| fact.position <= up_to);
            batch.accesses.retain(|visits| visits.position <= up_to);
            for fact in &batch.facts {
                if self.note_own(fact) || self.matches(&fact.event_type) {
                    backlog.skip(fact.recorded_at, fact.recorded_at, 1);
                }
            }
            for visits in &batch.accesses {
                backlog.skip(visits.recorded_at, visits.recorded_at, counted(visits.count));
            }
            let places = (
                batch.facts_to.min(up_to).max(backlog.facts_after),
                batch.accesses_to.min(up_to).max(backlog.accesses_after),
            );
            if places == (backlog.facts_after, backlog.accesses_after) {
                // What is read for everybody is not as far as the log, for a moment.
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(ReadError::Unavailable("what is new is not read".to_owned()));
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
            backlog.read_up_to(places.0, places.1);
        }
        Ok(())
    }

    /// When the accesses that a message is made from were recorded, the first and the last, and how many it tells.
    pub(super) async fn span_of(
        &self,
        parts: &[Part],
    ) -> Result<Option<(Timestamp, Timestamp, u64)>, ReadError> {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(None) };
        let (first, last) =
            (self.behind.visits_at(first.position).await?, self.behind.visits_at(last.position).await?);
        let count = parts.iter().map(|part| u64::from(part.count)).sum();
        let (Some(first), Some(last)) = (first.or(last), last.or(first)) else { return Ok(None) };
        Ok(Some((first.recorded_at, last.recorded_at, count)))
    }

    /// Whether accesses behind the place may have to be told, now or once the webhook is active again.
    pub(super) async fn wants_accesses(&self) -> Result<bool, ReadError> {
        if self.matches(public_events::ACCESSED) {
            return Ok(true);
        }
        let own = self.behind.of_stream(&self.own).await?;
        Ok(own.iter().any(|event| match event {
            WebhookEvent::Updated(updated) => {
                updated.events.as_ref().is_some_and(|filter| filter.matches(public_events::ACCESSED))
            }
            WebhookEvent::Created(_)
            | WebhookEvent::Disabled(_)
            | WebhookEvent::Enabled(_)
            | WebhookEvent::SecretRotated(_)
            | WebhookEvent::Skipped(_)
            | WebhookEvent::Deleted(_) => false,
        }))
    }

    async fn facts(&self, after: u64) -> Result<Page<Fact>, ReadError> {
        match self.seat.facts(after, FACTS) {
            Some(page) => Ok(page),
            None => self.behind.facts(after, FACTS, &self.own, |name| self.matches(name)).await,
        }
    }

    async fn visits(&self, after: u64) -> Result<Page<Visits>, ReadError> {
        match self.seat.visits(after, PACKED) {
            Some(page) => Ok(page),
            None => self.behind.visits(after, PACKED).await,
        }
    }

    async fn batch(&self, backlog: &Backlog, wanted: Wanted) -> Result<Batch, ReadError> {
        let (facts_after, accesses_after) = (backlog.facts_after, backlog.accesses_after);
        let Page { items: mut facts, to: mut facts_to } = self.facts(facts_after).await?;
        // A change of the filter ends the step: what follows is read with the new one.
        if let Some(place) = facts.iter().position(|it| self.is_own_change(it)) {
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
        let waiting = || backlog.messages().filter(|it| is_of_accesses(it)).count();
        if wanted == Wanted::WithRoom && waiting() >= ACCESSES_WAITING_MAX {
            return Ok(Batch { facts, accesses: Vec::new(), facts_to, accesses_to: accesses_after });
        }
        let Page { items: mut accesses, to: accesses_to } = self.visits(accesses_after).await?;
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
    fn paced(&self, accesses: &[Visits], now: Timestamp) -> Option<Timestamp> {
        if self.due.is_empty() {
            return None;
        }
        let due = accesses.iter().filter_map(|visits| self.due.get(&visits.share)).copied();
        due.filter(|due| *due > now && *due <= now.plus_ms(PACE_MS)).max()
    }

    fn own<'a>(&self, fact: &'a Fact) -> Option<&'a WebhookEvent> {
        fact.of_webhook.as_deref().filter(|(stream, _)| *stream == self.own).map(|(_, event)| event)
    }

    fn is_own_change(&self, fact: &Fact) -> bool {
        matches!(self.own(fact), Some(WebhookEvent::Updated(_)))
    }

    /// Remembers what a fact says of the webhook itself; whether the webhook is told, whatever its filter.
    fn note_own(&mut self, fact: &Fact) -> bool {
        let Some(event) = self.own(fact) else { return false };
        self.webhook.evolve(event);
        matches!(event, WebhookEvent::Skipped(_))
    }
}

fn counted(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
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

//! A webhook's backlog: what its courier knows, as its events leave it, and the rules by which it goes on.

use super::{
    Answer, BTreeMap, CARRIED_MAX, CARRY_AFTER, DeliveriesNoted, FAILING_IN_A_ROW, FAILING_MS_MAX, GaveUp,
    Judging, Lane, Message, PENDING_MAX, Planned, Problem, Said, Source, Step, TRIES_HOLDING, Then,
    Timestamp, Tried, WebhookSkipped,
};

/// A message that is not done, and the revision of the event that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingAt {
    pub planned: Planned,
    /// 0: not noted yet.
    pub revision: u64,
}

/// What a courier knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    pub facts_after: u64,
    pub accesses_after: u64,
    pub replay_up_to: u64,
    next_sequence: u64,
    failing: Vec<u64>,
    failing_since: Option<Timestamp>,
    quiet_until: Option<Timestamp>,
    pending: BTreeMap<u64, PendingAt>,
    /// What was tried and is not noted yet.
    tried: Vec<Tried>,
    /// What was left out and is not told yet.
    skipped: Option<WebhookSkipped>,
    /// Something is different from what the last event says, beside how far it has read.
    changed: bool,
}

impl Backlog {
    /// Of a new webhook: nothing before these positions concerns it.
    pub fn starting_after(position: u64) -> Self {
        Self {
            facts_after: position,
            accesses_after: position,
            next_sequence: 1,
            changed: true,
            ..Self::default()
        }
    }

    /// The number that the next message gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
    /// How many more messages may be planned.
    pub fn room(&self) -> usize {
        PENDING_MAX.saturating_sub(self.pending.len())
    }
    pub fn message(&self, sequence: u64) -> Option<&Planned> {
        self.pending.get(&sequence).map(|pending| &pending.planned)
    }
    /// Messages that are not done, in their order.
    pub fn messages(&self) -> impl Iterator<Item = &Planned> {
        self.pending.values().map(|pending| &pending.planned)
    }
    /// Whether a message is in no event yet: then it must not be tried.
    pub fn is_unnoted(&self, sequence: u64) -> bool {
        self.pending.get(&sequence).is_some_and(|pending| pending.revision == 0)
    }
    /// Whether three different messages have failed in a row.
    pub fn is_down(&self) -> bool {
        self.failing.len() >= FAILING_IN_A_ROW
    }
    /// Whether it has been down for so long that nobody is there any more.
    pub fn is_dead(&self, now: Timestamp) -> bool {
        self.is_down() && self.failing_since.is_some_and(|since| since.plus_ms(FAILING_MS_MAX) <= now)
    }
    /// Whether there is something that no event says yet.
    pub fn is_changed(&self) -> bool {
        self.changed
    }
    /// How many tries no event says yet.
    pub fn unnoted(&self) -> usize {
        self.tried.len()
    }

    /// It has read the log up to here. Where nothing was planned on the way that is no reason for an event: a restart
    /// reads the same again and plans nothing.
    pub fn read_up_to(&mut self, facts_after: u64, accesses_after: u64) {
        self.facts_after = facts_after;
        self.accesses_after = accesses_after;
    }

    /// It goes on from another place, because somebody wants the events from there on. What is planned stays planned.
    pub fn replay_from(&mut self, position: u64, head: u64) {
        self.read_up_to(position, position);
        self.replay_up_to = head;
        self.changed = true;
    }

    /// Leaves events out that were recorded then. Somebody has to tell: see [`Backlog::untold`].
    pub fn skip(&mut self, from: Timestamp, to: Timestamp, count: u64) {
        let skipped = self.skipped.get_or_insert(WebhookSkipped { from, to, count: 0 });
        skipped.from = skipped.from.min(from);
        skipped.to = skipped.to.max(to);
        skipped.count += count;
        self.changed = true;
    }

    /// What was left out and is not told. It is to be noted before it is told: then a crash in between neither forgets
    /// it nor counts anything twice.
    pub fn untold(&self) -> Option<&WebhookSkipped> {
        self.skipped.as_ref()
    }

    /// It was told.
    pub fn told(&mut self) {
        self.changed |= self.skipped.take().is_some();
    }

    /// Messages about accesses up to a position: what they are made from is about to leave the log.
    pub fn made_from(&self, up_to: u64) -> impl Iterator<Item = &Planned> {
        self.messages().filter(move |message| match &message.source {
            Source::Event { .. } => false,
            Source::Accesses { parts, .. } => parts.iter().any(|part| part.position <= up_to),
        })
    }

    /// Gives a message up because what it is made from leaves the log; its content is to be skipped.
    pub fn let_go(&mut self, sequence: u64, at: Timestamp) {
        let Some(Planned { delivery_id, tries, .. }) = self.message(sequence).cloned() else { return };
        let tried = Tried {
            delivery_id,
            sequence,
            number: tries + 1,
            at,
            latency_ms: 0,
            status: None,
            problem: Some(Problem::SourceLost),
            then: Then::GivenUp { reason: GaveUp::SourceLost },
        };
        self.take_in(&tried);
        self.tried.push(tried);
        self.changed = true;
    }

    /// Plans a message; answers its number.
    pub fn plan(&mut self, message: Message, now: Timestamp) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let planned = Planned {
            delivery_id: message.delivery_id,
            sequence,
            message_id: message.message_id,
            event_type: message.event_type,
            source: message.source,
            lane: message.lane,
            tries: 0,
            due_at: message.due_at,
            planned_at: now,
        };
        self.pending.insert(sequence, PendingAt { planned, revision: 0 });
        self.changed = true;
        sequence
    }

    /// Lets a message wait until then. No event says so: a courier that starts again finds out by itself.
    pub fn postpone(&mut self, sequence: u64, until: Timestamp) {
        if let Some(pending) = self.pending.get_mut(&sequence) {
            pending.planned.due_at = pending.planned.due_at.max(until);
        }
    }

    /// What to do now.
    pub fn next(&self, now: Timestamp, active: bool) -> Step {
        let alone = self.messages().filter(|it| it.lane == Lane::Alone).min_by_key(|it| it.due_at);
        match alone {
            Some(alone) if alone.due_at <= now => Step::Try(alone.sequence),
            Some(alone) => self.in_turn(now, active).or_at(alone.due_at),
            None => self.in_turn(now, active),
        }
    }

    fn in_turn(&self, now: Timestamp, active: bool) -> Step {
        if !active {
            return Step::Idle;
        }
        let mut turn = self.messages().filter(|it| it.lane != Lane::Alone).peekable();
        if let Some(until) = self.quiet_until.filter(|until| *until > now) {
            return if turn.peek().is_some() { Step::Wait(until) } else { Step::Idle };
        }
        if self.is_down() {
            let Some(oldest) = turn.next() else { return Step::Idle };
            return if oldest.due_at <= now { Step::Try(oldest.sequence) } else { Step::Wait(oldest.due_at) };
        }
        let mut step = Step::Idle;
        for message in turn {
            if message.due_at <= now {
                return Step::Try(message.sequence);
            }
            step = step.or_at(message.due_at);
            // One that was tried holds those after it. One that only has to wait for its second, and one that was set
            // aside, hold nobody.
            if message.lane == Lane::Ordered && message.tries > 0 {
                break;
            }
        }
        step
    }

    /// Takes in what came of a try. `None`: there is no such message any more.
    pub fn note(&mut self, sequence: u64, answer: &Answer, judging: Judging<'_>) -> Option<Then> {
        let Planned { delivery_id, tries, lane, .. } = self.message(sequence)?.clone();
        let number = tries + 1;
        let lost = answer.said == Said::Nothing(Problem::SourceLost);
        let then = if answer.is_success() {
            Then::Delivered { recovered: self.is_down() }
        } else if answer.is_gone() {
            Then::GivenUp { reason: GaveUp::Gone }
        } else if lost {
            Then::GivenUp { reason: GaveUp::SourceLost }
        } else if !judging.active {
            Then::GivenUp { reason: GaveUp::Inactive }
        } else {
            let tries = usize::try_from(number).unwrap_or(usize::MAX);
            match judging.schedule.pause_ms(tries, judging.random, answer.asked_ms) {
                Some(pause) => Then::Again { at: answer.at.plus_ms(pause) },
                None => Then::GivenUp { reason: GaveUp::Exhausted },
            }
        };
        let (status, problem) = match answer.said {
            Said::Status(status) => (Some(status), None),
            Said::Nothing(problem) => (None, Some(problem)),
        };
        let tried = Tried {
            delivery_id,
            sequence,
            number,
            at: answer.at,
            latency_ms: answer.latency_ms,
            status,
            problem,
            then,
        };
        if answer.is_success() {
            self.failing.clear();
            self.failing_since = None;
            self.quiet_until = None;
        } else if lane != Lane::Alone && !lost {
            // Beyond that it is down whatever their number is.
            if !self.failing.contains(&sequence) && self.failing.len() < FAILING_IN_A_ROW {
                self.failing.push(sequence);
            }
            self.failing_since.get_or_insert(answer.at);
            self.quiet_until = answer.quiet_until().or(self.quiet_until);
        }
        self.take_in(&tried);
        self.tried.push(tried);
        self.changed = true;
        Some(then)
    }

    /// The effect of a try on the messages.
    fn take_in(&mut self, tried: &Tried) {
        match tried.then {
            Then::Delivered { recovered } => {
                self.pending.remove(&tried.sequence);
                if recovered {
                    for pending in self.pending.values_mut().filter(|it| it.planned.tries > 0) {
                        pending.planned.due_at = pending.planned.due_at.min(tried.at);
                    }
                }
            }
            Then::Again { at } => {
                let Some(pending) = self.pending.get_mut(&tried.sequence) else { return };
                let planned = &mut pending.planned;
                planned.tries = tried.number;
                planned.due_at = at;
                if planned.lane == Lane::Ordered && planned.tries >= TRIES_HOLDING {
                    planned.lane = Lane::Aside;
                }
            }
            Then::GivenUp { .. } => {
                self.pending.remove(&tried.sequence);
            }
        }
    }

    /// What is to be appended as the event of that revision; then call [`Backlog::noted`]. Messages that were planned
    /// long ago are in it once more.
    pub fn to_note(&self, revision: u64) -> DeliveriesNoted {
        let fresh = self.pending.values().filter(|it| it.revision == 0);
        let old = |it: &&PendingAt| it.revision > 0 && it.revision + CARRY_AFTER < revision;
        let carried = self.pending.values().filter(old).take(CARRIED_MAX);
        let planned: Vec<Planned> = carried.chain(fresh).map(|it| it.planned.clone()).collect();
        let is_in = |sequence: u64| planned.iter().any(|it| it.sequence == sequence);
        let others = self.pending.iter().filter(|(sequence, _)| !is_in(**sequence));
        let floor = others.map(|(_, it)| it.revision).min().unwrap_or(revision);
        DeliveriesNoted {
            facts_after: self.facts_after,
            accesses_after: self.accesses_after,
            replay_up_to: self.replay_up_to,
            next_sequence: self.next_sequence,
            failing: self.failing.clone(),
            failing_since: self.failing_since,
            quiet_until: self.quiet_until,
            floor,
            planned,
            tried: self.tried.clone(),
            skipped: self.skipped.clone(),
        }
    }

    /// That event is in the log.
    pub fn noted(&mut self, noted: &DeliveriesNoted, revision: u64) {
        for planned in &noted.planned {
            if let Some(pending) = self.pending.get_mut(&planned.sequence) {
                pending.revision = revision;
            }
        }
        self.tried.clear();
        self.changed = false;
    }

    /// Remembers an event of the stream: from the floor that the last one names, in order, all there are.
    pub fn evolve(&mut self, noted: &DeliveriesNoted, revision: u64) {
        for planned in &noted.planned {
            self.pending.insert(planned.sequence, PendingAt { planned: planned.clone(), revision });
        }
        for tried in &noted.tried {
            self.take_in(tried);
        }
        self.facts_after = noted.facts_after;
        self.accesses_after = noted.accesses_after;
        self.replay_up_to = noted.replay_up_to;
        self.next_sequence = noted.next_sequence;
        self.failing.clone_from(&noted.failing);
        self.failing_since = noted.failing_since;
        self.quiet_until = noted.quiet_until;
        self.skipped.clone_from(&noted.skipped);
    }
}

impl Step {
    /// The same, and a look at that moment.
    fn or_at(self, moment: Timestamp) -> Self {
        match self {
            Self::Try(sequence) => Self::Try(sequence),
            Self::Wait(until) => Self::Wait(until.min(moment)),
            Self::Idle => Self::Wait(moment),
        }
    }
}

//! A courier's state in the log: read at its start, written as it goes.

use domain::{
    aggregate::Aggregate as _,
    delivery::{Backlog, DeliveriesNoted, Event as DeliveryEvent, GaveUp, Then},
    event::Event,
    ids::{EventId, WebhookId, WorkspaceId},
    recorded::{Actor, Recorded, StreamName},
    webhook::{DisableReason, Event as WebhookEvent, Webhook},
};
use uuid::Uuid;

use crate::{
    clock::SharedClock,
    event_log::{Append, AppendError, Expected, NewEvent, ReadError, SharedLog},
};

/// Events of a stream are read in pages of this many.
const PAGE: usize = 500;

/// What a courier starts with.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) backlog: Backlog,
    /// The last event of its own stream.
    pub(super) revision: u64,
    /// The webhook as of the place that the backlog has reached.
    pub(super) webhook: Webhook,
    pub(super) workspace: WorkspaceId,
    /// What the hub still has to record about the webhook: it stopped in between.
    pub(super) disable: Option<DisableReason>,
}

/// Reads what is known of a webhook; `None`: there is no such webhook.
pub(super) async fn read(log: &SharedLog, id: WebhookId) -> Result<Option<Known>, ReadError> {
    let own = whole(log, &StreamName::webhook(id), 1).await?;
    let Some(first) = own.first() else { return Ok(None) };
    let stream = StreamName::deliveries(id);
    let last = last_revision(log, &stream).await?;
    let mut backlog = Backlog::starting_after(first.position);
    let mut gone_at = None;
    if last > 0 {
        let newest = log.read_stream(&stream, last, 1).await?;
        let floor = newest.first().map(noted).transpose()?.map_or(1, |noted| noted.floor);
        backlog = Backlog::default();
        for recorded in whole(log, &stream, floor).await? {
            let noted = noted(&recorded)?;
            backlog.evolve(&noted, recorded.revision);
            let gone = |then: &Then| matches!(then, Then::GivenUp { reason: GaveUp::Gone });
            if noted.tried.iter().any(|tried| gone(&tried.then)) {
                gone_at = Some(recorded.position);
            }
        }
    }
    let mut webhook = Webhook::default();
    let mut switched_at = 0;
    for recorded in &own {
        let Event::Webhook(event) = understood(recorded)? else {
            return Err(of_another_kind(recorded));
        };
        if matches!(event, WebhookEvent::Disabled(_) | WebhookEvent::Enabled(_)) {
            switched_at = recorded.position;
        }
        // A replay is judged by the webhook as it was when somebody asked for it.
        if recorded.position <= backlog.facts_after.max(backlog.replay_up_to) {
            webhook.evolve(&event);
        }
    }
    let disable = gone_at.filter(|gone_at| *gone_at > switched_at).map(|_| DisableReason::Gone);
    Ok(Some(Known { backlog, revision: last, webhook, workspace: first.workspace, disable }))
}

fn noted(recorded: &Recorded) -> Result<DeliveriesNoted, ReadError> {
    if let Event::Delivery(DeliveryEvent::Noted(noted)) = understood(recorded)? {
        Ok(noted)
    } else {
        Err(of_another_kind(recorded))
    }
}

fn of_another_kind(recorded: &Recorded) -> ReadError {
    let (stream, name) = (&recorded.stream, &recorded.event_type);
    ReadError::Unavailable(format!("stream `{stream}` holds `{name}`, which is not of its kind"))
}

/// A courier that does not understand its own past would send again what was delivered, or nothing: it waits.
fn understood(recorded: &Recorded) -> Result<Event, ReadError> {
    let unknown = |error| ReadError::Unavailable(format!("stream `{}`: {error}", recorded.stream));
    recorded.event().map_err(unknown)
}

async fn whole(log: &SharedLog, stream: &StreamName, from: u64) -> Result<Vec<Recorded>, ReadError> {
    let mut all: Vec<Recorded> = Vec::new();
    loop {
        let next = all.last().map_or(from, |last| last.revision + 1);
        let page = log.read_stream(stream, next, PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The last revision of a stream, found by asking whether there are any from a revision on: its length does not matter.
async fn last_revision(log: &SharedLog, stream: &StreamName) -> Result<u64, ReadError> {
    let (mut there, mut beyond) = (0, 1);
    while !log.read_stream(stream, beyond, 1).await?.is_empty() {
        there = beyond;
        beyond *= 2;
    }
    while beyond - there > 1 {
        let middle = there + (beyond - there) / 2;
        if log.read_stream(stream, middle, 1).await?.is_empty() {
            beyond = middle;
        } else {
            there = middle;
        }
    }
    Ok(there)
}

/// Appends what a courier notes, as the event of that revision.
pub(super) async fn append(
    log: &SharedLog,
    clock: &SharedClock,
    (id, workspace): (WebhookId, WorkspaceId),
    noted: DeliveriesNoted,
    revision: u64,
) -> Result<(), AppendError> {
    let encoded = Event::Delivery(DeliveryEvent::Noted(noted)).encode();
    let append = Append {
        stream: StreamName::deliveries(id),
        expected: Expected::Revision(revision - 1),
        workspace,
        actor: Actor::System("courier".to_owned()),
        correlation: None,
        at: clock.now(),
        events: vec![NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: encoded.event_type,
            version: encoded.version,
            data: encoded.data,
            personal: None,
            causation: None,
        }],
    };
    log.append(append).await.map(|_| ())
}

//! What the delivery log shows of a courier's events.

use domain::{
    delivery::{Answer, Backlog, Judging, Lane, Message, Said},
    event::Event,
    policy::retries::Schedule,
    recorded::{Personal, StreamName},
};
use proptest::prelude::*;

use super::*;
use crate::histories::{World, id, workspace_id};

fn webhook() -> WebhookId {
    WebhookId::new(id(0x900))
}

/// A courier whose events go into a world.
struct Courier {
    world: World,
    backlog: Backlog,
    revision: u64,
}

impl Courier {
    fn new() -> Self {
        Self { world: World::default(), backlog: Backlog::starting_after(0), revision: 0 }
    }
    fn note(&mut self) {
        self.revision += 1;
        let noted = self.backlog.to_note(self.revision);
        self.backlog.noted(&noted, self.revision);
        let encoded = Event::Delivery(DeliveryEvent::Noted(noted)).encode();
        let stream = StreamName::deliveries(webhook());
        self.world.record(stream, workspace_id(0), encoded.event_type, &encoded.data, Personal::None);
    }
    fn plan(&mut self) -> u64 {
        let n = u128::from(self.revision);
        let message = Message {
            delivery_id: DeliveryId::new(id(0xa000 + n)),
            message_id: EventId::new(id(0xb000 + n)),
            event_type: "tunnel.created".to_owned(),
            source: Source::Event { position: 7 },
            lane: Lane::Alone,
            due_at: self.world.now(),
        };
        let sequence = self.backlog.plan(message, self.world.now());
        self.note();
        sequence
    }
    fn answer(&mut self, sequence: u64, said: Said) {
        let answer = Answer { at: self.world.now(), latency_ms: 7, said, asked_ms: None };
        let schedule: Schedule = "1s,2s".parse().unwrap();
        self.backlog.note(sequence, &answer, Judging { schedule: &schedule, random: 100, active: true });
        self.note();
    }
}

fn filled(world: &World) -> (tempfile::TempDir, Deliveries) {
    let folder = tempfile::tempdir().unwrap();
    let mut view = Deliveries::open(folder.path(), id(1)).unwrap();
    view.apply(&world.applied()).unwrap();
    (folder, view)
}

fn first_page(limit: usize) -> PageRequest<'static> {
    PageRequest { limit, cursor: None }
}

#[test]
fn a_message_is_shown_with_its_tries_until_it_is_delivered() {
    let mut courier = Courier::new();
    let sequence = courier.plan();
    courier.answer(sequence, Said::Status(503));
    courier.world.now_ms += 1_000;
    courier.answer(sequence, Said::Nothing(Problem::TimedOut));
    let shown = |world: &World| {
        let (_folder, view) = filled(world);
        view.reader().list(workspace_id(0), webhook(), None, first_page(10)).unwrap().rows[0].clone()
    };
    let row = shown(&courier.world);
    assert_eq!((row.status, row.tries, row.next_at.is_some()), (Status::Retrying, 2, true));
    let tries: Vec<_> = row.attempts.iter().map(|it| (it.number, it.status, it.problem)).collect();
    assert_eq!(tries, [(1, Some(503), None), (2, None, Some(Problem::TimedOut))]);
    courier.answer(sequence, Said::Status(200));
    let row = shown(&courier.world);
    assert_eq!((row.status, row.tries, row.next_at), (Status::Delivered, 3, None));
    assert_eq!(row.done_at, Some(courier.world.now()));
}

#[test]
fn a_message_that_is_given_up_is_shown_as_such() {
    let mut courier = Courier::new();
    let (gone, lost) = (courier.plan(), courier.plan());
    courier.answer(gone, Said::Status(410));
    courier.answer(lost, Said::Nothing(Problem::SourceLost));
    let (_folder, view) = filled(&courier.world);
    let page = view.reader().list(workspace_id(0), webhook(), Some(Status::DeadLettered), first_page(10));
    let reasons: Vec<_> = page.unwrap().rows.iter().map(|row| row.gave_up).collect();
    assert_eq!(reasons, [Some(GaveUp::SourceLost), Some(GaveUp::Gone)]);
    let counts = view.reader().counts(workspace_id(0), webhook()).unwrap();
    assert_eq!(counts, Counts { waiting: 0, delivered: 0, dead_lettered: 2 });
}

#[test]
fn pages_go_on_where_the_one_before_ended_and_show_no_other_workspaces_messages() {
    let mut courier = Courier::new();
    (0..5).for_each(|_| {
        courier.plan();
    });
    let (_folder, view) = filled(&courier.world);
    let reader = view.reader();
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let request = PageRequest { limit: 2, cursor: cursor.as_deref() };
        let page = reader.list(workspace_id(0), webhook(), None, request).unwrap();
        seen.extend(page.rows.iter().map(|row| row.sequence));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    let foreign = reader.list(workspace_id(1), webhook(), None, first_page(10)).unwrap();
    assert!(foreign.rows.is_empty());
    let bad = PageRequest { limit: 2, cursor: Some("x") };
    assert!(matches!(reader.list(workspace_id(0), webhook(), None, bad), Err(ViewError::InvalidCursor)));
}

#[test]
fn what_was_done_a_month_ago_leaves_and_what_is_not_done_stays() {
    let mut courier = Courier::new();
    let (done, waiting) = (courier.plan(), courier.plan());
    courier.answer(done, Said::Status(200));
    courier.world.now_ms += (DAYS_KEPT + 1) * 86_400_000;
    courier.plan();
    let (_folder, view) = filled(&courier.world);
    let rows = view.reader().list(workspace_id(0), webhook(), None, first_page(10)).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [3, waiting]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_same_however_it_is_fed(
        steps in prop::collection::vec((0_u8..4, any::<bool>(), 0_i64..2_000_000_000), 1..40),
        cut in 0_usize..40,
    ) {
        let mut courier = Courier::new();
        for (kind, well, pause) in steps {
            courier.world.now_ms += pause;
            let waiting: Option<u64> = courier.backlog.messages().map(|it| it.sequence).next();
            match (kind, waiting) {
                (0 | 1, _) | (_, None) => { courier.plan(); }
                (_, Some(sequence)) => {
                    courier.answer(sequence, if well { Said::Status(200) } else { Said::Status(500) });
                }
            }
        }
        let applied = courier.world.applied();
        let (_one, whole) = filled(&courier.world);
        let folder = tempfile::tempdir().unwrap();
        let mut parts = Deliveries::open(folder.path(), id(1)).unwrap();
        let cut = cut.min(applied.len());
        parts.apply(&applied[..cut]).unwrap();
        parts.apply(&applied[cut.saturating_sub(2)..]).unwrap();
        let said = |view: &Deliveries| {
            let mut bytes = Vec::new();
            view.dump(&mut |part| bytes.extend_from_slice(part)).unwrap();
            bytes
        };
        prop_assert_eq!(said(&whole), said(&parts));
    }
}

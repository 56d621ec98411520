//! The order and the times at which messages are tried, and that a replay knows what the courier knew.

use proptest::prelude::*;

use super::*;
use crate::{
    policy::retries::JITTER,
    testing::{at, id},
};

/// A courier without a network: a backlog, its events, and a clock.
struct Courier {
    backlog: Backlog,
    events: Vec<DeliveriesNoted>,
    schedule: Schedule,
    now: Timestamp,
    random: u32,
    active: bool,
}

impl Courier {
    fn new() -> Self {
        Self {
            backlog: Backlog::starting_after(10),
            events: Vec::new(),
            schedule: Schedule::default(),
            now: at(0),
            random: u32::try_from(JITTER).unwrap(),
            active: true,
        }
    }
    fn with(messages: u64) -> Self {
        let mut courier = Self::new();
        (0..messages).for_each(|_| courier.plan(Lane::Ordered));
        courier
    }
    fn plan(&mut self, lane: Lane) {
        let n = u128::from(self.backlog.next_sequence());
        let message = Message {
            delivery_id: id(100 + n),
            message_id: id(200 + n),
            event_type: "tunnel.created".to_owned(),
            source: Source::Event { position: 10 + u64::try_from(n).unwrap() },
            lane,
            due_at: self.now,
        };
        self.backlog.plan(message, self.now);
        self.note();
    }
    fn note(&mut self) {
        if self.backlog.is_changed() {
            let revision = u64::try_from(self.events.len()).unwrap() + 1;
            let noted = self.backlog.to_note(revision);
            self.backlog.noted(&noted, revision);
            self.events.push(noted);
        }
    }
    fn step(&self) -> Step {
        self.backlog.next(self.now, self.active)
    }
    /// Tries what is due and takes in this answer; what was tried.
    #[track_caller]
    fn tries(&mut self, said: Said) -> u64 {
        let Step::Try(sequence) = self.step() else { panic!("nothing is due: {:?}", self.step()) };
        self.answer(sequence, said, None);
        sequence
    }
    fn answer(&mut self, sequence: u64, said: Said, asked_ms: Option<i64>) -> Option<Then> {
        let answer = Answer { at: self.now, latency_ms: 7, said, asked_ms };
        let judging = Judging { schedule: &self.schedule, random: self.random, active: self.active };
        let then = self.backlog.note(sequence, &answer, judging);
        self.note();
        then
    }
    /// Lets time pass until the courier has something to do; how long that was (milliseconds).
    #[track_caller]
    fn waits(&mut self) -> i64 {
        let Step::Wait(until) = self.step() else { panic!("it does not wait: {:?}", self.step()) };
        let span = until.millis() - self.now.millis();
        self.now = until;
        span
    }
    /// What a courier would know that reads the events anew, from the floor of the last one.
    fn replayed(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let floor = self.events.last().map_or(1, |noted| noted.floor);
        for (revision, noted) in (1_u64..).zip(&self.events) {
            if revision >= floor {
                backlog.evolve(noted, revision);
            }
        }
        backlog
    }
}

const OK: Said = Said::Status(200);
const BAD: Said = Said::Status(500);

#[test]
fn messages_are_tried_in_their_order() {
    let mut courier = Courier::with(3);
    assert_eq!([courier.tries(OK), courier.tries(OK), courier.tries(OK)], [1, 2, 3]);
    assert_eq!(courier.step(), Step::Idle);
}

#[test]
fn a_failing_message_holds_later_ones_through_two_retries_and_then_goes_its_own_way() {
    let mut courier = Courier::with(3);
    assert_eq!(courier.tries(BAD), 1);
    assert_eq!(courier.waits(), 5_000);
    assert_eq!(courier.tries(BAD), 1);
    assert_eq!(courier.waits(), 300_000);
    assert_eq!(courier.tries(Said::Nothing(Problem::TimedOut)), 1);
    assert_eq!((courier.tries(OK), courier.tries(OK)), (2, 3), "later ones go on");
    assert_eq!(courier.waits(), 1_800_000);
    assert_eq!(courier.tries(OK), 1);
    assert_eq!(courier.step(), Step::Idle);
}

#[test]
fn a_message_is_tried_ten_times_by_the_schedule_and_then_given_up() {
    let mut courier = Courier::with(1);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        courier.tries(BAD);
        pauses.push(courier.waits() / 1_000);
    }
    let hours = [2, 5, 10, 14, 20, 24].map(|hours| hours * 3_600);
    assert_eq!(pauses, [&[5, 300, 1_800][..], &hours].concat());
    assert_eq!(courier.answer(1, BAD, None), Some(Then::GivenUp { reason: GaveUp::Exhausted }));
    assert_eq!(courier.step(), Step::Idle);
}

#[test]
fn three_different_messages_failing_in_a_row_mean_that_the_endpoint_is_down() {
    let mut courier = Courier::with(5);
    for expected in [1, 1, 1, 2, 2, 2, 3] {
        if let Step::Wait(_) = courier.step() {
            courier.waits();
        }
        // The first one, which was set aside, is not due before the third is first tried.
        assert_eq!(courier.tries(BAD), expected);
    }
    assert!(courier.backlog.is_down());
    // Only the oldest is tried, by its own schedule: that of the third counts for nothing now.
    courier.waits();
    assert_eq!(courier.tries(BAD), 1);
    assert_eq!(courier.waits(), 7_200_000);
    assert_eq!(courier.tries(OK), 1);
    assert!(!courier.backlog.is_down());
    // What was set aside does not wait for its time any more, and all go in their order.
    assert_eq!([courier.tries(OK), courier.tries(OK), courier.tries(OK), courier.tries(OK)], [2, 3, 4, 5]);
}

#[test]
fn one_success_in_between_is_enough_not_to_be_down() {
    let mut courier = Courier::with(6);
    for message in 1..=2 {
        for _ in 0..3 {
            if let Step::Wait(_) = courier.step() {
                courier.waits();
            }
            assert_eq!(courier.tries(BAD), message);
        }
    }
    assert_eq!(courier.tries(OK), 3);
    assert_eq!(courier.tries(BAD), 4);
    assert!(!courier.backlog.is_down());
}

#[test]
fn a_receiver_that_asks_for_time_is_left_alone_by_all_messages() {
    let mut courier = Courier::with(3);
    let then = courier.answer(1, Said::Status(429), Some(120_000));
    assert_eq!(then, Some(Then::Again { at: at(120) }));
    assert_eq!(courier.waits(), 120_000);
    assert_eq!(courier.tries(OK), 1);
    assert_eq!(courier.tries(OK), 2, "and not longer");
}

#[test]
fn a_receiver_that_is_gone_is_not_tried_again() {
    let mut courier = Courier::with(2);
    let answer = Answer { at: at(0), latency_ms: 1, said: Said::Status(410), asked_ms: None };
    assert!(answer.is_gone());
    assert_eq!(courier.answer(1, Said::Status(410), None), Some(Then::GivenUp { reason: GaveUp::Gone }));
    courier.active = false;
    assert_eq!(courier.step(), Step::Idle, "the webhook was disabled, what is planned stays");
    courier.active = true;
    assert_eq!(courier.tries(OK), 2);
}

#[test]
fn what_somebody_asks_for_again_is_tried_at_once_and_holds_nobody() {
    let mut courier = Courier::with(2);
    courier.tries(BAD);
    courier.plan(Lane::Alone);
    assert_eq!(courier.tries(BAD), 3);
    assert_eq!(courier.waits(), 5_000, "both have failed once");
    assert_eq!(courier.tries(OK), 3);
    assert_eq!((courier.tries(OK), courier.tries(OK)), (1, 2));
    // A webhook that is switched off is sent it once.
    courier.active = false;
    courier.plan(Lane::Alone);
    let Step::Try(sequence) = courier.step() else { panic!("{:?}", courier.step()) };
    assert_eq!(courier.answer(sequence, BAD, None), Some(Then::GivenUp { reason: GaveUp::Inactive }));
    assert_eq!(courier.step(), Step::Idle);
}

#[test]
fn a_message_whose_second_has_not_come_holds_nobody() {
    let mut courier = Courier::new();
    let paced = |n: u128, due_at| Message {
        delivery_id: id(n),
        message_id: id(n),
        event_type: "share.accessed".to_owned(),
        source: Source::Accesses { share_id: id(9), parts: vec![Part { position: 11, first: 0, count: 3 }] },
        lane: Lane::Ordered,
        due_at,
    };
    courier.backlog.plan(paced(1, at(1)), at(0));
    courier.backlog.plan(paced(2, at(0)), at(0));
    courier.note();
    assert_eq!(courier.tries(OK), 2);
    assert_eq!(courier.waits(), 1_000);
    assert_eq!(courier.tries(OK), 1);
}

#[test]
fn what_is_no_longer_in_the_log_says_nothing_about_the_endpoint() {
    let mut courier = Courier::with(4);
    for _ in 0..3 {
        courier.tries(Said::Nothing(Problem::SourceLost));
    }
    assert!(!courier.backlog.is_down());
    assert_eq!(courier.tries(OK), 4);
}

#[test]
fn an_endpoint_that_is_down_for_five_days_is_dead() {
    let mut courier = Courier::with(4);
    let mut answers = 0;
    while !courier.backlog.is_dead(courier.now) {
        match courier.step() {
            Step::Try(sequence) => {
                courier.answer(sequence, BAD, None);
                answers += 1;
            }
            Step::Wait(until) => courier.now = until,
            Step::Idle => panic!("it gave up too early, after {answers} tries"),
        }
    }
    assert!(courier.now.millis() - at(0).millis() >= FAILING_MS_MAX);
}

#[test]
fn a_start_reads_no_further_back_than_what_is_not_done() {
    let mut courier = Courier::with(1);
    for _ in 0..3 {
        courier.tries(BAD);
        courier.now = courier.now.plus_ms(300_000);
    }
    for _ in 0..1_000 {
        courier.plan(Lane::Alone);
        courier.tries(OK);
    }
    let last = courier.events.last().unwrap();
    let length = u64::try_from(courier.events.len()).unwrap();
    assert!(length - last.floor <= CARRY_AFTER + 2, "from {} of {length}", last.floor);
    assert_eq!(courier.replayed(), courier.backlog);
}

#[test]
fn a_replay_keeps_what_is_planned_and_goes_on_elsewhere() {
    let mut courier = Courier::with(2);
    courier.backlog.read_up_to(50, 50);
    courier.backlog.replay_from(5, 60);
    courier.note();
    let known = courier.replayed();
    assert_eq!((known.facts_after, known.accesses_after, known.replay_up_to), (5, 5, 60));
    assert_eq!(known.pending(), 2);
}

proptest! {
    #[test]
    fn a_courier_that_starts_again_knows_what_it_knew(
        steps in proptest::collection::vec((0_u8..6, any::<u32>()), 1..120)
    ) {
        let mut courier = Courier::new();
        courier.schedule = "1s,2s,4s".parse().unwrap();
        let mut first_tries = Vec::new();
        for (kind, random) in steps {
            courier.random = random;
            match (kind, courier.step()) {
                (0, _) => courier.plan(Lane::Ordered),
                (1, _) => courier.plan(Lane::Alone),
                (_, Step::Wait(until)) => courier.now = until,
                (_, Step::Idle) => {
                    courier.backlog.read_up_to(u64::from(random), 3);
                    courier.plan(Lane::Ordered);
                }
                (kind, Step::Try(sequence)) => {
                    let message = courier.backlog.message(sequence).unwrap().clone();
                    if message.tries == 0 && message.lane == Lane::Ordered {
                        first_tries.push(sequence);
                    }
                    let said = if kind == 2 { OK } else { BAD };
                    courier.answer(sequence, said, (kind == 5).then_some(3_000));
                }
            }
            courier.note();
            prop_assert_eq!(&courier.replayed(), &courier.backlog);
        }
        prop_assert!(first_tries.is_sorted(), "{:?}", first_tries);
    }

    #[test]
    fn every_message_is_delivered_or_given_up_in_the_end(
        messages in 1_u64..12,
        answers in proptest::collection::vec(any::<bool>(), 200)
    ) {
        let mut courier = Courier::with(messages);
        courier.schedule = "1s,2s,4s,8s".parse().unwrap();
        let mut done = Vec::new();
        for well in answers.into_iter().chain(std::iter::repeat(true)) {
            let sequence = match courier.step() {
                Step::Idle => break,
                Step::Wait(until) => {
                    courier.now = until;
                    continue;
                }
                Step::Try(sequence) => sequence,
            };
            match courier.answer(sequence, if well { OK } else { BAD }, None) {
                Some(Then::Delivered { .. } | Then::GivenUp { .. }) => done.push(sequence),
                Some(Then::Again { .. }) => {}
                None => prop_assert!(false, "it tried what is not there"),
            }
        }
        done.sort_unstable();
        prop_assert_eq!(done, (1..=messages).collect::<Vec<_>>());
    }
}

//! Judging in batches answers as judging one by one does, however appends and repetitions fall into batches.

use domain::{ids::ShareId, recorded::Actor};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::*;
use crate::event_log::{Append, EventLog as _, NewEvent, memory::Memory};

/// A plain generator: the same histories in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What a database would have.
#[derive(Default)]
struct Recorded {
    durable: Durable,
    revisions: HashMap<StreamName, u64>,
    ids: HashMap<EventId, Found>,
}

impl Recorded {
    /// As the writer does it: ids are asked for when that is needed, or when the database refuses one.
    fn commit(&mut self, appends: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let mut requests: Vec<Box<Request>> = appends.iter().map(request).collect();
        let mut known = None;
        loop {
            let view = View { durable: &self.durable, revisions: &self.revisions, known: known.as_ref() };
            let judged = judge(&mut requests, view);
            let batch = match judged {
                Ok(batch) if known.is_some() || !batch.ids.keys().any(|id| self.ids.contains_key(id)) => {
                    batch
                }
                Ok(_) | Err(NeedsKnown) => {
                    assert!(known.is_none(), "asked twice");
                    known = Some(self.ids.clone());
                    continue;
                }
            };
            assert!(batch.ids.keys().all(|id| !self.ids.contains_key(id)), "an id twice");
            self.durable.position = batch.position;
            self.durable.recorded_at = batch.recorded_at;
            self.durable.heads.extend(batch.heads);
            self.revisions.extend(batch.revisions);
            self.ids.extend(batch.ids);
            return batch.verdicts.into_iter().map(|verdict| verdict.result).collect();
        }
    }
}

fn request(append: &Append) -> Box<Request> {
    let mut frames = Vec::new();
    for event in &append.events {
        frame::encode(&mut frames, append, event);
    }
    let (reply, _) = oneshot::channel();
    Box::new(Request {
        append: append.clone(),
        frames,
        queued: std::time::Instant::now(),
        reply,
        _permit: None,
    })
}

fn event(n: u64) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::from_u128(u128::from(n))),
        event_type: "share.revoked",
        version: 1,
        data: "{}".to_owned(),
        personal: None,
        causation: None,
    }
}

/// A new append, a repeated one, or one that mixes what is there with what is not.
fn append(dice: &mut Dice, earlier: &[Append], next_id: &mut u64) -> Append {
    let mut chosen = if dice.roll(3) == 0 && !earlier.is_empty() {
        earlier[usize::try_from(dice.roll(earlier.len() as u64)).unwrap()].clone()
    } else {
        let stream = u128::from(dice.roll(3));
        let share = ShareId::new(Uuid::from_u128(stream));
        let is_access = stream == 2;
        *next_id += 3;
        Append {
            stream: if is_access {
                StreamName::accesses(share, Uuid::nil())
            } else {
                StreamName::share(share)
            },
            expected: if dice.roll(2) == 0 { Expected::Any } else { Expected::Revision(dice.roll(12)) },
            workspace: WorkspaceId::new(Uuid::from_u128(u128::from(dice.roll(2)))),
            actor: Actor::System("test".into()),
            correlation: None,
            at: Timestamp::from_millis(i64::try_from(dice.roll(50)).unwrap()),
            events: (0..1 + dice.roll(3)).map(|n| event(*next_id + n)).collect(),
        }
    };
    match dice.roll(12) {
        0 => {
            *next_id += 3;
            chosen.events.push(event(1_000_000 + *next_id));
        }
        1 => chosen.events.truncate(1),
        2 => chosen.expected = Expected::Any,
        3 => chosen.expected = Expected::Revision(dice.roll(12)),
        4 => chosen.events.reverse(),
        _ => {}
    }
    chosen
}

#[test]
fn a_batch_answers_as_its_appends_would_one_by_one() {
    let mut outcomes = [0; 4];
    for seed in 1..300 {
        let (mut dice, memory, mut recorded) = (Dice(seed * 7_919), Memory::new(), Recorded::default());
        let (mut earlier, mut next_id) = (Vec::new(), 0);
        for _ in 0..12 {
            let count = 1 + dice.roll(8);
            let batch: Vec<Append> = (0..count)
                .map(|_| {
                    let append = append(&mut dice, &earlier, &mut next_id);
                    earlier.push(append.clone());
                    append
                })
                .collect();
            let expected: Vec<_> = batch
                .iter()
                .map(|append| memory.append(append.clone()).now_or_never().expect("it waits for nothing"))
                .collect();
            let answered = recorded.commit(&batch);
            assert_eq!(answered, expected, "seed {seed}: {batch:?}");
            for answer in &answered {
                outcomes[match answer {
                    Ok(_) => 0,
                    Err(AppendError::Conflict { .. }) => 1,
                    Err(AppendError::Refused(_)) => 2,
                    Err(AppendError::Unavailable(_) | AppendError::InDoubt(_)) => 3,
                }] += 1;
            }
        }
        let events = memory.events();
        assert_eq!(recorded.durable.position, events.len() as u64);
        for event in events {
            let found = &recorded.ids[&event.id];
            assert_eq!((found.position, found.revision), (event.position, event.revision));
            assert_eq!((&found.stream, found.recorded_at), (&event.stream, event.recorded_at));
        }
    }
    assert!(outcomes[..3].iter().all(|count| *count > 300) && outcomes[3] == 0, "{outcomes:?}");
}

//! A view that has counted what was retired says what one says that never saw it.

use domain::{
    event::Event,
    ids::EventId,
    recorded::{Actor, Family, Personal, SYSTEM_WORKSPACE, StreamName},
    retention::{HistoryRetired, LastNumber},
};
use proptest::prelude::*;

use super::*;
use crate::{
    access_log::{AccessLogReader, ShareTotals},
    audit::Audit,
    histories::{World, history, share_id, workspace_id},
    view::{KeptView, View},
};

const LOG: Uuid = Uuid::from_u128(1);

/// A log with retirements in it, as views read it that were there all the time.
struct Log {
    applied: Vec<Applied>,
    /// How far accesses are gone.
    up_to: u64,
    open: Vec<OpenAccess>,
}

fn recorded(position: u64, event: retention::Event, at: Timestamp) -> Applied {
    let event = Event::Retention(event);
    let encoded = event.encode();
    let recorded = Recorded {
        position,
        seq: position,
        stream: StreamName::history(Family::Accesses),
        revision: position,
        id: EventId::new(Uuid::from_u128(position.into())),
        event_type: encoded.event_type.into(),
        version: encoded.version,
        recorded_at: at,
        workspace: SYSTEM_WORKSPACE,
        actor: Actor::System("retention".to_owned()),
        causation: None,
        correlation: None,
        data: encoded.data.into(),
        personal: Personal::None,
    };
    (recorded, Some(event))
}

impl Log {
    /// Room between the positions of a history.
    fn of(world: &World) -> Self {
        let spread =
            |(recorded, event): Applied| (Recorded { position: recorded.position * 10, ..recorded }, event);
        Self { applied: world.applied().into_iter().map(spread).collect(), up_to: 0, open: Vec::new() }
    }

    /// Retires, at this place of the log, what had been recorded on days before that of `day_of`.
    fn retire(&mut self, at: usize, day_of: usize) {
        let before = Day::of(self.applied[day_of.min(at)].0.recorded_at);
        let is_old = |recorded: &Recorded| {
            recorded.family() == Family::Accesses && Day::of(recorded.recorded_at) < before
        };
        let old: Vec<Applied> = self.applied[..=at]
            .iter()
            .filter(|(recorded, _)| is_old(recorded) && recorded.position > self.up_to)
            .cloned()
            .collect();
        let Some(up_to) = old.last().map(|(recorded, _)| recorded.position) else { return };
        let mut summing = Summing::begin(&self.open).unwrap();
        for batch in old.chunks(7) {
            summing.take_in(batch).unwrap();
        }
        let Sums { shares, tunnels, open } = summing.end().unwrap();
        let mut numbers = std::collections::BTreeMap::new();
        for (recorded, _) in self.applied.iter().filter(|(recorded, _)| is_old(recorded)) {
            numbers.insert(recorded.workspace, recorded.seq);
        }
        let numbers = numbers.into_iter();
        let numbers = numbers.map(|(workspace_id, number)| LastNumber { workspace_id, number }).collect();
        let (position, time) = (self.applied[at].0.position, self.applied[at].0.recorded_at);
        let summed = HistorySummed { up_to, shares, tunnels, open: open.clone(), numbers };
        let retired = HistoryRetired {
            family: Family::Accesses,
            before,
            after: self.up_to,
            up_to,
            statement: String::new(),
        };
        self.applied.insert(at + 1, recorded(position + 1, retention::Event::Summed(summed), time));
        self.applied.insert(at + 2, recorded(position + 2, retention::Event::Retired(retired), time));
        (self.up_to, self.open) = (up_to, open);
    }

    /// What a view is given that is made anew.
    fn left(&self) -> Vec<Applied> {
        let is_left =
            |recorded: &Recorded| recorded.family() != Family::Accesses || recorded.position > self.up_to;
        self.applied.iter().filter(|(recorded, _)| is_left(recorded)).cloned().collect()
    }
}

fn content<V: KeptView>(applied: &[Applied], batch: usize) -> (Vec<u8>, V, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut view = V::open(folder.path(), LOG).unwrap();
    for batch in applied.chunks(batch) {
        View::apply(&mut view, batch).unwrap();
        // Given again, as after a kill.
        View::apply(&mut view, batch).unwrap();
    }
    let mut bytes = Vec::new();
    view.dump(&mut |part| bytes.extend_from_slice(part)).unwrap();
    (bytes, view, folder)
}

fn totals(reader: &AccessLogReader) -> Vec<ShareTotals> {
    let shares = (0..4).map(|number| reader.totals(workspace_id(number % 2), share_id(number)).unwrap());
    shares.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_view_made_anew_after_retirements_equals_the_kept_one(
        world in history(150), places in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..4),
        batch in 1_usize..30,
    ) {
        let mut log = Log::of(&world);
        let before: Vec<Applied> = log.applied.clone();
        let mut places: Vec<(usize, usize)> = places
            .into_iter()
            .map(|(at, day)| (at.index(before.len()), day.index(before.len())))
            .collect();
        places.sort_unstable();
        for (shift, (at, day)) in places.into_iter().enumerate() {
            let at = (at + 2 * shift).min(log.applied.len() - 1);
            log.retire(at, day + 2 * shift);
        }
        let (kept, view, _folder) = content::<AccessLog>(&log.applied, batch);
        let (anew, _, _folder_anew) = content::<AccessLog>(&log.left(), 17);
        prop_assert_eq!(kept, anew);
        // And nobody's totals have changed.
        let (_, unretired, _folder_unretired) = content::<AccessLog>(&before, 50);
        prop_assert_eq!(totals(&view.reader()), totals(&unretired.reader()));
        let (kept, ..) = content::<Audit>(&log.applied, batch);
        let (anew, ..) = content::<Audit>(&log.left(), 17);
        prop_assert_eq!(kept, anew);
    }
}

#[test]
fn retired_days_are_gone_from_the_folder_and_from_every_answer() {
    let mut world = World::default();
    world.create_workspace(0);
    let visit = |world: &mut World| {
        let access = world.access(200);
        world.visit(2, 2, vec![access], vec![]);
    };
    for _ in 0..3 {
        visit(&mut world);
        world.now_ms += 86_400_000;
    }
    visit(&mut world);
    let mut log = Log::of(&world);
    let last = log.applied.len() - 1;
    log.retire(last, last - 1);
    let (_, view, folder) = content::<AccessLog>(&log.applied, 3);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let days = files.filter(|it| {
        let name = it.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("accesses-") && name.ends_with(".sqlite")
    });
    assert_eq!(days.count(), 2);
    let reader = view.reader();
    let filter = crate::access_log::AccessFilter::default();
    let open = |_, _, _: &[u8]| None;
    let page = reader.accesses(workspace_id(0), share_id(2), &filter, 100, None, &open).unwrap();
    assert_eq!(page.rows.len(), 2);
    assert_eq!(reader.totals(workspace_id(0), share_id(2)).unwrap().accesses, 4, "the sums stay");
}

//! Visits in, access log out.

use domain::{
    access::{Access, Completion, Denied, EndedBy},
    recorded::{Personal, StreamName},
    time::Timestamp,
};
use proptest::prelude::*;

use super::*;
use crate::histories::{START, World, history, share_id, tunnel_id, unseal, workspace_id};

const LOG: Uuid = Uuid::from_u128(1);
const DAY_MS: i64 = 86_400_000;

struct Kept {
    log: AccessLog,
    folder: tempfile::TempDir,
}

fn kept(world: &World) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let mut log = AccessLog::open(folder.path(), LOG).unwrap();
    log.apply(&world.applied()).unwrap();
    Kept { log, folder }
}

fn content(log: &AccessLog) -> Vec<u8> {
    let mut bytes = Vec::new();
    log.dump(&mut |part| bytes.extend_from_slice(part)).unwrap();
    bytes
}

/// Share 2 of workspace 0, all at once.
fn rows(log: &AccessLog, filter: &AccessFilter) -> Vec<AccessRow> {
    let page = log.reader().accesses(workspace_id(0), share_id(2), filter, 100_000, None, &unseal).unwrap();
    assert_eq!(page.next, None);
    page.rows
}

fn paged(log: &AccessLog, filter: &AccessFilter, limit: usize) -> Vec<AccessRow> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = log
            .reader()
            .accesses(workspace_id(0), share_id(2), filter, limit, cursor.as_deref(), &unseal)
            .unwrap();
        assert!(page.rows.len() <= limit);
        all.extend(page.rows);
        match page.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

fn visits(world: &mut World, statuses: &[u16]) -> domain::ids::EventId {
    let accesses = statuses.iter().map(|status| world.access(*status)).collect();
    world.visit(2, 2, accesses, vec![])
}

fn statuses(rows: &[AccessRow]) -> Vec<u16> {
    rows.iter().map(|row| row.status_code).collect()
}

/// Visits on three days, some of other shares between them.
fn three_days() -> World {
    let mut world = World::default();
    for day in 0..3_u16 {
        world.now_ms = i64::from(day) * DAY_MS;
        visits(&mut world, &[200 + day, 300 + day]);
        let other = vec![world.access(500)];
        world.visit(1, 1, other, vec![]);
        world.now_ms += 1_000;
        visits(&mut world, &[400 + day]);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_rebuilt_access_log_equals_the_kept_one_however_it_was_fed(
        world in history(80), cuts in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let rebuilt = kept(&world);
        let folder = tempfile::tempdir().unwrap();
        let applied = world.applied();
        let mut from = 0;
        for round in 0.. {
            if from >= applied.len() {
                break;
            }
            let mut log = AccessLog::open(folder.path(), LOG).unwrap();
            let to = applied.len().min(from + cuts[round % cuts.len()]);
            log.apply(&applied[from.saturating_sub(3)..to]).unwrap();
            from = to;
        }
        let log = AccessLog::open(folder.path(), LOG).unwrap();
        prop_assert!(log.checkpoint() <= rebuilt.log.checkpoint(), "facts are passed over without a commit");
        prop_assert_eq!(content(&log), content(&rebuilt.log));
    }

    #[test]
    fn totals_are_the_sum_of_what_the_list_shows(world in history(120)) {
        let kept = kept(&world);
        let shown = rows(&kept.log, &AccessFilter::default());
        let totals = kept.log.reader().totals(workspace_id(0), share_id(2)).unwrap();
        let times = |row: &AccessRow| u64::from(row.repeat.unwrap_or(1));
        prop_assert_eq!(totals, ShareTotals {
            accesses: shown.iter().map(times).sum(),
            denied: shown.iter().filter(|row| row.denied.is_some()).map(times).sum(),
            bytes_in: shown.iter().map(|row| row.bytes_in).sum(),
            bytes_out: shown.iter().map(|row| row.bytes_out).sum(),
            last_accessed_at: shown.iter().map(|row| row.accessed_at).max(),
        });
    }

    #[test]
    fn pages_of_any_size_make_up_the_whole(world in history(120), limit in 1_usize..9) {
        let kept = kept(&world);
        let whole = rows(&kept.log, &AccessFilter::default());
        prop_assert_eq!(&paged(&kept.log, &AccessFilter::default(), limit), &whole);
        let errors = AccessFilter { status: Some((400, 599)), ..AccessFilter::default() };
        let mut kept_errors = whole;
        kept_errors.retain(|row| row.status_code >= 400);
        prop_assert_eq!(paged(&kept.log, &errors, limit), kept_errors);
    }

    #[test]
    fn bounds_of_time_select_what_comparing_would(world in history(120), at in 0_i64..200_000_000, span in 0_i64..90_000_000) {
        let kept = kept(&world);
        let (since, until) = (START.plus_ms(at), START.plus_ms(at + span));
        let mut expected = rows(&kept.log, &AccessFilter::default());
        expected.retain(|row| (since..=until).contains(&row.accessed_at));
        let filter = AccessFilter { since: Some(since), until: Some(until), ..AccessFilter::default() };
        prop_assert_eq!(rows(&kept.log, &filter), expected);
    }
}

#[test]
fn the_newest_comes_first_over_all_days() {
    let kept = kept(&three_days());
    let shown = rows(&kept.log, &AccessFilter::default());
    assert_eq!(statuses(&shown), vec![402, 302, 202, 401, 301, 201, 400, 300, 200]);
    assert_eq!(std::fs::read_dir(kept.folder.path()).unwrap().count() / 3, 4, "a summary and three days");
}

#[test]
fn an_access_shows_what_was_recorded() {
    let mut world = World::default();
    let mut refused = world.access(403);
    refused.denied = Some(Denied::PathNotAllowed);
    refused.repeat = Some(5);
    let event_id = world.visit(2, 2, vec![world.access(200), refused], vec![]);
    let kept = kept(&world);
    let shown = rows(&kept.log, &AccessFilter::default());
    assert_eq!((shown[0].event_id, shown[0].index, shown[1].index), (event_id, 1, 0));
    assert_eq!((shown[0].denied, shown[0].repeat), (Some(Denied::PathNotAllowed), Some(5)));
    assert_eq!(shown[1].accessed_at, START.plus_ms(-20));
    let visitor = shown[0].visitor.as_ref().unwrap();
    assert_eq!((visitor.ip.as_str(), visitor.path.as_str()), ("192.0.2.1", "/odd/1"));
}

#[test]
fn a_page_goes_on_where_it_ended_whatever_was_recorded_since() {
    let mut world = three_days();
    let mut kept = kept(&world);
    let reader = kept.log.reader();
    let page = |cursor: Option<&str>| {
        let all = AccessFilter::default();
        reader.accesses(workspace_id(0), share_id(2), &all, 4, cursor, &unseal).unwrap()
    };
    let first = page(None);
    world.now_ms += DAY_MS;
    visits(&mut world, &[599]);
    kept.log.apply(&world.applied()).unwrap();
    let second = page(first.next.as_deref());
    assert_eq!(statuses(&first.rows), vec![402, 302, 202, 401]);
    assert_eq!(statuses(&second.rows), vec![301, 201, 400, 300]);
    assert_eq!(statuses(&page(second.next.as_deref()).rows), vec![200]);
}

#[test]
fn filters_select_by_status_method_address_and_path() {
    let mut world = World::default();
    let mut post = world.access(201);
    post.method = "POST".to_owned();
    let accesses = vec![world.access(200), post, world.access(404)];
    world.visit(2, 2, accesses, vec![]);
    let kept = kept(&world);
    let found = |filter: AccessFilter| statuses(&rows(&kept.log, &filter));
    let any = AccessFilter::default;
    assert_eq!(found(AccessFilter { status: Some((200, 299)), ..any() }), vec![201, 200]);
    assert_eq!(found(AccessFilter { method: Some("POST".to_owned()), ..any() }), vec![201]);
    assert_eq!(found(AccessFilter { ip: Some("192.0.2.2".to_owned()), ..any() }), vec![404]);
    assert_eq!(found(AccessFilter { path: Some("/even/0".to_owned()), ..any() }), vec![200]);
    assert_eq!(found(AccessFilter { path: Some("/even".to_owned()), ..any() }), Vec::<u16>::new());
    assert_eq!(found(AccessFilter { path: Some("/even/*".to_owned()), ..any() }), vec![404, 200]);
}

#[test]
fn a_request_recorded_long_after_it_began_is_found_by_when_it_began() {
    let mut world = World::default();
    world.now_ms = DAY_MS;
    let mut late = world.access(200);
    // Begun on the day before.
    late.accessed_at = START.plus_ms(DAY_MS / 2);
    world.visit(2, 2, vec![late], vec![]);
    visits(&mut world, &[500]);
    let kept = kept(&world);
    let span = |from: i64, to: i64| AccessFilter {
        since: Some(START.plus_ms(from)),
        until: Some(START.plus_ms(to)),
        ..AccessFilter::default()
    };
    assert_eq!(statuses(&rows(&kept.log, &span(0, DAY_MS / 2))), vec![200]);
    assert_eq!(statuses(&rows(&kept.log, &span(DAY_MS / 2 + 1, DAY_MS))), vec![500]);
}

/// One failure, and after it more successes than one page takes apart.
fn needle() -> World {
    let mut world = World::default();
    visits(&mut world, &[500]);
    for _ in 0..SCAN_EVENTS_MAX + 5 {
        visits(&mut world, &[200]);
    }
    world
}

#[test]
fn a_filter_that_matches_little_answers_with_where_to_go_on() {
    let world = needle();
    let kept = kept(&world);
    let nobody = AccessFilter { ip: Some("203.0.113.9".to_owned()), ..AccessFilter::default() };
    let page = |cursor: Option<&str>| {
        kept.log.reader().accesses(workspace_id(0), share_id(2), &nobody, 10, cursor, &unseal).unwrap()
    };
    let first = page(None);
    assert_eq!(first.rows, vec![]);
    let second = page(Some(&first.next.unwrap()));
    assert_eq!((second.rows, second.next), (vec![], None));
}

#[test]
fn what_cannot_have_the_status_or_method_asked_for_is_passed_by() {
    let kept = kept(&needle());
    let found = |filter: AccessFilter| {
        let page = kept.log.reader().accesses(workspace_id(0), share_id(2), &filter, 10, None, &unseal);
        page.map(|page| (statuses(&page.rows), page.next)).unwrap()
    };
    let any = AccessFilter::default;
    assert_eq!(found(AccessFilter { status: Some((500, 599)), ..any() }), (vec![500], None));
    assert_eq!(found(AccessFilter { status: Some((500, 500)), ..any() }), (vec![500], None));
    assert_eq!(found(AccessFilter { method: Some("PURGE".to_owned()), ..any() }), (vec![], None));
}

proptest! {
    #[test]
    fn facets_never_hide_what_is_asked_for(codes in prop::collection::vec(100_u16..600, 1..5), from in 100_u16..600, span in 0_u16..500) {
        let world = World::default();
        let accesses: Vec<Access> = codes.iter().map(|code| world.access(*code)).collect();
        let asked = from..=from + span;
        if codes.iter().any(|code| asked.contains(code)) {
            let wanted = facets::Wanted::new(Some((from, from + span)), Some("GET"));
            prop_assert!(wanted.may_be_in(facets::of(&accesses)));
        }
    }
}

#[test]
fn an_erased_visitor_shows_nothing_of_himself() {
    let kept = kept(&three_days());
    let reader = kept.log.reader();
    let page = reader
        .accesses(workspace_id(0), share_id(2), &AccessFilter::default(), 100, None, &|_, _, _| None)
        .unwrap();
    assert_eq!(page.rows.len(), 9);
    assert!(page.rows.iter().all(|row| row.visitor.is_none() && row.method == "GET"));
    let by_ip = AccessFilter { ip: Some("192.0.2.0".to_owned()), ..AccessFilter::default() };
    let page = reader.accesses(workspace_id(0), share_id(2), &by_ip, 100, None, &|_, _, _| None).unwrap();
    assert_eq!(page.rows, vec![], "what is erased matches no address");
}

#[test]
fn the_opener_is_told_whose_key_it_is() {
    let kept = kept(&three_days());
    let open = |workspace, share, sealed: &[u8]| {
        assert_eq!((workspace, share), (workspace_id(0), share_id(2)));
        unseal(workspace, share, sealed)
    };
    let all = AccessFilter::default();
    let page = kept.log.reader().accesses(workspace_id(0), share_id(2), &all, 100, None, &open).unwrap();
    assert!(page.rows.iter().all(|row| row.visitor.is_some()));
}

#[test]
fn a_personal_part_that_came_opened_is_not_kept() {
    let mut world = three_days();
    for recorded in &mut world.recorded {
        if let Personal::Sealed(sealed) = &recorded.personal {
            let text = unseal(workspace_id(0), share_id(2), sealed).unwrap();
            recorded.personal = Personal::Open(text.into());
        }
    }
    let kept = kept(&world);
    assert!(rows(&kept.log, &AccessFilter::default()).iter().all(|row| row.visitor.is_none()));
    for file in std::fs::read_dir(kept.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(9).any(|window| window == b"192.0.2.0"));
    }
}

fn completion(event_id: domain::ids::EventId, index: u16) -> Completion {
    let ended_by = Some(EndedBy::Visitor);
    Completion { event_id, index, latency_ms: 9_000, bytes_in: 15, bytes_out: 7_000, ended_by }
}

fn running(world: &World) -> Access {
    Access { running: true, ..world.access(101) }
}

#[test]
fn a_completion_ends_the_access_that_it_names_even_on_another_day() {
    let mut world = World::default();
    let accesses = vec![running(&world), running(&world)];
    let event_id = world.visit(2, 2, accesses, vec![]);
    let before = rows(&kept(&world).log, &AccessFilter::default());
    assert!(before.iter().all(|row| row.running && row.latency_ms == 3));
    world.now_ms = DAY_MS;
    world.visit(2, 2, vec![], vec![completion(event_id, 1)]);
    let kept = kept(&world);
    let shown = rows(&kept.log, &AccessFilter::default());
    assert_eq!(shown.len(), 2, "a completion is no access of its own");
    assert_eq!((shown[0].index, shown[0].running, shown[0].latency_ms), (1, false, 9_000));
    assert_eq!((shown[0].bytes_out, shown[0].ended_by), (7_000, Some(EndedBy::Visitor)));
    assert!(shown[1].running);
    let totals = kept.log.reader().totals(workspace_id(0), share_id(2)).unwrap();
    assert_eq!((totals.accesses, totals.bytes_in, totals.bytes_out), (2, 10 + 15, 1_000 + 7_000));
}

#[test]
fn a_tunnel_was_active_when_it_last_served_and_not_when_a_visitor_was_refused() {
    let mut world = World::default();
    visits(&mut world, &[200]);
    world.now_ms = 60_000;
    let mut refused = world.access(403);
    refused.denied = Some(Denied::MethodNotAllowed);
    world.visit(2, 2, vec![refused], vec![]);
    let activity = |world: &World| -> Vec<Option<Timestamp>> {
        let tunnels = [tunnel_id(2), tunnel_id(4)];
        let carried = kept(world).log.reader().carried_by(workspace_id(0), &tunnels).unwrap();
        carried.iter().map(|totals| totals.last_activity_at).collect()
    };
    assert_eq!(activity(&world), vec![Some(START.plus_ms(-20)), None]);
    let event_id = world.visit(2, 2, vec![running(&world)], vec![]);
    world.now_ms = 90_000;
    world.visit(2, 2, vec![], vec![completion(event_id, 0)]);
    assert_eq!(activity(&world), vec![Some(START.plus_ms(90_000)), None], "it served until then");
}

#[test]
fn applying_twice_changes_nothing() {
    let world = three_days();
    let mut kept = kept(&world);
    let before = content(&kept.log);
    kept.log.apply(&world.applied()).unwrap();
    assert_eq!(content(&kept.log), before);
}

#[test]
fn facts_that_say_nothing_here_are_passed_over_without_a_commit() {
    let mut world = World::default();
    visits(&mut world, &[200]);
    let counted = world.recorded.last().unwrap().position;
    let mut kept = kept(&world);
    world.create_tunnel(2, 1, None);
    let facts: Vec<_> = world.applied().into_iter().filter(|(it, _)| it.position > counted).collect();
    kept.log.apply(&facts).unwrap();
    assert_eq!(kept.log.checkpoint(), facts.last().unwrap().0.position);
    assert_eq!(AccessLog::open(kept.folder.path(), LOG).unwrap().checkpoint(), counted);

    let mut far = facts;
    far.last_mut().unwrap().0.position = counted + BEHIND_MAX;
    kept.log.apply(&far).unwrap();
    let reopened = AccessLog::open(kept.folder.path(), LOG).unwrap();
    assert_eq!(reopened.checkpoint(), counted + BEHIND_MAX, "not for ever");
}

#[test]
fn a_crash_between_a_day_and_the_summary_is_made_good() {
    let world = three_days();
    let applied = world.applied();
    let folder = tempfile::tempdir().unwrap();
    let mut log = AccessLog::open(folder.path(), LOG).unwrap();
    log.apply(&applied[..4]).unwrap();
    // The next batch reached its day's file and no other.
    let Some(Event::Access(access::Event::Accessed(accessed))) = &applied[4].1 else { panic!() };
    log.day_file(applied[4].0.recorded_at.day()).unwrap().append(&[(&applied[4].0, accessed)]).unwrap();
    drop(log);
    let mut log = AccessLog::open(folder.path(), LOG).unwrap();
    assert_eq!(log.checkpoint(), applied[3].0.position);
    log.apply(&applied[4..]).unwrap();
    assert_eq!(content(&log), content(&kept(&world).log));
}

#[test]
fn a_day_that_lost_its_last_commits_is_filled_again() {
    let world = three_days();
    let applied = world.applied();
    let (early, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let day = day_file_path(Path::new(""), applied[4].0.recorded_at.day());
    AccessLog::open(early.path(), LOG).unwrap().apply(&applied[..4]).unwrap();
    let mut log = AccessLog::open(late.path(), LOG).unwrap();
    log.apply(&applied).unwrap();
    drop(log);
    // A power cut: the second day's file is as it was, the summary and the third day are not.
    std::fs::copy(early.path().join(&day), late.path().join(&day)).unwrap();
    let mut log = AccessLog::open(late.path(), LOG).unwrap();
    assert_eq!(log.checkpoint(), applied[3].0.position);
    log.apply(&applied[4..]).unwrap();
    assert_eq!(content(&log), content(&kept(&world).log));
}

#[test]
fn a_day_whose_file_is_gone_is_filled_again() {
    let world = three_days();
    let applied = world.applied();
    let kept_one = kept(&world);
    let day = day_file_path(kept_one.folder.path(), applied[4].0.recorded_at.day());
    drop(kept_one.log);
    std::fs::remove_file(day).unwrap();
    let mut log = AccessLog::open(kept_one.folder.path(), LOG).unwrap();
    assert_eq!(log.checkpoint(), applied[2].0.position);
    log.apply(&applied[3..]).unwrap();
    assert_eq!(content(&log), content(&kept(&world).log));
}

#[test]
fn an_access_log_of_another_log_is_discarded_with_its_days() {
    let kept = kept(&three_days());
    let folder = kept.folder;
    drop(kept.log);
    let other = AccessLog::open(folder.path(), Uuid::from_u128(2)).unwrap();
    assert_eq!(other.checkpoint(), 0);
    assert_eq!(rows(&other, &AccessFilter::default()), vec![]);
    let days = std::fs::read_dir(folder.path()).unwrap();
    let left =
        days.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("accesses-"));
    assert_eq!(left.count(), 0);
}

#[test]
fn nothing_is_shown_to_another_workspace() {
    let kept = kept(&three_days());
    let reader = kept.log.reader();
    let all = AccessFilter::default();
    let page = reader.accesses(workspace_id(1), share_id(2), &all, 100, None, &unseal).unwrap();
    assert_eq!((page.rows, page.next), (vec![], None));
    assert_eq!(reader.totals(workspace_id(1), share_id(2)).unwrap(), ShareTotals::default());
    assert_eq!(reader.carried_by(workspace_id(1), &[tunnel_id(2)]).unwrap(), [TunnelTotals::default()]);
}

#[test]
fn a_cursor_tells_nothing_of_the_log_s_own_position() {
    let mut world = World::default();
    for _ in 0..300 {
        let other = vec![world.access(200)];
        world.visit(1, 1, other, vec![]);
    }
    visits(&mut world, &[200, 200]);
    let kept = kept(&world);
    let all = AccessFilter::default();
    let page = kept.log.reader().accesses(workspace_id(0), share_id(2), &all, 1, None, &unseal).unwrap();
    let place: Vec<String> = page.next.unwrap().split('.').map(str::to_owned).collect();
    assert_eq!(place[1..], ["1", "1"], "its number among the workspace's own, and the place in the event");
}

#[test]
fn a_made_up_cursor_is_refused() {
    let kept = kept(&three_days());
    for cursor in ["", "1", "1.2", "1.2.3.4", "x.1.1", "-1.1.1", "ffffffffffffffff.1.1"] {
        let all = AccessFilter::default();
        let answer = kept.log.reader().accesses(workspace_id(0), share_id(2), &all, 1, Some(cursor), &unseal);
        assert!(matches!(answer, Err(ViewError::InvalidCursor)), "{cursor}");
    }
}

#[test]
fn events_of_an_unknown_type_are_skipped_and_counted() {
    let mut world = three_days();
    let stream = StreamName::accesses(share_id(2), Uuid::from_u128(1));
    world.record(stream, workspace_id(0), "share.peeked", "{}", Personal::None);
    let mut kept = kept(&world);
    assert_eq!(kept.log.checkpoint(), 10);
    assert_eq!(kept.log.skipped(), 1);
    kept.log.apply(&world.applied()).unwrap();
    assert_eq!(kept.log.skipped(), 1);
}

#[test]
fn a_tunnel_s_totals_are_those_of_shares_port_and_reach_together() {
    let mut world = World::default();
    visits(&mut world, &[200, 404]);
    world.now_ms = 60_000;
    world.used(2, 3, 500, 7_000);
    world.used(2, 1, 0, 1);
    let kept = kept(&world);
    let carried = |workspace| {
        kept.log.reader().carried_by(workspace_id(workspace), &[tunnel_id(2), tunnel_id(4)]).unwrap()
    };
    let expected = TunnelTotals {
        last_activity_at: Some(START.plus_ms(60_000)),
        connections: 4,
        bytes_in: 20 + 500,
        bytes_out: 2_000 + 7_001,
    };
    assert_eq!(carried(0), [expected, TunnelTotals::default()]);
    assert_eq!(carried(1), [TunnelTotals::default(); 2], "another workspace's");
    assert_eq!(rows(&kept.log, &AccessFilter::default()).len(), 2, "it is no access");
}

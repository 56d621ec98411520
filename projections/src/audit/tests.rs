//! Events in, places out: compared with what one finds by reading everything.

use domain::{
    recorded::StreamName,
    share::{self, RevokeReason},
    tunnel::{self, TunnelUpdated},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::histories::{START, World, agent_id, history, key_id, share_id, tunnel_id, workspace_id};

const LOG: Uuid = Uuid::from_u128(1);

struct Kept {
    audit: Audit,
    _folder: tempfile::TempDir,
}

fn kept(world: &World) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let mut audit = Audit::open(folder.path(), LOG).unwrap();
    audit.apply(&world.applied()).unwrap();
    Kept { audit, _folder: folder }
}

fn content(audit: &Audit) -> Vec<u8> {
    let mut bytes = Vec::new();
    audit.dump(&mut |part| bytes.extend_from_slice(part)).unwrap();
    bytes
}

/// The numbers of a workspace's facts that fit, newest first, as somebody finds them who reads everything.
fn expected(world: &World, fits: impl Fn(&Recorded) -> bool) -> Vec<u64> {
    let of_workspace =
        |recorded: &&Recorded| recorded.workspace == workspace_id(0) && recorded.family() == Family::Facts;
    world.recorded.iter().rev().filter(of_workspace).filter(|it| fits(it)).map(|it| it.seq).collect()
}

/// The same, asked page by page.
fn asked(reader: &AuditReader, filter: &AuditFilter, limit: usize) -> Vec<u64> {
    let (mut numbers, mut below) = (Vec::new(), None);
    loop {
        let page = reader.facts(workspace_id(0), filter, below, limit).unwrap();
        assert!(page.rows.len() <= limit);
        numbers.extend(page.rows.iter().map(|row| row.seq));
        below = page.next;
        if below.is_none() {
            return numbers;
        }
    }
}

fn no_claim(recorded: &Recorded) -> bool {
    !recorded.event_type.starts_with("claim.")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rebuilt_audit_equals_the_kept_one_however_it_was_fed(
        world in history(120), cuts in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let rebuilt = kept(&world);
        let folder = tempfile::tempdir().unwrap();
        let applied = world.applied();
        let mut from = 0;
        for round in 0.. {
            if from >= applied.len() {
                break;
            }
            // Opened anew for each batch, as after a kill, and given again what it has.
            let mut audit = Audit::open(folder.path(), LOG).unwrap();
            let to = applied.len().min(from + cuts[round % cuts.len()]);
            audit.apply(&applied[from.saturating_sub(3)..to]).unwrap();
            from = to;
        }
        let audit = Audit::open(folder.path(), LOG).unwrap();
        prop_assert_eq!(content(&audit), content(&rebuilt.audit));
    }

    #[test]
    fn every_event_but_claims_is_found_by_its_number_and_none_of_another_workspace(
        world in history(120), limit in 1_usize..30,
    ) {
        let kept = kept(&world);
        let reader = kept.audit.reader();
        for workspace in [workspace_id(0), workspace_id(1)] {
            for family in [Family::Facts, Family::Accesses] {
                let of_it: Vec<_> = world
                    .recorded
                    .iter()
                    .filter(|recorded| recorded.workspace == workspace && recorded.family() == family)
                    .filter(|recorded| no_claim(recorded))
                    .map(|recorded| (recorded.seq, recorded.position, recorded.stream.clone(), recorded.revision))
                    .collect();
                let (mut found, mut after) = (Vec::new(), 0);
                loop {
                    let page = reader.following(workspace, family, &[], after, limit).unwrap();
                    found.extend(page.rows.into_iter().map(|it| (it.seq, it.position, it.stream, it.revision)));
                    if !page.more {
                        break;
                    }
                    after = page.reached.unwrap().0;
                }
                prop_assert_eq!(&found, &of_it);
                let retained = reader.retained(workspace, family).unwrap();
                let mut numbers =
                    world.recorded.iter().rev().filter(|it| it.workspace == workspace && it.family() == family);
                let last = numbers.next().map(|it| Retained { first: 1, last: it.seq });
                prop_assert_eq!(retained, last);
            }
        }
    }

    #[test]
    fn a_moment_has_the_last_number_that_was_recorded_by_then(
        world in history(120), moments in prop::collection::vec(-1_000_i64..1_000_000_000, 20),
    ) {
        let kept = kept(&world);
        let reader = kept.audit.reader();
        let recorded = world.recorded.iter().map(|recorded| recorded.recorded_at);
        for at in moments.into_iter().map(|ms| START.plus_ms(ms)).chain(recorded) {
            let last = expected(&world, |recorded| recorded.recorded_at <= at).first().copied().unwrap_or(0);
            prop_assert_eq!(reader.number_at(workspace_id(0), Family::Facts, at).unwrap(), last);
            let known = |position: u64| {
                let own = world.recorded.iter().filter(|it| it.workspace == workspace_id(0));
                let facts = own.filter(|it| it.family() == Family::Facts && it.position <= position);
                facts.map(|it| it.seq).max().unwrap_or(0)
            };
            for position in [0, 1, 7, u64::try_from(world.recorded.len()).unwrap()] {
                let found = reader.number_before(workspace_id(0), Family::Facts, position).unwrap();
                prop_assert_eq!(found, known(position), "position {}", position);
            }
        }
    }

    #[test]
    fn filters_find_what_reading_everything_finds(world in history(150), a in 0_u8..6, limit in 1_usize..20) {
        let kept = kept(&world);
        let reader = kept.audit.reader();
        let filter = AuditFilter::default;
        prop_assert_eq!(asked(&reader, &filter(), limit), expected(&world, no_claim));
        for kind in ["tunnel.updated", "share.created", "agent.connected"] {
            let of_kind = AuditFilter { types: vec![kind.to_owned()], ..filter() };
            prop_assert_eq!(asked(&reader, &of_kind, limit), expected(&world, |it| &*it.event_type == kind));
        }
        let claims = AuditFilter { types: vec!["claim.taken".to_owned()], ..filter() };
        prop_assert_eq!(asked(&reader, &claims, limit), Vec::<u64>::new());
        let both = ["share.created", "share.revoked"].map(str::to_owned).to_vec();
        let of_both = AuditFilter { types: both.clone(), ..filter() };
        let expected_both = expected(&world, |it| both.iter().any(|kind| **kind == *it.event_type));
        prop_assert_eq!(asked(&reader, &of_both, limit), expected_both);
        let by_nobody = AuditFilter { actor: Some("nobody".to_owned()), ..filter() };
        prop_assert_eq!(asked(&reader, &by_nobody, limit), Vec::<u64>::new());
        let by_all = AuditFilter { actor: Some("test".to_owned()), ..filter() };
        prop_assert_eq!(asked(&reader, &by_all, limit), expected(&world, no_claim));
        let (since, until) = (world.recorded[world.recorded.len() / 3].recorded_at, world.now().plus_ms(-1));
        let between = AuditFilter { since: Some(since), until: Some(until), ..filter() };
        let expected_between = expected(&world, |it| {
            no_claim(it) && it.recorded_at >= since && it.recorded_at <= until
        });
        prop_assert_eq!(asked(&reader, &between, limit), expected_between);
        // A tunnel's own events, and those of the shares that were made of it.
        let tunnel = tunnel_id(2 * a);
        let streams: Vec<StreamName> = world
            .recorded
            .iter()
            .filter(|it| &*it.event_type == "share.created" && it.data.contains(&tunnel.to_string()))
            .map(|it| it.stream.clone())
            .chain([StreamName::tunnel(tunnel)])
            .collect();
        let of_tunnel = AuditFilter { things: vec![tunnel.uuid()], ..filter() };
        prop_assert_eq!(asked(&reader, &of_tunnel, limit), expected(&world, |it| streams.contains(&it.stream)));
    }
}

/// An agent with a tunnel and a share of it, all number 2, of workspace 0; another agent, number 4.
fn small_world() -> World {
    let mut world = World::default();
    world.create_workspace(0);
    world.create_key(0, None);
    for number in [2, 4] {
        let token = world.token(number, Some(0), 86_400_000);
        world.register(number, "laptop", token);
    }
    world.create_tunnel(2, 2, None);
    world.create_share(2, 2, None);
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    world
}

fn types(world: &World, things: &[Uuid]) -> Vec<String> {
    let kept = kept(world);
    let filter = AuditFilter { things: things.to_vec(), ..AuditFilter::default() };
    let page = kept.audit.reader().facts(workspace_id(0), &filter, None, 100).unwrap();
    page.rows.into_iter().rev().map(|row| row.event_type).collect()
}

#[test]
fn what_happens_to_a_share_concerns_its_tunnel_and_its_agent() {
    let world = small_world();
    let (agent, tunnel, share) = (agent_id(2).uuid(), tunnel_id(2).uuid(), share_id(2).uuid());
    assert_eq!(types(&world, &[share]), ["share.created", "share.revoked"]);
    assert_eq!(types(&world, &[tunnel]), ["tunnel.created", "share.created", "share.revoked"]);
    let of_agent = ["agent.registered", "tunnel.created", "share.created", "share.revoked"];
    assert_eq!(types(&world, &[agent]), of_agent);
    assert_eq!(types(&world, &[agent, share]), ["share.created", "share.revoked"]);
    assert_eq!(types(&world, &[agent_id(4).uuid()]), ["agent.registered"]);
    assert_eq!(types(&world, &[agent_id(4).uuid(), share]), Vec::<String>::new());
    assert_eq!(types(&world, &[key_id(0).uuid()]), ["key.created"]);
}

#[test]
fn a_tunnel_that_moved_concerns_its_new_agent_from_then_on() {
    let mut world = small_world();
    let moved = TunnelUpdated { agent_id: Some(agent_id(4)), ..TunnelUpdated::default() };
    world.tunnel(2, &tunnel::Command::Update(moved));
    world.tunnel(2, &tunnel::Command::Pause);
    let of_new = ["agent.registered", "tunnel.updated", "tunnel.paused"];
    assert_eq!(types(&world, &[agent_id(4).uuid()]), of_new);
    assert_eq!(types(&world, &[agent_id(2).uuid()]).last().unwrap(), "tunnel.paused");
}

#[test]
fn facts_are_counted_by_type_author_and_hour() {
    let kept = kept(&small_world());
    let reader = kept.audit.reader();
    let counts = reader.counts(workspace_id(0), &AuditFilter::default(), 100).unwrap();
    assert_eq!((counts.events, counts.complete), (7, true));
    assert_eq!(counts.by_type["agent.registered"], 2);
    assert_eq!(counts.by_actor["test"], 7);
    assert_eq!(counts.by_hour.values().sum::<u64>(), 7);
    assert_eq!(counts.span, Some((START, START)));
    let counts = reader.counts(workspace_id(0), &AuditFilter::default(), 3).unwrap();
    assert_eq!((counts.events, counts.complete), (3, false));
}

#[test]
fn an_odd_filter_answers_with_where_to_go_on() {
    let kept = kept(&small_world());
    let reader = kept.audit.reader();
    let types = vec!["nothing.happened".to_owned(), "workspace.created".to_owned()];
    let odd = AuditFilter { types, ..AuditFilter::default() };
    let (mut found, mut looked_at, mut below) = (Vec::new(), 0, None);
    loop {
        let next = reader.walk_at_most(workspace_id(0), &odd, below, 2, &mut found).unwrap();
        looked_at += 1;
        below = next;
        if below.is_none() {
            break;
        }
    }
    // Seven facts, two at a time; the first of all is the one that fits.
    assert_eq!((found, looked_at), (vec![1], 4));
}

/// Creations of shares of one tunnel, each with a claim after it, as many as one likes.
fn shares_without_end(world: &World) -> impl Iterator<Item = Applied> {
    let created = world.recorded.iter().rfind(|it| &*it.event_type == "share.created").unwrap().clone();
    let last = world.recorded.last().unwrap().position;
    (1_u64..).map(move |number| {
        let mut recorded = created.clone();
        recorded.position = last + number;
        recorded.seq = created.seq + number;
        let id = domain::ids::ShareId::new(Uuid::from_u128(u128::from(number)));
        let is_claim = number.is_multiple_of(2);
        let stream = if is_claim { format!("claim-{number}") } else { format!("share-{id}") };
        if is_claim {
            recorded.event_type = "claim.granted".into();
        }
        recorded.stream = StreamName::parse(&stream).unwrap();
        (recorded, None)
    })
}

#[test]
fn a_fact_costs_the_same_however_many_went_before() {
    const BATCH: usize = 1_000;
    let mut world = World::default();
    world.create_tunnel(2, 1, None);
    world.create_share(2, 2, None);
    let mut kept = kept(&world);
    let mut facts = shares_without_end(&world);
    let mut times = Vec::new();
    for _ in 0..20 {
        let batch: Vec<_> = facts.by_ref().take(BATCH).collect();
        let begun = std::time::Instant::now();
        kept.audit.apply(&batch).unwrap();
        times.push(begun.elapsed());
    }
    // The quickest of several: whatever else the machine does makes none of them quicker.
    let (first, last) = (times[..5].iter().min().unwrap(), times[15..].iter().min().unwrap());
    assert!(*last < *first * 10, "{BATCH} facts took {first:?} at first, {last:?} after {} more", 15 * BATCH);
}

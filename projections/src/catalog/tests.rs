//! Events in, lists out.

use domain::{
    agent::{self, DisconnectReason},
    agent_command::{self, Outcome},
    share::{self, RevokeReason},
    tunnel::{self, Condition, DeleteReason, Outage, TunnelUpdated},
};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    histories::{
        START, World, agent_id, command_id, history, key_id, name, revoke_key, share_id, tunnel_id,
        workspace_id,
    },
    routes::Routes,
};

const LOG: Uuid = Uuid::from_u128(1);
const ALL: PageRequest<'static> = PageRequest { limit: 1_000, cursor: None };

struct Kept {
    catalog: Catalog,
    _folder: tempfile::TempDir,
}

fn kept(world: &World) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    catalog.apply(&world.applied()).unwrap();
    Kept { catalog, _folder: folder }
}

fn content(catalog: &Catalog) -> Vec<u8> {
    let mut bytes = Vec::new();
    catalog.dump(&mut |part| bytes.extend_from_slice(part)).unwrap();
    bytes
}

/// One of each, all number 2, of workspace 0.
fn small_world() -> World {
    let mut world = World::default();
    world.create_workspace(0);
    world.create_key(0, None);
    let token = world.token(1, Some(0), 86_400_000);
    world.register(2, "laptop", token);
    world.create_tunnel(2, 2, None);
    world.create_share(2, 2, Some(60_000));
    world
}

fn active(world: &World) -> Vec<ShareRow> {
    let filter = ShareFilter { tunnel: None, active: Some(true) };
    kept(world).catalog.reader().shares(workspace_id(0), filter, world.now(), ALL).unwrap().rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_rebuilt_catalog_equals_the_kept_one_however_it_was_fed(
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
            let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
            let to = applied.len().min(from + cuts[round % cuts.len()]);
            catalog.apply(&applied[from.saturating_sub(3)..to]).unwrap();
            prop_assert_eq!(catalog.checkpoint(), applied[to - 1].0.position);
            from = to;
        }
        let catalog = Catalog::open(folder.path(), LOG).unwrap();
        prop_assert_eq!(content(&catalog), content(&rebuilt.catalog));
        prop_assert_eq!(catalog.skipped(), rebuilt.catalog.skipped());
    }

    #[test]
    fn the_catalog_says_what_routes_say(world in history(120)) {
        let routes = Routes::default();
        for (recorded, event) in world.applied() {
            if let Some(event) = event {
                routes.apply(&recorded, &event);
            }
        }
        let kept = kept(&world);
        let reader = kept.catalog.reader();
        let now = world.now();
        for (id, entry) in routes.all_tunnels() {
            let workspace = match &entry.state {
                domain::tunnel::Tunnel::Open(details) | domain::tunnel::Tunnel::Closed(details) => details,
                domain::tunnel::Tunnel::Unknown => continue,
            };
            let row = reader.tunnel(workspace.created.workspace_id, id).unwrap().unwrap();
            prop_assert_eq!(row.closed_at.is_none(), entry.state.open().is_some());
            prop_assert_eq!(row.revision, entry.revision);
            prop_assert_eq!((row.created_at, row.updated_at), (entry.created_at, entry.changed_at));
            let details = workspace;
            prop_assert_eq!(row.name.as_str(), details.created.name.as_str());
            prop_assert_eq!(&row.target, &details.created.target);
            prop_assert_eq!(row.agent_id, details.created.agent_id);
            prop_assert_eq!(row.protocol, details.created.protocol);
            prop_assert_eq!(row.is_public, details.created.is_public);
            prop_assert_eq!(&row.metadata, &details.metadata);
            prop_assert_eq!(row.paused, details.paused);
            prop_assert_eq!(&row.condition, &details.condition);
        }
        for (id, entry) in routes.all_shares() {
            let created = entry.state.created.as_ref().unwrap();
            let row = reader.share(created.workspace_id, id, now).unwrap().unwrap();
            let gate = routes.gate(&entry.state, now);
            let passes = matches!(gate, Ok(_) | Err(domain::access::Denied::TunnelPaused));
            prop_assert_eq!(row.active, passes);
            prop_assert_eq!(row.revision, entry.revision);
            prop_assert_eq!(row.allowed_paths, created.allowed_paths.clone());
        }
        for (id, entry) in routes.all_agents() {
            let registered = entry.state.registered.as_ref().unwrap();
            let row = reader.agent(registered.workspace_id, id).unwrap().unwrap();
            prop_assert_eq!(row.deleted_at.is_some(), entry.state.deleted);
            prop_assert_eq!(row.label.as_str(), registered.label.as_str());
            prop_assert_eq!(row.tunnel_count, u64::try_from(routes.tunnels_of(id).len()).unwrap());
            prop_assert_eq!(row.revision, entry.revision);
        }
        for (workspace, entry) in routes.workspaces() {
            for (id, key) in &entry.state.keys {
                let row = reader.key(workspace, *id).unwrap().unwrap();
                prop_assert_eq!(row.revoked_at.is_some(), key.revoked);
                prop_assert_eq!(&row.scopes, &key.created.scopes);
            }
        }
    }
}

#[test]
fn an_agent_shows_when_it_came_and_when_it_was_last_seen() {
    let mut world = small_world();
    world.now_ms = 1_000;
    let session_id = world.connect(2, 1);
    let kept_before = kept(&world);
    let row = kept_before.catalog.reader().agent(workspace_id(0), agent_id(2)).unwrap().unwrap();
    assert_eq!((row.session, row.connected_at), (Some(session_id), Some(START.plus_ms(1_000))));
    assert_eq!((row.created_at, row.tunnel_count), (START, 1));
    world.now_ms = 5_000;
    world.agent(2, &agent::Command::Disconnect { session_id, reason: DisconnectReason::Lost });
    let row = kept(&world).catalog.reader().agent(workspace_id(0), agent_id(2)).unwrap().unwrap();
    assert_eq!((row.session, row.last_seen_at), (None, Some(START.plus_ms(5_000))));
}

#[test]
fn a_new_boot_of_a_node_ends_the_sessions_of_the_one_before() {
    let mut world = small_world();
    world.start_node(1);
    world.connect(2, 1);
    world.start_node(2);
    let row = kept(&world).catalog.reader().agent(workspace_id(0), agent_id(2)).unwrap().unwrap();
    assert_eq!(row.session, None);
}

#[test]
fn a_deleted_agent_leaves_the_list_with_its_tunnels() {
    let mut world = small_world();
    world.agent(2, &agent::Command::Delete);
    let kept = kept(&world);
    let reader = kept.catalog.reader();
    assert_eq!(reader.agents(workspace_id(0), ALL).unwrap().rows, vec![]);
    let tunnels = reader.tunnels(workspace_id(0), TunnelFilter::default(), world.now(), ALL).unwrap();
    assert_eq!(tunnels.rows, vec![], "no event has closed the tunnel yet");
    assert!(reader.agent(workspace_id(0), agent_id(2)).unwrap().unwrap().deleted_at.is_some());
}

#[test]
fn a_tunnel_shows_what_is_wrong_with_it() {
    let mut world = small_world();
    let outage = Outage::TargetUnreachable("connection refused".to_owned());
    world.tunnel(2, &tunnel::Command::MarkDisconnected { outage: outage.clone() });
    let row = kept(&world).catalog.reader().tunnel(workspace_id(0), tunnel_id(2)).unwrap().unwrap();
    assert_eq!(row.condition, Condition::Failed(outage));
}

#[test]
fn a_list_of_tunnels_has_the_open_ones_of_the_workspace_and_agent_asked_for() {
    let mut world = small_world();
    let token = world.token(3, None, 86_400_000);
    world.register(4, "ci", token);
    world.create_tunnel(4, 4, Some(1_000));
    world.create_tunnel(6, 4, None);
    world.create_tunnel(8, 2, None);
    world.tunnel(8, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    let kept = kept(&world);
    let ids = |filter, workspace, now| -> Vec<_> {
        let page = kept.catalog.reader().tunnels(workspace_id(workspace), filter, now, ALL).unwrap();
        page.rows.into_iter().map(|row| row.id).collect()
    };
    let every = TunnelFilter::default();
    assert_eq!(ids(every, 0, START), vec![tunnel_id(6), tunnel_id(4), tunnel_id(2)], "newest first");
    assert_eq!(ids(every, 0, START.plus_ms(1_000)), vec![tunnel_id(6), tunnel_id(2)]);
    assert_eq!(ids(every, 1, START), vec![]);
    assert_eq!(ids(TunnelFilter { agent: Some(agent_id(2)) }, 0, START), vec![tunnel_id(2)]);
}

#[test]
fn a_share_is_active_until_it_or_its_tunnel_or_its_agent_ends() {
    assert_eq!(active(&small_world()).len(), 1);

    let mut world = small_world();
    world.tunnel(2, &tunnel::Command::Pause);
    assert_eq!(active(&world).len(), 1, "a pause passes");
    world.now_ms = 60_000;
    assert_eq!(active(&world).len(), 0);

    let mut world = small_world();
    world.tunnel(2, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    assert_eq!(active(&world).len(), 0);

    let mut world = small_world();
    world.now_ms = 7;
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    assert_eq!(active(&world).len(), 0);
    let row = kept(&world).catalog.reader().share(workspace_id(0), share_id(2), START).unwrap().unwrap();
    assert_eq!(row.revoked_at, Some(START.plus_ms(7)));
    assert_eq!(row.revoke_reason, Some(RevokeReason::Requested));
}

#[test]
fn the_active_and_the_others_are_all() {
    let mut world = small_world();
    world.create_share(4, 2, None);
    world.share(4, &share::Command::Revoke { reason: RevokeReason::Requested });
    world.create_tunnel(4, 2, None);
    world.create_share(6, 4, None);
    let kept = kept(&world);
    let ids = |tunnel, active| -> Vec<_> {
        let filter = ShareFilter { tunnel, active };
        let page = kept.catalog.reader().shares(workspace_id(0), filter, START, ALL).unwrap();
        page.rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(None, None), vec![share_id(6), share_id(4), share_id(2)]);
    assert_eq!(ids(None, Some(true)), vec![share_id(6), share_id(2)]);
    assert_eq!(ids(None, Some(false)), vec![share_id(4)]);
    assert_eq!(ids(Some(tunnel_id(2)), None), vec![share_id(4), share_id(2)]);
    assert_eq!(ids(Some(tunnel_id(4)), Some(true)), vec![share_id(6)]);
}

#[test]
fn a_revoked_key_leaves_the_list_and_can_still_be_asked_for() {
    let mut world = small_world();
    world.create_key(2, None);
    world.workspace(0, &revoke_key(2));
    let kept = kept(&world);
    let page = kept.catalog.reader().keys(workspace_id(0), ALL).unwrap();
    assert_eq!(page.rows.iter().map(|row| row.id).collect::<Vec<_>>(), vec![key_id(0)]);
    assert_eq!(page.rows[0].allowed_ip_ranges, vec!["10.0.0.0/8"]);
    assert!(kept.catalog.reader().key(workspace_id(0), key_id(2)).unwrap().unwrap().revoked_at.is_some());
    assert_eq!(kept.catalog.reader().key(workspace_id(1), key_id(2)).unwrap(), None);
}

#[test]
fn pages_neither_repeat_nor_miss_while_tunnels_come_and_go() {
    let mut world = small_world();
    for number in [4, 6, 8, 10, 12] {
        world.create_tunnel(number, 2, None);
    }
    let mut kept = kept(&world);
    let reader = kept.catalog.reader();
    let page = |cursor: Option<&str>| {
        let request = PageRequest { limit: 2, cursor };
        reader.tunnels(workspace_id(0), TunnelFilter::default(), START, request).unwrap()
    };
    let first = page(None);
    // A new one comes, one that was shown goes, and so does the one that the next page began with.
    world.create_tunnel(14, 2, None);
    world.tunnel(10, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    world.tunnel(8, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    kept.catalog.apply(&world.applied()).unwrap();
    let second = page(first.next.as_deref());
    let last = page(second.next.as_deref());
    let ids: Vec<_> =
        [&first, &second, &last].into_iter().flat_map(|page| page.rows.iter().map(|row| row.id)).collect();
    assert_eq!(ids, [12, 10, 6, 4, 2].map(tunnel_id));
    assert_eq!(last.next, None);
}

#[test]
fn a_page_that_ends_the_list_says_so() {
    let world = small_world();
    let kept = kept(&world);
    let request = PageRequest { limit: 1, cursor: None };
    assert_eq!(kept.catalog.reader().agents(workspace_id(0), request).unwrap().next, None);
}

#[test]
fn a_made_up_cursor_is_refused() {
    let kept = kept(&small_world());
    for cursor in ["", "7", "tun_01", "ZZ", "0195000000007000800000000000030é"] {
        let request = PageRequest { limit: 1, cursor: Some(cursor) };
        let answer = kept.catalog.reader().agents(workspace_id(0), request);
        assert!(matches!(answer, Err(ViewError::InvalidCursor)), "{cursor}");
    }
}

#[test]
fn a_catalog_of_another_log_is_discarded() {
    let world = small_world();
    let folder = tempfile::tempdir().unwrap();
    Catalog::open(folder.path(), LOG).unwrap().apply(&world.applied()).unwrap();
    assert_ne!(Catalog::open(folder.path(), LOG).unwrap().checkpoint(), 0);
    let other = Catalog::open(folder.path(), Uuid::from_u128(2)).unwrap();
    assert_eq!(other.checkpoint(), 0);
    assert_eq!(other.reader().agents(workspace_id(0), ALL).unwrap().rows, vec![]);
}

#[test]
fn a_catalog_that_cannot_be_read_is_discarded() {
    let world = small_world();
    let folder = tempfile::tempdir().unwrap();
    Catalog::open(folder.path(), LOG).unwrap().apply(&world.applied()).unwrap();
    std::fs::write(folder.path().join("catalog.sqlite"), b"this was a view once ".repeat(500)).unwrap();
    assert_eq!(Catalog::open(folder.path(), LOG).unwrap().checkpoint(), 0);
}

#[test]
fn a_catalog_of_another_layout_is_discarded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("catalog.sqlite");
    drop(view::open_file(&file, "CREATE TABLE agents (only_this TEXT);", LOG).unwrap());
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    catalog.apply(&small_world().applied()).unwrap();
    assert_eq!(catalog.reader().agents(workspace_id(0), ALL).unwrap().rows.len(), 1);
}

#[test]
fn events_of_an_unknown_type_are_skipped_and_counted() {
    let mut world = small_world();
    let stream = domain::recorded::StreamName::parse("invoice-1").unwrap();
    world.record(stream, workspace_id(0), "invoice.sent", "{}", domain::recorded::Personal::None);
    let mut kept = kept(&world);
    assert_eq!(
        (kept.catalog.skipped(), kept.catalog.checkpoint()),
        (1, world.applied().last().unwrap().0.position)
    );
    kept.catalog.apply(&world.applied()).unwrap();
    assert_eq!(kept.catalog.skipped(), 1, "seen twice, counted once");
}

#[test]
fn readers_do_not_wait_for_a_writer_in_the_middle_of_a_transaction() {
    let mut kept = kept(&small_world());
    let reader = kept.catalog.reader();
    let transaction = kept.catalog.connection.transaction().unwrap();
    transaction.execute("DELETE FROM agents", []).unwrap();
    assert_eq!(reader.agents(workspace_id(0), ALL).unwrap().rows.len(), 1);
}

#[test]
fn nothing_is_listed_in_another_workspace() {
    let world = small_world();
    let kept = kept(&world);
    let reader = kept.catalog.reader();
    let other = workspace_id(1);
    assert_eq!(reader.agents(other, ALL).unwrap().rows, vec![]);
    assert_eq!(reader.shares(other, ShareFilter::default(), START, ALL).unwrap().rows, vec![]);
    assert_eq!(reader.tunnel(other, tunnel_id(2)).unwrap(), None);
    assert_eq!(reader.share(other, share_id(2), START).unwrap(), None);
    assert_eq!(reader.agent(other, agent_id(2)).unwrap(), None);
}

#[test]
fn a_renamed_and_redirected_tunnel_waits_for_its_agent_again() {
    let mut world = small_world();
    let session_id = world.connect(2, 1);
    world.tunnel(2, &tunnel::Command::MarkConnected { session_id });
    let rename = TunnelUpdated { name: Some(name("new")), ..TunnelUpdated::default() };
    world.tunnel(2, &tunnel::Command::Update(rename));
    let row =
        |world: &World| kept(world).catalog.reader().tunnel(workspace_id(0), tunnel_id(2)).unwrap().unwrap();
    assert_eq!(row(&world).condition, Condition::Connected(session_id), "a name changes no connection");
    let target = domain::target::Target { host: "localhost".to_owned(), port: 9 };
    let redirect = TunnelUpdated { target: Some(target), ..TunnelUpdated::default() };
    world.tunnel(2, &tunnel::Command::Update(redirect));
    assert_eq!(row(&world).condition, Condition::Connecting);
}

#[test]
fn a_batch_that_fails_half_way_leaves_nothing_behind() {
    let world = small_world();
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    let stop = "CREATE TRIGGER stop BEFORE INSERT ON shares BEGIN SELECT RAISE(ABORT, 'no'); END";
    catalog.connection.execute_batch(stop).unwrap();
    assert!(matches!(catalog.apply(&world.applied()), Err(ViewError::Sqlite(_))));
    assert_eq!(catalog.checkpoint(), 0);
    assert_eq!(catalog.reader().agents(workspace_id(0), ALL).unwrap().rows, vec![]);
    catalog.connection.execute_batch("DROP TRIGGER stop").unwrap();
    catalog.apply(&world.applied()).unwrap();
    assert_eq!(content(&catalog), content(&kept(&world).catalog));
}

#[test]
fn a_catalog_whose_writer_was_killed_goes_on_from_its_last_commit() {
    let world = small_world();
    let applied = world.applied();
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    catalog.apply(&applied[..3]).unwrap();
    // Nobody closes the file: what was committed is in the write-ahead file only.
    std::mem::forget(catalog);
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    assert_eq!(catalog.checkpoint(), applied[2].0.position);
    catalog.apply(&applied).unwrap();
    assert_eq!(content(&catalog), content(&kept(&world).catalog));
}

#[test]
fn what_another_build_skipped_is_read_again_by_this_one() {
    let mut world = small_world();
    let stream = domain::recorded::StreamName::parse("invoice-1").unwrap();
    world.record(stream, workspace_id(0), "invoice.sent", "{}", domain::recorded::Personal::None);
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(folder.path(), LOG).unwrap();
    catalog.apply(&world.applied()).unwrap();
    drop(catalog);
    let catalog = Catalog::open(folder.path(), LOG).unwrap();
    assert_ne!(catalog.checkpoint(), 0, "the same build would skip it again");
    catalog.connection.execute("UPDATE meta SET skipped_by = 'another'", []).unwrap();
    drop(catalog);
    assert_eq!(Catalog::open(folder.path(), LOG).unwrap().checkpoint(), 0);
}

#[test]
fn a_former_share_is_found_by_token_and_slug_with_the_reason_and_a_living_one_is_not() {
    let by_token = |number: u8| ShareKey::Token(crate::histories::digest(0x80 + number));
    let by_slug = ShareKey::Slug("slug-2".to_owned());
    let mut world = small_world();
    assert_eq!(kept(&world).catalog.reader().former_share(&by_token(2)).unwrap(), None);
    world.create_share(4, 2, Some(1_000));
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    world.now_ms = 1_000;
    let now = world.now();
    world.share(4, &share::Command::Expire { now });
    let kept = kept(&world);
    let ask = |key: &ShareKey| kept.catalog.reader().former_share(key).unwrap();
    let revoked = FormerShare {
        workspace: workspace_id(0),
        id: share_id(2),
        tunnel_id: tunnel_id(2),
        denied: domain::access::Denied::ShareRevoked,
    };
    assert_eq!(ask(&by_token(2)), Some(revoked));
    assert_eq!(ask(&by_slug), Some(revoked));
    assert_eq!(ask(&by_token(4)).unwrap().denied, domain::access::Denied::ShareExpired);
    assert_eq!(ask(&by_token(6)), None);
    assert_eq!(ask(&ShareKey::Slug("slug".to_owned())), None);
}

#[test]
fn a_list_of_commands_says_what_became_of_each() {
    let mut world = small_world();
    for number in 1..=4 {
        world.queue_command(number, 2, 60_000);
    }
    let session_id = domain::ids::SessionId::new(crate::histories::id(1));
    world.command(2, 2, &agent_command::Command::Deliver { session_id });
    let done = Outcome::Done { result: serde_json::json!({ "epoch": 2 }) };
    world.command(3, 2, &agent_command::Command::Finish { outcome: done.clone() });
    world.now_ms += 60_000;
    world.command(4, 2, &agent_command::Command::Expire { now: world.now() });
    let kept = kept(&world);
    let reader = kept.catalog.reader();
    let list = |page| reader.commands(workspace_id(0), agent_id(2), page).unwrap();
    let said: Vec<_> = list(ALL).rows.into_iter().map(|row| (row.id, row.status, row.outcome)).collect();
    let expected =
        [(4, "expired", None), (3, "done", Some(done)), (2, "delivered", None), (1, "queued", None)];
    assert_eq!(
        said,
        expected.map(|(number, status, outcome)| (command_id(number), status.to_owned(), outcome))
    );
    let first = list(PageRequest { limit: 3, cursor: None });
    let second = list(PageRequest { limit: 3, cursor: first.next.as_deref() });
    assert_eq!((first.rows.len(), second.rows.len(), second.next), (3, 1, None));
    assert_eq!(reader.commands(workspace_id(1), agent_id(2), ALL).unwrap().rows, [], "another workspace");
    assert_eq!(reader.command(workspace_id(1), command_id(1)).unwrap(), None);
    assert_eq!(reader.command(workspace_id(0), command_id(1)).unwrap().unwrap().status, "queued");
}

#[test]
fn teammates_are_names_with_their_agents_and_services() {
    let mut world = World::default();
    world.create_workspace(0);
    for agent in [0, 2] {
        let token = world.token(agent, None, 86_400_000);
        world.register_as(agent, "laptop", "alice", false, token);
    }
    let token = world.token(4, None, 86_400_000);
    world.register_as(4, "ci", "robot", true, token);
    world.create_tunnel(0, 0, None);
    world.create_tunnel(2, 2, Some(1_000));
    let kept = kept(&world);
    let reader = kept.catalog.reader();
    let page = |now| reader.teammates(workspace_id(0), now, ALL).unwrap();
    let now = world.now();
    let rows = page(now).rows;
    assert_eq!(rows.len(), 1, "who was provisioned is nobody: {rows:?}");
    assert_eq!((rows[0].name.as_str(), rows[0].services), ("alice", 2));
    assert_eq!(rows[0].agents, [agent_id(2), agent_id(0)]);
    assert_eq!(page(now.plus_ms(1_000)).rows[0].services, 1, "one of the services is over");
    assert!(reader.teammates(workspace_id(1), now, ALL).unwrap().rows.is_empty());
    let numbers = reader.numbers(workspace_id(0), now).unwrap();
    assert_eq!((numbers.agents, numbers.tunnels, numbers.active, numbers.shares), (3, 2, 0, 0));
}

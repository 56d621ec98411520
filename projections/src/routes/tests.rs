//! Events in, routes out.

use domain::{
    environment,
    share::{self, RevokeReason},
    tunnel::{self, DeleteReason, TunnelUpdated},
    workspace::Workspace,
};
use proptest::prelude::*;

use super::*;
use crate::histories::{
    World, agent_id, digest, environment_id, history, name, revoke_key, share_id, tunnel_id, workspace_id,
};

pub(super) fn routes_of(world: &World) -> Routes {
    let routes = Routes::default();
    apply_all(&routes, world);
    routes
}

fn apply_all(routes: &Routes, world: &World) {
    for (recorded, event) in world.applied() {
        if let Some(event) = event {
            routes.apply(&recorded, &event);
        }
    }
}

/// As a reader in log order brings everything.
pub(super) fn read_all(routes: &Routes, world: &World) {
    for (recorded, event) in world.applied() {
        routes.apply_next(&recorded, event.as_ref());
    }
}

pub(super) fn keeping(ended_kept: usize) -> Routes {
    Routes { ended_kept: Some(ended_kept), ..Routes::default() }
}

/// Everything that routes hold, in an order of its own.
fn content(routes: &Routes) -> Vec<String> {
    fn lines<K: std::fmt::Debug + Eq + Hash, V: std::fmt::Debug>(map: &DashMap<K, V>) -> Vec<String> {
        map.iter().map(|entry| format!("{:?} = {:?}", entry.key(), entry.value())).collect()
    }
    let mut all = [
        lines(&routes.workspaces),
        lines(&routes.agents),
        lines(&routes.tunnels),
        lines(&routes.shares),
        lines(&routes.claims),
        lines(&routes.nodes),
        lines(&routes.keys_by_digest),
        lines(&routes.agents_by_token),
        lines(&routes.shares_by_token),
        lines(&routes.shares_by_slug),
        lines(&routes.tunnels_by_name),
        lines(&routes.tunnels_by_agent),
        lines(&routes.shares_by_tunnel),
        lines(&routes.commands),
        lines(&routes.commands_by_agent),
        lines(&routes.messages),
        lines(&routes.messages_by_agent),
        lines(&routes.agents_by_capability),
        lines(&routes.environments),
        lines(&routes.environments_by_workspace),
        lines(&routes.environments_by_code),
        lines(&routes.environments_by_joiner),
    ];
    all.iter_mut().for_each(|lines| lines.sort());
    all.concat()
}

/// Workspace, agent, tunnel and share, all number 2, of workspace 0.
pub(super) fn shared() -> World {
    let mut world = World::default();
    world.create_workspace(0);
    world.create_key(0, None);
    let token = world.token(1, Some(0), 86_400_000);
    world.register(2, "laptop", token);
    world.create_tunnel(2, 2, None);
    world.create_share(2, 2, Some(60_000));
    world
}

fn gate(world: &World) -> Result<TunnelId, Denied> {
    let routes = routes_of(world);
    let share = routes.share(share_id(2)).unwrap();
    routes.gate(&share.state, world.now()).map(|entry| entry.state.open().unwrap().created.tunnel_id)
}

proptest! {
    #[test]
    fn folding_in_one_go_equals_applying_one_by_one_with_repetitions(
        world in history(120), repeat in prop::collection::vec(0_usize..40, 0..120),
    ) {
        let once = routes_of(&world);
        let again = Routes::default();
        let applied = world.applied();
        for (place, (recorded, event)) in applied.iter().enumerate() {
            let Some(event) = event else { continue };
            again.apply(recorded, event);
            // Somebody is behind, and applies what is known already.
            let back = repeat.get(place % repeat.len().max(1)).copied().unwrap_or(0);
            for (recorded, event) in &applied[place.saturating_sub(back)..=place] {
                if let Some(event) = event {
                    again.apply(recorded, event);
                }
            }
        }
        prop_assert_eq!(content(&once), content(&again));
    }

    #[test]
    fn an_event_that_came_too_early_waits_for_those_before_it(world in history(80)) {
        let backwards = Routes::default();
        for (recorded, event) in world.applied().iter().rev() {
            if let Some(event) = event {
                backwards.apply(recorded, event);
            }
        }
        apply_all(&backwards, &world);
        prop_assert_eq!(content(&routes_of(&world)), content(&backwards));
    }

    #[test]
    fn a_rebuild_keeps_of_what_ended_what_a_live_hub_keeps(
        world in history(160), ahead in prop::collection::vec(0_usize..20, 1..60), kept in 0_usize..4,
    ) {
        let rebuilt = keeping(kept);
        read_all(&rebuilt, &world);
        let live = keeping(kept);
        let applied = world.applied();
        for (place, (recorded, event)) in applied.iter().enumerate() {
            // Whoever decides is ahead of the reader, and whoever replays a stream is behind it.
            let ahead = ahead[place % ahead.len()];
            for (recorded, event) in &applied[place.saturating_sub(30)..applied.len().min(place + ahead)] {
                if let Some(event) = event {
                    live.apply(recorded, event);
                }
            }
            live.apply_next(recorded, event.as_ref());
        }
        apply_all(&live, &world);
        prop_assert_eq!(content(&rebuilt), content(&live));
        let alive = |routes: &Routes| {
            let tunnels = routes.all_tunnels().into_iter().filter(|(_, it)| it.state.open().is_some()).count();
            let shares = routes.all_shares().into_iter().filter(|(_, it)| it.state.ended.is_none()).count();
            let claims = routes.all_claims().into_iter().filter(|(_, it)| it.state.holder().is_some()).count();
            Held { tunnels, shares, claims }
        };
        let everything = routes_of(&world);
        prop_assert_eq!(alive(&live), alive(&everything), "what lives stays");
        let (held, lives) = (live.held(), alive(&live));
        prop_assert!(held.tunnels + held.shares + held.claims <= lives.tunnels + lives.shares + lives.claims + kept);
    }

    #[test]
    fn every_index_leads_to_what_is_there(world in history(120)) {
        let routes = keeping(1);
        read_all(&routes, &world);
        for entry in &routes.shares_by_token {
            prop_assert!(routes.share(*entry.value()).is_some());
        }
        for entry in &routes.shares_by_slug {
            prop_assert!(routes.share(*entry.value()).is_some());
        }
        for entry in &routes.shares_by_tunnel {
            prop_assert!(!entry.value().is_empty());
            prop_assert!(entry.value().iter().all(|id| routes.share(*id).is_some()));
        }
        for (id, tunnel) in routes.all_tunnels() {
            let Some(details) = tunnel.state.open() else { continue };
            prop_assert!(routes.tunnels_of(details.created.agent_id).contains(&id));
        }
        for entry in &routes.tunnels_by_name {
            let tunnel = routes.tunnel(*entry.value()).unwrap();
            prop_assert_eq!(tunnel.state.open().unwrap().created.name.as_str(), &entry.key().1);
        }
        for entry in &routes.agents_by_token {
            let agent = routes.agent(*entry.value()).unwrap();
            prop_assert!(agent.state.tokens.iter().any(|t| unhex(&t.token_hash) == Some(*entry.key())));
        }
    }
}

#[test]
fn two_who_apply_the_same_history_at_once_leave_what_one_would() {
    for round in 0..50 {
        let mut world = shared();
        for step in 0..40 {
            world.tunnel(
                2,
                &tunnel::Command::Update(TunnelUpdated {
                    name: Some(name(&format!("name-{}", (step + round) % 7))),
                    ..TunnelUpdated::default()
                }),
            );
        }
        world.tunnel(2, &tunnel::Command::Delete { reason: DeleteReason::Requested });
        let both = Routes::default();
        std::thread::scope(|scope| {
            scope.spawn(|| apply_all(&both, &world));
            scope.spawn(|| apply_all(&both, &world));
        });
        assert_eq!(content(&both), content(&routes_of(&world)));
    }
}

#[test]
fn a_share_of_an_open_tunnel_passes() {
    assert_eq!(gate(&shared()), Ok(tunnel_id(2)));
}

#[test]
fn revoked_comes_before_expired_and_expired_before_whatever_the_tunnel_is() {
    let mut world = shared();
    world.tunnel(2, &tunnel::Command::Pause);
    assert_eq!(gate(&world).err(), Some(Denied::TunnelPaused));
    world.now_ms = 60_000;
    assert_eq!(gate(&world).err(), Some(Denied::ShareExpired), "the clock decides, no event is needed");
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    assert_eq!(gate(&world).err(), Some(Denied::ShareRevoked));
}

#[test]
fn a_share_expires_at_its_moment_and_not_before() {
    let mut world = shared();
    world.now_ms = 59_999;
    assert_eq!(gate(&world), Ok(tunnel_id(2)));
    world.now_ms = 60_000;
    assert_eq!(gate(&world).err(), Some(Denied::ShareExpired));
}

#[test]
fn an_expiry_that_was_recorded_holds_whatever_the_clock_says() {
    let mut world = shared();
    world.now_ms = 60_000;
    let now = world.now();
    world.share(2, &share::Command::Expire { now });
    world.now_ms = 0;
    assert_eq!(gate(&world).err(), Some(Denied::ShareExpired));
}

#[test]
fn deleting_the_tunnel_or_its_agent_closes_the_share_before_any_cascade() {
    let mut world = shared();
    world.tunnel(2, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    assert_eq!(gate(&world).err(), Some(Denied::TunnelGone));

    let mut world = shared();
    world.tunnel(2, &tunnel::Command::Pause);
    world.agent(2, &agent::Command::Delete);
    assert_eq!(gate(&world).err(), Some(Denied::TunnelGone), "gone says more than paused");
}

#[test]
fn a_tunnel_whose_time_is_over_is_gone_before_anybody_sweeps() {
    let mut world = shared();
    world.create_tunnel(4, 2, Some(1_000));
    world.create_share(4, 4, None);
    world.now_ms = 1_000;
    let routes = routes_of(&world);
    let share = routes.share(share_id(4)).unwrap();
    assert_eq!(routes.gate(&share.state, world.now()).err(), Some(Denied::TunnelGone));
}

#[test]
fn a_key_opens_until_it_is_revoked_or_its_time_is_over() {
    let mut world = shared();
    world.create_key(2, Some(1_000));
    let routes = routes_of(&world);
    assert_eq!(routes.key(&digest(2), world.now()).unwrap().0, workspace_id(0));
    assert!(routes.key(&digest(2), world.now().plus_ms(1_000)).is_none());
    assert!(routes.key(&digest(9), world.now()).is_none());
    world.workspace(0, &revoke_key(2));
    assert!(routes_of(&world).key(&digest(2), world.now()).is_none());
}

#[test]
fn a_token_opens_until_its_agent_is_deleted() {
    let mut world = shared();
    assert_eq!(routes_of(&world).agent_by_token(&digest(1), world.now()).unwrap().0, agent_id(2));
    world.agent(2, &agent::Command::Delete);
    assert!(routes_of(&world).agent_by_token(&digest(1), world.now()).is_none());
}

#[test]
fn a_token_ends_with_its_key_and_with_its_time() {
    let mut world = shared();
    world.create_key(2, None);
    let token = world.token(5, Some(2), 1_000);
    world.register(4, "ci", token);
    let routes = routes_of(&world);
    assert!(routes.agent_by_token(&digest(5), world.now()).is_some());
    assert!(routes.agent_by_token(&digest(5), world.now().plus_ms(1_000)).is_none());
    world.workspace(0, &revoke_key(2));
    assert!(routes_of(&world).agent_by_token(&digest(5), world.now()).is_none());
}

#[test]
fn a_token_ends_with_the_time_of_its_key() {
    let mut world = shared();
    world.create_key(2, Some(1_000));
    let token = world.token(5, Some(2), 86_400_000);
    world.register(4, "ci", token);
    let routes = routes_of(&world);
    assert!(routes.agent_by_token(&digest(5), world.now().plus_ms(999)).is_some());
    assert!(routes.agent_by_token(&digest(5), world.now().plus_ms(1_000)).is_none());
}

#[test]
fn the_token_before_the_last_is_good_for_the_grace_and_the_one_before_that_is_not() {
    let mut world = shared();
    for digit in [2, 3] {
        let token = world.token(digit, None, 86_400_000);
        world.register(2, "laptop", token);
    }
    let routes = routes_of(&world);
    assert!(routes.agent_by_token(&digest(1), world.now()).is_none());
    assert!(routes.agent_by_token(&digest(2), world.now()).is_some());
    assert!(routes.agent_by_token(&digest(2), world.now().plus_ms(agent::TOKEN_GRACE_MS)).is_none());
    assert!(routes.agent_by_token(&digest(3), world.now().plus_ms(agent::TOKEN_GRACE_MS)).is_some());
}

#[test]
fn a_freed_name_leads_to_its_new_holder() {
    let mut world = shared();
    world.tunnel(2, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    assert_eq!(routes_of(&world).tunnel_named(workspace_id(0), "web-2"), None);
    world.create_tunnel_named("web-2", 8, 2, None);
    assert_eq!(routes_of(&world).tunnel_named(workspace_id(0), "web-2"), Some(tunnel_id(8)));
    assert_eq!(
        routes_of(&world).tunnel_named(workspace_id(1), "web-2"),
        None,
        "names stay in their workspace"
    );
}

#[test]
fn a_share_is_found_by_token_and_slug_whatever_became_of_it() {
    let mut world = shared();
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    let routes = routes_of(&world);
    assert_eq!(routes.share_by_token(&digest(0x82)).unwrap().0, share_id(2));
    assert_eq!(routes.share_by_slug("slug-2").unwrap().0, share_id(2));
    assert_eq!(routes.shares_of(tunnel_id(2)), vec![share_id(2)]);
}

/// An event at a place in the log, the way a reader brings it.
fn next(
    (routes, world): (&Routes, &World),
    position: u64,
    stream: StreamName,
    revision: u64,
    event: &Event,
) -> Recorded {
    let encoded = event.encode();
    let recorded = Recorded {
        position,
        stream,
        revision,
        event_type: encoded.event_type.into(),
        data: encoded.data.into(),
        ..world.recorded[0].clone()
    };
    routes.apply_next(&recorded, Some(event));
    recorded
}

#[test]
fn ten_thousand_shares_that_ended_leave_no_more_than_the_newest_behind() {
    let world = shared();
    let routes = routes_of(&world);
    let template = routes.share(share_id(2)).unwrap().state.created.clone().unwrap();
    let mut position = 1_000;
    let mut revoked = Vec::new();
    for number in 0..10_000_u32 {
        let id = ShareId::new(crate::histories::id(0x10_0000 + u128::from(number)));
        let created = share::ShareCreated {
            share_id: id,
            slug: format!("s{number}"),
            token_hash: format!("{number:064x}"),
            ..template.clone()
        };
        let end = share::Event::Revoked(share::ShareRevoked { reason: RevokeReason::Requested });
        next(
            (&routes, &world),
            position,
            StreamName::share(id),
            1,
            &Event::Share(share::Event::Created(created)),
        );
        revoked
            .push((id, next((&routes, &world), position + 1, StreamName::share(id), 2, &Event::Share(end))));
        position += 2;
    }
    assert_eq!(routes.held().shares, 1 + ENDED_KEPT_MAX);
    assert_eq!(routes.shares_by_token.len(), 1 + ENDED_KEPT_MAX);
    assert_eq!(routes.shares_by_slug.len(), 1 + ENDED_KEPT_MAX);
    assert_eq!(routes.shares_of(tunnel_id(2)).len(), 1 + ENDED_KEPT_MAX);
    assert_eq!(routes.ended.lock().len(), ENDED_KEPT_MAX);
    let newest = routes.share(revoked.last().unwrap().0).unwrap();
    assert_eq!(routes.gate(&newest.state, world.now()).err(), Some(Denied::ShareRevoked));
    assert!(routes.share(revoked[0].0).is_none());
    assert!(routes.share(share_id(2)).is_some(), "what lives stays, however old");
}

#[test]
fn what_ended_and_left_is_not_brought_back_by_somebody_who_is_behind() {
    let mut world = shared();
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    world.tunnel(2, &tunnel::Command::Delete { reason: DeleteReason::Requested });
    let routes = keeping(0);
    read_all(&routes, &world);
    apply_all(&routes, &world);
    assert_eq!(routes.held(), Held { tunnels: 0, shares: 0, claims: 0 });
    assert!(routes.share_by_token(&digest(0x82)).is_none());
    assert!(routes.share_by_slug("slug-2").is_none());
}

#[test]
fn what_ended_stays_until_the_reader_has_passed_its_end() {
    let mut world = shared();
    world.share(2, &share::Command::Revoke { reason: RevokeReason::Requested });
    let routes = keeping(0);
    apply_all(&routes, &world);
    let applied = world.applied();
    for (recorded, event) in &applied[..applied.len() - 1] {
        routes.apply_next(recorded, event.as_ref());
        assert!(routes.share(share_id(2)).is_some_and(|entry| entry.state.ended.is_some()));
    }
    read_all(&routes, &world);
    assert!(routes.share(share_id(2)).is_none());
}

#[test]
fn an_event_of_an_unknown_type_does_not_hide_the_end_that_follows_it() {
    let world = shared();
    let routes = Routes::default();
    read_all(&routes, &world);
    let end = share::Event::Revoked(share::ShareRevoked { reason: RevokeReason::Requested });
    // Revision 2 was of a type that this build does not know.
    next((&routes, &world), 1_000, StreamName::share(share_id(2)), 3, &Event::Share(end));
    let share = routes.share(share_id(2)).unwrap();
    assert_eq!(routes.gate(&share.state, world.now()).err(), Some(Denied::ShareRevoked));
}

#[test]
fn a_digest_has_one_spelling() {
    assert_eq!(unhex(&"0a".repeat(32)), Some([10; 32]));
    for wrong in ["0A".repeat(32), "0g".repeat(32), "0a".repeat(31), "é".repeat(32)] {
        assert_eq!(unhex(&wrong), None, "{wrong}");
    }
}

#[test]
fn states_of_routes_are_the_aggregates_own() {
    let world = shared();
    let mut state = Workspace::default();
    for (recorded, event) in world.applied() {
        if let (true, Some(Event::Workspace(event))) = (recorded.workspace == workspace_id(0), event) {
            state.evolve(&event);
        }
    }
    assert_eq!(routes_of(&world).workspace(workspace_id(0)).unwrap().state, state);
}

/// An environment share of workspace 0 that agent 2 has joined.
fn joined_environment() -> World {
    let mut world = World::default();
    world.create_workspace(0);
    world.share_environment(2, 0, 3_600_000);
    let now = world.now();
    world.environment(2, &environment::Command::Join { agent_id: agent_id(2), now });
    world
}

#[test]
fn an_environment_share_is_found_by_its_code_in_its_own_workspace_until_it_ends() {
    let mut world = joined_environment();
    let routes = routes_of(&world);
    let found = |routes: &Routes, workspace| {
        routes.environment_by_code(workspace_id(workspace), &digest(0x42)).map(|(id, _)| id)
    };
    assert_eq!(found(&routes, 0), Some(environment_id(2)));
    assert_eq!(found(&routes, 1), None, "codes are a workspace's own");
    assert_eq!(routes.environments_of(workspace_id(0)), [environment_id(2)]);
    assert_eq!(routes.environments_joined_by(agent_id(2)).len(), 1);
    world.environment(2, &environment::Command::Revoke { reason: environment::RevokeReason::Requested });
    apply_all(&routes, &world);
    assert_eq!(found(&routes, 0), None);
    assert!(routes.environments_of(workspace_id(0)).is_empty());
    assert_eq!(routes.environments_joined_by(agent_id(2)).len(), 1, "whoever joined it learns that it ended");
}

#[test]
fn an_environment_share_that_ended_long_ago_leaves_nothing() {
    let mut world = joined_environment();
    world.environment(2, &environment::Command::Revoke { reason: environment::RevokeReason::Requested });
    let routes = keeping(0);
    read_all(&routes, &world);
    assert!(routes.environment(environment_id(2)).is_none());
    assert!(routes.environments_joined_by(agent_id(2)).is_empty());
    assert!(routes.environments_by_joiner.is_empty());
}

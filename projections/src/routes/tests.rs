//! Events in, routes out.

use domain::{
    share::{self, RevokeReason},
    tunnel::{self, DeleteReason, TunnelUpdated},
    workspace::Workspace,
};
use proptest::prelude::*;

use super::*;
use crate::histories::{
    World, agent_id, digest, history, name, revoke_key, share_id, tunnel_id, workspace_id,
};

fn routes_of(world: &World) -> Routes {
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
    ];
    all.iter_mut().for_each(|lines| lines.sort());
    all.concat()
}

/// Workspace, agent, tunnel and share, all number 2, of workspace 0.
fn shared() -> World {
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
    fn every_index_leads_to_what_is_there(world in history(120)) {
        let routes = routes_of(&world);
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

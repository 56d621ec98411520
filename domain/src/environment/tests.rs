//! Sharing an environment and joining it, as given, when, then.

use super::*;
use crate::testing::{Given, at, digest, given, id, name, uuid};

const DAY_S: i64 = 86_400;

fn laptop() -> EnvironmentShared {
    EnvironmentShared {
        environment_id: id(12),
        workspace_id: id(7),
        agent_id: id(1),
        owner: Actor::Key(id(4)),
        name: Some(name("Bug #123 debugging")),
        expires_at: at(DAY_S),
        require_approval: false,
        routes: vec![route(2)],
        draw: 0,
        code_hash: digest('c'),
    }
}
fn guarded() -> EnvironmentShared {
    EnvironmentShared { require_approval: true, ..laptop() }
}
fn route(n: u128) -> Route {
    Route {
        tunnel_id: id(n),
        name: name("prod-db"),
        target: Target { host: "localhost".to_owned(), port: 5432 },
        protocol: Protocol::Tcp,
    }
}
fn share_it(environment: EnvironmentShared) -> Command {
    Command::Share { environment: Box::new(environment), now: at(0) }
}
fn join(agent: u128) -> Command {
    Command::Join { agent_id: id(agent), now: at(60) }
}
fn approve(agent: u128, decision: u128) -> Command {
    Command::Approve { agent_id: id(agent), decision: uuid(decision), now: at(60) }
}
fn deny(agent: u128, decision: u128) -> Command {
    Command::Deny { agent_id: id(agent), decision: uuid(decision), now: at(60) }
}
fn joined(agent: u128) -> Event {
    Event::Joined(EnvironmentJoined { agent_id: id(agent) })
}
fn asked(agent: u128) -> Event {
    Event::JoinRequested(JoinRequested { agent_id: id(agent) })
}
fn approved(agent: u128, decision: u128) -> Event {
    Event::JoinApproved(JoinApproved { agent_id: id(agent), decision: uuid(decision) })
}
fn denied(agent: u128, decision: u128) -> Event {
    Event::JoinDenied(JoinDenied { agent_id: id(agent), decision: uuid(decision) })
}
fn revoked() -> Event {
    Event::Revoked(EnvironmentRevoked { reason: RevokeReason::Requested })
}
fn ports(agent: u128, opened: &[(u128, u16)]) -> PortsOpened {
    let ports = opened
        .iter()
        .map(|(tunnel, port)| OpenedPort { tunnel_id: id(*tunnel), local_port: *port })
        .collect();
    PortsOpened { agent_id: id(agent), ports }
}
fn unknown() -> Given<Environment> {
    given([])
}
fn open() -> Given<Environment> {
    given([Event::Shared(laptop())])
}
fn open_guarded() -> Given<Environment> {
    given([Event::Shared(guarded())])
}

#[test]
fn an_environment_is_shared_once_however_often_it_is_asked_for() {
    let later = EnvironmentShared { routes: vec![route(2), route(3)], draw: 1, ..laptop() };
    unknown()
        .when(share_it(laptop()))
        .then([Event::Shared(laptop())])
        .when(share_it(laptop()))
        .then_nothing()
        // The agent exposes more by now: what was shared is as of the first try.
        .when(share_it(later))
        .then_nothing();
    for other in [
        EnvironmentShared { agent_id: id(8), ..laptop() },
        EnvironmentShared { require_approval: true, ..laptop() },
        EnvironmentShared { workspace_id: id(8), ..laptop() },
        EnvironmentShared { name: None, ..laptop() },
    ] {
        open().when(share_it(other)).then_rejected(&Rejection::Exists);
    }
}

#[test]
fn there_is_something_to_share_and_not_too_much() {
    let with = |count| EnvironmentShared { routes: vec![route(2); count], ..laptop() };
    unknown().when(share_it(with(0))).then_rejected(&Rejection::NothingToShare);
    unknown().when(share_it(with(ROUTES_MAX))).then([Event::Shared(with(ROUTES_MAX))]);
    unknown().when(share_it(with(ROUTES_MAX + 1))).then_rejected(&Rejection::TooManyRoutes);
}

#[test]
fn it_ends_within_seven_days() {
    let until = |seconds| EnvironmentShared { expires_at: at(seconds), ..laptop() };
    unknown().when(share_it(until(0))).then_rejected(&Rejection::ExpiryPast);
    unknown().when(share_it(until(7 * DAY_S))).then([Event::Shared(until(7 * DAY_S))]);
    unknown().when(share_it(until(7 * DAY_S + 1))).then_rejected(&Rejection::ExpiryTooFar);
}

#[test]
fn whoever_has_the_code_joins_once() {
    open().when(join(8)).then([joined(8)]).when(join(8)).then_nothing().when(join(9)).then([joined(9)]);
    open().when(join(1)).then_rejected(&Rejection::OwnEnvironment);
    unknown().when(join(8)).then_rejected(&Rejection::Unknown);
}

#[test]
fn with_approval_a_join_waits_for_the_owner() {
    open_guarded()
        .when(join(8))
        .then([asked(8)])
        .when(join(8))
        .then_nothing()
        .when(approve(8, 30))
        .then([approved(8, 30)])
        .when(join(8))
        .then([joined(8)])
        .when(join(8))
        .then_nothing();
}

#[test]
fn who_was_denied_does_not_join() {
    open_guarded()
        .and([asked(8)])
        .when(deny(8, 30))
        .then([denied(8, 30)])
        .when(join(8))
        .then_rejected(&Rejection::Denied)
        .when(approve(8, 31))
        .then_rejected(&Rejection::NotPending);
}

#[test]
fn of_several_decisions_the_first_counts_and_only_its_repetition_is_told_so() {
    let decided = open_guarded().and([asked(8)]).when(approve(8, 30)).then([approved(8, 30)]);
    decided.clone().when(approve(8, 30)).then_nothing();
    decided.clone().when(approve(8, 31)).then_rejected(&Rejection::NotPending);
    decided.clone().when(deny(8, 32)).then_rejected(&Rejection::NotPending);
    let there = decided.and([joined(8)]);
    there.clone().when(approve(8, 30)).then_nothing();
    there.when(approve(8, 31)).then_rejected(&Rejection::NotPending);
    let denied = open_guarded().and([asked(8), denied(8, 30)]);
    denied.clone().when(deny(8, 30)).then_nothing();
    denied.when(deny(8, 31)).then_rejected(&Rejection::NotPending);
}

#[test]
fn nobody_is_approved_who_did_not_ask() {
    for command in [approve(8, 30), deny(8, 30)] {
        open_guarded().when(command.clone()).then_rejected(&Rejection::NotPending);
        open().and([joined(8)]).when(command).then_rejected(&Rejection::NotPending);
    }
}

#[test]
fn an_environment_share_has_room_for_a_hundred_agents() {
    let full = open().and((0..JOINERS_MAX).map(|n| joined(100 + u128::try_from(n).unwrap())));
    full.clone().when(join(8)).then_rejected(&Rejection::TooManyJoiners);
    full.when(join(100)).then_nothing();
}

#[test]
fn once_it_is_over_nobody_joins_and_nothing_is_decided() {
    let late = at(DAY_S);
    for over in [open_guarded().and([asked(8), revoked()]), open_guarded().and([asked(8)])] {
        for command in [
            Command::Join { agent_id: id(9), now: late },
            Command::Approve { agent_id: id(8), decision: uuid(30), now: late },
            Command::Deny { agent_id: id(8), decision: uuid(30), now: late },
        ] {
            over.clone().when(command).then_rejected(&Rejection::Over);
        }
    }
}

#[test]
fn it_ends_once_and_for_the_first_reason() {
    let revoke = |reason| Command::Revoke { reason };
    let after = open()
        .when(revoke(RevokeReason::Requested))
        .then([revoked()])
        .when(revoke(RevokeReason::AgentDeleted))
        .then_nothing()
        .when(Command::Expire { now: at(DAY_S) })
        .then_nothing();
    assert_eq!(after.state().ended, Some(Ended::Revoked { reason: RevokeReason::Requested }));
    open().when(Command::Expire { now: at(DAY_S - 1) }).then_rejected(&Rejection::NotDue);
    let after = open()
        .when(Command::Expire { now: at(DAY_S) })
        .then([Event::Expired(EnvironmentExpired {})])
        .when(revoke(RevokeReason::Requested))
        .then_nothing();
    assert_eq!(after.state().ended, Some(Ended::Expired));
    unknown().when(revoke(RevokeReason::Requested)).then_rejected(&Rejection::Unknown);
}

#[test]
fn where_a_joined_agent_listens_is_remembered_and_only_news_is_a_fact() {
    let note = |agent, opened: &[(u128, u16)]| {
        let PortsOpened { agent_id, ports } = ports(agent, opened);
        Command::NotePorts { agent_id, ports }
    };
    let after = open()
        .and([joined(8)])
        .when(note(8, &[(2, 5432), (3, 8080)]))
        .then([Event::PortsOpened(ports(8, &[(2, 5432), (3, 8080)]))])
        .when(note(8, &[(2, 5432)]))
        .then_nothing()
        .when(note(8, &[(2, 5433), (3, 8080)]))
        .then([Event::PortsOpened(ports(8, &[(2, 5433)]))]);
    let known: Vec<_> = after.state().joined().collect();
    assert_eq!(known, [(id(8), &BTreeMap::from([(id(2), 5433), (id(3), 8080)]))]);
    after.when(note(9, &[(2, 5432)])).then_nothing();
    open().and([joined(8), revoked()]).when(note(8, &[(2, 5432)])).then_nothing();
}

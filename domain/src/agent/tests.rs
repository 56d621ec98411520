//! What an agent accepts and refuses, as given, when, then.

use super::*;
use crate::testing::{Given, at, digest, given, id, name, uuid};

const NOW: i64 = 1_000;

fn token(digit: char, expires: i64) -> Token {
    Token { token_hash: digest(digit), expires_at: at(expires), key_id: Some(id(90)) }
}
fn laptop() -> AgentRegistered {
    AgentRegistered {
        agent_id: id(1),
        workspace_id: id(7),
        label: name("laptop"),
        name: name("alice"),
        client_type: None,
        ephemeral: false,
        token: token('a', 9_000),
    }
}
fn with_token(token: Token) -> AgentRegistered {
    AgentRegistered { token, ..laptop() }
}
fn issued(token: Token) -> AgentTokenIssued {
    AgentTokenIssued { token, previous_until: at(NOW).plus_ms(TOKEN_GRACE_MS), label: None, name: None }
}
fn session(epoch: u64) -> AgentConnected {
    AgentConnected {
        agent_id: id(1),
        session_id: id(epoch.into()),
        epoch,
        node: "hub-1".to_owned(),
        boot: uuid(50),
        instance: uuid(60),
        agent_version: "0.1.0".to_owned(),
    }
}
fn ended(epoch: u64, reason: DisconnectReason) -> Event {
    Event::Disconnected(AgentDisconnected { agent_id: id(1), session_id: id(epoch.into()), epoch, reason })
}
fn deleted() -> Event {
    Event::Deleted(AgentDeleted { agent_id: id(1) })
}
fn register(agent: AgentRegistered) -> Command {
    Command::Register { agent, now: at(NOW), takeover: Takeover::Any }
}
fn register_own(agent: AgentRegistered) -> Command {
    Command::Register { agent, now: at(NOW), takeover: Takeover::OwnKey }
}
fn capability(text: &str) -> Capability {
    Capability { name: name(text), metadata: std::collections::BTreeMap::new() }
}
fn offer(names: &[&str]) -> Command {
    Command::SetCapabilities { capabilities: names.iter().map(|name| capability(name)).collect() }
}
fn offered(names: &[&str]) -> Event {
    let capabilities = names.iter().map(|name| capability(name)).collect();
    Event::CapabilitiesSet(AgentCapabilitiesSet { agent_id: id(1), capabilities })
}
fn rotate(current: char, token: Token) -> Command {
    Command::RotateToken { current_hash: digest(current), token, now: at(NOW) }
}
fn disconnect(epoch: u64) -> Command {
    Command::Disconnect { session_id: id(epoch.into()), reason: DisconnectReason::Lost }
}
fn unknown() -> Given<Agent> {
    given([])
}
fn known() -> Given<Agent> {
    given([Event::Registered(laptop())])
}
fn connected() -> Given<Agent> {
    known().and([Event::Connected(session(1))])
}
fn gone() -> Given<Agent> {
    connected().and([ended(1, DisconnectReason::Deleted), deleted()])
}

#[test]
fn an_unknown_agent_can_only_register() {
    unknown().when(register(laptop())).then([Event::Registered(laptop())]);
    for command in [
        rotate('a', token('b', 9_000)),
        Command::Connect { session: session(1) },
        disconnect(1),
        offer(&["gpu"]),
        Command::Delete,
    ] {
        unknown().when(command).then_rejected(&Rejection::AgentUnknown);
    }
}

#[test]
fn registering_again_issues_a_token_and_the_old_one_stays_good_for_the_grace_period() {
    let after = known()
        .when(register(with_token(token('b', 9_000))))
        .then([Event::TokenIssued(issued(token('b', 9_000)))]);
    let grace_end = at(NOW).plus_ms(TOKEN_GRACE_MS);
    let old = Token { expires_at: grace_end, ..token('a', 9_000) };
    assert_eq!(after.state().tokens, [old, token('b', 9_000)]);
}

#[test]
fn a_token_never_gets_longer_life_by_being_replaced() {
    let short = with_token(token('a', NOW + 1));
    let after = given::<Agent>([Event::Registered(short)])
        .when(rotate('a', token('b', 9_000)))
        .then([Event::TokenIssued(issued(token('b', 9_000)))]);
    assert_eq!(after.state().tokens[0].expires_at, at(NOW + 1));
}

#[test]
fn registering_again_records_a_changed_label_and_name_only() {
    let asked = AgentRegistered { label: name("desk"), ..with_token(token('b', 9_000)) };
    let event = AgentTokenIssued { label: Some(name("desk")), ..issued(token('b', 9_000)) };
    let after = known().when(register(asked)).then([Event::TokenIssued(event)]);
    let registered = after.state().registered.clone().unwrap();
    assert_eq!((registered.label, registered.name), (name("desk"), name("alice")));
}

#[test]
fn the_same_registration_again_changes_nothing() {
    unknown()
        .when(register(laptop()))
        .then([Event::Registered(laptop())])
        .when(register(laptop()))
        .then_nothing();
}

#[test]
fn an_agent_of_another_workspace_does_not_exist() {
    let foreign = AgentRegistered { workspace_id: id(8), ..with_token(token('b', 9_000)) };
    known().when(register(foreign)).then_rejected(&Rejection::AgentUnknown);
}

#[test]
fn the_holder_of_the_current_token_rotates_it_once() {
    known()
        .when(rotate('a', token('b', 9_000)))
        .then([Event::TokenIssued(issued(token('b', 9_000)))])
        .when(rotate('a', token('b', 9_000)))
        .then_nothing()
        // The former token opens sessions for a while, but buys no new token: it may have leaked.
        .when(rotate('a', token('c', 9_000)))
        .then_rejected(&Rejection::TokenUnknown);
}

#[test]
fn a_wrong_or_expired_token_is_not_rotated() {
    known().when(rotate('f', token('b', 9_000))).then_rejected(&Rejection::TokenUnknown);
    given::<Agent>([Event::Registered(with_token(token('a', NOW)))])
        .when(rotate('a', token('b', 9_000)))
        .then_rejected(&Rejection::TokenUnknown);
}

#[test]
fn at_most_two_tokens_are_ever_good() {
    let mut agent = known();
    for digit in ['b', 'c', 'd'] {
        let event = Event::TokenIssued(issued(token(digit, 9_000)));
        agent = agent.when(register(with_token(token(digit, 9_000)))).then([event]);
    }
    let hashes: Vec<_> = agent.state().tokens.iter().map(|token| token.token_hash.clone()).collect();
    assert_eq!(hashes, [digest('c'), digest('d')]);
}

#[test]
fn a_session_begins_once_however_often_it_is_announced() {
    known()
        .when(Command::Connect { session: session(1) })
        .then([Event::Connected(session(1))])
        .when(Command::Connect { session: session(1) })
        .then_nothing();
}

#[test]
fn a_newer_session_replaces_the_older_and_an_older_never_the_newer() {
    connected()
        .when(Command::Connect { session: session(2) })
        .then([ended(1, DisconnectReason::Replaced), Event::Connected(session(2))])
        .when(Command::Connect { session: session(1) })
        .then_rejected(&Rejection::SessionSuperseded);
    // The epoch is remembered beyond the session's end.
    connected()
        .and([ended(1, DisconnectReason::Left)])
        .when(Command::Connect { session: session(1) })
        .then_rejected(&Rejection::SessionSuperseded);
}

#[test]
fn a_session_of_an_earlier_boot_of_the_node_was_lost_not_replaced() {
    let after_restart = AgentConnected { boot: uuid(51), ..session(2) };
    connected()
        .when(Command::Connect { session: after_restart.clone() })
        .then([ended(1, DisconnectReason::Lost), Event::Connected(after_restart)]);
    let elsewhere = AgentConnected { boot: uuid(52), node: "hub-2".to_owned(), ..session(2) };
    connected()
        .when(Command::Connect { session: elsewhere.clone() })
        .then([ended(1, DisconnectReason::Replaced), Event::Connected(elsewhere)]);
}

#[test]
fn only_the_live_session_can_end_and_only_once() {
    connected()
        .when(disconnect(1))
        .then([ended(1, DisconnectReason::Lost)])
        .when(disconnect(1))
        .then_nothing();
    connected()
        .and([ended(1, DisconnectReason::Replaced), Event::Connected(session(2))])
        .when(disconnect(1))
        .then_nothing();
    known().when(disconnect(1)).then_nothing();
}

#[test]
fn deleting_an_agent_ends_its_session_and_its_tokens() {
    let after = connected().when(Command::Delete).then([ended(1, DisconnectReason::Deleted), deleted()]);
    assert!(after.state().deleted && after.state().tokens.is_empty() && after.state().session.is_none());
    known().when(Command::Delete).then([deleted()]);
}

#[test]
fn a_deleted_agent_stays_deleted_and_late_news_of_its_session_is_no_error() {
    gone().when(Command::Delete).then_nothing();
    gone().when(disconnect(1)).then_nothing();
    for command in [
        register(laptop()),
        rotate('a', token('b', 9_000)),
        Command::Connect { session: session(2) },
        offer(&["gpu"]),
    ] {
        gone().when(command).then_rejected(&Rejection::AgentGone);
    }
}

#[test]
fn a_key_that_only_runs_agents_takes_over_none_of_another_key() {
    let by_another = Token { key_id: Some(id(91)), ..token('b', 9_000) };
    known()
        .when(register_own(with_token(by_another.clone())))
        .then_rejected(&Rejection::AgentOfAnotherKey)
        // Its own agent comes back with it, and a key that may change agents moves any.
        .when(register_own(with_token(token('c', 9_000))))
        .then([Event::TokenIssued(issued(token('c', 9_000)))])
        .when(register(with_token(by_another.clone())))
        .then([Event::TokenIssued(issued(by_another))])
        .when(register_own(with_token(token('d', 9_000))))
        .then_rejected(&Rejection::AgentOfAnotherKey);
}

#[test]
fn a_rotated_token_stays_under_the_key_of_the_first() {
    let asked = Token { key_id: None, ..token('b', 9_000) };
    known().when(rotate('a', asked)).then([Event::TokenIssued(issued(token('b', 9_000)))]);
}

#[test]
fn a_provisioned_agent_does_not_live_longer_by_rotating() {
    let provisioned = AgentRegistered { ephemeral: true, ..laptop() };
    given::<Agent>([Event::Registered(provisioned)])
        .when(rotate('a', token('b', 99_000)))
        .then([Event::TokenIssued(issued(token('b', 9_000)))])
        .when(rotate('a', token('b', 99_000)))
        .then_nothing();
}

#[test]
fn capabilities_are_replaced_as_a_whole_and_end_with_the_agent() {
    let after = known()
        .when(offer(&["deploy", "gpu"]))
        .then([offered(&["deploy", "gpu"])])
        .when(offer(&["deploy", "gpu"]))
        .then_nothing()
        .when(offer(&["gpu"]))
        .then([offered(&["gpu"])]);
    assert_eq!(after.state().capabilities, [capability("gpu")]);
    assert_eq!(after.and([deleted()]).state().capabilities, []);
}

#[test]
fn a_list_of_capabilities_is_sorted_and_bounded_and_names_each_once() {
    let list = |names: &[&str]| Capability::list(names.iter().map(|name| capability(name)).collect());
    assert_eq!(list(&["gpu", "deploy"]), Ok(vec![capability("deploy"), capability("gpu")]));
    assert_eq!(list(&["gpu", "gpu"]), Err(InvalidCapability::Twice(name("gpu"))));
    let many: Vec<String> = (0..=CAPABILITIES_MAX).map(|n| format!("c{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(list(&many), Err(InvalidCapability::TooMany));
    assert!(list(&many[1..]).is_ok());
    let mut large = capability("large");
    large.metadata.insert("text".to_owned(), "x".repeat(METADATA_BYTES_MAX).into());
    assert_eq!(Capability::list(vec![large]), Err(InvalidCapability::MetadataTooLarge(name("large"))));
}

//! What a workspace accepts and refuses about its keys, as given, when, then.

use super::*;
use crate::testing::{Given, at, digest, given, id, name};

fn default_workspace() -> WorkspaceCreated {
    WorkspaceCreated { workspace_id: id(7), name: name("default") }
}
fn key(n: u128, scopes: &[Scope]) -> KeyCreated {
    KeyCreated {
        key_id: id(n),
        name: name("ci"),
        scopes: scopes.to_vec(),
        key_hash: digest('a'),
        prefix: "pc_k7m2".to_owned(),
        allowed_ip_ranges: vec![],
        expires_at: None,
    }
}
fn admin(n: u128) -> KeyCreated {
    key(n, &[Scope::Admin])
}
fn create_key(key: KeyCreated) -> Command {
    Command::CreateKey { key, now: at(0) }
}
fn revoke(n: u128) -> Command {
    Command::RevokeKey { key_id: id(n) }
}
fn revoked(n: u128) -> Event {
    Event::KeyRevoked(KeyRevoked { key_id: id(n) })
}
fn unknown() -> Given<Workspace> {
    given([])
}
fn workspace(keys: impl IntoIterator<Item = KeyCreated>) -> Given<Workspace> {
    given([Event::Created(default_workspace())]).and(keys.into_iter().map(Event::KeyCreated))
}

#[test]
fn a_workspace_is_created_once_and_with_one_name() {
    let other = WorkspaceCreated { name: name("other"), ..default_workspace() };
    unknown()
        .when(Command::Create(default_workspace()))
        .then([Event::Created(default_workspace())])
        .when(Command::Create(default_workspace()))
        .then_nothing()
        .when(Command::Create(other))
        .then_rejected(&Rejection::WorkspaceExists);
}

#[test]
fn a_workspace_that_does_not_exist_has_no_keys() {
    unknown().when(create_key(admin(1))).then_rejected(&Rejection::WorkspaceUnknown);
    unknown().when(revoke(1)).then_rejected(&Rejection::WorkspaceUnknown);
}

#[test]
fn a_key_is_created_once_however_often_it_is_asked_for() {
    workspace([])
        .when(create_key(admin(1)))
        .then([Event::KeyCreated(admin(1))])
        .when(create_key(admin(1)))
        .then_nothing();
}

#[test]
fn a_key_of_a_known_id_is_not_replaced_nor_brought_back_from_revocation() {
    let wider = KeyCreated { scopes: vec![Scope::Admin], ..key(2, &[Scope::Read]) };
    let after = workspace([admin(1), key(2, &[Scope::Read])])
        .and([revoked(2)])
        .when(create_key(wider))
        .then_rejected(&Rejection::KeyExists(id(2)))
        .when(create_key(key(2, &[Scope::Read])))
        .then_nothing();
    assert!(after.state().keys[&id(2)].revoked);
}

#[test]
fn a_key_needs_a_scope_and_a_future() {
    workspace([]).when(create_key(key(1, &[]))).then_rejected(&Rejection::ScopesMissing);
    for expires in [-1, 0] {
        let over = KeyCreated { expires_at: Some(at(expires)), ..admin(1) };
        workspace([]).when(create_key(over)).then_rejected(&Rejection::ExpiryPast);
    }
}

#[test]
fn a_workspace_has_a_bounded_number_of_living_keys() {
    let full = || workspace((0..KEYS_MAX as u128).map(|n| key(1_000 + n, &[Scope::Read])));
    full().when(create_key(admin(1))).then_rejected(&Rejection::KeysExhausted);
    full().and([revoked(1_000)]).when(create_key(admin(1))).then([Event::KeyCreated(admin(1))]);
    let expired = KeyCreated { expires_at: Some(at(0)), ..key(1_000, &[Scope::Read]) };
    full().and([Event::KeyCreated(expired)]).when(create_key(admin(1))).then([Event::KeyCreated(admin(1))]);
}

#[test]
fn a_key_is_revoked_once_and_an_unknown_one_never() {
    workspace([admin(1), key(2, &[Scope::Read])])
        .when(revoke(2))
        .then([revoked(2)])
        .when(revoke(2))
        .then_nothing()
        .when(revoke(3))
        .then_rejected(&Rejection::KeyUnknown(id(3)));
}

#[test]
fn the_last_admin_key_is_not_revoked() {
    workspace([admin(1), key(2, &[Scope::Write])]).when(revoke(1)).then_rejected(&Rejection::LastAdminKey);
    workspace([admin(1), admin(2)])
        .when(revoke(1))
        .then([revoked(1)])
        .when(revoke(2))
        .then_rejected(&Rejection::LastAdminKey);
}

#[test]
fn a_scope_grants_what_it_says() {
    use Scope::{Admin, Agent, Read, Write};
    for (scope, granted) in [
        (Admin, &[Admin, Write, Read, Agent][..]),
        (Write, &[Write, Read, Agent]),
        (Read, &[Read]),
        (Agent, &[Agent]),
    ] {
        for needed in [Admin, Write, Read, Agent] {
            assert_eq!(scope.grants(needed), granted.contains(&needed), "{scope:?} for {needed:?}");
        }
    }
}

#[test]
fn an_erasure_is_noted_each_time_it_happens() {
    let day = crate::time::Day::of(at(0));
    let erased = PersonalErased { share_id: None, first_day: day, last_day: day, erased_at: at(1), keys: 2 };
    let again = PersonalErased { erased_at: at(2), ..erased };
    unknown().when(Command::NoteErasure(erased.clone())).then_rejected(&Rejection::WorkspaceUnknown);
    workspace([])
        .when(Command::NoteErasure(erased.clone()))
        .then([Event::PersonalErased(erased.clone())])
        .when(Command::NoteErasure(erased))
        .then_nothing()
        .when(Command::NoteErasure(again.clone()))
        .then([Event::PersonalErased(again)]);
}

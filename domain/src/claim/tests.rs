//! Who gets a unique thing, and when it is free again.

use super::*;
use crate::testing::{Given, at, given, id, uuid};

fn claim_of(kind: ClaimKind, holder: &str, command: u128) -> ClaimTaken {
    ClaimTaken {
        kind,
        key: "demo".to_owned(),
        workspace_id: id(7),
        holder: holder.to_owned(),
        command_id: uuid(command),
    }
}
fn name_claim(holder: &str) -> ClaimTaken {
    claim_of(ClaimKind::TunnelName, holder, 1)
}
fn take(claim: ClaimTaken) -> Command {
    Command::Take { claim, now: at(0) }
}
fn confirm(holder: &str) -> Command {
    Command::Confirm { holder: holder.to_owned() }
}
fn take_again(claim: ClaimTaken) -> Command {
    Command::TakeAgain { claim, now: at(0) }
}
fn release(holder: &str) -> Command {
    release_of(holder, 1)
}
fn release_of(holder: &str, command: u128) -> Command {
    Command::Release { holder: holder.to_owned(), command_id: uuid(command), now: at(0) }
}
fn abandon(command: u128) -> Command {
    Command::Abandon { command_id: uuid(command) }
}
fn confirmed_event(holder: &str) -> Event {
    Event::Confirmed(ClaimConfirmed { holder: holder.to_owned() })
}
fn released(holder: &str, quarantined_until: Option<Timestamp>) -> Event {
    Event::Released(ClaimReleased { holder: holder.to_owned(), quarantined_until })
}
fn taken_by(claim: &ClaimTaken) -> Rejection {
    Rejection::ClaimTaken {
        holder: claim.holder.clone(),
        command_id: claim.command_id,
        workspace_id: claim.workspace_id,
    }
}
fn not_held(holder: &str) -> Rejection {
    Rejection::ClaimNotHeld { holder: holder.to_owned() }
}
fn free() -> Given<Claim> {
    given([])
}
fn taken() -> Given<Claim> {
    given([Event::Taken(name_claim("tun_a"))])
}
fn confirmed() -> Given<Claim> {
    taken().and([confirmed_event("tun_a")])
}
fn freed() -> Given<Claim> {
    confirmed().and([released("tun_a", None)])
}

#[test]
fn a_free_thing_is_taken_by_the_first_who_asks() {
    for state in [free(), freed()] {
        let after = state
            .when(take(name_claim("tun_b")))
            .then([Event::Taken(name_claim("tun_b"))])
            .when(take(name_claim("tun_c")))
            .then_rejected(&taken_by(&name_claim("tun_b")));
        assert_eq!(after.state().holder(), Some(&name_claim("tun_b")));
    }
}

#[test]
fn the_same_claim_again_changes_nothing_also_once_it_is_confirmed() {
    taken().when(take(name_claim("tun_a"))).then_nothing();
    confirmed().when(take(name_claim("tun_a"))).then_nothing();
}

#[test]
fn a_rejected_claim_tells_the_caller_which_command_has_it_but_no_reader_who() {
    let repeated = claim_of(ClaimKind::TunnelName, "tun_other", 1);
    let rejection = taken_by(&name_claim("tun_a"));
    taken().when(take(repeated)).then_rejected(&rejection);
    assert_eq!(rejection.to_string(), "taken already");
}

#[test]
fn a_claim_is_confirmed_by_its_holder_alone_and_once() {
    taken().when(confirm("tun_a")).then([confirmed_event("tun_a")]).when(confirm("tun_a")).then_nothing();
    for state in [free(), taken(), confirmed(), freed()] {
        state.when(confirm("tun_b")).then_rejected(&not_held("tun_b"));
    }
    freed().when(confirm("tun_a")).then_rejected(&not_held("tun_a"));
}

#[test]
fn a_claim_is_released_by_its_holder_alone_and_once() {
    for state in [taken(), confirmed()] {
        state
            .when(release("tun_b"))
            .then_nothing()
            .when(release("tun_a"))
            .then([released("tun_a", None)])
            .when(release("tun_a"))
            .then_nothing();
    }
    free().when(release("tun_a")).then_nothing();
}

#[test]
fn a_release_does_not_touch_who_took_the_thing_since() {
    let next = claim_of(ClaimKind::TunnelName, "tun_b", 2);
    freed()
        .when(take(next.clone()))
        .then([Event::Taken(next)])
        .when(release("tun_a"))
        .then_nothing()
        .when(release_of("tun_a", 2))
        .then_nothing();
}

#[test]
fn a_release_meant_for_an_earlier_holding_does_not_free_what_its_holder_took_again() {
    let again = claim_of(ClaimKind::TunnelName, "tun_a", 2);
    for state in [taken(), confirmed()] {
        let held = state.when(take_again(again.clone())).then([Event::Taken(again.clone())]);
        held.when(release_of("tun_a", 1)).then_nothing().when(abandon(1)).then_nothing();
    }
    let held = confirmed().and([Event::Taken(again)]);
    held.when(release_of("tun_a", 2)).then([released("tun_a", None)]);
}

#[test]
fn taking_again_is_done_once_and_takes_nothing_from_others() {
    let again = claim_of(ClaimKind::TunnelName, "tun_a", 2);
    for state in [free(), taken(), confirmed(), freed()] {
        state
            .when(take_again(again.clone()))
            .then([Event::Taken(again.clone())])
            .when(take_again(again.clone()))
            .then_nothing()
            .when(take_again(claim_of(ClaimKind::TunnelName, "tun_b", 3)))
            .then_rejected(&taken_by(&again));
    }
    let slug = claim_of(ClaimKind::Slug, "share_a", 1);
    let until = at(0).plus_ms(SLUG_QUARANTINE_MS);
    given::<Claim>([Event::Taken(slug.clone()), released("share_a", Some(until))])
        .when(take_again(slug))
        .then_rejected(&Rejection::ClaimQuarantined { until });
}

#[test]
fn a_freed_slug_stays_out_of_use_for_30_days() {
    let slug = |holder: &str| claim_of(ClaimKind::Slug, holder, 1);
    let until = at(0).plus_ms(SLUG_QUARANTINE_MS);
    let freed = given::<Claim>([Event::Taken(slug("share_a")), confirmed_event("share_a")])
        .when(release("share_a"))
        .then([released("share_a", Some(until))]);
    let take_at = |now| Command::Take { claim: slug("share_b"), now };
    freed
        .when(take_at(until.plus_ms(-1)))
        .then_rejected(&Rejection::ClaimQuarantined { until })
        .when(take_at(until))
        .then([Event::Taken(slug("share_b"))]);
    assert_eq!(SLUG_QUARANTINE_MS, 30 * 24 * 3600 * 1000);
}

#[test]
fn names_ports_and_idempotency_keys_are_free_again_at_once() {
    for kind in [ClaimKind::TunnelName, ClaimKind::TunnelPort, ClaimKind::Idempotency] {
        given::<Claim>([Event::Taken(claim_of(kind, "a", 1))])
            .when(release("a"))
            .then([released("a", None)])
            .when(take(claim_of(kind, "b", 2)))
            .then([Event::Taken(claim_of(kind, "b", 2))]);
    }
}

#[test]
fn an_unconfirmed_claim_is_abandoned_without_quarantine() {
    given::<Claim>([Event::Taken(claim_of(ClaimKind::Slug, "share_a", 1))])
        .when(abandon(1))
        .then([released("share_a", None)])
        .when(abandon(1))
        .then_nothing()
        .when(take(claim_of(ClaimKind::Slug, "share_b", 2)))
        .then([Event::Taken(claim_of(ClaimKind::Slug, "share_b", 2))]);
}

#[test]
fn what_was_confirmed_or_taken_anew_meanwhile_is_not_abandoned() {
    confirmed().when(abandon(1)).then_nothing();
    taken().when(abandon(2)).then_nothing();
    free().when(abandon(1)).then_nothing();
}

//! What a share accepts and refuses, as given, when, then.

use super::*;
use crate::testing::{Given, at, digest, given, id, name};

fn preview() -> ShareCreated {
    ShareCreated {
        share_id: id(3),
        workspace_id: id(7),
        tunnel_id: id(2),
        name: name("contractor-access"),
        description: None,
        expires_at: Some(at(3_600)),
        allowed_paths: Some(vec![PathRule::parse("/api/*").unwrap()]),
        allowed_methods: Some(vec![Method::Get]),
        rate_limit_per_min: Some(60),
        slug: "k7m2p9x4q8w3e5r6".to_owned(),
        slug_chosen: false,
        public: false,
        read_only: true,
        token_hash: digest('a'),
        token_preview: "share_tok_k7m2\u{2026}".to_owned(),
    }
}
fn create(share: ShareCreated) -> Command {
    Command::Create { share, now: at(0) }
}
fn revoke(reason: RevokeReason) -> Command {
    Command::Revoke { reason }
}
fn revoked(reason: RevokeReason) -> Event {
    Event::Revoked(ShareRevoked { reason })
}
fn expire(now: i64) -> Command {
    Command::Expire { now: at(now) }
}
fn expired() -> Event {
    Event::Expired(ShareExpired {})
}
fn unknown() -> Given<Share> {
    given([])
}
fn open() -> Given<Share> {
    given([Event::Created(preview())])
}

#[test]
fn a_share_is_created_once_however_often_it_is_asked_for() {
    unknown()
        .when(create(preview()))
        .then([Event::Created(preview())])
        .when(create(preview()))
        .then_nothing();
    // The answer to a creation that took too long to arrive is the same, whatever happened since.
    open().and([expired()]).when(Command::Create { share: preview(), now: at(9_999) }).then_nothing();
}

#[test]
fn creating_it_again_differently_is_refused_since_its_token_would_open_nothing() {
    for other in [
        ShareCreated { token_hash: digest('b'), ..preview() },
        ShareCreated { share_id: id(4), ..preview() },
        ShareCreated { workspace_id: id(8), ..preview() },
        ShareCreated { allowed_paths: None, ..preview() },
    ] {
        open().when(create(other.clone())).then_rejected(&Rejection::ShareExists);
        open().and([expired()]).when(create(other)).then_rejected(&Rejection::ShareExists);
    }
}

#[test]
fn a_share_that_would_be_over_already_is_refused() {
    for (expires, refused) in [(-1, true), (0, true), (1, false)] {
        let share = ShareCreated { expires_at: Some(at(expires)), ..preview() };
        if refused {
            unknown().when(create(share)).then_rejected(&Rejection::ExpiryPast);
        } else {
            unknown().when(create(share.clone())).then([Event::Created(share)]);
        }
    }
    let for_ever = ShareCreated { expires_at: None, ..preview() };
    unknown().when(create(for_ever.clone())).then([Event::Created(for_ever)]);
}

#[test]
fn a_rate_limit_is_1_to_1000_a_minute() {
    for limit in [0, 1_001, u16::MAX] {
        let share = ShareCreated { rate_limit_per_min: Some(limit), ..preview() };
        unknown().when(create(share)).then_rejected(&Rejection::RateLimitRange);
    }
    for limit in [Some(1), Some(1_000), None] {
        let share = ShareCreated { rate_limit_per_min: limit, ..preview() };
        unknown().when(create(share.clone())).then([Event::Created(share)]);
    }
}

#[test]
fn a_share_has_up_to_50_rules_and_no_empty_list() {
    let rules = |count| vec![PathRule::parse("/x").unwrap(); count];
    let with_rules = |count| ShareCreated { allowed_paths: Some(rules(count)), ..preview() };
    unknown().when(create(with_rules(50))).then([Event::Created(with_rules(50))]);
    unknown().when(create(with_rules(51))).then_rejected(&Rejection::TooManyPaths);
    unknown().when(create(with_rules(0))).then_rejected(&Rejection::EmptyList);
    let no_methods = ShareCreated { allowed_methods: Some(vec![]), ..preview() };
    unknown().when(create(no_methods)).then_rejected(&Rejection::EmptyList);
}

#[test]
fn an_unknown_share_can_neither_be_revoked_nor_expire() {
    for command in [revoke(RevokeReason::Requested), expire(9_999)] {
        unknown().when(command).then_rejected(&Rejection::ShareUnknown);
    }
}

#[test]
fn a_share_ends_once_and_for_the_first_reason() {
    let after = open()
        .when(revoke(RevokeReason::Requested))
        .then([revoked(RevokeReason::Requested)])
        .when(revoke(RevokeReason::TunnelDeleted))
        .then_nothing()
        .when(expire(9_999))
        .then_nothing();
    assert_eq!(after.state().ended, Some(Ended::Revoked { reason: RevokeReason::Requested }));
    let after = open()
        .when(expire(3_600))
        .then([expired()])
        .when(expire(9_999))
        .then_nothing()
        .when(revoke(RevokeReason::TunnelExpired))
        .then_nothing();
    assert_eq!(after.state().ended, Some(Ended::Expired));
}

#[test]
fn a_share_expires_when_its_time_is_over_and_not_before() {
    open().when(expire(3_599)).then_rejected(&Rejection::NotDue);
    let for_ever = ShareCreated { expires_at: None, ..preview() };
    given::<Share>([Event::Created(for_ever)])
        .when(expire(i64::MAX / 1_000_000))
        .then_rejected(&Rejection::NotDue);
}

#[test]
fn each_reason_to_revoke_is_kept() {
    for reason in [RevokeReason::Requested, RevokeReason::TunnelDeleted, RevokeReason::TunnelExpired] {
        let after = open().when(revoke(reason)).then([revoked(reason)]);
        assert_eq!(after.state().ended, Some(Ended::Revoked { reason }));
    }
}

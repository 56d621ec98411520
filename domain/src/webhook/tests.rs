//! What can become of a webhook.

use super::*;
use crate::testing::{at, given, id, uuid};

fn types(names: &[&str]) -> Vec<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

fn filter(names: &[&str]) -> Filter {
    Filter::parse(&types(names)).unwrap()
}

fn created() -> WebhookCreated {
    WebhookCreated {
        webhook_id: id(1),
        workspace_id: id(7),
        url: "https://example.com/hook".to_owned(),
        events: filter(&["tunnel.created", "share.revoked"]),
        description: None,
        is_active: true,
        draw: uuid(20),
    }
}

fn create() -> Command {
    Command::Create(Box::new(created()))
}

fn change(changes: Changes) -> Command {
    Command::Change(Box::new(changes))
}

fn disabled(reason: DisableReason) -> Event {
    Event::Disabled(WebhookDisabled { reason })
}

fn rotated(draw: u128, until: i64) -> Event {
    Event::SecretRotated(WebhookSecretRotated { draw: uuid(draw), previous_until: at(until) })
}

#[test]
fn a_webhook_is_created_once_however_often_it_is_asked_for() {
    let made = given::<Webhook>([]).when(create()).then([Event::Created(created())]);
    let made = made.when(create()).then_nothing();
    let other = WebhookCreated { url: "https://example.com/other".to_owned(), ..created() };
    made.when(Command::Create(Box::new(other))).then_rejected(&Rejection::WebhookExists);
}

#[test]
fn a_repeated_creation_is_known_after_changes_too() {
    let changed =
        WebhookUpdated { url: Some("https://example.com/b".to_owned()), ..WebhookUpdated::default() };
    given::<Webhook>([Event::Created(created()), Event::Updated(changed), Event::Deleted(WebhookDeleted {})])
        .when(create())
        .then_nothing();
}

#[test]
fn one_change_of_several_things_is_as_many_facts_as_it_has_meanings() {
    let made = given::<Webhook>([Event::Created(created())]);
    let changes = Changes {
        url: Some("https://example.com/b".to_owned()),
        is_active: Some(false),
        ..Changes::default()
    };
    let updated = WebhookUpdated { url: changes.url.clone(), ..WebhookUpdated::default() };
    made.when(change(changes.clone()))
        .then([Event::Updated(updated), disabled(DisableReason::Requested)])
        .when(change(changes))
        .then_nothing();
}

#[test]
fn a_description_can_be_taken_away() {
    let text = |text| Some(Description::parse(text).unwrap());
    let described = WebhookCreated { description: text("for the pager"), ..created() };
    let made = given::<Webhook>([Event::Created(described)]);
    let none = Changes { description: text(""), ..Changes::default() };
    let updated = WebhookUpdated { description: text(""), ..WebhookUpdated::default() };
    let made = made.when(change(none.clone())).then([Event::Updated(updated)]);
    assert_eq!(made.state().live().unwrap().created.description, None);
    made.when(change(none)).then_nothing();
}

#[test]
fn a_webhook_that_was_disabled_is_enabled_by_whoever_wants_it() {
    let gone = DisableReason::Gone;
    let made = given::<Webhook>([Event::Created(created())]);
    let made = made.when(Command::Disable { reason: gone }).then([disabled(gone)]);
    assert!(!made.state().live().unwrap().is_active());
    let made = made.when(Command::Disable { reason: DisableReason::Failing }).then_nothing();
    assert_eq!(made.state().live().unwrap().disabled, Some(gone), "the first reason is the reason");
    let on = Changes { is_active: Some(true), ..Changes::default() };
    let made = made.when(change(on)).then([Event::Enabled(WebhookEnabled {})]);
    assert!(made.state().live().unwrap().is_active());
}

#[test]
fn an_old_secret_signs_along_for_a_day() {
    let made = given::<Webhook>([Event::Created(created())]);
    let made = made
        .when(Command::RotateSecret { draw: uuid(21), now: at(0) })
        .then([rotated(21, 86_400)])
        .when(Command::RotateSecret { draw: uuid(21), now: at(5) })
        .then_nothing();
    let signing = |now| made.state().live().unwrap().signing(now).collect::<Vec<_>>();
    assert_eq!(signing(at(86_399)), [uuid(21), uuid(20)]);
    assert_eq!(signing(at(86_400)), [uuid(21)]);
}

#[test]
fn a_second_rotation_gives_the_first_secret_no_more_time() {
    let made = given::<Webhook>([Event::Created(created()), rotated(21, 86_400), rotated(22, 90_000)]);
    let signing = |now| made.state().live().unwrap().signing(now).collect::<Vec<_>>();
    assert_eq!(signing(at(86_399)), [uuid(22), uuid(21), uuid(20)]);
    assert_eq!(signing(at(86_400)), [uuid(22), uuid(21)]);
    let many = (30..40).map(|n| rotated(n, 90_000));
    let made = given::<Webhook>([Event::Created(created())]).and(many);
    assert_eq!(made.state().live().unwrap().secrets.len(), SECRETS_MAX);
}

#[test]
fn a_deleted_webhook_is_known_to_nobody_but_its_courier() {
    let skipped = WebhookSkipped { from: at(1), to: at(2), count: 3 };
    let made = given::<Webhook>([Event::Created(created())]);
    let made = made.when(Command::Skip(skipped.clone())).then([Event::Skipped(skipped.clone())]);
    let gone = made.when(Command::Delete).then([Event::Deleted(WebhookDeleted {})]);
    assert_eq!(gone.state().live(), None);
    let gone = gone.when(Command::Delete).then_nothing();
    let gone = gone.when(Command::Skip(skipped)).then_nothing();
    gone.when(change(Changes::default())).then_rejected(&Rejection::WebhookUnknown);
    given::<Webhook>([]).when(Command::Delete).then_rejected(&Rejection::WebhookUnknown);
}

#[test]
fn a_filter_names_public_types_once_each() {
    assert_eq!(Filter::parse(&[]), Err(InvalidFilter::Empty));
    for bad in ["", "tunnel.*", "Tunnel.created", "claim.taken", "key.created", "webhook.test"] {
        let refused = Filter::parse(&types(&["*", bad]));
        assert!(matches!(refused, Err(InvalidFilter::Unknown(_))), "{bad}: {refused:?}");
    }
    assert!(matches!(Filter::parse(&types(&["*", "*"])), Err(InvalidFilter::Twice(_))));
    let long = Filter::parse(&["x".repeat(10_000)]).unwrap_err().to_string();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn the_star_means_every_public_type_and_no_other() {
    let (all, two) = (filter(&["*"]), filter(&["tunnel.created", "share.accessed"]));
    assert!(public_events::TYPES.iter().all(|it| all.matches(it)));
    for inner in
        ["claim.taken", "key.created", "usage.recorded", "webhook.created", "environment.join_requested", "*"]
    {
        assert!(!all.matches(inner), "{inner}");
    }
    assert!(two.matches("share.accessed") && !two.matches("tunnel.deleted"));
}

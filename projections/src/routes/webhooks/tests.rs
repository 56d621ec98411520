//! Which webhooks a workspace has, and that a replay knows the same.

use domain::{
    recorded::StreamName,
    webhook::{Changes, Command, Filter, WebhookCreated},
};

use super::*;
use crate::histories::{World, id, workspace_id};

fn webhook_id(number: u128) -> WebhookId {
    WebhookId::new(id(0x900 + number))
}

fn tell(world: &mut World, number: u128, command: &Command) {
    world.tell::<Webhook>(&StreamName::webhook(webhook_id(number)), workspace_id(0), command);
}

fn create(world: &mut World, number: u128) {
    let created = WebhookCreated {
        webhook_id: webhook_id(number),
        workspace_id: workspace_id(0),
        url: "https://example.com/".to_owned(),
        events: Filter::parse(&["*".to_owned()]).unwrap(),
        description: None,
        is_active: true,
        draw: id(number),
    };
    tell(world, number, &Command::Create(Box::new(created)));
}

fn folded(world: &World) -> Routes {
    let routes = Routes::default();
    for (recorded, event) in &world.applied() {
        routes.apply_next(recorded, event.as_ref());
    }
    routes
}

#[test]
fn a_workspace_has_its_webhooks_until_they_are_deleted() {
    let mut world = World::default();
    (1..=3).for_each(|number| create(&mut world, number));
    let off = Changes { is_active: Some(false), ..Changes::default() };
    tell(&mut world, 2, &Command::Change(Box::new(off)));
    tell(&mut world, 3, &Command::Delete);
    let routes = folded(&world);
    assert_eq!(routes.webhooks_of(workspace_id(0)), [webhook_id(1), webhook_id(2)]);
    assert!(routes.webhooks_of(workspace_id(1)).is_empty(), "nothing crosses a workspace's border");
    let active = |number| routes.webhook(webhook_id(number)).unwrap().state.live().map(|it| it.is_active());
    assert_eq!([active(1), active(2), active(3)], [Some(true), Some(false), None]);
    assert_eq!(routes.webhook(webhook_id(2)).unwrap().revision, 2);
    assert_eq!(routes.all_webhooks().len(), 3, "what was deleted lately is here yet");
}

#[test]
fn an_event_seen_twice_changes_nothing() {
    let mut world = World::default();
    create(&mut world, 1);
    tell(&mut world, 1, &Command::Delete);
    let routes = folded(&world);
    for (recorded, event) in &world.applied() {
        routes.apply(recorded, event.as_ref().unwrap());
    }
    assert!(routes.webhooks_of(workspace_id(0)).is_empty());
}

//! Examples of webhooks' events.

use domain::{delivery, names::Description, webhook};

use super::{at, id, uuid};

pub(super) fn webhooks() -> [webhook::Event; 7] {
    let filter = |types: &[&str]| {
        let types: Vec<String> = types.iter().map(|it| (*it).to_owned()).collect();
        webhook::Filter::parse(&types).unwrap()
    };
    let text = |text| Some(Description::parse(text).unwrap());
    [
        webhook::Event::Created(webhook::WebhookCreated {
            webhook_id: id(13),
            workspace_id: id(7),
            url: "https://example.com/hook".to_owned(),
            events: filter(&["tunnel.created", "tunnel.deleted"]),
            description: text("for the pager"),
            is_active: true,
            draw: uuid(32),
        }),
        webhook::Event::Updated(webhook::WebhookUpdated {
            url: Some("https://example.com/other".to_owned()),
            events: Some(filter(&["*"])),
            description: text("for the log"),
        }),
        webhook::Event::Disabled(webhook::WebhookDisabled { reason: webhook::DisableReason::Failing }),
        webhook::Event::Enabled(webhook::WebhookEnabled {}),
        webhook::Event::SecretRotated(webhook::WebhookSecretRotated {
            draw: uuid(33),
            previous_until: at(86_400),
        }),
        webhook::Event::Skipped(webhook::WebhookSkipped { from: at(0), to: at(60), count: 12 }),
        webhook::Event::Deleted(webhook::WebhookDeleted {}),
    ]
}

pub(super) fn deliveries() -> delivery::DeliveriesNoted {
    let planned = delivery::Planned {
        delivery_id: id(14),
        sequence: 41,
        message_id: id(50),
        event_type: "tunnel.created".to_owned(),
        source: delivery::Source::Event { position: 1_007 },
        lane: delivery::Lane::Ordered,
        tries: 0,
        due_at: at(60),
        planned_at: at(60),
    };
    let parts = vec![delivery::Part { position: 1_008, first: 2, count: 30 }];
    let accesses = delivery::Planned {
        delivery_id: id(15),
        sequence: 42,
        message_id: id(51),
        event_type: "share.accessed".to_owned(),
        source: delivery::Source::Accesses { share_id: id(3), parts },
        lane: delivery::Lane::Aside,
        tries: 3,
        due_at: at(2_000),
        ..planned
    };
    let tried = |sequence: u64, status, problem, then| delivery::Tried {
        delivery_id: id(10 + u128::from(sequence)),
        sequence,
        number: 2,
        at: at(65),
        latency_ms: 12,
        status,
        problem,
        then,
    };
    delivery::DeliveriesNoted {
        facts_after: 1_007,
        accesses_after: 1_009,
        replay_up_to: 900,
        next_sequence: 43,
        failing: vec![38, 42],
        failing_since: Some(at(30)),
        quiet_until: Some(at(90)),
        floor: 7,
        planned: vec![planned, accesses],
        tried: vec![
            tried(37, Some(204), None, delivery::Then::Delivered { recovered: false }),
            tried(38, Some(503), None, delivery::Then::Again { at: at(365) }),
            tried(
                39,
                None,
                Some(delivery::Problem::TimedOut),
                delivery::Then::GivenUp { reason: delivery::GaveUp::Exhausted },
            ),
        ],
        skipped: Some(webhook::WebhookSkipped { from: at(0), to: at(60), count: 12 }),
    }
}

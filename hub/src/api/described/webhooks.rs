//! Webhooks, described.

use domain::workspace::Scope;
use schemas::rest::{
    Success,
    webhooks::{
        CreateWebhook, Delivery, DescribedEventType, Redelivered, ReplayWebhook, UpdateWebhook, Webhook,
        WebhookCreated, WebhookSecretRotated, WebhookTested,
    },
};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

/// Sequences of deliveries.
const SEQUENCE_CURSOR: &str = "^(0|[1-9][0-9]{0,17})$";

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Webhooks", id, summary, Access::Scope(scope))
}

pub fn create() -> Operation {
    on("createWebhook", "Create a webhook", Scope::Write)
        .says(
            "Events are sent as signed POSTs, in their order and at least once. `secret` is shown here and never again; \
             messages are signed as Standard Webhooks 1.0 says.",
        )
        .repeatable()
        .takes::<CreateWebhook>(json!({
            "url": "https://hooks.your-team.example/private-connect",
            "events": ["tunnel.created", "tunnel.deleted", "share.accessed"],
            "description": "Channel of the platform team",
        }))
        .answers::<WebhookCreated>(201, "The webhook with its secret.")
        .written()
        .refuses(404, &["not_found", "webhook_not_found"])
        .refuses(409, &["webhooks_exhausted", "already_exists"])
}

pub fn list() -> Operation {
    on("listWebhooks", "List webhooks", Scope::Read)
        .paged("^wh_[0-9a-f]{32}$")
        .lists::<Webhook>("Webhooks of the workspace, oldest first; never their secrets.")
}

pub fn types() -> Operation {
    on("listEventTypes", "List the types of events", Scope::Read)
        .lists_all::<DescribedEventType>("The types that webhooks can be sent; `*` stands for exactly these.")
}

pub fn get() -> Operation {
    on("getWebhook", "Look at a webhook", Scope::Read)
        .at("id", Place::Webhook)
        .answers::<Webhook>(200, "The webhook, without its secret.")
        .shows("ETag")
}

pub fn update() -> Operation {
    on("updateWebhook", "Change a webhook", Scope::Write)
        .says(
            "What happens while a webhook is not active waits, for at most 7 days, until it is active again; replay it from \
             a later time to leave that out.",
        )
        .at("id", Place::Webhook)
        .conditional()
        .takes::<UpdateWebhook>(json!({ "events": ["*"], "isActive": true }))
        .answers::<Webhook>(200, "The webhook as it is now.")
        .written()
        .refuses(404, &["not_found"])
}

pub fn delete() -> Operation {
    on("deleteWebhook", "Delete a webhook", Scope::Write)
        .at("id", Place::Webhook)
        .conditional()
        .answers::<Success>(200, "It is sent nothing any more.")
        .written()
        .refuses(404, &["not_found"])
}

pub fn rotate_secret() -> Operation {
    on("rotateWebhookSecret", "Make a new secret", Scope::Write)
        .says(
            "Messages are signed with both secrets for 24 hours: `webhook-signature` has one entry for each, \
             `X-Webhook-Signature` is the new one's and `X-Webhook-Signature-Previous` the former one's.",
        )
        .at("id", Place::Webhook)
        .repeatable()
        .takes_nothing()
        .answers::<WebhookSecretRotated>(200, "The new secret.")
        .written()
        .refuses(404, &["not_found"])
}

pub fn test() -> Operation {
    on("testWebhook", "Send a test", Scope::Write)
        .says(
            "Sends a message of the type `webhook.test` now, once, whether the webhook is active or not, and answers what came \
             of it within 15 seconds.",
        )
        .at("id", Place::Webhook)
        .repeatable()
        .takes_nothing()
        .answers::<WebhookTested>(200, "What the receiver said, or why it said nothing.")
}

pub fn replay() -> Operation {
    on("replayWebhook", "Send events again", Scope::Write)
        .says(
            "The webhook is sent what happened from that place on, by what it is subscribed to now, as new deliveries; then it \
             goes on with what is new. A later place than where it is leaves out what lies between.",
        )
        .at("id", Place::Webhook)
        .repeatable()
        .takes::<ReplayWebhook>(json!({ "since": "2026-03-02T10:00:00Z" }))
        .answers::<Success>(200, "It goes on from there.")
}

pub fn deliveries() -> Operation {
    let statuses = ["pending", "retrying", "delivered", "dead_lettered"];
    on("listDeliveries", "List a webhook's deliveries", Scope::Read)
        .says("Deliveries that are done are shown for 30 days.")
        .at("id", Place::Webhook)
        .paged(SEQUENCE_CURSOR)
        .asks("status", json!({ "type": "string", "enum": statuses }), "Only those that stand so.")
        .lists::<Delivery>("Deliveries with their attempts, newest first.")
}

pub fn delivery() -> Operation {
    on("getDelivery", "Look at a delivery", Scope::Read)
        .at("id", Place::Webhook)
        .at("delivery", Place::Delivery)
        .answers::<Delivery>(200, "The delivery with its attempts.")
        .shows("ETag")
}

pub fn redeliver() -> Operation {
    on("redeliver", "Send a message again", Scope::Write)
        .says(
            "The same message, with the same `webhook-id`, as a delivery of its own: it waits for no other. A webhook that is \
             not active is sent it once.",
        )
        .at("id", Place::Webhook)
        .at("delivery", Place::Delivery)
        .repeatable()
        .takes_nothing()
        .answers::<Redelivered>(201, "The new delivery.")
}

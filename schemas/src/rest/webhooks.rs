//! Webhooks: subscriptions, what is sent, and what became of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{OneOfBuilder, Ref, RefOr, Schema},
};

use super::texts;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWebhook {
    /// `https://`; the operator allows `http://` and private addresses for some ranges.
    #[schema(value_type = texts::WebhookUrl)]
    pub url: String,
    /// The types that are sent; `*` stands for all.
    #[schema(value_type = Vec<texts::EventTypeOrAll>, min_items = 1)]
    pub events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Description>)]
    pub description: Option<String>,
    /// `true` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,
}

/// What shall be different; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateWebhook {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::WebhookUrl>)]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::EventTypeOrAll>>, min_items = 1)]
    pub events: Option<Vec<String>>,
    /// Empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Description>)]
    pub description: Option<String>,
    /// `true` also enables one that was disabled because of its receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_active: Option<bool>,
}

/// A webhook as it is shown once, with its secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCreated {
    #[schema(value_type = texts::WebhookId)]
    pub id: String,
    pub url: String,
    pub events: Vec<String>,
    #[schema(required)]
    pub description: Option<String>,
    pub is_active: bool,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    /// `whsec_` and the base64 of 32 bytes; shown here and never again.
    #[schema(value_type = texts::WebhookSecret)]
    pub secret: String,
}

/// A webhook, without its secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    #[schema(value_type = texts::WebhookId)]
    pub id: String,
    pub url: String,
    pub events: Vec<String>,
    #[schema(required)]
    pub description: Option<String>,
    pub is_active: bool,
    /// Why it is not active.
    #[schema(value_type = Option<texts::DisableReason>, required)]
    pub disabled_reason: Option<String>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = texts::Moment)]
    pub updated_at: String,
    /// Until when a former secret signs along; `null`: there is none.
    #[schema(value_type = Option<texts::Moment>, required)]
    pub previous_secret_until: Option<String>,
    pub deliveries: DeliveryCounts,
}

/// How many deliveries of the last weeks stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryCounts {
    /// Not tried yet, or to be tried again.
    pub waiting: u64,
    pub delivered: u64,
    /// Tried no more.
    pub dead_lettered: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretRotated {
    #[schema(value_type = texts::WebhookId)]
    pub id: String,
    /// The new secret; shown here and never again.
    #[schema(value_type = texts::WebhookSecret)]
    pub secret: String,
    /// Until when the former secret signs along.
    #[schema(value_type = texts::Moment)]
    pub previous_secret_until: String,
}

/// What came of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookTested {
    /// Whether the receiver took it.
    pub delivered: bool,
    /// The `webhook-id` that was sent.
    #[schema(value_type = texts::EventId)]
    pub message_id: String,
    /// What the receiver answered; `null`: nothing, and `error` says why.
    #[schema(required, minimum = 100, maximum = 999)]
    pub status_code: Option<u16>,
    #[schema(value_type = Option<texts::DeliveryProblem>, required)]
    pub error: Option<String>,
    pub latency_ms: u64,
}

/// A type of events that webhooks can be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DescribedEventType {
    #[serde(rename = "type")]
    #[schema(value_type = texts::EventType)]
    pub event_type: String,
    pub description: String,
}

/// One message for a webhook, with its tries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    #[schema(value_type = texts::DeliveryId)]
    pub id: String,
    #[schema(value_type = texts::WebhookId)]
    pub webhook_id: String,
    /// Its number among the webhook's messages, as its body says it.
    pub sequence: u64,
    /// The `webhook-id` that receivers know it by.
    #[schema(value_type = texts::EventId)]
    pub message_id: String,
    pub event_type: String,
    #[schema(value_type = texts::DeliveryStatus)]
    pub status: String,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    /// How often it was tried.
    pub attempt_count: u32,
    /// When it is tried next; `null`: no more.
    #[schema(value_type = Option<texts::Moment>, required)]
    pub next_attempt_at: Option<String>,
    /// When it was delivered or given up.
    #[schema(value_type = Option<texts::Moment>, required)]
    pub finished_at: Option<String>,
    /// Why it was given up.
    #[schema(value_type = Option<texts::GaveUp>, required)]
    pub gave_up: Option<String>,
    /// The newest twenty, oldest first.
    pub attempts: Vec<DeliveryAttempt>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryAttempt {
    /// The first is 1.
    pub number: u32,
    /// When it ended.
    #[schema(value_type = texts::Moment)]
    pub at: String,
    #[schema(required, minimum = 100, maximum = 999)]
    pub status_code: Option<u16>,
    #[schema(value_type = Option<texts::DeliveryProblem>, required)]
    pub error: Option<String>,
    pub latency_ms: u64,
}

/// A message that is sent again, as a delivery of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redelivered {
    #[schema(value_type = texts::DeliveryId)]
    pub id: String,
    #[schema(value_type = texts::WebhookId)]
    pub webhook_id: String,
    #[schema(value_type = texts::EventId)]
    pub message_id: String,
    #[schema(value_type = texts::DeliveryStatus)]
    pub status: String,
}

/// From where on events are sent again: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayWebhook {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_position: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// From a place on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayFromPosition {
    /// The position of the first fact, as events are shown with it.
    #[schema(minimum = 1)]
    pub from_position: u64,
}

/// From a time on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplaySince {
    /// The time of the first event.
    #[schema(value_type = texts::AnyMoment)]
    pub since: String,
}

impl PartialSchema for ReplayWebhook {
    fn schema() -> RefOr<Schema> {
        let from = Ref::from_schema_name(ReplayFromPosition::name());
        let since = Ref::from_schema_name(ReplaySince::name());
        RefOr::T(Schema::OneOf(OneOfBuilder::new().item(from).item(since).build()))
    }
}

impl ToSchema for ReplayWebhook {
    fn schemas(known: &mut Vec<(String, RefOr<Schema>)>) {
        known.push((ReplayFromPosition::name().into_owned(), ReplayFromPosition::schema()));
        known.push((ReplaySince::name().into_owned(), ReplaySince::schema()));
        ReplayFromPosition::schemas(known);
        ReplaySince::schemas(known);
    }
}

/// What is sent: the body of every message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookMessage {
    /// The event's id, the same in `webhook-id` and however often it is sent.
    #[schema(value_type = texts::EventId)]
    pub id: String,
    /// `tunnel.created`, say.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The same as `type`.
    pub event: String,
    /// When it was recorded.
    #[schema(value_type = texts::Moment)]
    pub timestamp: String,
    pub workspace_id: String,
    /// Its number among the webhook's messages, from 1; 0 in tests.
    pub sequence: u64,
    pub data: Map<String, Value>,
}

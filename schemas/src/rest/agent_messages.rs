//! Messages between agents.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{numbers, texts};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendMessage {
    #[schema(value_type = texts::AgentId)]
    pub to_agent_id: String,
    /// Any JSON.
    pub payload: Value,
    /// A word of the senders' own, to sort messages by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 60, maximum = 2592000)]
    pub ttl_seconds: Option<i64>,
}

/// To every other agent of the workspace that can still connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BroadcastMessage {
    pub payload: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 60, maximum = 2592000)]
    pub ttl_seconds: Option<i64>,
}

/// Which messages were seen: these, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarkMessagesRead {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::MessageId>>, max_items = 500)]
    pub message_ids: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    pub success: bool,
    #[schema(value_type = texts::MessageId)]
    pub message_id: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BroadcastSent {
    pub success: bool,
    #[schema(value_type = Vec<texts::MessageId>)]
    pub message_ids: Vec<String>,
    /// How many agents have it.
    pub delivered: u64,
    /// Agents whose boxes are full of unread messages.
    #[schema(value_type = Vec<texts::AgentId>)]
    pub skipped: Vec<String>,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagesRead {
    pub success: bool,
    /// How many were unread before.
    pub marked: u64,
    /// How many still are.
    pub unread: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedMessage {
    #[schema(value_type = texts::MessageId)]
    pub id: String,
    #[schema(value_type = texts::AgentId)]
    pub from_agent_id: String,
    #[schema(required)]
    pub topic: Option<String>,
    pub broadcast: bool,
    /// `null` when its key was destroyed.
    pub payload: Value,
    #[schema(value_type = texts::Moment)]
    pub sent_at: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
    pub read: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    pub messages: Vec<ReceivedMessage>,
    pub unread: u64,
}

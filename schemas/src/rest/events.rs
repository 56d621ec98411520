//! An event as outsiders get it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::texts;

/// Something that happened in a workspace, as webhooks and streams of events tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublicEvent {
    /// The same however often and to whomever it is told.
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
    /// What the event concerns (`tunnelId`, `shareId`, `agentId`, `webhookId`, `code`), and its own fields.
    pub data: Map<String, Value>,
}

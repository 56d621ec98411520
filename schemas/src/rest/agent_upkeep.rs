//! What keeps an agent going: its token, signs of life, what it offers, and what was recorded of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Metadata, texts};

/// A new token for the holder of the current one, which is the credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateToken {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    pub current_token: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heartbeat {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
}

/// What an agent should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatAnswer {
    pub success: bool,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    /// `online` while a session is open, as everywhere; a heartbeat alone makes an agent seen, not online.
    #[schema(value_type = texts::AgentStatus)]
    pub status: String,
    #[schema(value_type = texts::Moment)]
    pub server_time: String,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub token_expires_at: Option<String>,
    /// The token ends soon: rotate it now.
    pub rotate_token: bool,
    pub pending_commands: u64,
    pub unread_messages: u64,
}

/// Something that an agent can do for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capability {
    #[schema(value_type = texts::Name)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, nullable = false)]
    pub metadata: Option<Metadata>,
}

/// All that the agent offers from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetCapabilities {
    #[schema(max_items = 50)]
    pub capabilities: Vec<Capability>,
}

/// One recorded event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub id: String,
    /// Its number in the workspace's facts.
    pub position: u64,
    /// What it happened to.
    pub stream: String,
    /// Its number among the events of that.
    pub revision: u64,
    pub r#type: String,
    pub version: u16,
    #[schema(value_type = texts::Moment)]
    pub recorded_at: String,
    /// `{"kind": "key" | "agent" | "system", "id": …}`.
    #[schema(value_type = Object)]
    pub actor: Value,
    #[schema(value_type = Option<texts::RequestId>, required)]
    pub request_id: Option<String>,
    #[schema(value_type = Object)]
    pub data: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLogs {
    pub logs: Vec<AuditEntry>,
}

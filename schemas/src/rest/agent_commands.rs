//! Commands to agents.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Metadata, numbers, texts};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendCommand {
    /// `restart`, `stop`, `expose`, `reach` or `status`.
    #[schema(value_type = texts::CommandAction)]
    pub action: String,
    /// `expose`: `target`, `name?`, `protocol?`; `reach`: `service` (a name or id), `port?`; the others take none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub params: Option<Metadata>,
    /// How long it waits for an agent that is offline.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 10, maximum = 86400)]
    pub ttl_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandQueued {
    pub success: bool,
    #[schema(value_type = texts::CommandId)]
    pub command_id: String,
    /// For people.
    pub message: String,
    pub agent_online: bool,
}

/// Why it was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandOutcome {
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCommand {
    #[schema(value_type = texts::CommandId)]
    pub id: String,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[schema(value_type = texts::CommandAction)]
    pub action: String,
    #[schema(value_type = Object)]
    pub params: Value,
    /// `queued`, `delivered`, `done`, `failed` or `expired`.
    #[schema(value_type = texts::CommandStatus)]
    pub status: String,
    /// With `done`.
    #[schema(required)]
    pub result: Option<Value>,
    /// With `failed`.
    #[schema(required)]
    pub error: Option<CommandOutcome>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = texts::Moment)]
    pub updated_at: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentCommands {
    pub commands: Vec<AgentCommand>,
}

//! Commands to agents.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Metadata;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendCommand {
    /// `restart`, `stop`, `expose`, `reach` or `status`.
    pub action: String,
    /// `expose`: `target`, `name?`, `protocol?`; `reach`: `service` (a name or id), `port?`; the others take none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Metadata>,
    /// How long it waits for an agent that is offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandQueued {
    pub success: bool,
    pub command_id: String,
    /// For people.
    pub message: String,
    pub agent_online: bool,
}

/// Why it was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandOutcome {
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCommand {
    pub id: String,
    pub agent_id: String,
    pub action: String,
    pub params: Value,
    /// `queued`, `delivered`, `done`, `failed` or `expired`.
    pub status: String,
    /// With `done`.
    pub result: Option<Value>,
    /// With `failed`.
    pub error: Option<CommandOutcome>,
    pub created_at: String,
    pub updated_at: String,
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCommands {
    pub commands: Vec<AgentCommand>,
}

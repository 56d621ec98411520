//! Environment shares and teammates.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::texts;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateEnvironment {
    /// Whose environment: its active tunnels of this moment are shared.
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
    /// `24h` unless said otherwise, at most `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::WeekSpan>)]
    pub expires_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_approval: Option<bool>,
}

/// Who joins, is approved or denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Joiner {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentRoute {
    pub name: String,
    #[schema(value_type = texts::TunnelId)]
    pub tunnel_id: String,
    pub target_host: String,
    #[schema(minimum = 1, maximum = 65535)]
    pub target_port: u16,
    #[schema(value_type = texts::Protocol)]
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentCreated {
    #[schema(value_type = texts::EnvironmentCode)]
    pub code: String,
    #[schema(required)]
    pub name: Option<String>,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
    pub require_approval: bool,
    pub routes: Vec<EnvironmentRoute>,
}

/// An environment share as lists show it to its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentShare {
    #[schema(value_type = texts::EnvironmentCode)]
    pub code: String,
    #[schema(required)]
    pub name: Option<String>,
    /// Whose environment.
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
    pub require_approval: bool,
    pub routes: Vec<EnvironmentRoute>,
    pub joined: Vec<JoinedAgent>,
    /// How many agents wait for approval.
    pub pending_count: u64,
}

/// An agent that has joined, or waits for approval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinedAgent {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    pub name: String,
    pub label: String,
}

/// The answer to a join: the routes at the joined agent, or that the owner has to approve it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentJoined {
    /// `joined` or `pending`.
    #[schema(value_type = texts::JoinState)]
    pub status: String,
    #[schema(value_type = texts::EnvironmentCode)]
    pub code: String,
    #[schema(required)]
    pub name: Option<String>,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub routes: Option<Vec<OpenedRoute>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenedRoute {
    pub name: String,
    #[schema(value_type = texts::TunnelId)]
    pub tunnel_id: String,
    pub target_host: String,
    #[schema(minimum = 1, maximum = 65535)]
    pub target_port: u16,
    #[schema(value_type = texts::Protocol)]
    pub protocol: String,
    /// Where the joined agent listens: the target's own port, or another one where that is in use. `null`: nowhere,
    /// and `problem` says why.
    #[schema(required, minimum = 1, maximum = 65535)]
    pub local_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub connection_string: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
}

/// What became of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    pub success: bool,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    /// `approved` or `denied`.
    #[schema(value_type = texts::Decision)]
    pub status: String,
}

/// A person, known by the name of their agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Teammate {
    pub name: String,
    /// The newest hundred.
    #[schema(value_type = Vec<texts::AgentId>, max_items = 100)]
    pub agent_ids: Vec<String>,
    pub service_count: u64,
}

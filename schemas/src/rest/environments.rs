//! Environment shares and teammates.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateEnvironment {
    /// Whose environment: its active tunnels of this moment are shared.
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `24h` unless said otherwise, at most `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_approval: Option<bool>,
}

/// Who joins, is approved or denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Joiner {
    pub agent_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentRoute {
    pub name: String,
    pub tunnel_id: String,
    pub target_host: String,
    pub target_port: u16,
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentCreated {
    pub code: String,
    pub name: Option<String>,
    pub expires_at: String,
    pub require_approval: bool,
    pub routes: Vec<EnvironmentRoute>,
}

/// An environment share as lists show it to its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentShare {
    pub code: String,
    pub name: Option<String>,
    /// Whose environment.
    pub agent_id: String,
    pub created_at: String,
    pub expires_at: String,
    pub require_approval: bool,
    pub routes: Vec<EnvironmentRoute>,
    pub joined: Vec<JoinedAgent>,
    /// How many agents wait for approval.
    pub pending_count: u64,
}

/// An agent that has joined, or waits for approval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinedAgent {
    pub agent_id: String,
    pub name: String,
    pub label: String,
}

/// The answer to a join: the routes at the joined agent, or that the owner has to approve it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentJoined {
    /// `joined` or `pending`.
    pub status: String,
    pub code: String,
    pub name: Option<String>,
    pub expires_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<OpenedRoute>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedRoute {
    pub name: String,
    pub tunnel_id: String,
    pub target_host: String,
    pub target_port: u16,
    pub protocol: String,
    /// Where the joined agent listens: the target's own port, or another one where that is in use. `null`: nowhere,
    /// and `problem` says why.
    pub local_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    pub success: bool,
    pub agent_id: String,
    /// `approved` or `denied`.
    pub status: String,
}

/// A person, known by the name of their agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Teammate {
    pub name: String,
    /// The newest hundred.
    pub agent_ids: Vec<String>,
    pub service_count: u64,
}

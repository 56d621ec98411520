//! Subdomains, diagnostics and health of services.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Diagnostics, numbers, texts};

/// `PATCH /v1/services/:id/subdomain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSubdomain {
    /// `null`: a random one again.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<texts::Subdomain>, required)]
    pub subdomain: Option<String>,
}

// An absent field is refused: it would look like a `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServiceSubdomain)]
pub struct Subdomain {
    #[schema(value_type = texts::TunnelId)]
    pub id: String,
    pub subdomain: String,
    pub public_url: String,
    /// Said when it was chosen and can therefore be guessed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub notice: Option<String>,
}

/// Whether a subdomain can be chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubdomainCheck {
    pub subdomain: String,
    pub available: bool,
    /// `invalid`, `reserved`, `taken`, `quarantined`; `current` when this service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::SubdomainState>, nullable = false)]
    pub reason: Option<String>,
    pub message: String,
    /// When one that is quarantined is free again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Moment>, nullable = false)]
    pub available_at: Option<String>,
}

/// `POST /v1/services/:id/reach`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReachService {
    /// The agent that looks.
    #[schema(value_type = texts::AgentId)]
    pub source_agent_id: String,
    /// `tcp`, `tls`, `http`, or `full` (as far as the service's protocol goes) unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::LookMode>)]
    pub mode: Option<String>,
    /// 100–30,000, 10,000 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 100, maximum = 30000)]
    pub timeout_ms: Option<i64>,
}

/// What an agent found, who it was and when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundDiagnostics {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[schema(value_type = texts::Moment)]
    pub checked_at: String,
    #[serde(flatten)]
    pub diagnostics: Diagnostics,
}

/// The last of each kind since the hub's start; `null`: none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDiagnostics {
    #[schema(value_type = texts::TunnelId)]
    pub id: String,
    /// From the exposing agent.
    #[schema(required)]
    pub check: Option<FoundDiagnostics>,
    /// From another agent.
    #[schema(required)]
    pub reach: Option<FoundDiagnostics>,
    /// From watching its health.
    #[schema(required)]
    pub health: Option<FoundDiagnostics>,
    pub health_status: HealthStatus,
}

/// `PATCH /v1/services/:id/health-config`; what is absent stays as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigureHealth {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// 10–3,600.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 10, maximum = 3600)]
    pub interval_seconds: Option<i64>,
}

/// How a service is watched, and what that has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    pub enabled: bool,
    #[schema(minimum = 10, maximum = 3600)]
    pub interval_seconds: u32,
    /// `healthy`, `unhealthy` or `unknown`.
    #[schema(value_type = texts::HealthState)]
    pub status: String,
    /// The step of the look that failed: `agent` (it could not be asked), `dns`, `tcp`, `udp`, `tls` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub step: Option<String>,
    /// Why it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

/// `GET /v1/status`: the caller's workspace in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceStatus {
    #[schema(value_type = texts::WorkspaceId)]
    pub workspace_id: String,
    pub workspace_name: String,
    pub version: String,
    pub agents: AgentNumbers,
    pub tunnels: TunnelNumbers,
    /// Links that can be used.
    pub shares: LiveNumber,
    pub environment_shares: LiveNumber,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentNumbers {
    pub total: u64,
    pub online: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelNumbers {
    pub total: u64,
    pub active: u64,
    pub connecting: u64,
    pub error: u64,
    pub paused: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiveNumber {
    pub active: u64,
}

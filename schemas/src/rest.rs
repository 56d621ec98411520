//! Bodies of the REST API, as they stand in JSON: requests refuse unknown fields, answers ignore them.
//!
//! Ids, names and times are plain text here; the hub checks and converts them at its rim.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{OneOfBuilder, Ref, RefOr, Schema},
};

pub mod about;
mod numbers;
pub mod texts;

pub use about::{Health, Liveness, OpenApi, WhoAmI, Workspace};

pub mod access_logs;
mod agent_commands;
mod agent_messages;
mod agent_upkeep;
pub mod audit;
mod device;
mod diagnostics;
pub mod environments;
pub mod events;
pub mod services;
pub mod webhooks;

pub use agent_commands::{
    AgentCommand, AgentCommands, CommandOutcome, CommandQueued, ExposeCommand, ExposeParams, NoParams,
    PlainCommand, ReachCommand, ReachParams, SendCommand,
};
pub use agent_messages::{
    BroadcastMessage, BroadcastSent, MarkMessagesRead, MessageSent, Messages, MessagesRead, ReceivedMessage,
    SendMessage,
};
pub use agent_upkeep::{
    AuditEntry, AuditLogs, Capability, Heartbeat, HeartbeatAnswer, RotateToken, SetCapabilities,
};
pub use device::{DeviceCode, DeviceDecided, DeviceDecision, DeviceToken, StartDeviceLogin};
pub use diagnostics::{Certificate, DiagnosticStep, Diagnostics, TlsStep};

/// Distinguishes "absent" from "null" where a PATCH needs it.
pub type Metadata = BTreeMap<String, Value>;

// Requests -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateKey {
    #[schema(value_type = texts::Name)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::Scope>>, min_items = 1)]
    pub scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::IpRange>>)]
    pub allowed_ip_ranges: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Lifetime>)]
    pub expires_in: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterAgent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::AgentId>)]
    pub agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvisionAgent {
    #[schema(value_type = texts::ClientType)]
    pub client_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 300, maximum = 86400)]
    pub ttl_seconds: Option<i64>,
}

/// `"host:port"` or an object with both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetText {
    Text(String),
    Parts(TargetParts),
}

impl PartialSchema for TargetText {
    fn schema() -> RefOr<Schema> {
        let parts = Ref::from_schema_name(TargetParts::name());
        let text = Ref::from_schema_name(texts::HostAndPort::name());
        RefOr::T(Schema::OneOf(OneOfBuilder::new().item(text).item(parts).build()))
    }
}

impl ToSchema for TargetText {
    fn schemas(known: &mut Vec<(String, RefOr<Schema>)>) {
        known.push((texts::HostAndPort::name().into_owned(), texts::HostAndPort::schema()));
        known.push((TargetParts::name().into_owned(), TargetParts::schema()));
        TargetParts::schemas(known);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetParts {
    #[schema(value_type = texts::Host)]
    pub host: String,
    #[serde(deserialize_with = "numbers::whole")]
    #[schema(minimum = 1, maximum = 65535)]
    pub port: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTunnel {
    pub target: TargetText,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Protocol>)]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Lifetime>)]
    pub expires_in: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTunnel {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::TunnelSwitch>)]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Metadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectTunnel {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 1, maximum = 65535)]
    pub local_port: Option<i64>,
}

/// Services are tunnels: an upsert by workspace and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterService {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[schema(value_type = texts::Name)]
    pub name: String,
    #[schema(value_type = texts::Host)]
    pub target_host: String,
    #[serde(deserialize_with = "numbers::whole")]
    #[schema(minimum = 1, maximum = 65535)]
    pub target_port: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Protocol>)]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateShare {
    #[schema(value_type = texts::Name)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Description>)]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Lifetime>)]
    pub expires_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::PathRule>>, min_items = 1, max_items = 50)]
    pub allowed_paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<texts::Method>>, min_items = 1)]
    pub allowed_methods: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 1, maximum = 1000)]
    pub rate_limit_per_min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Subdomain>)]
    pub subdomain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

// Answers ------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    #[schema(value_type = texts::KeyId)]
    pub id: String,
    pub name: String,
    pub prefix: String,
    #[schema(value_type = Vec<texts::Scope>)]
    pub scopes: Vec<String>,
    pub allowed_ip_ranges: Vec<String>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub expires_at: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub last_used_at: Option<String>,
    /// The secret; only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCredentials {
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    pub token: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
    #[schema(value_type = texts::WorkspaceId)]
    pub workspace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub workspace_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    #[schema(value_type = texts::AgentId)]
    pub id: String,
    pub name: String,
    pub label: String,
    #[schema(value_type = texts::AgentStatus)]
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::ClientType>, nullable = false)]
    pub client_type: Option<String>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub connected_at: Option<String>,
    /// Absent from a moment of the past.
    #[schema(value_type = Option<texts::Moment>, required = false)]
    pub last_seen_at: Option<String>,
    pub tunnel_count: u64,
    /// What it offers, by name.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
}

/// Seed 004, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    #[schema(value_type = texts::TunnelId)]
    pub id: String,
    pub name: String,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    pub target_host: String,
    #[schema(minimum = 1, maximum = 65535)]
    pub target_port: u16,
    #[schema(minimum = 1, maximum = 65535)]
    pub tunnel_port: u16,
    #[schema(value_type = texts::Protocol)]
    pub protocol: String,
    /// `active`, `paused`, `connecting` or `error`.
    #[schema(value_type = texts::TunnelStatus)]
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status_reason: Option<String>,
    pub is_public: bool,
    #[schema(required)]
    pub public_url: Option<String>,
    #[schema(value_type = Object)]
    pub metadata: Metadata,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub expires_at: Option<String>,
    /// This and the counters are absent from a moment of the past.
    #[schema(value_type = Option<texts::Moment>, required = false)]
    pub last_activity_at: Option<String>,
    /// Connections through its port and by `reach`.
    #[serde(default)]
    #[schema(required = false)]
    pub connection_count: u64,
    /// Bytes to the target, through shares, port and reach.
    #[serde(default)]
    #[schema(required = false)]
    pub bytes_in: u64,
    /// Bytes from the target.
    #[serde(default)]
    #[schema(required = false)]
    pub bytes_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelUpdated {
    #[schema(value_type = texts::TunnelId)]
    pub id: String,
    pub name: String,
    #[schema(value_type = texts::TunnelStatus)]
    pub status: String,
    #[schema(value_type = Object)]
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    pub success: bool,
    pub tunnel: ConnectedTunnel,
    pub connection_string: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub warning: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedTunnel {
    #[schema(value_type = texts::TunnelId)]
    pub id: String,
    pub name: String,
    pub target_host: String,
    #[schema(minimum = 1, maximum = 65535)]
    pub target_port: u16,
    #[schema(minimum = 1, maximum = 65535)]
    pub local_port: u16,
    #[schema(minimum = 1, maximum = 65535)]
    pub tunnel_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareCreated {
    #[schema(value_type = texts::ShareId)]
    pub id: String,
    /// Shown here and never again.
    pub token: String,
    pub name: String,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub expires_at: Option<String>,
    pub share_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub subdomain_url: Option<String>,
    /// Said when the chosen subdomain makes the link guessable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub notice: Option<String>,
}

/// The services group wraps its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceShareCreated {
    pub success: bool,
    pub share: ShareCreated,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    #[schema(value_type = texts::ShareId)]
    pub id: String,
    #[schema(value_type = texts::TunnelId)]
    pub tunnel_id: String,
    pub name: String,
    #[schema(required)]
    pub description: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub expires_at: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub revoked_at: Option<String>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    /// This and the counter are absent from a moment of the past.
    #[schema(value_type = Option<texts::Moment>, required = false)]
    pub last_accessed_at: Option<String>,
    #[schema(required = false)]
    pub access_count: u64,
    pub is_active: bool,
    pub token_preview: String,
    #[schema(required)]
    pub allowed_paths: Option<Vec<String>>,
    #[schema(value_type = Option<Vec<texts::Method>>, required)]
    pub allowed_methods: Option<Vec<String>>,
    #[schema(required)]
    pub rate_limit_per_min: Option<u16>,
    pub read_only: bool,
    pub subdomain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shares {
    pub shares: Vec<Share>,
}

/// What a visitor may know of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareInfo {
    pub name: String,
    #[schema(required)]
    pub description: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub expires_at: Option<String>,
    pub workspace_name: String,
    pub service: ShareInfoService,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShareInfoService {
    pub name: String,
    #[schema(value_type = texts::Protocol)]
    pub protocol: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry {
    pub id: String,
    #[schema(value_type = texts::ShareId)]
    pub share_id: String,
    #[schema(value_type = texts::Moment)]
    pub accessed_at: String,
    /// `null` when erased.
    #[schema(required)]
    pub ip_address: Option<String>,
    #[schema(required)]
    pub user_agent: Option<String>,
    #[schema(required)]
    pub path: Option<String>,
    pub method: String,
    pub status_code: u16,
    pub latency_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub denied: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub repeat: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessLog {
    pub logs: Vec<AccessEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Success {
    pub success: bool,
}

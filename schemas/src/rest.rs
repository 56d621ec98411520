//! Bodies of the REST API, as they stand in JSON: requests refuse unknown fields, answers ignore them.
//!
//! Ids, names and times are plain text here; the hub checks and converts them at its rim.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod access_logs;
mod agent_commands;
mod agent_messages;
mod agent_upkeep;
mod device;
pub mod environments;
pub mod services;

pub use agent_commands::{AgentCommand, AgentCommands, CommandOutcome, CommandQueued, SendCommand};
pub use agent_messages::{
    BroadcastMessage, BroadcastSent, MarkMessagesRead, MessageSent, Messages, MessagesRead, ReceivedMessage,
    SendMessage,
};
pub use agent_upkeep::{
    AuditEntry, AuditLogs, Capability, Heartbeat, HeartbeatAnswer, RotateToken, SetCapabilities,
};
pub use device::{DeviceCode, DeviceDecided, DeviceDecision, DeviceToken, StartDeviceLogin};

/// Distinguishes "absent" from "null" where a PATCH needs it.
pub type Metadata = BTreeMap<String, Value>;

// Requests -----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateKey {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_ip_ranges: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterAgent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProvisionAgent {
    pub client_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// `"host:port"` or an object with both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetText {
    Text(String),
    Parts(TargetParts),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetParts {
    pub host: String,
    pub port: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTunnel {
    pub target: TargetText,
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTunnel {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectTunnel {
    pub agent_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<i64>,
}

/// Services are tunnels: an upsert by workspace and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterService {
    pub agent_id: String,
    pub name: String,
    pub target_host: String,
    pub target_port: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateShare {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_methods: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit_per_min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

// Answers ------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub id: String,
    pub name: String,
    pub prefix: String,
    pub scopes: Vec<String>,
    pub allowed_ip_ranges: Vec<String>,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub last_used_at: Option<String>,
    /// The secret; only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCredentials {
    pub agent_id: String,
    pub token: String,
    pub expires_at: String,
    pub workspace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub id: String,
    pub name: String,
    pub label: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_type: Option<String>,
    pub created_at: String,
    pub connected_at: Option<String>,
    pub last_seen_at: Option<String>,
    pub tunnel_count: u64,
    /// What it offers, by name.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
}

/// Seed 004, field by field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    pub id: String,
    pub name: String,
    pub agent_id: String,
    pub target_host: String,
    pub target_port: u16,
    pub tunnel_port: u16,
    pub protocol: String,
    /// `active`, `paused`, `connecting` or `error`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    pub is_public: bool,
    pub public_url: Option<String>,
    pub metadata: Metadata,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub last_activity_at: Option<String>,
    /// Connections through its port and by `reach`.
    #[serde(default)]
    pub connection_count: u64,
    /// Bytes to the target, through shares, port and reach.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes from the target.
    #[serde(default)]
    pub bytes_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelUpdated {
    pub id: String,
    pub name: String,
    pub status: String,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    pub success: bool,
    pub tunnel: ConnectedTunnel,
    pub connection_string: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedTunnel {
    pub id: String,
    pub name: String,
    pub target_host: String,
    pub target_port: u16,
    pub local_port: u16,
    pub tunnel_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareCreated {
    pub id: String,
    /// Shown here and never again.
    pub token: String,
    pub name: String,
    pub expires_at: Option<String>,
    pub share_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain_url: Option<String>,
    /// Said when the chosen subdomain makes the link guessable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// The services group wraps its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShareCreated {
    pub success: bool,
    pub share: ShareCreated,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    pub id: String,
    pub tunnel_id: String,
    pub name: String,
    pub description: Option<String>,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    pub created_at: String,
    pub last_accessed_at: Option<String>,
    pub access_count: u64,
    pub is_active: bool,
    pub token_preview: String,
    pub allowed_paths: Option<Vec<String>>,
    pub allowed_methods: Option<Vec<String>>,
    pub rate_limit_per_min: Option<u16>,
    pub read_only: bool,
    pub subdomain: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    pub shares: Vec<Share>,
}

/// What a visitor may know of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareInfo {
    pub name: String,
    pub description: Option<String>,
    pub expires_at: Option<String>,
    pub workspace_name: String,
    pub service: ShareInfoService,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareInfoService {
    pub name: String,
    pub protocol: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry {
    pub id: String,
    pub share_id: String,
    pub accessed_at: String,
    /// `null` when erased.
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub path: Option<String>,
    pub method: String,
    pub status_code: u16,
    pub latency_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    pub logs: Vec<AccessEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    pub success: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// Why it is degraded: `log_unavailable`, `log_damaged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub database: String,
    pub version: String,
    pub uptime: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    pub workspace_id: String,
    pub workspace_name: String,
    pub key_id: Option<String>,
    pub key_name: Option<String>,
    pub agent_id: Option<String>,
    pub scopes: Vec<String>,
}

/// What an agent found when it looked at a target. Times in milliseconds; an absent part was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostics {
    /// Whether the target takes connections. For UDP, which has none: whether there is a way to it.
    pub reachable: bool,
    /// What it was found to speak, where the tunnel leaves that open: `tcp`, `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<DiagnosticStep>,
    pub latency_ms: Option<f64>,
}

/// The step of TLS. `ok`: agreed, and the certificate is one that the agent's owner accepts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsStep {
    pub ok: bool,
    pub ms: f64,
    pub detail: String,
    /// `TLSv1.2` or `TLSv1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What both sides agreed to speak inside: `h2`, `http/1.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// What stands in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub subject_alt_names: Vec<String>,
    pub valid_from: String,
    pub expires_at: String,
    /// By what the agent's machine and its owner trust, whether or not the tunnel is used without that.
    pub is_trusted: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticStep {
    pub ok: bool,
    pub ms: f64,
    pub detail: String,
}

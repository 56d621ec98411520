//! The operations of the hub's API as its description has them: name, place, and the types of what is sent and answered.
//!
//! Invariant: nothing else in `connect` knows a path of the hub. The tests compare each operation with
//! `schemas/openapi.json`, so that one which the hub does not have, or has with another body, fails there.

use std::marker::PhantomData;

use reqwest::Method;
use schemas::rest::{self, access_logs as logs, environments as env, services};
use serde::Serialize;

/// An operation: what is sent to which place, and what comes back.
pub(super) struct Operation<Sent, Got> {
    /// The `operationId` of the description.
    pub(super) id: &'static str,
    pub(super) verb: Verb,
    /// With its places in braces.
    pub(super) path: &'static str,
    /// The query parameters that it knows.
    pub(super) query: &'static [&'static str],
    /// Whether it needs a key.
    pub(super) with_key: bool,
    /// Whether asking twice is as good as asking once.
    pub(super) may_repeat: bool,
    types: PhantomData<fn(Sent) -> Got>,
}

/// A question: nothing is sent.
pub(super) type Question<Got> = Operation<(), Got>;

/// The body of a request that has nothing to say.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Nothing {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Patch,
    Delete,
}

impl Verb {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

impl<Sent, Got> Operation<Sent, Got> {
    const fn new(id: &'static str, verb: Verb, path: &'static str) -> Self {
        Self { id, verb, path, query: &[], with_key: true, may_repeat: true, types: PhantomData }
    }
    const fn get(id: &'static str, path: &'static str) -> Self {
        Self::new(id, Verb::Get, path)
    }
    const fn post(id: &'static str, path: &'static str) -> Self {
        Self::new(id, Verb::Post, path)
    }
    const fn patch(id: &'static str, path: &'static str) -> Self {
        Self::new(id, Verb::Patch, path)
    }
    const fn delete(id: &'static str, path: &'static str) -> Self {
        Self::new(id, Verb::Delete, path)
    }
    /// A list, by pages.
    const fn list(id: &'static str, path: &'static str) -> Self {
        Self::get(id, path).asking(&["limit", "cursor"])
    }
    const fn asking(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }
    const fn without_key(self) -> Self {
        Self { with_key: false, ..self }
    }
    const fn once(self) -> Self {
        Self { may_repeat: false, ..self }
    }
    /// The same without what is sent.
    pub(super) const fn bare(&self) -> Question<Got> {
        let Self { id, verb, path, query, with_key, may_repeat, types: PhantomData } = *self;
        Operation { id, verb, path, query, with_key, may_repeat, types: PhantomData }
    }
}

// Health, and who one is.
pub(super) const GET_HEALTH: Question<rest::Health> = Question::get("getHealth", "/v1/health").without_key();
pub(super) const WHO_AM_I: Question<rest::WhoAmI> = Question::get("whoAmI", "/v1/whoami");
pub(super) const GET_WORKSPACE: Question<rest::Workspace> = Question::get("getWorkspace", "/v1/workspace");
pub(super) const GET_STATUS: Question<services::WorkspaceStatus> = Question::get("getStatus", "/v1/status");

// Keys.
pub(super) const LIST_KEYS: Question<Vec<rest::Key>> = Question::list("listKeys", "/v1/api-keys");
pub(super) const CREATE_KEY: Operation<rest::CreateKey, rest::Key> =
    Operation::post("createKey", "/v1/api-keys");
pub(super) const REVOKE_KEY: Question<rest::Success> = Question::delete("revokeKey", "/v1/api-keys/{id}");

// Device login.
pub(super) const START_DEVICE_LOGIN: Operation<rest::StartDeviceLogin, rest::DeviceCode> =
    Operation::post("startDeviceLogin", "/v1/device/code").without_key().once();
pub(super) const GET_DEVICE_TOKEN: Question<rest::DeviceToken> =
    Question::get("getDeviceToken", "/v1/device/token").asking(&["device_code"]).without_key().once();
pub(super) const APPROVE_DEVICE_LOGIN: Operation<rest::DeviceDecision, rest::DeviceDecided> =
    Operation::post("approveDeviceLogin", "/v1/device/approve");
pub(super) const DENY_DEVICE_LOGIN: Operation<rest::DeviceDecision, rest::DeviceDecided> =
    Operation::post("denyDeviceLogin", "/v1/device/deny");

// Agents.
pub(super) const REGISTER_AGENT: Operation<rest::RegisterAgent, rest::AgentCredentials> =
    Operation::post("registerAgent", "/v1/agents/register");
pub(super) const PROVISION_AGENT: Operation<rest::ProvisionAgent, rest::AgentCredentials> =
    Operation::post("provisionAgent", "/v1/agents/provision");
pub(super) const ROTATE_AGENT_TOKEN: Operation<rest::RotateToken, rest::AgentCredentials> =
    Operation::post("rotateAgentToken", "/v1/agents/rotate-token").without_key();
pub(super) const SEND_HEARTBEAT: Operation<rest::Heartbeat, rest::HeartbeatAnswer> =
    Operation::post("sendHeartbeat", "/v1/agents/heartbeat");
pub(super) const LIST_AGENTS: Question<Vec<rest::Agent>> = Question::list("listAgents", "/v1/agents");
pub(super) const LIST_ONLINE_AGENTS: Question<Vec<rest::Agent>> =
    Question::list("listOnlineAgents", "/v1/agents/online");
pub(super) const LIST_AGENTS_BY_CAPABILITY: Question<Vec<rest::Agent>> =
    Question::get("listAgentsByCapability", "/v1/agents/by-capability/{capability}")
        .asking(&["limit", "cursor", "online"]);
pub(super) const GET_AGENT: Question<rest::Agent> =
    Question::get("getAgent", "/v1/agents/{id}").asking(&["at"]);
pub(super) const DELETE_AGENT: Question<rest::Success> = Question::delete("deleteAgent", "/v1/agents/{id}");
pub(super) const SET_CAPABILITIES: Operation<rest::SetCapabilities, rest::Agent> =
    Operation::post("setCapabilities", "/v1/agents/{id}/capabilities");
pub(super) const LIST_AUDIT_LOGS: Question<rest::AuditLogs> =
    Question::list("listAuditLogs", "/v1/agents/{id}/audit-logs");

// Commands and messages.
pub(super) const SEND_COMMAND: Operation<rest::SendCommand, rest::CommandQueued> =
    Operation::post("sendCommand", "/v1/agents/{id}/command");
pub(super) const LIST_COMMANDS: Question<rest::AgentCommands> =
    Question::list("listCommands", "/v1/agents/{id}/commands");
pub(super) const GET_COMMAND: Question<rest::AgentCommand> =
    Question::get("getCommand", "/v1/agents/{id}/commands/{command}");
pub(super) const SEND_MESSAGE: Operation<rest::SendMessage, rest::MessageSent> =
    Operation::post("sendMessage", "/v1/agents/{id}/messages/send");
pub(super) const BROADCAST_MESSAGE: Operation<rest::BroadcastMessage, rest::BroadcastSent> =
    Operation::post("broadcastMessage", "/v1/agents/{id}/messages/broadcast");
pub(super) const LIST_MESSAGES: Question<rest::Messages> =
    Question::get("listMessages", "/v1/agents/{id}/messages").asking(&["limit", "cursor", "unread"]);
pub(super) const MARK_MESSAGES_READ: Operation<rest::MarkMessagesRead, rest::MessagesRead> =
    Operation::post("markMessagesRead", "/v1/agents/{id}/messages/read");

// Tunnels.
pub(super) const LIST_TUNNELS: Question<Vec<rest::Tunnel>> = Question::list("listTunnels", "/v1/tunnels");
pub(super) const CREATE_TUNNEL: Operation<rest::CreateTunnel, rest::Tunnel> =
    Operation::post("createTunnel", "/v1/tunnels");
pub(super) const GET_TUNNEL: Question<rest::Tunnel> =
    Question::get("getTunnel", "/v1/tunnels/{id}").asking(&["at"]);
pub(super) const UPDATE_TUNNEL: Operation<rest::UpdateTunnel, rest::TunnelUpdated> =
    Operation::patch("updateTunnel", "/v1/tunnels/{id}");
pub(super) const DELETE_TUNNEL: Question<rest::Success> =
    Question::delete("deleteTunnel", "/v1/tunnels/{id}");
pub(super) const CONNECT_TUNNEL: Operation<rest::ConnectTunnel, rest::Connected> =
    Operation::post("connectTunnel", "/v1/tunnels/{id}/connect");
pub(super) const SHARE_TUNNEL: Operation<rest::CreateShare, rest::ShareCreated> =
    Operation::post("shareTunnel", "/v1/tunnels/{id}/share");

// The same things as services.
pub(super) const REGISTER_SERVICE: Operation<rest::RegisterService, rest::Tunnel> =
    Operation::post("registerService", "/v1/services/register");
pub(super) const LIST_SERVICES: Question<Vec<rest::Tunnel>> = Question::list("listServices", "/v1/services");
pub(super) const GET_SERVICE: Question<rest::Tunnel> =
    Question::get("getService", "/v1/services/{id}").asking(&["at"]);
pub(super) const UPDATE_SERVICE: Operation<rest::UpdateTunnel, rest::TunnelUpdated> =
    Operation::patch("updateService", "/v1/services/{id}");
pub(super) const DELETE_SERVICE: Question<rest::Success> =
    Question::delete("deleteService", "/v1/services/{id}");
pub(super) const SHARE_SERVICE: Operation<rest::CreateShare, rest::ServiceShareCreated> =
    Operation::post("shareService", "/v1/services/{id}/shares");
pub(super) const LIST_SHARES_OF_SERVICE: Question<rest::Shares> =
    Question::list("listSharesOfService", "/v1/services/{id}/shares");
pub(super) const CHECK_SERVICE: Operation<Nothing, rest::Diagnostics> =
    Operation::post("checkService", "/v1/services/{id}/check");
pub(super) const REACH_SERVICE: Operation<services::ReachService, services::FoundDiagnostics> =
    Operation::post("reachService", "/v1/services/{id}/reach");
pub(super) const GET_DIAGNOSTICS: Question<services::LastDiagnostics> =
    Question::get("getDiagnostics", "/v1/services/{id}/diagnostics");
pub(super) const CONFIGURE_HEALTH: Operation<services::ConfigureHealth, services::HealthStatus> =
    Operation::patch("configureHealth", "/v1/services/{id}/health-config");
pub(super) const SET_SUBDOMAIN: Operation<services::SetSubdomain, services::Subdomain> =
    Operation::patch("setSubdomain", "/v1/services/{id}/subdomain");
pub(super) const CHECK_SUBDOMAIN: Question<services::SubdomainCheck> =
    Question::get("checkSubdomain", "/v1/services/{id}/subdomain/check").asking(&["subdomain"]);

// Shares, and who used them.
pub(super) const LIST_SHARES: Question<rest::Shares> =
    Question::get("listShares", "/v1/shares").asking(&["limit", "cursor", "tunnelId", "active"]);
pub(super) const GET_SHARE: Question<rest::Share> =
    Question::get("getShare", "/v1/shares/{id}").asking(&["at"]);
pub(super) const REVOKE_SHARE: Question<rest::Success> = Question::delete("revokeShare", "/v1/shares/{id}");
pub(super) const LIST_ACCESSES: Question<rest::AccessLog> =
    Question::get("listAccesses", "/v1/shares/{id}/logs")
        .asking(&["limit", "cursor", "since", "until", "status", "method", "ip", "path"]);
pub(super) const GET_ACCESS_STATS: Question<logs::AccessStats> =
    Question::get("getAccessStats", "/v1/shares/{id}/logs/stats")
        .asking(&["since", "until", "status", "method", "ip", "path"]);
pub(super) const GET_SHARE_INFO: Question<rest::ShareInfo> =
    Question::get("getShareInfo", "/v1/shared/{token}/info").without_key();

// Environment shares and teammates.
pub(super) const SHARE_ENVIRONMENT: Operation<env::CreateEnvironment, env::EnvironmentCreated> =
    Operation::post("shareEnvironment", "/v1/env-shares");
pub(super) const LIST_ENVIRONMENTS: Question<Vec<env::EnvironmentShare>> =
    Question::list("listEnvironments", "/v1/env-shares");
pub(super) const GET_ENVIRONMENT: Question<env::EnvironmentShare> =
    Question::get("getEnvironment", "/v1/env-shares/{code}");
pub(super) const REVOKE_ENVIRONMENT: Question<rest::Success> =
    Question::delete("revokeEnvironment", "/v1/env-shares/{code}");
pub(super) const JOIN_ENVIRONMENT: Operation<env::Joiner, env::EnvironmentJoined> =
    Operation::post("joinEnvironment", "/v1/env-shares/{code}/join");
pub(super) const LIST_PENDING_JOINERS: Question<Vec<env::JoinedAgent>> =
    Question::list("listPendingJoiners", "/v1/env-shares/{code}/pending");
pub(super) const APPROVE_JOINER: Operation<env::Joiner, env::Decided> =
    Operation::post("approveJoiner", "/v1/env-shares/{code}/approve");
pub(super) const DENY_JOINER: Operation<env::Joiner, env::Decided> =
    Operation::post("denyJoiner", "/v1/env-shares/{code}/deny");
pub(super) const LIST_TEAMMATES: Question<Vec<env::Teammate>> =
    Question::list("listTeammates", "/v1/teammates");

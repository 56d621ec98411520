//! The hub's API as typed calls: one for each operation of its description, and called as it is there, in snake case.
//!
//! What is for browsers, orchestrators and files on disk is not here; the tests name it. Lists are read to their end.

use std::time::Duration;

use schemas::rest::{self, access_logs::AccessStats, environments as env, services};

use super::{Api, ApiError, operations as op};

/// How long the hub may take where it asks an agent: its own patience and some time for the way.
const AGENT_TIMEOUT: Duration = Duration::from_secs(45);
/// The same where an agent opens many ports, one after the other.
const JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Which accesses of a link; the default is all. Each as the description has the query parameter of that name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessFilter {
    pub since: Option<String>,
    pub until: Option<String>,
    pub status: Option<String>,
    pub method: Option<String>,
    pub ip: Option<String>,
    pub path: Option<String>,
}

impl AccessFilter {
    fn query(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        let Self { since, until, status, method, ip, path } = self.clone();
        let names = ["since", "until", "status", "method", "ip", "path"];
        names.into_iter().zip([since, until, status, method, ip, path])
    }
}

/// Health, and who one is.
impl Api {
    /// Needs no key. A degraded hub answers too.
    pub async fn get_health(&self) -> Result<rest::Health, ApiError> {
        self.one_even_if_unavailable(op::GET_HEALTH.at(&[])).await
    }
    /// Whose key this is.
    pub async fn who_am_i(&self) -> Result<rest::WhoAmI, ApiError> {
        self.one(op::WHO_AM_I.at(&[])).await
    }
    pub async fn get_workspace(&self) -> Result<rest::Workspace, ApiError> {
        self.one(op::GET_WORKSPACE.at(&[])).await
    }
    /// The workspace in numbers.
    pub async fn get_status(&self) -> Result<services::WorkspaceStatus, ApiError> {
        self.one(op::GET_STATUS.at(&[])).await
    }
}

/// Keys and device login.
impl Api {
    pub async fn list_keys(&self) -> Result<Vec<rest::Key>, ApiError> {
        self.all(op::LIST_KEYS.at(&[])).await
    }
    pub async fn create_key(&self, body: &rest::CreateKey) -> Result<rest::Key, ApiError> {
        self.one(op::CREATE_KEY.with(&[], body)).await
    }
    pub async fn revoke_key(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(op::REVOKE_KEY.at(&[id])).await
    }
    /// Begins a login of a machine without a key.
    pub async fn start_device_login(
        &self,
        body: &rest::StartDeviceLogin,
    ) -> Result<rest::DeviceCode, ApiError> {
        self.one(op::START_DEVICE_LOGIN.with(&[], body)).await
    }
    /// Asks for the key of such a login; it is shown once.
    pub async fn get_device_token(&self, device_code: &str) -> Result<rest::DeviceToken, ApiError> {
        let code = ("device_code", Some(device_code.to_owned()));
        self.one(op::GET_DEVICE_TOKEN.at(&[]).asking([code])).await
    }
    pub async fn approve_device_login(
        &self,
        body: &rest::DeviceDecision,
    ) -> Result<rest::DeviceDecided, ApiError> {
        self.one(op::APPROVE_DEVICE_LOGIN.with(&[], body)).await
    }
    pub async fn deny_device_login(
        &self,
        body: &rest::DeviceDecision,
    ) -> Result<rest::DeviceDecided, ApiError> {
        self.one(op::DENY_DEVICE_LOGIN.with(&[], body)).await
    }
}

/// Agents.
impl Api {
    /// Makes or refreshes an agent's identity.
    pub async fn register_agent(
        &self,
        body: &rest::RegisterAgent,
    ) -> Result<rest::AgentCredentials, ApiError> {
        self.one(op::REGISTER_AGENT.with(&[], body)).await
    }
    pub async fn provision_agent(
        &self,
        body: &rest::ProvisionAgent,
    ) -> Result<rest::AgentCredentials, ApiError> {
        self.one(op::PROVISION_AGENT.with(&[], body)).await
    }
    /// Exchanges an agent's token, which is the credential. A later process that was told nothing repeats it with the
    /// same `idempotency_key`.
    pub async fn rotate_agent_token(
        &self,
        body: &rest::RotateToken,
        idempotency_key: &str,
    ) -> Result<rest::AgentCredentials, ApiError> {
        self.one(op::ROTATE_AGENT_TOKEN.with(&[], body).under(idempotency_key)).await
    }
    pub async fn send_heartbeat(&self, body: &rest::Heartbeat) -> Result<rest::HeartbeatAnswer, ApiError> {
        self.one(op::SEND_HEARTBEAT.with(&[], body)).await
    }
    pub async fn list_agents(&self) -> Result<Vec<rest::Agent>, ApiError> {
        self.all(op::LIST_AGENTS.at(&[])).await
    }
    pub async fn list_online_agents(&self) -> Result<Vec<rest::Agent>, ApiError> {
        self.all(op::LIST_ONLINE_AGENTS.at(&[])).await
    }
    /// Who offers something; `online`: only those that are connected.
    pub async fn list_agents_by_capability(
        &self,
        capability: &str,
        online: Option<bool>,
    ) -> Result<Vec<rest::Agent>, ApiError> {
        let online = ("online", online.map(|online| online.to_string()));
        self.all(op::LIST_AGENTS_BY_CAPABILITY.at(&[capability]).asking([online])).await
    }
    pub async fn get_agent(&self, id: &str) -> Result<rest::Agent, ApiError> {
        self.one(op::GET_AGENT.at(&[id])).await
    }
    pub async fn delete_agent(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(op::DELETE_AGENT.at(&[id])).await
    }
    pub async fn set_capabilities(
        &self,
        agent: &str,
        body: &rest::SetCapabilities,
    ) -> Result<rest::Agent, ApiError> {
        self.one(op::SET_CAPABILITIES.with(&[agent], body)).await
    }
    /// What was recorded of an agent, newest first.
    pub async fn list_audit_logs(&self, agent: &str) -> Result<Vec<rest::AuditEntry>, ApiError> {
        self.all(op::LIST_AUDIT_LOGS.at(&[agent])).await
    }
}

/// Commands to agents, and their messages.
impl Api {
    pub async fn send_command(
        &self,
        agent: &str,
        body: &rest::SendCommand,
    ) -> Result<rest::CommandQueued, ApiError> {
        self.one(op::SEND_COMMAND.with(&[agent], body)).await
    }
    pub async fn list_commands(&self, agent: &str) -> Result<Vec<rest::AgentCommand>, ApiError> {
        self.all(op::LIST_COMMANDS.at(&[agent])).await
    }
    pub async fn get_command(&self, agent: &str, command: &str) -> Result<rest::AgentCommand, ApiError> {
        self.one(op::GET_COMMAND.at(&[agent, command])).await
    }
    pub async fn send_message(
        &self,
        agent: &str,
        body: &rest::SendMessage,
    ) -> Result<rest::MessageSent, ApiError> {
        self.one(op::SEND_MESSAGE.with(&[agent], body)).await
    }
    pub async fn broadcast_message(
        &self,
        agent: &str,
        body: &rest::BroadcastMessage,
    ) -> Result<rest::BroadcastSent, ApiError> {
        self.one(op::BROADCAST_MESSAGE.with(&[agent], body)).await
    }
    /// Newest first; `unread`: only those that were not read.
    pub async fn list_messages(
        &self,
        agent: &str,
        unread: Option<bool>,
    ) -> Result<Vec<rest::ReceivedMessage>, ApiError> {
        let unread = ("unread", unread.map(|unread| unread.to_string()));
        self.all(op::LIST_MESSAGES.at(&[agent]).asking([unread])).await
    }
    pub async fn mark_messages_read(
        &self,
        agent: &str,
        body: &rest::MarkMessagesRead,
    ) -> Result<rest::MessagesRead, ApiError> {
        self.one(op::MARK_MESSAGES_READ.with(&[agent], body)).await
    }
}

/// Tunnels.
impl Api {
    pub async fn list_tunnels(&self) -> Result<Vec<rest::Tunnel>, ApiError> {
        self.all(op::LIST_TUNNELS.at(&[])).await
    }
    pub async fn create_tunnel(&self, body: &rest::CreateTunnel) -> Result<rest::Tunnel, ApiError> {
        self.one(op::CREATE_TUNNEL.with(&[], body)).await
    }
    pub async fn get_tunnel(&self, id: &str) -> Result<rest::Tunnel, ApiError> {
        self.one(op::GET_TUNNEL.at(&[id])).await
    }
    pub async fn update_tunnel(
        &self,
        id: &str,
        body: &rest::UpdateTunnel,
    ) -> Result<rest::TunnelUpdated, ApiError> {
        self.one(op::UPDATE_TUNNEL.with(&[id], body)).await
    }
    pub async fn delete_tunnel(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(op::DELETE_TUNNEL.at(&[id])).await
    }
    /// Has another agent listen on a local port that leads to the tunnel.
    pub async fn connect_tunnel(
        &self,
        id: &str,
        body: &rest::ConnectTunnel,
    ) -> Result<rest::Connected, ApiError> {
        self.one(op::CONNECT_TUNNEL.with(&[id], body).within(AGENT_TIMEOUT)).await
    }
    pub async fn share_tunnel(
        &self,
        id: &str,
        body: &rest::CreateShare,
    ) -> Result<rest::ShareCreated, ApiError> {
        self.one(op::SHARE_TUNNEL.with(&[id], body)).await
    }
}

/// Services, which are tunnels under another name.
impl Api {
    /// Exposes a target: makes the service of that name or updates it.
    pub async fn register_service(&self, body: &rest::RegisterService) -> Result<rest::Tunnel, ApiError> {
        self.one(op::REGISTER_SERVICE.with(&[], body)).await
    }
    pub async fn list_services(&self) -> Result<Vec<rest::Tunnel>, ApiError> {
        self.all(op::LIST_SERVICES.at(&[])).await
    }
    pub async fn get_service(&self, id: &str) -> Result<rest::Tunnel, ApiError> {
        self.one(op::GET_SERVICE.at(&[id])).await
    }
    pub async fn update_service(
        &self,
        id: &str,
        body: &rest::UpdateTunnel,
    ) -> Result<rest::TunnelUpdated, ApiError> {
        self.one(op::UPDATE_SERVICE.with(&[id], body)).await
    }
    pub async fn delete_service(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(op::DELETE_SERVICE.at(&[id])).await
    }
    pub async fn share_service(
        &self,
        id: &str,
        body: &rest::CreateShare,
    ) -> Result<rest::ServiceShareCreated, ApiError> {
        self.one(op::SHARE_SERVICE.with(&[id], body)).await
    }
    pub async fn list_shares_of_service(&self, id: &str) -> Result<Vec<rest::Share>, ApiError> {
        self.all(op::LIST_SHARES_OF_SERVICE.at(&[id])).await
    }
    /// Has the exposing agent look at its target now.
    pub async fn check_service(&self, id: &str, timeout: Duration) -> Result<rest::Diagnostics, ApiError> {
        self.one(op::CHECK_SERVICE.with(&[id], &op::Nothing {}).within(timeout)).await
    }
    /// Has another agent look at it.
    pub async fn reach_service(
        &self,
        id: &str,
        body: &services::ReachService,
    ) -> Result<services::FoundDiagnostics, ApiError> {
        self.one(op::REACH_SERVICE.with(&[id], body).within(AGENT_TIMEOUT)).await
    }
    pub async fn get_diagnostics(&self, id: &str) -> Result<services::LastDiagnostics, ApiError> {
        self.one(op::GET_DIAGNOSTICS.at(&[id])).await
    }
    pub async fn configure_health(
        &self,
        id: &str,
        body: &services::ConfigureHealth,
    ) -> Result<services::HealthStatus, ApiError> {
        self.one(op::CONFIGURE_HEALTH.with(&[id], body)).await
    }
    pub async fn set_subdomain(
        &self,
        id: &str,
        body: &services::SetSubdomain,
    ) -> Result<services::Subdomain, ApiError> {
        self.one(op::SET_SUBDOMAIN.with(&[id], body)).await
    }
    pub async fn check_subdomain(
        &self,
        id: &str,
        subdomain: &str,
    ) -> Result<services::SubdomainCheck, ApiError> {
        let subdomain = ("subdomain", Some(subdomain.to_owned()));
        self.one(op::CHECK_SUBDOMAIN.at(&[id]).asking([subdomain])).await
    }
}

/// Shares, and who used them.
impl Api {
    /// The links of the workspace, or of one tunnel; `active`: only those that are, or are not, over.
    pub async fn list_shares(
        &self,
        tunnel: Option<&str>,
        active: Option<bool>,
    ) -> Result<Vec<rest::Share>, ApiError> {
        let tunnel = ("tunnelId", tunnel.map(str::to_owned));
        let active = ("active", active.map(|active| active.to_string()));
        self.all(op::LIST_SHARES.at(&[]).asking([tunnel, active])).await
    }
    pub async fn get_share(&self, id: &str) -> Result<rest::Share, ApiError> {
        self.one(op::GET_SHARE.at(&[id])).await
    }
    pub async fn revoke_share(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(op::REVOKE_SHARE.at(&[id])).await
    }
    /// The latest accesses to a link, newest first, at most `limit` (1 to 1,000).
    pub async fn list_accesses(
        &self,
        share: &str,
        filter: &AccessFilter,
        limit: u16,
    ) -> Result<Vec<rest::AccessEntry>, ApiError> {
        let limit = ("limit", Some(limit.to_string()));
        let page = self.page(op::LIST_ACCESSES.at(&[share]).asking(filter.query().chain([limit]))).await?;
        Ok(page.items)
    }
    /// The accesses to a link that are newer than one that was seen, newest first. `is_seen` ends the walk back; a
    /// link that is busier than the walk is fast ends it at [`super::PAGES_MAX`].
    pub async fn list_accesses_until(
        &self,
        share: &str,
        is_seen: impl Fn(&rest::AccessEntry) -> bool,
    ) -> Result<Vec<rest::AccessEntry>, ApiError> {
        let limit = ("limit", Some("100".to_owned()));
        self.all_until(op::LIST_ACCESSES.at(&[share]).asking([limit]), is_seen).await
    }
    pub async fn get_access_stats(
        &self,
        share: &str,
        filter: &AccessFilter,
    ) -> Result<AccessStats, ApiError> {
        self.one(op::GET_ACCESS_STATS.at(&[share]).asking(filter.query())).await
    }
    /// What whoever has a link may know of it; needs no key.
    pub async fn get_share_info(&self, token: &str) -> Result<rest::ShareInfo, ApiError> {
        self.one(op::GET_SHARE_INFO.at(&[token])).await
    }
}

/// Environment shares and teammates.
impl Api {
    pub async fn share_environment(
        &self,
        body: &env::CreateEnvironment,
    ) -> Result<env::EnvironmentCreated, ApiError> {
        self.one(op::SHARE_ENVIRONMENT.with(&[], body)).await
    }
    pub async fn list_environments(&self) -> Result<Vec<env::EnvironmentShare>, ApiError> {
        self.all(op::LIST_ENVIRONMENTS.at(&[])).await
    }
    pub async fn get_environment(&self, code: &str) -> Result<env::EnvironmentShare, ApiError> {
        self.one(op::GET_ENVIRONMENT.at(&[code])).await
    }
    pub async fn revoke_environment(&self, code: &str) -> Result<rest::Success, ApiError> {
        self.one(op::REVOKE_ENVIRONMENT.at(&[code])).await
    }
    pub async fn join_environment(
        &self,
        code: &str,
        body: &env::Joiner,
    ) -> Result<env::EnvironmentJoined, ApiError> {
        self.one(op::JOIN_ENVIRONMENT.with(&[code], body).within(JOIN_TIMEOUT)).await
    }
    pub async fn list_pending_joiners(&self, code: &str) -> Result<Vec<env::JoinedAgent>, ApiError> {
        self.all(op::LIST_PENDING_JOINERS.at(&[code])).await
    }
    pub async fn approve_joiner(&self, code: &str, body: &env::Joiner) -> Result<env::Decided, ApiError> {
        self.one(op::APPROVE_JOINER.with(&[code], body)).await
    }
    pub async fn deny_joiner(&self, code: &str, body: &env::Joiner) -> Result<env::Decided, ApiError> {
        self.one(op::DENY_JOINER.with(&[code], body)).await
    }
    pub async fn list_teammates(&self) -> Result<Vec<env::Teammate>, ApiError> {
        self.all(op::LIST_TEAMMATES.at(&[])).await
    }
}

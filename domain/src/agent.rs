//! An agent: a running `connect` with an identity, its tokens, and whether it is connected.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{AgentId, KeyId, SessionId, WorkspaceId},
    names::Name,
    time::Timestamp,
};

mod capabilities;

pub use capabilities::{CAPABILITIES_MAX, Capability, InvalidCapability, METADATA_BYTES_MAX};

/// How long an old token stays good after a rotation, so that a restart in between loses nothing (milliseconds).
pub const TOKEN_GRACE_MS: i64 = 5 * 60_000;
/// A registered agent's token lives 30 days (milliseconds).
pub const TOKEN_LIFE_MS: i64 = 30 * 86_400_000;

/// What kind of client a short-lived agent runs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientType {
    Cursor,
    ClaudeCode,
    Codex,
    Devin,
    GithubActions,
    Cli,
    Sdk,
    Other,
}

/// A token as the log knows it: its hash, its end, and the key that stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Lower-case hex SHA-256 of the secret.
    pub token_hash: String,
    pub expires_at: Timestamp,
    /// The key that asked for it: revoking the key ends the token. `None`: issued by the hub itself.
    pub key_id: Option<KeyId>,
}

/// An agent may connect from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRegistered {
    pub agent_id: AgentId,
    pub workspace_id: WorkspaceId,
    pub label: Name,
    pub name: Name,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_type: Option<ClientType>,
    /// A provisioned agent ends with its token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    pub token: Token,
}

/// The agent registered again or rotated: a new token, the old ones end at `previous_until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentTokenIssued {
    pub token: Token,
    pub previous_until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// A session began. Counts only while that boot of that node lives and no higher epoch exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentConnected {
    pub agent_id: AgentId,
    pub session_id: SessionId,
    /// Grows with every session of this agent.
    pub epoch: u64,
    pub node: String,
    pub boot: Uuid,
    /// The agent process: random at its start.
    pub instance: Uuid,
    pub agent_version: String,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisconnectReason {
    /// The agent said goodbye.
    Left,
    /// The connection broke.
    Lost,
    /// Nothing was heard for too long, or it stopped reading.
    Silent,
    /// A newer session of the same agent took over.
    Replaced,
    /// Its key was revoked.
    KeyRevoked,
    /// Its token ran out.
    TokenExpired,
    /// The agent was deleted.
    Deleted,
    /// It broke the protocol.
    Protocol,
    /// The hub drained.
    Drained,
}

impl DisconnectReason {
    /// Whether the agent tries to come back at once, as far as the hub can tell.
    pub const fn may_return(self) -> bool {
        match self {
            Self::Lost | Self::Silent | Self::Replaced | Self::Drained => true,
            Self::Left | Self::KeyRevoked | Self::TokenExpired | Self::Deleted | Self::Protocol => false,
        }
    }
}

/// A session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDisconnected {
    pub agent_id: AgentId,
    pub session_id: SessionId,
    pub epoch: u64,
    pub reason: DisconnectReason,
}

/// The agent is gone, its tunnels with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDeleted {
    pub agent_id: AgentId,
}

/// What the agent offers from now on, instead of what it offered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCapabilitiesSet {
    pub agent_id: AgentId,
    pub capabilities: Vec<Capability>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Registered(AgentRegistered),
    TokenIssued(AgentTokenIssued),
    Connected(AgentConnected),
    Disconnected(AgentDisconnected),
    Deleted(AgentDeleted),
    CapabilitiesSet(AgentCapabilitiesSet),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Registered(_) => ("agent.registered", 1),
            Self::TokenIssued(_) => ("agent.token_issued", 1),
            Self::Connected(_) => ("agent.connected", 1),
            Self::Disconnected(_) => ("agent.disconnected", 1),
            Self::Deleted(_) => ("agent.deleted", 1),
            Self::CapabilitiesSet(_) => ("agent.capabilities_set", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Registered(payload) => json(payload),
            Self::TokenIssued(payload) => json(payload),
            Self::Connected(payload) => json(payload),
            Self::Disconnected(payload) => json(payload),
            Self::Deleted(payload) => json(payload),
            Self::CapabilitiesSet(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("agent.registered", 1) => parse(data, Self::Registered),
            ("agent.token_issued", 1) => parse(data, Self::TokenIssued),
            ("agent.connected", 1) => parse(data, Self::Connected),
            ("agent.disconnected", 1) => parse(data, Self::Disconnected),
            ("agent.deleted", 1) => parse(data, Self::Deleted),
            ("agent.capabilities_set", 1) => parse(data, Self::CapabilitiesSet),
            _ => Ok(None),
        }
    }
}

/// Whose agents somebody who registers one again may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Every agent of the workspace: who may change agents may also give one a new machine.
    Any,
    /// Only those whose current token the same key asked for: a key that merely runs agents hijacks none.
    OwnKey,
}

/// What can be asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// New: registered. Known: a new token, the old ones stay good for the grace period.
    Register {
        agent: AgentRegistered,
        now: Timestamp,
        takeover: Takeover,
    },
    /// A new token for the holder of a current one; it stays under the same key, and a provisioned agent lives no longer.
    RotateToken {
        current_hash: String,
        token: Token,
        now: Timestamp,
    },
    Connect {
        session: AgentConnected,
    },
    Disconnect {
        session_id: SessionId,
        reason: DisconnectReason,
    },
    Delete,
    SetCapabilities {
        capabilities: Vec<Capability>,
    },
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such agent in this workspace")]
    AgentUnknown,
    #[error("the agent was deleted")]
    AgentGone,
    #[error("the token is not the agent's current one")]
    TokenUnknown,
    #[error("a newer session of this agent exists")]
    SessionSuperseded,
    #[error("the agent was registered with another key")]
    AgentOfAnotherKey,
}

/// A session as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub session_id: SessionId,
    pub epoch: u64,
    pub node: String,
    pub boot: Uuid,
    pub instance: Uuid,
}

/// An agent as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agent {
    pub registered: Option<AgentRegistered>,
    /// The newest last; at most two are ever good.
    pub tokens: Vec<Token>,
    /// The session that the log says is live; it counts only while its boot lives.
    pub session: Option<Session>,
    /// The highest epoch given so far.
    pub epoch: u64,
    pub deleted: bool,
    /// What it offers, sorted by name.
    pub capabilities: Vec<Capability>,
}

impl Aggregate for Agent {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "agent";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let known = match &self.registered {
            // Deleting ended the session too: whoever still reports that it ended says nothing new.
            _ if self.deleted && matches!(command, Command::Delete | Command::Disconnect { .. }) => {
                return Ok(vec![]);
            }
            _ if self.deleted => return Err(Rejection::AgentGone),
            Some(known) => known,
            None => {
                return match command {
                    Command::Register { agent, .. } => Ok(vec![Event::Registered(agent.clone())]),
                    Command::RotateToken { .. }
                    | Command::Connect { .. }
                    | Command::Disconnect { .. }
                    | Command::SetCapabilities { .. }
                    | Command::Delete => Err(Rejection::AgentUnknown),
                };
            }
        };
        match command {
            Command::Register { agent, now, takeover } => self.register_again(known, agent, *now, *takeover),
            Command::RotateToken { current_hash, token, now } => self.rotate(current_hash, token, *now),
            Command::Connect { session } => self.connect(session),
            Command::Disconnect { session_id, reason } => match &self.session {
                Some(session) if session.session_id == *session_id => Ok(self.end_session(*reason)),
                Some(_) | None => Ok(vec![]),
            },
            Command::Delete => {
                let mut events = self.end_session(DisconnectReason::Deleted);
                events.push(Event::Deleted(AgentDeleted { agent_id: known.agent_id }));
                Ok(events)
            }
            Command::SetCapabilities { capabilities } if *capabilities == self.capabilities => Ok(vec![]),
            Command::SetCapabilities { capabilities } => {
                Ok(vec![Event::CapabilitiesSet(AgentCapabilitiesSet {
                    agent_id: known.agent_id,
                    capabilities: capabilities.clone(),
                })])
            }
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Registered(registered) => {
                self.tokens = vec![registered.token.clone()];
                self.registered = Some(registered.clone());
            }
            Event::TokenIssued(issued) => {
                if let Some(registered) = &mut self.registered {
                    if let Some(label) = &issued.label {
                        registered.label = label.clone();
                    }
                    if let Some(name) = &issued.name {
                        registered.name = name.clone();
                    }
                }
                if let Some(mut newest) = self.tokens.pop() {
                    newest.expires_at = newest.expires_at.min(issued.previous_until);
                    self.tokens = vec![newest];
                }
                self.tokens.push(issued.token.clone());
            }
            Event::Connected(connected) => {
                self.epoch = connected.epoch;
                self.session = Some(Session {
                    session_id: connected.session_id,
                    epoch: connected.epoch,
                    node: connected.node.clone(),
                    boot: connected.boot,
                    instance: connected.instance,
                });
            }
            Event::Disconnected(_) => self.session = None,
            Event::Deleted(_) => {
                self.deleted = true;
                self.tokens.clear();
                self.session = None;
                self.capabilities.clear();
            }
            Event::CapabilitiesSet(set) => self.capabilities = set.capabilities.clone(),
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.registered.as_ref().map(|registered| registered.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Agent(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Agent(event)
    }
}

impl Agent {
    fn register_again(
        &self,
        known: &AgentRegistered,
        asked: &AgentRegistered,
        now: Timestamp,
        takeover: Takeover,
    ) -> Result<Vec<Event>, Rejection> {
        // Another workspace's agent is, from here, an agent that does not exist.
        if known.workspace_id != asked.workspace_id {
            return Err(Rejection::AgentUnknown);
        }
        if self.tokens.last() == Some(&asked.token) {
            return Ok(vec![]);
        }
        let is_own = self.tokens.last().is_some_and(|token| token.key_id == asked.token.key_id);
        if takeover == Takeover::OwnKey && !is_own {
            return Err(Rejection::AgentOfAnotherKey);
        }
        Ok(vec![Event::TokenIssued(AgentTokenIssued {
            token: asked.token.clone(),
            previous_until: now.plus_ms(TOKEN_GRACE_MS),
            label: (known.label != asked.label).then(|| asked.label.clone()),
            name: (known.name != asked.name).then(|| asked.name.clone()),
        })])
    }

    fn rotate(&self, current_hash: &str, token: &Token, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        let Some(newest) = self.tokens.last() else { return Err(Rejection::TokenUnknown) };
        if newest.token_hash == token.token_hash {
            return Ok(vec![]);
        }
        // The comparison is of hashes of 256-bit secrets: its timing tells nothing about a secret.
        if newest.token_hash != current_hash || newest.expires_at <= now {
            return Err(Rejection::TokenUnknown);
        }
        let is_ephemeral = self.registered.as_ref().is_some_and(|registered| registered.ephemeral);
        let expires_at = if is_ephemeral { newest.expires_at } else { token.expires_at };
        Ok(vec![Event::TokenIssued(AgentTokenIssued {
            token: Token { expires_at, key_id: newest.key_id, ..token.clone() },
            previous_until: now.plus_ms(TOKEN_GRACE_MS),
            label: None,
            name: None,
        })])
    }

    fn connect(&self, session: &AgentConnected) -> Result<Vec<Event>, Rejection> {
        // The same command again, after an append whose outcome was in doubt.
        if self.session.as_ref().is_some_and(|live| live.session_id == session.session_id) {
            return Ok(vec![]);
        }
        if session.epoch <= self.epoch {
            return Err(Rejection::SessionSuperseded);
        }
        // What lived on an earlier boot of this node broke with it; nobody took it over.
        let died =
            self.session.as_ref().is_some_and(|old| old.node == session.node && old.boot != session.boot);
        let mut events =
            self.end_session(if died { DisconnectReason::Lost } else { DisconnectReason::Replaced });
        events.push(Event::Connected(session.clone()));
        Ok(events)
    }

    fn end_session(&self, reason: DisconnectReason) -> Vec<Event> {
        let agent_id = self.registered.as_ref().map(|registered| registered.agent_id);
        agent_id
            .zip(self.session.as_ref())
            .map(|(agent_id, session)| {
                Event::Disconnected(AgentDisconnected {
                    agent_id,
                    session_id: session.session_id,
                    epoch: session.epoch,
                    reason,
                })
            })
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests;

//! An environment share: what one agent exposes at a moment, handed to teammates by a code.
//!
//! ```text
//!   shared ─► join ─────────────────────────────► joined ─► its routes listen at the joining agent
//!             join, with approval ─► asked ─approve─► approved ─join─► joined
//!                                      └────deny────► denied
//!   revoked / expired end it, and with it every joined route
//! ```
//!
//! The code is in no event: it follows from the share's id, the number of the draw and a key of the keyring; events
//! have a keyed digest of it, by which it is found and from which nobody gets it back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{AgentId, EnvironmentId, TunnelId, WorkspaceId},
    names::Name,
    recorded::Actor,
    target::{Protocol, Target},
    time::Timestamp,
};

/// The longest life (days).
pub const DAYS_MAX: i64 = 7;
/// The most routes of one share: each is a port at every joined agent.
pub const ROUTES_MAX: usize = 200;
/// The most agents that have joined one share, or asked to: a bound on its state and on what its end costs.
pub const JOINERS_MAX: usize = 100;

/// A tunnel as it was when it was shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    pub tunnel_id: TunnelId,
    pub name: Name,
    pub target: Target,
    pub protocol: Protocol,
}

/// An environment was shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentShared {
    pub environment_id: EnvironmentId,
    pub workspace_id: WorkspaceId,
    /// Whose environment.
    pub agent_id: AgentId,
    /// Who decides about it: whoever shared it.
    pub owner: Actor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    pub expires_at: Timestamp,
    pub require_approval: bool,
    pub routes: Vec<Route>,
    /// Which draw gave a code that no living share of the workspace has.
    pub draw: u32,
    /// Lower-case hex HMAC-SHA256 of the code under a key of the keyring.
    pub code_hash: String,
}

/// Somebody with the code wants to join, and may not without approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequested {
    pub agent_id: AgentId,
}

/// That agent may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinApproved {
    pub agent_id: AgentId,
    /// The command that decided: its repetition is answered as it was.
    pub decision: Uuid,
}

/// That agent may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinDenied {
    pub agent_id: AgentId,
    pub decision: Uuid,
}

/// The routes are that agent's from now on, until the share ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentJoined {
    pub agent_id: AgentId,
}

/// A route and the port on which the joined agent listens for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenedPort {
    pub tunnel_id: TunnelId,
    pub local_port: u16,
}

/// Where a joined agent listens: there it shall listen again when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortsOpened {
    pub agent_id: AgentId,
    pub ports: Vec<OpenedPort>,
}

/// Why a share was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    Requested,
    /// The sharing agent is gone.
    AgentDeleted,
}

/// Its owner took it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentRevoked {
    pub reason: RevokeReason,
}

/// Its time was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentExpired {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Shared(EnvironmentShared),
    JoinRequested(JoinRequested),
    JoinApproved(JoinApproved),
    JoinDenied(JoinDenied),
    Joined(EnvironmentJoined),
    PortsOpened(PortsOpened),
    Revoked(EnvironmentRevoked),
    Expired(EnvironmentExpired),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Shared(_) => ("environment.shared", 1),
            Self::JoinRequested(_) => ("environment.join_requested", 1),
            Self::JoinApproved(_) => ("environment.join_approved", 1),
            Self::JoinDenied(_) => ("environment.join_denied", 1),
            Self::Joined(_) => ("environment.joined", 1),
            Self::PortsOpened(_) => ("environment.ports_opened", 1),
            Self::Revoked(_) => ("environment.revoked", 1),
            Self::Expired(_) => ("environment.expired", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Shared(payload) => json(payload),
            Self::JoinRequested(payload) => json(payload),
            Self::JoinApproved(payload) => json(payload),
            Self::JoinDenied(payload) => json(payload),
            Self::Joined(payload) => json(payload),
            Self::PortsOpened(payload) => json(payload),
            Self::Revoked(payload) => json(payload),
            Self::Expired(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("environment.shared", 1) => parse(data, Self::Shared),
            ("environment.join_requested", 1) => parse(data, Self::JoinRequested),
            ("environment.join_approved", 1) => parse(data, Self::JoinApproved),
            ("environment.join_denied", 1) => parse(data, Self::JoinDenied),
            ("environment.joined", 1) => parse(data, Self::Joined),
            ("environment.ports_opened", 1) => parse(data, Self::PortsOpened),
            ("environment.revoked", 1) => parse(data, Self::Revoked),
            ("environment.expired", 1) => parse(data, Self::Expired),
            _ => Ok(None),
        }
    }
}

/// What can be asked of an environment share. Its code was claimed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Share {
        environment: Box<EnvironmentShared>,
        now: Timestamp,
    },
    /// Somebody with the code, for that agent.
    Join {
        agent_id: AgentId,
        now: Timestamp,
    },
    Approve {
        agent_id: AgentId,
        decision: Uuid,
        now: Timestamp,
    },
    Deny {
        agent_id: AgentId,
        decision: Uuid,
        now: Timestamp,
    },
    /// Where a joined agent listens now; routes that are not named stay as they were.
    NotePorts {
        agent_id: AgentId,
        ports: Vec<OpenedPort>,
    },
    Revoke {
        reason: RevokeReason,
    },
    Expire {
        now: Timestamp,
    },
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such environment share in this workspace")]
    Unknown,
    /// The id is another's, or an earlier try of this creation made it with other content.
    #[error("the environment share exists already, and differently")]
    Exists,
    #[error("the environment share is over")]
    Over,
    #[error("the agent has no active tunnel to share")]
    NothingToShare,
    #[error("at most {ROUTES_MAX} tunnels are shared at once")]
    TooManyRoutes,
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("an environment share lives at most {DAYS_MAX} days")]
    ExpiryTooFar,
    #[error("this agent shares the environment itself")]
    OwnEnvironment,
    #[error("the owner of the environment share denied it")]
    Denied,
    #[error("at most {JOINERS_MAX} agents join one environment share")]
    TooManyJoiners,
    #[error("no request of this agent waits for a decision")]
    NotPending,
    #[error("the environment share's time is not over")]
    NotDue,
}

/// How far an agent has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining {
    Asked,
    Approved {
        decision: Uuid,
    },
    Denied {
        decision: Uuid,
    },
    Joined {
        /// Where it listens, by tunnel.
        ports: BTreeMap<TunnelId, u16>,
        /// The decision before, if one was needed.
        decision: Option<Uuid>,
    },
}

/// How a share ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Revoked { reason: RevokeReason },
    Expired,
}

/// An environment share as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub shared: Option<EnvironmentShared>,
    pub joiners: BTreeMap<AgentId, Joining>,
    pub ended: Option<Ended>,
}

impl Environment {
    /// What was shared, as long as it can be joined and its routes are open.
    pub fn living(&self, now: Timestamp) -> Option<&EnvironmentShared> {
        self.shared.as_ref().filter(|shared| self.ended.is_none() && shared.expires_at > now)
    }
    /// The agents that have joined, and where they listen.
    pub fn joined(&self) -> impl Iterator<Item = (AgentId, &BTreeMap<TunnelId, u16>)> {
        self.joiners.iter().filter_map(|(agent, joining)| match joining {
            Joining::Joined { ports, .. } => Some((*agent, ports)),
            Joining::Asked | Joining::Approved { .. } | Joining::Denied { .. } => None,
        })
    }
}

impl Aggregate for Environment {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "environment";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let shared = match (&self.shared, command) {
            (None, Command::Share { environment, now }) => return share(environment, *now),
            // The same again, after a crash between the append and the answer.
            (Some(known), Command::Share { environment, .. }) if same_creation(known, environment) => {
                return Ok(vec![]);
            }
            (Some(_), Command::Share { .. }) => return Err(Rejection::Exists),
            (None, _) => return Err(Rejection::Unknown),
            (Some(shared), _) => shared,
        };
        match command {
            Command::Share { .. } => Err(Rejection::Exists),
            Command::Join { agent_id, now } => {
                let shared = self.living(*now).ok_or(Rejection::Over)?;
                self.join(shared, *agent_id)
            }
            Command::Approve { agent_id, decision, now } => {
                self.living(*now).ok_or(Rejection::Over)?;
                self.approve(*agent_id, *decision)
            }
            Command::Deny { agent_id, decision, now } => {
                self.living(*now).ok_or(Rejection::Over)?;
                self.deny(*agent_id, *decision)
            }
            Command::NotePorts { agent_id, ports } => Ok(self.note_ports(*agent_id, ports)),
            Command::Revoke { .. } | Command::Expire { .. } if self.ended.is_some() => Ok(vec![]),
            Command::Revoke { reason } => Ok(vec![Event::Revoked(EnvironmentRevoked { reason: *reason })]),
            Command::Expire { now } if shared.expires_at <= *now => {
                Ok(vec![Event::Expired(EnvironmentExpired {})])
            }
            Command::Expire { .. } => Err(Rejection::NotDue),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Shared(shared) => self.shared = Some(shared.clone()),
            Event::JoinRequested(asked) => {
                self.joiners.insert(asked.agent_id, Joining::Asked);
            }
            Event::JoinApproved(approved) => {
                let decision = approved.decision;
                self.joiners.insert(approved.agent_id, Joining::Approved { decision });
            }
            Event::JoinDenied(denied) => {
                self.joiners.insert(denied.agent_id, Joining::Denied { decision: denied.decision });
            }
            Event::Joined(joined) => {
                let decision = match self.joiners.get(&joined.agent_id) {
                    Some(Joining::Approved { decision }) => Some(*decision),
                    Some(Joining::Asked | Joining::Denied { .. } | Joining::Joined { .. }) | None => None,
                };
                let fresh = Joining::Joined { ports: BTreeMap::new(), decision };
                self.joiners.insert(joined.agent_id, fresh);
            }
            Event::PortsOpened(opened) => {
                if let Some(Joining::Joined { ports, .. }) = self.joiners.get_mut(&opened.agent_id) {
                    ports.extend(opened.ports.iter().map(|opened| (opened.tunnel_id, opened.local_port)));
                }
            }
            Event::Revoked(revoked) => self.ended = Some(Ended::Revoked { reason: revoked.reason }),
            Event::Expired(_) => self.ended = Some(Ended::Expired),
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.shared.as_ref().map(|shared| shared.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Environment(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Environment(event)
    }
}

// Whether two creations ask for the same. What the agent exposed, and which code was free, is as of the first try.
fn same_creation(known: &EnvironmentShared, repeated: &EnvironmentShared) -> bool {
    let asked = EnvironmentShared {
        routes: known.routes.clone(),
        draw: known.draw,
        code_hash: known.code_hash.clone(),
        ..repeated.clone()
    };
    asked == *known
}

fn share(environment: &EnvironmentShared, now: Timestamp) -> Result<Vec<Event>, Rejection> {
    if environment.routes.is_empty() {
        return Err(Rejection::NothingToShare);
    }
    if environment.routes.len() > ROUTES_MAX {
        return Err(Rejection::TooManyRoutes);
    }
    if environment.expires_at <= now {
        return Err(Rejection::ExpiryPast);
    }
    if environment.expires_at > now.plus_ms(DAYS_MAX * 86_400_000) {
        return Err(Rejection::ExpiryTooFar);
    }
    Ok(vec![Event::Shared(environment.clone())])
}

impl Environment {
    fn join(&self, shared: &EnvironmentShared, agent_id: AgentId) -> Result<Vec<Event>, Rejection> {
        if agent_id == shared.agent_id {
            return Err(Rejection::OwnEnvironment);
        }
        let joined = Event::Joined(EnvironmentJoined { agent_id });
        match self.joiners.get(&agent_id) {
            Some(Joining::Joined { .. } | Joining::Asked) => Ok(vec![]),
            Some(Joining::Denied { .. }) => Err(Rejection::Denied),
            Some(Joining::Approved { .. }) => Ok(vec![joined]),
            None if self.joiners.len() >= JOINERS_MAX => Err(Rejection::TooManyJoiners),
            None if shared.require_approval => Ok(vec![Event::JoinRequested(JoinRequested { agent_id })]),
            None => Ok(vec![joined]),
        }
    }

    /// Of all decisions about one request the first counts; only its own repetition is told so again.
    fn approve(&self, agent_id: AgentId, decision: Uuid) -> Result<Vec<Event>, Rejection> {
        match self.joiners.get(&agent_id) {
            Some(Joining::Asked) => Ok(vec![Event::JoinApproved(JoinApproved { agent_id, decision })]),
            Some(Joining::Approved { decision: known } | Joining::Joined { decision: Some(known), .. })
                if *known == decision =>
            {
                Ok(vec![])
            }
            Some(Joining::Approved { .. } | Joining::Denied { .. } | Joining::Joined { .. }) | None => {
                Err(Rejection::NotPending)
            }
        }
    }

    fn deny(&self, agent_id: AgentId, decision: Uuid) -> Result<Vec<Event>, Rejection> {
        match self.joiners.get(&agent_id) {
            Some(Joining::Asked) => Ok(vec![Event::JoinDenied(JoinDenied { agent_id, decision })]),
            Some(Joining::Denied { decision: known }) if *known == decision => Ok(vec![]),
            Some(Joining::Approved { .. } | Joining::Denied { .. } | Joining::Joined { .. }) | None => {
                Err(Rejection::NotPending)
            }
        }
    }

    fn note_ports(&self, agent_id: AgentId, opened: &[OpenedPort]) -> Vec<Event> {
        let Some(Joining::Joined { ports, .. }) = self.joiners.get(&agent_id) else { return vec![] };
        let news = |opened: &&OpenedPort| ports.get(&opened.tunnel_id) != Some(&opened.local_port);
        let opened: Vec<OpenedPort> = opened.iter().filter(news).copied().collect();
        if opened.is_empty() || self.ended.is_some() {
            return vec![];
        }
        vec![Event::PortsOpened(PortsOpened { agent_id, ports: opened })]
    }
}

#[cfg(test)]
mod tests;

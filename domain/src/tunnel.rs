//! A tunnel, which is also a service: a named `host:port` that an agent exposes.
//!
//! ```text
//!   created ─► connecting ─connected─► active ─disconnected─► connecting | error
//!   pause / resume stand beside that: a paused tunnel keeps its connection and refuses new streams
//!   deleted / expired end it
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{AgentId, SessionId, TunnelId, WorkspaceId},
    names::Name,
    policy::ports::protected_engine,
    target::{Protocol, Target},
    time::Timestamp,
};

pub(crate) mod health;

pub use health::{
    Finding, Health, HealthConfigured, INTERVAL_S_MAX, INTERVAL_S_MIN, ServiceHealthy, ServiceUnhealthy, Step,
};

/// The most that a tunnel's metadata may take, as JSON text (bytes).
pub const METADATA_BYTES_MAX: usize = 16 * 1024;

/// Any JSON object that the owner keeps with a tunnel.
pub type Metadata = BTreeMap<String, Value>;

/// A tunnel exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelCreated {
    pub tunnel_id: TunnelId,
    pub workspace_id: WorkspaceId,
    pub agent_id: AgentId,
    pub name: Name,
    pub target: Target,
    pub protocol: Protocol,
    pub is_public: bool,
    /// The port on the hub, kept for this tunnel's whole life.
    pub tunnel_port: u16,
    pub expires_at: Option<Timestamp>,
}

/// Something about it changed; what is absent stayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelUpdated {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_public: Option<bool>,
}

/// The exposing agent confirmed that it can dial the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelConnected {
    pub session_id: SessionId,
}

/// Why a tunnel cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
pub enum Outage {
    /// The agent's session ended.
    AgentDisconnected,
    /// The agent cannot dial the target; in its words.
    TargetUnreachable(String),
    /// The agent's owner does not allow that target.
    TargetRefused(String),
}

/// The tunnel cannot be used until the next `tunnel.connected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDisconnected {
    pub outage: Outage,
}

/// New connections are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelPaused {}

/// New connections are welcome again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelResumed {}

/// Its time was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelExpired {}

/// Why a tunnel was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteReason {
    Requested,
    AgentDeleted,
}

/// It is gone, with its connections and shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDeleted {
    pub reason: DeleteReason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Created(TunnelCreated),
    Updated(TunnelUpdated),
    Connected(TunnelConnected),
    Disconnected(TunnelDisconnected),
    Paused(TunnelPaused),
    Resumed(TunnelResumed),
    Expired(TunnelExpired),
    Deleted(TunnelDeleted),
    HealthConfigured(HealthConfigured),
    Healthy(ServiceHealthy),
    Unhealthy(ServiceUnhealthy),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Created(_) => ("tunnel.created", 1),
            Self::Updated(_) => ("tunnel.updated", 1),
            Self::Connected(_) => ("tunnel.connected", 1),
            Self::Disconnected(_) => ("tunnel.disconnected", 1),
            Self::Paused(_) => ("tunnel.paused", 1),
            Self::Resumed(_) => ("tunnel.resumed", 1),
            Self::Expired(_) => ("tunnel.expired", 1),
            Self::Deleted(_) => ("tunnel.deleted", 1),
            Self::HealthConfigured(_) => ("service.health_configured", 1),
            Self::Healthy(_) => ("service.healthy", 1),
            Self::Unhealthy(_) => ("service.unhealthy", 2),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Created(payload) => json(payload),
            Self::Updated(payload) => json(payload),
            Self::Connected(payload) => json(payload),
            Self::Disconnected(payload) => json(payload),
            Self::Paused(payload) => json(payload),
            Self::Resumed(payload) => json(payload),
            Self::Expired(payload) => json(payload),
            Self::Deleted(payload) => json(payload),
            Self::HealthConfigured(payload) => json(payload),
            Self::Healthy(payload) => json(payload),
            Self::Unhealthy(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("tunnel.created", 1) => parse(data, Self::Created),
            ("tunnel.updated", 1) => parse(data, Self::Updated),
            ("tunnel.connected", 1) => parse(data, Self::Connected),
            ("tunnel.disconnected", 1) => parse(data, Self::Disconnected),
            ("tunnel.paused", 1) => parse(data, Self::Paused),
            ("tunnel.resumed", 1) => parse(data, Self::Resumed),
            ("tunnel.expired", 1) => parse(data, Self::Expired),
            ("tunnel.deleted", 1) => parse(data, Self::Deleted),
            ("service.health_configured", 1) => parse(data, Self::HealthConfigured),
            ("service.healthy", 1) => parse(data, Self::Healthy),
            ("service.unhealthy", 2) => parse(data, Self::Unhealthy),
            _ => Ok(None),
        }
    }
}

/// Whether new connections shall be welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    Pause,
    Resume,
}

/// What can be asked of a tunnel. Names and ports were claimed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Create {
        tunnel: TunnelCreated,
        now: Timestamp,
    },
    Update(TunnelUpdated),
    /// What an owner changes in one request: all of it in one write, or nothing.
    Change {
        update: TunnelUpdated,
        switch: Option<Switch>,
    },
    MarkConnected {
        session_id: SessionId,
    },
    MarkDisconnected {
        outage: Outage,
    },
    /// A session of its agent ended. Unlike [`Command::MarkDisconnected`] it says nothing about a tunnel that a newer
    /// session serves already, however late the news of the old one comes.
    SessionEnded {
        session_id: SessionId,
    },
    Pause,
    Resume,
    Expire {
        now: Timestamp,
    },
    Delete {
        reason: DeleteReason,
    },
    ConfigureHealth(HealthConfigured),
    /// Watching it has shown this.
    Find(Finding),
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("no such tunnel in this workspace")]
    TunnelUnknown,
    /// The id is another tunnel's, or an earlier try of this creation made it with other content.
    #[error("the tunnel exists already, and differently")]
    TunnelExists,
    #[error("port {port} belongs to {engine}: a database is never published; use `connect reach` or a share")]
    ProtectedPort { port: u16, engine: &'static str },
    #[error("metadata takes {bytes} bytes, at most {METADATA_BYTES_MAX} are kept")]
    MetadataTooLarge { bytes: usize },
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("the tunnel's time is not over")]
    NotDue,
    #[error("a health check's interval is {INTERVAL_S_MIN}-{INTERVAL_S_MAX} seconds")]
    IntervalRange,
}

/// What the owner can see of a tunnel's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Waiting for its agent.
    Connecting,
    /// The agent can dial the target.
    Connected(SessionId),
    /// The agent cannot, or may not.
    Failed(Outage),
}

/// A tunnel as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// As it was created: what a repeated creation is compared with.
    pub original: TunnelCreated,
    /// As it is now.
    pub created: TunnelCreated,
    pub metadata: Metadata,
    pub paused: bool,
    pub condition: Condition,
    pub health: Health,
}

/// A tunnel's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tunnel {
    #[default]
    Unknown,
    Open(Box<Details>),
    Closed(Box<Details>),
}

impl Tunnel {
    /// The tunnel while it can be used.
    pub fn open(&self) -> Option<&Details> {
        if let Self::Open(details) = self { Some(details) } else { None }
    }
}

impl Aggregate for Tunnel {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "tunnel";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let details = match (self, command) {
            (Self::Unknown, Command::Create { tunnel, now }) => return create(tunnel, *now),
            (Self::Open(details) | Self::Closed(details), Command::Create { tunnel, .. })
                if same_creation(&details.original, tunnel) =>
            {
                return Ok(vec![]);
            }
            (Self::Open(_) | Self::Closed(_), Command::Create { .. }) => return Err(Rejection::TunnelExists),
            // Ended already: deleting or expiring it again changes nothing.
            (
                Self::Closed(_),
                Command::Delete { .. }
                | Command::Expire { .. }
                | Command::MarkDisconnected { .. }
                | Command::SessionEnded { .. }
                | Command::Find(_),
            ) => {
                return Ok(vec![]);
            }
            (Self::Unknown | Self::Closed(_), _) => return Err(Rejection::TunnelUnknown),
            (Self::Open(details), _) => details,
        };
        match command {
            Command::Create { .. } => Err(Rejection::TunnelExists),
            Command::Update(update) => details.change(update, None),
            Command::Change { update, switch } => details.change(update, *switch),
            Command::MarkConnected { session_id } => {
                Ok(if details.condition == Condition::Connected(*session_id) {
                    vec![]
                } else {
                    vec![Event::Connected(TunnelConnected { session_id: *session_id })]
                })
            }
            Command::MarkDisconnected { outage } => Ok(details.disconnect(outage)),
            Command::SessionEnded { session_id } => Ok(match &details.condition {
                Condition::Connected(serving) if serving == session_id => {
                    details.disconnect(&Outage::AgentDisconnected)
                }
                Condition::Connected(_) | Condition::Connecting | Condition::Failed(_) => vec![],
            }),
            Command::Pause => details.change(&TunnelUpdated::default(), Some(Switch::Pause)),
            Command::Resume => details.change(&TunnelUpdated::default(), Some(Switch::Resume)),
            Command::Expire { now } => match details.created.expires_at {
                Some(at) if at <= *now => Ok(vec![Event::Expired(TunnelExpired {})]),
                Some(_) | None => Err(Rejection::NotDue),
            },
            Command::Delete { reason } => Ok(vec![Event::Deleted(TunnelDeleted { reason: *reason })]),
            Command::ConfigureHealth(config) => details.health.configure(config),
            Command::Find(finding) => Ok(details.health.find(finding)),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match (self, event) {
            (state, Event::Created(created)) => {
                *state = Self::Open(Box::new(Details {
                    original: created.clone(),
                    created: created.clone(),
                    metadata: Metadata::new(),
                    paused: false,
                    condition: Condition::Connecting,
                    health: Health::default(),
                }));
            }
            (state @ Self::Open(_), Event::Expired(_) | Event::Deleted(_)) => {
                if let Self::Open(details) = std::mem::take(state) {
                    *state = Self::Closed(details);
                }
            }
            (Self::Open(details), event) => details.evolve(event),
            (Self::Unknown | Self::Closed(_), _) => {}
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        match self {
            Self::Unknown => None,
            Self::Open(details) | Self::Closed(details) => Some(details.created.workspace_id),
        }
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Tunnel(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Tunnel(event)
    }
}

/// Whether a tunnel to this target may be published.
///
/// # Errors
/// [`Rejection::ProtectedPort`] for a database's port (product.md section 6, seed 001).
pub fn check_publishable(port: u16, is_public: bool) -> Result<(), Rejection> {
    match protected_engine(port) {
        Some(engine) if is_public => Err(Rejection::ProtectedPort { port, engine }),
        Some(_) | None => Ok(()),
    }
}

// Whether two creations ask for the same. Name and port are the hub's to allot when nobody asks for them: a repetition
// after a crash may have been given others, and what exists keeps its own.
fn same_creation(known: &TunnelCreated, repeated: &TunnelCreated) -> bool {
    TunnelCreated { name: known.name.clone(), tunnel_port: known.tunnel_port, ..repeated.clone() } == *known
}

fn create(tunnel: &TunnelCreated, now: Timestamp) -> Result<Vec<Event>, Rejection> {
    check_publishable(tunnel.target.port, tunnel.is_public)?;
    if tunnel.expires_at.is_some_and(|at| at <= now) {
        return Err(Rejection::ExpiryPast);
    }
    Ok(vec![Event::Created(tunnel.clone())])
}

impl Details {
    fn change(&self, update: &TunnelUpdated, switch: Option<Switch>) -> Result<Vec<Event>, Rejection> {
        let created = &self.created;
        let target = update.target.as_ref().unwrap_or(&created.target);
        // Whoever pauses or renames does not ask for that.
        if update.target.is_some() || update.is_public.is_some() {
            check_publishable(target.port, update.is_public.unwrap_or(created.is_public))?;
        }
        if let Some(metadata) = &update.metadata {
            let bytes = json(metadata).len();
            if bytes > METADATA_BYTES_MAX {
                return Err(Rejection::MetadataTooLarge { bytes });
            }
        }
        // Only what differs is a fact.
        let changed = TunnelUpdated {
            name: update.name.clone().filter(|name| *name != created.name),
            metadata: update.metadata.clone().filter(|metadata| *metadata != self.metadata),
            agent_id: update.agent_id.filter(|agent| *agent != created.agent_id),
            target: update.target.clone().filter(|target| *target != created.target),
            protocol: update.protocol.filter(|protocol| *protocol != created.protocol),
            is_public: update.is_public.filter(|public| *public != created.is_public),
        };
        let switched = match (switch, self.paused) {
            (Some(Switch::Pause), false) => Some(Event::Paused(TunnelPaused {})),
            (Some(Switch::Resume), true) => Some(Event::Resumed(TunnelResumed {})),
            (Some(Switch::Pause), true) | (Some(Switch::Resume), false) | (None, _) => None,
        };
        let changed = (changed != TunnelUpdated::default()).then_some(Event::Updated(changed));
        Ok(changed.into_iter().chain(switched).collect())
    }

    fn disconnect(&self, outage: &Outage) -> Vec<Event> {
        let news = match &self.condition {
            Condition::Connected(_) => true,
            Condition::Connecting => *outage != Outage::AgentDisconnected,
            Condition::Failed(known) => known != outage,
        };
        if news { vec![Event::Disconnected(TunnelDisconnected { outage: outage.clone() })] } else { vec![] }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Updated(updated) => {
                if let Some(name) = &updated.name {
                    self.created.name = name.clone();
                }
                if let Some(metadata) = &updated.metadata {
                    self.metadata = metadata.clone();
                }
                if let Some(agent_id) = updated.agent_id {
                    self.created.agent_id = agent_id;
                    self.condition = Condition::Connecting;
                }
                if let Some(target) = &updated.target {
                    self.created.target = target.clone();
                    self.condition = Condition::Connecting;
                }
                if let Some(protocol) = updated.protocol {
                    self.created.protocol = protocol;
                }
                if let Some(is_public) = updated.is_public {
                    self.created.is_public = is_public;
                }
            }
            Event::Connected(connected) => self.condition = Condition::Connected(connected.session_id),
            Event::Disconnected(disconnected) => {
                self.condition = match &disconnected.outage {
                    Outage::AgentDisconnected => Condition::Connecting,
                    outage @ (Outage::TargetUnreachable(_) | Outage::TargetRefused(_)) => {
                        Condition::Failed(outage.clone())
                    }
                };
            }
            Event::Paused(_) => self.paused = true,
            Event::Resumed(_) => self.paused = false,
            Event::HealthConfigured(config) => self.health.evolve_config(config),
            Event::Healthy(_) => self.health.finding = Some(Finding::Healthy),
            Event::Unhealthy(found) => {
                self.health.finding =
                    Some(Finding::Unhealthy { step: found.step, reason: found.reason.clone() });
            }
            Event::Created(_) | Event::Expired(_) | Event::Deleted(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;

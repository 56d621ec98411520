//! A recorded event: an event with its place, time and author, as the log keeps it and readers get it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    event::{DecodeError, Event},
    ids::{
        AgentId, CommandId, EnvironmentId, EventId, KeyId, MessageId, RequestId, ShareId, TunnelId,
        WebhookId, WorkspaceId,
    },
    time::Timestamp,
};

/// The workspace of events that belong to the hub itself (nodes, the log's own bookkeeping).
pub const SYSTEM_WORKSPACE: WorkspaceId = WorkspaceId::new(uuid::Uuid::nil());

/// Streams of one family are stored together, apart from the others, under one order; retention is per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Aggregate streams: what somebody decided.
    Facts,
    /// Accesses to shares: high volume, personal data, shorter life.
    Accesses,
    /// Webhook attempts.
    Deliveries,
}

impl Family {
    /// Every family, in storage order.
    pub const ALL: [Self; 3] = [Self::Facts, Self::Accesses, Self::Deliveries];
    /// The name of its folder and on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Accesses => "accesses",
            Self::Deliveries => "deliveries",
        }
    }
}

/// A set of families for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families(u8);

impl Families {
    pub const ALL: Self = Self(0b111);
    pub const fn only(family: Family) -> Self {
        Self(1 << family as u8)
    }
    /// These, and one more.
    #[must_use]
    pub const fn and(self, family: Family) -> Self {
        Self(self.0 | 1 << family as u8)
    }
    pub const fn contains(self, family: Family) -> bool {
        self.0 & (1 << family as u8) != 0
    }
}

/// The name of a stream: `<kind>-<rest>`. Cheap to clone. At most [`StreamName::BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The longest stream name, in bytes: frames of the log keep its length in one byte.
    pub const BYTES_MAX: usize = 255;

    /// A name as found in the log; `None` when it is empty or too long.
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= Self::BYTES_MAX).then(|| Self(text.into()))
    }
    fn of(kind: &str, rest: impl fmt::Display) -> Self {
        Self(format!("{kind}-{rest}").into())
    }
    pub fn workspace(id: WorkspaceId) -> Self {
        Self::of("workspace", id)
    }
    pub fn agent(id: AgentId) -> Self {
        Self::of("agent", id)
    }
    pub fn tunnel(id: TunnelId) -> Self {
        Self::of("tunnel", id)
    }
    pub fn share(id: ShareId) -> Self {
        Self::of("share", id)
    }
    pub fn command(id: CommandId) -> Self {
        Self::of("command", id)
    }
    pub fn message(id: MessageId) -> Self {
        Self::of("message", id)
    }
    pub fn environment(id: EnvironmentId) -> Self {
        Self::of("environment", id)
    }
    pub fn webhook(id: WebhookId) -> Self {
        Self::of("webhook", id)
    }
    /// What became of a webhook's deliveries: a stream with one writer.
    pub fn deliveries(id: WebhookId) -> Self {
        Self::of("deliveries", id)
    }
    /// A claim's stream: `digest` is the hex SHA-256 of the claimed key, so that any text can be claimed.
    pub fn claim(kind: crate::claim::ClaimKind, digest: &str) -> Self {
        Self::of("claim", format_args!("{}-{digest}", kind.name()))
    }
    /// What was retired of a family.
    pub fn history(family: Family) -> Self {
        Self::of("history", family.name())
    }
    /// In which format the log is written.
    pub fn log_format() -> Self {
        Self::of("log", "format")
    }
    /// The log's seals, where they are recorded in the log itself: a stream with one writer.
    pub fn seals() -> Self {
        Self::of("log", "seals")
    }
    pub fn node(name: &str) -> Self {
        Self::of("node", name)
    }
    /// Accesses of one share as one boot of one node saw them: a stream with one writer.
    pub fn accesses(share: ShareId, boot: uuid::Uuid) -> Self {
        Self::of("access", format_args!("{share}-{}", boot.as_simple()))
    }
    /// How much the tunnels of a workspace carried as one boot of one node saw it: a stream with one writer.
    pub fn usage(workspace: WorkspaceId, boot: uuid::Uuid) -> Self {
        Self::of("access", format_args!("usage-{workspace}-{}", boot.as_simple()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The first part of the name.
    pub fn kind(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }
    /// Where this stream is stored.
    pub fn family(&self) -> Family {
        match self.kind() {
            "access" => Family::Accesses,
            "deliveries" => Family::Deliveries,
            _ => Family::Facts,
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "id")]
pub enum Actor {
    /// An API key.
    Key(KeyId),
    /// An agent by its token.
    Agent(AgentId),
    /// The hub itself or its operator: `hub`, `operator`, `timekeeper`, `edge`…
    System(String),
}

/// The personal part of an event: IP addresses, user agents, paths, query text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Personal {
    /// The event has none.
    None,
    /// As stored: ciphertext under a key of the keyring. The chain covers these bytes.
    Sealed(Box<[u8]>),
    /// Opened for a reader: JSON.
    Open(Box<str>),
    /// Its key was destroyed: what it said is gone for ever, that it was is not.
    Erased,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The log's own global order. Never leaves the hub: it would tell one tenant about another.
    pub position: u64,
    /// The gapless number within (workspace, family), from 1: what the API shows as `position`.
    pub seq: u64,
    pub stream: StreamName,
    /// The number within the stream, from 1. The last one is the aggregate's ETag.
    pub revision: u64,
    pub id: EventId,
    pub event_type: Box<str>,
    pub version: u16,
    /// Never decreases with the position.
    pub recorded_at: Timestamp,
    pub workspace: WorkspaceId,
    pub actor: Actor,
    /// The event that this one follows from, if another event caused it.
    pub causation: Option<EventId>,
    /// The request that it all began with.
    pub correlation: Option<RequestId>,
    /// JSON, readable by auditors.
    pub data: Box<str>,
    pub personal: Personal,
}

impl Recorded {
    /// The event in its newest shape, older shapes up-cast.
    ///
    /// # Errors
    /// [`DecodeError`]: a type this build does not know (readers skip it, its aggregate refuses), or data that
    /// does not have the shape of its type and version.
    pub fn event(&self) -> Result<Event, DecodeError> {
        Event::decode(&self.event_type, self.version, &self.data)
    }
    pub fn family(&self) -> Family {
        self.stream.family()
    }
}

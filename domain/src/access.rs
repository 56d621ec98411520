//! Accesses to a share: what visitors did, packed many to an event. High volume, no aggregate decides them.
//!
//! One event holds accesses of one share only and at most [`PACKED_BYTES_MAX`] bytes; the n-th access in it has the
//! id `<event id>.<n>`. Address, user agent and path are personal and travel in the envelope's sealed part, in the
//! same order. An access whose request outlives the event is completed later, under the same id.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Read, json, parse},
    ids::{EventId, ShareId, TunnelId},
    time::Timestamp,
};

/// The most that one packed event may take, data and personal part together (bytes).
pub const PACKED_BYTES_MAX: usize = 16 * 1024;
/// Paths are cut here (bytes).
pub const PATH_BYTES_MAX: usize = 1024;
/// User agents are cut here (bytes).
pub const USER_AGENT_BYTES_MAX: usize = 256;

/// Methods are cut here (bytes): a visitor may invent one of any length.
pub const METHOD_BYTES_MAX: usize = 32;

/// Why the edge refused a request; the code in the error body and in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    ShareRevoked,
    ShareExpired,
    TunnelPaused,
    TunnelGone,
    AgentOffline,
    MethodNotAllowed,
    AmbiguousPath,
    PathNotAllowed,
    RateLimited,
    BadRequest,
    UpstreamFailed,
    UpstreamTimeout,
    NotServed,
}

/// How a request ended, when not by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The visitor left.
    Visitor,
    /// The target or its agent broke off.
    Upstream,
    /// Share, tunnel, session or key ended while it ran.
    Revoked,
    /// No progress for `visitor_stall_ms`.
    Stalled,
    /// The hub stopped.
    Hub,
}

/// One access, without what is personal about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    pub accessed_at: Timestamp,
    pub method: String,
    pub status_code: u16,
    pub latency_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denied>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
    /// The request was still running when this was recorded; a completion follows under the same id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
    /// How many equal refusals this stands for, when more than one (refusals beyond 600 per minute and share).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<u32>,
}

/// What became of an access that was recorded while it still ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Completion {
    /// The event that holds the access, and its place there.
    pub event_id: EventId,
    pub index: u16,
    pub latency_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<EndedBy>,
}

/// Visitors used a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareAccessed {
    pub share_id: ShareId,
    pub tunnel_id: TunnelId,
    pub accesses: Vec<Access>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub completions: Vec<Completion>,
}

/// The personal part: one entry per access, same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visitor {
    pub ip: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Without its query string.
    pub path: String,
}

/// What one tunnel carried for some seconds, beside its shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelUse {
    pub tunnel_id: TunnelId,
    /// Connections, and sessions of UDP, that were opened.
    pub connections: u64,
    /// Bytes to the target, of connections that have ended; sealed ones with what sealing adds.
    pub bytes_in: u64,
    /// Bytes from the target, likewise.
    pub bytes_out: u64,
    pub last_activity_at: Timestamp,
}

/// Tunnels of a workspace were used through their ports or by agents that reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelsUsed {
    pub tunnels: Vec<TunnelUse>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Accessed(ShareAccessed),
    TunnelsUsed(TunnelsUsed),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Accessed(_) => ("share.accessed", 1),
            Self::TunnelsUsed(_) => ("usage.recorded", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Accessed(payload) => json(payload),
            Self::TunnelsUsed(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("share.accessed", 1) => parse(data, Self::Accessed),
            ("usage.recorded", 1) => parse(data, Self::TunnelsUsed),
            _ => Ok(None),
        }
    }
}

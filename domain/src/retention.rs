//! Retention: old accesses go, by age or size, a day at a time; what they came to stays.
//!
//! Recorded in the hub's own workspace before anything goes: first what the accesses came to, then that they are gone.
//! Views that have counted them go on with what they have; one that is made anew begins with these sums.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Read, json, parse},
    ids::{EventId, ShareId, TunnelId, WorkspaceId},
    recorded::Family,
    time::{Day, Timestamp},
};

/// What the retired accesses of a share came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShareSum {
    pub workspace_id: WorkspaceId,
    pub share_id: ShareId,
    pub accesses: u64,
    pub denied: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub last_accessed_at: Option<Timestamp>,
}

/// What a tunnel carried in what was retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelSum {
    pub workspace_id: WorkspaceId,
    pub tunnel_id: TunnelId,
    pub last_activity_at: Timestamp,
    pub connections: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A retired access that was still running when what was retired ended: its completion may come later, or never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenAccess {
    pub event_id: EventId,
    pub index: u16,
    pub share_id: ShareId,
    pub tunnel_id: TunnelId,
    pub day: Day,
    pub latency_ms: u32,
    /// What the sums have of it.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Where a workspace's numbers of accesses stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastNumber {
    pub workspace_id: WorkspaceId,
    pub number: u64,
}

/// What the accesses that are about to go came to; several of these, where they are many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistorySummed {
    /// They have positions up to this one.
    pub up_to: u64,
    pub shares: Vec<ShareSum>,
    pub tunnels: Vec<TunnelSum>,
    pub open: Vec<OpenAccess>,
    pub numbers: Vec<LastNumber>,
}

/// Events of a family that were recorded before a day are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRetired {
    pub family: Family,
    pub before: Day,
    /// They had positions above this one…
    pub after: u64,
    /// … up to this one.
    pub up_to: u64,
    /// The SHA-256 of the signed statement that stands in their place, in hex.
    pub statement: String,
}

/// Whether a type of event is one of these, whatever its version; known without reading the event.
pub fn is_about(event_type: &str) -> bool {
    event_type.starts_with("history.")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Summed(HistorySummed),
    Retired(HistoryRetired),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Summed(_) => ("history.summed", 1),
            Self::Retired(_) => ("history.retired", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Summed(payload) => json(payload),
            Self::Retired(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("history.summed", 1) => parse(data, Self::Summed),
            ("history.retired", 1) => parse(data, Self::Retired),
            _ => Ok(None),
        }
    }
}

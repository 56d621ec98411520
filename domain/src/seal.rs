//! Seals in the log itself: signed statements of what it held, where the log is kept by a database.
//!
//! Recorded in the hub's own workspace, beside the files of seals that every log has: whoever has the log and the public
//! key can check it without the hub's disk.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Read, json, parse},
    time::Timestamp,
};

/// The log held this, and every event up to that position was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSealed {
    /// The log's own position, of an event before this one.
    pub position: u64,
    /// When the event at that position was recorded.
    pub recorded_at: Timestamp,
    /// The hash over the heads of all chains at that position, in hex.
    pub heads: String,
    /// The whole seal with public key and signature, in hex: the bytes that stand in a file of seals.
    pub seal: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Sealed(LogSealed),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Sealed(_) => ("log.sealed", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Sealed(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("log.sealed", 1) => parse(data, Self::Sealed),
            _ => Ok(None),
        }
    }
}

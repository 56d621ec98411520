//! What a log durably holds at one moment, file by file: what a copy of it must have, and no more.

use std::sync::Arc;

use domain::recorded::Family;
use serde::{Deserialize, Serialize};

use super::{
    chain::heads_hash,
    files::{Segment, family_dir},
    published::Shared,
    retired,
};

/// A log at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogExtent {
    pub log_id: uuid::Uuid,
    /// The position of the last event.
    pub position: u64,
    /// The hash over the heads of all chains, in hex.
    pub head: String,
    /// The segments, oldest first in each family.
    pub segments: Vec<Piece>,
    /// The statement of what was retired, in hex.
    pub retired: Option<String>,
}

/// A file, as far as it counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// Below the data directory.
    pub path: String,
    pub bytes: u64,
    /// Nothing is written to it any more.
    pub done: bool,
}

impl LogExtent {
    pub(crate) fn of(shared: &Shared) -> Self {
        let _still = shared.retiring.lock();
        let retired =
            std::fs::read(retired::path(&shared.data)).ok().map(|bytes| crate::secrets::hex(&bytes));
        let (position, heads, ends) = {
            let durable = shared.durable.lock();
            (durable.position, durable.chains.heads.clone(), durable.ends)
        };
        let mut segments = Vec::new();
        for family in Family::ALL {
            let Some(end) = ends[family as usize] else { continue };
            // The index knows at least what is durable, and where each segment that is done ends.
            let (known, gone): (Vec<Arc<Segment>>, usize) = {
                let index = shared.index.family(family).read();
                (index.segments.clone(), index.gone)
            };
            for (number, segment) in known.iter().enumerate().take(end.at.segment + 1).skip(gone) {
                let done = number < end.at.segment;
                let bytes = if done { segment.end() } else { end.at.offset };
                let path = family_dir(std::path::Path::new(""), family).join(segment.name());
                segments.push(Piece { path: path.to_string_lossy().into_owned(), bytes, done });
            }
        }
        let head = crate::secrets::hex(&heads_hash(&heads));
        Self { log_id: shared.log_id, position, head, segments, retired }
    }
}

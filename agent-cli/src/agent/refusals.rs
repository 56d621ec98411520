//! Why connections to a local port were refused, counted by reason: bounded however many come.

use std::collections::BTreeMap;

use schemas::frames::RefusalCode;
use serde::{Deserialize, Serialize};

/// A reason's words are cut here (characters): they come from the hub.
const WORDS_MAX: usize = 500;

/// Why a connection was not led to its tunnel, split by what somebody can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The tunnel was deleted.
    TunnelGone,
    TunnelPaused,
    /// The exposing agent is not connected.
    AgentOffline,
    /// The exposing agent could not connect to the target.
    TargetUnreachable,
    /// The exposing agent's owner does not allow the target.
    TargetNotAllowed,
    /// Too many streams, there or here.
    Busy,
    /// The service answers with another key than the one that is pinned.
    KeyChanged,
    /// The exposing agent does not seal the stream, or somebody on the way changed it.
    Unsealed,
    /// This agent's own hub cannot be reached.
    HubUnreachable,
}

impl From<RefusalCode> for Reason {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::UnknownTunnel => Self::TunnelGone,
            RefusalCode::Paused => Self::TunnelPaused,
            RefusalCode::AgentOffline => Self::AgentOffline,
            RefusalCode::TargetUnreachable => Self::TargetUnreachable,
            RefusalCode::TargetNotAllowed => Self::TargetNotAllowed,
            RefusalCode::Busy => Self::Busy,
        }
    }
}

/// How often a reason was met, and what was said about it last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub count: u64,
    pub words: String,
}

/// All that was refused so far, by reason.
pub type Refusals = BTreeMap<Reason, Tally>;

/// Adds refusals of one reason.
pub(crate) fn add(refusals: &mut Refusals, reason: Reason, count: u64, words: &str) {
    let tally = refusals.entry(reason).or_default();
    tally.count = tally.count.saturating_add(count);
    tally.words = words.chars().take(WORDS_MAX).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_and_the_last_words_are_kept_short() {
        let mut refusals = Refusals::new();
        add(&mut refusals, Reason::Busy, 1, "first");
        add(&mut refusals, Reason::Busy, 2, &"x".repeat(10_000));
        add(&mut refusals, Reason::TunnelGone, u64::MAX, "gone");
        add(&mut refusals, Reason::TunnelGone, 1, "gone");
        assert_eq!(refusals[&Reason::Busy], Tally { count: 3, words: "x".repeat(500) });
        assert_eq!(refusals[&Reason::TunnelGone].count, u64::MAX);
    }
}

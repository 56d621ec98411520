//! What the gateway counts, for metrics: sessions that begin and end, and streams, by what they carry.

use domain::agent::DisconnectReason;
use schemas::frames::{RefusalCode, StreamKind};
use wire::relay::Carrying;

use crate::{
    metrics::count::{ByName, Count, Held, Times},
    streams::OpenError,
};

/// What streams carry, in the order of [`Counts::streams`].
pub const KINDS: [&str; 6] = ["tcp", "http", "http2", "udp", "sealed_tcp", "sealed_udp"];

/// Why a session ended, as the event says it.
const REASONS: [&str; 9] =
    ["left", "lost", "silent", "replaced", "key_revoked", "token_expired", "deleted", "protocol", "drained"];

/// Why a stream was not opened.
const FAILURES: [&str; 6] =
    ["not_admitted", "agent_offline", "target_unreachable", "target_not_allowed", "timeout", "busy"];

/// An agent on the same machine answers in less than a millisecond, and waits for a dead target for ten seconds
/// (microseconds).
const BOUNDS_US: [u64; 7] = [1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

/// Since the gateway's start.
#[derive(Debug)]
pub struct Counts {
    pub connects: Count,
    pub disconnects: ByName,
    /// In the order of [`KINDS`].
    pub streams: [StreamCounts; KINDS.len()],
}

/// Streams that carry one kind of bytes.
#[derive(Debug)]
pub struct StreamCounts {
    /// Streams that somebody wanted.
    pub opens: Count,
    /// Streams now; those of the edge, which keeps them, are counted there.
    pub open: Count,
    pub failed: ByName,
    /// Of those that somebody waited for: on a connection of their own, or on a link of the edge.
    pub opening: Times,
    pub to_target: Count,
    pub from_target: Count,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            connects: Count::default(),
            disconnects: ByName::new(&REASONS),
            streams: std::array::from_fn(|_| StreamCounts::default()),
        }
    }
}

impl Default for StreamCounts {
    fn default() -> Self {
        Self {
            opens: Count::default(),
            open: Count::default(),
            failed: ByName::new(&FAILURES),
            opening: Times::new(&BOUNDS_US),
            to_target: Count::default(),
            from_target: Count::default(),
        }
    }
}

impl Counts {
    /// A session began.
    pub(super) fn connected(&self) {
        self.connects.add(1);
    }

    /// A session ended.
    pub(super) fn disconnected(&self, reason: DisconnectReason) {
        self.disconnects.add(match reason {
            DisconnectReason::Left => "left",
            DisconnectReason::Lost => "lost",
            DisconnectReason::Silent => "silent",
            DisconnectReason::Replaced => "replaced",
            DisconnectReason::KeyRevoked => "key_revoked",
            DisconnectReason::TokenExpired => "token_expired",
            DisconnectReason::Deleted => "deleted",
            DisconnectReason::Protocol => "protocol",
            DisconnectReason::Drained => "drained",
        });
    }

    /// The streams of a kind.
    pub(crate) fn of(&self, kind: StreamKind) -> &StreamCounts {
        let [tcp, http, http2, udp, sealed_tcp, sealed_udp] = &self.streams;
        match kind {
            StreamKind::Tcp => tcp,
            StreamKind::Http => http,
            StreamKind::Http2 => http2,
            StreamKind::Udp => udp,
            StreamKind::SealedTcp => sealed_tcp,
            StreamKind::SealedUdp => sealed_udp,
        }
    }
}

impl StreamCounts {
    /// A stream that somebody wants, on a link.
    pub(crate) fn on_link(&self) -> Held<'_> {
        self.opens.add(1);
        self.open.hold()
    }

    /// A stream that somebody wanted, and nobody was asked to open.
    pub(crate) fn not_asked(&self, reason: NotAsked) {
        self.opens.add(1);
        self.failed.add(match reason {
            NotAsked::NotAdmitted => "not_admitted",
            NotAsked::NoRoom => "busy",
        });
    }

    /// An agent refused a stream that was opened on its link.
    pub(crate) fn refused(&self, code: RefusalCode) {
        self.failed.add(match code {
            RefusalCode::AgentOffline => "agent_offline",
            RefusalCode::UnknownTunnel | RefusalCode::Paused => "not_admitted",
            RefusalCode::TargetUnreachable => "target_unreachable",
            RefusalCode::TargetNotAllowed => "target_not_allowed",
            RefusalCode::Busy => "busy",
        });
    }

    /// A stream was not opened.
    pub(super) fn failed(&self, error: &OpenError) {
        self.failed.add(match error {
            OpenError::AgentOffline => "agent_offline",
            OpenError::TargetUnreachable(_) => "target_unreachable",
            OpenError::TargetNotAllowed(_) => "target_not_allowed",
            OpenError::Timeout => "timeout",
            OpenError::Busy => "busy",
        });
    }

    /// Counts what a relay carries from who opened the stream to its target, and back.
    pub(crate) fn carry(&self) -> impl Fn(Carrying) {
        move |Carrying { forth, back }| {
            if forth > 0 {
                self.to_target.add(forth);
            }
            if back > 0 {
                self.from_target.add(back);
            }
        }
    }
}

/// Why no agent was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAsked {
    /// The tunnel is paused, over, or none of the asker's business.
    NotAdmitted,
    /// There are as many streams as there may be.
    NoRoom,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_kind_has_a_series_of_its_own() {
        use DisconnectReason as R;
        let counts = Counts::default();
        let reasons = [
            R::Left,
            R::Lost,
            R::Silent,
            R::Replaced,
            R::KeyRevoked,
            R::TokenExpired,
            R::Deleted,
            R::Protocol,
        ];
        for reason in reasons.into_iter().chain([R::Drained]) {
            counts.disconnected(reason);
            let recorded = serde_json::to_value(reason).unwrap();
            let is_named = counts.disconnects.all().any(|(name, count)| recorded == name && count == 1);
            assert!(is_named, "as the event says it: {recorded}");
        }
        let tcp = counts.of(StreamKind::Tcp);
        for code in [
            RefusalCode::UnknownTunnel,
            RefusalCode::Paused,
            RefusalCode::AgentOffline,
            RefusalCode::TargetUnreachable,
            RefusalCode::TargetNotAllowed,
            RefusalCode::Busy,
        ] {
            tcp.refused(code);
        }
        tcp.failed(&OpenError::Timeout);
        tcp.not_asked(NotAsked::NoRoom);
        let failed: Vec<(&str, u64)> = tcp.failed.all().collect();
        assert_eq!(failed.iter().map(|(_, count)| count).sum::<u64>(), 8);
        assert!(failed.iter().all(|(name, count)| *name != "other" && *count > 0), "{failed:?}");
    }

    #[test]
    fn a_stream_is_open_until_it_is_dropped() {
        let counts = Counts::default();
        let udp = counts.of(StreamKind::Udp);
        let held = udp.on_link();
        assert_eq!((udp.opens.get(), udp.open.now()), (1, 1));
        drop(held);
        assert_eq!((udp.opens.get(), udp.open.now()), (1, 0));
        udp.carry()(Carrying { forth: 3, back: 5 });
        assert_eq!((udp.to_target.get(), udp.from_target.get()), (3, 5));
    }
}

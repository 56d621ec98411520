//! What the edge counts: plain atomics, read when `/metrics` is asked for.

use std::sync::Arc;

use domain::access::Denied;
use http::StatusCode;

pub use crate::metrics::count::Count;
use crate::metrics::{api::class, count::ByName};

/// Upper bounds of the latency buckets (milliseconds); a last bucket holds the rest.
pub const LATENCY_BOUNDS_MS: [u32; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// Why the edge answers itself: what a record can say, and what happens before there is a share to record it for.
const REASONS: [&str; 18] = [
    "share_revoked",
    "share_expired",
    "tunnel_paused",
    "tunnel_gone",
    "agent_offline",
    "method_not_allowed",
    "ambiguous_path",
    "path_not_allowed",
    "rate_limited",
    "bad_request",
    "upstream_failed",
    "upstream_timeout",
    "not_served",
    "share_not_found",
    "cannot_log",
    "not_found",
    "misdirected_request",
    "body_too_large",
];

/// The four golden signals of the share edge. Labels are bounded: no share, path or address.
#[derive(Debug)]
pub struct Metrics {
    pub connections_accepted: Count,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: Count,
    /// Connections now.
    pub connections_open: Count,
    /// Requests of HTTP/2 connections under way now.
    pub streams_open: Count,
    /// Requests to shares that are not over.
    pub in_flight: Count,
    /// Answers that have a record, by the first digit of their status, 1xx (upgrades) to 5xx.
    pub answers: [Count; 5],
    /// Answers to requests that led to no share, or could not be recorded, likewise.
    pub unrecorded: [Count; 5],
    /// Answers that the edge made itself.
    pub refused: ByName,
    /// Requests with a token or slug that nobody has.
    pub unknown_shares: Count,
    /// Requests refused because their access could not be recorded.
    pub cannot_log: Count,
    /// From the head to the end of the answer.
    pub latency: [Count; LATENCY_BOUNDS_MS.len() + 1],
    pub latency_ms_sum: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
    /// Streams to targets now, those that are kept for a next request included.
    pub upstreams_open: Count,
    pub upstreams_open_http2: Count,
    pub upstream_opened: Count,
    pub upstream_reused: Count,
    pub upstream_failed: Count,
    pub upstream_retried: Count,
    /// Requests that waited for an agent that had just gone.
    pub agent_waits: Count,
    pub banners: Count,
    pub upgrades: Count,
    /// Connections cut because a visitor made no progress.
    pub stalled: Count,
    /// Request heads that took too long.
    pub slow_heads: Count,
    /// HTTP/2 connections ended because of frames that cost work and carry nothing.
    pub floods: Count,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            connections_accepted: Count::default(),
            connections_refused: Count::default(),
            connections_open: Count::default(),
            streams_open: Count::default(),
            in_flight: Count::default(),
            answers: Default::default(),
            unrecorded: Default::default(),
            refused: ByName::new(&REASONS),
            unknown_shares: Count::default(),
            cannot_log: Count::default(),
            latency: Default::default(),
            latency_ms_sum: Count::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            upstreams_open: Count::default(),
            upstreams_open_http2: Count::default(),
            upstream_opened: Count::default(),
            upstream_reused: Count::default(),
            upstream_failed: Count::default(),
            upstream_retried: Count::default(),
            agent_waits: Count::default(),
            banners: Count::default(),
            upgrades: Count::default(),
            stalled: Count::default(),
            slow_heads: Count::default(),
            floods: Count::default(),
        }
    }
}

impl Metrics {
    /// A request that has a record is over.
    pub(crate) fn answered(&self, status: StatusCode, latency_ms: u32) {
        self.answers[class(status.as_u16())].add(1);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| latency_ms <= *bound);
        self.latency[bucket.unwrap_or(LATENCY_BOUNDS_MS.len())].add(1);
        self.latency_ms_sum.add(u64::from(latency_ms));
    }

    /// The edge refused, as the record says.
    pub(crate) fn denied(&self, denied: Denied) {
        self.refused.add(match denied {
            Denied::ShareRevoked => "share_revoked",
            Denied::ShareExpired => "share_expired",
            Denied::TunnelPaused => "tunnel_paused",
            Denied::TunnelGone => "tunnel_gone",
            Denied::AgentOffline => "agent_offline",
            Denied::MethodNotAllowed => "method_not_allowed",
            Denied::AmbiguousPath => "ambiguous_path",
            Denied::PathNotAllowed => "path_not_allowed",
            Denied::RateLimited => "rate_limited",
            Denied::BadRequest => "bad_request",
            Denied::UpstreamFailed => "upstream_failed",
            Denied::UpstreamTimeout => "upstream_timeout",
            Denied::NotServed => "not_served",
        });
    }

    /// An answer without a record.
    pub(crate) fn answered_unrecorded(&self, status: StatusCode) {
        self.unrecorded[class(status.as_u16())].add(1);
    }
}

/// A stream to a target that is counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenUpstream {
    metrics: Arc<Metrics>,
    of: fn(&Metrics) -> &Count,
}

impl OpenUpstream {
    pub(super) fn http1(metrics: &Arc<Metrics>) -> Self {
        Self::counted(metrics, |metrics| &metrics.upstreams_open)
    }
    pub(super) fn http2(metrics: &Arc<Metrics>) -> Self {
        Self::counted(metrics, |metrics| &metrics.upstreams_open_http2)
    }
    fn counted(metrics: &Arc<Metrics>, of: fn(&Metrics) -> &Count) -> Self {
        of(metrics).add(1);
        Self { metrics: Arc::clone(metrics), of }
    }
}

impl Drop for OpenUpstream {
    fn drop(&mut self) {
        (self.of)(&self.metrics).sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_record_has_a_series_of_its_own() {
        use Denied as D;
        let metrics = Metrics::default();
        let all = [
            D::ShareRevoked,
            D::ShareExpired,
            D::TunnelPaused,
            D::TunnelGone,
            D::AgentOffline,
            D::MethodNotAllowed,
            D::AmbiguousPath,
            D::PathNotAllowed,
            D::RateLimited,
            D::BadRequest,
            D::UpstreamFailed,
            D::UpstreamTimeout,
            D::NotServed,
        ];
        for denied in all {
            metrics.denied(denied);
            let recorded = serde_json::to_value(denied).unwrap();
            let is_named = metrics.refused.all().any(|(name, count)| recorded == name && count == 1);
            assert!(is_named, "as the record says it: {recorded}");
        }
    }
}

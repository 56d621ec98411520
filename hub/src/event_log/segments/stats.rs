//! What the writer did, as counters for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets of [`LogStats::events_per_commit`]; a last bucket holds the rest.
pub const EVENTS_BOUNDS: [u64; 6] = [1, 4, 16, 64, 256, 1024];
/// Upper bounds, in microseconds, of the buckets of [`LogStats::append_latency`]; a last bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 8] = [100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000];

/// Counters since the log was opened. They only grow; read them one by one.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Group commits that became durable.
    pub commits: AtomicU64,
    /// Appends that were acknowledged, repeated ones included.
    pub appends: AtomicU64,
    /// Events written.
    pub events: AtomicU64,
    /// Bytes written, marks included.
    pub bytes: AtomicU64,
    /// Appends that were not acknowledged, conflicts included.
    pub refused: AtomicU64,
    /// Signed seals written.
    pub seals: AtomicU64,
    /// Bytes of old segments that the check in the background has read.
    pub scrubbed_bytes: AtomicU64,
    /// How many commits had how many events (not cumulative).
    pub events_per_commit: [AtomicU64; EVENTS_BOUNDS.len() + 1],
    /// How long acknowledged appends took from queue to durable (not cumulative).
    pub append_latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    /// The sum of those times, in microseconds.
    pub append_latency_us_sum: AtomicU64,
}

impl LogStats {
    pub(crate) fn committed(&self, events: u64, bytes: u64) {
        self.commits.fetch_add(1, Relaxed);
        self.events.fetch_add(events, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.events_per_commit[bucket(&EVENTS_BOUNDS, events)].fetch_add(1, Relaxed);
    }
    pub(crate) fn answered(&self, acknowledged: Result<(), ()>, took: Duration) {
        if acknowledged.is_err() {
            self.refused.fetch_add(1, Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.appends.fetch_add(1, Relaxed);
        self.append_latency[bucket(&LATENCY_BOUNDS_US, micros)].fetch_add(1, Relaxed);
        self.append_latency_us_sum.fetch_add(micros, Relaxed);
    }
}

fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

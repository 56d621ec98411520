//! What the writer did, as counters for metrics.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::super::AppendError;

/// Upper bounds of the buckets of [`LogStats::events_per_commit`]; a last bucket holds the rest.
pub const EVENTS_BOUNDS: [u64; 6] = [1, 4, 16, 64, 256, 1024];
/// Upper bounds, in microseconds, of the buckets of [`LogStats::append_latency`]; a last bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 8] = [100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000];

/// Why an append was not acknowledged, as metrics name it.
const FAILURES: [&str; 4] = ["conflict", "unavailable", "refused", "in_doubt"];

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
    /// Appends that were not acknowledged, in the order of [`FAILURES`].
    refused: [AtomicU64; FAILURES.len()],
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
    pub(crate) fn answered(&self, acknowledged: Result<(), &AppendError>, took: Duration) {
        if let Err(error) = acknowledged {
            let [conflict, unavailable, refused, in_doubt] = &self.refused;
            let count = match error {
                AppendError::Conflict { .. } => conflict,
                AppendError::Unavailable(_) => unavailable,
                AppendError::Refused(_) => refused,
                AppendError::InDoubt(_) => in_doubt,
            };
            count.fetch_add(1, Relaxed);
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.appends.fetch_add(1, Relaxed);
        self.append_latency[bucket(&LATENCY_BOUNDS_US, micros)].fetch_add(1, Relaxed);
        self.append_latency_us_sum.fetch_add(micros, Relaxed);
    }
}

impl LogStats {
    /// How many appends were not acknowledged, by the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.into_iter().zip(&self.refused).map(|(reason, count)| (reason, count.load(Relaxed)))
    }
}

fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

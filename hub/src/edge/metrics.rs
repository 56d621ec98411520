//! What the edge counts: plain atomics, read when `/metrics` is asked for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::StatusCode;

/// Cells of one count: cores that count at the same time do not take the cache line from each other.
const CELLS: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cell(AtomicU64);

/// A count that only grows, or a gauge when it is also lowered.
#[derive(Debug, Default)]
pub struct Count([Cell; CELLS]);

static NEXT_CELL: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static OWN_CELL: usize = NEXT_CELL.fetch_add(1, Ordering::Relaxed) % CELLS;
}

impl Count {
    pub fn add(&self, n: u64) {
        self.own().fetch_add(n, Ordering::Relaxed);
    }
    /// Takes back what was added, on any thread.
    pub fn sub(&self, n: u64) {
        self.own().fetch_sub(n, Ordering::Relaxed);
    }
    pub fn get(&self) -> u64 {
        // One thread may have added what another took back: only the sum means something.
        self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.0.load(Ordering::Relaxed)))
    }
    fn own(&self) -> &AtomicU64 {
        &self.0[OWN_CELL.with(|cell| *cell)].0
    }
}

/// Upper bounds of the latency buckets (milliseconds); a last bucket holds the rest.
pub const LATENCY_BOUNDS_MS: [u32; 11] = [1, 2, 5, 10, 25, 50, 100, 250, 1_000, 5_000, 30_000];

/// The four golden signals of the share edge. Labels are bounded: no share, path or address.
#[derive(Debug, Default)]
pub struct Metrics {
    pub connections_accepted: Count,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: Count,
    /// Connections now.
    pub connections_open: Count,
    /// Requests of HTTP/2 connections under way now.
    pub streams_open: Count,
    /// Answers by the first digit of their status, 1xx (upgrades) to 5xx.
    pub answers: [Count; 5],
    /// Answers that the edge made itself about a share.
    pub refusals: Count,
    /// Requests with a token or slug that nobody has.
    pub unknown_shares: Count,
    /// Requests refused because their access could not be recorded.
    pub cannot_log: Count,
    /// From the head to the end of the answer.
    pub latency: [Count; LATENCY_BOUNDS_MS.len() + 1],
    pub latency_ms_sum: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
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

impl Metrics {
    pub(crate) fn answered(&self, status: StatusCode, latency_ms: u32) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.answers[class].add(1);
        let bucket = LATENCY_BOUNDS_MS.iter().position(|bound| latency_ms <= *bound);
        self.latency[bucket.unwrap_or(LATENCY_BOUNDS_MS.len())].add(1);
        self.latency_ms_sum.add(u64::from(latency_ms));
    }
}

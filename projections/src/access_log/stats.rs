//! What many accesses have in common: counts by status, path, address and hour, and how long they took.
//!
//! Memory is bounded whatever the accesses say: paths and addresses are visitors' to invent, so only the first
//! [`DISTINCT_MAX`] of each are counted apart, and latencies fall into a fixed number of buckets.

use std::collections::{BTreeMap, HashMap};

use domain::time::Timestamp;

use super::AccessRow;

/// How many different paths, and how many addresses, are counted apart: some 10 MiB of the longest paths.
const DISTINCT_MAX: usize = 10_000;
/// How many hours are counted apart, the newest: a little more than a year.
const HOURS_MAX: usize = 9_000;

const HOUR_MS: i64 = 3_600_000;

/// Counts of accesses; a record that stands for several counts as that many.
#[derive(Debug, Default)]
pub struct AccessStats {
    pub accesses: u64,
    /// Of these, the refused.
    pub denied: u64,
    /// Whose path and address were erased.
    pub erased: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The earliest and the latest.
    pub span: Option<(Timestamp, Timestamp)>,
    pub by_status: BTreeMap<u16, u64>,
    /// By the beginning of the hour.
    pub by_hour: BTreeMap<Timestamp, u64>,
    paths: Tally,
    addresses: Tally,
    latencies: Latencies,
}

/// The most frequent of something, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// Most frequent first; alike ones by name.
    pub most: Vec<(String, u64)>,
    /// Accesses of all others.
    pub others: u64,
}

impl AccessStats {
    /// Takes in an access.
    pub fn add(&mut self, row: &AccessRow) {
        let times = u64::from(row.repeat.unwrap_or(1));
        let at = row.accessed_at;
        self.accesses += times;
        if row.denied.is_some() {
            self.denied += times;
        }
        self.bytes_in = self.bytes_in.saturating_add(row.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(row.bytes_out);
        self.span = Some(self.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        *self.by_status.entry(row.status_code).or_default() += times;
        *self
            .by_hour
            .entry(Timestamp::from_millis(at.millis().div_euclid(HOUR_MS) * HOUR_MS))
            .or_default() += times;
        if self.by_hour.len() > HOURS_MAX {
            self.by_hour.pop_first();
        }
        match &row.visitor {
            Some(visitor) => {
                self.paths.add(&visitor.path, times);
                self.addresses.add(&visitor.ip, times);
            }
            None => self.erased += times,
        }
        // How long it takes is not known of what still runs.
        if !row.running {
            self.latencies.add(row.latency_ms, times);
        }
    }

    pub fn top_paths(&self, count: usize) -> Top {
        self.paths.top(count)
    }
    pub fn top_addresses(&self, count: usize) -> Top {
        self.addresses.top(count)
    }
    /// The latency (milliseconds) that `percent` of the accesses did not exceed, to three digits; `None` without any.
    pub fn latency_ms(&self, percent: u8) -> Option<u32> {
        self.latencies.percentile(percent)
    }
}

#[derive(Debug, Default)]
struct Tally {
    counts: HashMap<String, u64>,
    others: u64,
}

impl Tally {
    fn add(&mut self, what: &str, times: u64) {
        if let Some(count) = self.counts.get_mut(what) {
            *count += times;
        } else if self.counts.len() < DISTINCT_MAX {
            self.counts.insert(what.to_owned(), times);
        } else {
            self.others += times;
        }
    }

    fn top(&self, count: usize) -> Top {
        let mut all: Vec<(&String, u64)> = self.counts.iter().map(|(what, times)| (what, *times)).collect();
        all.sort_unstable_by(|(a, a_times), (b, b_times)| b_times.cmp(a_times).then_with(|| a.cmp(b)));
        let rest: u64 = all.iter().skip(count).map(|(_, times)| times).sum();
        let most = all.into_iter().take(count).map(|(what, times)| (what.clone(), times)).collect();
        Top { most, others: self.others + rest }
    }
}

/// Latencies up to this are counted exactly (milliseconds).
const EXACT_MS: u32 = 1 << PRECISION_BITS;
/// Above it, by their highest bits: to a thousandth.
const PRECISION_BITS: u32 = 10;

/// A histogram: exact where it matters, never more than some 22,000 buckets.
#[derive(Debug, Default)]
struct Latencies {
    buckets: BTreeMap<u32, u64>,
    count: u64,
}

impl Latencies {
    fn add(&mut self, ms: u32, times: u64) {
        *self.buckets.entry(rounded(ms)).or_default() += times;
        self.count += times;
    }

    fn percentile(&self, percent: u8) -> Option<u32> {
        // The nearest rank: the smallest value that so many do not exceed.
        let rank = self.count.saturating_mul(percent.into()).div_ceil(100).max(1);
        let mut seen = 0;
        self.buckets.iter().find_map(|(ms, times)| {
            seen += times;
            (seen >= rank).then_some(*ms)
        })
    }
}

/// A value with its lowest bits cut, so that its highest ones stay.
fn rounded(ms: u32) -> u32 {
    if ms < EXACT_MS {
        return ms;
    }
    let cut = u32::BITS - ms.leading_zeros() - PRECISION_BITS;
    ms >> cut << cut
}

#[cfg(test)]
mod tests {
    use domain::{
        access::{Denied, Visitor},
        ids::{EventId, ShareId},
    };
    use uuid::Uuid;

    use super::*;

    fn row(status_code: u16, latency_ms: u32, path: &str) -> AccessRow {
        AccessRow {
            event_id: EventId::new(Uuid::nil()),
            index: 0,
            share_id: ShareId::new(Uuid::nil()),
            accessed_at: Timestamp::from_millis(HOUR_MS * 10 + 5),
            method: "GET".to_owned(),
            status_code,
            latency_ms,
            bytes_in: 1,
            bytes_out: 2,
            denied: None,
            ended_by: None,
            running: false,
            repeat: None,
            visitor: Some(Visitor { ip: "192.0.2.1".to_owned(), user_agent: None, path: path.to_owned() }),
        }
    }

    fn stats(rows: impl IntoIterator<Item = AccessRow>) -> AccessStats {
        let mut stats = AccessStats::default();
        for row in rows {
            stats.add(&row);
        }
        stats
    }

    #[test]
    fn accesses_are_counted_by_status_path_address_and_hour() {
        let refused =
            AccessRow { denied: Some(Denied::PathNotAllowed), repeat: Some(4), ..row(403, 0, "/b") };
        let erased =
            AccessRow { visitor: None, accessed_at: Timestamp::from_millis(HOUR_MS * 9), ..row(200, 0, "") };
        let stats = stats([row(200, 1, "/a"), row(200, 1, "/b"), refused, erased]);
        assert_eq!((stats.accesses, stats.denied, stats.erased), (7, 4, 1));
        assert_eq!((stats.bytes_in, stats.bytes_out), (4, 8));
        assert_eq!(stats.by_status.into_iter().collect::<Vec<_>>(), [(200, 3), (403, 4)]);
        let hour = |n| Timestamp::from_millis(HOUR_MS * n);
        assert_eq!(stats.by_hour.into_iter().collect::<Vec<_>>(), [(hour(9), 1), (hour(10), 6)]);
        assert_eq!(stats.paths.top(1), Top { most: vec![("/b".to_owned(), 5)], others: 1 });
        assert_eq!(stats.addresses.top(9), Top { most: vec![("192.0.2.1".to_owned(), 6)], others: 0 });
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let hundred = stats((1..=100).map(|ms| row(200, ms, "/")));
        assert_eq!([50, 95, 99, 100].map(|percent| hundred.latency_ms(percent)), [50, 95, 99, 100].map(Some));
        assert_eq!(stats([row(200, 7, "/")]).latency_ms(50), Some(7));
        assert_eq!(stats([]).latency_ms(50), None);
        let running = AccessRow { running: true, ..row(200, 5_000, "/") };
        assert_eq!(stats([running]).latency_ms(99), None, "nobody knows yet how long it takes");
    }

    #[test]
    fn long_latencies_keep_three_digits() {
        for ms in [0, 1, 1_023, 1_024, 60_000, 123_456_789, u32::MAX] {
            let shown = rounded(ms);
            assert!(shown <= ms && ms - shown <= ms / 512, "{ms} shows as {shown}");
        }
    }

    #[test]
    fn invented_paths_do_not_grow_memory_without_end() {
        let stats = stats((0..DISTINCT_MAX + 50).map(|n| row(404, 1, &format!("/{n}"))));
        assert_eq!(stats.paths.counts.len(), DISTINCT_MAX);
        let top = stats.top_paths(3);
        assert_eq!((top.most.len(), top.others), (3, u64::try_from(DISTINCT_MAX + 47).unwrap()));
    }
}

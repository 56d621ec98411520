//! What the hub counts with: a relaxed addition to a number of one's own, without a lock, an allocation or a look-up.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

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
    static OWN_CELL: usize = NEXT_CELL.fetch_add(1, Relaxed) % CELLS;
}

impl Count {
    pub fn add(&self, n: u64) {
        self.own().fetch_add(n, Relaxed);
    }
    /// Takes back what was added, on any thread.
    pub fn sub(&self, n: u64) {
        self.own().fetch_sub(n, Relaxed);
    }
    /// Counts one until the answer is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.add(1);
        Held(self)
    }
    pub fn get(&self) -> u64 {
        // One thread may have added what another took back: only the sum means something.
        self.0.iter().fold(0_u64, |sum, cell| sum.wrapping_add(cell.0.load(Relaxed)))
    }
    /// The same for a gauge: read cell by cell while others count, the sum may be below zero for a moment.
    pub fn now(&self) -> u64 {
        u64::try_from(self.get().cast_signed()).unwrap_or(0)
    }
    fn own(&self) -> &AtomicU64 {
        &self.0[OWN_CELL.with(|cell| *cell)].0
    }
}

/// One of those that are counted now.
#[derive(Debug)]
pub struct Held<'a>(&'a Count);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// Counts by a name that the code has a list of. For what happens seldom: the name is looked for.
#[derive(Debug)]
pub struct ByName {
    named: Box<[(&'static str, Count)]>,
    /// Under a name that is not on the list: a mistake in the code, which must not cost a series each time.
    other: Count,
}

impl ByName {
    pub fn new(names: &[&'static str]) -> Self {
        let named = names.iter().map(|name| (*name, Count::default())).collect();
        Self { named, other: Count::default() }
    }

    pub fn add(&self, name: &str) {
        let known = self.named.iter().find(|(known, _)| *known == name);
        known.map_or(&self.other, |(_, count)| count).add(1);
    }

    /// Every name with its count, also those that never happened: a rate needs a first value.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let other = Some(("other", self.other.get())).filter(|(_, count)| *count > 0);
        self.named.iter().map(|(name, count)| (*name, count.get())).chain(other)
    }
}

/// How long things took, in few buckets.
#[derive(Debug)]
pub struct Times {
    bounds_us: &'static [u64],
    /// One more than there are bounds; not cumulative.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Times {
    /// Upper bounds of the buckets, in microseconds, in order; a last bucket holds the rest.
    pub fn new(bounds_us: &'static [u64]) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds_us.len() + 1).collect();
        Self { bounds_us, counts, sum_us: AtomicU64::default() }
    }

    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[self.bounds_us.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    pub fn read(&self) -> Distribution {
        Distribution::of_times(self.bounds_us, &self.counts, &self.sum_us)
    }
}

/// A distribution as it is at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds, in base units.
    pub bounds: Vec<f64>,
    /// One more than there are bounds; not cumulative.
    pub counts: Vec<u64>,
    pub sum: f64,
}

impl Distribution {
    /// Of times that were counted in microseconds.
    pub fn of_times(bounds_us: &[u64], counts: &[AtomicU64], sum_us: &AtomicU64) -> Self {
        Self {
            bounds: bounds_us.iter().map(|bound| seconds(*bound)).collect(),
            counts: counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: seconds(sum_us.load(Relaxed)),
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_thread_adds_another_takes_back() {
        let count = Count::default();
        std::thread::scope(|scope| {
            let held = count.hold();
            scope.spawn(|| count.add(5));
            scope.spawn(move || drop(held));
        });
        assert_eq!((count.get(), count.now()), (5, 5));
        count.sub(6);
        assert_eq!(count.now(), 0, "a gauge that is read in the middle of a change is not enormous");
    }

    #[test]
    fn an_unknown_name_makes_no_series_of_its_own() {
        let counts = ByName::new(&["gone", "failing"]);
        counts.add("gone");
        assert_eq!(counts.all().collect::<Vec<_>>(), [("gone", 1), ("failing", 0)]);
        counts.add("what a tenant wrote");
        counts.add("something else");
        assert_eq!(counts.all().last(), Some(("other", 2)));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let times = Times::new(&[1_000, 10_000]);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 3_000_000] {
            times.add(Duration::from_micros(micros));
        }
        let read = times.read();
        assert_eq!((read.bounds, read.counts), (vec![0.001, 0.01], vec![2, 2, 2]));
        assert!((read.sum - 3.022_002).abs() < 1e-9, "{}", read.sum);
    }
}

//! How many per minute: one limiter for the share edge and the API.
//!
//! It counts in buckets of five seconds and sums the last thirteen, so that never more than the limit passes in any
//! sixty seconds (at most five seconds too strict). Exact under concurrency: a check and its count are one step.
//! Memory is bounded whatever the key space: when there is no room for another key, addresses share the window of
//! their network and other keys share a fixed set of windows, which is stricter and never more permissive. What was
//! counted outlives the process ([`kept`]).

use std::{
    collections::HashMap,
    hash::{Hash, Hasher as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use bincode::{Decode, Encode};
use domain::time::Timestamp;
use parking_lot::Mutex;
use siphasher::sip::SipHasher13;
use uuid::Uuid;

use self::kept::Kept;
use crate::metrics::count::ByName;

pub mod kept;

/// The width of a bucket (milliseconds).
pub const BUCKET_MS: u64 = 5_000;
/// Buckets that cover any sixty seconds, wherever these begin.
pub const BUCKETS: usize = 13;
/// Keys that are told apart at once; 80 bytes each.
pub const KEYS_MAX: usize = 100_000;

const SHARDS: usize = 64;
const OVERFLOW_WINDOWS: usize = 4_096;

/// What is limited: windows of different scopes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Scope {
    /// Requests without valid credentials.
    Public,
    /// Requests with an API key.
    ApiKey,
    /// All requests through a share, by the hub's limit.
    Share,
    /// All requests through a share, by its owner's limit.
    ShareOwn,
    /// Tokens and slugs that nobody has.
    UnknownShare,
    /// Database queries through a share.
    Query,
    /// Guesses of environment codes.
    Code,
}

/// The names of all scopes, for metrics.
const SCOPES: [&str; 7] = ["public", "api_key", "share", "share_own", "unknown_share", "query", "code"];

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::ApiKey => "api_key",
            Self::Share => "share",
            Self::ShareOwn => "share_own",
            Self::UnknownShare => "unknown_share",
            Self::Query => "query",
            Self::Code => "code",
        }
    }
}

/// Whom the window belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    /// One visitor; IPv6 by its /64, which one machine has for itself.
    Address(IpAddr),
    /// A key, share or workspace.
    Id(Uuid),
    /// Everybody together.
    All,
}

/// One window's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub scope: Scope,
    pub of: Of,
}

impl Key {
    /// A visitor's key; IPv6 addresses of one /64 are one visitor, mapped IPv4 addresses are IPv4.
    pub fn address(scope: Scope, address: IpAddr) -> Self {
        Self { scope, of: Of::Address(network(address.to_canonical(), 32, 64)) }
    }
    pub const fn id(scope: Scope, id: Uuid) -> Self {
        Self { scope, of: Of::Id(id) }
    }
    pub const fn all(scope: Scope) -> Self {
        Self { scope, of: Of::All }
    }

    /// The coarser key that it falls back to when there is no room for it.
    fn overflow(self) -> Self {
        match self.of {
            Of::Address(address) => Self { of: Of::Address(network(address, 16, 32)), ..self },
            Of::Id(_) | Of::All => self,
        }
    }
}

fn network(address: IpAddr, v4_bits: u32, v6_bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX << (32 - v4_bits)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX << (128 - v6_bits)).into(),
    }
}

/// The answer to one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// The limit that was asked for; 0 means that there is none.
    pub limit: u32,
    /// How many more would pass now.
    pub remaining: u32,
    /// Seconds until more pass again (when refused), or until the oldest count is forgotten. At least 1 when refused.
    pub reset_s: u32,
}

impl Verdict {
    /// The answer where no limit is set.
    pub const UNLIMITED: Self = Self { allowed: true, limit: 0, remaining: u32::MAX, reset_s: 0 };
}

/// Counts of the last thirteen buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct Window {
    /// The bucket that `counts[newest % BUCKETS]` counts.
    newest: u64,
    counts: [u32; BUCKETS],
}

impl Window {
    const fn starting(bucket: u64) -> Self {
        Self { newest: bucket, counts: [0; BUCKETS] }
    }

    fn is_over(&self, bucket: u64) -> bool {
        bucket >= self.newest + BUCKETS as u64
    }

    fn check(&mut self, limit: u32, now_ms: u64) -> Verdict {
        // A caller that was overtaken counts into the newest bucket: time never goes back here.
        let bucket = (now_ms / BUCKET_MS).max(self.newest);
        if self.is_over(bucket) {
            *self = Self::starting(bucket);
        }
        while self.newest < bucket {
            self.newest += 1;
            self.counts[slot(self.newest)] = 0;
        }
        let passed: u32 = self.counts.iter().sum();
        let allowed = passed < limit;
        if allowed {
            self.counts[slot(bucket)] += 1;
        }
        let remaining = limit.saturating_sub(passed + u32::from(allowed));
        Verdict { allowed, limit, remaining, reset_s: self.reset_s(now_ms.max(bucket * BUCKET_MS)) }
    }

    /// When the oldest bucket with a count leaves the sum.
    fn reset_s(&self, now_ms: u64) -> u32 {
        let first = (self.newest + 1).saturating_sub(BUCKETS as u64);
        let oldest = (first..=self.newest).find(|bucket| self.counts[slot(*bucket)] > 0);
        let free_ms = oldest.map_or(now_ms, |bucket| (bucket + BUCKETS as u64) * BUCKET_MS);
        u32::try_from(free_ms.saturating_sub(now_ms).div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}

fn slot(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).expect("less than thirteen")
}

/// Some of the keys' windows.
#[derive(Debug, Default)]
struct Shard {
    windows: HashMap<Key, Window>,
    /// The bucket in which windows that were over were last removed: no other is over before the next one begins.
    swept: u64,
}

impl Shard {
    fn is_full(&mut self, keys_max: usize, bucket: u64) -> bool {
        if self.windows.len() >= keys_max && bucket > self.swept {
            self.windows.retain(|_, window| !window.is_over(bucket));
            self.swept = bucket;
        }
        self.windows.len() >= keys_max
    }
}

/// The limiter. Shared by every thread that serves requests.
#[derive(Debug)]
pub struct Limiter {
    shards: Box<[Mutex<Shard>]>,
    overflow: Box<[Mutex<Window>]>,
    keys_per_shard: usize,
    /// Nobody outside knows whom a key shares a window with.
    places: [u64; 2],
    /// Buckets are numbered by the wall clock of the start and counted on by the monotonic one.
    started_ms: u64,
    epoch: Instant,
    /// What was refused, by scope.
    refused: ByName,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(KEYS_MAX)
    }
}

impl Limiter {
    /// A limiter that tells `keys_max` keys apart.
    pub fn new(keys_max: usize) -> Self {
        let places = crate::secrets::random_bytes();
        let place = |at: usize| u64::from_le_bytes(*places[at..].first_chunk().expect("32 bytes"));
        Self::starting(keys_max, [place(0), place(8)], 0)
    }

    /// A limiter that goes on where an earlier process was, as far as that kept it.
    pub fn resumed(keys_max: usize, kept: Option<Kept>, now: Timestamp) -> Self {
        let now_ms = u64::try_from(now.millis()).unwrap_or(0);
        match kept {
            None => Self { started_ms: now_ms, ..Self::new(keys_max) },
            Some(kept) => kept.resumed(keys_max, now_ms),
        }
    }

    fn starting(keys_max: usize, places: [u64; 2], started_ms: u64) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            overflow: (0..OVERFLOW_WINDOWS).map(|_| Mutex::new(Window::starting(0))).collect(),
            keys_per_shard: keys_max.div_ceil(SHARDS).max(1),
            places,
            started_ms,
            epoch: Instant::now(),
            refused: ByName::new(&SCOPES),
        }
    }

    fn now_ms(&self) -> u64 {
        self.started_ms.saturating_add(u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts one request if it may pass. A `limit` of 0 lets everything pass.
    pub fn check(&self, key: Key, limit: u32) -> Verdict {
        self.check_at(key, limit, self.now_ms())
    }

    /// Like [`Limiter::check`] at a moment of a monotonic clock (milliseconds), so that a test can set the time.
    pub fn check_at(&self, key: Key, limit: u32, now_ms: u64) -> Verdict {
        if limit == 0 {
            return Verdict::UNLIMITED;
        }
        let verdict = self.judge(key, limit, now_ms);
        if !verdict.allowed {
            self.refused.add(key.scope.name());
        }
        verdict
    }

    fn judge(&self, key: Key, limit: u32, now_ms: u64) -> Verdict {
        let bucket = now_ms / BUCKET_MS;
        let mut shard = self.shards[self.place(&key, SHARDS)].lock();
        if let Some(window) = shard.windows.get_mut(&key) {
            return window.check(limit, now_ms);
        }
        let is_full = shard.is_full(self.keys_per_shard, bucket);
        let mut shared = self.overflow[self.place(&key.overflow(), OVERFLOW_WINDOWS)].lock();
        if is_full {
            drop(shard);
            return shared.check(limit, now_ms);
        }
        // What the key counted while there was no room for it must not be forgotten.
        let start = if shared.is_over(bucket) { Window::starting(bucket) } else { *shared };
        drop(shared);
        shard.windows.entry(key).or_insert(start).check(limit, now_ms)
    }

    /// How many requests were refused so far, by scope.
    pub fn refused(&self) -> &ByName {
        &self.refused
    }

    /// How many keys have a window of their own now.
    pub fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().windows.len()).sum()
    }

    fn place(&self, key: &Key, places: usize) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.places[0], self.places[1]);
        key.hash(&mut hasher);
        let places = u64::try_from(places).expect("a usize fits into 64 bits");
        usize::try_from(hasher.finish() % places).expect("less than a usize")
    }
}

#[cfg(test)]
mod tests;

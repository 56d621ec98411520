//! What a limiter has counted, in a file: a hub that was killed and is back goes on counting where it was.
//!
//! Written whole once a second while anything is counted, so a killed process forgets one second at most; not synced,
//! since a machine that loses power is away for longer than a window. Windows of every scope are in it, the shares' too,
//! so nothing has to be read from the access log at a start. Whatever is wrong with the file: it is ignored.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bincode::{Decode, Encode};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BUCKET_MS, Key, Limiter, OVERFLOW_WINDOWS, Of, SHARDS, Scope, Window};
use crate::secrets::sha256;

/// How much a killed process may forget.
pub const EVERY: Duration = Duration::from_secs(1);
/// The first bytes; another layout of [`Kept`] has another number.
const MAGIC: &[u8; 8] = b"pclimit1";
const DIGEST_BYTES: usize = 32;
/// No file that we write is larger (bytes): every window with large numbers in all of its buckets.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A limiter's windows at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    /// On the limiter's own clock.
    at_ms: u64,
    places: [u64; 2],
    windows: Vec<(Scope, Whose, Window)>,
    /// The shared windows that count anything, by their place.
    overflow: Vec<(u32, Window)>,
}

/// [`Of`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
enum Whose {
    Address(IpAddr),
    Id(u128),
    All,
}

impl From<Of> for Whose {
    fn from(of: Of) -> Self {
        match of {
            Of::Address(address) => Self::Address(address),
            Of::Id(id) => Self::Id(id.as_u128()),
            Of::All => Self::All,
        }
    }
}

impl From<Whose> for Of {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Address(address) => Self::Address(address),
            Whose::Id(id) => Self::Id(Uuid::from_u128(id)),
            Whose::All => Self::All,
        }
    }
}

impl Kept {
    /// A limiter that goes on from here at `now_ms` of the wall clock. A wall clock that was set back does not take
    /// its time along: counts would outlive their minute by as much.
    pub(super) fn resumed(self, keys_max: usize, now_ms: u64) -> Limiter {
        let started_ms = now_ms.max(self.at_ms);
        let limiter = Limiter::starting(keys_max, self.places, started_ms);
        for (scope, whose, window) in self.windows {
            let key = Key { scope, of: whose.into() };
            let mut shard = limiter.shards[limiter.place(&key, SHARDS)].lock();
            if !window.is_over(started_ms / BUCKET_MS) && shard.windows.len() < limiter.keys_per_shard {
                shard.windows.insert(key, window);
            }
        }
        for (place, window) in self.overflow {
            if let Some(shared) = usize::try_from(place).ok().and_then(|place| limiter.overflow.get(place)) {
                *shared.lock() = window;
            }
        }
        limiter
    }

    /// Whether only the time has passed.
    fn counts_the_same(&self, other: &Self) -> bool {
        self.windows == other.windows && self.overflow == other.overflow
    }

    fn bytes(&self) -> Vec<u8> {
        let body =
            bincode::encode_to_vec(self, bincode::config::standard()).expect("plain numbers always encode");
        [MAGIC.as_slice(), &sha256(&body), &body].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (digest, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<DIGEST_BYTES>()?;
        if sha256(body) != *digest {
            return None;
        }
        let config = bincode::config::standard().with_limit::<{ BYTES_MAX as usize }>();
        bincode::decode_from_slice(body, config).ok().map(|(kept, _)| kept)
    }
}

impl Limiter {
    /// Everything that still counts.
    pub fn keep(&self) -> Kept {
        self.keep_at(self.now_ms())
    }

    pub(super) fn keep_at(&self, at_ms: u64) -> Kept {
        let bucket = at_ms / BUCKET_MS;
        let mut windows = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let living = shard.windows.iter().filter(|(_, window)| !window.is_over(bucket));
            windows.extend(living.map(|(key, window)| (key.scope, key.of.into(), *window)));
        }
        debug_assert!(self.overflow.len() == OVERFLOW_WINDOWS, "places are numbers of shared windows");
        let overflow = (0_u32..).zip(&self.overflow).map(|(place, window)| (place, *window.lock()));
        let overflow = overflow.filter(|(_, window)| window.newest > 0 && !window.is_over(bucket)).collect();
        Kept { at_ms, places: self.places, windows, overflow }
    }
}

/// Where a hub keeps it.
#[derive(Debug, Clone)]
pub struct KeptFile(PathBuf);

impl KeptFile {
    /// In a data directory.
    pub fn of(data: &Path) -> Self {
        Self(data.join("state").join("limits"))
    }

    /// What an earlier process kept; `None` where there is nothing that can be used.
    pub fn load(&self) -> Option<Kept> {
        let file = fs::metadata(&self.0).ok()?;
        let kept = (file.len() <= BYTES_MAX)
            .then(|| fs::read(&self.0).ok())
            .flatten()
            .and_then(|bytes| Kept::from_bytes(&bytes));
        if kept.is_none() {
            tracing::warn!(path = %self.0.display(), "the counts of rate limits cannot be read: they begin anew");
        }
        kept
    }

    /// Puts `kept` in the place of what was there, whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, kept: &Kept) -> io::Result<()> {
        let beside = self.0.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(&kept.bytes())?;
        fs::rename(&beside, &self.0)
    }

    async fn save_aside(&self, kept: Arc<Kept>) -> io::Result<()> {
        let file = self.clone();
        tokio::task::spawn_blocking(move || file.save(&kept))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Saves once a second, as long as something is counted, and once more at the end.
    pub async fn keep(self, limiter: Arc<Limiter>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut has_failed) = (None::<Arc<Kept>>, false);
        loop {
            let over = tokio::select! {
                _ = ticks.tick() => false,
                () = stop.cancelled() => true,
            };
            let kept = Arc::new(limiter.keep());
            if last.as_ref().is_none_or(|last| !last.counts_the_same(&kept)) {
                match self.save_aside(Arc::clone(&kept)).await {
                    Ok(()) => (last, has_failed) = (Some(kept), false),
                    // Said once, not every second.
                    Err(error) => {
                        if !std::mem::replace(&mut has_failed, true) {
                            tracing::warn!(%error, "the counts of rate limits cannot be kept: a restart would forget them");
                        }
                    }
                }
            }
            if over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

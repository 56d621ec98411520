//! Reads in the background what a start from a checkpoint did not: the same walk and the same rules as a start that
//! reads everything, at a bounded rate, in a thread of its own that ends with the log.
//!
//! It stops at the first damage: one is enough to call the operator, and `hub verify` is theirs. The segments it reads
//! change no more below their committed ends, so the writer and the scrub never meet.

use std::{
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use domain::recorded::Family;
use parking_lot::Mutex;

use super::{
    chain::{Chains, heads_hash},
    files::log_dir,
    frame::Link,
    index::Location,
    published::{Durable, Shared},
    retired,
    scan::{AllSegments, Damage, Extent, FROM_THE_START, Found, Step, Walk, stream_of},
};

/// The scrub pauses when it is ahead of its rate by more than this: shorter naps are only switches.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The part of a log that a checkpoint vouches for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unread {
    /// Its last commit.
    commit: u64,
    /// The position of the last event of that.
    position: u64,
    /// The hash over the heads of the chains there.
    heads: Link,
}

impl Unread {
    /// Everything up to the point that `durable` tells of.
    pub(crate) fn before(durable: &Durable) -> Self {
        let (commit, position) = (durable.commit, durable.position);
        Self { commit, position, heads: heads_hash(&durable.chains.heads) }
    }
}

/// The running check.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// Dropped to stop it.
    stop: Mutex<Option<mpsc::Sender<()>>>,
    thread: JoinHandle<()>,
}

impl Scrub {
    pub(crate) fn start(shared: Arc<Shared>, unread: Unread, bytes_per_s: u64) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let pace = Pace { began: Instant::now(), bytes: 0, bytes_per_s: bytes_per_s.max(1), stopped };
        let thread =
            std::thread::Builder::new().name("log-scrub".into()).spawn(move || run(&shared, unread, pace))?;
        Ok(Self { stop: Mutex::new(Some(stop)), thread })
    }

    pub(crate) fn begin_stop(&self) {
        drop(self.stop.lock().take());
    }

    pub(crate) fn join(self) {
        self.begin_stop();
        if self.thread.join().is_err() {
            tracing::error!("the check of the log in the background panicked");
        }
    }
}

fn run(shared: &Shared, unread: Unread, mut pace: Pace) {
    let began = Instant::now();
    let walked = walk(shared, unread, &mut pace);
    shared.scrubbing.store(false, Relaxed);
    match walked {
        Ok(Ended::Clean) => {
            let took_s = began.elapsed().as_secs();
            tracing::info!(
                bytes = pace.bytes,
                took_s,
                "what the start did not read of the event log is intact"
            );
        }
        Ok(Ended::Stopped) => {}
        Err(damage) => shared.note_damage(&damage.to_string()),
    }
}

enum Ended {
    Clean,
    Stopped,
}

fn walk(shared: &Shared, unread: Unread, pace: &mut Pace) -> Result<Ended, Damage> {
    let segments: AllSegments = Family::ALL.map(|family| shared.index.family(family).read().kept().to_vec());
    let retired = retired::read(&shared.data, shared.log_id)?.map(|(retired, _)| retired);
    let boundary = retired.as_ref().map(|it| it.boundary).unwrap_or_default();
    let mut walk = Walk::new(&segments, shared.log_id, Extent::Committed, FROM_THE_START, boundary)?;
    let mut chains = Chains::after(retired.as_ref());
    while walk.commit < unread.commit {
        let mut check = |found: Found<'_>| {
            check(shared, &mut chains, found).map_err(|reason| found.damage(&segments, reason))
        };
        // All of this is acknowledged: an end before that is damage, and the walk says so.
        if let Step::End(_) = walk.step(unread.position, &mut check)? {
            break;
        }
        let bytes = walk.last_parts.iter().map(|(_, _, start, end)| end - start).sum();
        shared.stats.scrubbed_bytes.fetch_add(bytes, Relaxed);
        if pace.is_over(bytes) {
            return Ok(Ended::Stopped);
        }
    }
    if heads_hash(&chains.heads) == unread.heads {
        return Ok(Ended::Clean);
    }
    let last = walk.last_parts.first();
    let file = last.map(|(family, segment, ..)| segments[*family as usize][*segment].path.clone());
    Err(Damage {
        file: file.unwrap_or_else(|| log_dir(&shared.data)),
        offset: last.map_or(0, |(_, _, start, _)| *start),
        position: Some(walk.position),
        stream: None,
        event: None,
        reason: "the log up to here is not the one that the checkpoint saw".to_owned(),
        unreadable: false,
    })
}

/// What a start that reads everything checks, and that the index says the same as the log.
fn check(shared: &Shared, chains: &mut Chains, found: Found<'_>) -> Result<(), &'static str> {
    let event = found.event;
    chains.follow(found.family, event)?;
    let stream = stream_of(found)?;
    let entry = shared.index.streams.get(&stream);
    let known = entry.and_then(|entry| entry.location(event.revision()));
    if known != Some(Location::new(found.segment, found.offset)) {
        return Err("the index has its stream's revision elsewhere");
    }
    event.decode().map(drop).ok_or("it does not have the form of an event")
}

/// Keeps to a rate, and hears when it is to stop.
struct Pace {
    began: Instant,
    bytes: u64,
    bytes_per_s: u64,
    stopped: mpsc::Receiver<()>,
}

impl Pace {
    /// Waits as long as `bytes` more call for. Whether it was told to stop.
    fn is_over(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_s as f64);
        let ahead = due.saturating_sub(self.began.elapsed());
        let wait = if ahead < PAUSE_MIN { Duration::ZERO } else { ahead };
        self.stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
    }
}

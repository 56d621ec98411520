//! Durable appends per second in PostgreSQL, beside the embedded engine on the same machine.
//!
//! `cargo bench -p hub --bench external_append -- postgres://USER:PASSWORD@HOST/DATABASE [<directory>]`: the database is
//! an empty one, and keeps what is written to it. Every pass runs both engines in turn; the table shows medians of three
//! passes. The writers are tasks on one current-thread runtime, each with a stream of its own and one append under way.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: its output is the table")]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use domain::{
    ids::{EventId, ShareId, WorkspaceId},
    recorded::{Actor, Families, StreamName},
    time::Timestamp,
};
use hub::{
    event_log::{
        Append, Expected, NewEvent, SharedLog,
        postgres::{self, Address, Postgres},
        segments::{self, LogStats, Segments},
    },
    keyring::Keyring,
};
use uuid::Uuid;

const EVENT_BYTES: usize = 300;
const PASS: Duration = Duration::from_secs(2);
const PASSES: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(url) = arguments.next() else {
        println!("skipped: give the address of an empty database, postgres://…");
        return;
    };
    let root = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        println!("| engine | writers | events/s | p50 µs | p99 µs | max µs | events per commit |");
        println!("|---|---|---|---|---|---|---|");
        for writers in [1, 16, 256] {
            let (mut embedded, mut external) = (Vec::new(), Vec::new());
            for _ in 0..PASSES {
                let dir = tempfile::tempdir_in(&root).unwrap();
                let segments =
                    Segments::open(dir.path(), segments::Options::new(keyring(dir.path()))).unwrap();
                let stats = segments.stats();
                embedded.push(appends(Arc::new(segments), &stats, writers).await);
                let log = in_database(&url, dir.path()).await;
                let stats = log.stats();
                external.push(appends(log, &stats, writers).await);
            }
            for (engine, figures) in [("segments", &mut embedded), ("PostgreSQL", &mut external)] {
                figures.sort_by(|one, other| one.rate.total_cmp(&other.rate));
                let Figures { rate, p50, p99, max, batch } = figures[PASSES / 2];
                println!("| {engine} | {writers} | {rate:.0} | {p50} | {p99} | {max} | {batch:.1} |");
            }
        }
        read(&url, &root).await;
    });
}

fn keyring(dir: &Path) -> Arc<Keyring> {
    Arc::new(Keyring::open(&dir.join("keyring")).unwrap())
}

async fn in_database(url: &str, dir: &Path) -> Arc<Postgres> {
    let address = Address::parse(url).unwrap();
    let seals = dir.join("external-seals");
    let options = postgres::Options::new(address, keyring(dir), seals, "bench");
    Arc::new(Postgres::open(options).await.unwrap())
}

#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: u128,
    p99: u128,
    max: u128,
    batch: f64,
}

fn append(stream: &StreamName, revision: u64) -> Append {
    Append {
        stream: stream.clone(),
        expected: Expected::Revision(revision),
        workspace: WorkspaceId::new(Uuid::from_u128(1)),
        actor: Actor::System("bench".into()),
        correlation: None,
        at: Timestamp::from_millis(1_800_000_000_000),
        events: vec![NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: "share.revoked",
            version: 1,
            data: format!("{:x<EVENT_BYTES$}", ""),
            personal: None,
            causation: None,
        }],
    }
}

async fn appends(log: SharedLog, stats: &LogStats, writers: usize) -> Figures {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let log = log.clone();
            tokio::task::spawn_local(async move {
                let stream = StreamName::share(ShareId::new(Uuid::new_v4()));
                let mut latencies = Vec::new();
                while began.elapsed() < PASS {
                    let append = append(&stream, latencies.len() as u64);
                    let sent = Instant::now();
                    log.append(append).await.unwrap();
                    latencies.push(sent.elapsed().as_micros());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
    let batch = stats.events.load(Relaxed) as f64 / stats.commits.load(Relaxed) as f64;
    log.close().await;
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    Figures { rate, p50: at(0.5), p99: at(0.99), max: at(1.0), batch }
}

/// Everything that was written, read as a view does it, and checked.
async fn read(url: &str, root: &Path) {
    let dir = tempfile::tempdir_in(root).unwrap();
    let log: SharedLog = in_database(url, dir.path()).await;
    let began = Instant::now();
    let mut after = 0;
    loop {
        let batch = log.read_all(after, Families::ALL, 2_000).await.unwrap();
        let Some(last) = batch.last() else { break };
        after = last.position;
    }
    let took = began.elapsed().as_secs_f64();
    log.close().await;
    println!();
    println!("read: {after} events in {took:.2} s, {:.0} events/s", after as f64 / took);
}

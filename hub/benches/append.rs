//! Durable appends per second, beside a raw loop of write and fdatasync on the same disk, and how long a start takes.
//!
//! `cargo bench -p hub --bench append [-- <directory>]`. Every pass runs raw and log in turn, so both see the same disk;
//! the table shows medians of three passes. The writers are tasks on one current-thread runtime, as in the hub, whose
//! arbiters are such runtimes; the log's own threads come on top. The raw loop writes one block of the same payload
//! per turn, without envelope, chain or checksum, into a file whose zeros are on disk already: nothing can be faster.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: its output is the table")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use domain::{
    ids::{EventId, ShareId, WorkspaceId},
    recorded::{Actor, StreamName},
    time::Timestamp,
};
use hub::{
    event_log::{
        Append, EventLog, Expected, NewEvent,
        segments::{Options, Segments},
        verify::verify,
    },
    keyring::Keyring,
};
use uuid::Uuid;

const EVENT_BYTES: usize = 300;
const PASS: Duration = Duration::from_secs(2);
const PASSES: usize = 3;

fn main() {
    let root = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let root = root.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "| writers | raw events/s | log events/s | log / raw | p50 µs | p99 µs | max µs | events per commit |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for writers in [1, 16, 256] {
        let mut raws = Vec::new();
        let mut logs = Vec::new();
        for _ in 0..PASSES {
            let dir = tempfile::tempdir_in(&root).unwrap();
            raws.push(raw(dir.path(), writers));
            logs.push(appends(&open(&dir.path().join("data")), writers, Until::Elapsed(PASS)));
        }
        raws.sort_by(f64::total_cmp);
        logs.sort_by(|one, other| one.rate.total_cmp(&other.rate));
        let (raw, log) = (raws[PASSES / 2], &logs[PASSES / 2]);
        println!(
            "| {writers} | {raw:.0} | {:.0} | {:.2} | {} | {} | {} | {:.1} |",
            log.rate,
            log.rate / raw,
            log.p50,
            log.p99,
            log.max,
            log.batch
        );
    }
    println!();
    start(&root);
    println!();
    many(&root);
}

/// Events per second when `batch` of them are written with one write and one sync.
fn raw(dir: &Path, batch: usize) -> f64 {
    let file =
        File::options().create(true).truncate(true).read(true).write(true).open(dir.join("raw")).unwrap();
    let size: u64 = 256 * 1024 * 1024;
    let zeros = vec![0; 1024 * 1024];
    for at in (0..size).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).unwrap();
    }
    file.sync_all().unwrap();
    let block = vec![b'x'; EVENT_BYTES * batch];
    let began = Instant::now();
    let (mut at, mut events) = (0, 0);
    while began.elapsed() < PASS {
        if at + block.len() as u64 > size {
            at = 0;
        }
        file.write_all_at(&block, at).unwrap();
        file.sync_data().unwrap();
        at += block.len() as u64;
        events += batch;
    }
    events as f64 / began.elapsed().as_secs_f64()
}

struct Figures {
    rate: f64,
    p50: u128,
    p99: u128,
    max: u128,
    batch: f64,
}

fn open(data: &Path) -> Arc<Segments> {
    let keyring = Arc::new(Keyring::open(&data.join("keyring")).unwrap());
    Arc::new(Segments::open(data, Options::new(keyring)).unwrap())
}

fn append(stream: &StreamName, revision: u64, bytes: usize) -> Append {
    Append {
        stream: stream.clone(),
        expected: Expected::Revision(revision),
        workspace: WorkspaceId::new(Uuid::from_u128(1)),
        actor: Actor::System("bench".into()),
        correlation: None,
        at: Timestamp::from_millis(1_800_000_000_000),
        events: vec![NewEvent {
            id: EventId::new(Uuid::new_v4()),
            event_type: "share.revoked",
            version: 1,
            data: format!("{:x<bytes$}", ""),
            personal: None,
            causation: None,
        }],
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// When the writers stop.
#[derive(Clone, Copy)]
enum Until {
    Elapsed(Duration),
    /// So many events each.
    Events(usize),
}

fn appends(log: &Arc<Segments>, writers: usize, until: Until) -> Figures {
    let runtime = runtime();
    let local = tokio::task::LocalSet::new();
    let began = Instant::now();
    let mut latencies: Vec<u128> = local.block_on(&runtime, async {
        let tasks: Vec<_> = (0..writers)
            .map(|n| {
                let log = Arc::clone(log);
                tokio::task::spawn_local(async move {
                    let stream = StreamName::share(ShareId::new(Uuid::from_u128(n as u128)));
                    let mut latencies = Vec::new();
                    while match until {
                        Until::Elapsed(span) => began.elapsed() < span,
                        Until::Events(count) => latencies.len() < count,
                    } {
                        let append = append(&stream, latencies.len() as u64, EVENT_BYTES);
                        let sent = Instant::now();
                        log.append(append).await.unwrap();
                        latencies.push(sent.elapsed().as_micros());
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
    let stats = log.stats();
    let batch = stats.events.load(Relaxed) as f64 / stats.commits.load(Relaxed) as f64;
    runtime.block_on(log.close());
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    Figures { rate, p50: at(0.5), p99: at(0.99), max: at(1.0), batch }
}

/// 200,000 facts in 20,000 streams and 50,000 packed accesses of 16 KiB: how long until the log is ready?
fn start(root: &Path) {
    let dir = tempfile::tempdir_in(root).unwrap();
    let data = dir.path().join("data");
    let log = open(&data);
    let runtime = runtime();
    runtime.block_on(async {
        for round in 0..10 {
            for block in 0..20 {
                let facts = (0..1_000).map(|n| {
                    let share = ShareId::new(Uuid::from_u128(block * 1_000 + n));
                    log.append(append(&StreamName::share(share), round, EVENT_BYTES))
                });
                assert!(futures_util::future::join_all(facts).await.iter().all(Result::is_ok));
            }
            for turn in 0..50 {
                let accesses = (0..100).map(|n| {
                    let stream = StreamName::accesses(ShareId::new(Uuid::from_u128(n)), Uuid::from_u128(1));
                    log.append(append(&stream, u64::try_from(turn).unwrap() + round * 50, 16 * 1024))
                });
                assert!(futures_util::future::join_all(accesses).await.iter().all(Result::is_ok));
            }
        }
        log.close().await;
    });
    drop(log);
    let index = data.join("state").join("index");
    println!("| start with 250,000 events, 0.9 GB | ms until ready | events read |");
    println!("|---|---|---|");
    let report = |what: &str| {
        let log = open(&data);
        let opened = log.opened();
        println!("| {what} | {} | {} |", opened.took.as_millis(), opened.events_read);
        runtime.block_on(log.close());
    };
    let size = std::fs::metadata(&index).unwrap().len() / 1024;
    report(&format!("with checkpoint ({size} KiB)"));
    std::fs::remove_file(&index).unwrap();
    report("without checkpoint");
    let began = Instant::now();
    let verified = verify(&data, None).unwrap();
    println!("| verify | {} | {} |", began.elapsed().as_millis(), verified.position);
}

/// A million events, then two, by 256 writers: the slowest append, and the start afterwards.
fn many(root: &Path) {
    println!("| events | events/s | max append µs | ms until ready with checkpoint | without |");
    println!("|---|---|---|---|---|");
    for events in [1_000_000, 2_000_000] {
        let dir = tempfile::tempdir_in(root).unwrap();
        let data = dir.path().join("data");
        let figures = appends(&open(&data), 256, Until::Events(events / 256));
        let with = open(&data).opened().took.as_millis();
        std::fs::remove_file(data.join("state").join("index")).unwrap();
        let without = open(&data).opened().took.as_millis();
        println!("| {events} | {:.0} | {} | {with} | {without} |", figures.rate, figures.max);
    }
}

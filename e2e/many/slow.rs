//! Thousands of visitors who dawdle (slowhttptest) beside one who does not.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Hub, Machine, api,
    http::{Connection, split_link},
    process::Process,
};
use serde_json::json;

use crate::{
    crowd::patient,
    measured::{Bars, Cost, mebibytes, quantiles},
    tunnels::many_files,
};

const CONNECTIONS: usize = 4_000;
const PER_SECOND: &str = "400";
/// The bars of S22.
const P99_MS_MAX: f64 = 500.0;
const MEBIBYTES_MAX: f64 = 512.0;
const CUT_SECONDS_MAX: f64 = 30.0;
/// How often the other visitor asks.
const ASK_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many requests the other visitor keeps a connection.
const KEPT_FOR: u64 = 100;
/// Larger than what the system keeps for a connection, so that it matters who reads.
const FILE_BYTES: usize = 8 << 20;

/// How a visitor is slow.
const WAYS: [(&str, &[&str]); 4] = [
    ("slow heads (-H)", &["-H", "-i", "5", "-x", "24"]),
    ("slow bodies (-B)", &["-B", "-i", "5", "-s", "65536", "-x", "24", "-t", "POST"]),
    ("slow reads (-X)", &["-X", "-n", "5", "-z", "32", "-w", "512", "-y", "1024"]),
    ("many ranges (-R)", &["-R", "-a", "5", "-b", "2000"]),
];

/// All ways, or those whose name contains a word.
pub(crate) fn run(bars: &mut Bars, seconds: usize, way: &str) {
    many_files(3 * CONNECTIONS);
    let target = patient(FILE_BYTES);
    println!(
        "| {CONNECTIONS} visitors for {seconds} s | asked | p50 ms | p99 ms | max ms | failed | hub peak MiB | most at once | longest-lived s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut said = Vec::new();
    for (name, flags) in WAYS.into_iter().filter(|(name, _)| name.contains(way)) {
        let hub = Hub::start();
        let machine = Machine::new(&hub);
        let exposed = machine.expose_with(target, "slow", &["--protocol", "http"]);
        let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "slow" }));
        let (edge, host, path) = split_link(&api::text(&share, "shareUrl"));
        let path = path.trim_end_matches('/');
        let outcome = one(&hub, edge, &host, path, flags, seconds);
        let Outcome { mut times, failed, peak, most, longest } = outcome;
        let [p50, p99, max] = quantiles(&mut times, [0.5, 0.99, 1.0]);
        println!(
            "| {name} | {} | {p50:.1} | {p99:.1} | {max:.1} | {failed} | {:.0} | {most} | {:.1} |",
            times.len(),
            mebibytes(peak),
            longest.as_secs_f64()
        );
        said.push((name, p99, failed, peak, longest));
    }
    println!();
    for (name, p99, failed, peak, longest) in said {
        bars.at_most(&format!("{name}: p99 of the other visitor"), p99, P99_MS_MAX, "ms");
        bars.at_most(&format!("{name}: failures of the other visitor"), failed as f64, 0.0, "");
        bars.at_most(&format!("{name}: the hub's peak"), mebibytes(peak), MEBIBYTES_MAX, "MiB");
        bars.at_most(
            &format!("{name}: the longest-lived slow visitor"),
            longest.as_secs_f64(),
            CUT_SECONDS_MAX,
            "s",
        );
    }
}

struct Outcome {
    times: Vec<Duration>,
    failed: usize,
    peak: u64,
    most: usize,
    longest: Duration,
}

fn one(hub: &Hub, edge: SocketAddr, host: &str, path: &str, flags: &[&str], seconds: usize) -> Outcome {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| ask(edge, host, &format!("{path}/small"), &over));
        let watching = scope.spawn(|| watch(hub.pid(), edge, &over));
        let mut slow = Process::spawn(
            "slowhttptest",
            Command::new("slowhttptest")
                .args(flags)
                .args([
                    "-c",
                    &CONNECTIONS.to_string(),
                    "-r",
                    PER_SECOND,
                    "-l",
                    &seconds.to_string(),
                    "-v",
                    "1",
                ])
                .args(["-p", "5", "-u", &format!("http://{edge}{path}/large")])
                .stdin(Stdio::null()),
        );
        slow.wait(Duration::from_secs(u64::try_from(seconds).expect("a number of seconds") + 60));
        over.store(true, Ordering::Relaxed);
        let (times, failed) = asking.join().expect("the other visitor does not panic");
        let (peak, most, longest) = watching.join().expect("watching does not panic");
        Outcome { times, failed, peak, most, longest }
    })
}

/// A visitor who is not slow: on a new connection and on a kept one in turn.
fn ask(edge: SocketAddr, host: &str, path: &str, over: &AtomicBool) -> (Vec<Duration>, usize) {
    let (mut times, mut failed, mut kept) = (Vec::new(), 0, None);
    let headers = [("host", host)];
    for turn in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let is_new = turn % 2 == 0;
        let connection = if is_new { None } else { kept.take() };
        let answered = connection.map_or_else(|| Connection::open(edge), Ok).and_then(|mut connection| {
            let answer = connection.request("GET", path, &headers, None)?;
            Ok((connection, answer.status))
        });
        match answered {
            Ok((connection, 200)) => {
                times.push(begun.elapsed());
                // Not for ever: what is measured beside is how long the others stay.
                let is_worn = !is_new && turn % KEPT_FOR == 1;
                if kept.is_none() && !is_worn {
                    kept = Some(connection);
                }
            }
            Ok((_, status)) => {
                eprintln!("the other visitor was answered {status}");
                failed += 1;
            }
            Err(error) => {
                eprintln!("the other visitor was not answered: {error}");
                failed += 1;
            }
        }
        thread::sleep(ASK_EVERY.saturating_sub(begun.elapsed()));
    }
    (times, failed)
}

/// The hub's peak memory, how many visitors it had at once, and how long the longest-lived connection was there.
fn watch(pid: u32, edge: SocketAddr, over: &AtomicBool) -> (u64, usize, Duration) {
    let mut born = std::collections::HashMap::<u16, Instant>::new();
    let (mut peak, mut most, mut longest) = (0, 0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        peak = peak.max(Cost::of(pid).memory);
        let now = Instant::now();
        let visitors = visitors(edge.port());
        most = most.max(visitors.len());
        born.retain(|port, _| visitors.contains(port));
        for port in visitors {
            longest = longest.max(now - *born.entry(port).or_insert(now));
        }
        thread::sleep(LOOK_EVERY);
    }
    (peak, most, longest)
}

/// The ports of those whose connection to the edge stands, as the system lists them.
fn visitors(edge: u16) -> std::collections::HashSet<u16> {
    const ESTABLISHED: &str = "01";
    let port = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux lists its connections");
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_visitor = *fields.get(3)? == ESTABLISHED && port(fields[1])? == edge;
            if is_visitor { port(fields[2]) } else { None }
        })
        .collect()
}

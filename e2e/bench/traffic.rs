//! Other people's bytes: a tunnel port, a share and a `reach`, beside the same target directly, behind nginx, and through the
//! tunnels of others that are installed.
//!
//! Every row is measured on all ways in turn before the next pass begins; a ratio is one of the same pass. wrk, nginx and
//! iperf3 share the machine's cores with hub and agents, so 0.5 means that the way makes the whole thing twice as dear.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    Hub, Machine, api,
    targets::{Nginx, succeeds},
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

use super::{PASSES, median, number, peers};

const SECONDS: &str = "4";
const SMALL_BYTES: usize = 1_024;
const LARGE_BYTES: usize = 1024 * 1024;
/// The share's host name at the edge.
const SHARE_HOST: &str = "bench.localhost";

/// Requests of the dear measure, and of how many the figure is.
const COUNTED: u32 = 40_000;
const COUNTED_PER: f64 = 10_000.0;
/// Clients of the steady measure, and the requests per second of each: 2,000 in all.
const STEADY_CLIENTS: &str = "16";
const STEADY_RATE: &str = "125";

/// One way to the target.
struct Way {
    name: &'static str,
    address: SocketAddr,
    host: &'static str,
    /// Whose processor time it takes.
    pids: Vec<u32>,
}

/// Prints the tables.
pub(super) fn traffic() {
    let small = vec![b'x'; SMALL_BYTES];
    let large = vec![b'x'; LARGE_BYTES];
    let target = Nginx::serving(&[("small.bin", &small), ("large.bin", &large)]);
    let proxy = Nginx::proxying(target.address);
    let hub = Hub::start_with(&[("HUB_LIMIT_SHARE_PER_MIN", "1000000000")]);
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose(target.address, "web");
    let share = hub.api().create_share(
        &exposed.tunnel_id(),
        &json!({ "name": "bench", "subdomain": "bench", "allowedPaths": ["/*"] }),
    );
    let reached = laptop.reach("web");
    let on = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let plain = "127.0.0.1";
    let ours = [hub.pid(), exposed.process.pid()];
    let all_ours = vec![hub.pid(), exposed.process.pid(), reached.process.pid()];
    let mut ways = vec![
        Way { name: "direct", address: target.address, host: plain, pids: Vec::new() },
        Way { name: "nginx as a proxy", address: proxy.address, host: plain, pids: vec![proxy.pid()] },
        Way { name: "tunnel port", address: on(exposed.tunnel_port()), host: plain, pids: ours.to_vec() },
        Way { name: "share", address: hub.edge_address, host: SHARE_HOST, pids: ours.to_vec() },
        Way { name: "reach, sealed", address: on(reached.local_port), host: plain, pids: all_ours },
    ];
    let others = peers::installed(target.address);
    ways.extend(others.iter().map(|peer| Way {
        name: peer.name,
        address: peer.address,
        host: plain,
        pids: peer.pids().to_vec(),
    }));
    println!("\n| | {} |", ways.iter().map(|way| way.name).collect::<Vec<_>>().join(" | "));
    println!("|---|{}", "---|".repeat(ways.len()));
    let kept = [("small.bin", "64"), ("small.bin", "256"), ("large.bin", "16")];
    for (file, connections) in kept {
        let name = format!("{file}, {connections} connections, requests/s");
        row(&name, &ways, |way| wrk(way, file, connections, &[]));
    }
    row("small.bin, a connection for each request, 16 at once, requests/s", &ways, |way| {
        wrk(way, "small.bin", "16", &["-H", "Connection: close"])
    });
    row("2,000 requests/s over 16 connections, p99 in microseconds", &ways, steady);
    let (tunnel, share) = (exposed.tunnel_id(), api::text(&share, "id"));
    cost(&ways, || accesses_of(&hub, &tunnel, &share));
    drop((exposed, reached, others));
    drop(hub);
    bulk();
}

/// How long requests take that come at a rate far below what is possible: the 99th of a hundred, in microseconds.
fn steady(way: &Way) -> f64 {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    succeeds(
        Command::new("h2load")
            .args(["--h1", "-c", STEADY_CLIENTS, "--rps", STEADY_RATE, "-D", SECONDS])
            .arg(format!("--log-file={}", log.path().display()))
            .args(at(way)),
    );
    let log = std::fs::read_to_string(log.path()).expect("h2load writes what it was told to");
    let mut took: Vec<u64> = log
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields[1], "200", "{}: {line}", way.name);
            fields[2].parse().expect("microseconds")
        })
        .collect();
    took.sort_unstable();
    took[took.len() * 99 / 100] as f64
}

/// What the access view has counted of a share so far.
fn accesses_of(hub: &Hub, tunnel: &str, share: &str) -> u64 {
    let shares = hub.api().shares(tunnel);
    let share = shares.iter().find(|one| one["id"] == share).expect("the share is there");
    share["accessCount"].as_u64().expect("a count")
}

/// What tells h2load where to go.
fn at(way: &Way) -> [String; 2] {
    let (address, port) = (way.address, way.address.port());
    [format!("--connect-to={address}"), format!("http://{}:{port}/small.bin", way.host)]
}

/// Processor seconds for 10,000 requests; a share's are counted until every access can be read.
fn cost(ways: &[Way], accesses: impl Fn() -> u64) {
    let spent = |way: &Way| -> f64 { way.pids.iter().map(|pid| processor_seconds(*pid)).sum() };
    let passes: Vec<Vec<f64>> = (0..PASSES)
        .map(|_| {
            ways.iter()
                .map(|way| {
                    let (before, seen) = (spent(way), accesses());
                    let requests = COUNTED.to_string();
                    succeeds(
                        Command::new("h2load").args(["--h1", "-n", &requests, "-c", "64"]).args(at(way)),
                    );
                    if way.host == SHARE_HOST {
                        eventually("every access can be read", SOON, || {
                            let more = accesses() - seen;
                            if more == u64::from(COUNTED) { Ok(()) } else { Err(more) }
                        });
                    }
                    (spent(way) - before) * COUNTED_PER / f64::from(COUNTED)
                })
                .collect()
        })
        .collect();
    let cells: Vec<String> = (0..ways.len())
        .map(|way| format!("{:.3}", median(passes.iter().map(|pass| pass[way]).collect())))
        .collect();
    println!("| processor s per 10,000 requests at 64 connections | {} |", cells.join(" | "));
}

fn row(name: &str, ways: &[Way], measure: impl Fn(&Way) -> f64) {
    let passes: Vec<Vec<f64>> = (0..PASSES).map(|_| ways.iter().map(&measure).collect()).collect();
    let cells: Vec<String> = (0..ways.len())
        .map(|way| {
            let value = median(passes.iter().map(|pass| pass[way]).collect());
            let ratio = median(passes.iter().map(|pass| pass[way] / pass[0]).collect());
            if way == 0 { format!("{value:.0}") } else { format!("{value:.0} ({ratio:.2})") }
        })
        .collect();
    println!("| {name} | {} |", cells.join(" | "));
}

fn wrk(way: &Way, file: &str, connections: &str, flags: &[&str]) -> f64 {
    let report = succeeds(
        Command::new("wrk")
            .args(["-t", "1", "-c", connections, "-d", SECONDS, "-H"])
            .arg(format!("Host: {}", way.host))
            .args(flags)
            .arg(format!("http://{}/{file}", way.address)),
    );
    for bad in ["Non-2xx", "connect "] {
        assert!(!report.lines().any(|line| line.trim_start().starts_with(bad)), "{}: {report}", way.name);
    }
    let line = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    number(line.expect("wrk reports requests per second").trim())
}

/// Eight streams of iperf3 each way, and what a GiB takes.
pub(super) fn bulk() {
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let port = e2e::ports::free_port();
    let _iperf = e2e::process::Process::spawn(
        "iperf3",
        Command::new("iperf3").args(["-s", "-p", &port.to_string(), "-B", "127.0.0.1"]).stdin(Stdio::null()),
    );
    eventually("iperf3 listens", SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let exposed = server.expose(target, "bulk");
    let reached = laptop.reach("bulk");
    let (hub, agent, other) = (hub.pid(), exposed.process.pid(), reached.process.pid());
    let others = peers::installed(target);
    let mut ways = vec![
        ("direct", port, Vec::new()),
        ("tunnel port", exposed.tunnel_port(), vec![hub, agent]),
        ("reach, sealed", reached.local_port, vec![hub, agent, other]),
    ];
    ways.extend(others.iter().map(|peer| (peer.name, peer.address.port(), peer.pids().to_vec())));
    println!(
        "\n| 8 streams of iperf3, up / down | Gbit/s | of direct | its own processor s per GiB |\n|---|---|---|---|"
    );
    for flags in [&[][..], &["-R"]] {
        let passes: Vec<Vec<(f64, f64)>> = (0..PASSES)
            .map(|_| ways.iter().map(|(_, port, pids)| carried(*port, flags, pids)).collect())
            .collect();
        for (way, (name, ..)) in ways.iter().enumerate() {
            let rate = median(passes.iter().map(|pass| pass[way].0).collect()) * 8.0 / number(SECONDS) / 1e9;
            let ratio = median(passes.iter().map(|pass| pass[way].0 / pass[0].0).collect());
            let seconds = median(passes.iter().map(|pass| pass[way].1).collect());
            let direction = if flags.is_empty() { "up" } else { "down" };
            println!("| {name}, {direction} | {rate:.1} | {ratio:.2} | {seconds:.2} |");
        }
    }
}

/// Bytes, and what a GiB of them took of the processes' time.
fn carried(port: u16, flags: &[&str], pids: &[u32]) -> (f64, f64) {
    let spent = || -> f64 { pids.iter().map(|pid| processor_seconds(*pid)).sum() };
    let before = spent();
    let bytes = iperf(port, flags);
    (bytes, (spent() - before) / (bytes / f64::from(1 << 30)))
}

/// Bytes that arrived.
fn iperf(port: u16, flags: &[&str]) -> f64 {
    let port = port.to_string();
    let fixed = ["-c", "127.0.0.1", "-p", &port, "-P", "8", "-t", SECONDS, "-J"];
    let report = succeeds(Command::new("iperf3").args(fixed).args(flags));
    // The server of the last run may need a moment for the next one.
    std::thread::sleep(Duration::from_millis(300));
    let report: Value = serde_json::from_str(&report).expect("iperf3 reports JSON");
    report["end"]["sum_received"]["bytes"].as_f64().expect("iperf3 counts bytes")
}

/// User and system time of a process so far.
fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = number(fields[11]) + number(fields[12]);
    ticks / rustix::param::clock_ticks_per_second() as f64
}

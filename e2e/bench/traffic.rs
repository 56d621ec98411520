//! Other people's bytes: a tunnel port, a share and a `reach`, beside the same target directly and behind nginx.
//!
//! Every row is measured on all ways in turn before the next pass begins; a ratio is one of the same pass. wrk, nginx and
//! iperf3 share the machine's cores with hub and agents, so 0.5 means that the way makes the whole thing twice as dear.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use e2e::{
    Hub, Machine,
    targets::{Nginx, succeeds},
};
use serde_json::{Value, json};

use super::{PASSES, median, number};

const SECONDS: &str = "4";
const SMALL_BYTES: usize = 1_024;
const LARGE_BYTES: usize = 1024 * 1024;
/// The share's host name at the edge.
const SHARE_HOST: &str = "bench.localhost";

/// One way to the target.
struct Way {
    name: &'static str,
    address: SocketAddr,
    host: &'static str,
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
    hub.api().create_share(
        &exposed.tunnel_id(),
        &json!({ "name": "bench", "subdomain": "bench", "allowedPaths": ["/*"] }),
    );
    let reached = laptop.reach("web");
    let on = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let plain = "127.0.0.1";
    let ways = [
        Way { name: "direct", address: target.address, host: plain },
        Way { name: "nginx as a proxy", address: proxy.address, host: plain },
        Way { name: "tunnel port", address: on(exposed.tunnel_port()), host: plain },
        Way { name: "share", address: hub.edge_address, host: SHARE_HOST },
        Way { name: "reach, sealed", address: on(reached.local_port), host: plain },
    ];
    println!("\n| | {} |", ways.each_ref().map(|way| way.name).join(" | "));
    println!("|---|{}", "---|".repeat(ways.len()));
    let kept = [("small.bin", "64"), ("small.bin", "256"), ("large.bin", "16")];
    for (file, connections) in kept {
        let name = format!("{file}, {connections} connections, requests/s");
        row(&name, &ways, |way| wrk(way, file, connections, &[]));
    }
    row("small.bin, a connection for each request, 16 at once, requests/s", &ways, |way| {
        wrk(way, "small.bin", "16", &["-H", "Connection: close"])
    });
    drop((exposed, reached));
    bulk(&hub, &server, &laptop);
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

/// Eight streams of iperf3, and what hub and agents spend on a GiB.
fn bulk(hub: &Hub, server: &Machine, laptop: &Machine) {
    let port = e2e::ports::free_port();
    let _iperf = e2e::process::Process::spawn(
        "iperf3",
        Command::new("iperf3").args(["-s", "-p", &port.to_string(), "-B", "127.0.0.1"]).stdin(Stdio::null()),
    );
    e2e::wait::eventually("iperf3 listens", e2e::wait::SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let exposed = server.expose(target, "bulk");
    let reached = laptop.reach("bulk");
    let ours = [hub.pid(), exposed.process.pid(), reached.process.pid()];
    println!(
        "\n| 8 streams of iperf3 | Gbit/s | of direct | processor s per GiB, hub and agents |\n|---|---|---|---|"
    );
    let ways =
        [("direct", port), ("tunnel port", exposed.tunnel_port()), ("reach, sealed", reached.local_port)];
    let passes: Vec<Vec<(f64, f64)>> = (0..PASSES)
        .map(|_| {
            ways.iter()
                .map(|(_, port)| {
                    let before: f64 = ours.iter().map(|pid| processor_seconds(*pid)).sum();
                    let bytes = iperf(*port);
                    let after: f64 = ours.iter().map(|pid| processor_seconds(*pid)).sum();
                    (bytes, (after - before) / (bytes / f64::from(1 << 30)))
                })
                .collect()
        })
        .collect();
    for (way, (name, _)) in ways.iter().enumerate() {
        let rate = median(passes.iter().map(|pass| pass[way].0).collect()) * 8.0 / number(SECONDS) / 1e9;
        let ratio = median(passes.iter().map(|pass| pass[way].0 / pass[0].0).collect());
        let seconds = median(passes.iter().map(|pass| pass[way].1).collect());
        println!("| {name} | {rate:.1} | {ratio:.2} | {seconds:.2} |");
    }
}

/// Bytes that arrived.
fn iperf(port: u16) -> f64 {
    let report = succeeds(Command::new("iperf3").args([
        "-c",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-P",
        "8",
        "-t",
        SECONDS,
        "-J",
    ]));
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

//! Figures, each beside what it is compared with, from one run on one machine: `ops/bench` builds and starts this.
//!
//! Printed as Markdown. Medians of three passes; direct and through `reach` take turns, so that both meet the same noise.
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use e2e::{
    Hub, Machine, api,
    http::{Connection, Response},
    targets::{Postgres, Redis, succeeds},
};
use serde_json::json;

mod autobahn;
mod neighbours;
mod peers;
mod rebuild;
mod traffic;
mod workspace;

const PASSES: usize = 3;
const PGBENCH_SECONDS: &str = "10";
const REDIS_REQUESTS: &str = "100000";
/// Clients of the Control API (issue 1 asks for 64).
const CLIENTS: u64 = 64;
const API_SECONDS: u64 = 10;
/// Ready and answered within these (issue 1): a log of 200,000 facts and 5,000,000 accesses.
const READY_MAX: Duration = Duration::from_secs(2);
const ACCESS_LOG_MAX: Duration = Duration::from_millis(200);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => {
            traffic::traffic();
            databases();
            commands();
        }
        ["traffic"] => traffic::traffic(),
        ["bulk"] => traffic::bulk(),
        ["databases"] => databases(),
        ["commands"] => commands(),
        ["workspace"] => workspace::workspace(),
        ["neighbours"] => neighbours::neighbours(),
        ["autobahn", wstest] => autobahn::compare(Path::new(wstest), "*"),
        ["autobahn", wstest, cases] => autobahn::compare(Path::new(wstest), cases),
        ["big-log", data, share_id] => big_log(Path::new(data), share_id),
        ["rebuild", data, share_id] => rebuild::rebuild(Path::new(data), share_id),
        _ => {
            eprintln!(
                "usage: bench [traffic | bulk | databases | commands | workspace | neighbours | autobahn WSTEST [CASES] | big-log DATA SHARE-ID | rebuild DATA SHARE-ID]"
            );
            std::process::exit(2);
        }
    }
}

/// pgbench and redis-benchmark, direct and through `connect reach`.
fn databases() {
    let (hub, postgres, redis) = (Hub::start(), Postgres::start(), Redis::start());
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let _database = server.expose(postgres.address, "db");
    let cache_server = Machine::new(&hub);
    let _cache = cache_server.expose(redis.address, "cache");
    let (database, cache) = (laptop.reach("db"), Machine::new(&hub).reach("cache"));
    succeeds(Postgres::client("pgbench", postgres.address.port()).args(["-i", "-q", "-s", "10", "postgres"]));

    println!("| | direct | through reach | ratio |\n|---|---|---|---|");
    for (name, flags) in [
        ("pgbench -S, 1 client, transactions/s", &["-S", "-c", "1", "-j", "1"][..]),
        ("pgbench -S, 32 clients, transactions/s", &["-S", "-c", "32", "-j", "2"]),
        ("pgbench TPC-B, 8 clients, transactions/s", &["-c", "8", "-j", "2"]),
    ] {
        row(name, postgres.address.port(), database.local_port, |port| pgbench(port, flags));
    }
    for (name, flags) in [
        ("redis-benchmark GET, 50 clients, requests/s", &["-t", "get", "-c", "50"][..]),
        ("redis-benchmark GET, 50 clients, 16 in a pipeline", &["-t", "get", "-c", "50", "-P", "16"]),
        ("redis-benchmark SET of 4 KiB, 50 clients", &["-t", "set", "-c", "50", "-d", "4096"]),
    ] {
        row(name, redis.address.port(), cache.local_port, |port| redis_benchmark(port, flags));
    }
}

fn row(name: &str, direct: u16, reached: u16, measure: impl Fn(u16) -> f64) {
    let passes: Vec<(f64, f64)> = (0..PASSES).map(|_| (measure(direct), measure(reached))).collect();
    let direct = median(passes.iter().map(|pass| pass.0).collect());
    let reached = median(passes.iter().map(|pass| pass.1).collect());
    println!("| {name} | {direct:.0} | {reached:.0} | {:.2} |", reached / direct);
}

fn pgbench(port: u16, flags: &[&str]) -> f64 {
    let mut command = Postgres::client("pgbench", port);
    let report = succeeds(command.args(["-n", "-T", PGBENCH_SECONDS]).args(flags).arg("postgres"));
    let line = report.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench reports tps");
    number(line.split(' ').next().unwrap_or_default())
}

fn redis_benchmark(port: u16, flags: &[&str]) -> f64 {
    let mut command = Redis::client("redis-benchmark", port);
    let report = succeeds(command.args(["-n", REDIS_REQUESTS, "--csv"]).args(flags));
    // "test","rps",... and then "GET","123456.79",...
    let line = report.lines().nth(1).expect("redis-benchmark reports one line for each test");
    number(line.split(',').nth(1).unwrap_or_default().trim_matches('"'))
}

/// Durable commands (a share each) per second over HTTP, without and with reading one's own writes.
fn commands() {
    println!(
        "\n| {CLIENTS} clients, each waits for its answer | per second | p50 ms | p99 ms |\n|---|---|---|---|"
    );
    for (name, read_back) in [
        ("POST, durable when answered", ReadBack::No),
        ("the same, then GET of the list that must show it", ReadBack::Yes),
    ] {
        let mut passes: Vec<Pass> = (0..PASSES).map(|_| one_pass(read_back)).collect();
        passes.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let pass = &passes[PASSES / 2];
        println!("| {name} | {:.0} | {:.2} | {:.2} |", pass.per_second, pass.p50_ms, pass.p99_ms);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadBack {
    No,
    Yes,
}

#[derive(Debug)]
struct Pass {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn one_pass(read_back: ReadBack) -> Pass {
    let hub = Hub::start();
    let (agent, _) = hub.api().register_agent("nobody");
    let (address, number, over) = (hub.api_address, AtomicU64::new(0), AtomicBool::new(false));
    // Each client has a tunnel of its own, so that none waits for another one's aggregate.
    let tunnels: Vec<String> = (0..CLIENTS.min(60))
        .map(|client| api::text(&hub.api().create_tunnel(&agent, "localhost:9", &format!("t{client}")), "id"))
        .collect();
    let begun = Instant::now();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let tunnel = &tunnels[usize::try_from(client).expect("few clients") % tunnels.len()];
                let (number, over) = (&number, &over);
                scope.spawn(move || client_loop(address, tunnel, read_back, number, over))
            })
            .collect();
        std::thread::sleep(Duration::from_secs(API_SECONDS));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    });
    let elapsed = begun.elapsed();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    Pass { per_second: times.len() as f64 / elapsed.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

fn client_loop(
    address: SocketAddr,
    tunnel: &str,
    read_back: ReadBack,
    number: &AtomicU64,
    over: &AtomicBool,
) -> Vec<Duration> {
    let mut connection = Connection::open(address).expect("the hub listens");
    let key = ("x-api-key", e2e::hub::ADMIN_KEY);
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let name = format!("s{}", number.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "name": name }).to_string();
        let begun = Instant::now();
        let path = format!("/v1/tunnels/{tunnel}/share");
        let headers = [key, ("content-type", "application/json")];
        let answer = connection.request("POST", &path, &headers, Some(body.as_bytes())).expect("an answer");
        let made = answer.expect(201);
        if read_back == ReadBack::Yes {
            let position = header(&answer, "pconnect-position");
            let path = format!("/v1/shares?tunnelId={tunnel}&limit=1");
            let headers = [key, ("pconnect-position", position)];
            let listed = connection.request("GET", &path, &headers, None).expect("an answer");
            assert_eq!(listed.status, 200, "{}", listed.text());
        }
        times.push(begun.elapsed());
        assert!(made["id"].is_string());
    }
    times
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.header(name).unwrap_or_else(|| panic!("no header {name} in {:?}", answer.headers))
}

/// How soon a hub is ready on a big log, and how soon it answers the access log of one share.
fn big_log(data: &Path, share_id: &str) {
    let begun = Instant::now();
    let hub = Hub::start_on(data);
    let ready = begun.elapsed();
    let begun = Instant::now();
    let logs = hub.api().get(&format!("/v1/shares/{share_id}/logs?limit=100"));
    let answered = begun.elapsed();
    let count = logs.expect(200)["logs"].as_array().map_or(0, Vec::len);
    println!("| on a log of that size | took | may take |\n|---|---|---|");
    println!("| from start to `listening` | {ready:.3?} | {READY_MAX:?} |");
    println!("| newest {count} accesses of one share | {answered:.3?} | {ACCESS_LOG_MAX:?} |");
    println!("| resident memory | {} MiB | |", hub.resident_bytes() >> 20);
    if ready > READY_MAX || answered > ACCESS_LOG_MAX || count == 0 {
        std::process::exit(1);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

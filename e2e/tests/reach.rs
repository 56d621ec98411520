//! `connect expose` on one machine, `connect reach` on another: real databases and their own clients in between.

use e2e::{
    Hub, Machine,
    hub::ADMIN_KEY,
    targets::{Nginx, Postgres, Redis, succeeds},
    wait::{SOON, eventually},
};
use schemas::frames::STREAM_PATH;

#[test]
fn psql_works_on_the_machine_that_reaches() {
    let (hub, postgres) = (Hub::start(), Postgres::start());
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let _exposed = server.expose(postgres.address, "prod-db");
    let reached = laptop.reach("prod-db");
    assert_eq!(psql(reached.local_port, "select 41 + 1").trim(), "42");
    // A large result, so that more than one buffer passes.
    let many = "select sum(length(repeat('x', 1000))) from generate_series(1, 20000)";
    assert_eq!(psql(reached.local_port, many).trim(), "20000000");
    let rows = psql(reached.local_port, "select repeat('x', 1000) from generate_series(1, 5000)");
    assert_eq!(rows.len(), 5_000 * 1_001);
}

#[test]
fn a_middlebox_that_passes_nothing_but_websockets_passes_the_streams() {
    let (hub, postgres) = (Hub::start(), Postgres::start());
    let middlebox = Nginx::passing_websockets_only(hub.api_address);
    let url = format!("http://{}", middlebox.address);
    let (server, laptop) = (Machine::with(&url, ADMIN_KEY), Machine::with(&url, ADMIN_KEY));
    let exposed = server.expose(postgres.address, "far-db");
    let reached = laptop.reach("far-db");
    let rows = psql(reached.local_port, "select repeat('x', 1000) from generate_series(1, 5000)");
    assert_eq!(rows.len(), 5_000 * 1_001);
    succeeds(Postgres::client("pgbench", reached.local_port).args(["-i", "-q", "-s", "1", "postgres"]));
    drop((exposed, reached));
    let streams = |status: u16| {
        middlebox.log().iter().filter(|line| line.path == STREAM_PATH && line.status == status).count()
    };
    eventually("the middlebox to have logged both", SOON, || {
        if streams(403) >= 2 && streams(101) >= 2 { Ok(()) } else { Err(format!("{:?}", middlebox.log())) }
    });
}

#[test]
fn pgbench_runs_without_an_error_through_reach() {
    let (hub, postgres) = (Hub::start(), Postgres::start());
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let _exposed = server.expose(postgres.address, "bench-db");
    let reached = laptop.reach("bench-db");
    succeeds(Postgres::client("pgbench", reached.local_port).args(["-i", "-q", "-s", "1", "postgres"]));
    let report = succeeds(
        Postgres::client("pgbench", reached.local_port)
            .args(["-n", "-c", "8", "-j", "2", "-T", "3", "postgres"]),
    );
    assert!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
}

#[test]
fn redis_benchmark_runs_through_reach() {
    let (hub, redis) = (Hub::start(), Redis::start());
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let _exposed = server.expose(redis.address, "cache");
    let reached = laptop.reach("cache");
    let mut benchmark = Redis::client("redis-benchmark", reached.local_port);
    let report = succeeds(benchmark.args(["-n", "2000", "-c", "20", "-t", "set,get", "--csv"]));
    assert!(report.contains("\"SET\"") && report.contains("\"GET\""), "{report}");
    // What was written through the tunnel is in the server.
    let keys = succeeds(Redis::client("redis-cli", redis.address.port()).arg("dbsize"));
    assert_ne!(keys.trim(), "0");
}

#[test]
fn reaching_a_service_that_does_not_exist_is_an_error_with_exit_code_1() {
    let hub = Hub::start();
    let output = Machine::new(&hub).run(&["reach", "no-such-service"]);
    assert_eq!(output.status.code(), Some(1), "{}", e2e::hub::shown(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no-such-service"),
        "{}",
        e2e::hub::shown(&output)
    );
}

#[test]
fn wrong_usage_is_exit_code_2_and_exposes_nothing() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    for arguments in [
        &["expose", "localhost:0"][..],
        &["expose", "localhost:65536"],
        &["expose", "not a target"],
        &["expose", "localhost:5432", "--public"],
        &["expose", "localhost:6379", "--link"],
        &["expose", "localhost:3000", "--no-such-flag"],
    ] {
        let output = machine.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", e2e::hub::shown(&output));
    }
    assert_eq!(hub.api().tunnels(), Vec::<serde_json::Value>::new());
}

fn psql(port: u16, query: &str) -> String {
    succeeds(Postgres::client("psql", port).args(["-Atc", query]))
}

//! Thousands of idle tunnels of many agents on one hub: what each costs, and how soon all are back after a restart.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, api};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{
    crowd::{Crowd, echo},
    measured::{Bars, Cost, mebibytes},
};

/// All agents back within (R8), and all of their tunnels.
const BACK_SECONDS_MAX: f64 = 10.0;
const PATIENCE: Duration = Duration::from_secs(300);
/// Clients that create tunnels.
const CREATORS: usize = 8;
/// A list of all tunnels is no small thing: it is not to disturb what it measures.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Raises the limit of open files as far as it goes, for this process and its children; how far that is.
#[track_caller]
pub(crate) fn many_files(wanted: usize) -> usize {
    let wanted = u64::try_from(wanted).expect("a number of files");
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map(|maximum| maximum.max(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: raised }).is_err() {
        let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, most).expect("the soft limit may be raised to the hard one");
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

pub(crate) fn run(bars: &mut Bars, agents: usize, tunnels: usize, restarts: usize) {
    let others = 20 * agents + 500;
    let files = many_files(2 * tunnels + others);
    let families = if files >= 4 * tunnels + others { "127.0.0.1" } else { "127.0.0.2" };
    if families != "127.0.0.1" {
        println!(
            "ports on IPv4 alone: {files} open files are too few for two listeners a tunnel (ulimit -Hn)"
        );
    }
    let first = 10_000;
    let ports = format!("{first}-{}", first + tunnels + 200);
    let mut hub = Hub::start_with(&[("HUB_TUNNEL_PORTS", &ports), ("HUB_TUNNEL_BIND", families)]);
    let target = echo().to_string();
    thread::sleep(Duration::from_secs(1));
    let empty = Cost::of(hub.pid());

    let crowd = Crowd::start(&hub, agents, &hub.url());
    crowd.all_connected(Instant::now(), PATIENCE);
    let (with_agents, _) = Cost::settled(hub.pid(), Instant::now(), PATIENCE);
    let begun = Instant::now();
    create(&hub, &crowd, &target, tunnels);
    let created = begun.elapsed();
    let made = all_active(&hub, tunnels, begun);
    let (full, _) = Cost::settled(hub.pid(), begun, PATIENCE);
    thread::sleep(Duration::from_secs(10));
    let (resting, _) = (Cost::of(hub.pid()), ());
    let busy = Cost::of(hub.pid()).processor;
    thread::sleep(Duration::from_secs(5));
    let busy = (Cost::of(hub.pid()).processor - busy).as_secs_f64() / 5.0;

    println!("\n| hub | memory MiB | open files | threads |\n|---|---|---|---|");
    for (name, cost) in [
        ("empty", empty),
        (&*format!("{agents} agents"), with_agents),
        (&*format!("and {tunnels} tunnels"), full),
        ("ten seconds later", resting),
    ] {
        println!("| {name} | {:.1} | {} | {} |", mebibytes(cost.memory), cost.descriptors, cost.threads);
    }
    let each = |after: Cost, before: Cost, count: usize| {
        after.memory.saturating_sub(before.memory) as f64 / 1024.0 / count as f64
    };
    println!();
    println!("- memory of an agent: {:.1} KiB", each(with_agents, empty, agents));
    println!("- memory of an idle tunnel: {:.1} KiB", each(full, with_agents, tunnels));
    println!("- created through the API: {:.0} tunnels/s", tunnels as f64 / created.as_secs_f64());
    println!("- the idle hub uses {:.1} % of a processor", busy * 100.0);

    println!(
        "\n| restart | hub ready s | all agents s | all tunnels s | hub quiet s | memory MiB |\n|---|---|---|---|---|---|"
    );
    let (mut slowest_agents, mut slowest_tunnels) = (0.0_f64, 0.0_f64);
    for round in 0..restarts {
        let ends = if round % 2 == 0 { "SIGTERM" } else { "SIGKILL" };
        if round % 2 == 0 {
            assert!(hub.terminate().success(), "the hub ends well");
        } else {
            hub.signal(Signal::KILL);
            hub.kill9();
        }
        crowd.all_lost(Instant::now(), PATIENCE);
        let begun = Instant::now();
        hub.restart();
        let ready = begun.elapsed().as_secs_f64();
        let connected = crowd.all_connected(begun, PATIENCE).as_secs_f64();
        let back = all_active(&hub, tunnels, begun);
        let active = back.at.as_secs_f64();
        let (cost, quiet) = Cost::settled(hub.pid(), begun, PATIENCE);
        println!(
            "| {ends} | {ready:.2} | {connected:.2} | {active:.2} | {:.2} | {:.1} |",
            quiet.as_secs_f64(),
            mebibytes(cost.memory)
        );
        assert_eq!(back.ports, made.ports, "every tunnel has its name and its port again");
        slowest_agents = slowest_agents.max(connected);
        slowest_tunnels = slowest_tunnels.max(active);
    }
    println!();
    bars.at_most("all agents back after a restart", slowest_agents, BACK_SECONDS_MAX, "s");
    bars.at_most("all tunnels back after a restart", slowest_tunnels, BACK_SECONDS_MAX, "s");
    crowd.stop();
}

#[track_caller]
fn create(hub: &Hub, crowd: &Crowd, target: &str, tunnels: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CREATORS {
            scope.spawn(|| {
                let api = hub.api();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= tunnels {
                        return;
                    }
                    let body = json!({
                        "agentId": crowd.id(number), "target": target, "name": format!("t{number}"), "protocol": "tcp",
                    });
                    api.post("/v1/tunnels", &body).expect(201);
                }
            });
        }
    });
}

struct Active {
    at: Duration,
    /// By name.
    ports: BTreeMap<String, u64>,
}

/// Waits until every tunnel is active.
#[track_caller]
fn all_active(hub: &Hub, count: usize, since: Instant) -> Active {
    loop {
        let at = since.elapsed();
        let tunnels = hub.api().tunnels();
        let active = tunnels.iter().filter(|tunnel| tunnel["status"] == "active").count();
        if active == count {
            let port = |tunnel: &Value| tunnel["tunnelPort"].as_u64().expect("a tunnel has a port");
            let ports = tunnels.iter().map(|tunnel| (api::text(tunnel, "name"), port(tunnel))).collect();
            return Active { at, ports };
        }
        assert!(at < PATIENCE, "{active} of {count} tunnels are active");
        thread::sleep(LOOK_EVERY);
    }
}

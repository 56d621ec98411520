//! Agents that lose their hub again and again: all connections cut by a reset at once, and the hub ended and started anew.

use std::time::{Duration, Instant};

use e2e::Hub;

use crate::{
    crowd::Crowd,
    cutter::Cutter,
    measured::Bars,
    visitors::{at_rest, judge},
};

/// Sessions that end as soon as they began make an agent wait up to 3 s, so many at once are the only quick way to many.
const AGENTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);
/// One of so many rounds is a new hub.
const RESTART_EVERY: usize = 20;
/// Rounds until memory has its shape.
const WARM_UP: usize = 3;

pub(crate) fn run(bars: &mut Bars, reconnects: usize) {
    let mut hub = Hub::start();
    let cutter = Cutter::before(hub.api_address);
    let agents = Crowd::start(&hub, AGENTS, &format!("http://{}", cutter.address));
    agents.all_connected(Instant::now(), PATIENCE);
    let mut slowest = Duration::ZERO;
    for _ in 0..WARM_UP {
        again(&cutter, &agents);
    }
    let [before, own_before] = at_rest([hub.pid(), std::process::id()]);
    let (rounds, begun) = (reconnects.div_ceil(AGENTS), Instant::now());
    for _ in 0..rounds {
        slowest = slowest.max(again(&cutter, &agents));
    }
    println!(
        "\n{} reconnects of {AGENTS} agents in {:.0} s, the slowest after {:.2} s",
        rounds * AGENTS,
        begun.elapsed().as_secs_f64(),
        slowest.as_secs_f64()
    );
    let [after, own_after] = at_rest([hub.pid(), std::process::id()]);
    judge(bars, "hub after reconnects", before, after);
    judge(bars, "agents after reconnects", own_before, own_after);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds.div_ceil(RESTART_EVERY) {
        let former = agents.epochs();
        hub.kill9();
        hub.restart();
        slowest = slowest.max(agents.all_back(&former, Instant::now(), PATIENCE));
    }
    println!(
        "after kill -9 of the hub all are back, the slowest {:.2} s after its start",
        slowest.as_secs_f64()
    );
    agents.stop();
}

/// Cuts all agents' connections; how long until all are back.
fn again(cutter: &Cutter, agents: &Crowd) -> Duration {
    let (former, begun) = (agents.epochs(), Instant::now());
    let cut = cutter.cut();
    assert!(cut >= agents.len(), "{cut} connections were cut");
    agents.all_back(&former, begun, PATIENCE)
}

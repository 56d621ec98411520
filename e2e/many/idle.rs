//! Idle connections through one tunnel port and through one reach: what hub and agents need for them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, eventually, ports::loopback, wait::SOON};

use crate::{
    crowd::echo,
    measured::{Bars, Cost, mebibytes},
    tunnels::many_files,
};

/// For 1,000 connections, hub and agents together above their own idle size.
const MEBIBYTES_MAX: f64 = 12.0;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(bars: &mut Bars, connections: usize) {
    many_files(8 * connections + 1_000);
    println!(
        "\n| {connections} idle connections | hub KiB | exposing KiB | reaching KiB | together MiB |\n|---|---|---|---|---|"
    );
    let target = echo();
    for name in ["tunnel port", "reach, sealed"] {
        // New processes: what one way left behind would serve the other.
        let hub = Hub::start();
        let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
        let exposed = server.expose_with(target, "idle", &["--protocol", "tcp"]);
        let reached = laptop.reach("idle");
        let processes = [hub.pid(), exposed.process.pid(), reached.process.pid()];
        let port = if name == "tunnel port" { exposed.tunnel_port() } else { reached.local_port };
        // What the first connection brings into being belongs to nobody of them.
        drop(open(port, 20));
        thread::sleep(Duration::from_secs(1));
        let before = processes.map(|pid| Cost::settled(pid, Instant::now(), PATIENCE).0);
        let held = open(port, connections);
        thread::sleep(Duration::from_secs(2));
        let after = processes.map(|pid| Cost::settled(pid, Instant::now(), PATIENCE).0);
        let grown: Vec<u64> =
            after.iter().zip(before).map(|(a, b)| a.memory.saturating_sub(b.memory)).collect();
        let together = mebibytes(grown.iter().sum());
        println!(
            "| {name} | {} | {} | {} | {together:.1} |",
            grown[0] / 1024,
            grown[1] / 1024,
            grown[2] / 1024
        );
        bars.at_most(
            &format!("1,000 idle connections through a {name}"),
            together * 1_000.0 / connections as f64,
            MEBIBYTES_MAX,
            "MiB",
        );
        drop(held);
        eventually("the connections are over", SOON, || {
            let now = Cost::of(hub.pid()).descriptors;
            if now <= before[0].descriptors + 70 { Ok(()) } else { Err(format!("{now} descriptors")) }
        });
    }
}

/// Connections that carried one byte each way.
#[track_caller]
fn open(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut socket = TcpStream::connect(loopback(port)).expect("the port takes connections");
            socket.set_read_timeout(Some(PATIENCE)).expect("a socket of ours");
            let mut back = [0];
            socket.write_all(b"x").and_then(|()| socket.read_exact(&mut back)).expect("the byte comes back");
            socket
        })
        .collect()
}

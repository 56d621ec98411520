//! Visitors who leave in the middle of a download, again and again: hub and agent give everything back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{Hub, Machine, api, eventually, http::split_link, ports::loopback, targets::Nginx};
use serde_json::json;
use socket2::SockRef;

use crate::{
    measured::{Bars, Cost, mebibytes},
    reconnects,
    tunnels::many_files,
};

/// What is left of the growth after warm-up, and of descriptors and threads.
const GROWTH_PERCENT_MAX: f64 = 5.0;
const LEFT_MAX: f64 = 5.0;
/// Data connections that were opened because openers stood in line stay idle in their session's pool, up to the hub's
/// `idle_connections_max`; measured, 8 of them.
const POOLED_MAX: f64 = 16.0;
/// Of a crowd of agents in one process some hold one such connection more than before.
const POOLED_SHARE: f64 = 0.01;
const VISITORS: usize = 16;
const FILE_BYTES: usize = 4 << 20;
/// Idle connections to targets are kept for 30 s, and looked at now and then.
const HELD: Duration = Duration::from_secs(33);
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn run(bars: &mut Bars, downloads: usize, reconnects: usize) {
    many_files(8_192);
    let file = vec![b'x'; FILE_BYTES];
    let nginx = Nginx::serving(&[("large", &file)]);
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose_with(nginx.address, "large", &["--protocol", "http"]);
    let share = hub.api().create_share(&exposed.tunnel_id(), &json!({ "name": "large" }));
    let (edge, host, path) = split_link(&api::text(&share, "shareUrl"));
    let path = format!("{}/large", path.trim_end_matches('/'));
    let ways = Ways { edge, host, path, port: exposed.tunnel_port() };
    let processes = [("hub", hub.pid()), ("agent", exposed.process.pid())];

    // A tenth warms up: what a process needs once, and what allocators keep, is there then.
    leave(&ways, downloads / 10);
    let before = at_rest(processes.map(|(_, pid)| pid));
    let begun = Instant::now();
    leave(&ways, downloads);
    println!("\n{downloads} downloads were left in {:.0} s", begun.elapsed().as_secs_f64());
    let after = at_rest(processes.map(|(_, pid)| pid));
    for (((name, _), before), after) in processes.iter().zip(before).zip(after) {
        judge(bars, &format!("{name} after downloads"), before, after);
    }
    metrics(bars, &hub);
    drop((exposed, machine, hub));
    reconnects::run(bars, reconnects);
}

/// Memory may grow by a share, or by what a page or two more of an allocator make.
pub(crate) fn judge(bars: &mut Bars, name: &str, before: Cost, after: Cost) {
    println!(
        "- {name}: {:.1} → {:.1} MiB, {} → {} descriptors, {} → {} threads",
        mebibytes(before.memory),
        mebibytes(after.memory),
        before.descriptors,
        after.descriptors,
        before.threads,
        after.threads
    );
    let grown = (after.memory as f64 / before.memory as f64 - 1.0) * 100.0;
    bars.at_most(&format!("{name}: growth of memory"), grown, GROWTH_PERCENT_MAX, "%");
    let left = |before: usize, after: usize| after.saturating_sub(before) as f64;
    bars.at_most(
        &format!("{name}: descriptors left"),
        left(before.descriptors, after.descriptors),
        LEFT_MAX + POOLED_MAX + before.descriptors as f64 * POOLED_SHARE,
        "",
    );
    bars.at_most(&format!("{name}: threads left"), left(before.threads, after.threads), LEFT_MAX, "");
}

/// What processes cost once they have given back what they hold for a while: connections to targets, idle threads.
pub(crate) fn at_rest<const N: usize>(pids: [u32; N]) -> [Cost; N] {
    let begun = Instant::now();
    thread::sleep(HELD);
    pids.map(|pid| Cost::settled(pid, begun, PATIENCE).0)
}

/// Connections and streams as the hub itself counts them.
fn metrics(bars: &mut Bars, hub: &Hub) {
    let now = || {
        let text = hub.api().get("/metrics").text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        (value("pconnect_edge_connections "), value("pconnect_edge_http2_requests "))
    };
    let (connections, requests) = eventually("the edge is empty", PATIENCE, || match now() {
        empty @ (0.0, 0.0) => Ok(empty),
        (connections, requests) => Err(format!("{connections} connections, {requests} requests")),
    });
    bars.at_most("connections that the edge counts", connections, 0.0, "");
    bars.at_most("HTTP/2 requests that the edge counts", requests, 0.0, "");
}

struct Ways {
    edge: SocketAddr,
    host: String,
    path: String,
    port: u16,
}

/// How a visitor leaves.
#[derive(Clone, Copy)]
struct Leaving {
    /// After the head, or after so much of the body.
    after_bytes: usize,
    is_reset: bool,
}

#[track_caller]
fn leave(ways: &Ways, count: usize) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..VISITORS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let leaving = Leaving {
                        after_bytes: if number & 1 == 0 { 1 } else { FILE_BYTES / 64 },
                        is_reset: number & 2 == 0,
                    };
                    let left = match (number >> 2) % 3 {
                        0 => http1(ways.edge, ways, leaving),
                        1 => http2(ways, leaving),
                        _ => http1(loopback(ways.port), ways, leaving),
                    };
                    left.unwrap_or_else(|error| panic!("download {number}: {error}"));
                }
            });
        }
    });
}

fn http1(address: SocketAddr, ways: &Ways, leaving: Leaving) -> std::io::Result<()> {
    let is_edge = address == ways.edge;
    let path = if is_edge { &*ways.path } else { "/large" };
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", ways.host)?;
    read_and_leave(&mut socket, leaving)
}

/// A whole HTTP/2 opening in one write: preface, empty SETTINGS, and HEADERS without compression.
fn http2(ways: &Ways, leaving: Leaving) -> std::io::Result<()> {
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4_u8, &*ways.path), (1, &*ways.host)] {
        // Literal without indexing, name from the static table (RFC 7541, section 6.2.2).
        block.push(name);
        let length = value.len();
        if length < 127 {
            block.push(u8::try_from(length).expect("under 127"));
        } else {
            block.push(127);
            block.push(u8::try_from(length - 127).expect("links are short"));
        }
        block.extend_from_slice(value.as_bytes());
    }
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let length = u32::try_from(block.len()).expect("a short block").to_be_bytes();
    opening.extend_from_slice(&length[1..]);
    // END_STREAM and END_HEADERS on stream 1.
    opening.extend_from_slice(&[1, 5, 0, 0, 0, 1]);
    opening.extend_from_slice(&block);
    let mut socket = TcpStream::connect(ways.edge)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&opening)?;
    // The window of a stream that nobody widens is 65,535 bytes.
    read_and_leave(&mut socket, Leaving { after_bytes: leaving.after_bytes.min(32 * 1024), ..leaving })
}

fn read_and_leave(socket: &mut TcpStream, leaving: Leaving) -> std::io::Result<()> {
    let mut buffer = [0; 8 * 1024];
    let mut read = 0;
    while read < leaving.after_bytes {
        match socket.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    if leaving.is_reset {
        SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?;
    } else {
        // A close with unread bytes would be a reset all the same.
        socket.shutdown(std::net::Shutdown::Write)?;
    }
    Ok(())
}

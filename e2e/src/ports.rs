//! Ports: single ones and windows of them, that tests at the same time do not quarrel about.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Above Linux's ephemeral ports: nobody gets one of these by asking for any.
const SINGLE_FIRST: u16 = 61_000;
const SINGLES: u32 = 65_536 - 61_000;
/// So many single ports lie between those of one process and the next.
const SINGLES_APART: u32 = 16;

/// A port of the loopback that is free, for programs that cannot be told to take any. No two calls of a process give
/// the same, and processes begin apart from each other: a program may take its time to listen.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % (SINGLES / SINGLES_APART) * SINGLES_APART;
    for _ in 0..SINGLES {
        let offset = (start + TAKEN.fetch_add(1, Relaxed)) % SINGLES;
        let port = SINGLE_FIRST + u16::try_from(offset).expect("below `SINGLES`");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {SINGLE_FIRST} on is free");
}

/// The loopback with this port.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The tunnel ports of one hub. The first port of the window is held as long as the window lives, so no other test
/// takes the window, not even while its hub is down.
#[derive(Debug)]
pub struct PortWindow {
    held: TcpListener,
    ports: u16,
}

/// Where the hub's default range begins and ends (product.md section 8): below Linux's ephemeral ports.
const FIRST: u16 = 10_000;
const LAST: u16 = 31_999;

impl PortWindow {
    /// Takes a window with that many ports.
    pub fn take(ports: u16) -> Self {
        let step = ports + 1;
        let windows = (LAST - FIRST) / step;
        let start = std::process::id() % u32::from(windows);
        for offset in 0..u32::from(windows) {
            let window = u16::try_from((start + offset) % u32::from(windows)).expect("below `windows`");
            if let Ok(held) = TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + window * step)) {
                return Self { held, ports };
            }
        }
        panic!("no window of {ports} ports is free between {FIRST} and {LAST}");
    }

    /// As `HUB_TUNNEL_PORTS` wants it: `first-last`.
    pub fn setting(&self) -> String {
        let held = self.held.local_addr().expect("a bound socket has an address").port();
        format!("{}-{}", held + 1, held + self.ports)
    }
}

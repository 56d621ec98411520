//! Ports: found by binding 0, and windows of ports that parallel hubs do not quarrel about.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port of the loopback that was free a moment ago, for programs that cannot be told to take any.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
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

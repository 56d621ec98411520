//! The ports of tunnels on this hub, following `Routes`: TCP listeners here, UDP sockets in [`crate::udp_ports`].
//!
//! A paused, expired or deleted tunnel has no listener, so its port refuses; what runs under a deleted one is ended by
//! its token. A port is on the loopback interface, in both families, unless its tunnel is public and carries raw bytes.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as PlainListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use domain::{
    ids::{TunnelId, WorkspaceId},
    target::Protocol,
    tunnel::Details,
};
use parking_lot::Mutex;
use schemas::frames::StreamKind;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use wire::{
    peers::PeerLimits,
    relay::{Relayed, any_cancelled, relay_counted},
    side::{Tcp, prepare, reset},
};

use crate::{
    gateway::{
        Gateway,
        counts::NotAsked,
        links::{self, Local},
    },
    streams::Streams as _,
    udp_ports::UdpPorts,
};

/// Connections that the system keeps until the hub takes them.
const BACKLOG: i32 = 1_024;
/// How long to leave a listener alone that fails to accept (no file handles left, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Where ports listen, and how much they take.
#[derive(Debug, Clone)]
pub struct TunnelPortSettings {
    /// Ports of private tunnels.
    pub private_address: IpAddr,
    /// Ports of public raw tunnels.
    pub public_address: IpAddr,
    /// Connections through one port at once; the next one is reset.
    pub connections_per_tunnel_max: usize,
    /// The limits of a UDP tunnel's port.
    pub peers: PeerLimits,
}

impl Default for TunnelPortSettings {
    fn default() -> Self {
        Self {
            private_address: IpAddr::from([127, 0, 0, 1]),
            public_address: IpAddr::from([0, 0, 0, 0]),
            connections_per_tunnel_max: 4_096,
            peers: PeerLimits::default(),
        }
    }
}

impl TunnelPortSettings {
    /// Where a tunnel's port listens.
    fn addresses(&self, details: &Details) -> Vec<SocketAddr> {
        let interface = match details.created.protocol {
            // A public tunnel that speaks HTTP is public by its URL.
            Protocol::Http | Protocol::Https => self.private_address,
            Protocol::Auto | Protocol::Tcp | Protocol::Udp if details.created.is_public => {
                self.public_address
            }
            Protocol::Auto | Protocol::Tcp | Protocol::Udp => self.private_address,
        };
        addresses(interface, details.created.tunnel_port)
    }
}

/// What a tunnel's port should be now.
#[derive(Debug)]
pub(crate) struct WantedPort {
    /// Its streams run on the core of this workspace.
    pub(crate) workspace: WorkspaceId,
    pub(crate) protocol: Protocol,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// `None`: there should be no port.
pub(crate) fn wanted(
    gateway: &Gateway,
    settings: &TunnelPortSettings,
    tunnel: TunnelId,
) -> Option<WantedPort> {
    let parts = gateway.parts();
    let entry = parts.routes.tunnel_gate(tunnel, parts.clock.now()).ok()?;
    let details = entry.state.open()?;
    Some(WantedPort {
        workspace: details.created.workspace_id,
        protocol: details.created.protocol,
        addresses: settings.addresses(details),
    })
}

/// `localhost` means either family to clients, so a port on the loopback interface is on both.
fn addresses(interface: IpAddr, port: u16) -> Vec<SocketAddr> {
    let other = (interface == Ipv4Addr::LOCALHOST).then_some(IpAddr::from(Ipv6Addr::LOCALHOST));
    [interface].into_iter().chain(other).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The system does not give this port: somebody else has it, or it is not ours to take.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be used: {error}")]
pub struct PortRefused {
    pub port: u16,
    pub error: io::Error,
}

impl PortRefused {
    /// Whether the hub's own limits are the reason (open files, memory) and not this port.
    pub fn is_ours(&self) -> bool {
        use rustix::io::Errno;
        let errno = Errno::from_io_error(&self.error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
    }
}

/// The listeners. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TunnelPorts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gateway: Gateway,
    settings: TunnelPortSettings,
    /// Also makes changes one at a time.
    open: Mutex<HashMap<TunnelId, Port>>,
    udp: UdpPorts,
}

#[derive(Debug)]
struct Port {
    /// As they were wanted; a machine without IPv6 does without.
    addresses: Vec<SocketAddr>,
    /// Shared with the core that accepts: a descriptor each.
    listeners: Vec<Arc<TcpListener>>,
    closing: CancellationToken,
}

impl Port {
    /// When this returns, the port refuses; what it accepted goes on.
    fn close(self) {
        // First, or who accepts would take the end for trouble.
        self.closing.cancel();
        for listener in &self.listeners {
            // A listening socket that is shut refuses at once, whenever its task comes to drop it.
            let _ = SockRef::from(&**listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

impl TunnelPorts {
    /// No port is open yet. Tasks run on the gateway's runtime and are awaited by [`Gateway::stop`].
    pub fn new(gateway: Gateway, settings: TunnelPortSettings) -> Self {
        let udp = UdpPorts::new(gateway.clone(), settings.clone());
        Self(Arc::new(Inner { gateway, settings, open: Mutex::default(), udp }))
    }

    /// Makes the tunnel's port as `Routes` says: to be called after every change of the tunnel. When it returns, the
    /// port listens or refuses; a port that the system does not give is told to the operator.
    pub fn sync(&self, tunnel: TunnelId) {
        if let Err(refused) = self.try_sync(tunnel) {
            tracing::error!(%tunnel, %refused, "a tunnel has no port on this hub");
        }
    }

    /// As [`TunnelPorts::sync`].
    ///
    /// # Errors
    /// [`PortRefused`] when the port should listen and the system refuses.
    pub fn try_sync(&self, tunnel: TunnelId) -> Result<(), PortRefused> {
        let mut open = self.0.open.lock();
        // Read under the lock: the last of several changes is the one that counts.
        let wanted = self.wanted(tunnel);
        if open.get(&tunnel).map(|port| &port.addresses) != wanted.as_ref().map(|wanted| &wanted.addresses) {
            if let Some(port) = open.remove(&tunnel) {
                port.close();
            }
            if let Some(wanted) = wanted {
                open.insert(tunnel, self.accept_on(tunnel, wanted)?);
            }
        }
        self.0.udp.try_sync(tunnel)
    }

    /// Opens the port of every tunnel that should have one; those that the system refuses. For start-up.
    pub fn sync_all(&self) -> Vec<(TunnelId, PortRefused)> {
        let tunnels = self.0.gateway.parts().routes.all_tunnels();
        tunnels
            .into_iter()
            .filter_map(|(tunnel, _)| self.try_sync(tunnel).err().map(|refused| (tunnel, refused)))
            .collect()
    }

    /// Whether the system would give this port now, for a tunnel that does not exist yet.
    ///
    /// # Errors
    /// [`PortRefused`].
    pub fn probe(&self, port: u16) -> Result<(), PortRefused> {
        // A tunnel may be published later, on every interface, or come to carry datagrams.
        for interface in [self.0.settings.private_address, self.0.settings.public_address] {
            probe(interface, port)?;
        }
        Ok(())
    }

    /// The UDP side.
    pub fn udp(&self) -> &UdpPorts {
        &self.0.udp
    }

    /// Closes every port. What runs through them goes on until [`Gateway::stop`].
    pub fn close(&self) {
        for (_, port) in self.0.open.lock().drain() {
            port.close();
        }
        self.0.udp.close();
    }

    fn wanted(&self, tunnel: TunnelId) -> Option<WantedPort> {
        wanted(&self.0.gateway, &self.0.settings, tunnel).filter(|wanted| wanted.protocol != Protocol::Udp)
    }

    fn accept_on(&self, tunnel: TunnelId, wanted: WantedPort) -> Result<Port, PortRefused> {
        let gateway = self.0.gateway.clone();
        let WantedPort { workspace, addresses, .. } = wanted;
        let links = self.0.gateway.links();
        let listeners = bind_all(&addresses, |address| {
            let listener = listen(address)?;
            // Where the agent's link is.
            links.register(workspace, || TcpListener::from_std(listener)).map(Arc::new)
        })?;
        let closing = CancellationToken::new();
        let room = Arc::new(Semaphore::new(self.0.settings.connections_per_tunnel_max));
        for listener in &listeners {
            let accepting = Arc::clone(listener);
            let (gateway, room, closing) = (gateway.clone(), Arc::clone(&room), closing.clone());
            links.spawn(workspace, move |local| {
                gateway.clone().track(accept(gateway, local, tunnel, accepting, room, closing))
            });
        }
        Ok(Port { addresses, listeners, closing })
    }
}

/// Whether the system would give this port of an interface now, for connections and for datagrams.
///
/// # Errors
/// [`PortRefused`].
pub fn probe(interface: IpAddr, port: u16) -> Result<(), PortRefused> {
    let addresses = addresses(interface, port);
    bind_all(&addresses, listen)?;
    bind_all(&addresses, wire::peers::bind).map(drop)
}

/// Binds all addresses of a port. The loopback's IPv6 half may be missing on a machine without it; but if somebody else
/// has that half, clients would end up with two services.
pub(crate) fn bind_all<T>(
    addresses: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<Vec<T>, PortRefused> {
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        match bind(*address) {
            Ok(socket) => bound.push(socket),
            Err(error) if !bound.is_empty() && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(PortRefused { port: address.port(), error }),
        }
    }
    Ok(bound)
}

fn listen(address: SocketAddr) -> io::Result<PlainListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier run that linger must not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(PlainListener::from(socket))
}

async fn accept(
    gateway: Gateway,
    local: Rc<Local>,
    tunnel: TunnelId,
    listener: Arc<TcpListener>,
    room: Arc<Semaphore>,
    closing: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            () = gateway.stopped().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%tunnel, %error, "a tunnel port cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            gateway.counts().of(StreamKind::Tcp).not_asked(NotAsked::NoRoom);
            reset(socket);
            continue;
        };
        let (gateway, local) = (gateway.clone(), Rc::clone(&local));
        tokio::task::spawn_local(gateway.clone().track(async move {
            let relayed = carry(&gateway, &local, tunnel, socket, peer).await;
            tracing::debug!(%tunnel, ?relayed, "tunnel connection ended");
            drop(place);
        }));
    }
}

/// One connection through a port; `None`: it never became a stream and was reset.
async fn carry(
    gateway: &Gateway,
    local: &Local,
    tunnel: TunnelId,
    socket: TcpStream,
    peer: SocketAddr,
) -> Option<Relayed> {
    prepare(&socket);
    let counts = gateway.counts().of(StreamKind::Tcp);
    let Ok(admitted) = gateway.admit(tunnel) else {
        counts.not_asked(NotAsked::NotAdmitted);
        reset(socket);
        return None;
    };
    if let Some(mut stream) =
        local.open(admitted.agent, &links::port_open(tunnel, StreamKind::Tcp, peer.to_string()))
    {
        // Bytes go on their way at once; a refusal resets what sent them.
        let _open = counts.on_link();
        admitted.used.opened();
        let ended = any_cancelled(admitted.tokens);
        let relayed = relay_counted(Tcp::from(socket), &mut stream, ended, counts.carry()).await;
        admitted.used.carried(&relayed);
        if let Some(refused) = stream.refusal() {
            counts.refused(refused.code);
        }
        return Some(relayed);
    }
    // Boxed: what opening takes is not to be kept for as long as the connection lives.
    match Box::pin(gateway.open(admitted.agent, tunnel, StreamKind::Tcp, &peer.to_string())).await {
        Ok(upstream) => {
            let _open = counts.open.hold();
            admitted.used.opened();
            let ended = any_cancelled(admitted.tokens);
            let relayed = relay_counted(Tcp::from(socket), upstream, ended, counts.carry()).await;
            admitted.used.carried(&relayed);
            Some(relayed)
        }
        Err(error) => {
            tracing::debug!(%tunnel, %error, "a tunnel connection could not be opened");
            reset(socket);
            None
        }
    }
}

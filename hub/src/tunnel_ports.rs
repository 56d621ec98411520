//! The ports of tunnels on this hub: one TCP listener for each open tunnel, following `Routes`.
//!
//! A paused, expired or deleted tunnel has no listener, so its port refuses; what runs under a deleted one is ended by
//! its token. A port is on the loopback interface unless its tunnel is public and carries raw bytes.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener as PlainListener},
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
    relay::{Relayed, any_cancelled, relay},
    side::{Tcp, prepare, reset},
};

use crate::{
    gateway::{
        Gateway,
        links::{self, Local},
    },
    streams::Streams as _,
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
}

impl Default for TunnelPortSettings {
    fn default() -> Self {
        Self {
            private_address: IpAddr::from([127, 0, 0, 1]),
            public_address: IpAddr::from([0, 0, 0, 0]),
            connections_per_tunnel_max: 4_096,
        }
    }
}

/// The system does not give this port: somebody else has it, or it is not ours to take.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be used: {error}")]
pub struct PortRefused {
    pub port: u16,
    pub error: io::Error,
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
}

#[derive(Debug)]
struct Port {
    address: SocketAddr,
    /// A second handle: the first one is with the core that accepts.
    listener: PlainListener,
    closing: CancellationToken,
}

impl Port {
    /// When this returns, the port refuses; what it accepted goes on.
    fn close(self) {
        // A listening socket that is shut refuses at once, whenever its task comes to drop it.
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        self.closing.cancel();
    }
}

impl TunnelPorts {
    /// No port is open yet. Tasks run on the gateway's runtime and are awaited by [`Gateway::stop`].
    pub fn new(gateway: Gateway, settings: TunnelPortSettings) -> Self {
        Self(Arc::new(Inner { gateway, settings, open: Mutex::default() }))
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
        if open.get(&tunnel).map(|port| port.address) == wanted {
            return Ok(());
        }
        if let Some(port) = open.remove(&tunnel) {
            port.close();
        }
        if let Some(address) = wanted {
            let listener = listen(address)?;
            let workspace = self.workspace(tunnel).expect("an open tunnel has one");
            open.insert(tunnel, self.accept_on(workspace, tunnel, address, listener)?);
        }
        Ok(())
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
        listen(SocketAddr::new(self.0.settings.private_address, port))?;
        // A tunnel may be published later, on every interface.
        listen(SocketAddr::new(self.0.settings.public_address, port)).map(drop)
    }

    /// Closes every port. What runs through them goes on until [`Gateway::stop`].
    pub fn close(&self) {
        for (_, port) in self.0.open.lock().drain() {
            port.close();
        }
    }

    fn wanted(&self, tunnel: TunnelId) -> Option<SocketAddr> {
        let parts = self.0.gateway.parts();
        let entry = parts.routes.tunnel_gate(tunnel, parts.clock.now()).ok()?;
        let details = entry.state.open()?;
        (details.created.protocol != Protocol::Udp)
            .then(|| SocketAddr::new(self.interface(details), details.created.tunnel_port))
    }

    fn workspace(&self, tunnel: TunnelId) -> Option<WorkspaceId> {
        let entry = self.0.gateway.parts().routes.tunnel(tunnel)?;
        entry.state.open().map(|details| details.created.workspace_id)
    }

    fn interface(&self, details: &Details) -> IpAddr {
        match details.created.protocol {
            // A public tunnel that speaks HTTP is public by its URL.
            Protocol::Http | Protocol::Https => self.0.settings.private_address,
            Protocol::Auto | Protocol::Tcp | Protocol::Udp if details.created.is_public => {
                self.0.settings.public_address
            }
            Protocol::Auto | Protocol::Tcp | Protocol::Udp => self.0.settings.private_address,
        }
    }

    fn accept_on(
        &self,
        workspace: WorkspaceId,
        tunnel: TunnelId,
        address: SocketAddr,
        listener: PlainListener,
    ) -> Result<Port, PortRefused> {
        let gateway = self.0.gateway.clone();
        let refused = |error| PortRefused { port: address.port(), error };
        let accepting = listener.try_clone().map_err(refused)?;
        let closing = CancellationToken::new();
        let port = Port { address, listener, closing: closing.clone() };
        let room = Arc::new(Semaphore::new(self.0.settings.connections_per_tunnel_max));
        // Where the agent's link is.
        self.0.gateway.links().spawn(workspace, move |local| {
            gateway.clone().track(async move {
                match TcpListener::from_std(accepting) {
                    Ok(listener) => accept(gateway, local, tunnel, listener, room, closing).await,
                    Err(error) => tracing::error!(%tunnel, %error, "a tunnel port cannot accept"),
                }
            })
        });
        Ok(port)
    }
}

fn listen(address: SocketAddr) -> Result<PlainListener, PortRefused> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Connections of an earlier run that linger must not keep the port.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(PlainListener::from(socket))
    };
    listen().map_err(|error| PortRefused { port: address.port(), error })
}

async fn accept(
    gateway: Gateway,
    local: Rc<Local>,
    tunnel: TunnelId,
    listener: TcpListener,
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
    let Ok(admitted) = gateway.admit(tunnel) else {
        reset(socket);
        return None;
    };
    if let Some(stream) = local.open(admitted.agent, &links::port_open(tunnel, peer.to_string())) {
        // Bytes go on their way at once; a refusal resets what sent them.
        return Some(relay(Tcp::from(socket), stream, any_cancelled(admitted.tokens)).await);
    }
    match gateway.open(admitted.agent, tunnel, StreamKind::Tcp, &peer.to_string()).await {
        Ok(upstream) => Some(relay(Tcp::from(socket), upstream, any_cancelled(admitted.tokens)).await),
        Err(error) => {
            tracing::debug!(%tunnel, %error, "a tunnel connection could not be opened");
            reset(socket);
            None
        }
    }
}

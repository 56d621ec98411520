//! The UDP ports of tunnels on this hub: a socket for each open tunnel that carries datagrams, following `Routes`.
//!
//! The rules of [`crate::tunnel_ports`], which keeps this in step. Each peer is a session with a stream of its own
//! ([`wire::peers`]); closing a port ends its sessions, since nothing could reach them any more.

use std::{collections::HashMap, net::SocketAddr};

use domain::{
    ids::{TunnelId, WorkspaceId},
    target::Protocol,
};
use parking_lot::Mutex;
use schemas::frames::StreamKind;
use wire::{
    peers::{Counts, Host, Peer, PeerPort, PeerRoom, bind},
    relay::any_cancelled,
};

use crate::{
    gateway::{
        Gateway,
        counts::NotAsked,
        links::{self, Local},
    },
    streams::Streams as _,
    tunnel_ports::{PortRefused, TunnelPortSettings, WantedPort, bind_all, wanted},
};

/// The sockets.
#[derive(Debug)]
pub struct UdpPorts {
    gateway: Gateway,
    settings: TunnelPortSettings,
    room: PeerRoom,
    open: Mutex<HashMap<TunnelId, Port>>,
}

#[derive(Debug)]
struct Port {
    /// As they were wanted; a machine without IPv6 does without.
    addresses: Vec<SocketAddr>,
    peers: PeerPort,
}

impl UdpPorts {
    /// No port is open yet.
    pub fn new(gateway: Gateway, settings: TunnelPortSettings) -> Self {
        Self { gateway, settings, room: PeerRoom::default(), open: Mutex::default() }
    }

    /// Makes the tunnel's port as `Routes` says. When it returns, the port takes datagrams or refuses them.
    ///
    /// # Errors
    /// [`PortRefused`] when the port should be open and the system refuses.
    pub fn try_sync(&self, tunnel: TunnelId) -> Result<(), PortRefused> {
        let mut open = self.open.lock();
        let wanted =
            wanted(&self.gateway, &self.settings, tunnel).filter(|wanted| wanted.protocol == Protocol::Udp);
        if open.get(&tunnel).map(|port| &port.addresses) == wanted.as_ref().map(|wanted| &wanted.addresses) {
            return Ok(());
        }
        if let Some(port) = open.remove(&tunnel) {
            port.peers.close();
        }
        if let Some(wanted) = wanted {
            open.insert(tunnel, self.listen(tunnel, wanted)?);
        }
        Ok(())
    }

    /// Closes every port.
    pub fn close(&self) {
        for (_, port) in self.open.lock().drain() {
            port.peers.close();
        }
    }

    /// What all ports counted so far.
    pub fn counts(&self) -> &Counts {
        self.room.counts()
    }

    fn listen(&self, tunnel: TunnelId, wanted: WantedPort) -> Result<Port, PortRefused> {
        let WantedPort { workspace, addresses, .. } = wanted;
        let refused = |error| PortRefused { port: addresses[0].port(), error };
        let sockets = bind_all(&addresses, bind)?;
        // Whoever calls, datagrams are received on the gateway's runtime.
        let _runtime = self.gateway.parts().runtime.enter();
        let host = TunnelHost { gateway: self.gateway.clone(), workspace, tunnel };
        let (peers, receiving) =
            PeerPort::open(sockets, self.settings.peers.clone(), &self.room, host).map_err(refused)?;
        for receiving in receiving {
            let gateway = self.gateway.clone();
            self.gateway.spawn(async move {
                tokio::select! {
                    () = gateway.stopped().cancelled() => {}
                    () = receiving => {}
                }
            });
        }
        Ok(Port { addresses, peers })
    }
}

#[derive(Debug)]
struct TunnelHost {
    gateway: Gateway,
    workspace: WorkspaceId,
    tunnel: TunnelId,
}

impl Host for TunnelHost {
    fn attend(&self, peer: Peer) {
        let (gateway, tunnel) = (self.gateway.clone(), self.tunnel);
        // Where the agent's link is.
        self.gateway.links().spawn(self.workspace, move |local| {
            gateway.clone().track(async move { serve(&gateway, &local, tunnel, peer).await })
        });
    }
}

async fn serve(gateway: &Gateway, local: &Local, tunnel: TunnelId, peer: Peer) {
    let (over, address) = (peer.over(), peer.address().to_string());
    let counts = gateway.counts().of(StreamKind::Udp);
    let Ok(admitted) = gateway.admit(tunnel) else {
        counts.not_asked(NotAsked::NotAdmitted);
        return peer.refuse().await;
    };
    // A session is counted; what datagrams carry is not.
    admitted.used.opened();
    let ended = any_cancelled(admitted.tokens);
    let open = links::port_open(tunnel, StreamKind::Udp, address.clone());
    let carried = if let Some(stream) = local.open(admitted.agent, &open) {
        // Datagrams go on their way at once; a refusal ends the session.
        let _open = counts.on_link();
        peer.carry(stream, ended).await
    } else {
        let opened = tokio::select! {
            () = over.cancelled() => return,
            () = gateway.stopped().cancelled() => return,
            opened = gateway.open(admitted.agent, tunnel, StreamKind::Udp, &address) => opened,
        };
        match opened {
            Ok(stream) => {
                let _open = counts.open.hold();
                peer.carry(stream, ended).await
            }
            Err(error) => {
                tracing::debug!(%tunnel, %error, "a UDP session could not be opened");
                return peer.refuse().await;
            }
        }
    };
    tracing::debug!(%tunnel, ?carried, "a UDP session ended");
}

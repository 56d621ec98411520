//! Local UDP ports that lead to tunnels of others: each peer's datagrams on a stream of its own.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use schemas::frames::StreamKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::peers::{Host, Peer, PeerLimits, PeerPort, bind};

use super::{
    Agent,
    ports::{Opened, To, listen_on_both, open_stream},
    refusals::{self, Reason, Refusals},
    streams::Local,
};

/// Opens a port (0: any) that leads to a tunnel; its sessions end with `over`.
pub(super) fn open(
    agent: &Agent,
    to: &To,
    port: u16,
    over: &CancellationToken,
    refusals: Arc<watch::Sender<Refusals>>,
) -> io::Result<(u16, PeerPort)> {
    let bound = |address: SocketAddr| {
        let socket = bind(address)?;
        Ok((socket.local_addr()?.port(), socket))
    };
    let (port, sockets) = listen_on_both(port, bound)?;
    let limits =
        PeerLimits { idle: Duration::from_millis(agent.0.options.udp_idle_ms), ..PeerLimits::default() };
    let host = Reacher { agent: agent.clone(), to: to.clone(), over: over.clone(), refusals };
    let (peers, receiving) = PeerPort::open(sockets, limits, &agent.0.peers, host)?;
    for receiving in receiving {
        let over = over.clone();
        agent.0.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = receiving => {}
            }
        });
    }
    Ok((port, peers))
}

struct Reacher {
    agent: Agent,
    to: To,
    over: CancellationToken,
    refusals: Arc<watch::Sender<Refusals>>,
}

impl Host for Reacher {
    fn attend(&self, peer: Peer) {
        let (agent, to, over) = (self.agent.clone(), self.to.clone(), self.over.clone());
        let refusals = Arc::clone(&self.refusals);
        // Where the link is.
        self.agent
            .on_core(move |local| async move { serve(&agent, &local, &to, peer, &over, &refusals).await });
    }
}

async fn serve(
    agent: &Agent,
    local: &Local,
    to: &To,
    peer: Peer,
    over: &CancellationToken,
    refusals: &watch::Sender<Refusals>,
) {
    let Ok(_room) = Arc::clone(&agent.0.streams).try_acquire_owned() else {
        count(refusals, Reason::Busy, "this machine has too many streams open");
        return peer.refuse().await;
    };
    let left = peer.over();
    let opened = tokio::select! {
        () = over.cancelled() => return,
        () = left.cancelled() => return,
        opened = open_stream(agent, local, to, StreamKind::SealedUdp) => opened,
    };
    let carried = match opened {
        Ok(Opened::OnLink(stream)) => peer.carry(stream, over.cancelled()).await,
        Ok(Opened::OnItsOwn(stream)) => peer.carry(stream, over.cancelled()).await,
        Err(error) => {
            tracing::debug!(%error, "datagrams could not be led to their tunnel");
            count(refusals, error.reason(), &error.to_string());
            return peer.refuse().await;
        }
    };
    tracing::debug!(?carried, "a UDP session ended");
}

fn count(refusals: &watch::Sender<Refusals>, reason: Reason, words: &str) {
    refusals.send_modify(|refusals| refusals::add(refusals, reason, 1, words));
}

//! Opens a tunnel's target as a stream's kind wants it.

use std::io;

use domain::target::{Protocol, Target};
use schemas::frames::{RefusalCode, StreamKind, StreamOpen};
use tokio::net::TcpStream;
use wire::{
    relay::relay,
    side::{Carrier, Side},
};

use super::{
    Agent,
    datagrams::{self, TargetEnd},
    dialer,
    target_tls::Inside,
};

/// A target that was dialled.
pub(super) enum Opened {
    Bytes(Carrier),
    Datagrams(Box<TargetEnd>),
}

/// Dials the target of a stream. The allow-list is asked for every stream: the hub's word is not enough.
pub(super) async fn open(
    agent: &Agent,
    open: &StreamOpen,
    target: &Target,
    protocol: Protocol,
) -> Result<Opened, (RefusalCode, String)> {
    if !agent.0.allowed.permits(&target.host, target.port) {
        tracing::warn!(%target, "the hub asked for a target that is not allowed");
        return Err((
            RefusalCode::TargetNotAllowed,
            "the agent's owner does not allow this target".to_owned(),
        ));
    }
    let unreachable = |why: &str| (RefusalCode::TargetUnreachable, format!("{target}: {why}"));
    // What its owner exposed for the one is not open to the other.
    match (open.kind, protocol) {
        (StreamKind::Udp | StreamKind::SealedUdp, Protocol::Udp) => {
            let end = datagrams::open(agent, open.tunnel, target).await;
            end.map(|end| Opened::Datagrams(Box::new(end))).map_err(|error| unreachable(&error.to_string()))
        }
        (StreamKind::Udp | StreamKind::SealedUdp, _) => {
            Err(unreachable("the tunnel carries connections, no datagrams"))
        }
        (_, Protocol::Udp) => Err(unreachable("the tunnel carries datagrams, no connections")),
        // Whoever asks for bytes speaks TLS with the target itself.
        (StreamKind::Tcp | StreamKind::SealedTcp, _) | (_, Protocol::Tcp | Protocol::Http) => {
            let socket = dial(agent, open.tunnel, target).await;
            socket.map(|socket| Opened::Bytes(socket.into())).map_err(|error| unreachable(&error.to_string()))
        }
        (StreamKind::Http, Protocol::Auto | Protocol::Https) => {
            http(agent, open.tunnel, target, protocol, Inside::Http1).await.map_err(|why| unreachable(&why))
        }
        (StreamKind::Http2, Protocol::Auto | Protocol::Https) => {
            http(agent, open.tunnel, target, protocol, Inside::Http2).await.map_err(|why| unreachable(&why))
        }
    }
}

async fn dial(agent: &Agent, tunnel: u128, target: &Target) -> io::Result<TcpStream> {
    let dialled = dialer::dial(&target.host, target.port).await;
    agent.0.tunnels.dialled(tunnel, dialled.is_ok());
    dialled
}

/// A connection for HTTP, inside TLS where the target speaks it.
async fn http(
    agent: &Agent,
    tunnel: u128,
    target: &Target,
    protocol: Protocol,
    inside: Inside,
) -> Result<Opened, String> {
    let tunnels = &agent.0.tunnels;
    let mut is_tls = protocol == Protocol::Https;
    if protocol == Protocol::Auto {
        let mut speech = tunnels.speech(tunnel).await;
        if speech.is_none() {
            // It could not be reached when it was looked at: if it can be now, that is to be done first.
            drop(dial(agent, tunnel, target).await.map_err(|error| error.to_string())?);
            speech = tunnels.speech(tunnel).await;
        }
        is_tls = speech.is_some_and(|speech| speech.is_tls);
    }
    let socket = dial(agent, tunnel, target).await.map_err(|error| error.to_string())?;
    if !is_tls {
        return Ok(Opened::Bytes(socket.into()));
    }
    match agent.0.target_tls.judge(target).connect(target, socket, inside).await {
        Ok(stream) => Ok(Opened::Bytes(stream.into())),
        Err(failure) => {
            tunnels.tls_failed(tunnel, &failure);
            Err(failure.to_string())
        }
    }
}

impl Opened {
    /// Carries the stream to its end.
    pub(super) async fn carry(self, agent: &Agent, stream: impl Side) {
        match self {
            Self::Bytes(target) => {
                relay(stream, target, agent.0.stop.cancelled()).await;
            }
            Self::Datagrams(end) => Box::pin(datagrams::carry(agent, stream, *end)).await,
        }
    }
}

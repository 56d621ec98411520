//! Opening a stream through an agent's session: on a warm data connection, or on the next one to arrive.

use std::{io, time::Duration};

use domain::ids::{AgentId, TunnelId};
use futures_util::future::BoxFuture;
use schemas::frames::{Frame, RefusalCode, StreamAccepted, StreamKind, StreamOpen, StreamRefused};
use tokio::time::{Instant, timeout_at};
use wire::{
    frame_io,
    side::{Parked, Side as _},
};

use super::{Gateway, core_links::CoreLinks, pool::Taken, sessions::Session};
use crate::streams::{CoreStreams, OpenError, Stream, Streams};

impl Streams for Gateway {
    fn open<'a>(
        &'a self,
        agent: AgentId,
        tunnel: TunnelId,
        kind: StreamKind,
        peer: &'a str,
    ) -> BoxFuture<'a, Result<Stream, OpenError>> {
        Box::pin(async move {
            let (counts, begun) = (self.counts().of(kind), Instant::now());
            counts.opens.add(1);
            let opened = open_within(self, agent, tunnel, kind, peer).await;
            match &opened {
                Ok(_) => counts.opening.add(begun.elapsed()),
                Err(error) => counts.failed(error),
            }
            opened
        })
    }

    fn is_connected(&self, agent: AgentId) -> bool {
        Self::is_connected(self, agent)
    }

    fn of_core(&self) -> Box<dyn CoreStreams> {
        Box::new(CoreLinks::new(self.clone()))
    }
}

async fn open_within(
    gateway: &Gateway,
    agent: AgentId,
    tunnel: TunnelId,
    kind: StreamKind,
    peer: &str,
) -> Result<Stream, OpenError> {
    if gateway.is_draining() {
        return Err(OpenError::Busy);
    }
    let session = gateway.sessions().of(agent).ok_or(OpenError::AgentOffline)?;
    let deadline = Instant::now() + Duration::from_millis(gateway.settings().open_timeout_ms);
    let open = Frame::StreamOpen(stream_open(tunnel, kind, peer));
    // Each round uses up one connection of a bounded pool, and waits at most to the deadline.
    loop {
        let socket = next_connection(&session, deadline).await?;
        match timeout_at(deadline, ask(socket, &open)).await {
            Ok(Ok(Answered::Accepted(stream))) => return Ok(stream),
            Ok(Ok(Answered::Refused(refused))) => return Err(refusal(refused)),
            // It died on the way, before any answer: nothing of the caller's was sent.
            Ok(Err(_)) => {}
            Err(_) => return Err(OpenError::Timeout),
        }
    }
}

/// The longest peer name that is passed on to the agent (characters).
const PEER_CHARS_MAX: usize = 255;

/// What the hub says when it opens a stream for `peer`.
pub(crate) fn stream_open(tunnel: TunnelId, kind: StreamKind, peer: &str) -> StreamOpen {
    StreamOpen { tunnel: tunnel.uuid().as_u128(), kind, peer: peer.chars().take(PEER_CHARS_MAX).collect() }
}

pub(crate) async fn next_connection(session: &Session, deadline: Instant) -> Result<Parked, OpenError> {
    match session.pool.take() {
        Taken::Warm(socket) => Ok(socket),
        Taken::Soon(arrival) => {
            session.want_data(1);
            match timeout_at(deadline, arrival).await {
                Ok(Ok(socket)) => Ok(socket),
                Ok(Err(_)) => Err(OpenError::AgentOffline),
                Err(_) => Err(OpenError::Timeout),
            }
        }
        Taken::Full => Err(OpenError::Busy),
        Taken::Closed => Err(OpenError::AgentOffline),
    }
}

enum Answered {
    Accepted(Stream),
    Refused(StreamRefused),
}

async fn ask(socket: Parked, open: &Frame) -> io::Result<Answered> {
    let mut socket = socket.adopt()?;
    frame_io::write(&mut socket, open).await?;
    let answer = frame_io::read(&mut socket).await?;
    if let Frame::StreamRefused(refused) = answer {
        return Ok(Answered::Refused(refused));
    }
    if answer == Frame::StreamAccepted(StreamAccepted {}) {
        return Ok(Answered::Accepted(socket));
    }
    socket.reset();
    Err(io::ErrorKind::InvalidData.into())
}

pub(super) fn refusal(refused: StreamRefused) -> OpenError {
    match refused.code {
        RefusalCode::TargetNotAllowed => OpenError::TargetNotAllowed(refused.message),
        RefusalCode::Busy => OpenError::Busy,
        RefusalCode::AgentOffline => OpenError::AgentOffline,
        RefusalCode::UnknownTunnel | RefusalCode::Paused | RefusalCode::TargetUnreachable => {
            OpenError::TargetUnreachable(refused.message)
        }
    }
}

//! Data connections: opened to the hub with a proof that is good once, kept warm, and used for one stream each.

use std::{io, sync::Arc, time::Duration};

use schemas::frames::{
    Frame, RefusalCode, STREAM_PATH, StreamAccepted, StreamKind, StreamOpen, StreamRefused,
    preface::{self, BYTES_MAX, Purpose, UPGRADE},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use wire::{
    frame_io,
    side::{Carrier, Tcp},
};

use super::{Agent, control::Link, dialer, hub_connection, refusals::Reason, sealing::SealFailure, streams};

/// How long the hub may take to accept a connection and its preface.
const HUB_PATIENCE: Duration = Duration::from_secs(10);
/// How long a place in the warm pool stays empty after a connection failed.
const REFILL_AFTER: Duration = Duration::from_secs(1);
/// The most idle connections that a hub may ask for, and the most that may be opened at once on its demand.
const WARM_MAX: u16 = 64;
const WANTED_MAX: usize = 256;
/// How long the answer to a `reach` may take: the hub's own limit and the way.
pub(super) const REACH_PATIENCE: Duration = Duration::from_secs(15);

/// Why a stream to a tunnel was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachFailure {
    /// The hub says no; trying again at once would not help.
    #[error("{words}")]
    Refused { reason: Reason, words: String },
    /// The other agent's key is not the pinned one, or it does not shake hands.
    #[error(transparent)]
    Unsealed(#[from] SealFailure),
    /// The connection to the hub broke or was not accepted.
    #[error("the hub cannot be reached: {0}")]
    Io(#[from] io::Error),
}

impl ReachFailure {
    /// For whoever shows it.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Refused { reason, .. } => *reason,
            Self::Unsealed(SealFailure::Changed { .. }) => Reason::KeyChanged,
            Self::Unsealed(SealFailure::Forgotten | SealFailure::Broken(_)) => Reason::Unsealed,
            Self::Io(_) => Reason::HubUnreachable,
        }
    }
}

/// Keeps `wanted` idle connections at the hub until the session ends.
pub(super) async fn keep_warm(agent: Agent, link: Arc<Link>, wanted: u16) {
    let places = Arc::new(Semaphore::new(usize::from(wanted.min(WARM_MAX))));
    loop {
        let place = tokio::select! {
            () = link.ended.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place.expect("never closed"),
        };
        agent.0.tasks.spawn(serve(agent.clone(), Arc::clone(&link), Some(place)));
    }
}

/// Opens further connections because the hub has openers in line.
pub(super) fn open_more(agent: &Agent, link: &Arc<Link>, count: u16) {
    for _ in 0..usize::from(count).min(WANTED_MAX) {
        let Ok(room) = Arc::clone(&link.wanted).try_acquire_owned() else { return };
        let (agent, link) = (agent.clone(), Arc::clone(link));
        agent.clone().0.tasks.spawn(serve(agent, link, Some(room)));
    }
}

/// The room for connections on demand of one session.
pub(super) fn wanted_room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(WANTED_MAX))
}

/// One connection: idle at the hub until it brings a stream, which is then served. `place` is given back when the
/// connection is no longer idle.
async fn serve(agent: Agent, link: Arc<Link>, place: Option<OwnedSemaphorePermit>) {
    let opened = async {
        let mut socket = connect(&agent, &link, Purpose::Serve).await?;
        let frame = frame_io::read(&mut socket).await?;
        Ok::<_, io::Error>((socket, frame))
    };
    let opened = tokio::select! {
        () = link.ended.cancelled() => return,
        () = agent.0.stop.cancelled() => return,
        opened = opened => opened,
    };
    match opened {
        Ok((socket, Frame::StreamOpen(open))) => {
            drop(place);
            stream(&agent, socket, &open).await;
        }
        Ok((socket, Frame::StreamAdopt(adopt))) => {
            drop(place);
            streams::adopt(&agent, &link, adopt.stream, socket);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "a data connection failed");
            tokio::select! {
                () = link.ended.cancelled() => {}
                () = sleep(REFILL_AFTER) => {}
            }
        }
    }
}

/// Dials the target of a stream that the hub opened, and relays.
async fn stream(agent: &Agent, mut socket: Carrier, open: &StreamOpen) {
    match dial(agent, open).await {
        Ok((target, _room)) => {
            if frame_io::write(&mut socket, &Frame::StreamAccepted(StreamAccepted {})).await.is_ok() {
                streams::carry(agent, socket, target, open).await;
            }
        }
        Err((code, message)) => refuse(socket, code, &message).await,
    }
}

/// The target of a stream that the hub opened, and its place among the streams.
pub(super) async fn dial(
    agent: &Agent,
    open: &StreamOpen,
) -> Result<(Tcp, OwnedSemaphorePermit), (RefusalCode, String)> {
    let refuse = |code, words: &str| Err((code, words.to_owned()));
    let Ok(room) = Arc::clone(&agent.0.streams).try_acquire_owned() else {
        return refuse(RefusalCode::Busy, "the agent has too many streams open");
    };
    let Some(target) = agent.0.tunnels.target(open.tunnel).await else {
        return refuse(RefusalCode::UnknownTunnel, "the agent does not know this tunnel");
    };
    // Asked for every stream: the hub's word is not enough.
    if !agent.0.allowed.permits(&target.host, target.port) {
        tracing::warn!(%target, "the hub asked for a target that is not allowed");
        return refuse(RefusalCode::TargetNotAllowed, "the agent's owner does not allow this target");
    }
    let dialled = dialer::dial(&target.host, target.port).await;
    agent.0.tunnels.dialled(open.tunnel, dialled.is_ok());
    match dialled {
        Ok(socket) => Ok((Tcp::from(socket), room)),
        Err(error) => refuse(RefusalCode::TargetUnreachable, &format!("{target}: {error}")),
    }
}

async fn refuse(mut socket: Carrier, code: RefusalCode, message: &str) {
    let refused = Frame::StreamRefused(StreamRefused { code, message: message.to_owned() });
    if frame_io::write(&mut socket, &refused).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

/// Opens a stream to a tunnel of the workspace; what comes next on the socket is raw.
pub(super) async fn reach(
    agent: &Agent,
    link: &Link,
    tunnel: u128,
    kind: StreamKind,
) -> Result<Carrier, ReachFailure> {
    let mut socket = connect(agent, link, Purpose::Reach).await?;
    let open = Frame::StreamOpen(StreamOpen { tunnel, kind, peer: String::new() });
    frame_io::write(&mut socket, &open).await?;
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let answer = timeout(REACH_PATIENCE, frame_io::read(&mut socket)).await.map_err(|_| late())??;
    if let Frame::StreamRefused(refused) = answer {
        return Err(ReachFailure::Refused { reason: refused.code.into(), words: refused.message });
    }
    if answer == Frame::StreamAccepted(StreamAccepted {}) {
        Ok(socket)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData).into())
    }
}

/// A data connection up to the hub's `101`.
pub(super) async fn connect(agent: &Agent, link: &Link, purpose: Purpose) -> io::Result<Carrier> {
    let hub = agent.0.hub.as_ref().map_err(|error| io::Error::other(error.clone()))?;
    let connecting = async {
        let mut socket = hub_connection::connect(hub).await?;
        let (counter, proof) = link.proof(purpose);
        let request = format!(
            "GET {STREAM_PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n{}: {}\r\n\
             {}: {counter}\r\n{}: {}\r\n{}: {proof}\r\n\r\n",
            hub.authority,
            preface::SESSION,
            link.session_id,
            preface::COUNTER,
            preface::PURPOSE,
            purpose.name(),
            preface::PROOF,
        );
        socket.write_all(request.as_bytes()).await?;
        let head = read_head(&mut socket).await?;
        if head.starts_with(b"HTTP/1.1 101 ") {
            return Ok(socket);
        }
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Err(io::Error::other(format!("the hub answered `{}`", String::from_utf8_lossy(line))))
    };
    timeout(HUB_PATIENCE, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Reads the head of an HTTP answer and leaves what follows it in the socket.
async fn read_head(socket: &mut Carrier) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut seen = [0; BYTES_MAX];
    loop {
        let length = match socket {
            Carrier::Plain(tcp) => tcp.socket().peek(&mut seen).await?,
            // Nothing can be put back, and what is read comes from memory.
            Carrier::Wrapped(_) => {
                let byte = socket.read_u8().await?;
                head.push(byte);
                if head.ends_with(END) {
                    return Ok(head);
                }
                if head.len() > BYTES_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                continue;
            }
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = head.len();
        head.extend_from_slice(&seen[..length]);
        // The end may have begun in what was taken before.
        let from = before.saturating_sub(END.len() - 1);
        let end = head[from..].windows(END.len()).position(|window| window == END);
        let take = end.map_or(length, |at| from + at + END.len() - before);
        head.truncate(before + take);
        socket.read_exact(&mut seen[..take]).await?;
        if end.is_some() {
            return Ok(head);
        }
        if head.len() > BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

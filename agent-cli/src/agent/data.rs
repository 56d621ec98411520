//! Data connections: opened to the hub with a proof that is good once, kept warm, and used for one stream each.

use std::{io, sync::Arc, time::Duration};

use schemas::frames::{
    Frame, RefusalCode, StreamAccepted, StreamKind, StreamOpen, StreamRefused, preface::Purpose,
};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use wire::{frame_io, side::Carrier};

use super::{
    Agent,
    control::Link,
    data_connection::connect,
    refusals::Reason,
    sealing::SealFailure,
    streams,
    target::{self, Opened},
};

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
            Box::pin(stream(&agent, socket, &open)).await;
        }
        Ok((socket, Frame::StreamAdopt(adopt))) => {
            drop(place);
            streams::adopt(&agent, &link, (streams::OWN, adopt.stream), socket);
        }
        Ok((socket, Frame::LinkBegin(begin))) => {
            drop(place);
            streams::begin(&agent, &link, begin.link, socket);
        }
        Ok((socket, Frame::LinkAdopt(adopt))) => {
            drop(place);
            streams::adopt(&agent, &link, (adopt.link, adopt.stream), socket);
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
    match Box::pin(dial(agent, open)).await {
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
) -> Result<(Opened, OwnedSemaphorePermit), (RefusalCode, String)> {
    let Ok(room) = Arc::clone(&agent.0.streams).try_acquire_owned() else {
        return Err((RefusalCode::Busy, "the agent has too many streams open".to_owned()));
    };
    let Some((target, protocol)) = agent.0.tunnels.target(open.tunnel).await else {
        return Err((RefusalCode::UnknownTunnel, "the agent does not know this tunnel".to_owned()));
    };
    target::open(agent, open, &target, protocol).await.map(|opened| (opened, room))
}

async fn refuse(mut socket: Carrier, code: RefusalCode, message: &str) {
    let refused = Frame::StreamRefused(StreamRefused { code, message: message.to_owned() });
    if frame_io::write(&mut socket, &refused).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

/// Opens a stream to a tunnel of the workspace; what comes next on the socket is the stream's.
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

//! Agents' data connections as they arrive: preface, proof, and what becomes of the socket.

use domain::{
    access::Denied,
    ids::{AgentId, TunnelId},
};
use schemas::frames::{
    Frame, RefusalCode, StreamAccepted, StreamOpen, StreamRefused,
    preface::{BYTES_MAX, Purpose, REFUSED, UPGRADE, WEBSOCKET, proof_text},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use uuid::Uuid;

use wire::{
    frame_io,
    relay::{any_cancelled, relay_counted},
    side::{Carrier, Parked},
    websocket::{End, Messages},
};

use super::{
    Admitted, Gateway, Used,
    counts::NotAsked,
    links,
    preface::{self, Preface, Upgrade},
    sessions::Session,
};
use crate::{
    running::Under,
    streams::{OpenError, Streams as _},
};

/// Why a data connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwelcome {
    Malformed,
    /// Unknown session, wrong proof and used counter look alike from outside.
    Unproven,
    Draining,
}

/// Serves one data connection to its end; a `serve` connection ends here by going into its session's pool.
pub(crate) async fn serve(gateway: &Gateway, mut socket: Carrier) {
    let limit = Duration::from_millis(gateway.settings().preface_ms_max);
    // What is neither refused nor read in time is closed without a word.
    let Ok(Ok(read)) = timeout(limit, read_preface(&mut socket)).await else { return };
    let admitted = match read {
        _ if gateway.is_draining() => Err(Unwelcome::Draining),
        Some(preface) => admit(gateway, &preface).map(|session| (session, preface)),
        None => Err(Unwelcome::Malformed),
    };
    let (session, preface) = match admitted {
        Ok(admitted) => admitted,
        Err(unwelcome) => return turn_away(socket, unwelcome).await,
    };
    let Ok(socket) = switch(socket, &preface.upgrade).await else { return };
    match preface.purpose {
        Purpose::Serve => {
            if let Ok(parked) = Parked::park(socket) {
                session.pool.offer(parked);
            }
        }
        Purpose::Reach => reach(gateway, &session, socket).await,
        Purpose::Link => links::begin(gateway, &session, socket),
    }
}

/// Says that the connection's bytes are the agent protocol's from here on.
async fn switch(mut socket: Carrier, upgrade: &Upgrade) -> std::io::Result<Carrier> {
    let switching = match upgrade {
        Upgrade::Raw => format!("Upgrade: {UPGRADE}\r\n"),
        Upgrade::WebSocket { accept } => {
            format!("Upgrade: {WEBSOCKET}\r\nSec-WebSocket-Accept: {accept}\r\n")
        }
    };
    let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{switching}\r\n");
    socket.write_all(head.as_bytes()).await?;
    socket.flush().await?;
    Ok(match upgrade {
        Upgrade::Raw => socket,
        Upgrade::WebSocket { .. } => Messages::over(socket, End::Server).await,
    })
}

/// `None`: what came is no preface, or more than one (an agent says nothing further before the answer).
async fn read_preface(socket: &mut Carrier) -> std::io::Result<Option<Preface>> {
    let mut bytes = [0; BYTES_MAX];
    let mut length = 0;
    loop {
        let read = socket.read(&mut bytes[length..]).await?;
        length += read;
        match preface::parse(&bytes[..length]) {
            Ok(Some(preface)) if preface.length == length => return Ok(Some(preface)),
            Ok(None) if read > 0 => {}
            Ok(Some(_) | None) | Err(_) => return Ok(None),
        }
    }
}

/// Proof first, counter second: a forger must not use up an agent's counters.
fn admit(gateway: &Gateway, preface: &Preface) -> Result<Arc<Session>, Unwelcome> {
    let session = gateway.sessions().by_id(preface.session).ok_or(Unwelcome::Unproven)?;
    let text = proof_text(&preface.session.to_string(), preface.counter, preface.purpose);
    // Constant-time.
    ring::hmac::verify(&session.data_key, text.as_bytes(), &preface.proof)
        .map_err(|_| Unwelcome::Unproven)?;
    if session.counters.lock().take(preface.counter) { Ok(session) } else { Err(Unwelcome::Unproven) }
}

async fn turn_away(mut socket: Carrier, unwelcome: Unwelcome) {
    let (status, reason) = match unwelcome {
        Unwelcome::Malformed => ("400 Bad Request", "malformed"),
        Unwelcome::Unproven => ("401 Unauthorized", "unproven"),
        Unwelcome::Draining => ("503 Service Unavailable", "draining"),
    };
    let answer =
        format!("HTTP/1.1 {status}\r\n{REFUSED}: {reason}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    // Best effort: the connection closes either way.
    if socket.write_all(answer.as_bytes()).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

/// A `reach` connection: one stream to a tunnel of the agent's workspace.
async fn reach(gateway: &Gateway, session: &Session, mut socket: Carrier) {
    let limit = Duration::from_millis(gateway.settings().preface_ms_max);
    let Ok(Ok(Frame::StreamOpen(wanted))) = timeout(limit, frame_io::read(&mut socket)).await else { return };
    let Ok(_room) = Arc::clone(&session.reach_streams).try_acquire_owned() else {
        gateway.counts().of(wanted.kind).not_asked(NotAsked::NoRoom);
        return refuse(socket, RefusalCode::Busy, "the agent has too many streams open").await;
    };
    let running = &gateway.parts().running;
    let mut tokens = vec![running.token(Under::Agent(session.agent))];
    tokens.extend(session.key.map(|key| running.token(Under::Key(key))));
    // Tokens first: had the session ended before, nobody would cancel them.
    if session.ending.is_cancelled() && !gateway.is_connected(session.agent) {
        return;
    }
    match open(gateway, session, &wanted).await {
        Ok((upstream, used, of_tunnel)) => {
            if frame_io::write(&mut socket, &Frame::StreamAccepted(StreamAccepted {})).await.is_ok() {
                tokens.extend(of_tunnel);
                let counts = gateway.counts().of(wanted.kind);
                let _open = counts.open.hold();
                used.opened();
                let relayed = relay_counted(socket, upstream, any_cancelled(tokens), counts.carry()).await;
                used.carried(&relayed);
            }
        }
        Err((code, message)) => refuse(socket, code, &message).await,
    }
}

type Refusal = (RefusalCode, String);

async fn open(
    gateway: &Gateway,
    session: &Session,
    wanted: &StreamOpen,
) -> Result<(Carrier, Used, [tokio_util::sync::CancellationToken; 3]), Refusal> {
    let admitted = admit_reach(gateway, session, wanted)?;
    let onward = StreamOpen { peer: session.host_name.clone(), ..wanted.clone() };
    Ok((open_reach(gateway, admitted.agent, &onward).await?, admitted.used, admitted.tokens))
}

/// Whether a session's agent may reach a tunnel now.
pub(crate) fn admit_reach(
    gateway: &Gateway,
    session: &Session,
    wanted: &StreamOpen,
) -> Result<Admitted, Refusal> {
    let admitted = judge_reach(gateway, session, TunnelId::new(Uuid::from_u128(wanted.tunnel)));
    if admitted.is_err() {
        gateway.counts().of(wanted.kind).not_asked(NotAsked::NotAdmitted);
    }
    admitted
}

fn judge_reach(gateway: &Gateway, session: &Session, tunnel: TunnelId) -> Result<Admitted, Refusal> {
    let unknown = || (RefusalCode::UnknownTunnel, "no such tunnel in this workspace".to_owned());
    // The border before anything else: whether a foreign tunnel is paused is nobody's business.
    let owner = gateway
        .parts()
        .routes
        .tunnel(tunnel)
        .and_then(|entry| entry.state.open().map(|details| details.created.workspace_id));
    if owner != Some(session.workspace) {
        return Err(unknown());
    }
    gateway.admit(tunnel).map_err(|denied| match denied {
        Denied::TunnelPaused => (RefusalCode::Paused, "the tunnel is paused".to_owned()),
        Denied::ShareRevoked
        | Denied::ShareExpired
        | Denied::TunnelGone
        | Denied::AgentOffline
        | Denied::MethodNotAllowed
        | Denied::AmbiguousPath
        | Denied::PathNotAllowed
        | Denied::RateLimited
        | Denied::BadRequest
        | Denied::UpstreamFailed
        | Denied::UpstreamTimeout
        | Denied::NotServed => unknown(),
    })
}

/// Opens a stream for somebody who reaches a tunnel, on a connection of its own.
pub(crate) async fn open_reach(
    gateway: &Gateway,
    agent: AgentId,
    onward: &StreamOpen,
) -> Result<Carrier, Refusal> {
    let tunnel = TunnelId::new(Uuid::from_u128(onward.tunnel));
    match gateway.open(agent, tunnel, onward.kind, &onward.peer).await {
        Ok(upstream) => Ok(upstream),
        Err(error) => {
            let code = match error {
                OpenError::AgentOffline => RefusalCode::AgentOffline,
                OpenError::TargetUnreachable(_) | OpenError::Timeout => RefusalCode::TargetUnreachable,
                OpenError::TargetNotAllowed(_) => RefusalCode::TargetNotAllowed,
                OpenError::Busy => RefusalCode::Busy,
            };
            Err((code, error.to_string()))
        }
    }
}

async fn refuse(mut socket: Carrier, code: RefusalCode, message: &str) {
    let refused = Frame::StreamRefused(StreamRefused { code, message: message.to_owned() });
    if frame_io::write(&mut socket, &refused).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

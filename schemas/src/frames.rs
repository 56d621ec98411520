//! The agent protocol `pconnect.v1`: what agent and hub say to each other, and the limits, all on one page.
//!
//! A frame is `{kind u16, flags u8, length u32, body}`, big-endian. A body is a struct in bincode (standard
//! configuration), frozen for ever with golden bytes: a new field is a new kind. An unknown kind whose flags say
//! [`FLAG_OPTIONAL`] is skipped, any other ends the session. The first two frames, `Hello` and `Welcome`, are JSON
//! with version ranges, so that the rest can change.
//!
//! The control connection is a WebSocket, one frame a binary message. A data connection is an HTTP/1.1 upgrade on the
//! same port ([`preface`]); after `101` one [`StreamOpen`] and its answer are framed, then the socket is raw bytes.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The WebSocket sub-protocol of the control connection.
pub const SUBPROTOCOL: &str = "pconnect.v1";
/// Where agents' control connections go.
pub const SESSION_PATH: &str = "/v1/agents/session";
/// Where agents' data connections go.
pub const STREAM_PATH: &str = "/v1/agents/stream";
/// The protocol version that this build speaks.
pub const PROTOCOL: u16 = 1;
/// The longest frame body, in bytes: before authentication nothing longer is ever held.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Kind, flags and length.
pub const HEADER_BYTES: usize = 7;
/// A receiver that does not know the kind may skip the frame.
pub const FLAG_OPTIONAL: u8 = 1;
/// Each side sends a ping when it has sent nothing for this long.
pub const HEARTBEAT_MS: u64 = 5_000;
/// A side that has heard nothing for this long is gone.
pub const SILENCE_MS_MAX: u64 = 15_000;
/// How long either side waits for the other's first frame.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

/// The first frame of an agent, JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The oldest and newest protocol version the agent speaks.
    pub protocol_min: u16,
    pub protocol_max: u16,
    pub agent_id: String,
    /// Random at the start of the agent process.
    pub instance: String,
    /// Shown when another machine with the same identity is refused.
    pub host_name: String,
    pub agent_version: String,
}

/// The hub's answer, JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    pub protocol: u16,
    pub hub_version: String,
    pub session_id: String,
    pub epoch: u64,
    /// Base64url, 32 bytes: the key for the proofs of this session's data connections.
    pub data_key: String,
    /// How many idle data connections the hub wants to have at hand.
    pub warm_connections: u16,
    pub heartbeat_ms: u64,
}

/// A frame of the control connection after the handshake, and those that begin a data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON, kind 1.
    Hello(Hello),
    /// JSON, kind 2.
    Welcome(Welcome),
    Ping(Ping),
    Pong(Pong),
    Goodbye(Goodbye),
    TunnelAssigned(TunnelAssigned),
    TunnelWithdrawn(TunnelWithdrawn),
    TunnelState(TunnelState),
    DataWanted(DataWanted),
    OpenPort(OpenPort),
    PortOpened(PortOpened),
    ClosePort(ClosePort),
    Check(Check),
    CheckResult(CheckResult),
    /// As [`Frame::OpenPort`], for a tunnel that carries datagrams.
    OpenUdpPort(OpenPort),
    /// Optional: an agent that does not know commands never takes one, and the hub sees that.
    CommandOrdered(CommandOrdered),
    CommandTaken(CommandTaken),
    CommandEnded(CommandEnded),
    CheckReach(CheckReach),
    StreamOpen(StreamOpen),
    StreamAccepted(StreamAccepted),
    StreamRefused(StreamRefused),
    StreamAdopt(StreamAdopt),
    LinkBegin(LinkBegin),
    LinkAdopt(LinkAdopt),
}

/// Are you there?
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    pub nonce: u64,
}
/// I am, and I read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pong {
    pub nonce: u64,
}

/// Why a side ends the session; the agent acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum GoodbyeCode {
    /// The agent leaves.
    Leaving,
    /// The hub restarts: come back after the delay.
    Draining,
    /// Another machine holds this identity: do not come back by yourself.
    HeldElsewhere,
    /// A newer session of the same process took over.
    Replaced,
    /// Key revoked, token expired or agent deleted: log in again.
    Unauthorized,
    /// No common protocol version, or a broken frame.
    Protocol,
}

/// The last frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Goodbye {
    pub code: GoodbyeCode,
    /// For people.
    pub message: String,
    /// Come back no earlier than this.
    pub retry_after_ms: u32,
}

/// Hub to agent: this tunnel is yours to serve. Sent for each tunnel after the handshake and at each change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TunnelAssigned {
    pub tunnel: u128,
    pub name: String,
    pub host: String,
    pub port: u16,
    /// `auto`, `tcp`, `udp`, `http` or `https`.
    pub protocol: String,
}
/// Hub to agent: no longer yours.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TunnelWithdrawn {
    pub tunnel: u128,
}
/// Whether the agent can serve a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Servable {
    Yes,
    /// Dialling failed, in the agent's words.
    Unreachable(String),
    /// The agent's owner does not allow this target.
    NotAllowed(String),
}
/// Agent to hub: the answer to [`TunnelAssigned`], and again whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TunnelState {
    pub tunnel: u128,
    pub servable: Servable,
}

/// Hub to agent: open that many more data connections.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DataWanted {
    pub count: u16,
}

/// Hub to agent: listen on a local port and lead it to a tunnel (`POST /v1/tunnels/:id/connect`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpenPort {
    pub request: u64,
    pub tunnel: u128,
    pub name: String,
    pub port: u16,
}
/// What became of [`OpenPort`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PortOutcome {
    Listening(u16),
    /// Somebody else listens there.
    Taken,
    Failed(String),
}
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PortOpened {
    pub request: u64,
    pub outcome: PortOutcome,
}
/// Hub to agent: close the local port of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClosePort {
    pub tunnel: u128,
}

/// Hub to agent: look at the target of a tunnel now (DNS, TCP, TLS, HTTP, latency).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Check {
    pub request: u64,
    pub tunnel: u128,
    pub timeout_ms: u32,
}
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CheckResult {
    pub request: u64,
    /// JSON of [`crate::rest::Diagnostics`].
    pub json: String,
}

/// Hub to agent: carry this out, once (`POST /v1/agents/:id/command`). Sent again at each session until its end is told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommandOrdered {
    pub command: u128,
    /// JSON: `{"action": …, "params": …}`.
    pub order: String,
}
/// Agent to hub: it is here, and will be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommandTaken {
    pub command: u128,
}
/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CommandOutcome {
    /// JSON, by the action.
    Done(String),
    Failed(CommandFailure),
}
/// Why a command was not carried out, or not as far as the agent can tell.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommandFailure {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
}
/// Agent to hub: how a command ended. Said again for a command that is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CommandEnded {
    pub command: u128,
    pub outcome: CommandOutcome,
}

/// How far a look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Depth {
    /// Only whether a stream opens.
    Tcp,
    /// As far as TLS.
    Tls,
    /// As far as HTTP, inside TLS where the target speaks it.
    Http,
    /// As far as the tunnel's protocol goes.
    Full,
}

/// Hub to agent: look at a tunnel of the workspace from where you are, over the way that `reach` goes. Answered by
/// [`CheckResult`]. Optional: an agent that does not know it gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CheckReach {
    pub request: u64,
    pub tunnel: u128,
    /// The name that the other side's key is pinned under.
    pub name: String,
    /// The target, as its certificate and its `Host` name it; it is not dialled from here.
    pub host: String,
    pub port: u16,
    /// `auto`, `tcp`, `udp`, `http` or `https`.
    pub protocol: String,
    pub depth: Depth,
    pub timeout_ms: u32,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum StreamKind {
    /// Raw bytes of a tunnel port or of `reach`.
    Tcp,
    /// HTTP/1.1 requests of the share edge: the agent dials the target, speaks TLS with it where the tunnel's protocol
    /// is `https`, and relays bytes.
    Http,
    /// HTTP/2 requests of the share edge: as `Http`, with `h2` as the protocol that TLS agrees on.
    Http2,
    /// Datagrams of one peer, each preceded by its length as a u16, big-endian.
    Udp,
    /// As `Tcp`, sealed between the reaching and the exposing agent: the hub cannot read it.
    SealedTcp,
    /// As `Udp`, sealed likewise.
    SealedUdp,
}

/// The first frame on a data connection: hub to agent on a `serve` connection, agent to hub on a `reach` connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamOpen {
    pub tunnel: u128,
    pub kind: StreamKind,
    /// The address of whoever is at the other end, for the agent's own telemetry; may be empty.
    pub peer: String,
}
/// The first frame on a `serve` connection that takes over a running stream of the session's link: from the next byte on
/// the socket is raw in both directions, each beginning after that direction's [`link::Kind::Moved`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamAdopt {
    /// The stream's number on the link.
    pub stream: u32,
}
/// The first frame on a `serve` connection that becomes a further [`link`] of the session: the hub has one for each core that
/// sends requests. An agent that does not know this frame closes the connection, and no further one is offered to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LinkBegin {
    /// How [`LinkAdopt`] names it: never 0, and no number comes again in a session.
    pub link: u32,
}
/// As [`StreamAdopt`], for a stream of a further link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LinkAdopt {
    pub link: u32,
    /// The stream's number on that link.
    pub stream: u32,
}
/// The target was dialled; from the next byte on the socket is raw in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamAccepted {}

/// Why a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RefusalCode {
    /// The tunnel is unknown (or in another workspace).
    UnknownTunnel,
    /// The tunnel is paused.
    Paused,
    /// The exposing agent is offline.
    AgentOffline,
    /// The target refused the connection or does not answer.
    TargetUnreachable,
    /// The agent's owner does not allow this target.
    TargetNotAllowed,
    /// Too many streams.
    Busy,
}
/// The stream was refused; the connection closes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StreamRefused {
    pub code: RefusalCode,
    pub message: String,
}

/// Why bytes are no frame. None of these is answered with more than a goodbye.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is shorter than its header says")]
    Short,
    #[error("the frame is longer than its header says")]
    Long,
    #[error("a frame body of {0} bytes is over the limit of {BODY_BYTES_MAX}")]
    TooLarge(usize),
    #[error("unknown frame kind {0}")]
    UnknownKind(u16),
    #[error("the body of frame kind {kind} is broken: {reason}")]
    Body { kind: u16, reason: String },
}

// What bincode may read for one body, against texts that claim to be huge. It counts every integer at its full width
// although most take one byte, so the limit lies above that of the body by what the fixed parts of any body may count.
const DECODE_BYTES_MAX: usize = BODY_BYTES_MAX + 256;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_BYTES_MAX>()
}

impl Frame {
    /// The number of this kind of frame, for ever.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Hello(_) => 1,
            Self::Welcome(_) => 2,
            Self::Ping(_) => 3,
            Self::Pong(_) => 4,
            Self::Goodbye(_) => 5,
            Self::TunnelAssigned(_) => 16,
            Self::TunnelWithdrawn(_) => 17,
            Self::TunnelState(_) => 18,
            Self::DataWanted(_) => 19,
            Self::OpenPort(_) => 20,
            Self::PortOpened(_) => 21,
            Self::ClosePort(_) => 22,
            Self::Check(_) => 23,
            Self::CheckResult(_) => 24,
            Self::OpenUdpPort(_) => 25,
            Self::CommandOrdered(_) => 32,
            Self::CommandTaken(_) => 33,
            Self::CommandEnded(_) => 34,
            Self::CheckReach(_) => 48,
            Self::StreamOpen(_) => 64,
            Self::StreamAccepted(_) => 65,
            Self::StreamRefused(_) => 66,
            Self::StreamAdopt(_) => 67,
            Self::LinkBegin(_) => 68,
            Self::LinkAdopt(_) => 69,
        }
    }

    /// What a receiver that does not know this kind may do with it.
    const fn flags(&self) -> u8 {
        match self {
            Self::CommandOrdered(_) | Self::CommandTaken(_) | Self::CommandEnded(_) | Self::CheckReach(_) => {
                FLAG_OPTIONAL
            }
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Goodbye(_)
            | Self::TunnelAssigned(_)
            | Self::TunnelWithdrawn(_)
            | Self::TunnelState(_)
            | Self::DataWanted(_)
            | Self::OpenPort(_)
            | Self::PortOpened(_)
            | Self::ClosePort(_)
            | Self::Check(_)
            | Self::CheckResult(_)
            | Self::OpenUdpPort(_)
            | Self::StreamOpen(_)
            | Self::StreamAccepted(_)
            | Self::StreamRefused(_)
            | Self::StreamAdopt(_)
            | Self::LinkBegin(_)
            | Self::LinkAdopt(_) => 0,
        }
    }

    /// The bytes of the frame.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when the body is over [`BODY_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = vec![0; HEADER_BYTES];
        self.body(&mut bytes)?;
        let length = bytes.len() - HEADER_BYTES;
        if length > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge(length));
        }
        bytes[0..2].copy_from_slice(&self.kind().to_be_bytes());
        bytes[2] = self.flags();
        bytes[3..7].copy_from_slice(&u32::try_from(length).expect("under BODY_BYTES_MAX").to_be_bytes());
        Ok(bytes)
    }

    fn body(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        match self {
            Self::Hello(body) => write_json(out, body),
            Self::Welcome(body) => write_json(out, body),
            Self::Ping(body) => write(out, body),
            Self::Pong(body) => write(out, body),
            Self::Goodbye(body) => write(out, body),
            Self::TunnelAssigned(body) => write(out, body),
            Self::TunnelWithdrawn(body) => write(out, body),
            Self::TunnelState(body) => write(out, body),
            Self::DataWanted(body) => write(out, body),
            Self::OpenPort(body) => write(out, body),
            Self::PortOpened(body) => write(out, body),
            Self::ClosePort(body) => write(out, body),
            Self::Check(body) => write(out, body),
            Self::CheckResult(body) => write(out, body),
            Self::OpenUdpPort(body) => write(out, body),
            Self::CommandOrdered(body) => write(out, body),
            Self::CommandTaken(body) => write(out, body),
            Self::CommandEnded(body) => write(out, body),
            Self::CheckReach(body) => write(out, body),
            Self::StreamOpen(body) => write(out, body),
            Self::StreamAccepted(body) => write(out, body),
            Self::StreamRefused(body) => write(out, body),
            Self::StreamAdopt(body) => write(out, body),
            Self::LinkBegin(body) => write(out, body),
            Self::LinkAdopt(body) => write(out, body),
        }
    }

    /// Reads exactly one frame. `Ok(None)`: an unknown kind that may be skipped.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let header = Header::read(bytes)?.ok_or(FrameError::Short)?;
        let body = &bytes[HEADER_BYTES..];
        if body.len() < header.length {
            return Err(FrameError::Short);
        }
        if body.len() > header.length {
            return Err(FrameError::Long);
        }
        Self::decode_body(header, body)
    }

    /// Reads a body whose header is known.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode_body(header: Header, body: &[u8]) -> Result<Option<Self>, FrameError> {
        let kind = header.kind;
        let frame = match kind {
            1 => Self::Hello(read_json(kind, body)?),
            2 => Self::Welcome(read_json(kind, body)?),
            3 => Self::Ping(read(kind, body)?),
            4 => Self::Pong(read(kind, body)?),
            5 => Self::Goodbye(read(kind, body)?),
            16 => Self::TunnelAssigned(read(kind, body)?),
            17 => Self::TunnelWithdrawn(read(kind, body)?),
            18 => Self::TunnelState(read(kind, body)?),
            19 => Self::DataWanted(read(kind, body)?),
            20 => Self::OpenPort(read(kind, body)?),
            21 => Self::PortOpened(read(kind, body)?),
            22 => Self::ClosePort(read(kind, body)?),
            23 => Self::Check(read(kind, body)?),
            24 => Self::CheckResult(read(kind, body)?),
            25 => Self::OpenUdpPort(read(kind, body)?),
            32 => Self::CommandOrdered(read(kind, body)?),
            33 => Self::CommandTaken(read(kind, body)?),
            34 => Self::CommandEnded(read(kind, body)?),
            48 => Self::CheckReach(read(kind, body)?),
            64 => Self::StreamOpen(read(kind, body)?),
            65 => Self::StreamAccepted(read(kind, body)?),
            66 => Self::StreamRefused(read(kind, body)?),
            67 => Self::StreamAdopt(read(kind, body)?),
            68 => Self::LinkBegin(read(kind, body)?),
            69 => Self::LinkAdopt(read(kind, body)?),
            _ if header.flags & FLAG_OPTIONAL != 0 => return Ok(None),
            _ => return Err(FrameError::UnknownKind(kind)),
        };
        Ok(Some(frame))
    }
}

/// A frame's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: u16,
    pub flags: u8,
    pub length: usize,
}

impl Header {
    /// Reads a header; `Ok(None)` while there are fewer than [`HEADER_BYTES`] bytes.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] for a length over [`BODY_BYTES_MAX`], before anything is allocated.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind_high, kind_low, flags, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if length > BODY_BYTES_MAX {
            return Err(FrameError::TooLarge(length));
        }
        Ok(Some(Self { kind: u16::from_be_bytes([kind_high, kind_low]), flags, length }))
    }
}

fn write<T: Encode>(out: &mut Vec<u8>, body: &T) -> Result<(), FrameError> {
    let bytes = bincode::encode_to_vec(body, bincode::config::standard())
        .map_err(|error| FrameError::Body { kind: 0, reason: error.to_string() })?;
    out.extend_from_slice(&bytes);
    Ok(())
}

fn write_json<T: Serialize>(out: &mut Vec<u8>, body: &T) -> Result<(), FrameError> {
    serde_json::to_writer(out, body).map_err(|error| FrameError::Body { kind: 0, reason: error.to_string() })
}

fn read<T: Decode<()>>(kind: u16, body: &[u8]) -> Result<T, FrameError> {
    let broken = |reason: String| FrameError::Body { kind, reason };
    let (value, used) =
        bincode::decode_from_slice(body, config()).map_err(|error| broken(error.to_string()))?;
    if used == body.len() { Ok(value) } else { Err(broken("bytes are left over".to_owned())) }
}

fn read_json<T: for<'de> Deserialize<'de>>(kind: u16, body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(|error| FrameError::Body { kind, reason: error.to_string() })
}

/// The preface of a data connection: a legal HTTP/1.1 upgrade, so that proxies which pass upgrades pass it.
pub mod preface {
    /// The `Upgrade` token.
    pub const UPGRADE: &str = "pconnect/1";
    /// What a middlebox passes that knows no other (RFC 6455): the same preface asks for it, and the connection's bytes go
    /// in binary messages. An empty one says that nothing follows.
    pub const WEBSOCKET: &str = "websocket";
    /// In the hub's own refusals, so that they are told from those of a middlebox.
    pub const REFUSED: &str = "pconnect-refused";
    /// Headers: the session (`ses_…`), a decimal counter used once, `serve` or `reach`, and the proof.
    pub const SESSION: &str = "pconnect-session";
    pub const COUNTER: &str = "pconnect-counter";
    pub const PURPOSE: &str = "pconnect-purpose";
    /// Lower-case hex HMAC-SHA256 under the session's data key over [`proof_text`].
    pub const PROOF: &str = "pconnect-proof";
    /// The longest preface, in bytes; a data connection that sends more before `101` is closed.
    pub const BYTES_MAX: usize = 2_048;
    /// How far behind the highest counter a data connection may arrive: connections overtake each other.
    pub const COUNTER_WINDOW: u64 = 1_024;

    /// Who sends the [`super::StreamOpen`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Purpose {
        /// The hub, when a visitor comes: the agent serves one of its tunnels.
        Serve,
        /// The agent, at once: it reaches somebody's tunnel.
        Reach,
        /// Nobody: it becomes the session's [`super::link`].
        Link,
    }

    impl Purpose {
        pub const fn name(self) -> &'static str {
            match self {
                Self::Serve => "serve",
                Self::Reach => "reach",
                Self::Link => "link",
            }
        }
    }

    /// What the proof is computed over.
    pub fn proof_text(session: &str, counter: u64, purpose: Purpose) -> String {
        format!("pconnect/1\n{session}\n{counter}\n{}", purpose.name())
    }
}

pub mod link;

#[cfg(test)]
mod tests;

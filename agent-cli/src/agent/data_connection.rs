//! A data connection up to the hub's `101`: its preface, its proof, and another way where something between agent and hub
//! passes nothing but WebSockets.

use std::{io, sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::frames::{
    STREAM_PATH,
    preface::{self, BYTES_MAX, Purpose, UPGRADE, WEBSOCKET},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use wire::{
    side::Carrier,
    websocket::{self, End, Messages},
};

use super::{Agent, control::Link, hub_connection};

/// How long the hub may take to accept a connection, and to answer its preface.
const HUB_PATIENCE: Duration = Duration::from_secs(10);
/// The most headers of an answer that something on the way may have added to.
const HEADERS_MAX: usize = 64;

/// A data connection up to the hub's `101`: of raw bytes, or in a WebSocket's messages where something on the way passes
/// nothing else.
pub(super) async fn connect(agent: &Agent, link: &Link, purpose: Purpose) -> io::Result<Carrier> {
    let raw = async {
        if link.by_websocket.load(Ordering::Relaxed) {
            return Err(TurnedAway::OnTheWay(io::ErrorKind::Unsupported.into()));
        }
        let socket = dial_hub(agent).await.map_err(TurnedAway::Finally)?;
        ask(agent, link, purpose, socket, None).await
    };
    let way = match raw.await {
        Ok(carrier) => return Ok(carrier),
        Err(TurnedAway::Finally(error)) => return Err(error),
        Err(TurnedAway::OnTheWay(error)) => error,
    };
    let key = STANDARD.encode(random_key()?);
    let socket = dial_hub(agent).await?;
    match ask(agent, link, purpose, socket, Some(&key)).await {
        Ok(carrier) => {
            if !link.by_websocket.swap(true, Ordering::Relaxed) {
                tracing::info!(%way, "data connections go as WebSockets: something on the way passes nothing else");
            }
            Ok(carrier)
        }
        // What was wrong without it says more.
        Err(TurnedAway::OnTheWay(_)) => Err(way),
        Err(TurnedAway::Finally(error)) => Err(error),
    }
}

/// Why a data connection was not made.
enum TurnedAway {
    /// The hub's word, or no way to the hub.
    Finally(io::Error),
    /// Perhaps by something on the way that does not know what was asked for.
    OnTheWay(io::Error),
}

fn random_key() -> io::Result<[u8; 16]> {
    let mut key = [0; 16];
    SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(key)
}

async fn dial_hub(agent: &Agent) -> io::Result<Carrier> {
    let hub = agent.0.hub.as_ref().map_err(|error| io::Error::other(error.clone()))?;
    timeout(HUB_PATIENCE, hub_connection::connect(hub, &agent.0.tls))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Asks for a data connection; with a WebSocket's key, for one of messages.
async fn ask(
    agent: &Agent,
    link: &Link,
    purpose: Purpose,
    mut socket: Carrier,
    key: Option<&str>,
) -> Result<Carrier, TurnedAway> {
    let hub = agent.0.hub.as_ref().map_err(|error| TurnedAway::Finally(io::Error::other(error.clone())))?;
    let (counter, proof) = link.proof(purpose);
    let upgrade = match key {
        None => format!("Upgrade: {UPGRADE}\r\n"),
        Some(key) => {
            format!("Upgrade: {WEBSOCKET}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n")
        }
    };
    let request = format!(
        "GET {STREAM_PATH} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n{upgrade}{}: {}\r\n\
         {}: {counter}\r\n{}: {}\r\n{}: {proof}\r\n\r\n",
        hub.authority,
        preface::SESSION,
        link.session_id,
        preface::COUNTER,
        preface::PURPOSE,
        purpose.name(),
        preface::PROOF,
    );
    let asking = async {
        socket.write_all(request.as_bytes()).await?;
        socket.flush().await?;
        read_head(&mut socket).await
    };
    let head = match timeout(HUB_PATIENCE, asking).await {
        Ok(Ok(head)) => head,
        Ok(Err(error)) => return Err(TurnedAway::OnTheWay(error)),
        Err(_) => return Err(TurnedAway::OnTheWay(io::ErrorKind::TimedOut.into())),
    };
    let answer = Answer::read(&head).map_err(TurnedAway::OnTheWay)?;
    match key {
        _ if answer.status != 101 => Err(answer.refusal()),
        None => Ok(socket),
        Some(key) if answer.accept.as_deref() == Some(&websocket::accept_key(key)) => {
            Ok(Messages::over(socket, End::Client).await)
        }
        Some(_) => {
            let message = "the answer to a WebSocket's key is wrong";
            Err(TurnedAway::OnTheWay(io::Error::new(io::ErrorKind::InvalidData, message)))
        }
    }
}

/// The head of an answer, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    reason: String,
    /// The hub's own word for its refusal; something on the way does not say it.
    refused: Option<String>,
    accept: Option<String>,
}

impl Answer {
    fn read(head: &[u8]) -> io::Result<Self> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(head);
        let is_whole = parsed.is_ok_and(|parsed| parsed.is_complete());
        let Some(status) = response.code.filter(|_| is_whole) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the hub's answer is no HTTP"));
        };
        let value = |name: &str| {
            let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            Some(String::from_utf8_lossy(header.value).into_owned())
        };
        Ok(Self {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            refused: value(preface::REFUSED),
            accept: value("sec-websocket-accept"),
        })
    }

    fn refusal(&self) -> TurnedAway {
        let Self { status, reason, refused, .. } = self;
        match refused {
            Some(word) => TurnedAway::Finally(io::Error::other(format!("the hub refused it: {word}"))),
            None => TurnedAway::OnTheWay(io::Error::other(format!("the hub answered {status} {reason}"))),
        }
    }
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

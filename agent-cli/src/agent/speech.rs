//! What a target speaks, found by looking: HTTP, HTTP inside TLS, or something of its own.
//!
//! Cautious: who greets first is left alone; databases and printers are never spoken to; anybody else is asked one
//! harmless question, and where the answer is none in plain HTTP, whether it speaks TLS. Two connections at most, one
//! after the other.

use std::{io, time::Duration};

use domain::{
    policy::ports::protected_engine,
    target::{Protocol, Target},
};
use schemas::rest::{DiagnosticStep, TlsStep};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    certificate, dialer,
    target_tls::{Judge, TlsFailure, TlsStream},
};

/// How long looking may take in all: people wait for it.
pub(super) const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How long a target has for a greeting of its own.
const GREETING_PATIENCE: Duration = Duration::from_millis(250);
/// How long it has for an answer in plain HTTP, so that there is time left for TLS.
const ANSWER_PATIENCE: Duration = Duration::from_millis(750);
/// A status line is read up to this many bytes.
const STATUS_LINE_MAX: usize = 1_024;
/// Printers print what comes.
const PRINTERS: [u16; 9] = [515, 9100, 9101, 9102, 9103, 9104, 9105, 9106, 9107];

/// What a target was found to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speech {
    /// `http`, `https`, `tcp` for anything else, and `auto` where it could not be found out.
    pub protocol: Protocol,
    /// Whether it speaks TLS, with HTTP or something else inside.
    pub is_tls: bool,
    /// Why its certificate is not accepted, if it is not, in words for its owner.
    pub distrust: Option<String>,
}

impl Speech {
    /// Without TLS.
    pub(super) const fn plain(protocol: Protocol) -> Self {
        Self { protocol, is_tls: false, distrust: None }
    }
}

/// What was seen on the way to that.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) speech: Speech,
    pub(super) tls: Option<TlsStep>,
    pub(super) http: Option<DiagnosticStep>,
}

impl Seen {
    fn plain(protocol: Protocol, http: Option<DiagnosticStep>) -> Self {
        Self { speech: Speech::plain(protocol), tls: None, http }
    }
}

/// Looks at a target over a fresh connection to it, within [`LOOK_PATIENCE`].
pub(super) async fn listen(judge: &Judge, target: &Target, mut socket: TcpStream) -> Seen {
    let deadline = Instant::now() + LOOK_PATIENCE;
    if protected_engine(target.port).is_some() || PRINTERS.contains(&target.port) {
        return Seen::plain(Protocol::Tcp, None);
    }
    if timeout(GREETING_PATIENCE, socket.read_u8()).await.is_ok() {
        // It spoke first, or hung up on silence.
        return Seen::plain(Protocol::Tcp, None);
    }
    let began = Instant::now();
    let plain = timeout(ANSWER_PATIENCE, head(&mut socket, target)).await;
    drop(socket);
    let http = match &plain {
        Ok(Ok(line)) => Some(step(true, began, line.clone())),
        Ok(Err(_)) | Err(_) => None,
    };
    if http.as_ref().is_some_and(|step| !may_be_for_tls(&step.detail)) {
        return Seen::plain(Protocol::Http, http);
    }
    if let Ok(Ok(seen)) = timeout_at(deadline, look_inside(judge, target)).await {
        return seen;
    }
    match plain {
        Ok(Ok(_)) => Seen::plain(Protocol::Http, http),
        Ok(Err(_)) => Seen::plain(Protocol::Tcp, None),
        // A server that is busy looks like one that waits for something else.
        Err(_) => Seen::plain(Protocol::Auto, None),
    }
}

/// What servers say in plain HTTP where they expect TLS: that the request is bad, or where to go instead.
fn may_be_for_tls(line: &str) -> bool {
    let status = line.split(' ').nth(1).unwrap_or_default();
    matches!(status, "400" | "426") || status.starts_with('3')
}

async fn look_inside(judge: &Judge, target: &Target) -> io::Result<Seen> {
    let socket = dialer::dial(&target.host, target.port).await?;
    let began = Instant::now();
    let mut stream = judge.look(target, socket).await.map_err(io::Error::other)?;
    let (tls, distrust) = tls_step(judge, target, &stream, began);
    let began = Instant::now();
    // Who agrees on HTTP need not be asked; and who is not trusted is asked nothing but this.
    let answer = match stream.alpn().as_deref() {
        Some("h2") => Ok(step(true, began, "HTTP/2 was agreed on".to_owned())),
        _ => head(&mut stream, target).await.map(|line| step(true, began, line)),
    };
    let protocol = if answer.is_ok() { Protocol::Https } else { Protocol::Tcp };
    let speech = Speech { protocol, is_tls: true, distrust };
    Ok(Seen { speech, tls: Some(tls), http: answer.ok() })
}

/// What is to be told of an agreed connection; and, where it is not `ok`, why its certificate is not accepted.
pub(super) fn tls_step(
    judge: &Judge,
    target: &Target,
    stream: &TlsStream,
    began: Instant,
) -> (TlsStep, Option<String>) {
    let distrust = judge.distrust(target, stream);
    let facts = stream.certificate().and_then(|der| certificate::facts(der, distrust.is_none()));
    let version = stream.version();
    let described = facts.as_ref().map_or_else(String::new, |facts| {
        let names = facts.subject_alt_names.join(", ");
        format!(", {names} until {}, issued by {}", facts.expires_at, facts.issuer)
    });
    let found = format!("{}{described}", version.as_deref().unwrap_or("TLS"));
    let detail = match &distrust {
        None => found,
        Some(_) if judge.is_unchecked => format!("{found}; not checked, as its owner wants it"),
        Some(why) => format!("{found}: {why}"),
    };
    let distrust = distrust.filter(|_| !judge.is_unchecked);
    let step = TlsStep {
        ok: distrust.is_none(),
        ms: began.elapsed().as_secs_f64() * 1_000.0,
        detail,
        version,
        alpn: stream.alpn(),
        certificate: facts,
    };
    (step, distrust)
}

/// TLS did not come about.
pub(super) fn failed_tls_step(failure: &TlsFailure, began: Instant) -> TlsStep {
    let DiagnosticStep { ok, ms, detail } = step(false, began, failure.to_string());
    TlsStep { ok, ms, detail, ..TlsStep::default() }
}

/// The status line of the answer to a harmless request.
pub(super) async fn head(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &Target,
) -> io::Result<String> {
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: private-connect-check\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut line = Vec::new();
    while line.len() < STATUS_LINE_MAX && !line.contains(&b'\n') {
        let mut bytes = [0; 256];
        match stream.read(&mut bytes).await? {
            0 => break,
            read => line.extend_from_slice(&bytes[..read]),
        }
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect();
    if line.starts_with("HTTP/") { Ok(line) } else { Err(io::Error::other("the answer is no HTTP")) }
}

/// A step that began then.
pub(super) fn step(ok: bool, began: Instant, detail: String) -> DiagnosticStep {
    DiagnosticStep { ok, ms: began.elapsed().as_secs_f64() * 1_000.0, detail }
}

#[cfg(test)]
mod tests;

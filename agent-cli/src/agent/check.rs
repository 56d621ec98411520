//! Looks at a target step by step: name, TCP, HTTP, each with its time.

use std::{io, time::Duration};

use domain::{
    policy::ports::protected_engine,
    target::{Protocol, Target},
};
use schemas::rest::{DiagnosticStep, Diagnostics};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::dialer;

/// How long something that is not known to speak HTTP may take to answer: what waits to be spoken to in its own way
/// would use up the whole limit, and people wait for it.
const GUESS_PATIENCE: Duration = Duration::from_secs(2);
/// A status line is read up to this many bytes.
const STATUS_LINE_MAX: usize = 1_024;

/// Looks at a target, at most `limit` in all; the caller has asked whether it may be dialled.
pub(super) async fn look(target: &Target, protocol: Protocol, limit: Duration) -> Diagnostics {
    let mut found = Diagnostics::default();
    let began = Instant::now();
    if timeout(limit, steps(target, protocol, &mut found)).await.is_err() {
        let late = step(false, began, "no answer in time".to_owned());
        // The step that had begun is the one that is missing.
        if found.dns.is_none() {
            found.dns = Some(late);
        } else if found.tcp.is_none() {
            found.tcp = Some(late);
        } else if protocol == Protocol::Http {
            found.http = Some(late);
        }
    }
    found.reachable = found.tcp.as_ref().is_some_and(|tcp| tcp.ok);
    found.latency_ms = found.tcp.as_ref().filter(|tcp| tcp.ok).map(|tcp| tcp.ms);
    found
}

async fn steps(target: &Target, protocol: Protocol, found: &mut Diagnostics) {
    let began = Instant::now();
    let addresses = match dialer::resolve(&target.host, target.port).await {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return found.dns = Some(step(false, began, "the name has no address".to_owned())),
        Err(error) => return found.dns = Some(step(false, began, error.to_string())),
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    found.dns = Some(step(true, began, shown.join(", ")));

    let began = Instant::now();
    let socket = match dialer::race(addresses).await {
        Ok(socket) => socket,
        Err(error) => return found.tcp = Some(step(false, began, error.to_string())),
    };
    let to = socket.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    found.tcp = Some(step(true, began, to));

    let asks_http = match protocol {
        Protocol::Http => true,
        // A database would take a request for a broken client.
        Protocol::Auto => protected_engine(target.port).is_none(),
        Protocol::Tcp | Protocol::Udp | Protocol::Https => false,
    };
    if asks_http {
        let began = Instant::now();
        found.http = if protocol == Protocol::Auto {
            let answer = timeout(GUESS_PATIENCE, http(socket, target)).await;
            answer.ok().and_then(Result::ok).map(|line| step(true, began, line))
        } else {
            Some(match http(socket, target).await {
                Ok(line) => step(true, began, line),
                Err(error) => step(false, began, error.to_string()),
            })
        };
    }
}

/// The status line of the answer to a harmless request.
async fn http(mut socket: TcpStream, target: &Target) -> io::Result<String> {
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: private-connect-check\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    while line.len() < STATUS_LINE_MAX && !line.contains(&b'\n') {
        let mut bytes = [0; 256];
        match socket.read(&mut bytes).await? {
            0 => break,
            read => line.extend_from_slice(&bytes[..read]),
        }
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).collect();
    if line.starts_with("HTTP/") { Ok(line) } else { Err(io::Error::other("the answer is no HTTP")) }
}

fn step(ok: bool, began: Instant, detail: String) -> DiagnosticStep {
    DiagnosticStep { ok, ms: began.elapsed().as_secs_f64() * 1_000.0, detail }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_http_target_shows_its_status_and_a_dead_one_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            socket.read_exact(&mut request).await.unwrap();
            socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            request
        });
        let found = look(&target, Protocol::Auto, PATIENCE).await;
        assert_eq!(&server.await.unwrap(), b"HEAD");
        assert!(found.reachable && found.latency_ms.is_some());
        assert_eq!(found.http.unwrap().detail, "HTTP/1.1 204 No Content");

        let found = look(&target, Protocol::Http, PATIENCE).await;
        assert!(!found.reachable && found.http.is_none() && !found.tcp.unwrap().ok);
    }

    #[tokio::test]
    async fn a_target_that_says_nothing_is_reachable_and_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let found = look(&target, Protocol::Http, Duration::from_millis(100)).await;
        assert!(found.reachable && !found.http.unwrap().ok);
    }

    #[tokio::test]
    async fn something_that_waits_to_be_spoken_to_does_not_use_up_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let began = Instant::now();
        let found = look(&target, Protocol::Auto, PATIENCE * 2).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert!(found.reachable && found.http.is_none());
    }
}

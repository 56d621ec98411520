//! Looks at a target step by step: name, then TCP, TLS and HTTP, or the way for datagrams; each with its time.

use std::{net::SocketAddr, time::Duration};

use domain::target::{Protocol, Target};
use schemas::rest::{DiagnosticStep, Diagnostics, TlsStep};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    datagrams, dialer,
    speech::{self, Speech, step},
    target_tls::Judge,
};

/// Looks at a target, at most `limit` in all; the caller has asked whether it may be dialled. Also what it speaks, where
/// that was to be found out.
pub(super) async fn look(
    judge: &Judge,
    target: &Target,
    protocol: Protocol,
    limit: Duration,
) -> (Diagnostics, Option<Speech>) {
    let (mut found, mut speech) = (Diagnostics::default(), None);
    let began = Instant::now();
    if timeout(limit, steps(judge, target, protocol, &mut found, &mut speech)).await.is_err() {
        let late = step(false, began, "no answer in time".to_owned());
        // The step that had begun is the one that is missing.
        if found.dns.is_none() {
            found.dns = Some(late);
        } else if found.tcp.is_none() && protocol != Protocol::Udp {
            found.tcp = Some(late);
        } else if found.tls.is_none() && protocol == Protocol::Https {
            let DiagnosticStep { ok, ms, detail } = late;
            found.tls = Some(TlsStep { ok, ms, detail, ..TlsStep::default() });
        } else if matches!(protocol, Protocol::Http | Protocol::Https) {
            found.http = Some(late);
        }
    }
    found.reachable = found.tcp.as_ref().or(found.udp.as_ref()).is_some_and(|step| step.ok);
    found.latency_ms = found.tcp.as_ref().filter(|tcp| tcp.ok).map(|tcp| tcp.ms);
    (found, speech)
}

async fn steps(
    judge: &Judge,
    target: &Target,
    protocol: Protocol,
    found: &mut Diagnostics,
    speech: &mut Option<Speech>,
) {
    let began = Instant::now();
    let addresses = match dialer::resolve(&target.host, target.port).await {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return found.dns = Some(step(false, began, "the name has no address".to_owned())),
        Err(error) => return found.dns = Some(step(false, began, error.to_string())),
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    found.dns = Some(step(true, began, shown.join(", ")));

    if protocol == Protocol::Udp {
        return found.udp = Some(way_to(addresses));
    }
    let began = Instant::now();
    let mut socket = match dialer::race(addresses).await {
        Ok(socket) => socket,
        Err(error) => return found.tcp = Some(step(false, began, error.to_string())),
    };
    let to = socket.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    found.tcp = Some(step(true, began, to));

    match protocol {
        Protocol::Tcp | Protocol::Udp => {}
        Protocol::Http => {
            let began = Instant::now();
            found.http = Some(answer(speech::head(&mut socket, target).await, began));
        }
        Protocol::Https => inside_tls(judge, target, socket, found).await,
        Protocol::Auto => {
            let seen = speech::listen(judge, target, socket).await;
            (found.tls, found.http) = (seen.tls, seen.http);
            if seen.speech.protocol != Protocol::Auto {
                found.protocol = Some(seen.speech.protocol.name().to_owned());
            }
            *speech = Some(seen.speech);
        }
    }
}

async fn inside_tls(judge: &Judge, target: &Target, socket: TcpStream, found: &mut Diagnostics) {
    let began = Instant::now();
    let mut stream = match judge.look(target, socket).await {
        Ok(stream) => stream,
        Err(failure) => return found.tls = Some(speech::failed_tls_step(&failure, began)),
    };
    let (tls, _) = speech::tls_step(judge, target, &stream, began);
    let (is_ok, alpn) = (tls.ok, tls.alpn.clone());
    found.tls = Some(tls);
    if !is_ok {
        return;
    }
    let began = Instant::now();
    found.http = Some(match alpn.as_deref() {
        Some("h2") => step(true, began, "HTTP/2 was agreed on".to_owned()),
        _ => answer(speech::head(&mut stream, target).await, began),
    });
}

fn answer(line: std::io::Result<String>, began: Instant) -> DiagnosticStep {
    match line {
        Ok(line) => step(true, began, line),
        Err(error) => step(false, began, error.to_string()),
    }
}

/// Nothing is sent: nobody answers a datagram that asks nothing, and an empty one ends some programs.
fn way_to(addresses: Vec<SocketAddr>) -> DiagnosticStep {
    let began = Instant::now();
    match datagrams::first_of(&mut addresses.into()) {
        Ok((address, _)) => {
            step(true, began, format!("a way to {address}; only an answer shows that somebody listens"))
        }
        Err(error) => step(false, began, error.to_string()),
    }
}

#[cfg(test)]
mod tests;

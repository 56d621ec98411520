//! What this agent may dial, and dialling it.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    time::{sleep, timeout},
};

use wire::side::prepare;

/// How long a target may take to accept a connection, name look-up included.
pub(super) const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// How long one address has before the next is tried beside it (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// How many addresses of one name are tried.
const ADDRESSES_MAX: usize = 8;

/// The owner's decision: loopback if so chosen, and what was allowed by name.
#[derive(Debug)]
pub(super) struct Allowed {
    loopback: bool,
    targets: Mutex<BTreeSet<(String, u16)>>,
    changes: watch::Sender<()>,
}

impl Allowed {
    pub(super) fn new(loopback: bool) -> Self {
        Self { loopback, targets: Mutex::default(), changes: watch::Sender::new(()) }
    }

    pub(super) fn add(&self, host: &str, port: u16) {
        self.targets.lock().insert((host.to_ascii_lowercase(), port));
        self.changes.send_replace(());
    }

    pub(super) fn permits(&self, host: &str, port: u16) -> bool {
        (self.loopback && is_loopback(host))
            || self.targets.lock().contains(&(host.to_ascii_lowercase(), port))
    }

    /// Marks when the list changes.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// This machine by a name or address that nobody else can answer to.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The addresses of a host. `localhost` is never looked up: it means this machine, in both families.
pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    Ok(lookup_host((host, port)).await?.take(ADDRESSES_MAX).collect())
}

/// Connects to a target within [`DIAL_PATIENCE`]. The caller has asked [`Allowed::permits`].
pub(super) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer within 5 seconds");
    let connected = timeout(DIAL_PATIENCE, async { race(resolve(host, port).await?).await });
    let socket = connected.await.map_err(|_| late())??;
    prepare(&socket);
    Ok(socket)
}

/// Tries addresses one after another, the next as soon as one failed or takes long; the first to answer wins.
pub(super) async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(TcpStream::connect(address));
        }
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(socket)) => return Ok(socket),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_loopback_and_what_was_allowed_may_be_dialled() {
        let allowed = Allowed::new(true);
        allowed.add("Db.internal", 5432);
        let cases = [
            ("localhost", 1, true),
            ("LOCALHOST", 1, true),
            ("127.0.0.1", 1, true),
            ("127.9.9.9", 1, true),
            ("::1", 1, true),
            ("db.internal", 5432, true),
            ("DB.INTERNAL", 5432, true),
            ("db.internal", 5433, false),
            ("169.254.169.254", 80, false),
            ("0.0.0.0", 80, false),
            ("::ffff:127.0.0.1", 80, false),
            ("localhost.evil.example", 80, false),
            ("127.1", 80, false),
        ];
        for (host, port, expected) in cases {
            assert_eq!(allowed.permits(host, port), expected, "{host}:{port}");
        }
        assert!(!Allowed::new(false).permits("localhost", 1));
    }

    #[tokio::test]
    async fn localhost_is_found_in_the_family_that_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        assert_eq!(dial("localhost", at.port()).await.unwrap().peer_addr().unwrap(), at);
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_an_error_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(dial("localhost", port).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(race(vec![]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

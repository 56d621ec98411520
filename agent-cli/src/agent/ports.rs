//! Local ports that lead to tunnels of others: `reach`, and what the hub asks for on behalf of a teammate.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as PlainListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use domain::target::Protocol;
use schemas::frames::{OpenPort, PortOutcome, StreamKind};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use wire::{
    link::LinkStream,
    peers::PeerPort,
    relay::relay,
    sealed::Sealed,
    side::{Carrier, Tcp, prepare, reset},
};

use super::{
    Agent,
    data::{self, ReachFailure},
    refusals::{self, Reason, Refusals},
    sealing::{self, SealFailure},
    streams::Local,
    udp_ports,
};

/// How long a connection waits for a session when the hub is being sought.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before a connection that broke on its way to the hub is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How long to leave a listener alone that fails to accept.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How many ports are tried when any will do.
const ANY_PORT_TRIES: u32 = 8;
/// The most local ports that the hub may have open here.
const HUB_PORTS_MAX: usize = 256;

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carries {
    /// Connections.
    Bytes,
    /// UDP.
    Datagrams,
}

impl Carries {
    /// What tunnels of a protocol carry.
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Datagrams,
            Protocol::Auto | Protocol::Tcp | Protocol::Http | Protocol::Https => Self::Bytes,
        }
    }
}

/// A local port that leads to a tunnel, until it is dropped. Running connections and sessions end with it.
#[derive(Debug)]
pub struct LocalPort {
    port: u16,
    carries: Carries,
    refusals: watch::Receiver<Refusals>,
    // Declared first of what is open: a UDP port is free for whoever takes over as soon as this is dropped.
    _peers: Option<PeerPort>,
    _open: DropGuard,
}

impl LocalPort {
    /// The number.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The connections that were refused since the port was opened, as they become more.
    pub fn refusals(&self) -> watch::Receiver<Refusals> {
        self.refusals.clone()
    }
}

/// Listens and leads to a tunnel.
pub(super) fn open(agent: &Agent, to: &To, carries: Carries, port: u16) -> io::Result<LocalPort> {
    let over = agent.0.stop.child_token();
    let (sender, refusals) = watch::channel(Refusals::new());
    let sender = Arc::new(sender);
    let (port, peers) = match carries {
        Carries::Datagrams => {
            let (port, peers) = udp_ports::open(agent, to, port, &over, sender)?;
            (port, Some(peers))
        }
        Carries::Bytes => {
            let (port, listeners) = listen_on_both(port, listen)?;
            for listener in listeners {
                let (here, over, sender) = (agent.clone(), over.clone(), Arc::clone(&sender));
                let to = to.clone();
                // Where the link is.
                agent.on_core(move |local| async move {
                    match TcpListener::from_std(listener) {
                        Ok(listener) => accept(here, local, to, listener, over, sender).await,
                        Err(error) => tracing::error!(%error, "a local port cannot accept"),
                    }
                });
            }
            (port, None)
        }
    };
    Ok(LocalPort { port, carries, refusals, _peers: peers, _open: over.drop_guard() })
}

/// Opens a port because the hub asks for it; asking again for the same is answered alike.
pub(super) fn open_for_hub(agent: &Agent, wanted: &OpenPort, carries: Carries) -> PortOutcome {
    let OpenPort { tunnel, name, port, .. } = wanted;
    let (tunnel, port) = (*tunnel, *port);
    let mut ports = agent.0.ports.lock();
    if let Some(known) = ports.get(&tunnel)
        && known.carries == carries
        && (port == 0 || known.port == port)
    {
        return PortOutcome::Listening(known.port);
    }
    if ports.len() >= HUB_PORTS_MAX {
        return PortOutcome::Failed("too many local ports are open".to_owned());
    }
    match open(agent, &To::new(tunnel, name), carries, port) {
        Ok(opened) => {
            let port = opened.port;
            ports.insert(tunnel, opened);
            PortOutcome::Listening(port)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => PortOutcome::Taken,
        Err(error) => PortOutcome::Failed(error.to_string()),
    }
}

/// `localhost` means either family to clients. A machine without IPv6 does without; but if somebody else has that half
/// of the port, clients would end up with two services.
pub(super) fn listen_on_both<T>(
    port: u16,
    listen: impl Fn(SocketAddr) -> io::Result<(u16, T)>,
) -> io::Result<(u16, Vec<T>)> {
    let mut tries = if port == 0 { ANY_PORT_TRIES } else { 1 };
    loop {
        let (number, four) = listen((Ipv4Addr::LOCALHOST, port).into())?;
        tries -= 1;
        match listen((Ipv6Addr::LOCALHOST, number).into()) {
            Ok((_, six)) => return Ok((number, vec![four, six])),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Ok((number, vec![four])),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<(u16, PlainListener)> {
    let listener = PlainListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?.port(), listener))
}

async fn accept(
    agent: Agent,
    local: Rc<Local>,
    to: To,
    listener: TcpListener,
    over: CancellationToken,
    refusals: Arc<watch::Sender<Refusals>>,
) {
    loop {
        let accepted = tokio::select! {
            () = over.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((socket, _)) = accepted else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Ok(room) = Arc::clone(&agent.0.streams).try_acquire_owned() else {
            refuse(socket, &refusals, Reason::Busy, "this machine has too many streams open");
            continue;
        };
        let (agent, local) = (agent.clone(), Rc::clone(&local));
        let (to, over, refusals) = (to.clone(), over.clone(), Arc::clone(&refusals));
        tokio::task::spawn_local(agent.clone().0.tasks.track_future(async move {
            carry(&agent, &local, &to, socket, &over, &refusals).await;
            drop(room);
        }));
    }
}

async fn carry(
    agent: &Agent,
    local: &Local,
    to: &To,
    socket: TcpStream,
    over: &CancellationToken,
    refusals: &watch::Sender<Refusals>,
) {
    prepare(&socket);
    // Nothing of the client's bytes is read before the stream is open and sealed: one that breaks before costs nothing.
    let opened = tokio::select! {
        () = over.cancelled() => return reset(socket),
        opened = Box::pin(open_stream(agent, local, to, StreamKind::SealedTcp)) => opened,
    };
    let ended = over.cancelled();
    match opened {
        Ok(Opened::OnLink(stream)) => drop(relay(Tcp::from(socket), stream, ended).await),
        Ok(Opened::OnItsOwn(stream)) => drop(relay(Tcp::from(socket), stream, ended).await),
        Err(error) => {
            tracing::debug!(%error, "a local connection could not be led to its tunnel");
            refuse(socket, refusals, error.reason(), &error.to_string());
        }
    }
}

/// Where a local port leads.
#[derive(Debug, Clone)]
pub(super) struct To {
    tunnel: u128,
    /// The name that the other side's key is pinned under.
    service: Arc<str>,
}

impl To {
    pub(super) fn new(tunnel: u128, service: &str) -> Self {
        Self { tunnel, service: service.into() }
    }
}

/// A sealed stream.
pub(super) enum Opened {
    OnLink(Sealed<LinkStream>),
    OnItsOwn(Sealed<Carrier>),
}

/// Counts before the client can know: whoever was refused finds the reason shown.
fn refuse(socket: TcpStream, refusals: &watch::Sender<Refusals>, reason: Reason, words: &str) {
    refusals.send_modify(|refusals| refusals::add(refusals, reason, 1, words));
    reset(socket);
}

/// Opens and seals a stream, waiting for the hub while it is away.
pub(super) async fn open_stream(
    agent: &Agent,
    local: &Local,
    to: &To,
    kind: StreamKind,
) -> Result<Opened, ReachFailure> {
    let deadline = Instant::now() + LINK_PATIENCE;
    loop {
        let failure = match try_stream(agent, local, to, kind, deadline).await {
            // At most once: the next one shakes hands.
            Err(ReachFailure::Unsealed(SealFailure::Forgotten)) => continue,
            Err(failure @ ReachFailure::Io(_)) => failure,
            answered => return answered,
        };
        if Instant::now() + TRY_AGAIN >= deadline {
            return Err(failure);
        }
        sleep(TRY_AGAIN).await;
    }
}

async fn try_stream(
    agent: &Agent,
    local: &Local,
    to: &To,
    kind: StreamKind,
    deadline: Instant,
) -> Result<Opened, ReachFailure> {
    if let Some(stream) = local.open(to.tunnel, kind) {
        let (stream, failure) = match sealing::seal(agent, stream, to.tunnel, &to.service).await {
            Ok(sealed) => return Ok(Opened::OnLink(sealed)),
            Err(failed) => failed,
        };
        return Err(match stream.refusal() {
            Some(refused) => ReachFailure::Refused { reason: refused.code.into(), words: refused.message },
            // The link broke.
            None if stream.is_broken() => io::Error::from(io::ErrorKind::ConnectionReset).into(),
            None => failure.into(),
        });
    }
    let mut links = agent.0.link.subscribe();
    let link = match timeout_at(deadline, links.wait_for(Option::is_some)).await {
        Ok(Ok(link)) => link.clone(),
        Ok(Err(_)) | Err(_) => None,
    };
    let link = link.ok_or_else(|| io::Error::other("there is no session with it"))?;
    let stream = data::reach(agent, &link, to.tunnel, kind).await?;
    match sealing::seal(agent, stream, to.tunnel, &to.service).await {
        Ok(sealed) => Ok(Opened::OnItsOwn(sealed)),
        Err((_, failure)) => Err(failure.into()),
    }
}

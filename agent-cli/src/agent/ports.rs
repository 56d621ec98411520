//! Local ports that lead to tunnels of others: `reach`, and what the hub asks for on behalf of a teammate.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as PlainListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use schemas::frames::{PortOutcome, StreamKind};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use wire::{
    relay::relay,
    side::{Carrier, Tcp, prepare, reset},
};

use super::{
    Agent,
    data::{self, ReachFailure},
    refusals::{self, Reason, Refusals},
    streams::Local,
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

/// A local port that leads to a tunnel, until it is dropped. Running connections end with it.
#[derive(Debug)]
pub struct LocalPort {
    port: u16,
    refusals: watch::Receiver<Refusals>,
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
pub(super) fn open(agent: &Agent, tunnel: u128, port: u16) -> io::Result<LocalPort> {
    let (four, six) = listen_on_both(port)?;
    let port = four.local_addr()?.port();
    let over = agent.0.stop.child_token();
    let (sender, refusals) = watch::channel(Refusals::new());
    let sender = Arc::new(sender);
    for listener in [Some(four), six].into_iter().flatten() {
        let (here, over, sender) = (agent.clone(), over.clone(), Arc::clone(&sender));
        // Where the link is.
        agent.on_core(move |local| async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(here, local, tunnel, listener, over, sender).await,
                Err(error) => tracing::error!(%error, "a local port cannot accept"),
            }
        });
    }
    Ok(LocalPort { port, refusals, _open: over.drop_guard() })
}

/// Opens a port because the hub asks for it; asking again for the same is answered alike.
pub(super) fn open_for_hub(agent: &Agent, tunnel: u128, port: u16) -> PortOutcome {
    let mut ports = agent.0.ports.lock();
    if let Some(known) = ports.get(&tunnel)
        && (port == 0 || known.port == port)
    {
        return PortOutcome::Listening(known.port);
    }
    if ports.len() >= HUB_PORTS_MAX {
        return PortOutcome::Failed("too many local ports are open".to_owned());
    }
    match open(agent, tunnel, port) {
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
fn listen_on_both(port: u16) -> io::Result<(PlainListener, Option<PlainListener>)> {
    let mut tries = if port == 0 { ANY_PORT_TRIES } else { 1 };
    loop {
        let four = listen((Ipv4Addr::LOCALHOST, port).into())?;
        tries -= 1;
        match listen((Ipv6Addr::LOCALHOST, four.local_addr()?.port()).into()) {
            Ok(six) => return Ok((four, Some(six))),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Ok((four, None)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<PlainListener> {
    let listener = PlainListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(
    agent: Agent,
    local: Rc<Local>,
    tunnel: u128,
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
        let (over, refusals) = (over.clone(), Arc::clone(&refusals));
        tokio::task::spawn_local(agent.clone().0.tasks.track_future(async move {
            carry(&agent, &local, tunnel, socket, &over, &refusals).await;
            drop(room);
        }));
    }
}

async fn carry(
    agent: &Agent,
    local: &Local,
    tunnel: u128,
    socket: TcpStream,
    over: &CancellationToken,
    refusals: &watch::Sender<Refusals>,
) {
    prepare(&socket);
    // Nothing of the client's bytes is read before the stream is open: a link that breaks meanwhile costs it nothing.
    if let Some(stream) = local.open(tunnel, StreamKind::Tcp) {
        let opened = tokio::select! {
            () = over.cancelled() => return reset(socket),
            opened = timeout(data::REACH_PATIENCE, stream.opened()) => opened,
        };
        match opened {
            Ok(Ok(())) => {
                relay(Tcp::from(socket), stream, over.cancelled()).await;
                return;
            }
            Ok(Err(Some(refused))) => {
                return refuse(socket, refusals, refused.code.into(), &refused.message);
            }
            Ok(Err(None)) => {}
            Err(_) => {
                let words = "the hub or the exposing agent does not answer";
                return refuse(socket, refusals, Reason::HubUnreachable, words);
            }
        }
    }
    let opened = tokio::select! {
        () = over.cancelled() => return reset(socket),
        opened = open_stream(agent, tunnel) => opened,
    };
    match opened {
        Ok(upstream) => {
            relay(Tcp::from(socket), upstream, over.cancelled()).await;
        }
        Err(error) => {
            tracing::debug!(%error, "a local connection could not be led to its tunnel");
            refuse(socket, refusals, error.reason(), &error.to_string());
        }
    }
}

/// Counts before the client can know: whoever was refused finds the reason shown.
fn refuse(socket: TcpStream, refusals: &watch::Sender<Refusals>, reason: Reason, words: &str) {
    refusals.send_modify(|refusals| refusals::add(refusals, reason, 1, words));
    reset(socket);
}

/// Opens a stream, waiting for the hub while it is away: nothing of the client's bytes was read yet.
async fn open_stream(agent: &Agent, tunnel: u128) -> Result<Carrier, ReachFailure> {
    let deadline = Instant::now() + LINK_PATIENCE;
    let mut links = agent.0.link.subscribe();
    loop {
        let link = match timeout_at(deadline, links.wait_for(Option::is_some)).await {
            Ok(Ok(link)) => link.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(link) = link else {
            return Err(ReachFailure::Io(io::Error::other("there is no session with it")));
        };
        match data::reach(agent, &link, tunnel).await {
            Err(ReachFailure::Io(_)) if Instant::now() + TRY_AGAIN < deadline => sleep(TRY_AGAIN).await,
            answered => return answered,
        }
    }
}

//! A tunnel's target that takes datagrams: a connected UDP socket for each peer's stream.
//!
//! UDP has no handshake, so nothing says which address of a name somebody listens on (`localhost` has two). The first
//! is tried; where the system says that nobody is there before anything was heard, what was sent goes to the next.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use domain::target::Target;
use rustix::net::SendFlags;
use schemas::frames::Servable;
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
    time::{Instant, timeout},
};
use wire::{
    datagram::{self, Endpoint, SessionEnd},
    side::Side,
};

use super::{
    Agent,
    dialer::{self, DIAL_PATIENCE},
};

/// An address that refused nothing for this long is the right one.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// What is kept to be sent to the next address at most.
const UNANSWERED_MAX: usize = 16;
const UNANSWERED_BYTES_MAX: usize = 128 * 1024;
/// Silence is judged where the peer is, by a hub that may have been told to wait longer, and its end ends the stream. This
/// side ends what is silent so many times as long: were it as quick, words would be lost that are under way just then.
const SERVED_IDLE: u32 = 10;
/// Errors of a socket in a row that are taken for losses on the way.
const LOSSES_MAX: u32 = 64;

/// The socket of one session.
pub(super) struct TargetEnd {
    agent: Agent,
    tunnel: u128,
    target: Target,
    socket: Watched,
    address: SocketAddr,
    /// Addresses that were not tried yet, while it is open which one is right.
    others: VecDeque<SocketAddr>,
    /// What was sent meanwhile.
    unanswered: Vec<Box<[u8]>>,
    began: Instant,
    has_heard: bool,
}

/// A socket and its errors: a word that nobody is there makes it neither readable nor writable.
pub(super) struct Watched {
    socket: Arc<UdpSocket>,
    failing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Watched {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut received = ReadBuf::new(buffer);
        if let Poll::Ready(ended) = self.socket.poll_recv(cx, &mut received) {
            return Poll::Ready(ended.map(|()| received.filled().len()));
        }
        loop {
            let socket = &self.socket;
            let failing = self.failing.get_or_insert_with(|| {
                let socket = Arc::clone(socket);
                Box::pin(async move { drop(socket.ready(Interest::ERROR).await) })
            });
            ready!(failing.as_mut().poll(cx));
            self.failing = None;
            let failure = self.socket.try_io(Interest::ERROR, || match self.socket.take_error()? {
                Some(error) => Err(error),
                None => Err(ErrorKind::WouldBlock.into()),
            });
            match failure {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                failure => return Poll::Ready(failure),
            }
        }
    }
}

/// Opens a socket to a target; the caller has asked whether it may be dialled.
pub(super) async fn open(agent: &Agent, tunnel: u128, target: &Target) -> io::Result<TargetEnd> {
    let late = |_| io::Error::new(ErrorKind::TimedOut, "its name is not found within 5 seconds");
    let resolving = dialer::resolve(&target.host, target.port);
    let addresses = timeout(DIAL_PATIENCE, resolving).await.map_err(late)??;
    let known = agent.0.tunnels.answering_address(tunnel).filter(|known| addresses.contains(known));
    let mut others: VecDeque<_> = addresses.into_iter().filter(|one| Some(*one) != known).collect();
    if let Some(known) = known {
        others.push_front(known);
    }
    let (address, socket) = first_of(&mut others)?;
    Ok(TargetEnd {
        agent: agent.clone(),
        tunnel,
        target: target.clone(),
        socket,
        address,
        others,
        unanswered: Vec::new(),
        began: Instant::now(),
        has_heard: false,
    })
}

/// A socket for the first address that the system has a way to.
pub(super) fn first_of(addresses: &mut VecDeque<SocketAddr>) -> io::Result<(SocketAddr, Watched)> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    while let Some(address) = addresses.pop_front() {
        match connected(address) {
            Ok(socket) => return Ok((address, socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connected(address: SocketAddr) -> io::Result<Watched> {
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    // From here on the system takes datagrams from the target alone.
    socket.connect(address)?;
    Ok(Watched { socket: Arc::new(UdpSocket::from_std(socket)?), failing: None })
}

/// Carries a session's datagrams to its end.
pub(super) async fn carry(agent: &Agent, stream: impl Side, mut end: TargetEnd) {
    let idle = Duration::from_millis(agent.0.options.udp_idle_ms) * SERVED_IDLE;
    let carried = datagram::carry(stream, &mut end, idle, agent.0.stop.cancelled()).await;
    if let SessionEnd::Endpoint(error) = &carried.ended_by {
        let words = format!("{}: {error}", end.target);
        agent.0.tunnels.show(end.tunnel, &Servable::Unreachable(words));
    }
    tracing::debug!(target = %end.target, ?carried, "a UDP session ended");
}

impl TargetEnd {
    /// Nobody is at the address: the next one, with what the first did not get.
    fn turn_to_next(&mut self, refused: io::Error) -> io::Result<()> {
        let Ok((address, socket)) = first_of(&mut self.others) else { return Err(refused) };
        (self.address, self.socket, self.began) = (address, socket, Instant::now());
        for datagram in &self.unanswered {
            // Not by the runtime, which does not know yet that a new socket takes something.
            let _ =
                rustix::net::send(&*self.socket.socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        if self.others.is_empty() {
            self.unanswered = Vec::new();
        }
        Ok(())
    }

    /// This is the right address.
    fn settle(&mut self) {
        self.others.clear();
        self.unanswered = Vec::new();
        self.agent.0.tunnels.note_answering_address(self.tunnel, self.address);
    }

    fn keep(&mut self, datagram: &[u8]) {
        if self.others.is_empty() {
            return;
        }
        let kept: usize = self.unanswered.iter().map(|one| one.len()).sum();
        if self.began.elapsed() > SETTLED_AFTER {
            self.settle();
        } else if self.unanswered.len() < UNANSWERED_MAX && kept + datagram.len() <= UNANSWERED_BYTES_MAX {
            self.unanswered.push(datagram.into());
        }
    }
}

impl Endpoint for TargetEnd {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        for _ in 0..LOSSES_MAX {
            match ready!(self.socket.poll_receive(cx, buffer)) {
                Ok(length) => {
                    if !self.has_heard {
                        self.has_heard = true;
                        self.settle();
                        self.agent.0.tunnels.show(self.tunnel, &Servable::Yes);
                    }
                    return Poll::Ready(Ok(length));
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => self.turn_to_next(error)?,
                // Lost on the way, as far as the system knows.
                Err(error) => tracing::debug!(target = %self.target, %error, "a datagram was lost"),
            }
        }
        Poll::Ready(Err(io::Error::other("the socket fails again and again")))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<()>> {
        loop {
            match ready!(self.socket.socket.poll_send(cx, datagram)) {
                Ok(_) => {
                    self.keep(datagram);
                    return Poll::Ready(Ok(()));
                }
                // The word of the one before; this one was not sent.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    self.turn_to_next(error)?;
                    // Nobody waits for the new socket's answers yet.
                    cx.waker().wake_by_ref();
                }
                Err(error) => {
                    tracing::debug!(target = %self.target, %error, "a datagram was lost");
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

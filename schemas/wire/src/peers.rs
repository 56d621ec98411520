//! A UDP port whose peers have a session each: what a peer sends goes into its own stream, and what comes back on that
//! stream goes to that peer and nobody else.
//!
//! Everything has a limit, and what is over it is lost, as UDP may: a session's queue, the queues of a port and those of
//! all ports together (the newest datagram is lost), and the sessions of a port (the one that was silent longest ends).

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket as PlainSocket},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    datagram::{self, Carried, Endpoint, SessionEnd, with_gather_buffer},
    side::Side,
};

mod socket;

pub use socket::bind;
use socket::{Socket, Way};

/// What a queued datagram takes besides its bytes, so that empty ones count too (bytes).
const OVERHEAD_BYTES: usize = 128;
/// A session that could not be opened, or ended so soon, is not opened again before: who sends in a loop to a target
/// that is not there must not make the hub and the agent open streams in a loop.
const REST: Duration = Duration::from_secs(1);
/// How long to leave a socket alone that fails to receive.
const RECEIVE_AGAIN: Duration = Duration::from_millis(50);

/// The limits of a port.
#[derive(Debug, Clone)]
pub struct PeerLimits {
    /// A session in which nothing was said for this long ends.
    pub idle: Duration,
    /// Sessions at once; one more ends the one that was silent longest.
    pub sessions_max: usize,
    /// What waits for one session's stream.
    pub session_bytes_max: usize,
    /// What waits for all of the port's streams.
    pub port_bytes_max: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            // As routers keep the way back open for an answer, and longer than a name server or a game is silent.
            idle: Duration::from_secs(60),
            sessions_max: 1_024,
            // Seven datagrams of the largest kind, or three hundred of those that fit into a packet.
            session_bytes_max: 512 * 1024,
            port_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// What all ports of a process share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerRoom {
    bytes: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// What was counted so far over all ports.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions that began.
    pub sessions: AtomicU64,
    /// Sessions that ended because the port had too many.
    pub evicted: AtomicU64,
    /// Datagrams of peers that were lost because a queue was full or its session could not be opened.
    pub lost: AtomicU64,
}

impl Default for PeerRoom {
    fn default() -> Self {
        /// What waits for streams over all ports (bytes).
        const BYTES_MAX: usize = 64 * 1024 * 1024;
        Self { bytes: Arc::new(Semaphore::new(BYTES_MAX)), counts: Arc::default() }
    }
}

impl PeerRoom {
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Who opens the streams.
pub trait Host: Send + Sync + 'static {
    /// Serves a new peer in a task of its own: opens a stream and has it [`Peer::carry`], or [`Peer::refuse`]s. Must not
    /// block.
    fn attend(&self, peer: Peer);
}

/// An open port. Dropping it, or [`PeerPort::close`], ends every session and frees the port at once.
#[derive(Debug)]
pub struct PeerPort {
    sockets: Vec<Arc<Socket>>,
    closing: CancellationToken,
}

impl PeerPort {
    /// Serves sockets that [`bind`] gave, registered with the current runtime; the returned futures receive and are to be
    /// spawned on it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(
        sockets: Vec<PlainSocket>,
        limits: PeerLimits,
        room: &PeerRoom,
        host: impl Host,
    ) -> io::Result<(Self, Vec<BoxFuture<'static, ()>>)> {
        let closing = CancellationToken::new();
        let shared = Arc::new(Shared {
            bytes: Arc::new(Semaphore::new(limits.port_bytes_max)),
            limits,
            room: room.clone(),
            host: Box::new(host),
            closing: closing.clone(),
            table: Mutex::new(Table { entries: HashMap::new(), last: 0, began: Instant::now() }),
        });
        let sockets: Vec<_> = sockets
            .into_iter()
            .map(|socket| Socket::adopt(socket).map(Arc::new))
            .collect::<io::Result<_>>()?;
        let receiving = sockets
            .iter()
            .map(|socket| {
                let receiving = receive(Arc::downgrade(socket), Arc::clone(&shared));
                Box::pin(receiving) as BoxFuture<'static, ()>
            })
            .collect();
        Ok((Self { sockets, closing }, receiving))
    }

    /// When this returns, the port refuses and somebody else may have it.
    pub fn close(self) {}
}

impl Drop for PeerPort {
    fn drop(&mut self) {
        self.closing.cancel();
        for mut socket in self.sockets.drain(..) {
            // Others hold the socket for the time of one system call, never across a wait.
            while let Err(held) = Arc::try_unwrap(socket) {
                socket = held;
                std::thread::yield_now();
            }
        }
    }
}

struct Shared {
    limits: PeerLimits,
    room: PeerRoom,
    bytes: Arc<Semaphore>,
    host: Box<dyn Host>,
    closing: CancellationToken,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<Way, Entry>,
    last: u64,
    /// The zero of [`Said`].
    began: Instant,
}

/// When a session's peer or target last said something, in microseconds since the port was opened.
#[derive(Debug)]
struct Said {
    began: Instant,
    at: AtomicU64,
}

impl Said {
    fn note(&self) {
        let at = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at.store(at, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    queue: mpsc::UnboundedSender<Queued>,
    own_bytes: Arc<Semaphore>,
    said: Arc<Said>,
    over: CancellationToken,
}

/// A datagram in a queue, and its room in the three budgets.
#[derive(Debug)]
struct Queued {
    bytes: Box<[u8]>,
    _room: [OwnedSemaphorePermit; 3],
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

async fn receive(socket: Weak<Socket>, shared: Arc<Shared>) {
    let failing = |cx: &mut Context<'_>| {
        with_gather_buffer(|buffer| {
            loop {
                // Held for this call alone: see the drop of the port.
                let Some(open) = socket.upgrade() else { return Poll::Ready(None) };
                match ready!(open.poll_receive(cx, buffer)) {
                    Ok((_, way)) if open.is_from_itself(way) => {}
                    Ok((length, way)) => shared.take(&socket, way, &buffer[..length]),
                    Err(error) => return Poll::Ready(Some(error)),
                }
            }
        })
    };
    loop {
        let failed = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            failed = std::future::poll_fn(failing) => failed,
        };
        let Some(error) = failed else { return };
        tracing::debug!(%error, "a UDP port cannot receive");
        sleep(RECEIVE_AGAIN).await;
    }
}

impl Shared {
    /// Puts a peer's datagram into its session's queue, which begins where there is none.
    fn take(self: &Arc<Self>, socket: &Weak<Socket>, way: Way, datagram: &[u8]) {
        let mut table = self.table.lock();
        if let Some(entry) = table.entries.get(&way) {
            return self.offer(entry, datagram);
        }
        if table.entries.len() >= self.limits.sessions_max {
            self.evict(&mut table);
        }
        table.last += 1;
        let number = table.last;
        let (queue, waiting) = mpsc::unbounded_channel();
        let entry = Entry {
            number,
            queue,
            own_bytes: Arc::new(Semaphore::new(self.limits.session_bytes_max)),
            said: Arc::new(Said { began: table.began, at: AtomicU64::new(0) }),
            over: self.closing.child_token(),
        };
        self.offer(&entry, datagram);
        let peer = Peer {
            place: Place { shared: Arc::clone(self), way, number },
            end: PeerEnd { queue: waiting, socket: Weak::clone(socket), way, said: Arc::clone(&entry.said) },
            over: entry.over.clone(),
            began: Instant::now(),
        };
        table.entries.insert(way, entry);
        drop(table);
        self.room.counts.sessions.fetch_add(1, Ordering::Relaxed);
        self.host.attend(peer);
    }

    fn offer(&self, entry: &Entry, datagram: &[u8]) {
        entry.said.note();
        let cost = u32::try_from(datagram.len() + OVERHEAD_BYTES).expect("a datagram is short");
        let take = |budget: &Arc<Semaphore>| Arc::clone(budget).try_acquire_many_owned(cost);
        // What was taken comes back when the next one has none.
        let room =
            take(&entry.own_bytes).and_then(|own| Ok([own, take(&self.bytes)?, take(&self.room.bytes)?]));
        let queued =
            room.is_ok_and(|room| entry.queue.send(Queued { bytes: datagram.into(), _room: room }).is_ok());
        if !queued {
            self.room.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn evict(&self, table: &mut Table) {
        let silent = table.entries.iter().min_by_key(|(_, entry)| entry.said.at.load(Ordering::Relaxed));
        let Some(way) = silent.map(|(way, _)| *way) else { return };
        if let Some(entry) = table.entries.remove(&way) {
            entry.over.cancel();
            self.room.counts.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A peer whose session begins. Dropped without more, it ends.
#[derive(Debug)]
pub struct Peer {
    // Declared first: the place is free before the queue closes.
    place: Place,
    end: PeerEnd,
    over: CancellationToken,
    began: Instant,
}

/// A session's place in the port's table.
#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    way: Way,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock();
        if table.entries.get(&self.way).is_some_and(|entry| entry.number == self.number) {
            table.entries.remove(&self.way);
        }
    }
}

impl Peer {
    pub fn address(&self) -> SocketAddr {
        self.place.way.peer
    }

    /// Cancelled when nobody needs the session any more: the port closes, or others need its place.
    pub fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// The session, to its end.
    pub async fn carry(mut self, stream: impl Side, ended: impl Future<Output = ()>) -> Carried {
        let over = self.over.clone();
        let ended = async {
            tokio::select! {
                () = over.cancelled() => {}
                () = ended => {}
            }
        };
        let carried = datagram::carry(stream, &mut self.end, self.place.shared.limits.idle, ended).await;
        match carried.ended_by {
            SessionEnd::Stream if self.began.elapsed() < REST => self.rest().await,
            SessionEnd::Stream | SessionEnd::Idle => self.leave(),
            SessionEnd::Endpoint(_) | SessionEnd::Cancelled => {}
        }
        carried
    }

    /// There is no stream for this peer now: what it sends is lost for a moment.
    pub async fn refuse(self) {
        self.rest().await;
    }

    async fn rest(self) {
        let Self { place, end: PeerEnd { mut queue, .. }, over, began } = self;
        queue.close();
        let lost = std::iter::from_fn(|| queue.try_recv().ok()).count() as u64;
        place.shared.room.counts.lost.fetch_add(lost, Ordering::Relaxed);
        tokio::select! {
            () = over.cancelled() => {}
            () = sleep_until(began + REST) => {}
        }
    }

    /// Ends in order: what came too late for this session begins the next one.
    fn leave(self) {
        let Self { place, mut end, .. } = self;
        let shared = Arc::clone(&place.shared);
        drop(place);
        while let Ok(late) = end.queue.try_recv() {
            shared.take(&end.socket, end.way, &late.bytes);
        }
    }
}

/// The peer as the endpoint of its session.
#[derive(Debug)]
struct PeerEnd {
    queue: mpsc::UnboundedReceiver<Queued>,
    socket: Weak<Socket>,
    way: Way,
    said: Arc<Said>,
}

impl Endpoint for PeerEnd {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let over = || io::Error::from(io::ErrorKind::NotConnected);
        let queued = ready!(self.queue.poll_recv(cx)).ok_or_else(over)?;
        buffer[..queued.bytes.len()].copy_from_slice(&queued.bytes);
        Poll::Ready(Ok(queued.bytes.len()))
    }

    fn poll_send(&mut self, _: &mut Context<'_>, datagram: &[u8]) -> Poll<io::Result<()>> {
        // A closing port ends the session by its token.
        if let Some(socket) = self.socket.upgrade() {
            self.said.note();
            socket.answer(self.way, datagram);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;

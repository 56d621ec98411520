//! The edge's listeners: one thread, runtime and listener per core, all on one address. Where the API's listener shares
//! that address, it hands the edge's connections to the cores in turn instead.
//!
//! A core owns its connections, its lanes and its sweep; nothing of them is shared with other cores. Every thread is
//! joined at the end of [`Edge::drain`].

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use domain::ids::{RequestId, ShareId};
use http::HeaderValue;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
};
use wire::tls::HTTP_2;

use super::{
    conn::{ConnState, Cut, Seen, Tick, TickLimits},
    connection::{self, Accepted, ConnCtx},
    exchange::Exchange,
    handshake,
    intake::{Intake, Source},
    metrics::Metrics,
    options::{EdgeDeps, EdgeOptions, Entrance},
    upstream::{Lane, Upstream},
    visitor_io::{Open, Speaks},
};
use crate::{secrets::random_bytes, streams::CoreStreams, tls::acme::ACME_TLS};

/// A request head takes at most this much (bytes); more is answered with 431.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The listeners' queue of connections that nobody has accepted yet.
const BACKLOG: i32 = 1_024;
/// How long a closed connection is read on, so that the last answer is not overtaken by a reset.
const LINGER_MS: u64 = 2_000;
/// How long a document's first bytes are waited for before it passes without a banner.
const SNIFF_MS: u64 = 2_000;
/// How long a target may leave `Expect: 100-continue` unanswered before the body is sent all the same (RFC 9110, section
/// 10.1.1: not indefinitely).
const EXPECT_MS: u64 = 1_000;
/// Requests of one core that may wait for agents to come back: others are refused at once.
const AGENT_WAITERS_MAX: usize = 1_024;
/// With more visitors than this to be waited for, a core is crowded, and asks a pace of them.
const CROWD: usize = 128;
/// So many who keep a connection and ask for nothing are a crowd as well.
const QUIET_CROWD: usize = 1_024;
/// Connections and HTTP/2 requests, on all cores together, from which on each is given less memory.
const MANY: u64 = 256;
/// How long a visitor of a crowd may stay below the pace. Twice that and the sweeps between are under half a minute.
const PACE_MS: u64 = 12_000;
/// How long cut connections get to say goodbye.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What all cores share.
#[derive(Debug)]
pub(super) struct Shared {
    pub options: EdgeOptions,
    pub deps: EdgeDeps,
    pub metrics: Arc<Metrics>,
}

/// The running edge.
#[derive(Debug)]
pub struct Edge {
    /// Where it listens; with the real port when 0 was asked for.
    pub local_addr: SocketAddr,
    pub metrics: Arc<Metrics>,
    intake: Arc<Intake>,
    /// When every connection must be over; set to stop.
    stop: watch::Sender<Option<Instant>>,
    threads: Mutex<Vec<Thread>>,
}

#[derive(Debug)]
struct Thread {
    ended: oneshot::Receiver<()>,
    handle: std::thread::JoinHandle<()>,
}

/// Binds, starts the cores and answers from then on.
///
/// # Errors
/// The address cannot be bound, or the system gives no threads.
pub fn start(options: EdgeOptions, deps: EdgeDeps) -> io::Result<Edge> {
    let count = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let metrics = Arc::new(Metrics::default());
    let mut intake = Intake::new(Arc::clone(&metrics));
    let (mut local_addr, mut sources) = (options.listen, Vec::new());
    for _ in 0..count {
        sources.push(match options.entrance {
            Entrance::Own => {
                let listener = listener(local_addr)?;
                local_addr = listener.local_addr()?;
                Source::Listener(listener)
            }
            Entrance::Shared => intake.add_core(),
        });
    }
    let shared = Arc::new(Shared { options, deps, metrics: Arc::clone(&metrics) });
    let (stop, stopped) = watch::channel(None);
    let mut threads = Vec::new();
    for (n, source) in sources.into_iter().enumerate() {
        let runtime = Box::new(tokio::runtime::Builder::new_current_thread());
        let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
        let (end, ended) = oneshot::channel();
        let handle = std::thread::Builder::new().name(format!("edge-{n}")).spawn(move || {
            if let Err(error) = run_core(runtime, source, shared, stopped) {
                tracing::error!(%error, "an edge core could not start");
            }
            // Nobody may be waiting.
            let _ = end.send(());
        })?;
        threads.push(Thread { ended, handle });
    }
    Ok(Edge { local_addr, metrics, intake: Arc::new(intake), stop, threads: Mutex::new(threads) })
}

impl Edge {
    /// Takes connections that were accepted elsewhere ([`Entrance::Shared`]); nothing of them was read.
    pub fn hand_over(&self) -> impl Fn(std::net::TcpStream) + Send + Sync + 'static {
        let intake = Arc::clone(&self.intake);
        move |socket| intake.hand_over(socket)
    }

    /// Accepts no more, lets running requests finish for at most `timeout`, cuts the rest, and joins the threads.
    /// Idempotent.
    pub async fn drain(&self, timeout: Duration) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(Instant::now() + timeout);
            is_first
        });
        let threads = std::mem::take(&mut *self.threads.lock());
        for Thread { ended, handle } in threads {
            // An error means that the thread panicked, which `join` says.
            let _ = ended.await;
            if handle.join().is_err() {
                tracing::error!("an edge core panicked");
            }
        }
    }
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// How many upstream connections are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleLimits {
    pub per_share: usize,
    pub in_all: usize,
    pub kept_for: Tick,
}

/// One core's share of the edge.
#[derive(Debug)]
pub(super) struct Core {
    pub shared: Arc<Shared>,
    /// Streams on links of this core's own.
    pub streams: Box<dyn CoreStreams>,
    pub lanes: RefCell<HashMap<ShareId, Rc<Lane>>>,
    conns: RefCell<Vec<Rc<ConnCtx>>>,
    clock: Arc<AtomicU32>,
    pub draining: Cell<bool>,
    idle: IdleLimits,
    pub limits: TickLimits,
    /// For request ids, which are no secrets.
    random: Cell<u64>,
    /// Requests that wait for an agent to come back.
    waiting: Cell<usize>,
    /// When the core will have been without a crowd for as long as a visitor of one may be slow.
    crowded_until: Cell<Tick>,
    /// The `Date` of answers, and the second it is for.
    date: RefCell<(u64, HeaderValue)>,
}

impl Core {
    fn new(shared: Arc<Shared>) -> Rc<Self> {
        let options = &shared.options;
        let pace_ms = PACE_MS.min(options.visitor_stall_ms);
        let seed = random_bytes();
        let seed = seed.first_chunk::<8>().copied().expect("32 random bytes");
        Rc::new(Self {
            lanes: RefCell::default(),
            conns: RefCell::default(),
            clock: Arc::new(AtomicU32::new(1)),
            draining: Cell::new(false),
            idle: IdleLimits {
                per_share: options.upstream_idle_per_share,
                in_all: options.upstream_idle_max,
                kept_for: options.ticks(options.upstream_idle_ms),
            },
            limits: TickLimits {
                idle: options.ticks(options.keep_alive_ms),
                head: options.ticks(options.head_timeout_ms),
                stall: options.ticks(options.visitor_stall_ms),
                pace: options.ticks(pace_ms),
                quiet: options.ticks(pace_ms / 3),
                linger: options.ticks(LINGER_MS),
                silence: options.ticks(options.silence_ms),
                upstream: options.ticks(options.upstream_timeout_ms),
                sniff: options.ticks(SNIFF_MS),
                expect: options.ticks(EXPECT_MS),
            },
            random: Cell::new(u64::from_le_bytes(seed)),
            waiting: Cell::new(0),
            crowded_until: Cell::new(0),
            date: RefCell::new((u64::MAX, HeaderValue::from_static(""))),
            streams: shared.deps.streams.of_core(),
            shared,
        })
    }

    /// The state of a new connection.
    pub(super) fn connection_state(&self) -> Arc<ConnState> {
        ConnState::new(Arc::clone(&self.clock), Arc::clone(&self.shared.metrics))
    }

    /// Has the sweep, a revocation and the drain find a connection or stream, as long as somebody else holds it.
    pub(super) fn register(&self, ctx: &Rc<ConnCtx>) {
        self.conns.borrow_mut().push(Rc::clone(ctx));
    }

    /// Whether there are as many connections and HTTP/2 requests as there may be, on all cores together.
    pub(super) fn is_full(&self) -> bool {
        let metrics = &self.shared.metrics;
        metrics.connections_open.get() + metrics.streams_open.get() >= self.shared.options.connections_max
    }

    /// Whether many visitors are waited for, or were a while ago: the last ones of a crowd are judged as the first.
    fn is_crowded(&self) -> bool {
        self.clock.load(Relaxed) < self.crowded_until.get()
    }

    pub(super) fn has_many_visitors(&self) -> bool {
        let metrics = &self.shared.metrics;
        metrics.connections_open.get() + metrics.streams_open.get() > MANY
    }

    /// A place among those who wait for agents to come back, until dropped.
    pub(super) fn wait_for_agent(self: &Rc<Self>) -> Option<Waiting> {
        let waiting = self.waiting.get();
        (waiting < AGENT_WAITERS_MAX).then(|| {
            self.waiting.set(waiting + 1);
            Waiting(Rc::clone(self))
        })
    }

    /// The `Date` of an answer that is given now.
    pub(super) fn date(&self) -> HeaderValue {
        let now = SystemTime::UNIX_EPOCH
            + Duration::from_millis(u64::try_from(self.shared.deps.clock.now().millis()).unwrap_or(0));
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            let text = httpdate::fmt_http_date(now);
            *date = (second, HeaderValue::try_from(text).expect("a date is ASCII"));
        }
        date.1.clone()
    }

    /// A fresh id for a request that gets an answer of our own.
    pub(super) fn request_id(&self) -> RequestId {
        let now = u64::try_from(self.shared.deps.clock.now().millis()).unwrap_or(0);
        let mut bytes = [0; 10];
        let [first, second] = [self.next_random().to_le_bytes(), self.next_random().to_le_bytes()];
        bytes[..8].copy_from_slice(&first);
        bytes[8..].copy_from_slice(&second[..2]);
        RequestId::new(uuid::Builder::from_unix_timestamp_millis(now, &bytes).into_uuid())
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next_random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Keeps an upstream connection for the share's next request.
    pub(super) fn keep(&self, lane: &Lane, upstream: Upstream) {
        lane.keep(upstream, self.clock.load(Relaxed), &self.idle);
    }

    /// Ends everything that runs on a lane.
    pub(super) fn end_lane(&self, lane: &Rc<Lane>) {
        lane.end();
        {
            let mut lanes = self.lanes.borrow_mut();
            if lanes.get(&lane.share).is_some_and(|known| Rc::ptr_eq(known, lane)) {
                lanes.remove(&lane.share);
            }
        }
        let exchanges: Vec<Rc<Exchange>> =
            self.conns.borrow().iter().filter_map(|ctx| ctx.exchange.borrow().upgrade()).collect();
        for exchange in exchanges {
            let is_on_it = exchange.lane.borrow().as_ref().is_some_and(|its| Rc::ptr_eq(its, lane));
            if is_on_it {
                exchange.revoke();
            }
        }
    }

    fn sweep(&self) {
        self.clock.fetch_add(1, Relaxed);
        self.conns.borrow_mut().retain(|ctx| Rc::strong_count(ctx) > 1);
        let long = Duration::from_millis(self.shared.options.running_after_ms);
        let is_crowded = self.is_crowded();
        let (mut slow, mut quiet) = (0, 0);
        for ctx in self.conns.borrow().iter() {
            match ctx.state.sweep(&self.limits, is_crowded) {
                Seen::Fine => {}
                Seen::Slow => slow += 1,
                Seen::Quiet => quiet += 1,
            }
            if let Some(exchange) = ctx.exchange.borrow().upgrade() {
                exchange.sweep(self.clock.load(Relaxed), long);
            }
        }
        if slow > CROWD || quiet > QUIET_CROWD {
            self.crowded_until.set(self.clock.load(Relaxed).saturating_add(self.limits.pace));
        }
        self.sweep_lanes();
    }

    /// Ends lanes whose share may not be used any more (nobody tells when a clock runs out), and forgets unused ones.
    fn sweep_lanes(&self) {
        let lanes: Vec<Rc<Lane>> = self.lanes.borrow().values().cloned().collect();
        let deps = &self.shared.deps;
        let now = deps.clock.now();
        let mut kept = 0;
        for lane in lanes {
            let share = deps.routes.share(lane.share);
            let gate = share.map(|share| deps.routes.gate(&share.state, now));
            match gate {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.end_lane(&lane),
            }
            let idle = lane.sweep(self.clock.load(Relaxed), self.idle.kept_for);
            kept += idle;
            if kept > self.idle.in_all {
                lane.trim(idle.saturating_sub(kept - self.idle.in_all));
                kept = self.idle.in_all;
            }
            // The map and this loop hold it, and nobody else.
            if idle == 0 && Rc::strong_count(&lane) == 2 {
                self.lanes.borrow_mut().remove(&lane.share);
            }
        }
    }
}

/// A request's place among those who wait for an agent.
#[derive(Debug)]
pub(super) struct Waiting(Rc<Core>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

fn run_core(
    mut runtime: Box<tokio::runtime::Builder>,
    source: Source,
    shared: Arc<Shared>,
    stopped: watch::Receiver<Option<Instant>>,
) -> io::Result<()> {
    let runtime = runtime.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    let core = Core::new(shared);
    runtime.block_on(async {
        let accepting = match source {
            Source::Listener(listener) => {
                let listener = TcpListener::from_std(listener)?;
                tokio::task::spawn_local(accept(Rc::clone(&core), listener))
            }
            Source::Handed(handed) => tokio::task::spawn_local(receive(Rc::clone(&core), handed)),
        };
        let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&core)));
        until_over(&core, stopped, &accepting.abort_handle()).await;
        sweeping.abort();
        Ok(())
    })
}

async fn sweep(core: Rc<Core>) {
    let mut ticks = tokio::time::interval(core.shared.options.sweep_every());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.sweep();
    }
}

/// Waits for the stop, then for the connections.
async fn until_over(
    core: &Rc<Core>,
    mut stopped: watch::Receiver<Option<Instant>>,
    accepting: &tokio::task::AbortHandle,
) {
    let deadline = match stopped.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        // The edge was dropped without a drain.
        Err(_) => Instant::now(),
    };
    accepting.abort();
    core.draining.set(true);
    wake_all(core);
    until_empty(core, deadline).await;
    for ctx in core.conns.borrow().iter() {
        ctx.state.end(Cut::Hub);
    }
    until_empty(core, Instant::now() + LAST_WORDS).await;
}

fn wake_all(core: &Core) {
    for ctx in core.conns.borrow().iter() {
        ctx.state.wake();
    }
}

async fn until_empty(core: &Core, deadline: Instant) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    loop {
        core.conns.borrow_mut().retain(|ctx| Rc::strong_count(ctx) > 1);
        if core.conns.borrow().is_empty() || Instant::now() >= deadline {
            return;
        }
        looks.tick().await;
    }
}

async fn accept(core: Rc<Core>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => welcome(&core, socket, peer),
            // Out of descriptors, or the peer left already: the next one may work.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn receive(core: Rc<Core>, mut handed: mpsc::Receiver<std::net::TcpStream>) {
    while let Some(socket) = handed.recv().await {
        // One that is gone already has no peer.
        let adopted = TcpStream::from_std(socket).and_then(|socket| Ok((socket.peer_addr()?, socket)));
        if let Ok((peer, socket)) = adopted {
            welcome(&core, socket, peer);
        }
    }
}

fn welcome(core: &Rc<Core>, socket: TcpStream, peer: SocketAddr) {
    let metrics = &core.shared.metrics;
    metrics.connections_accepted.add(1);
    if core.is_full() {
        metrics.connections_refused.add(1);
        return;
    }
    // A socket that is gone already says so at its first read.
    let _ = socket.set_nodelay(true);
    let open = Open::new(metrics);
    let Some(speaker) = core.shared.options.tls.clone() else {
        let plain = Accepted { socket, peer, is_secure: false, server_name: None, speaks: None, open };
        connection::serve(core, plain);
        return;
    };
    let core = Rc::clone(core);
    tokio::task::spawn_local(async move {
        let Some(socket) = handshake::shake(&core, socket, &speaker).await else { return };
        let speaks = match socket.alpn() {
            // An authority has seen what it wanted to see.
            Some(ACME_TLS) => return,
            Some(HTTP_2) => Some(Speaks::Http2),
            Some(_) => Some(Speaks::Http1),
            None => None,
        };
        let server_name = socket.server_name().map(str::to_owned);
        connection::serve(&core, Accepted { socket, peer, is_secure: true, server_name, speaks, open });
    });
}

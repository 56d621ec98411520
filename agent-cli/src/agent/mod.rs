//! The agent: one identity's connection to the hub, kept for ever, and everything that runs over it.
//!
//! Reading order: [`control`] (the control connection and its reconnects), [`tunnels`] (what this machine exposes),
//! [`dialer`] (what may be dialled), [`data`] (data connections), [`streams`] (many streams on one), [`target`] (a
//! stream's other end, with [`target_tls`] for HTTPS, [`speech`] for what was found by looking, and [`datagrams`] for
//! UDP), [`commands`] (what the hub may ask for besides), [`ports`] and [`udp_ports`] (what this machine reaches); [`wire`] carries the bytes.
//! Invariants: only targets on the allow-list are ever dialled, whatever the hub says; nothing the hub sends makes an
//! agent hold unbounded memory; a lost hub is sought again until [`AgentHandle::stop`].

mod certificate;
mod check;
mod commands;
mod control;
mod data;
mod data_connection;
mod datagrams;
mod dialer;
mod hub_address;
mod hub_connection;
mod ports;
mod reach_check;
pub(crate) mod refusals;
mod sealing;
mod speech;
mod streams;
mod target;
mod target_tls;
pub mod trust;
mod tunnels;
mod udp_ports;

use std::{collections::BTreeMap, fmt, io, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use domain::target::Target;
use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trust::KnownServices;
use uuid::Uuid;
use wire::{cores::Cores, peers::PeerRoom, sealed::handshake::Identity};

use commands::Commands;
use control::Link;
use dialer::Allowed;
use hub_address::HubAddress;
use target_tls::TargetTls;
use tunnels::Tunnels;

pub use ports::{Carries, LocalPort};
pub use refusals::{Reason, Refusals, Tally};
pub use speech::Speech;
pub use target_tls::{CertificateCheck, issuers_of};
pub use tunnels::TunnelView;

/// How long [`AgentHandle::stop`] waits for what still runs.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Streams that run at once, both ways together; more are refused as busy.
const STREAMS_MAX: usize = 8_192;

/// A token that may be renewed while the agent runs; the next connection uses the new one. Its `Debug` says nothing.
#[derive(Clone)]
pub struct TokenCell(Arc<RwLock<String>>);

impl TokenCell {
    pub fn new(token: impl Into<String>) -> Self {
        Self(Arc::new(RwLock::new(token.into())))
    }
    pub fn set(&self, token: impl Into<String>) {
        *self.0.write() = token.into();
    }
    fn get(&self) -> String {
        self.0.read().clone()
    }
}

impl From<Arc<RwLock<String>>> for TokenCell {
    fn from(shared: Arc<RwLock<String>>) -> Self {
        Self(shared)
    }
}

impl fmt::Debug for TokenCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCell(…)")
    }
}

/// Who the agent is and where its hub is.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `https://host:port` or `http://host:port`.
    pub hub_url: String,
    /// Whom an `https` hub must be vouched for by.
    pub believing: ClientConfig,
    pub agent_id: String,
    pub token: TokenCell,
    /// Shown to others who hold the same identity.
    pub host_name: String,
    /// Random at the start of the process: the hub lets the same instance take over from itself at once.
    pub instance: Uuid,
    pub agent_version: String,
    /// Whether targets on this machine may be dialled without being allowed one by one.
    pub allow_loopback: bool,
    /// How long a peer of a local UDP port may be silent before its session ends (milliseconds).
    pub udp_idle_ms: u64,
    /// The static key that others know this agent's services by.
    pub identity: Identity,
    /// The keys of services that are reached from here.
    pub known: Arc<dyn KnownServices>,
    /// Where commands are remembered, so that none is carried out twice; `None`: for as long as the process runs.
    pub remembers: Option<PathBuf>,
}

/// [`AgentOptions::udp_idle_ms`] where nobody has a reason for another: as long as the hub's own.
pub const UDP_IDLE_MS: u64 = 60_000;

/// How the agent is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentStatus {
    /// Trying, for the `attempt`th time in a row (from 1; 0 before the first), and why the last try failed.
    Connecting { attempt: u32, last_error: Option<String> },
    /// Connected.
    Connected { epoch: u64 },
    /// The hub does not want this agent, and trying again would not help. `code`: `unauthorized` (log in again),
    /// `held_elsewhere` (another machine has the identity), `protocol` (update), `hub_url` (no such address).
    Refused { code: String, message: String },
    /// A command that came over the hub ended it.
    Stopped,
}

/// A running agent. Cheap to clone; it runs until [`AgentHandle::stop`], whatever becomes of the handles.
#[derive(Clone)]
pub struct AgentHandle(Agent);

/// What the agent's tasks share.
#[derive(Clone)]
struct Agent(Arc<Inner>);

struct Inner {
    options: AgentOptions,
    /// The address behind [`AgentOptions::hub_url`]; an error never becomes an address.
    hub: Result<HubAddress, String>,
    tls: Arc<ClientConfig>,
    allowed: Allowed,
    target_tls: TargetTls,
    tunnels: Tunnels,
    /// Local ports that the hub asked for, by tunnel.
    ports: Mutex<BTreeMap<u128, LocalPort>>,
    /// The live session, for whoever opens data connections.
    link: watch::Sender<Option<Arc<Link>>>,
    status: watch::Sender<AgentStatus>,
    streams: Arc<Semaphore>,
    /// What all local UDP ports share.
    peers: PeerRoom,
    sealing: sealing::Sessions,
    commands: Commands,
    /// The thread that carries streams.
    cores: Cores<streams::Local>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHandle").field("status", &*self.0.0.status.borrow()).finish_non_exhaustive()
    }
}

impl Agent {
    /// Runs a task of the agent's on the thread that carries streams.
    fn on_core<F, T>(&self, make: F)
    where
        F: FnOnce(Rc<streams::Local>) -> T + Send + 'static,
        T: Future<Output = ()> + 'static,
    {
        let tasks = self.0.tasks.clone();
        self.0.cores.spawn(0, move |local| tasks.track_future(make(local)));
    }
}

/// Starts an agent on the current tokio runtime, and a thread that carries its streams.
///
/// # Panics
/// Outside of a tokio runtime, or when the system gives no thread.
pub fn start(options: AgentOptions) -> AgentHandle {
    let agent = Agent(Arc::new(Inner {
        hub: HubAddress::parse(&options.hub_url),
        tls: hub_connection::config(&options.believing),
        allowed: Allowed::new(options.allow_loopback),
        target_tls: TargetTls::default(),
        tunnels: Tunnels::default(),
        ports: Mutex::default(),
        link: watch::Sender::new(None),
        status: watch::Sender::new(AgentStatus::Connecting { attempt: 0, last_error: None }),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        peers: PeerRoom::default(),
        sealing: sealing::Sessions::default(),
        commands: Commands::open(options.remembers.clone()),
        cores: Cores::start("connect", 1).expect("a process that starts may have one more thread"),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        options,
    }));
    agent.0.tasks.spawn(control::run(agent.clone()));
    AgentHandle(agent)
}

impl AgentHandle {
    /// How the agent is doing, as it changes.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.0.0.status.subscribe()
    }

    /// Allows a target to be dialled: what the agent's owner exposed. `host` without brackets.
    pub fn allow(&self, host: &str, port: u16) {
        self.0.0.allowed.add(host, port);
    }

    /// Decides how the certificate of a target that speaks TLS is judged, from the next connection on.
    ///
    /// # Errors
    /// The file of issuers cannot be read or is none.
    pub fn check_certificate(&self, target: &Target, check: &CertificateCheck) -> io::Result<()> {
        self.0.0.target_tls.decide(target, check)?;
        self.0.0.tunnels.doubt_target(target);
        Ok(())
    }

    /// Listens on a loopback port (0: any) and leads its connections or its peers' datagrams to a tunnel of the workspace,
    /// sealed end to end, until the returned port is dropped. Works across reconnects. `service` is the name that the other
    /// side's key is pinned under.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when somebody listens there, or why it cannot listen.
    #[expect(clippy::unused_async, reason = "callers await it; it may come to ask the hub first")]
    pub async fn reach(
        &self,
        tunnel: u128,
        service: &str,
        carries: Carries,
        port: u16,
    ) -> io::Result<LocalPort> {
        ports::open(&self.0, &ports::To::new(tunnel, service), carries, port)
    }

    /// The tunnels that the hub has assigned to this agent and whether they can be served, as they change.
    pub fn tunnel_states(&self) -> watch::Receiver<BTreeMap<u128, TunnelView>> {
        self.0.0.tunnels.views()
    }

    /// Says goodbye, closes every port and stream, and waits until that is done (at most two seconds).
    pub async fn stop(&self) {
        let inner = &self.0.0;
        inner.stop.cancel();
        inner.ports.lock().clear();
        inner.tasks.close();
        // What does not end in time (a blocked name look-up) is left behind; it holds nothing that matters.
        let _ = tokio::time::timeout(STOP_PATIENCE, inner.tasks.wait()).await;
    }
}

//! The agents' side of the hub: their control connections, their data connections, and the streams over them.
//!
//! Reading order: [`acceptor`] (one port for everything), [`session`] (one control connection, an actor), [`greeting`]
//! (who may hold an agent's identity), [`sessions`] (the registry and what is asked of agents), [`watchdog`] (who is
//! cut), [`settle`] and [`commands`] (what the log learns), [`data`] and [`pool`] (data connections), [`links`] (many streams on one), [`core_links`] (the same for requests of shares), [`counts`] (what metrics show), [`streams`] (opening a stream; [`wire`] carries its bytes).
//! Invariants: nothing an agent does or leaves undone holds up another one; every queue here has a limit in
//! [`GatewaySettings`]; a session's facts go to the log in the order in which they happened.

pub mod acceptor;
mod commands;
mod core_links;
pub mod counts;
pub mod data;
mod greeting;
pub(crate) mod links;
mod pool;
mod preface;
pub mod session;
pub mod sessions;
mod settle;
pub mod streams;
mod watchdog;

use std::{fmt, io, sync::Arc, time::Duration};

use domain::{
    access::Denied,
    agent::DisconnectReason,
    aggregate::Aggregate as _,
    ids::{AgentId, TunnelId, WorkspaceId},
};
use projections::routes::Routes;
use tokio::{runtime::Handle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use wire::relay::Relayed;

use crate::{
    actors::Executor,
    clock::SharedClock,
    creation::Creator,
    running::{Running, Under},
    usage::Usage,
};
use counts::Counts;
use links::Links;
use sessions::Sessions;

/// The gateway's limits. The defaults are the protocol's; tests set shorter times.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// How long a new session may take to say hello (milliseconds).
    pub handshake_ms_max: u64,
    /// How often each session is pinged (milliseconds).
    pub heartbeat_ms: u64,
    /// A session that has answered no ping for this long is cut (milliseconds).
    pub silence_ms_max: u64,
    /// How long the holder of an identity has to prove that it is there when another machine asks (milliseconds).
    pub takeover_ms_max: u64,
    /// How long a goodbye has to leave before the socket is shut (milliseconds).
    pub goodbye_ms_max: u64,
    /// How long a data connection may take over its preface or first frame (milliseconds).
    pub preface_ms_max: u64,
    /// How long opening a stream may take (milliseconds).
    pub open_timeout_ms: u64,
    /// How many idle data connections each agent is asked to keep.
    pub warm_connections: u16,
    /// How many idle data connections of an agent are kept at most.
    pub idle_connections_max: usize,
    /// How many openers wait for a data connection of one agent at most.
    pub openers_max: usize,
    /// How many `reach` streams one agent has at most.
    pub reach_streams_max: usize,
    /// How many orders wait for a session's socket at most; a session that has more does not read and is cut.
    pub outbox_max: usize,
    /// How many tunnel states of a session wait for the log at most.
    pub states_max: usize,
    /// How often the link of a thread of the edge is looked at; one that had no stream twice is given up (milliseconds).
    pub core_link_look_ms: u64,
    /// How many threads carry streams; 0: one a processor.
    pub stream_cores: usize,
    /// How many questions to one agent wait for an answer at most.
    pub questions_max: usize,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        use schemas::frames::{HANDSHAKE_MS_MAX, HEARTBEAT_MS, SILENCE_MS_MAX};
        Self {
            handshake_ms_max: HANDSHAKE_MS_MAX,
            heartbeat_ms: HEARTBEAT_MS,
            // The ping after the last answer goes out up to a heartbeat later, and the watchdog looks now and then:
            // together they stay under the 15 s that a dead agent may look alive.
            silence_ms_max: SILENCE_MS_MAX - 1_000,
            takeover_ms_max: 2_000,
            goodbye_ms_max: 500,
            preface_ms_max: 10_000,
            open_timeout_ms: 10_000,
            warm_connections: 8,
            idle_connections_max: 64,
            openers_max: 4_096,
            reach_streams_max: 4_096,
            outbox_max: 1_024,
            states_max: 1_024,
            core_link_look_ms: 30_000,
            stream_cores: 0,
            questions_max: 256,
        }
    }
}

/// What the gateway works with.
#[derive(Debug, Clone)]
pub struct Parts {
    pub routes: Arc<Routes>,
    pub executor: Executor,
    /// Makes the tunnels that agents were told to expose.
    pub creator: Arc<Creator>,
    pub running: Arc<Running>,
    pub clock: SharedClock,
    pub usage: Arc<Usage>,
    /// This node and this start of it.
    pub node: String,
    pub boot: Uuid,
    pub hub_version: String,
    /// Where the gateway's own tasks run; must outlive [`Gateway::stop`].
    pub runtime: Handle,
    pub settings: GatewaySettings,
}

/// The gateway. Cheap to clone; every clone is the same one.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    parts: Parts,
    sessions: Sessions,
    links: Links,
    counts: Counts,
    tasks: TaskTracker,
    /// No new session or stream.
    draining: CancellationToken,
    /// Everything ends.
    stopped: CancellationToken,
    /// The zero of this process's monotonic milliseconds.
    began: Instant,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts the gateway's own tasks and threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let cores = match parts.settings.stream_cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            cores => cores,
        };
        let gateway = Self(Arc::new(Inner {
            sessions: Sessions::default(),
            links: Links::start(cores)?,
            counts: Counts::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            began: Instant::now(),
            parts,
        }));
        gateway.spawn(watchdog::watch(gateway.clone()));
        Ok(gateway)
    }

    /// No new session and no new stream from now on (503, `Busy`); what runs goes on.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Says goodbye to every agent, ends every stream and awaits the gateway's tasks, at most `limit`. Call it after
    /// [`Gateway::drain`] and whatever time running streams were given. `false`: the limit came first.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.drain();
        self.end_all(DisconnectReason::Drained);
        self.0.stopped.cancel();
        self.0.tasks.close();
        let in_time = tokio::time::timeout(limit, self.0.tasks.wait()).await.is_ok();
        let gateway = self.clone();
        // Joining threads blocks.
        let _ = tokio::task::spawn_blocking(move || gateway.0.links.stop()).await;
        in_time
    }

    /// Whether [`Gateway::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Cancelled when everything ends.
    pub(crate) fn stopped(&self) -> &CancellationToken {
        &self.0.stopped
    }
    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }
    /// What was counted so far, for metrics.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }
    pub(crate) fn links(&self) -> &Links {
        &self.0.links
    }
    /// Makes a task on a core of streams one of the gateway's own: awaited by [`Gateway::stop`].
    pub(crate) fn track<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.tasks.track_future(task)
    }
    fn settings(&self) -> &GatewaySettings {
        &self.0.parts.settings
    }
    /// Milliseconds since the gateway's start on a clock that nobody sets.
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    /// Runs a task of the gateway's own: awaited by [`Gateway::stop`].
    pub(crate) fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.tasks.spawn_on(task, &self.0.parts.runtime)
    }

    /// Whether a stream to a tunnel may start now, and the tokens that end it: the tunnel's and its agent's.
    pub(crate) fn admit(&self, tunnel: TunnelId) -> Result<Admitted, Denied> {
        let Parts { routes, running, clock, .. } = self.parts();
        // Tokens first, facts second: an end that comes in between is seen by one of the two.
        let of_tunnel = running.token(Under::Tunnel(tunnel));
        let agent = routes
            .tunnel(tunnel)
            .and_then(|entry| entry.state.open().map(|details| details.created.agent_id))
            .ok_or(Denied::TunnelGone)?;
        let of_agent = running.token(Under::Agent(agent));
        let entry = routes.tunnel_gate(tunnel, clock.now())?;
        let serves = entry.state.open().map(|details| details.created.agent_id);
        let workspace = entry.state.workspace().ok_or(Denied::TunnelGone)?;
        // Moved to another agent in between: the caller's next try finds it there.
        if serves == Some(agent) {
            let used = Used { usage: Arc::clone(&self.parts().usage), workspace, tunnel };
            Ok(Admitted { agent, used, tokens: [of_tunnel, of_agent, self.stopped().clone()] })
        } else {
            Err(Denied::TunnelGone)
        }
    }
}

/// A stream to a tunnel may start.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) agent: AgentId,
    pub(crate) used: Used,
    pub(crate) tokens: [CancellationToken; 3],
}

/// Counts what one stream to a tunnel does.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    usage: Arc<Usage>,
    workspace: WorkspaceId,
    tunnel: TunnelId,
}

impl Used {
    pub(crate) fn opened(&self) {
        self.usage.opened(self.workspace, self.tunnel);
    }
    /// It has ended: so much was carried to the target and back.
    pub(crate) fn carried(&self, relayed: &Relayed) {
        self.usage.carried(self.workspace, self.tunnel, relayed.forth, relayed.back);
    }
}

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;

//! The live sessions of this node, and everything that the rest of the hub asks of agents.

use std::{
    collections::HashMap,
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Addr, dev::SendError};
use dashmap::DashMap;
use domain::{
    agent::DisconnectReason,
    ids::{AgentId, KeyId, SessionId, TunnelId, WorkspaceId},
    target::Protocol,
    time::Timestamp,
    tunnel::{Condition, Details},
};
use parking_lot::Mutex;
use ring::hmac;
use schemas::{
    frames::{
        Check, CheckReach, ClosePort, Depth, Frame, Goodbye, GoodbyeCode, OpenPort, PortOutcome,
        TunnelAssigned, TunnelWithdrawn,
    },
    rest::Diagnostics,
};
use socket2::Socket;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Gateway,
    pool::Pool,
    preface::Window,
    session::{AgentSession, Order},
};
use crate::running::Under;

/// Why an agent gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("the agent is not connected")]
    AgentOffline,
    #[error("the agent did not answer in time")]
    Timeout,
    #[error("too many questions to the agent wait for an answer")]
    Busy,
    #[error("the agent's answer cannot be read")]
    Unreadable,
}

/// An agent that is connected, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    pub agent: AgentId,
    pub workspace: WorkspaceId,
    pub session: SessionId,
    pub connected_at: Timestamp,
    pub host_name: String,
    pub agent_version: String,
}

/// One live session as everybody but its actor sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) agent: AgentId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) instance: Uuid,
    pub(crate) host_name: String,
    pub(crate) agent_version: String,
    pub(crate) connected_at: Timestamp,
    /// The token it came with, or the one that took its place: its hash as events keep it, and the key behind it.
    pub(crate) token_hash: Mutex<String>,
    pub(crate) key: Option<KeyId>,
    pub(crate) data_key: hmac::Key,
    pub(crate) counters: Mutex<Window>,
    pub(crate) pool: Pool,
    /// Room for `reach` streams.
    pub(crate) reach_streams: Arc<Semaphore>,
    /// When it last answered a ping, and when it was last sent one (the gateway's monotonic milliseconds).
    pub(crate) answered_ms: AtomicU64,
    pub(crate) pinged_ms: AtomicU64,
    pub(crate) answered: Notify,
    /// Data connections asked for and not yet told to the agent: any number of openers make one order.
    pub(crate) wanted: AtomicU32,
    /// Cancelled when the session ends, for whatever reason.
    pub(crate) ending: CancellationToken,
    pub(crate) reason: Mutex<Option<DisconnectReason>>,
    pub(crate) orders: Addr<AgentSession>,
    /// A second handle of its socket: the only way to shut it when its actor is stuck.
    pub(crate) socket: Socket,
    pub(crate) questions: Questions,
    /// Further links that it was offered, and those that broke before it said anything on them.
    pub(crate) links_begun: AtomicU32,
    pub(crate) links_failed: AtomicU32,
}

/// What was asked of an agent and is not yet answered.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Port(PortOutcome),
    Check(String),
}

impl Questions {
    fn ask(&self, limit: usize) -> Result<(u64, oneshot::Receiver<Answer>), AskError> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, asker| !asker.is_closed());
        if waiting.len() >= limit {
            return Err(AskError::Busy);
        }
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        waiting.insert(request, sender);
        Ok((request, receiver))
    }

    /// An answer that nobody waits for (any longer) is dropped.
    pub(crate) fn answer(&self, request: u64, answer: Answer) {
        if let Some(asker) = self.waiting.lock().remove(&request) {
            let _ = asker.send(answer);
        }
    }
}

impl Session {
    /// Puts an order into the session's outbox; one whose outbox is full does not read and is shut.
    pub(crate) fn tell(&self, order: Order) {
        match self.orders.try_send(order) {
            Ok(()) | Err(SendError::Closed(_)) => {}
            Err(SendError::Full(_)) => self.shut(),
        }
    }

    pub(crate) fn send(&self, frame: Frame) {
        self.tell(Order::Send(frame));
    }

    /// Asks for data connections.
    pub(crate) fn want_data(&self, count: u32) {
        if self.wanted.fetch_add(count, Ordering::AcqRel) == 0 {
            self.tell(Order::AskForData);
        }
    }

    /// Shuts the socket from outside: whatever its actor waits for fails, and what was not sent is thrown away.
    pub(crate) fn shut(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The registry: at most one session an agent.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) by_agent: DashMap<AgentId, Arc<Session>>,
    pub(crate) by_id: DashMap<SessionId, Arc<Session>>,
    /// Who comes and who goes, one at a time for each agent.
    turns: DashMap<AgentId, Arc<tokio::sync::Mutex<()>>>,
    /// Moves on whenever a tunnel's state was recorded.
    pub(crate) states: watch::Sender<u64>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_agent: DashMap::new(),
            by_id: DashMap::new(),
            turns: DashMap::new(),
            states: watch::Sender::new(0),
        }
    }
}

impl Sessions {
    pub(crate) fn of(&self, agent: AgentId) -> Option<Arc<Session>> {
        self.by_agent.get(&agent).map(|session| Arc::clone(&session))
    }
    pub(crate) fn by_id(&self, id: SessionId) -> Option<Arc<Session>> {
        self.by_id.get(&id).map(|session| Arc::clone(&session))
    }
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.by_agent.iter().map(|session| Arc::clone(session.value())).collect()
    }
    /// The lock under which an agent's sessions change. Forgotten by [`Sessions::forget_turns`].
    pub(crate) fn turn(&self, agent: AgentId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.turns.entry(agent).or_default())
    }
    pub(crate) fn forget_turns(&self) {
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    }
}

impl Gateway {
    /// Whether the agent has a live session on this node.
    pub fn is_connected(&self, agent: AgentId) -> bool {
        self.sessions().by_agent.contains_key(&agent)
    }

    /// How many agents are connected.
    pub fn sessions_now(&self) -> usize {
        self.sessions().by_agent.len()
    }

    /// Every connected agent, in no order.
    pub fn online(&self) -> Vec<Online> {
        self.sessions().all().iter().map(|session| online(session)).collect()
    }

    /// The agent's session, if it has one.
    pub fn online_agent(&self, agent: AgentId) -> Option<Online> {
        self.sessions().of(agent).map(|session| online(&session))
    }

    /// Tells the tunnel's agent what `Routes` says about the tunnel now: after it was created, changed or resumed.
    /// `false`: the agent is offline (it will be told when it comes) or the tunnel is gone.
    pub fn assign(&self, tunnel: TunnelId) -> bool {
        let Some(entry) = self.parts().routes.tunnel(tunnel) else { return false };
        let Some(details) = entry.state.open() else { return false };
        let Some(session) = self.sessions().of(details.created.agent_id) else { return false };
        session.send(assigned(details));
        true
    }

    /// Tells an agent that a tunnel is no longer its own: after it was deleted, expired or moved to another agent.
    pub fn withdraw(&self, agent: AgentId, tunnel: TunnelId) {
        if let Some(session) = self.sessions().of(agent) {
            session.send(Frame::TunnelWithdrawn(TunnelWithdrawn { tunnel: tunnel.uuid().as_u128() }));
        }
    }

    /// Waits until the tunnel's agent has confirmed or refused it, at most `limit`; the tunnel's condition then, or
    /// `None` when the tunnel is gone. Visible in `Routes` when it returns.
    pub async fn wait_state(&self, tunnel: TunnelId, limit: Duration) -> Option<Condition> {
        let mut states = self.sessions().states.subscribe();
        let condition = || {
            let entry = self.parts().routes.tunnel(tunnel)?;
            entry.state.open().map(|details| details.condition.clone())
        };
        let settled = async {
            loop {
                states.mark_unchanged();
                match condition() {
                    Some(Condition::Connecting) if states.changed().await.is_ok() => {}
                    settled => return settled,
                }
            }
        };
        match tokio::time::timeout(limit, settled).await {
            Ok(settled) => settled,
            Err(_) => condition(),
        }
    }

    /// Asks an agent to listen on a local port (0: any) and to lead it to a tunnel of that protocol.
    ///
    /// # Errors
    /// The agent gave no answer within `limit`.
    pub async fn open_port(
        &self,
        agent: AgentId,
        tunnel: TunnelId,
        protocol: Protocol,
        name: String,
        port: u16,
        limit: Duration,
    ) -> Result<PortOutcome, AskError> {
        let tunnel = tunnel.uuid().as_u128();
        let frame = match protocol {
            Protocol::Udp => Frame::OpenUdpPort,
            Protocol::Auto | Protocol::Tcp | Protocol::Http | Protocol::Https => Frame::OpenPort,
        };
        let ask = |request| frame(OpenPort { request, tunnel, name, port });
        match self.ask(agent, limit, ask).await? {
            Answer::Port(outcome) => Ok(outcome),
            Answer::Check(_) => Err(AskError::Unreadable),
        }
    }

    /// Asks an agent to close the local port that leads to a tunnel.
    pub fn close_port(&self, agent: AgentId, tunnel: TunnelId) {
        if let Some(session) = self.sessions().of(agent) {
            session.send(Frame::ClosePort(ClosePort { tunnel: tunnel.uuid().as_u128() }));
        }
    }

    /// Asks a tunnel's agent to look at its target now, for at most `limit`.
    ///
    /// # Errors
    /// The agent gave no answer within `limit` and a second for the way.
    pub async fn check(
        &self,
        agent: AgentId,
        tunnel: TunnelId,
        limit: Duration,
    ) -> Result<Diagnostics, AskError> {
        let tunnel = tunnel.uuid().as_u128();
        let timeout_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        let ask = |request| Frame::Check(Check { request, tunnel, timeout_ms });
        match self.ask(agent, limit + Duration::from_secs(1), ask).await? {
            Answer::Check(json) => serde_json::from_str(&json).map_err(|_| AskError::Unreadable),
            Answer::Port(_) => Err(AskError::Unreadable),
        }
    }

    /// Asks an agent to look at a tunnel of its workspace from where it is, over the way that `reach` goes.
    ///
    /// # Errors
    /// The agent gave no answer within `limit` and a second for the way.
    pub async fn check_reach(
        &self,
        agent: AgentId,
        details: &Details,
        depth: Depth,
        limit: Duration,
    ) -> Result<Diagnostics, AskError> {
        let created = &details.created;
        let ask = |request| {
            Frame::CheckReach(CheckReach {
                request,
                tunnel: created.tunnel_id.uuid().as_u128(),
                name: created.name.to_string(),
                host: created.target.host.clone(),
                port: created.target.port,
                protocol: created.protocol.name().to_owned(),
                depth,
                timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
            })
        };
        match self.ask(agent, limit + Duration::from_secs(1), ask).await? {
            Answer::Check(json) => serde_json::from_str(&json).map_err(|_| AskError::Unreadable),
            Answer::Port(_) => Err(AskError::Unreadable),
        }
    }

    async fn ask(
        &self,
        agent: AgentId,
        limit: Duration,
        question: impl FnOnce(u64) -> Frame,
    ) -> Result<Answer, AskError> {
        let session = self.sessions().of(agent).ok_or(AskError::AgentOffline)?;
        let (request, answer) = session.questions.ask(self.settings().questions_max)?;
        session.send(question(request));
        tokio::select! {
            answer = answer => answer.map_err(|_| AskError::AgentOffline),
            () = session.ending.cancelled() => Err(AskError::AgentOffline),
            () = tokio::time::sleep(limit) => Err(AskError::Timeout),
        }
    }

    /// Ends an agent's session and every stream through it, at once.
    pub fn end(&self, agent: AgentId, reason: DisconnectReason) {
        if let Some(session) = self.sessions().of(agent) {
            self.close(&session, reason, Some(goodbye(reason)));
        }
    }

    /// The holder of an agent's token exchanged it: the session that came with it goes on under the new one, or every
    /// rotation would end what runs.
    pub fn token_rotated(&self, agent: AgentId, from_hash: &str, to_hash: &str) {
        if let Some(session) = self.sessions().of(agent) {
            let mut held = session.token_hash.lock();
            if *held == from_hash {
                to_hash.clone_into(&mut held);
            }
        }
    }

    /// Ends every session whose token was asked for by this key.
    pub fn end_by_key(&self, key: KeyId) {
        for session in self.sessions().all() {
            if session.key == Some(key) {
                self.close(
                    &session,
                    DisconnectReason::KeyRevoked,
                    Some(goodbye(DisconnectReason::KeyRevoked)),
                );
            }
        }
    }

    pub(crate) fn end_all(&self, reason: DisconnectReason) {
        for session in self.sessions().all() {
            self.close(&session, reason, Some(goodbye(reason)));
        }
    }

    /// Takes a session out of the registry and ends what runs through it. The first caller's reason counts; what the
    /// log must know is written by the session's own task (see [`super::settle`]).
    pub(crate) fn close(&self, session: &Arc<Session>, reason: DisconnectReason, goodbye: Option<Goodbye>) {
        {
            let mut known = session.reason.lock();
            if known.is_some() {
                return;
            }
            *known = Some(reason);
        }
        self.counts().disconnected(reason);
        self.sessions().by_agent.remove_if(&session.agent, |_, held| Arc::ptr_eq(held, session));
        self.sessions().by_id.remove(&session.id);
        session.pool.close();
        // The same process came back on a new connection: its streams have connections of their own and live on,
        // under the same token.
        if reason != DisconnectReason::Replaced {
            self.parts().running.end(Under::Agent(session.agent));
        }
        if !reason.may_return() {
            self.parts().running.left_for_good(session.agent);
        }
        if let Some(goodbye) = goodbye {
            session.tell(Order::Leave(goodbye));
        }
        session.ending.cancel();
    }
}

fn online(session: &Session) -> Online {
    Online {
        agent: session.agent,
        workspace: session.workspace,
        session: session.id,
        connected_at: session.connected_at,
        host_name: session.host_name.clone(),
        agent_version: session.agent_version.clone(),
    }
}

/// What an agent has to know of a tunnel.
pub(crate) fn assigned(details: &Details) -> Frame {
    let created = &details.created;
    Frame::TunnelAssigned(TunnelAssigned {
        tunnel: created.tunnel_id.uuid().as_u128(),
        name: created.name.as_str().to_owned(),
        host: created.target.host.clone(),
        port: created.target.port,
        protocol: created.protocol.name().to_owned(),
    })
}

/// What the agent is told when its session ends from this side.
pub(crate) fn goodbye(reason: DisconnectReason) -> Goodbye {
    let (code, message, retry_after_ms) = match reason {
        DisconnectReason::KeyRevoked => {
            (GoodbyeCode::Unauthorized, "the API key behind this agent was revoked", 0)
        }
        DisconnectReason::TokenExpired => {
            (GoodbyeCode::Unauthorized, "the agent's token is no longer good", 0)
        }
        DisconnectReason::Deleted => (GoodbyeCode::Unauthorized, "the agent was deleted", 0),
        DisconnectReason::Replaced => (GoodbyeCode::Replaced, "a newer session took over", 0),
        DisconnectReason::Drained => (GoodbyeCode::Draining, "the hub restarts", 500),
        DisconnectReason::Silent => (GoodbyeCode::Draining, "the agent did not answer", 0),
        DisconnectReason::Protocol => (GoodbyeCode::Protocol, "the agent broke the protocol", 0),
        DisconnectReason::Left | DisconnectReason::Lost => (GoodbyeCode::Leaving, "the session ended", 0),
    };
    Goodbye { code, message: message.to_owned(), retry_after_ms }
}

//! The agent library behind the seam of [`super::session`]: the only file that knows both.

use std::{io::ErrorKind, sync::Arc};

use domain::target::Target;
use parking_lot::Mutex;
use schemas::frames::Servable;
use tokio::{sync::watch, task::AbortHandle};
use uuid::Uuid;

use super::session::{Launch, ReachError, Session, SessionState, TargetState};
use super::{known, rotation};
use crate::{
    agent::{
        self, AgentHandle, AgentOptions, AgentStatus, Carries, CertificateCheck, LocalPort, Refusals,
        TokenCell, TunnelView,
    },
    api::Api,
    commands::identity::{Identity, host_name, renew},
    settings::config_file::{ConfigFile, SavedAgent},
};

/// Starts agent sessions under one identity.
pub struct AgentLaunch {
    api: Api,
    config: Option<ConfigFile>,
    /// As it is saved by now: its token changes while the process runs.
    identity: Arc<Mutex<SavedAgent>>,
    key: wire::sealed::handshake::Identity,
    token: TokenCell,
    /// One for the life of the process: the hub lets the same instance take over at once.
    instance: Uuid,
}

impl AgentLaunch {
    pub(crate) async fn new(api: Api, config: Option<ConfigFile>, identity: &Identity) -> Self {
        let token = TokenCell::new(identity.agent.token.clone());
        let key = known::identity(config.as_ref(), api.hub().as_str()).await;
        let identity = Arc::new(Mutex::new(identity.agent.clone()));
        Self { api, config, identity, key, token, instance: Uuid::new_v4() }
    }
}

impl Launch for AgentLaunch {
    type Session = AgentSession;

    fn launch(&self) -> AgentSession {
        let agent_id = self.identity.lock().id.clone();
        let handle = agent::start(AgentOptions {
            hub_url: self.api.hub().to_string(),
            believing: self.api.believing().clone(),
            agent_id: agent_id.clone(),
            token: self.token.clone(),
            host_name: host_name().unwrap_or_default(),
            instance: self.instance,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            allow_loopback: true,
            udp_idle_ms: agent::UDP_IDLE_MS,
            identity: self.key.clone(),
            known: Arc::new(known::Pinned::new(self.config.clone(), self.api.hub().as_str().to_owned())),
            remembers: self
                .config
                .as_ref()
                .map(|config| config.folder().join(format!("commands-{agent_id}.json"))),
        });
        let keeper = rotation::Keeper {
            api: self.api.clone(),
            config: self.config.clone(),
            identity: Arc::clone(&self.identity),
            token: self.token.clone(),
        };
        AgentSession::new(handle, keeper)
    }

    async fn renew(&self) -> bool {
        let saved = self.identity.lock().clone();
        match renew(&self.api, self.config.as_ref(), &saved).await {
            Ok(fresh) => {
                self.token.set(fresh.token.clone());
                *self.identity.lock() = fresh;
                true
            }
            Err(_) => false,
        }
    }
}

/// A session of the agent library.
pub struct AgentSession {
    handle: AgentHandle,
    states: watch::Receiver<SessionState>,
    follower: AbortHandle,
    /// Keeps the token good for as long as the session lives.
    keeper: AbortHandle,
}

impl AgentSession {
    fn new(handle: AgentHandle, keeper: rotation::Keeper) -> Self {
        let mut status = handle.status();
        let (publish, states) = watch::channel(state_of(&status.borrow_and_update()));
        // Ends with the session, at the latest with us.
        let follower = tokio::spawn(async move {
            while status.changed().await.is_ok() {
                let state = state_of(&status.borrow_and_update());
                publish.send_replace(state);
            }
        });
        let keeper = tokio::spawn(keeper.run());
        Self { handle, states, follower: follower.abort_handle(), keeper: keeper.abort_handle() }
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.follower.abort();
        self.keeper.abort();
    }
}

impl Session for AgentSession {
    type Port = LocalPort;

    fn states(&self) -> watch::Receiver<SessionState> {
        self.states.clone()
    }
    fn allow(&self, target: &Target) {
        self.handle.allow(&target.host, target.port);
    }
    fn check_certificate(&self, target: &Target, check: &CertificateCheck) -> Result<(), String> {
        self.handle.check_certificate(target, check).map_err(|error| error.to_string())
    }
    async fn reach(
        &self,
        tunnel: Uuid,
        service: &str,
        carries: Carries,
        port: u16,
    ) -> Result<LocalPort, ReachError> {
        self.handle.reach(tunnel.as_u128(), service, carries, port).await.map_err(|error| {
            let is_taken = error.kind() == ErrorKind::AddrInUse;
            if is_taken { ReachError::Taken } else { ReachError::Failed(error.to_string()) }
        })
    }
    fn number(port: &LocalPort) -> u16 {
        port.port()
    }
    fn refusals(port: &LocalPort) -> watch::Receiver<Refusals> {
        port.refusals()
    }
    async fn target(&self, tunnel: Uuid, seen: Option<&TargetState>) -> Option<TargetState> {
        let mut views = self.handle.tunnel_states();
        let mut news = None;
        let is_news = views.wait_for(|views| {
            news = views.get(&tunnel.as_u128()).and_then(target_state);
            news.is_some() && news.as_ref() != seen
        });
        is_news.await.ok()?;
        news
    }
    async fn stop(&self) {
        self.handle.stop().await;
    }
}

fn target_state(view: &TunnelView) -> Option<TargetState> {
    let distrust = view.speech.as_ref().and_then(|speech| speech.distrust.clone());
    Some(match (view.servable.clone()?, distrust) {
        (Servable::NotAllowed(words), _) => TargetState::NotAllowed(words),
        (_, Some(words)) => TargetState::Distrusted(words),
        (Servable::Yes, None) => TargetState::Answers,
        (Servable::Unreachable(words), None) => TargetState::Unreachable(words),
    })
}

fn state_of(status: &AgentStatus) -> SessionState {
    match status.clone() {
        AgentStatus::Connecting { attempt, last_error } => SessionState::Connecting { attempt, last_error },
        AgentStatus::Connected { epoch } => SessionState::Connected { epoch },
        AgentStatus::Refused { code, message } => SessionState::Refused { code, message },
        AgentStatus::Stopped => SessionState::Stopped,
    }
}

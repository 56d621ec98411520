//! Environment shares: their codes, who may try one, and the routes at the agents that have joined.
//!
//! A code is drawn from the share's id with a key of the keyring, so that its owner can be shown it again and yet no
//! event, view or backup of the log has it; a share is found by a keyed digest of it. What an agent has joined it has
//! until the share ends: whenever it connects, its ports are opened again where they were.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use domain::{
    claim::{self, ClaimKind, ClaimTaken},
    environment::{self, Command, Environment, EnvironmentShared, Joining, OpenedPort, Route},
    ids::{AgentId, EnvironmentId, TunnelId, WorkspaceId},
    names::Name,
    policy::{
        codes,
        lockout::{Budget, LockedOut, Lockout, Trier},
    },
    time::Timestamp,
    tunnel::Condition,
};
use parking_lot::Mutex;
use projections::routes::{Digest, Entry, Routes};
use ring::hmac;
use schemas::frames::PortOutcome;
use uuid::Uuid;

use crate::{
    actors::{Done, ExecuteError, Executor, Who},
    clock::SharedClock,
    creation::claim_stream,
    gateway::{Gateway, sessions::AskError},
    secrets::{Seed, hex},
};

/// The most living environment shares of one workspace: a bound on lists, and on what a guess can hit.
pub const LIVING_MAX: usize = 1_000;
/// How many codes are drawn until one is free: with a thousand living ones the second is free already.
const DRAWS_MAX: u32 = 16;
/// How long an agent may take to listen on one port.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an agent whose connection is a fact already to be there for questions.
const SESSION_PATIENCE: Duration = Duration::from_secs(10);
const SESSION_LOOK: Duration = Duration::from_millis(50);

/// The codes of this hub.
#[derive(Debug)]
pub struct Codes(hmac::Key);

impl Codes {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The code of a share's draw.
    pub fn draw(&self, id: EnvironmentId, draw: u32) -> String {
        let tag = hmac::sign(&self.0, format!("code {id} {draw}").as_bytes());
        codes::code(*tag.as_ref().first_chunk().expect("a tag has 32 bytes"))
    }

    /// What a share is found by; within a workspace only.
    fn digest(&self, workspace: WorkspaceId, code: &str) -> Digest {
        let tag = hmac::sign(&self.0, format!("digest {workspace} {code}").as_bytes());
        *tag.as_ref().first_chunk().expect("a tag has 32 bytes")
    }
}

/// What a new environment share shall be.
#[derive(Debug, Clone)]
pub struct NewEnvironment {
    pub agent_id: AgentId,
    pub name: Option<Name>,
    pub expires_at: Timestamp,
    pub require_approval: bool,
}

/// Why an environment was not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareError {
    /// The workspace has as many as it may.
    TooMany,
    /// The draws gave no free code.
    NoCode,
    Claim(ExecuteError<claim::Rejection>),
    Environment(ExecuteError<environment::Rejection>),
}

/// Why a code led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// No living share of the workspace has it.
    Unknown,
    /// It was not looked at.
    LockedOut(LockedOut),
}

/// A route at an agent that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRoute {
    pub route: Route,
    /// Where the agent listens, or why it does not.
    pub local_port: Result<u16, String>,
}

/// What became of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// The owner has to approve it.
    Pending,
    Joined(Vec<OpenRoute>),
}

/// Environment shares and what becomes of them.
#[derive(Debug)]
pub struct Environments {
    executor: Executor,
    routes: Arc<Routes>,
    gateway: Gateway,
    clock: SharedClock,
    codes: Codes,
    guesses: Mutex<Lockout>,
}

impl Environments {
    pub fn new(
        executor: Executor,
        routes: Arc<Routes>,
        gateway: Gateway,
        clock: SharedClock,
        codes: Codes,
        wrong_codes: Budget,
    ) -> Self {
        let guesses = Mutex::new(Lockout::new(wrong_codes));
        Self { executor, routes, gateway, clock, codes, guesses }
    }

    /// The code of a share, for its owner.
    pub fn code_of(&self, shared: &EnvironmentShared) -> String {
        self.codes.draw(shared.environment_id, shared.draw)
    }

    /// The living share of a code as somebody typed it. A wrong one counts against whoever tried it.
    ///
    /// # Errors
    /// [`NotFound`].
    pub fn find(
        &self,
        workspace: WorkspaceId,
        caller: &str,
        address: IpAddr,
        text: &str,
    ) -> Result<(EnvironmentId, Arc<Entry<Environment>>), NotFound> {
        let now = self.clock.now();
        let trier = Trier { workspace, caller, address };
        // One at a time: of many tries at once none passes a limit that another one has reached.
        let mut guesses = self.guesses.lock();
        guesses.admit(trier, now).map_err(NotFound::LockedOut)?;
        // What can be no code tells nobody anything.
        let code = codes::normalized(text).ok_or(NotFound::Unknown)?;
        let digest = self.codes.digest(workspace, &code);
        let found = self.routes.environment_by_code(workspace, &digest);
        let found = found.filter(|(_, entry)| entry.state.living(now).is_some());
        if found.is_none() {
            guesses.note_wrong(trier, now);
            if let Err(LockedOut { until }) = guesses.admit(trier, now) {
                tracing::warn!(%workspace, caller, %until, "too many wrong environment codes, locked out");
            }
        }
        found.ok_or(NotFound::Unknown)
    }

    /// Shares what an agent exposes now.
    ///
    /// # Errors
    /// [`ShareError`]; what was claimed is released again.
    pub async fn share(
        &self,
        who: &Who,
        seed: &Seed,
        new: NewEnvironment,
    ) -> Result<(EnvironmentId, Done), ShareError> {
        let now = self.clock.now();
        let id = EnvironmentId::new(seed.uuid(seed.first_seen().unwrap_or(now), "environment"));
        if let Some(known) = self.routes.environment(id) {
            return Ok((id, Done { position: 0, revision: known.revision }));
        }
        if self.routes.environments_of(who.workspace).len() >= LIVING_MAX {
            return Err(ShareError::TooMany);
        }
        let mut environment = EnvironmentShared {
            environment_id: id,
            workspace_id: who.workspace,
            agent_id: new.agent_id,
            owner: who.actor.clone(),
            name: new.name,
            expires_at: new.expires_at,
            require_approval: new.require_approval,
            routes: self.exposed(new.agent_id),
            draw: 0,
            code_hash: String::new(),
        };
        let command_id = Uuid::from_bytes(*seed.bytes("command").first_chunk().expect("32 bytes"));
        for draw in 0..DRAWS_MAX {
            let code = self.codes.draw(id, draw);
            environment.draw = draw;
            environment.code_hash = hex(&self.codes.digest(who.workspace, &code));
            let claim = ClaimTaken {
                kind: ClaimKind::EnvironmentCode,
                key: environment.code_hash.clone(),
                workspace_id: who.workspace,
                holder: id.to_string(),
                command_id,
            };
            let stream = claim_stream(claim.kind, &claim.key);
            match self.executor.claim(stream, who.clone(), claim::Command::Take { claim, now }).await {
                Ok(_) => return self.record(who, environment, command_id, now).await,
                Err(ExecuteError::Rejected(_)) => {}
                Err(error) => return Err(ShareError::Claim(error)),
            }
        }
        Err(ShareError::NoCode)
    }

    async fn record(
        &self,
        who: &Who,
        environment: EnvironmentShared,
        command_id: Uuid,
        now: Timestamp,
    ) -> Result<(EnvironmentId, Done), ShareError> {
        let id = environment.environment_id;
        let stream = claim_stream(ClaimKind::EnvironmentCode, &environment.code_hash);
        let command = Command::Share { environment: Box::new(environment), now };
        match self.executor.environment(id, who.clone(), command).await {
            Ok(done) => Ok((id, done)),
            Err(error) => {
                // In doubt the claim stays: the follower frees it when no share appears.
                if !matches!(error, ExecuteError::InDoubt(_)) {
                    let abandon = claim::Command::Abandon { command_id };
                    if let Err(error) = self.executor.claim(stream, who.clone(), abandon).await {
                        tracing::warn!(%error, "a code could not be released at once");
                    }
                }
                Err(ShareError::Environment(error))
            }
        }
    }

    /// The active tunnels of an agent, by name.
    fn exposed(&self, agent: AgentId) -> Vec<Route> {
        if !self.gateway.is_connected(agent) {
            return Vec::new();
        }
        let now = self.clock.now();
        let active = self.routes.tunnels_of(agent).into_iter().filter_map(|id| {
            let entry = self.routes.tunnel_gate(id, now).ok()?;
            let details = entry.state.open()?;
            matches!(details.condition, Condition::Connected(_)).then(|| Route {
                tunnel_id: id,
                name: details.created.name.clone(),
                target: details.created.target.clone(),
                protocol: details.created.protocol,
            })
        });
        let mut routes: Vec<Route> = active.collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        routes
    }

    /// Lets an agent join and opens the routes there; asking again is answered alike.
    ///
    /// # Errors
    /// What the share refuses; the agent has to be connected when its ports shall open.
    pub async fn join(
        &self,
        who: &Who,
        id: EnvironmentId,
        agent: AgentId,
    ) -> Result<Join, ExecuteError<environment::Rejection>> {
        let command = Command::Join { agent_id: agent, now: self.clock.now() };
        self.executor.environment(id, who.clone(), command).await?;
        let entry = self.routes.environment(id).ok_or(ExecuteError::NotFound)?;
        match entry.state.joiners.get(&agent) {
            Some(Joining::Joined { .. }) => Ok(Join::Joined(self.open_routes(who, id, agent).await)),
            Some(Joining::Asked | Joining::Approved { .. } | Joining::Denied { .. }) | None => {
                Ok(Join::Pending)
            }
        }
    }

    /// Opens the ports of a share's routes at an agent that has joined it: where they were, where the target's own is,
    /// or anywhere.
    async fn open_routes(&self, who: &Who, id: EnvironmentId, agent: AgentId) -> Vec<OpenRoute> {
        let Some(entry) = self.routes.environment(id) else { return Vec::new() };
        let Some(shared) = entry.state.living(self.clock.now()) else { return Vec::new() };
        let known = match entry.state.joiners.get(&agent) {
            Some(Joining::Joined { ports, .. }) => ports.clone(),
            Some(Joining::Asked | Joining::Approved { .. } | Joining::Denied { .. }) | None => {
                BTreeMap::new()
            }
        };
        let mut opened = Vec::with_capacity(shared.routes.len());
        // One after the other: of two routes with one port the first by name gets it.
        for route in &shared.routes {
            let wanted = known.get(&route.tunnel_id).copied();
            let local_port = self.open_route(agent, route, wanted).await;
            opened.push(OpenRoute { route: route.clone(), local_port });
        }
        let ports: Vec<OpenedPort> = opened
            .iter()
            .filter_map(|open| {
                let local_port = *open.local_port.as_ref().ok()?;
                Some(OpenedPort { tunnel_id: open.route.tunnel_id, local_port })
            })
            .collect();
        let command = Command::NotePorts { agent_id: agent, ports };
        if let Err(error) = self.executor.environment(id, who.clone(), command).await {
            // They are open; when the agent comes back they are looked for at the targets' own ports.
            tracing::warn!(%id, %agent, %error, "the ports of a joined environment were not noted");
        }
        // Ended in between: whoever ended it may have been faster than the last port.
        if self.routes.environment(id).is_none_or(|entry| entry.state.living(self.clock.now()).is_none()) {
            self.close_at(shared, agent);
        }
        opened
    }

    async fn open_route(&self, agent: AgentId, route: &Route, wanted: Option<u16>) -> Result<u16, String> {
        let tunnel = self.routes.tunnel(route.tunnel_id);
        let Some(details) = tunnel.as_ref().and_then(|entry| entry.state.open()) else {
            return Err("the service is gone".to_owned());
        };
        let protocol = details.created.protocol;
        let mut reason = String::new();
        for port in [wanted.unwrap_or(route.target.port), 0] {
            let name = details.created.name.to_string();
            let asked =
                self.gateway.open_port(agent, route.tunnel_id, protocol, name, port, PORT_PATIENCE).await;
            match asked {
                Ok(PortOutcome::Listening(port)) => return Ok(port),
                Ok(PortOutcome::Taken) => reason = format!("port {port} is in use there"),
                Ok(PortOutcome::Failed(words)) => reason = words,
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(reason)
    }

    /// A share is over: its routes close at every agent that has joined, except those that the agent has from another.
    pub fn close(&self, id: EnvironmentId) {
        let Some(entry) = self.routes.environment(id) else { return };
        let Some(shared) = &entry.state.shared else { return };
        for (agent, _) in entry.state.joined() {
            self.close_at(shared, agent);
        }
    }

    fn close_at(&self, shared: &EnvironmentShared, agent: AgentId) {
        for route in &shared.routes {
            if !self.has_joined(agent, route.tunnel_id) {
                self.gateway.close_port(agent, route.tunnel_id);
            }
        }
    }

    /// Whether an agent has a route to a tunnel from some living share.
    fn has_joined(&self, agent: AgentId, tunnel: TunnelId) -> bool {
        let now = self.clock.now();
        self.routes.environments_joined_by(agent).iter().any(|(_, entry)| {
            let routes = entry.state.living(now).map(|shared| &shared.routes);
            routes.is_some_and(|routes| routes.iter().any(|route| route.tunnel_id == tunnel))
        })
    }

    /// An agent has connected: what it has joined is opened again, and what ended while it was away is closed.
    pub async fn restore(&self, agent: AgentId) {
        let joined = self.routes.environments_joined_by(agent);
        if joined.is_empty() || !self.arrived(agent).await {
            return;
        }
        for (id, entry) in joined {
            let Some(shared) = &entry.state.shared else { continue };
            if entry.state.living(self.clock.now()).is_none() {
                self.close_at(shared, agent);
                continue;
            }
            let who = Who::hub(shared.workspace_id, "environments");
            for OpenRoute { route, local_port } in self.open_routes(&who, id, agent).await {
                if let Err(reason) = local_port {
                    let tunnel = route.tunnel_id;
                    tracing::warn!(%agent, %tunnel, reason, "a joined route could not be opened again");
                }
            }
        }
    }

    /// Its connection becomes a fact a moment before it can be asked.
    async fn arrived(&self, agent: AgentId) -> bool {
        let there = async {
            while !self.gateway.is_connected(agent) {
                tokio::time::sleep(SESSION_LOOK).await;
            }
        };
        tokio::time::timeout(SESSION_PATIENCE, there).await.is_ok()
    }

    /// Whether an agent can be asked to listen.
    ///
    /// # Errors
    /// It is not connected.
    pub fn ready(&self, agent: AgentId) -> Result<(), AskError> {
        if self.gateway.is_connected(agent) { Ok(()) } else { Err(AskError::AgentOffline) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_the_same_code_whenever_it_is_shown_and_another_one_elsewhere() {
        let codes = Codes::new(&[7; 32]);
        let id = |n| EnvironmentId::new(Uuid::from_u128(n));
        assert_eq!(codes.draw(id(1), 0), codes.draw(id(1), 0));
        assert_ne!(codes.draw(id(1), 0), codes.draw(id(1), 1));
        assert_ne!(codes.draw(id(1), 0), codes.draw(id(2), 0));
        assert_ne!(codes.draw(id(1), 0), Codes::new(&[8; 32]).draw(id(1), 0));
        let workspace = |n| WorkspaceId::new(Uuid::from_u128(n));
        assert_ne!(codes.digest(workspace(1), "x7k9m2"), codes.digest(workspace(2), "x7k9m2"));
    }
}

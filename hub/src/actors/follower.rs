//! The consequences of facts, by following the log: ports open and close, agents are told, running streams end,
//! children follow their parents, claims are confirmed and freed.
//!
//! Nothing is correct because the follower ran: `Routes` refuses by itself. It keeps no checkpoint: at start it sweeps
//! what a former life may have left undone, then follows from the head. Everything it does may be done twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    agent::{self, DisconnectReason},
    agent_command,
    claim::ClaimKind,
    environment,
    event::Event,
    ids::{AgentId, EnvironmentId, EventId, ShareId, TunnelId, WebhookId, WorkspaceId},
    names::Name,
    recorded::{Families, Family, Recorded, StreamName},
    share::{self, RevokeReason},
    tunnel::{self, DeleteReason},
    workspace,
};
use futures_util::{StreamExt as _, stream};
use projections::routes::Routes;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod claims;

use super::{Executor, FailFast, Who, timekeeper::Timekeeper};
use crate::{
    clock::SharedClock,
    creation::{self, Creator, name_key, public_share},
    environments::Environments,
    event_log::SharedLog,
    gateway::Gateway,
    health_monitor::HealthMonitor,
    running::{Running, Under},
    tunnel_ports::TunnelPorts,
    webhooks::Webhooks,
};

/// Facts are read in batches of this many.
const BATCH: usize = 1_000;
/// How many consequences are carried out at once: group commit makes them share their fsyncs.
const AT_ONCE: usize = 64;
/// How often forgotten claims and orphans are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A log in a database may be away for a moment; what it has then says nothing by itself.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the follower works with.
#[derive(Debug)]
pub struct Parts {
    pub log: SharedLog,
    pub clock: SharedClock,
    pub routes: Arc<Routes>,
    pub executor: Executor,
    pub creator: Arc<Creator>,
    pub gateway: Gateway,
    pub tunnel_ports: TunnelPorts,
    pub running: Arc<Running>,
    pub timekeeper: Arc<Timekeeper>,
    pub environments: Arc<Environments>,
    pub health: Arc<HealthMonitor>,
    pub webhooks: Arc<Webhooks>,
}

/// Follows the facts.
#[derive(Debug)]
pub struct Follower {
    parts: Parts,
    /// Every open tunnel's name and agent as of the last fact: a change says only the new ones.
    homes: HashMap<TunnelId, Home>,
    after: u64,
    _fail_fast: FailFast,
}

#[derive(Debug)]
struct Home {
    agent: AgentId,
    name: Name,
    port: u16,
}

/// Something to append because of a fact.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Consequence {
    Confirm { kind: ClaimKind, key: String, holder: String },
    Release { kind: ClaimKind, key: String, holder: String },
    Abandon { kind: ClaimKind, key: String, command_id: Uuid },
    RevokeShare { id: ShareId, reason: RevokeReason },
    DeleteTunnel { id: TunnelId },
    RevokeEnvironment { id: EnvironmentId },
}

/// A consequence, in which workspace, and the event that it follows from.
type Caused = (WorkspaceId, Option<EventId>, Consequence);

impl Follower {
    /// Starts at the head: call it before anything new is appended.
    pub fn new(parts: Parts) -> Self {
        let after = *parts.log.head().borrow();
        let homes = parts
            .routes
            .all_tunnels()
            .into_iter()
            .filter_map(|(id, entry)| {
                let created = &entry.state.open()?.created;
                Some((id, Home::of(created)))
            })
            .collect();
        Self { parts, homes, after, _fail_fast: FailFast("follower") }
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        self.sweep().await;
        let mut head = self.parts.log.head();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.reset();
        loop {
            let is_caught_up = self.catch_up().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(READ_AGAIN_AFTER), if !is_caught_up => {}
                changed = head.changed() => if changed.is_err() { return },
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// `false`: the log could not be read up to its head.
    async fn catch_up(&mut self) -> bool {
        loop {
            let facts = Families::only(Family::Facts);
            let batch = match self.parts.log.read_all(self.after, facts, BATCH).await {
                Ok(batch) => batch,
                Err(error) => {
                    tracing::error!(%error, "facts cannot be read, their consequences wait");
                    return false;
                }
            };
            let Some(last) = batch.last() else { return true };
            let reached = last.position;
            let mut consequences = Vec::new();
            for recorded in &batch {
                // What this build does not know has no consequences here.
                let Ok(event) = recorded.event() else { continue };
                self.parts.routes.apply(recorded, &event);
                self.parts.timekeeper.note(recorded, &event);
                self.act(recorded, &event);
                let found = self.consequences(recorded, &event);
                consequences.extend(found.into_iter().map(|it| (recorded.workspace, Some(recorded.id), it)));
            }
            self.carry_out(consequences).await;
            self.after = reached;
        }
    }

    /// What happens in this process because of a fact, at once.
    fn act(&self, recorded: &Recorded, event: &Event) {
        let Parts { gateway, running, .. } = &self.parts;
        match event {
            Event::Tunnel(event) => {
                let Some(id) = tunnel_of(&recorded.stream) else { return };
                self.act_on_tunnel(id, event);
            }
            Event::Share(share::Event::Revoked(_) | share::Event::Expired(_)) => {
                if let Some(id) = share_of(&recorded.stream) {
                    running.end(Under::Share(id));
                }
            }
            Event::Agent(agent::Event::Connected(connected)) => {
                let (environments, agent) = (Arc::clone(&self.parts.environments), connected.agent_id);
                gateway.spawn(async move { environments.restore(agent).await });
            }
            Event::Environment(environment::Event::Revoked(_) | environment::Event::Expired(_)) => {
                if let Some(id) = environment_of(&recorded.stream) {
                    self.parts.environments.close(id);
                }
            }
            Event::Agent(agent::Event::Deleted(deleted)) => {
                gateway.end(deleted.agent_id, DisconnectReason::Deleted);
                running.end(Under::Agent(deleted.agent_id));
                for id in self.parts.routes.tunnels_of(deleted.agent_id) {
                    self.parts.tunnel_ports.sync(id);
                    running.end(Under::Tunnel(id));
                }
            }
            Event::Workspace(workspace::Event::KeyRevoked(revoked)) => {
                running.end(Under::Key(revoked.key_id));
                gateway.end_by_key(revoked.key_id);
            }
            Event::AgentCommand(agent_command::Event::Queued(queued)) => gateway.order(queued.command_id),
            Event::Webhook(_) => {
                if let Some(id) = webhook_of(&recorded.stream) {
                    self.parts.webhooks.follow(id);
                }
            }
            Event::AgentCommand(_)
            | Event::Message(_)
            | Event::Share(_)
            | Event::Agent(_)
            | Event::Workspace(_)
            | Event::Claim(_)
            | Event::Node(_)
            | Event::Environment(_)
            | Event::Retention(_)
            | Event::Seal(_)
            | Event::Delivery(_)
            | Event::LogFormat(_)
            | Event::Access(_) => {}
        }
    }

    fn act_on_tunnel(&self, id: TunnelId, event: &tunnel::Event) {
        let Parts { gateway, running, .. } = &self.parts;
        match event {
            tunnel::Event::Created(_) => {
                self.parts.tunnel_ports.sync(id);
                // An agent that is away is told when it comes.
                let _ = gateway.assign(id);
            }
            tunnel::Event::Updated(updated) => {
                // What ran to the old place ends; a new name or new metadata disturb nobody.
                let moved = updated.agent_id.is_some() || updated.target.is_some();
                if moved {
                    running.end(Under::Tunnel(id));
                }
                self.parts.tunnel_ports.sync(id);
                if moved || updated.name.is_some() || updated.protocol.is_some() {
                    let _ = gateway.assign(id);
                }
            }
            tunnel::Event::Paused(_) => {
                self.parts.tunnel_ports.sync(id);
                running.end(Under::Tunnel(id));
            }
            tunnel::Event::Resumed(_) => self.parts.tunnel_ports.sync(id),
            tunnel::Event::Expired(_) | tunnel::Event::Deleted(_) => {
                self.parts.tunnel_ports.sync(id);
                running.end(Under::Tunnel(id));
                if let Some(home) = self.homes.get(&id) {
                    gateway.withdraw(home.agent, id);
                }
            }
            tunnel::Event::HealthConfigured(_) => self.parts.health.follow(id),
            tunnel::Event::Connected(_)
            | tunnel::Event::Disconnected(_)
            | tunnel::Event::Healthy(_)
            | tunnel::Event::Unhealthy(_) => {}
        }
    }

    /// What is to be appended because of a fact.
    fn consequences(&mut self, recorded: &Recorded, event: &Event) -> Vec<Consequence> {
        match event {
            Event::Tunnel(event) => match tunnel_of(&recorded.stream) {
                Some(id) => self.of_tunnel(id, recorded.workspace, event),
                None => vec![],
            },
            Event::Share(share::Event::Created(created)) => self.of_new_share(created),
            Event::Share(share::Event::Revoked(_) | share::Event::Expired(_)) => {
                let entry = share_of(&recorded.stream).and_then(|id| self.parts.routes.share(id));
                let created = entry.as_ref().and_then(|entry| entry.state.created.as_ref());
                created
                    .filter(|created| created.slug_chosen)
                    .map(|created| {
                        let (key, holder) = (created.slug.clone(), created.share_id.to_string());
                        Consequence::Release { kind: ClaimKind::Slug, key, holder }
                    })
                    .into_iter()
                    .collect()
            }
            Event::Agent(agent::Event::Deleted(deleted)) => {
                let tunnels = self.parts.routes.tunnels_of(deleted.agent_id);
                let tunnels = tunnels.into_iter().map(|id| Consequence::DeleteTunnel { id });
                let shared = self.environments_of(recorded.workspace, deleted.agent_id);
                tunnels.chain(shared.map(|id| Consequence::RevokeEnvironment { id })).collect()
            }
            Event::Environment(environment::Event::Shared(shared)) => {
                let (key, holder) = (shared.code_hash.clone(), shared.environment_id.to_string());
                vec![Consequence::Confirm { kind: ClaimKind::EnvironmentCode, key, holder }]
            }
            Event::Environment(environment::Event::Revoked(_) | environment::Event::Expired(_)) => {
                let entry = environment_of(&recorded.stream).and_then(|id| self.parts.routes.environment(id));
                let shared = entry.as_ref().and_then(|entry| entry.state.shared.as_ref());
                shared
                    .map(|shared| {
                        let (key, holder) = (shared.code_hash.clone(), shared.environment_id.to_string());
                        Consequence::Release { kind: ClaimKind::EnvironmentCode, key, holder }
                    })
                    .into_iter()
                    .collect()
            }
            Event::AgentCommand(_)
            | Event::Message(_)
            | Event::Agent(_)
            | Event::Workspace(_)
            | Event::Claim(_)
            | Event::Node(_)
            | Event::Environment(_)
            | Event::Retention(_)
            | Event::Seal(_)
            | Event::Webhook(_)
            | Event::Delivery(_)
            | Event::LogFormat(_)
            | Event::Access(_) => vec![],
        }
    }

    fn of_new_share(&self, created: &share::ShareCreated) -> Vec<Consequence> {
        let mut found = Vec::new();
        if created.slug_chosen {
            let (key, holder) = (created.slug.clone(), created.share_id.to_string());
            found.push(Consequence::Confirm { kind: ClaimKind::Slug, key, holder });
        }
        if created.public {
            // A public tunnel has one public URL: its newest.
            let former = creation::former_public_shares(&self.parts.routes, created.tunnel_id);
            let reason = RevokeReason::Requested;
            found.extend(former.into_iter().map(|id| Consequence::RevokeShare { id, reason }));
        }
        found
    }

    fn of_tunnel(&mut self, id: TunnelId, workspace: WorkspaceId, event: &tunnel::Event) -> Vec<Consequence> {
        let holder = id.to_string();
        let name_claim = |name: &Name| (ClaimKind::TunnelName, name_key(workspace, name.as_str()));
        match event {
            tunnel::Event::Created(created) => {
                self.homes.insert(id, Home::of(created));
                let (kind, key) = name_claim(&created.name);
                let port = created.tunnel_port.to_string();
                vec![
                    Consequence::Confirm { kind, key, holder: holder.clone() },
                    Consequence::Confirm { kind: ClaimKind::TunnelPort, key: port, holder },
                ]
            }
            tunnel::Event::Updated(updated) => {
                let mut found = Vec::new();
                let Some(home) = self.homes.get_mut(&id) else { return found };
                if let Some(name) = &updated.name {
                    let (kind, key) = name_claim(name);
                    found.push(Consequence::Confirm { kind, key, holder: holder.clone() });
                    let (kind, key) = name_claim(&std::mem::replace(&mut home.name, name.clone()));
                    found.push(Consequence::Release { kind, key, holder });
                }
                if let Some(agent) = updated.agent_id {
                    let former = std::mem::replace(&mut home.agent, agent);
                    self.parts.gateway.withdraw(former, id);
                }
                if updated.is_public == Some(false)
                    && let Some((id, _)) = public_share(&self.parts.routes, id)
                {
                    found.push(Consequence::RevokeShare { id, reason: RevokeReason::Requested });
                }
                found
            }
            tunnel::Event::Deleted(_) | tunnel::Event::Expired(_) => {
                // The tunnel may have left memory already: what it had is remembered here.
                let home = self.homes.remove(&id);
                let reason = if matches!(event, tunnel::Event::Expired(_)) {
                    RevokeReason::TunnelExpired
                } else {
                    RevokeReason::TunnelDeleted
                };
                let mut found = self.orphans_of(id, reason);
                if let Some(home) = home {
                    let (kind, key) = name_claim(&home.name);
                    found.push(Consequence::Release { kind, key, holder: holder.clone() });
                    let key = home.port.to_string();
                    found.push(Consequence::Release { kind: ClaimKind::TunnelPort, key, holder });
                }
                found
            }
            tunnel::Event::Connected(_)
            | tunnel::Event::Disconnected(_)
            | tunnel::Event::Paused(_)
            | tunnel::Event::Resumed(_)
            | tunnel::Event::HealthConfigured(_)
            | tunnel::Event::Healthy(_)
            | tunnel::Event::Unhealthy(_) => vec![],
        }
    }

    /// The living environment shares of an agent.
    fn environments_of(
        &self,
        workspace: WorkspaceId,
        agent: AgentId,
    ) -> impl Iterator<Item = EnvironmentId> + use<'_> {
        let routes = &self.parts.routes;
        routes.environments_of(workspace).into_iter().filter(move |id| {
            routes.environment(*id).is_some_and(|entry| {
                entry.state.shared.as_ref().is_some_and(|shared| shared.agent_id == agent)
            })
        })
    }

    fn orphans_of(&self, id: TunnelId, reason: RevokeReason) -> Vec<Consequence> {
        let routes = &self.parts.routes;
        let lives = |share: &ShareId| routes.share(*share).is_some_and(|entry| entry.state.ended.is_none());
        let orphans = routes.shares_of(id).into_iter().filter(lives);
        orphans.map(|id| Consequence::RevokeShare { id, reason }).collect()
    }

    async fn carry_out(&self, consequences: Vec<Caused>) {
        stream::iter(consequences)
            .for_each_concurrent(AT_ONCE, |(workspace, cause, consequence)| async move {
                let who = Who { causation: cause, ..Who::hub(workspace, "follower") };
                if let Err(error) = self.append(who, consequence.clone()).await {
                    // The next start's sweep, or the next minute's, finds it again.
                    tracing::warn!(error, ?consequence, "a consequence was not recorded");
                }
            })
            .await;
    }

    async fn append(&self, who: Who, consequence: Consequence) -> Result<(), String> {
        let Parts { executor, creator, .. } = &self.parts;
        match consequence {
            Consequence::Confirm { kind, key, holder } => {
                claims::confirm(executor, who, kind, &key, holder).await
            }
            Consequence::Release { kind, key, holder } => {
                claims::release(creator, who, kind, &key, &holder).await
            }
            Consequence::Abandon { kind, key, command_id } => {
                claims::abandon(creator, who, kind, &key, command_id).await
            }
            Consequence::RevokeShare { id, reason } => {
                let done = executor.share(id, who, share::Command::Revoke { reason }).await;
                done.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
            Consequence::RevokeEnvironment { id } => {
                let reason = environment::RevokeReason::AgentDeleted;
                let done = executor.environment(id, who, environment::Command::Revoke { reason }).await;
                done.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
            Consequence::DeleteTunnel { id } => {
                let command = tunnel::Command::Delete { reason: DeleteReason::AgentDeleted };
                let done = executor.tunnel(id, who, command).await;
                done.map(|_| ()).map_err(|error| format!("{error:?}"))
            }
        }
    }

    /// Children whose parents ended in a former life, or whose end could not be recorded.
    fn orphans(&self) -> Vec<Caused> {
        let routes = &self.parts.routes;
        let mut found = Vec::new();
        for (id, entry) in routes.all_tunnels() {
            let Some(details) = entry.state.open() else { continue };
            if routes.agent(details.created.agent_id).is_some_and(|agent| agent.state.deleted) {
                found.push((details.created.workspace_id, None, Consequence::DeleteTunnel { id }));
            }
        }
        for (id, entry) in routes.all_environments() {
            let Some(shared) = entry.state.shared.as_ref().filter(|_| entry.state.ended.is_none()) else {
                continue;
            };
            if routes.agent(shared.agent_id).is_none_or(|agent| agent.state.deleted) {
                found.push((shared.workspace_id, None, Consequence::RevokeEnvironment { id }));
            }
        }
        for (id, entry) in routes.all_shares() {
            let Some(created) = entry.state.created.as_ref().filter(|_| entry.state.ended.is_none()) else {
                continue;
            };
            if routes.tunnel(created.tunnel_id).is_none_or(|tunnel| tunnel.state.open().is_none()) {
                let reason = RevokeReason::TunnelDeleted;
                found.push((created.workspace_id, None, Consequence::RevokeShare { id, reason }));
            }
        }
        found
    }

    async fn sweep(&self) {
        self.carry_out(self.orphans()).await;
        self.carry_out(claims::forgotten(&self.parts.routes, &self.parts.clock)).await;
    }
}

impl Home {
    fn of(created: &tunnel::TunnelCreated) -> Self {
        Self { agent: created.agent_id, name: created.name.clone(), port: created.tunnel_port }
    }
}

fn tunnel_of(stream: &StreamName) -> Option<TunnelId> {
    stream.as_str().strip_prefix("tunnel-")?.parse().ok()
}

fn environment_of(stream: &StreamName) -> Option<EnvironmentId> {
    stream.as_str().strip_prefix("environment-")?.parse().ok()
}

fn webhook_of(stream: &StreamName) -> Option<WebhookId> {
    stream.as_str().strip_prefix("webhook-")?.parse().ok()
}

fn share_of(stream: &StreamName) -> Option<ShareId> {
    stream.as_str().strip_prefix("share-")?.parse().ok()
}

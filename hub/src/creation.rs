//! Creations that need something unique: claim first, create second, with ids that a repetition finds again.
//!
//! A crash between any two appends leaves at most an unconfirmed claim, which the follower frees after 60 s, or a
//! finished creation, which the repetition of the same command finds.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, sync::Arc};

use domain::{
    claim::{self, ClaimKind, ClaimTaken},
    ids::{AgentId, ShareId, TunnelId, WorkspaceId},
    names::{Description, Name},
    policy::{methods::Method, paths::PathRule, slug},
    recorded::StreamName,
    share::{self, ShareCreated},
    target::{Protocol, Target, default_name, numbered},
    time::Timestamp,
    tunnel::{self, Switch, TunnelCreated, TunnelUpdated},
};
use parking_lot::Mutex;
use projections::routes::Routes;
use uuid::Uuid;

use crate::{
    actors::{Done, ExecuteError, Executor, Who},
    clock::SharedClock,
    secrets::{Secret, SecretKind, Seed, hex, sha256},
    tunnel_ports,
};

mod subdomain;

pub use subdomain::former_public_shares;

/// How many names `postgres`, `postgres-2`, … are tried before the caller is asked for one.
const NAMES_TRIED_MAX: usize = 1_000;
/// How many tunnels can be renamed at the same moment.
const RENAMES_AT_ONCE: usize = 32;
/// How many ports are tried in a row before the hub says that it has none.
const PORTS_TRIED_MAX: usize = 64;

/// The stream that decides who has something.
pub fn claim_stream(kind: ClaimKind, key: &str) -> StreamName {
    StreamName::claim(kind, &hex(&sha256(key.as_bytes())))
}

/// A tunnel's name as it is claimed: names are unique within a workspace only.
pub fn name_key(workspace: WorkspaceId, name: &str) -> String {
    format!("{workspace}/{name}")
}

/// The ports that no tunnel has.
#[derive(Debug)]
pub struct PortPool {
    free: Mutex<BTreeSet<u16>>,
    range: RangeInclusive<u16>,
    bind: IpAddr,
}

impl PortPool {
    /// Every port of the range except those that tunnels have.
    pub fn new(range: RangeInclusive<u16>, bind: IpAddr, taken: impl Iterator<Item = u16>) -> Self {
        let mut free: BTreeSet<u16> = range.clone().collect();
        for port in taken {
            free.remove(&port);
        }
        Self { free: Mutex::new(free), range, bind }
    }
    /// Takes a free port that the system lets us listen on; ports that it refuses stay out until the next start.
    fn take(&self) -> Option<u16> {
        for _ in 0..PORTS_TRIED_MAX {
            let port = self.free.lock().pop_first()?;
            match tunnel_ports::probe(self.bind, port) {
                Ok(()) => return Some(port),
                Err(refused) if refused.is_ours() => {
                    // Another port would be refused as well, and this one may be had later.
                    self.give_back(port);
                    tracing::error!(%refused, "the hub has no room for another tunnel port");
                    return None;
                }
                Err(refused) => {
                    tracing::warn!(%refused, "this tunnel port is skipped until the next start");
                }
            }
        }
        None
    }
    /// Gives a port back.
    pub fn give_back(&self, port: u16) {
        if self.range.contains(&port) {
            self.free.lock().insert(port);
        }
    }
}

/// Why a creation was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateError {
    AgentUnknown(AgentId),
    TunnelUnknown(TunnelId),
    NameTaken(Name),
    /// A hundred tunnels of that kind: name it.
    NamesExhausted,
    PortsExhausted,
    SlugTaken(String),
    SlugQuarantined(Timestamp),
    /// Raw TCP and UDP tunnels cannot be shared by link.
    NotShareable(Protocol),
    Claim(ExecuteError<claim::Rejection>),
    Tunnel(ExecuteError<tunnel::Rejection>),
    Share(ExecuteError<share::Rejection>),
}

/// What a new tunnel shall be.
#[derive(Debug, Clone)]
pub struct NewTunnel {
    pub agent_id: AgentId,
    pub name: Option<Name>,
    pub target: Target,
    pub protocol: Protocol,
    pub is_public: bool,
    pub expires_at: Option<Timestamp>,
}

/// What a new share shall be.
#[derive(Debug, Clone)]
pub struct NewShare {
    pub tunnel_id: TunnelId,
    pub name: Name,
    pub description: Option<Description>,
    pub expires_at: Option<Timestamp>,
    pub allowed_paths: Option<Vec<PathRule>>,
    pub allowed_methods: Option<Vec<Method>>,
    pub rate_limit_per_min: Option<u16>,
    pub subdomain: Option<String>,
    /// The permanent link of a public tunnel.
    pub public: bool,
    pub read_only: bool,
}

/// A share that was made, and its token, which nobody sees again.
#[derive(Debug)]
pub struct NewLink {
    pub id: ShareId,
    pub token: Secret,
    pub slug: String,
    pub done: Done,
}

/// Creates tunnels and shares.
#[derive(Debug)]
pub struct Creator {
    pub executor: Executor,
    pub routes: Arc<Routes>,
    pub clock: SharedClock,
    pub ports: PortPool,
    /// Between the claim of a new name and the change itself the claim is in nobody's use: whoever renames a tunnel, or
    /// frees a name of it, holds its lock. A few locks for all tunnels: bounded, and two that share one wait a moment.
    renaming: [tokio::sync::Mutex<()>; RENAMES_AT_ONCE],
}

impl Creator {
    pub fn new(executor: Executor, routes: Arc<Routes>, clock: SharedClock, ports: PortPool) -> Self {
        Self { executor, routes, clock, ports, renaming: Default::default() }
    }

    /// While this is held the tunnel's name does not change, and none of its names is claimed or freed.
    pub async fn keep_name(&self, id: TunnelId) -> tokio::sync::MutexGuard<'_, ()> {
        // The last bytes of an id are random.
        let place = usize::from(id.uuid().as_bytes()[15]) % RENAMES_AT_ONCE;
        self.renaming[place].lock().await
    }

    /// Creates a tunnel; the answer's tunnel is in `Routes`.
    ///
    /// # Errors
    /// [`CreateError`]; what was claimed is released again.
    pub async fn tunnel(
        &self,
        who: &Who,
        seed: &Seed,
        new: NewTunnel,
    ) -> Result<(TunnelId, Done), CreateError> {
        let now = self.clock.now();
        let id = TunnelId::new(seed.uuid(seed.first_seen().unwrap_or(now), "tunnel"));
        if let Some(known) = self.routes.tunnel(id) {
            return Ok((id, Done { position: 0, revision: known.revision }));
        }
        self.agent_in(who.workspace, new.agent_id)?;
        // Before anything is claimed: what cannot be published is refused without a trace.
        tunnel::check_publishable(new.target.port, new.is_public)
            .map_err(|rejection| CreateError::Tunnel(ExecuteError::Rejected(rejection)))?;
        let command_id = Uuid::from_bytes(*seed.bytes("command").first_chunk().expect("32 bytes"));
        let claim = Claimer { creator: self, who, holder: id.to_string(), command_id };
        let name = claim.name(new.name.as_ref(), &new.target).await?;
        let port = match claim.port().await {
            Ok(port) => port,
            Err(error) => {
                claim.abandon(ClaimKind::TunnelName, &name_key(who.workspace, name.as_str())).await;
                return Err(error);
            }
        };
        let created = TunnelCreated {
            tunnel_id: id,
            workspace_id: who.workspace,
            agent_id: new.agent_id,
            name: name.clone(),
            target: new.target,
            protocol: new.protocol,
            is_public: new.is_public,
            tunnel_port: port,
            expires_at: new.expires_at,
        };
        match self.executor.tunnel(id, who.clone(), tunnel::Command::Create { tunnel: created, now }).await {
            // A repetition of what was created and has ended since: what it claimed anew is nobody's.
            Ok(_) if self.routes.tunnel(id).is_none_or(|entry| entry.state.open().is_none()) => {
                claim.abandon(ClaimKind::TunnelName, &name_key(who.workspace, name.as_str())).await;
                claim.abandon(ClaimKind::TunnelPort, &port.to_string()).await;
                self.ports.give_back(port);
                Err(CreateError::TunnelUnknown(id))
            }
            Ok(done) => Ok((id, done)),
            Err(error) => {
                // In doubt the claims stay: the follower frees them when no tunnel appears.
                if !matches!(error, ExecuteError::InDoubt(_)) {
                    claim.abandon(ClaimKind::TunnelName, &name_key(who.workspace, name.as_str())).await;
                    claim.abandon(ClaimKind::TunnelPort, &port.to_string()).await;
                    self.ports.give_back(port);
                }
                Err(CreateError::Tunnel(error))
            }
        }
    }

    /// Changes a tunnel; a new name is claimed before and the old one freed by the follower.
    ///
    /// # Errors
    /// [`CreateError::NameTaken`] and what the tunnel itself refuses.
    pub async fn update(&self, who: &Who, id: TunnelId, update: TunnelUpdated) -> Result<Done, CreateError> {
        self.change_at(who, id, None, update, None).await
    }

    /// The same together with pausing or resuming it, in one write, and only if the tunnel is at this revision.
    ///
    /// # Errors
    /// As [`Creator::update`], and [`ExecuteError::Changed`].
    pub async fn change_at(
        &self,
        who: &Who,
        id: TunnelId,
        expected: Option<u64>,
        update: TunnelUpdated,
        switch: Option<Switch>,
    ) -> Result<Done, CreateError> {
        let _kept = match &update.name {
            Some(_) => Some(self.keep_name(id).await),
            None => None,
        };
        let current = self.routes.tunnel(id).filter(|entry| entry.state.open().is_some());
        let current = current.ok_or(CreateError::TunnelUnknown(id))?;
        let old = current.state.open().map(|details| details.created.name.clone());
        if let Some(agent_id) = update.agent_id {
            self.agent_in(who.workspace, agent_id)?;
        }
        let renamed = update.name.clone().filter(|name| Some(name) != old.as_ref());
        // Every renaming is a holding of its own: what frees a former one cannot free this.
        let claim = Claimer { creator: self, who, holder: id.to_string(), command_id: Uuid::new_v4() };
        if let Some(name) = &renamed {
            claim.name_again(name).await?;
        }
        let command = tunnel::Command::Change { update, switch };
        let answer = self.executor.tunnel_at(id, who.clone(), expected, command).await;
        if let (Err(error), Some(name)) = (&answer, &renamed)
            && !matches!(error, ExecuteError::InDoubt(_))
        {
            claim.abandon(ClaimKind::TunnelName, &name_key(who.workspace, name.as_str())).await;
        }
        answer.map_err(CreateError::Tunnel)
    }

    /// Creates a share and its token, which nobody sees again.
    ///
    /// # Errors
    /// [`CreateError`]; what was claimed is released again.
    pub async fn share(&self, who: &Who, seed: &Seed, new: NewShare) -> Result<NewLink, CreateError> {
        let id = ShareId::new(seed.uuid(seed.first_seen().unwrap_or_else(|| self.clock.now()), "share"));
        self.share_with_id(who, seed, id, new).await
    }

    /// The permanent link of a public tunnel; nothing new where it has one.
    ///
    /// # Errors
    /// As [`Creator::share`].
    pub async fn public_share(
        &self,
        who: &Who,
        seed: &Seed,
        tunnel_id: TunnelId,
    ) -> Result<Done, CreateError> {
        let entry = self.routes.tunnel(tunnel_id).ok_or(CreateError::TunnelUnknown(tunnel_id))?;
        let details = entry.state.open().ok_or(CreateError::TunnelUnknown(tunnel_id))?;
        let new = subdomain::public_link(tunnel_id, details, None);
        if public_share(&self.routes, tunnel_id).is_some() {
            return Ok(Done { position: 0, revision: entry.revision });
        }
        let at = seed.first_seen().unwrap_or_else(|| self.clock.now());
        let id = ShareId::new(seed.uuid(at, "public-share"));
        Ok(self.share_with_id(who, seed, id, new).await?.done)
    }

    async fn share_with_id(
        &self,
        who: &Who,
        seed: &Seed,
        id: ShareId,
        new: NewShare,
    ) -> Result<NewLink, CreateError> {
        let now = self.clock.now();
        let tunnel = self.routes.tunnel(new.tunnel_id).filter(|entry| {
            entry.state.open().is_some_and(|details| details.created.workspace_id == who.workspace)
        });
        let tunnel = tunnel.ok_or(CreateError::TunnelUnknown(new.tunnel_id))?;
        let details = tunnel.state.open().ok_or(CreateError::TunnelUnknown(new.tunnel_id))?;
        let (protocol, port) = (details.created.protocol, details.created.target.port);
        if domain::target::shareable(protocol, port) == domain::target::Shareable::No {
            return Err(CreateError::NotShareable(protocol));
        }
        let token = seed.secret(SecretKind::ShareToken, "token");
        if let Some(known) = self.routes.share(id) {
            let slug = known.state.created.as_ref().map(|created| created.slug.clone()).unwrap_or_default();
            return Ok(NewLink { id, token, slug, done: Done { position: 0, revision: known.revision } });
        }
        let command_id = Uuid::from_bytes(*seed.bytes("command").first_chunk().expect("32 bytes"));
        let claim = Claimer { creator: self, who, holder: id.to_string(), command_id };
        let slug_chosen = new.subdomain.is_some();
        let slug = match new.subdomain {
            Some(slug) => {
                claim.slug(&slug).await?;
                slug
            }
            // 80 random bits and more: nothing to claim, nothing to guess.
            None => slug::random(*seed.bytes("slug").first_chunk().expect("32 bytes")),
        };
        let created = ShareCreated {
            share_id: id,
            workspace_id: who.workspace,
            tunnel_id: new.tunnel_id,
            name: new.name,
            description: new.description,
            expires_at: new.expires_at,
            allowed_paths: new.allowed_paths,
            allowed_methods: new.allowed_methods,
            rate_limit_per_min: new.rate_limit_per_min,
            slug: slug.clone(),
            slug_chosen,
            public: new.public,
            read_only: new.read_only,
            token_hash: token.digest_hex(),
            token_preview: token.preview(),
        };
        match self.executor.share(id, who.clone(), share::Command::Create { share: created, now }).await {
            Ok(done) => Ok(NewLink { id, token, slug, done }),
            Err(error) => {
                if slug_chosen && !matches!(error, ExecuteError::InDoubt(_)) {
                    claim.abandon(ClaimKind::Slug, &slug).await;
                }
                Err(CreateError::Share(error))
            }
        }
    }

    fn agent_in(&self, workspace: WorkspaceId, id: AgentId) -> Result<(), CreateError> {
        let agent = self.routes.agent(id).filter(|agent| !agent.state.deleted);
        let registered = agent.as_ref().and_then(|agent| agent.state.registered.as_ref());
        match registered {
            Some(registered) if registered.workspace_id == workspace => Ok(()),
            Some(_) | None => Err(CreateError::AgentUnknown(id)),
        }
    }
}

/// The live permanent link of a public tunnel, and its slug.
pub fn public_share(routes: &Routes, tunnel: TunnelId) -> Option<(ShareId, String)> {
    routes.shares_of(tunnel).into_iter().rev().find_map(|id| {
        let entry = routes.share(id)?;
        let created = entry.state.created.as_ref().filter(|_| entry.state.ended.is_none())?;
        created.public.then(|| (id, created.slug.clone()))
    })
}

struct Claimer<'a> {
    creator: &'a Creator,
    who: &'a Who,
    holder: String,
    command_id: Uuid,
}

impl Claimer<'_> {
    async fn take(&self, kind: ClaimKind, key: String) -> Result<Done, ExecuteError<claim::Rejection>> {
        let stream = claim_stream(kind, &key);
        let command = claim::Command::Take { claim: self.claim(kind, key), now: self.creator.clock.now() };
        self.creator.executor.claim(stream, self.who.clone(), command).await
    }

    fn claim(&self, kind: ClaimKind, key: String) -> ClaimTaken {
        ClaimTaken {
            kind,
            key,
            workspace_id: self.who.workspace,
            holder: self.holder.clone(),
            command_id: self.command_id,
        }
    }

    /// Gives back what a failed creation took; what was confirmed meanwhile stays.
    async fn abandon(&self, kind: ClaimKind, key: &str) {
        let command = claim::Command::Abandon { command_id: self.command_id };
        let stream = claim_stream(kind, key);
        if let Err(error) = self.creator.executor.claim(stream, self.who.clone(), command).await {
            // The follower frees unconfirmed claims after a minute.
            tracing::warn!(%error, kind = kind.name(), key, "a claim could not be released at once");
        }
    }

    async fn exact_name(&self, name: &Name) -> Result<(), CreateError> {
        let answer = self.take(ClaimKind::TunnelName, name_key(self.who.workspace, name.as_str())).await;
        named(answer, name)
    }

    /// A name for a tunnel that may have it still: it goes back to its former name before that was freed.
    async fn name_again(&self, name: &Name) -> Result<(), CreateError> {
        let claim = self.claim(ClaimKind::TunnelName, name_key(self.who.workspace, name.as_str()));
        let stream = claim_stream(claim.kind, &claim.key);
        let command = claim::Command::TakeAgain { claim, now: self.creator.clock.now() };
        named(self.creator.executor.claim(stream, self.who.clone(), command).await, name)
    }

    async fn name(&self, asked: Option<&Name>, target: &Target) -> Result<Name, CreateError> {
        if let Some(name) = asked {
            self.exact_name(name).await?;
            return Ok(name.clone());
        }
        let base = default_name(target.port);
        for number in 1..=NAMES_TRIED_MAX {
            let name = numbered(&base, number);
            // A look before the leap saves a thousand appends to streams of others.
            if self.creator.routes.tunnel_named(self.who.workspace, &name).is_some() {
                continue;
            }
            let name = Name::parse(&name).expect("default names are short and plain");
            match self.exact_name(&name).await {
                Ok(()) => return Ok(name),
                Err(CreateError::NameTaken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CreateError::NamesExhausted)
    }

    async fn port(&self) -> Result<u16, CreateError> {
        for _ in 0..PORTS_TRIED_MAX {
            let port = self.creator.ports.take().ok_or(CreateError::PortsExhausted)?;
            match self.take(ClaimKind::TunnelPort, port.to_string()).await {
                Ok(_) => return Ok(port),
                // Another node has it.
                Err(ExecuteError::Rejected(_)) => {}
                Err(error) => {
                    self.creator.ports.give_back(port);
                    return Err(CreateError::Claim(error));
                }
            }
        }
        Err(CreateError::PortsExhausted)
    }

    async fn slug(&self, slug: &str) -> Result<(), CreateError> {
        match self.take(ClaimKind::Slug, slug.to_owned()).await {
            Ok(_) => Ok(()),
            Err(ExecuteError::Rejected(claim::Rejection::ClaimQuarantined { until })) => {
                Err(CreateError::SlugQuarantined(until))
            }
            Err(ExecuteError::Rejected(_)) => Err(CreateError::SlugTaken(slug.to_owned())),
            Err(error) => Err(CreateError::Claim(error)),
        }
    }
}

fn named(answer: Result<Done, ExecuteError<claim::Rejection>>, name: &Name) -> Result<(), CreateError> {
    match answer {
        Ok(_) => Ok(()),
        Err(ExecuteError::Rejected(_)) => Err(CreateError::NameTaken(name.clone())),
        Err(error) => Err(CreateError::Claim(error)),
    }
}

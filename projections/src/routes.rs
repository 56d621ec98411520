//! What request paths read: the current state of everything that somebody decides about, in memory.
//!
//! Whoever decided an event applies it here at once, and a reader applies it again in log order; an entry takes the
//! next revision of its stream and nothing else, so an event seen twice changes nothing and one that came too early
//! waits for the reader. Readers clone an `Arc` out and hold no lock. Whether a share may be used is
//! derived here from share, tunnel, agent, workspace and the caller's clock: nothing waits for a cascade.
//!
//! # What ends leaves
//! Memory is bounded by what is alive: of closed tunnels, ended shares of both kinds and released claims together only the newest
//! [`ENDED_KEPT_MAX`] stay, as whole entries, so that what has just ended is answered as fast and as fully as what
//! lives. Whoever asks for older ones asks the catalog ([`crate::catalog`], SQLite); visitors with unknown tokens do so
//! behind the limits on unknown tokens, so that guessing costs the hub no more than it did.
//!
//! An entry leaves only after the reader in log order has passed its end, and no event that this reader has passed
//! changes anything ever again. So somebody who is behind, or replays a stream, cannot bring back what has left. What
//! stays follows from the log alone: a rebuild keeps what a live hub keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::DashMap;
use domain::{
    access::Denied,
    agent::{self, Agent, Token},
    agent_command::AgentCommand,
    aggregate::Aggregate,
    claim::{self, Claim},
    environment::Environment,
    event::Event,
    ids::{AgentId, CommandId, EnvironmentId, KeyId, MessageId, ShareId, TunnelId, WebhookId, WorkspaceId},
    log_format::LogFormat,
    message::Message,
    node::Node,
    recorded::{Recorded, StreamName},
    share::{Ended, RevokeReason, Share},
    time::Timestamp,
    tunnel::Tunnel,
    webhook::Webhook,
    workspace::{self, Key, Workspace},
};
use parking_lot::Mutex;

mod desk;
mod forgetting;

/// How many closed tunnels, ended shares and released claims are kept, the newest: some megabytes. Long enough that
/// the catalog, which follows within milliseconds, knows whatever has left.
pub const ENDED_KEPT_MAX: usize = 4_096;

mod environments;
mod webhooks;

/// A SHA-256 digest of a secret, by which it is looked up: timing tells nothing about the secret.
pub type Digest = [u8; 32];

/// An aggregate as it stands at a revision.
#[derive(Debug, Clone)]
pub struct Entry<A> {
    pub state: A,
    /// The revision of its stream: the ETag.
    pub revision: u64,
    pub created_at: Timestamp,
    pub changed_at: Timestamp,
}

/// Why a share cannot be used, by what facts and the clock say (whether the agent is connected is asked elsewhere).
pub type Gate = Result<Arc<Entry<Tunnel>>, Denied>;

/// How many entries there are, of what is alive and of what ended lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub tunnels: usize,
    pub shares: usize,
    pub claims: usize,
}

/// Current state, indexed for request paths.
#[derive(Debug, Default)]
pub struct Routes {
    workspaces: DashMap<WorkspaceId, Arc<Entry<Workspace>>>,
    agents: DashMap<AgentId, Arc<Entry<Agent>>>,
    tunnels: DashMap<TunnelId, Arc<Entry<Tunnel>>>,
    shares: DashMap<ShareId, Arc<Entry<Share>>>,
    claims: DashMap<StreamName, Arc<Entry<Claim>>>,
    nodes: DashMap<StreamName, Arc<Entry<Node>>>,
    /// Only ever one.
    formats: DashMap<StreamName, Arc<Entry<LogFormat>>>,
    environments: DashMap<EnvironmentId, Arc<Entry<Environment>>>,
    /// Those that have not ended.
    environments_by_workspace: DashMap<WorkspaceId, BTreeSet<EnvironmentId>>,
    /// Those that have not ended, by the digest of their code.
    environments_by_code: DashMap<(WorkspaceId, Digest), EnvironmentId>,
    /// Those that an agent has joined, lately ended ones too.
    environments_by_joiner: DashMap<AgentId, BTreeSet<EnvironmentId>>,
    keys_by_digest: DashMap<Digest, (WorkspaceId, KeyId)>,
    agents_by_token: DashMap<Digest, AgentId>,
    shares_by_token: DashMap<Digest, ShareId>,
    shares_by_slug: DashMap<String, ShareId>,
    tunnels_by_name: DashMap<(WorkspaceId, String), TunnelId>,
    tunnels_by_agent: DashMap<AgentId, BTreeSet<TunnelId>>,
    shares_by_tunnel: DashMap<TunnelId, BTreeSet<ShareId>>,
    commands: DashMap<CommandId, Arc<Entry<AgentCommand>>>,
    /// Those that wait for their agent, or for what it says.
    commands_by_agent: DashMap<AgentId, BTreeSet<CommandId>>,
    messages: DashMap<MessageId, Arc<Entry<Message>>>,
    /// By the agent that they are for.
    messages_by_agent: DashMap<AgentId, BTreeSet<MessageId>>,
    agents_by_capability: DashMap<(WorkspaceId, String), BTreeSet<AgentId>>,
    webhooks: DashMap<WebhookId, Arc<Entry<Webhook>>>,
    webhooks_by_workspace: DashMap<WorkspaceId, BTreeSet<WebhookId>>,
    /// What has ended and is still here, by the position of its end.
    ended: Mutex<BTreeMap<u64, Gone>>,
    /// Every event below this position was taken in, in log order.
    unread: AtomicU64,
    /// Fewer than [`ENDED_KEPT_MAX`] in tests.
    ended_kept: Option<usize>,
}

/// Something that ended, at which revision of its stream: a claim may have been taken again since.
#[derive(Debug)]
enum Gone {
    Tunnel(TunnelId, u64),
    Share(ShareId, u64),
    Claim(StreamName, u64),
    Command(CommandId),
    Message(MessageId, u64),
    Environment(EnvironmentId, u64),
    Webhook(WebhookId, u64),
}

/// Who brings an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Somebody who knows this stream, and perhaps is ahead of the reader or behind it.
    Any,
    /// The reader, who has brought everything before it: what is missing in between this build does not know.
    Log,
}

/// An event's place, and how it came.
#[derive(Debug, Clone, Copy)]
struct Brought<'a> {
    recorded: &'a Recorded,
    order: Order,
    /// It says everything about what it concerns, whatever was before it: a claim is taken, perhaps after others.
    begins: bool,
}

impl Routes {
    /// Takes in an event from whoever decided or replayed it. Events of other families and events that an entry has
    /// seen already change nothing.
    pub fn apply(&self, recorded: &Recorded, event: &Event) {
        self.take_in(recorded, event, Order::Any);
    }

    /// Takes in the next event of the log, in its order and without a gap; `None` stands for one of an unknown type.
    /// There is one reader that does so.
    pub fn apply_next(&self, recorded: &Recorded, event: Option<&Event>) {
        if let Some(event) = event {
            self.take_in(recorded, event, Order::Log);
        }
        self.unread.fetch_max(recorded.position + 1, Ordering::SeqCst);
        self.forget();
    }

    fn take_in(&self, recorded: &Recorded, event: &Event, order: Order) {
        let brought = Brought { recorded, order, begins: false };
        match event {
            Event::Workspace(event) => self.apply_workspace(brought, event),
            Event::Agent(event) => self.apply_agent(brought, event),
            Event::Tunnel(event) => self.apply_tunnel(brought, event),
            Event::Share(event) => self.apply_share(brought, event),
            Event::Claim(event) => {
                let brought = Brought { begins: matches!(event, claim::Event::Taken(_)), ..brought };
                self.fold(&self.claims, recorded.stream.clone(), brought, event, |_, after| {
                    if after.holder().is_none() {
                        self.note_end(recorded, Gone::Claim(recorded.stream.clone(), recorded.revision));
                    }
                });
            }
            Event::Node(event) => {
                self.fold(&self.nodes, recorded.stream.clone(), brought, event, |_, _| {});
            }
            Event::LogFormat(event) => {
                self.fold(&self.formats, recorded.stream.clone(), brought, event, |_, _| {});
            }
            Event::AgentCommand(event) => self.apply_command(brought, event),
            Event::Message(event) => self.apply_message(brought, event),
            Event::Environment(event) => self.apply_environment(brought, event),
            Event::Webhook(event) => self.apply_webhook(brought, event),
            Event::Access(_) | Event::Retention(_) | Event::Seal(_) | Event::Delivery(_) => {}
        }
    }

    fn note_end(&self, recorded: &Recorded, gone: Gone) {
        self.ended.lock().insert(recorded.position, gone);
    }

    /// How many tunnels, shares and claims are in memory, for metrics and tests.
    pub fn held(&self) -> Held {
        Held { tunnels: self.tunnels.len(), shares: self.shares.len(), claims: self.claims.len() }
    }

    pub fn workspace(&self, id: WorkspaceId) -> Option<Arc<Entry<Workspace>>> {
        self.workspaces.get(&id).map(|entry| Arc::clone(&entry))
    }
    pub fn agent(&self, id: AgentId) -> Option<Arc<Entry<Agent>>> {
        self.agents.get(&id).map(|entry| Arc::clone(&entry))
    }
    pub fn tunnel(&self, id: TunnelId) -> Option<Arc<Entry<Tunnel>>> {
        self.tunnels.get(&id).map(|entry| Arc::clone(&entry))
    }
    pub fn share(&self, id: ShareId) -> Option<Arc<Entry<Share>>> {
        self.shares.get(&id).map(|entry| Arc::clone(&entry))
    }
    pub fn claim(&self, stream: &StreamName) -> Option<Arc<Entry<Claim>>> {
        self.claims.get(stream).map(|entry| Arc::clone(&entry))
    }
    pub fn node(&self, stream: &StreamName) -> Option<Arc<Entry<Node>>> {
        self.nodes.get(stream).map(|entry| Arc::clone(&entry))
    }
    /// The stream of every node that ever started.
    pub fn nodes(&self) -> Vec<StreamName> {
        self.nodes.iter().map(|entry| entry.key().clone()).collect()
    }
    /// In which format the log is written.
    pub fn log_format(&self) -> LogFormat {
        self.formats.get(&StreamName::log_format()).map(|entry| entry.state.clone()).unwrap_or_default()
    }
    /// Every workspace, for the operator's list and for start-up.
    pub fn workspaces(&self) -> Vec<(WorkspaceId, Arc<Entry<Workspace>>)> {
        self.workspaces.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// The open tunnels of an agent.
    pub fn tunnels_of(&self, agent: AgentId) -> Vec<TunnelId> {
        self.tunnels_by_agent.get(&agent).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }
    /// Every share of a tunnel, lately ended ones too.
    pub fn shares_of(&self, tunnel: TunnelId) -> Vec<ShareId> {
        self.shares_by_tunnel.get(&tunnel).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }
    /// The open tunnel of that name.
    pub fn tunnel_named(&self, workspace: WorkspaceId, name: &str) -> Option<TunnelId> {
        self.tunnels_by_name.get(&(workspace, name.to_owned())).map(|id| *id)
    }
    /// Every tunnel that is open or closed lately: for start-up and sweeps, not for request paths.
    pub fn all_tunnels(&self) -> Vec<(TunnelId, Arc<Entry<Tunnel>>)> {
        self.tunnels.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every share that lives or ended lately: for start-up and sweeps, not for request paths.
    pub fn all_shares(&self) -> Vec<(ShareId, Arc<Entry<Share>>)> {
        self.shares.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every agent: for start-up and sweeps, not for request paths.
    pub fn all_agents(&self) -> Vec<(AgentId, Arc<Entry<Agent>>)> {
        self.agents.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every claim that is held or was released lately: for start-up and sweeps, not for request paths.
    pub fn all_claims(&self) -> Vec<(StreamName, Arc<Entry<Claim>>)> {
        self.claims.iter().map(|entry| (entry.key().clone(), Arc::clone(entry.value()))).collect()
    }

    /// The key whose secret has this digest, while it may be used.
    pub fn key(&self, digest: &Digest, now: Timestamp) -> Option<(WorkspaceId, Key)> {
        let (workspace, id) = self.keys_by_digest.get(digest).map(|found| *found)?;
        let key = self.workspace(workspace)?.state.keys.get(&id)?.clone();
        usable(&key, now).then_some((workspace, key))
    }

    /// The agent whose token has this digest, while the token, and the key behind it, may be used.
    pub fn agent_by_token(&self, digest: &Digest, now: Timestamp) -> Option<(AgentId, Arc<Entry<Agent>>)> {
        let id = self.agents_by_token.get(digest).map(|found| *found)?;
        let agent = self.agent(id)?;
        let token =
            agent.state.tokens.iter().find(|token| unhex(&token.token_hash) == Some(*digest))?.clone();
        self.token_holds(&agent.state, &token, now).then_some((id, agent))
    }

    /// Whether an agent's token still opens sessions: not ended, agent not deleted, its key neither revoked nor expired.
    pub fn token_holds(&self, agent: &Agent, token: &Token, now: Timestamp) -> bool {
        let Some(registered) = &agent.registered else { return false };
        if agent.deleted || token.expires_at <= now || !agent.tokens.contains(token) {
            return false;
        }
        let Some(key_id) = token.key_id else { return true };
        self.workspace(registered.workspace_id)
            .and_then(|workspace| workspace.state.keys.get(&key_id).map(|key| usable(key, now)))
            .unwrap_or(false)
    }

    /// The share whose token has this digest, lately ended ones too: what it answers is decided by [`Routes::gate`].
    pub fn share_by_token(&self, digest: &Digest) -> Option<(ShareId, Arc<Entry<Share>>)> {
        let id = self.shares_by_token.get(digest).map(|found| *found)?;
        Some((id, self.share(id)?))
    }

    /// The share that answers under a slug, lately ended ones too. Slugs are lower-case.
    pub fn share_by_slug(&self, slug: &str) -> Option<(ShareId, Arc<Entry<Share>>)> {
        let id = self.shares_by_slug.get(slug).map(|found| *found)?;
        Some((id, self.share(id)?))
    }

    /// Whether a share may be used now, in the order of product.md section 3: revoked, expired, tunnel.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn gate(&self, share: &Share, now: Timestamp) -> Gate {
        let created = share.created.as_ref().ok_or(Denied::TunnelGone)?;
        match &share.ended {
            Some(Ended::Revoked { reason: RevokeReason::Requested }) => return Err(Denied::ShareRevoked),
            Some(Ended::Revoked { reason: RevokeReason::TunnelDeleted | RevokeReason::TunnelExpired }) => {
                return Err(Denied::ShareRevoked);
            }
            Some(Ended::Expired) => return Err(Denied::ShareExpired),
            None => {}
        }
        if created.expires_at.is_some_and(|at| at <= now) {
            return Err(Denied::ShareExpired);
        }
        self.tunnel_gate(created.tunnel_id, now)
    }

    /// Whether a tunnel takes new streams now: exists, not ended, not paused, its agent not deleted.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn tunnel_gate(&self, tunnel: TunnelId, now: Timestamp) -> Gate {
        let entry = self.tunnel(tunnel).ok_or(Denied::TunnelGone)?;
        let details = entry.state.open().ok_or(Denied::TunnelGone)?;
        if details.created.expires_at.is_some_and(|at| at <= now) {
            return Err(Denied::TunnelGone);
        }
        // Before "paused": what lasts for ever is the better answer.
        if self.agent(details.created.agent_id).is_none_or(|agent| agent.state.deleted) {
            return Err(Denied::TunnelGone);
        }
        if details.paused {
            return Err(Denied::TunnelPaused);
        }
        Ok(entry)
    }

    fn apply_workspace(&self, brought: Brought<'_>, event: &workspace::Event) {
        let recorded = brought.recorded;
        self.fold(&self.workspaces, recorded.workspace, brought, event, |_, _| {
            if let workspace::Event::KeyCreated(created) = event
                && let Some(digest) = unhex(&created.key_hash)
            {
                self.keys_by_digest.insert(digest, (recorded.workspace, created.key_id));
            }
        });
    }

    fn apply_agent(&self, brought: Brought<'_>, event: &agent::Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of(&recorded.stream, "agent-") else { return };
        self.fold(&self.agents, id, brought, event, |before: Option<&Agent>, after| {
            // Only tokens that can still be good stay in the index.
            for token in before.iter().flat_map(|agent| &agent.tokens) {
                if !after.tokens.iter().any(|kept| kept.token_hash == token.token_hash)
                    && let Some(digest) = unhex(&token.token_hash)
                {
                    self.agents_by_token.remove_if(&digest, |_, holder| *holder == id);
                }
            }
            for digest in after.tokens.iter().filter_map(|token| unhex(&token.token_hash)) {
                self.agents_by_token.insert(digest, id);
            }
            self.index_capabilities(id, before, after);
        });
    }

    fn apply_tunnel(&self, brought: Brought<'_>, event: &domain::tunnel::Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of(&recorded.stream, "tunnel-") else { return };
        self.fold(&self.tunnels, id, brought, event, |before: Option<&Tunnel>, after| {
            if let Some(was) = before.and_then(Tunnel::open) {
                let name = (was.created.workspace_id, was.created.name.as_str().to_owned());
                self.tunnels_by_name.remove_if(&name, |_, holder| *holder == id);
                if let Some(mut tunnels) = self.tunnels_by_agent.get_mut(&was.created.agent_id) {
                    tunnels.remove(&id);
                }
                self.tunnels_by_agent.remove_if(&was.created.agent_id, |_, tunnels| tunnels.is_empty());
            }
            if matches!(after, Tunnel::Closed(_)) {
                self.note_end(recorded, Gone::Tunnel(id, recorded.revision));
            }
            if let Some(now) = after.open() {
                let name = (now.created.workspace_id, now.created.name.as_str().to_owned());
                self.tunnels_by_name.insert(name, id);
                self.tunnels_by_agent.entry(now.created.agent_id).or_default().insert(id);
            }
        });
    }

    fn apply_share(&self, brought: Brought<'_>, event: &domain::share::Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of(&recorded.stream, "share-") else { return };
        self.fold(&self.shares, id, brought, event, |_, after| {
            if let domain::share::Event::Created(created) = event {
                if let Some(digest) = unhex(&created.token_hash) {
                    self.shares_by_token.insert(digest, id);
                }
                self.shares_by_slug.insert(created.slug.clone(), id);
                self.shares_by_tunnel.entry(created.tunnel_id).or_default().insert(id);
            }
            if after.ended.is_some() {
                self.note_end(recorded, Gone::Share(id, recorded.revision));
            }
        });
    }

    /// Replaces an entry by its successor and lets `index` follow; an event that is not the entry's next changes
    /// nothing.
    fn fold<K: Eq + Hash, A: Aggregate>(
        &self,
        entries: &DashMap<K, Arc<Entry<A>>>,
        key: K,
        Brought { recorded, order, begins }: Brought<'_>,
        event: &A::Event,
        index: impl FnOnce(Option<&A>, &A),
    ) {
        // The map's shard stays locked over the fold and the index, so that of two appliers neither takes the other's
        // predecessor nor leaves the index of an older state behind. Nobody holds an index while he asks for an entry.
        let slot = entries.entry(key);
        let before = match &slot {
            dashmap::Entry::Occupied(found) => Some(Arc::clone(found.get())),
            dashmap::Entry::Vacant(_) => None,
        };
        // What the reader has passed is here, or has ended and left. Asked after the look at the entry: an entry leaves
        // only once the reader has passed its end.
        if recorded.position < self.unread.load(Ordering::SeqCst) {
            return;
        }
        let known = before.as_ref().map_or(0, |entry| entry.revision);
        let fits = match order {
            // A gap means that somebody applied what he decided before this node had read what came before it. Taking
            // it would lose the events between for ever; the reader brings them all, in order.
            Order::Any => recorded.revision == known + 1 || (begins && before.is_none()),
            // A gap means events of a type that this build does not know. What follows them still holds: a share whose
            // label was changed in an unknown way and that was revoked afterwards is revoked.
            Order::Log => recorded.revision > known,
        };
        if !fits {
            return;
        }
        let mut state = before.as_ref().map(|entry| entry.state.clone()).unwrap_or_default();
        state.evolve(event);
        index(before.as_ref().map(|entry| &entry.state), &state);
        slot.insert(Arc::new(Entry {
            state,
            revision: recorded.revision,
            created_at: match &before {
                Some(entry) if !begins => entry.created_at,
                Some(_) | None => recorded.recorded_at,
            },
            changed_at: recorded.recorded_at,
        }));
    }
}

/// Whether a key may be used at a moment.
pub fn usable(key: &Key, now: Timestamp) -> bool {
    !key.revoked && key.created.expires_at.is_none_or(|at| at > now)
}

pub(crate) fn id_of<T: std::str::FromStr>(stream: &StreamName, prefix: &str) -> Option<T> {
    stream.as_str().strip_prefix(prefix)?.parse().ok()
}

/// The digest behind its lower-case hex form.
pub fn unhex(text: &str) -> Option<Digest> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let nibble = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;

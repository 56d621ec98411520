//! What request paths read: the current state of every workspace, agent, tunnel, share and claim, in memory.
//!
//! Whoever decided an event applies it here at once, and a reader applies it again in log order; an entry takes the
//! next revision of its stream and nothing else, so an event seen twice changes nothing and one that came too early
//! waits for the reader. Readers clone an `Arc` out and hold no lock. Whether a share may be used is
//! derived here from share, tunnel, agent, workspace and the caller's clock: nothing waits for a cascade.

use std::{collections::BTreeSet, hash::Hash, sync::Arc};

use dashmap::DashMap;
use domain::{
    access::Denied,
    agent::{self, Agent, Token},
    aggregate::Aggregate,
    claim::Claim,
    event::Event,
    ids::{AgentId, KeyId, ShareId, TunnelId, WorkspaceId},
    node::Node,
    recorded::{Recorded, StreamName},
    share::{Ended, RevokeReason, Share},
    time::Timestamp,
    tunnel::Tunnel,
    workspace::{self, Key, Workspace},
};

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

/// Current state, indexed for request paths.
#[derive(Debug, Default)]
pub struct Routes {
    workspaces: DashMap<WorkspaceId, Arc<Entry<Workspace>>>,
    agents: DashMap<AgentId, Arc<Entry<Agent>>>,
    tunnels: DashMap<TunnelId, Arc<Entry<Tunnel>>>,
    shares: DashMap<ShareId, Arc<Entry<Share>>>,
    claims: DashMap<StreamName, Arc<Entry<Claim>>>,
    nodes: DashMap<StreamName, Arc<Entry<Node>>>,
    keys_by_digest: DashMap<Digest, (WorkspaceId, KeyId)>,
    agents_by_token: DashMap<Digest, AgentId>,
    shares_by_token: DashMap<Digest, ShareId>,
    shares_by_slug: DashMap<String, ShareId>,
    tunnels_by_name: DashMap<(WorkspaceId, String), TunnelId>,
    tunnels_by_agent: DashMap<AgentId, BTreeSet<TunnelId>>,
    shares_by_tunnel: DashMap<TunnelId, BTreeSet<ShareId>>,
}

impl Routes {
    /// Takes in an event. Events of other families and events that an entry has seen already change nothing.
    pub fn apply(&self, recorded: &Recorded, event: &Event) {
        match event {
            Event::Workspace(event) => self.apply_workspace(recorded, event),
            Event::Agent(event) => self.apply_agent(recorded, event),
            Event::Tunnel(event) => self.apply_tunnel(recorded, event),
            Event::Share(event) => self.apply_share(recorded, event),
            Event::Claim(event) => {
                fold(&self.claims, recorded.stream.clone(), recorded, event, |_, _| {});
            }
            Event::Node(event) => {
                fold(&self.nodes, recorded.stream.clone(), recorded, event, |_, _| {});
            }
            Event::Access(_) => {}
        }
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
    /// Every workspace, for the operator's list and for start-up.
    pub fn workspaces(&self) -> Vec<(WorkspaceId, Arc<Entry<Workspace>>)> {
        self.workspaces.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// The open tunnels of an agent.
    pub fn tunnels_of(&self, agent: AgentId) -> Vec<TunnelId> {
        self.tunnels_by_agent.get(&agent).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }
    /// Every share of a tunnel, ended ones too.
    pub fn shares_of(&self, tunnel: TunnelId) -> Vec<ShareId> {
        self.shares_by_tunnel.get(&tunnel).map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }
    /// The open tunnel of that name.
    pub fn tunnel_named(&self, workspace: WorkspaceId, name: &str) -> Option<TunnelId> {
        self.tunnels_by_name.get(&(workspace, name.to_owned())).map(|id| *id)
    }
    /// Every tunnel, open or closed: for start-up and sweeps, not for request paths.
    pub fn all_tunnels(&self) -> Vec<(TunnelId, Arc<Entry<Tunnel>>)> {
        self.tunnels.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every share: for start-up and sweeps, not for request paths.
    pub fn all_shares(&self) -> Vec<(ShareId, Arc<Entry<Share>>)> {
        self.shares.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every agent: for start-up and sweeps, not for request paths.
    pub fn all_agents(&self) -> Vec<(AgentId, Arc<Entry<Agent>>)> {
        self.agents.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }
    /// Every claim: for start-up and sweeps, not for request paths.
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

    /// Whether an agent's token still opens sessions: not ended, agent not deleted, its key not revoked. A key that
    /// merely expired does not end the tokens that it once asked for: they have an end of their own.
    pub fn token_holds(&self, agent: &Agent, token: &Token, now: Timestamp) -> bool {
        let Some(registered) = &agent.registered else { return false };
        if agent.deleted || token.expires_at <= now || !agent.tokens.contains(token) {
            return false;
        }
        let Some(key_id) = token.key_id else { return true };
        self.workspace(registered.workspace_id)
            .and_then(|workspace| workspace.state.keys.get(&key_id).map(|key| !key.revoked))
            .unwrap_or(false)
    }

    /// The share whose token has this digest, ended ones too: what it answers is decided by [`Routes::gate`].
    pub fn share_by_token(&self, digest: &Digest) -> Option<(ShareId, Arc<Entry<Share>>)> {
        let id = self.shares_by_token.get(digest).map(|found| *found)?;
        Some((id, self.share(id)?))
    }

    /// The share that answers under a slug, ended ones too. Slugs are lower-case.
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

    fn apply_workspace(&self, recorded: &Recorded, event: &workspace::Event) {
        fold(&self.workspaces, recorded.workspace, recorded, event, |_, _| {
            if let workspace::Event::KeyCreated(created) = event
                && let Some(digest) = unhex(&created.key_hash)
            {
                self.keys_by_digest.insert(digest, (recorded.workspace, created.key_id));
            }
        });
    }

    fn apply_agent(&self, recorded: &Recorded, event: &agent::Event) {
        let Some(id) = id_of(&recorded.stream, "agent-") else { return };
        fold(&self.agents, id, recorded, event, |before: Option<&Agent>, after| {
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
        });
    }

    fn apply_tunnel(&self, recorded: &Recorded, event: &domain::tunnel::Event) {
        let Some(id) = id_of(&recorded.stream, "tunnel-") else { return };
        fold(&self.tunnels, id, recorded, event, |before: Option<&Tunnel>, after| {
            if let Some(was) = before.and_then(Tunnel::open) {
                let name = (was.created.workspace_id, was.created.name.as_str().to_owned());
                self.tunnels_by_name.remove_if(&name, |_, holder| *holder == id);
                if let Some(mut tunnels) = self.tunnels_by_agent.get_mut(&was.created.agent_id) {
                    tunnels.remove(&id);
                }
            }
            if let Some(now) = after.open() {
                let name = (now.created.workspace_id, now.created.name.as_str().to_owned());
                self.tunnels_by_name.insert(name, id);
                self.tunnels_by_agent.entry(now.created.agent_id).or_default().insert(id);
            }
        });
    }

    fn apply_share(&self, recorded: &Recorded, event: &domain::share::Event) {
        let Some(id) = id_of(&recorded.stream, "share-") else { return };
        fold(&self.shares, id, recorded, event, |_, _| {
            if let domain::share::Event::Created(created) = event {
                if let Some(digest) = unhex(&created.token_hash) {
                    self.shares_by_token.insert(digest, id);
                }
                self.shares_by_slug.insert(created.slug.clone(), id);
                self.shares_by_tunnel.entry(created.tunnel_id).or_default().insert(id);
            }
        });
    }
}

/// Whether a key may be used at a moment.
pub fn usable(key: &Key, now: Timestamp) -> bool {
    !key.revoked && key.created.expires_at.is_none_or(|at| at > now)
}

/// Replaces an entry by its successor and lets `index` follow; an event that is not the entry's next changes nothing.
fn fold<K: Eq + Hash, A: Aggregate>(
    entries: &DashMap<K, Arc<Entry<A>>>,
    key: K,
    recorded: &Recorded,
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
    // A gap means that somebody applied what he decided before this node had read what came before it. Taking it
    // would lose the events between for ever; the reader brings them all, in order.
    if recorded.revision != before.as_ref().map_or(0, |entry| entry.revision) + 1 {
        return;
    }
    let mut state = before.as_ref().map(|entry| entry.state.clone()).unwrap_or_default();
    state.evolve(event);
    index(before.as_ref().map(|entry| &entry.state), &state);
    slot.insert(Arc::new(Entry {
        state,
        revision: recorded.revision,
        created_at: before.as_ref().map_or(recorded.recorded_at, |entry| entry.created_at),
        changed_at: recorded.recorded_at,
    }));
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

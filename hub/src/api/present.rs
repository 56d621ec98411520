//! What the hub knows → what the API shows.

use domain::{
    access::Denied,
    ids::{AgentId, ShareId, TunnelId, WorkspaceId},
    policy::{methods::Method, paths::PathRule},
    share::{Ended, Share as ShareState},
    time::Timestamp,
    tunnel::{Condition, Details, Outage},
    workspace::Key as KeyState,
};
use projections::{
    access_log::{AccessRow, ShareTotals, TunnelTotals},
    catalog::ShareRow,
    routes::{Entry, Routes},
};
use schemas::rest;

use super::{Ports, error::ApiError, lists};
use crate::{creation::public_share, links::Links};

fn moment(at: Timestamp) -> String {
    at.to_string()
}

/// What things look like: as they are, or as facts had them at a moment of the past.
#[derive(Clone, Copy)]
pub enum Scene<'a> {
    Now(&'a Ports),
    Then(&'a Ports, &'a crate::history::Past),
}

impl Scene<'_> {
    fn routes(&self) -> &Routes {
        match self {
            Self::Now(ports) => &ports.routes,
            Self::Then(_, past) => &past.routes,
        }
    }
    fn links(&self) -> &Links {
        match self {
            Self::Now(ports) | Self::Then(ports, _) => &ports.links,
        }
    }
    fn time(&self) -> Timestamp {
        match self {
            Self::Now(ports) => ports.clock.now(),
            Self::Then(_, past) => past.moment.at,
        }
    }
    fn is_connected(&self, agent: AgentId) -> bool {
        match self {
            Self::Now(ports) => ports.gateway.is_connected(agent),
            Self::Then(_, past) => past.connected_at(agent).is_some(),
        }
    }
    fn connected_at(&self, agent: AgentId) -> Option<Timestamp> {
        match self {
            Self::Now(ports) => ports.gateway.online_agent(agent).map(|session| session.connected_at),
            Self::Then(_, past) => past.connected_at(agent),
        }
    }
}

/// The status word and the reason behind `error`.
fn status(scene: Scene<'_>, details: &Details) -> (&'static str, Option<String>) {
    if details.paused {
        return ("paused", None);
    }
    let online = scene.is_connected(details.created.agent_id);
    match &details.condition {
        Condition::Connected(_) if online => ("active", None),
        Condition::Failed(Outage::TargetUnreachable(words)) if online => {
            ("error", Some(format!("the agent cannot reach the target: {words}")))
        }
        Condition::Failed(Outage::TargetRefused(words)) if online => {
            ("error", Some(format!("the agent's owner does not allow this target: {words}")))
        }
        Condition::Connecting | Condition::Connected(_) | Condition::Failed(_) => ("connecting", None),
    }
}

/// The URL under which everybody reaches a public tunnel.
fn public_url(scene: Scene<'_>, id: TunnelId, details: &Details) -> Option<String> {
    if !details.created.is_public {
        return None;
    }
    public_share(scene.routes(), id).map(|(_, slug)| scene.links().slug(&slug))
}

/// A tunnel, field by field as seed 004 shows it; `None` when it is closed.
///
/// # Errors
/// 500 when the access view cannot be read.
pub fn tunnel(
    ports: &Ports,
    id: TunnelId,
    entry: &Entry<domain::tunnel::Tunnel>,
) -> Result<Option<rest::Tunnel>, ApiError> {
    let Some(details) = entry.state.open() else { return Ok(None) };
    let carried = lists::view(ports.accesses.carried_by(details.created.workspace_id, &[id]))?;
    Ok(open_tunnel(Scene::Now(ports), id, entry, carried.first().copied().unwrap_or_default()))
}

/// Tunnels of one workspace, in their order; closed ones are left out.
///
/// # Errors
/// 500 when the access view cannot be read.
pub fn tunnels(
    ports: &Ports,
    workspace: WorkspaceId,
    ids: &[TunnelId],
) -> Result<Vec<rest::Tunnel>, ApiError> {
    let carried = lists::view(ports.accesses.carried_by(workspace, ids))?;
    let entries = ids.iter().zip(carried).filter_map(|(id, it)| Some((*id, ports.routes.tunnel(*id)?, it)));
    Ok(entries.filter_map(|(id, entry, it)| open_tunnel(Scene::Now(ports), id, &entry, it)).collect())
}

/// A tunnel as a scene has it, with what it carried; `None` when it is closed.
pub fn open_tunnel(
    scene: Scene<'_>,
    id: TunnelId,
    entry: &Entry<domain::tunnel::Tunnel>,
    carried: TunnelTotals,
) -> Option<rest::Tunnel> {
    let details = entry.state.open()?;
    let (status, status_reason) = status(scene, details);
    let created = &details.created;
    Some(rest::Tunnel {
        id: id.to_string(),
        name: created.name.to_string(),
        agent_id: created.agent_id.to_string(),
        target_host: created.target.host.clone(),
        target_port: created.target.port,
        tunnel_port: created.tunnel_port,
        protocol: created.protocol.name().to_owned(),
        status: status.to_owned(),
        status_reason,
        is_public: created.is_public,
        public_url: public_url(scene, id, details),
        metadata: details.metadata.clone(),
        created_at: moment(entry.created_at),
        expires_at: created.expires_at.map(moment),
        last_activity_at: carried.last_activity_at.map(moment),
        connection_count: carried.connections,
        bytes_in: carried.bytes_in,
        bytes_out: carried.bytes_out,
    })
}

/// A share as lists show it: never its token.
///
/// # Errors
/// 500 when the access view cannot be read.
pub fn share(ports: &Ports, id: ShareId, entry: &Entry<ShareState>) -> Result<Option<rest::Share>, ApiError> {
    let Some(created) = &entry.state.created else { return Ok(None) };
    let totals = lists::view(ports.accesses.totals(created.workspace_id, id))?;
    Ok(counted_share(Scene::Now(ports), id, entry, totals))
}

/// Shares of one workspace, in their order: as they are now, and those that ended long ago as the catalog says.
///
/// # Errors
/// 500 when the access view cannot be read.
pub fn shares(
    ports: &Ports,
    workspace: WorkspaceId,
    rows: &[ShareRow],
) -> Result<Vec<rest::Share>, ApiError> {
    let ids: Vec<ShareId> = rows.iter().map(|row| row.id).collect();
    let totals = lists::view(ports.accesses.totals_of(workspace, &ids))?;
    let shown = rows.iter().zip(totals).filter_map(|(row, totals)| match ports.routes.share(row.id) {
        Some(entry) => counted_share(Scene::Now(ports), row.id, &entry, totals),
        None => Some(counted_former(row, totals)),
    });
    Ok(shown.collect())
}

/// A share that ended long ago.
///
/// # Errors
/// 500 when the access view cannot be read.
pub fn former_share(ports: &Ports, workspace: WorkspaceId, row: &ShareRow) -> Result<rest::Share, ApiError> {
    Ok(counted_former(row, lists::view(ports.accesses.totals(workspace, row.id))?))
}

fn counted_former(row: &ShareRow, totals: ShareTotals) -> rest::Share {
    let texts = |rules: &Vec<PathRule>| rules.iter().map(|rule| rule.as_str().to_owned()).collect();
    let names = |methods: &Vec<Method>| methods.iter().map(|method| method.name().to_owned()).collect();
    rest::Share {
        id: row.id.to_string(),
        tunnel_id: row.tunnel_id.to_string(),
        name: row.name.clone(),
        description: row.description.clone(),
        expires_at: row.expires_at.map(moment),
        revoked_at: row.revoked_at.map(moment),
        created_at: moment(row.created_at),
        last_accessed_at: totals.last_accessed_at.map(moment),
        access_count: totals.accesses,
        is_active: row.active,
        token_preview: row.token_preview.clone(),
        allowed_paths: row.allowed_paths.as_ref().map(texts),
        allowed_methods: row.allowed_methods.as_ref().map(names),
        rate_limit_per_min: row.rate_limit_per_min,
        read_only: row.read_only,
        subdomain: row.slug.clone(),
    }
}

/// A share as a scene has it, with how it was used.
pub fn counted_share(
    scene: Scene<'_>,
    id: ShareId,
    entry: &Entry<ShareState>,
    totals: ShareTotals,
) -> Option<rest::Share> {
    let created = entry.state.created.as_ref()?;
    // A pause or an absent agent passes; these do not.
    let over = [Denied::ShareRevoked, Denied::ShareExpired, Denied::TunnelGone];
    let gate = scene.routes().gate(&entry.state, scene.time());
    let revoked_at =
        matches!(entry.state.ended, Some(Ended::Revoked { .. })).then(|| moment(entry.changed_at));
    Some(rest::Share {
        id: id.to_string(),
        tunnel_id: created.tunnel_id.to_string(),
        name: created.name.to_string(),
        description: created.description.as_ref().map(|text| text.as_str().to_owned()),
        expires_at: created.expires_at.map(moment),
        revoked_at,
        created_at: moment(entry.created_at),
        last_accessed_at: totals.last_accessed_at.map(moment),
        access_count: totals.accesses,
        is_active: !gate.is_err_and(|denied| over.contains(&denied)),
        token_preview: created.token_preview.clone(),
        allowed_paths: created
            .allowed_paths
            .as_ref()
            .map(|rules| rules.iter().map(|rule| rule.as_str().to_owned()).collect()),
        allowed_methods: created
            .allowed_methods
            .as_ref()
            .map(|methods| methods.iter().map(|method| method.name().to_owned()).collect()),
        rate_limit_per_min: created.rate_limit_per_min,
        read_only: created.read_only,
        subdomain: created.slug.clone(),
    })
}

/// An access; what was erased shows as null.
pub fn access(row: &AccessRow) -> rest::AccessEntry {
    let visitor = row.visitor.as_ref();
    rest::AccessEntry {
        id: format!("{}.{}", row.event_id, row.index),
        share_id: row.share_id.to_string(),
        accessed_at: moment(row.accessed_at),
        ip_address: visitor.map(|visitor| visitor.ip.clone()),
        user_agent: visitor.and_then(|visitor| visitor.user_agent.clone()),
        path: visitor.map(|visitor| visitor.path.clone()),
        method: row.method.clone(),
        status_code: row.status_code,
        latency_ms: u64::from(row.latency_ms),
        bytes_in: row.bytes_in,
        bytes_out: row.bytes_out,
        denied: row.denied.map(word),
        ended_by: row.ended_by.map(word),
        repeat: row.repeat,
    }
}

/// An agent.
pub fn agent(ports: &Ports, id: AgentId, entry: &Entry<domain::agent::Agent>) -> Option<rest::Agent> {
    agent_in(Scene::Now(ports), id, entry)
}

/// An agent as a scene has it; `None` when it is deleted.
pub fn agent_in(scene: Scene<'_>, id: AgentId, entry: &Entry<domain::agent::Agent>) -> Option<rest::Agent> {
    let registered = entry.state.registered.as_ref().filter(|_| !entry.state.deleted)?;
    let connected_at = scene.connected_at(id);
    let heartbeat = match scene {
        Scene::Now(ports) => ports.last_seen.get(&id).map(|seen| *seen),
        Scene::Then(..) => None,
    };
    Some(rest::Agent {
        id: id.to_string(),
        name: registered.name.to_string(),
        label: registered.label.to_string(),
        status: if connected_at.is_some() { "online" } else { "offline" }.to_owned(),
        client_type: registered.client_type.map(word),
        created_at: moment(entry.created_at),
        connected_at: connected_at.map(moment),
        last_seen_at: Some(moment(match (connected_at, heartbeat) {
            (Some(_), _) => scene.time(),
            (None, Some(seen)) => entry.changed_at.max(seen),
            (None, None) => entry.changed_at,
        })),
        tunnel_count: u64::try_from(scene.routes().tunnels_of(id).len()).unwrap_or(u64::MAX),
        capabilities: entry.state.capabilities.iter().map(capability).collect(),
    })
}

/// What an agent offers.
pub fn capability(offered: &domain::agent::Capability) -> rest::Capability {
    let metadata = Some(offered.metadata.clone()).filter(|metadata| !metadata.is_empty());
    rest::Capability { name: offered.name.to_string(), metadata }
}

/// The wire name of a plain enum's value.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("plain enums are words");
    value.as_str().expect("plain enums are words").to_owned()
}

/// A key without its secret.
pub fn key(ports: &Ports, key: &KeyState, created_at: Option<Timestamp>) -> rest::Key {
    let created = &key.created;
    rest::Key {
        id: created.key_id.to_string(),
        name: created.name.to_string(),
        prefix: created.prefix.clone(),
        scopes: created.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        allowed_ip_ranges: created.allowed_ip_ranges.iter().map(ToString::to_string).collect(),
        created_at: moment(created_at.unwrap_or_else(|| made_at(created.key_id.uuid()))),
        expires_at: created.expires_at.map(moment),
        last_used_at: ports.last_used.get(&created.key_id).map(|at| moment(*at)),
        key: None,
    }
}

/// The time in a UUIDv7.
fn made_at(id: uuid::Uuid) -> Timestamp {
    let seconds_and_nanos = id.get_timestamp().map(|stamp| stamp.to_unix()).unwrap_or_default();
    let millis = i64::try_from(seconds_and_nanos.0).unwrap_or(0).saturating_mul(1_000)
        + i64::from(seconds_and_nanos.1 / 1_000_000);
    Timestamp::from_millis(millis)
}

//! Questions to the catalog: single things, and lists in pages, newest first.
//!
//! A page goes on below the id it ended with. Ids sort by creation, so what is created or removed meanwhile neither
//! doubles nor hides anything else. Every list walks an index that holds only what it may show.

use domain::{
    access::Denied,
    agent::ClientType,
    ids::{AgentId, KeyId, SessionId, ShareId, TunnelId, WorkspaceId},
    policy::{methods::Method, paths::PathRule},
    share::RevokeReason,
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{Condition, Metadata, Outage},
    workspace::Scope,
};
use rusqlite::{Params, Row, types::Type};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::CatalogReader;
use crate::{
    routes::Digest,
    view::{ViewError, unsigned},
};

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest<'a> {
    /// At most this many rows.
    pub limit: usize,
    /// Where the page before ended, as it said; `None`: the first page.
    pub cursor: Option<&'a str>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// The cursor of the next page, if there is more.
    pub next: Option<String>,
}

/// An agent as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    pub id: AgentId,
    pub label: String,
    pub name: String,
    pub client_type: Option<ClientType>,
    pub ephemeral: bool,
    /// When its newest token ends.
    pub token_expires_at: Timestamp,
    pub agent_version: Option<String>,
    /// The session that the log knows of; whether it answers, its node knows.
    pub session: Option<SessionId>,
    /// When the newest session began.
    pub connected_at: Option<Timestamp>,
    /// The newest connect or disconnect in the log; while it is connected, it is seen now.
    pub last_seen_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub deleted_at: Option<Timestamp>,
    pub revision: u64,
    /// Its open tunnels.
    pub tunnel_count: u64,
}

/// A tunnel as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelRow {
    pub id: TunnelId,
    pub agent_id: AgentId,
    pub name: String,
    pub target: Target,
    pub tunnel_port: u16,
    pub protocol: Protocol,
    pub is_public: bool,
    pub metadata: Metadata,
    pub paused: bool,
    pub condition: Condition,
    pub connected_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When it was deleted or expired.
    pub closed_at: Option<Timestamp>,
    pub revision: u64,
}

/// A share as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareRow {
    pub id: ShareId,
    pub tunnel_id: TunnelId,
    pub name: String,
    pub description: Option<String>,
    pub allowed_paths: Option<Vec<PathRule>>,
    pub allowed_methods: Option<Vec<Method>>,
    pub rate_limit_per_min: Option<u16>,
    pub slug: String,
    pub slug_chosen: bool,
    pub read_only: bool,
    pub token_preview: String,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revoke_reason: Option<RevokeReason>,
    /// Neither it nor its tunnel nor its agent has ended at the moment asked for; pauses and outages pass.
    pub active: bool,
    pub revision: u64,
}

/// A share that has ended, as its visitors meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerShare {
    pub workspace: WorkspaceId,
    pub id: ShareId,
    pub tunnel_id: TunnelId,
    /// Revoked or expired.
    pub denied: Denied,
}

/// What a visitor has in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShareKey {
    Token(Digest),
    /// Lower-case.
    Slug(String),
}

/// An API key as lists show it. When it was last used is no fact of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: KeyId,
    pub name: String,
    pub prefix: String,
    pub scopes: Vec<Scope>,
    pub allowed_ip_ranges: Vec<String>,
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Which tunnels.
#[derive(Debug, Clone, Copy, Default)]
pub struct TunnelFilter {
    pub agent: Option<AgentId>,
}

/// Which shares.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShareFilter {
    pub tunnel: Option<TunnelId>,
    /// Only those that are, or are not, active.
    pub active: Option<bool>,
}

const AGENT: &str = "a.id, a.label, a.name, a.client_type, a.ephemeral, a.token_expires_at, a.agent_version, a.session,
    a.connected_at, a.last_seen_at, a.created_at, a.updated_at, a.deleted_at, a.revision,
    (SELECT count(*) FROM tunnels t WHERE t.workspace = a.workspace AND t.agent = a.id AND t.closed_at IS NULL)";
const TUNNEL: &str = "t.id, t.agent, t.name, t.target_host, t.target_port, t.tunnel_port, t.protocol, t.is_public,
    t.metadata, t.paused, t.session, t.outage, t.connected_at, t.expires_at, t.created_at, t.updated_at, t.closed_at,
    t.revision";
const SHARE: &str = "s.id, s.tunnel, s.name, s.description, s.allowed_paths, s.allowed_methods, s.rate_limit_per_min,
    s.slug, s.slug_chosen, s.read_only, s.token_preview, s.expires_at, s.created_at, s.updated_at, s.revoked_at,
    s.revoke_reason, s.revision";
const SHARE_FROM: &str = "FROM shares s LEFT JOIN tunnels t ON t.workspace = s.workspace AND t.id = s.tunnel
    LEFT JOIN agents a ON a.workspace = t.workspace AND a.id = t.agent";
/// ?3 is the moment asked about. Says what `Routes::gate` says, pauses aside.
const ACTIVE: &str = "(s.ended_at IS NULL AND coalesce(s.expires_at > ?3, 1) AND t.id IS NOT NULL
    AND t.closed_at IS NULL AND coalesce(t.expires_at > ?3, 1) AND a.id IS NOT NULL AND a.deleted_at IS NULL)";
const KEY: &str = "id, name, prefix, scopes, allowed_ip_ranges, expires_at, created_at, revoked_at";

impl CatalogReader {
    /// The agents of a workspace that are not deleted.
    ///
    /// # Errors
    /// See [`ViewError`]; so for every question below.
    pub fn agents(&self, workspace: WorkspaceId, page: PageRequest<'_>) -> Result<Page<AgentRow>, ViewError> {
        let sql = format!(
            "SELECT {AGENT} FROM agents a WHERE a.workspace = ?1 AND a.id < ?2 AND a.deleted_at IS NULL
             ORDER BY a.id DESC LIMIT ?3"
        );
        let below = below(page.cursor)?;
        self.page(&sql, (workspace.uuid(), below, more(page)), page, agent_row, |row| row.id.uuid())
    }

    /// An agent of a workspace, deleted or not.
    pub fn agent(&self, workspace: WorkspaceId, id: AgentId) -> Result<Option<AgentRow>, ViewError> {
        let sql = format!("SELECT {AGENT} FROM agents a WHERE a.workspace = ?1 AND a.id = ?2");
        self.one(&sql, (workspace.uuid(), id.uuid()), agent_row)
    }

    /// The open tunnels of a workspace whose time is not over at `now`.
    pub fn tunnels(
        &self,
        workspace: WorkspaceId,
        filter: TunnelFilter,
        now: Timestamp,
        page: PageRequest<'_>,
    ) -> Result<Page<TunnelRow>, ViewError> {
        let of_agent = if filter.agent.is_some() { "t.agent = ?5" } else { "?5 IS NULL" };
        let sql = format!(
            "SELECT {TUNNEL} FROM tunnels t CROSS JOIN agents a ON a.workspace = t.workspace AND a.id = t.agent
             WHERE t.workspace = ?1 AND t.id < ?2 AND t.closed_at IS NULL AND coalesce(t.expires_at > ?3, 1)
                 AND a.deleted_at IS NULL AND {of_agent}
             ORDER BY t.id DESC LIMIT ?4"
        );
        let agent = filter.agent.map(|agent| agent.uuid());
        let values = (workspace.uuid(), below(page.cursor)?, now.millis(), more(page), agent);
        self.page(&sql, values, page, tunnel_row, |row| row.id.uuid())
    }

    /// A tunnel of a workspace, open or closed.
    pub fn tunnel(&self, workspace: WorkspaceId, id: TunnelId) -> Result<Option<TunnelRow>, ViewError> {
        let sql = format!("SELECT {TUNNEL} FROM tunnels t WHERE t.workspace = ?1 AND t.id = ?2");
        self.one(&sql, (workspace.uuid(), id.uuid()), tunnel_row)
    }

    /// The shares of a workspace, ended ones too unless the filter says otherwise.
    pub fn shares(
        &self,
        workspace: WorkspaceId,
        filter: ShareFilter,
        now: Timestamp,
        page: PageRequest<'_>,
    ) -> Result<Page<ShareRow>, ViewError> {
        let of_tunnel = if filter.tunnel.is_some() { "s.tunnel = ?5" } else { "?5 IS NULL" };
        // Said apart, although `ACTIVE` implies it: it lets the query walk the index of live shares only.
        let state = match filter.active {
            None => String::new(),
            Some(true) => format!("AND s.ended_at IS NULL AND {ACTIVE}"),
            Some(false) => format!("AND NOT {ACTIVE}"),
        };
        let sql = format!(
            "SELECT {SHARE}, {ACTIVE} {SHARE_FROM} WHERE s.workspace = ?1 AND s.id < ?2 AND {of_tunnel} {state}
             ORDER BY s.id DESC LIMIT ?4"
        );
        let tunnel = filter.tunnel.map(|tunnel| tunnel.uuid());
        let values = (workspace.uuid(), below(page.cursor)?, now.millis(), more(page), tunnel);
        self.page(&sql, values, page, share_row, |row| row.id.uuid())
    }

    /// A share of a workspace, ended or not.
    pub fn share(
        &self,
        workspace: WorkspaceId,
        id: ShareId,
        now: Timestamp,
    ) -> Result<Option<ShareRow>, ViewError> {
        let sql = format!("SELECT {SHARE}, {ACTIVE} {SHARE_FROM} WHERE s.workspace = ?1 AND s.id = ?2");
        self.one(&sql, (workspace.uuid(), id.uuid(), now.millis()), share_row)
    }

    /// The share that ended under a token or slug; of several that had the same slug the last.
    /// [`crate::routes::Routes`] forgets those that ended long ago.
    pub fn former_share(&self, key: &ShareKey) -> Result<Option<FormerShare>, ViewError> {
        const FORMER: &str = "SELECT workspace, id, tunnel, revoked_at IS NOT NULL FROM shares";
        let read = |row: &Row<'_>| {
            Ok(FormerShare {
                workspace: WorkspaceId::new(row.get(0)?),
                id: ShareId::new(row.get(1)?),
                tunnel_id: TunnelId::new(row.get(2)?),
                denied: if row.get(3)? { Denied::ShareRevoked } else { Denied::ShareExpired },
            })
        };
        match key {
            ShareKey::Token(digest) => {
                let sql = format!("{FORMER} WHERE token_digest = ?1 AND ended_at IS NOT NULL");
                self.one(&sql, (digest.as_slice(),), read)
            }
            ShareKey::Slug(slug) => {
                let sql = format!(
                    "{FORMER} WHERE slug = ?1 AND ended_at IS NOT NULL ORDER BY ended_at DESC, id DESC LIMIT 1"
                );
                self.one(&sql, (slug,), read)
            }
        }
    }

    /// The keys of a workspace that are not revoked.
    pub fn keys(&self, workspace: WorkspaceId, page: PageRequest<'_>) -> Result<Page<KeyRow>, ViewError> {
        let sql = format!(
            "SELECT {KEY} FROM keys WHERE workspace = ?1 AND id < ?2 AND revoked_at IS NULL
             ORDER BY id DESC LIMIT ?3"
        );
        let below = below(page.cursor)?;
        self.page(&sql, (workspace.uuid(), below, more(page)), page, key_row, |row| row.id.uuid())
    }

    /// A key of a workspace, revoked or not.
    pub fn key(&self, workspace: WorkspaceId, id: KeyId) -> Result<Option<KeyRow>, ViewError> {
        let sql = format!("SELECT {KEY} FROM keys WHERE workspace = ?1 AND id = ?2");
        self.one(&sql, (workspace.uuid(), id.uuid()), key_row)
    }

    pub(super) fn page<T>(
        &self,
        sql: &str,
        values: impl Params,
        page: PageRequest<'_>,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
        id: fn(&T) -> Uuid,
    ) -> Result<Page<T>, ViewError> {
        self.pool.with(|db| {
            let mut statement = db.prepare_cached(sql)?;
            let mut rows = statement.query_map(values, read)?.collect::<Result<Vec<T>, _>>()?;
            let is_more = rows.len() > page.limit;
            rows.truncate(page.limit);
            let next = rows.last().filter(|_| is_more).map(|last| id(last).as_simple().to_string());
            Ok(Page { rows, next })
        })
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, ViewError> {
        self.pool.with(|db| {
            let mut statement = db.prepare_cached(sql)?;
            Ok(statement.query_map(values, read)?.next().transpose()?)
        })
    }
}

/// What the ids of a page lie below: the cursor's id, or a blob that sorts after every id.
pub(super) fn below(cursor: Option<&str>) -> Result<Vec<u8>, ViewError> {
    let Some(text) = cursor else { return Ok(vec![0xff; 17]) };
    let id = Uuid::try_parse(text).map_err(|_| ViewError::InvalidCursor)?;
    if id.as_simple().to_string() != text {
        return Err(ViewError::InvalidCursor);
    }
    Ok(id.into_bytes().to_vec())
}

/// One row beyond the page tells whether there is another.
pub(super) fn more(page: PageRequest<'_>) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX - 1).saturating_add(1)
}

fn agent_row(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        id: AgentId::new(row.get(0)?),
        label: row.get(1)?,
        name: row.get(2)?,
        client_type: word(row, 3)?,
        ephemeral: row.get(4)?,
        token_expires_at: time(row, 5)?,
        agent_version: row.get(6)?,
        session: row.get::<_, Option<Uuid>>(7)?.map(SessionId::new),
        connected_at: maybe_time(row, 8)?,
        last_seen_at: maybe_time(row, 9)?,
        created_at: time(row, 10)?,
        updated_at: time(row, 11)?,
        deleted_at: maybe_time(row, 12)?,
        revision: unsigned(row.get(13)?),
        tunnel_count: unsigned(row.get(14)?),
    })
}

fn tunnel_row(row: &Row<'_>) -> rusqlite::Result<TunnelRow> {
    let session = row.get::<_, Option<Uuid>>(10)?.map(SessionId::new);
    let outage: Option<Outage> = json(row, 11)?;
    Ok(TunnelRow {
        id: TunnelId::new(row.get(0)?),
        agent_id: AgentId::new(row.get(1)?),
        name: row.get(2)?,
        target: Target { host: row.get(3)?, port: row.get(4)? },
        tunnel_port: row.get(5)?,
        protocol: row
            .get::<_, String>(6)?
            .parse()
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, Box::new(error)))?,
        is_public: row.get(7)?,
        metadata: json(row, 8)?.unwrap_or_default(),
        paused: row.get(9)?,
        condition: match (session, outage) {
            (Some(session), _) => Condition::Connected(session),
            (None, Some(outage)) => Condition::Failed(outage),
            (None, None) => Condition::Connecting,
        },
        connected_at: maybe_time(row, 12)?,
        expires_at: maybe_time(row, 13)?,
        created_at: time(row, 14)?,
        updated_at: time(row, 15)?,
        closed_at: maybe_time(row, 16)?,
        revision: unsigned(row.get(17)?),
    })
}

fn share_row(row: &Row<'_>) -> rusqlite::Result<ShareRow> {
    Ok(ShareRow {
        id: ShareId::new(row.get(0)?),
        tunnel_id: TunnelId::new(row.get(1)?),
        name: row.get(2)?,
        description: row.get(3)?,
        allowed_paths: json(row, 4)?,
        allowed_methods: json(row, 5)?,
        rate_limit_per_min: row.get(6)?,
        slug: row.get(7)?,
        slug_chosen: row.get(8)?,
        read_only: row.get(9)?,
        token_preview: row.get(10)?,
        expires_at: maybe_time(row, 11)?,
        created_at: time(row, 12)?,
        updated_at: time(row, 13)?,
        revoked_at: maybe_time(row, 14)?,
        revoke_reason: word(row, 15)?,
        revision: unsigned(row.get(16)?),
        active: row.get(17)?,
    })
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        id: KeyId::new(row.get(0)?),
        name: row.get(1)?,
        prefix: row.get(2)?,
        scopes: json(row, 3)?.unwrap_or_default(),
        allowed_ip_ranges: json(row, 4)?.unwrap_or_default(),
        expires_at: maybe_time(row, 5)?,
        created_at: time(row, 6)?,
        revoked_at: maybe_time(row, 7)?,
    })
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}

fn maybe_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A plain enum by its name on the wire.
fn word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_value(serde_json::Value::String(text))
        .map(Some)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

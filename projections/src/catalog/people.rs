//! Who is in a workspace, by name, and the workspace in numbers.

use domain::{
    ids::{AgentId, WorkspaceId},
    time::Timestamp,
};
use rusqlite::Connection;

use super::{CatalogReader, Page, PageRequest};
use crate::view::{ViewError, unsigned};

/// How many agents of one name are shown, the newest.
const AGENTS_MAX: i64 = 100;

/// A name that agents go by, and what they expose together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeammateRow {
    pub name: String,
    /// The newest [`AGENTS_MAX`], newest first.
    pub agents: Vec<AgentId>,
    /// Their open tunnels.
    pub services: u64,
}

/// A workspace in numbers, as facts have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    pub agents: u64,
    /// Open tunnels; each of the next three is a part of them.
    pub tunnels: u64,
    /// Their agents can serve them.
    pub active: u64,
    /// Their agents say that they cannot.
    pub failed: u64,
    pub paused: u64,
    /// Shares that can be used, pauses and outages aside.
    pub shares: u64,
}

impl CatalogReader {
    /// The people of a workspace, by name: the names of its agents that are not deleted. Provisioned agents are nobody.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn teammates(
        &self,
        workspace: WorkspaceId,
        now: Timestamp,
        page: PageRequest<'_>,
    ) -> Result<Page<TeammateRow>, ViewError> {
        let after = page.cursor.map(unhex).transpose()?;
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX - 1).saturating_add(1);
        self.pool.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT DISTINCT name FROM agents WHERE workspace = ?1 AND deleted_at IS NULL AND ephemeral = 0
                     AND (?2 IS NULL OR name > ?2)
                 ORDER BY name LIMIT ?3",
            )?;
            let names = statement.query_map((workspace.uuid(), after, limit), |row| row.get(0))?;
            let mut names = names.collect::<Result<Vec<String>, _>>()?;
            let is_more = names.len() > page.limit;
            names.truncate(page.limit);
            let next = names.last().filter(|_| is_more).map(|name| hex(name));
            let rows = names.into_iter().map(|name| teammate(db, workspace, now, name));
            Ok(Page { rows: rows.collect::<Result<_, _>>()?, next })
        })
    }

    /// A workspace in numbers.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn numbers(&self, workspace: WorkspaceId, now: Timestamp) -> Result<Numbers, ViewError> {
        self.pool.with(|db| {
            let mut numbers = Numbers::default();
            let sql = "SELECT count(*) FROM agents WHERE workspace = ?1 AND deleted_at IS NULL";
            numbers.agents =
                unsigned(db.prepare_cached(sql)?.query_row((workspace.uuid(),), |row| row.get(0))?);
            let mut tunnels = db.prepare_cached(
                "SELECT count(*), count(*) FILTER (WHERE t.paused),
                     count(*) FILTER (WHERE NOT t.paused AND t.session IS NOT NULL AND a.session IS NOT NULL),
                     count(*) FILTER (WHERE NOT t.paused AND t.session IS NULL AND t.outage IS NOT NULL
                         AND a.session IS NOT NULL)
                 FROM tunnels t CROSS JOIN agents a ON a.workspace = t.workspace AND a.id = t.agent
                 WHERE t.workspace = ?1 AND t.closed_at IS NULL AND coalesce(t.expires_at > ?2, 1)
                     AND a.deleted_at IS NULL",
            )?;
            tunnels.query_row((workspace.uuid(), now.millis()), |row| {
                let number = |column| row.get(column).map(unsigned);
                numbers.tunnels = number(0)?;
                (numbers.paused, numbers.active, numbers.failed) = (number(1)?, number(2)?, number(3)?);
                Ok(())
            })?;
            let mut shares = db.prepare_cached(
                "SELECT count(*) FROM shares s
                     CROSS JOIN tunnels t ON t.workspace = s.workspace AND t.id = s.tunnel
                     CROSS JOIN agents a ON a.workspace = t.workspace AND a.id = t.agent
                 WHERE s.workspace = ?1 AND s.ended_at IS NULL AND coalesce(s.expires_at > ?2, 1)
                     AND t.closed_at IS NULL AND coalesce(t.expires_at > ?2, 1) AND a.deleted_at IS NULL",
            )?;
            let live = shares.query_row((workspace.uuid(), now.millis()), |row| row.get(0))?;
            numbers.shares = unsigned(live);
            Ok(numbers)
        })
    }
}

fn teammate(
    db: &Connection,
    workspace: WorkspaceId,
    now: Timestamp,
    name: String,
) -> rusqlite::Result<TeammateRow> {
    const NAMED: &str = "workspace = ?1 AND name = ?2 AND deleted_at IS NULL AND ephemeral = 0";
    let agents = format!("SELECT id FROM agents WHERE {NAMED} ORDER BY id DESC LIMIT ?3");
    let mut agents = db.prepare_cached(&agents)?;
    let agents =
        agents.query_map((workspace.uuid(), &name, AGENTS_MAX), |row| row.get(0).map(AgentId::new))?;
    let agents = agents.collect::<Result<Vec<_>, _>>()?;
    let services = format!(
        "SELECT count(*) FROM tunnels t WHERE t.workspace = ?1 AND t.closed_at IS NULL
             AND coalesce(t.expires_at > ?3, 1) AND t.agent IN (SELECT id FROM agents WHERE {NAMED})"
    );
    let services = db
        .prepare_cached(&services)?
        .query_row((workspace.uuid(), &name, now.millis()), |row| row.get(0).map(unsigned))?;
    Ok(TeammateRow { name, agents, services })
}

/// A name as a cursor.
fn hex(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn unhex(cursor: &str) -> Result<String, ViewError> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = cursor.as_bytes().chunks(2).map(|pair| byte(pair).filter(|_| pair.len() == 2));
    let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(ViewError::InvalidCursor)
}

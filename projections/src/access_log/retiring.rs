//! What becomes of the access log when accesses are retired: days go, sums stay.
//!
//! A view that has counted what is retired keeps its sums. One that was made anew without it begins with the sums that
//! were recorded, and is then equal to the other. An access that was running when the retired part ended is carried
//! over: it is in those sums as it was then, and its completion may come later.

use std::path::Path;

use domain::{
    ids::{EventId, ShareId, TunnelId, WorkspaceId},
    recorded::Recorded,
    retention::{self, HistorySummed, OpenAccess, ShareSum, TunnelSum},
    time::{Day, Timestamp},
};
use rusqlite::{OptionalExtension as _, Transaction};
use uuid::Uuid;

use super::{AccessLog, day_file_path, remove_file, summary::Summary};
use crate::view::{Applied, Mark, ViewError, position, unsigned};

impl AccessLog {
    /// Takes in an event about what was retired.
    pub(super) fn retire(&mut self, recorded: &Recorded, event: &retention::Event) -> Result<(), ViewError> {
        if recorded.position <= self.summary.checkpoint() {
            return Ok(());
        }
        let mark = Mark { checkpoint: recorded.position, ..self.summary.mark };
        let transaction = self.summary.connection.transaction()?;
        match event {
            retention::Event::Summed(summed) => {
                if !has_counted(&transaction, summed.up_to)? {
                    add(&transaction, summed)?;
                }
                carry_over(&transaction, summed)?;
            }
            retention::Event::Retired(retired) => {
                let before = retired.before.number();
                for table in ["days", "share_days"] {
                    transaction.execute(&format!("DELETE FROM {table} WHERE day < ?1"), [before])?;
                }
                // What is carried over is known by its mark until now.
                transaction.execute(
                    "DELETE FROM running WHERE day < ?1 AND (event, place) NOT IN (SELECT event, place FROM carried)",
                    [before],
                )?;
                transaction.execute("DELETE FROM carried", [])?;
            }
        }
        mark.write(&transaction)?;
        transaction.commit()?;
        self.summary.mark = mark;
        self.checkpoint = self.checkpoint.max(recorded.position);
        if let retention::Event::Retired(retired) = event {
            if self.day.as_ref().is_some_and(|open| open.day < retired.before.number()) {
                self.day = None;
            }
            tidy(&self.folder, &self.summary)?;
        }
        Ok(())
    }
}

/// Removes the files of days that are no longer known. A file that was begun and is not known yet will be filled again.
pub(super) fn tidy(folder: &Path, summary: &Summary) -> Result<(), ViewError> {
    let known: Vec<_> = summary.days()?.iter().map(|known| day_file_path(folder, known.day)).collect();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_day = name.starts_with("accesses-") && path.extension().is_some_and(|it| it == "sqlite");
        if is_day && !known.contains(&path) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Whether these sums have accesses up to that position.
fn has_counted(db: &Transaction<'_>, up_to: u64) -> rusqlite::Result<bool> {
    let first =
        db.query_row("SELECT first_position FROM counted", [], |row| row.get::<_, i64>(0)).optional()?;
    Ok(first.is_some_and(|first| unsigned(first) <= up_to))
}

/// Begins with what others have counted.
fn add(db: &Transaction<'_>, summed: &HistorySummed) -> rusqlite::Result<()> {
    let mut shares = db.prepare_cached(
        "INSERT INTO shares VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (share) DO UPDATE SET
             accesses = accesses + excluded.accesses, denied = denied + excluded.denied,
             bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out,
             last_accessed_at = max(coalesce(last_accessed_at, excluded.last_accessed_at),
                 coalesce(excluded.last_accessed_at, last_accessed_at))",
    )?;
    for sum in &summed.shares {
        shares.execute((
            sum.share_id.uuid(),
            sum.workspace_id.uuid(),
            position(sum.accesses),
            position(sum.denied),
            position(sum.bytes_in),
            position(sum.bytes_out),
            sum.last_accessed_at.map(Timestamp::millis),
        ))?;
    }
    let mut tunnels = db.prepare_cached(
        "INSERT INTO tunnels VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tunnel) DO UPDATE SET
             last_activity_at = max(last_activity_at, excluded.last_activity_at),
             connections = connections + excluded.connections,
             bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out",
    )?;
    for sum in &summed.tunnels {
        tunnels.execute((
            sum.tunnel_id.uuid(),
            sum.workspace_id.uuid(),
            sum.last_activity_at.millis(),
            position(sum.connections),
            position(sum.bytes_in),
            position(sum.bytes_out),
        ))?;
    }
    for open in &summed.open {
        add_open(db, open)?;
    }
    Ok(())
}

/// An access that others saw running. If its completion was counted already and nothing else was known of it then, it was
/// counted whole: what the sums have of it is taken off again.
fn add_open(db: &Transaction<'_>, open: &OpenAccess) -> rusqlite::Result<()> {
    let id = (open.event_id.uuid(), open.index);
    let was_counted_whole: Option<bool> = db
        .prepare_cached("SELECT completed AND share IS NULL FROM running WHERE event = ?1 AND place = ?2")?
        .query_row(id, |row| row.get(0))
        .optional()?;
    if was_counted_whole == Some(true) {
        let bytes = (position(open.bytes_in), position(open.bytes_out));
        for (table, key, thing) in
            [("shares", "share", open.share_id.uuid()), ("tunnels", "tunnel", open.tunnel_id.uuid())]
        {
            let sql = format!(
                "UPDATE {table} SET bytes_in = bytes_in - ?2, bytes_out = bytes_out - ?3 WHERE {key} = ?1"
            );
            db.prepare_cached(&sql)?.execute((thing, bytes.0, bytes.1))?;
        }
    }
    insert_open(db, open)
}

/// Remembers it as running, or where and when it was if its end is known.
fn insert_open(db: &Transaction<'_>, open: &OpenAccess) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO running VALUES (?1, ?2, 0, ?3, ?4, ?5, NULL, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
             share = excluded.share, tunnel = excluded.tunnel, day = excluded.day",
    )?
    .execute((
        open.event_id.uuid(),
        open.index,
        open.latency_ms,
        position(open.bytes_in),
        position(open.bytes_out),
        open.share_id.uuid(),
        open.tunnel_id.uuid(),
        open.day.number(),
    ))
    .map(|_| ())
}

/// Notes which running accesses outlive the retirement that is about to come.
fn carry_over(db: &Transaction<'_>, summed: &HistorySummed) -> rusqlite::Result<()> {
    let mut carry = db.prepare_cached("INSERT OR IGNORE INTO carried VALUES (?1, ?2)")?;
    for open in &summed.open {
        carry.execute((open.event_id.uuid(), open.index))?;
    }
    Ok(())
}

/// What retired accesses came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    pub shares: Vec<ShareSum>,
    pub tunnels: Vec<TunnelSum>,
    pub open: Vec<OpenAccess>,
}

/// Sums up accesses that are about to be retired, by the same counting as the view's, in memory.
#[derive(Debug)]
pub struct Summing(Summary);

impl Summing {
    /// Begins with what was still running when the last retirement ended.
    ///
    /// # Errors
    /// There is no memory.
    pub fn begin(open: &[OpenAccess]) -> Result<Self, ViewError> {
        let summary = Summary::open_at(Path::new(":memory:"), Uuid::nil())?;
        let mut summary = summary.ok_or_else(|| std::io::Error::other("a new file fits"))?;
        let transaction = summary.connection.transaction()?;
        for open in open {
            insert_open(&transaction, open)?;
        }
        transaction.commit()?;
        Ok(Self(summary))
    }

    /// Counts some more, in the order of the log.
    ///
    /// # Errors
    /// There is no memory.
    pub fn take_in(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        self.0.apply(batch, &super::packed_by_day(batch))
    }

    /// What they came to.
    ///
    /// # Errors
    /// There is no memory.
    pub fn end(self) -> Result<Sums, ViewError> {
        let db = &self.0.connection;
        let mut shares = db.prepare("SELECT * FROM shares ORDER BY share")?;
        let shares = shares.query_map([], |row| {
            Ok(ShareSum {
                share_id: ShareId::new(row.get(0)?),
                workspace_id: WorkspaceId::new(row.get(1)?),
                accesses: unsigned(row.get(2)?),
                denied: unsigned(row.get(3)?),
                bytes_in: unsigned(row.get(4)?),
                bytes_out: unsigned(row.get(5)?),
                last_accessed_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
            })
        })?;
        let shares = shares.collect::<rusqlite::Result<_>>()?;
        let mut tunnels = db.prepare("SELECT * FROM tunnels ORDER BY tunnel")?;
        let tunnels = tunnels.query_map([], |row| {
            Ok(TunnelSum {
                tunnel_id: TunnelId::new(row.get(0)?),
                workspace_id: WorkspaceId::new(row.get(1)?),
                last_activity_at: Timestamp::from_millis(row.get(2)?),
                connections: unsigned(row.get(3)?),
                bytes_in: unsigned(row.get(4)?),
                bytes_out: unsigned(row.get(5)?),
            })
        })?;
        let tunnels = tunnels.collect::<rusqlite::Result<_>>()?;
        let mut open = db.prepare(
            "SELECT event, place, latency_ms, bytes_in, bytes_out, share, tunnel, day FROM running
             WHERE completed = 0 ORDER BY event, place",
        )?;
        let open = open.query_map([], |row| {
            Ok(OpenAccess {
                event_id: EventId::new(row.get(0)?),
                index: row.get(1)?,
                latency_ms: row.get(2)?,
                bytes_in: unsigned(row.get(3)?),
                bytes_out: unsigned(row.get(4)?),
                share_id: ShareId::new(row.get(5)?),
                tunnel_id: TunnelId::new(row.get(6)?),
                day: Day::new(row.get(7)?),
            })
        })?;
        let open = open.collect::<rusqlite::Result<_>>()?;
        Ok(Sums { shares, tunnels, open })
    }
}

#[cfg(test)]
mod tests;

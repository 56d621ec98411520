//! The summary file: totals of each share, activity of each tunnel, how long accesses ended, what the days hold.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use domain::{
    access::{self, Access, Completion, EndedBy, TunnelsUsed},
    event::Event,
    ids::{EventId, ShareId, TunnelId, WorkspaceId},
    recorded::{Family, Recorded},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Transaction};
use uuid::Uuid;

use super::{AccessLog, Packed};
use crate::view::{self, Applied, Mark, ViewError, position, unsigned};

const LAYOUT: &str = include_str!("summary.sql");

/// All accesses of a share together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShareTotals {
    /// Every request, refused ones too; a record that stands for several counts as that many.
    pub accesses: u64,
    /// Of these, the refused.
    pub denied: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub last_accessed_at: Option<Timestamp>,
}

/// What a tunnel carried, through shares, its port and reach together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelTotals {
    /// When it last served somebody; what was refused at the door is nobody.
    pub last_activity_at: Option<Timestamp>,
    /// Through its port and reach.
    pub connections: u64,
    /// To the target.
    pub bytes_in: u64,
    /// From the target.
    pub bytes_out: u64,
}

/// What a day's file holds at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Day {
    pub(super) day: i64,
    pub(super) first_position: u64,
    pub(super) last_position: u64,
}

/// How an access that was recorded while it ran has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) latency_ms: u32,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) ended_by: Option<EndedBy>,
}

#[derive(Debug)]
pub(super) struct Summary {
    pub(super) connection: Connection,
    pub(super) mark: Mark,
}

pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join("accesses.sqlite")
}

/// What a batch adds to one share.
#[derive(Debug, Default)]
struct Sum {
    workspace: Option<WorkspaceId>,
    accesses: i64,
    denied: i64,
    bytes_in: i64,
    bytes_out: i64,
    last_accessed_at: Option<i64>,
}

/// What a batch adds, gathered in memory first: a burst writes a few rows, however many events it has.
#[derive(Debug, Default)]
struct Gathered {
    shares: BTreeMap<ShareId, Sum>,
    tunnels: BTreeMap<TunnelId, Carried>,
}

/// What a batch adds to one tunnel; without an activity only bytes that shares' refusals took.
#[derive(Debug)]
struct Carried {
    workspace: WorkspaceId,
    last_activity_at: i64,
    connections: i64,
    bytes_in: i64,
    bytes_out: i64,
}

impl Summary {
    pub(super) fn open(folder: &Path, log_id: Uuid) -> Result<Option<Self>, ViewError> {
        Self::open_at(&file(folder), log_id)
    }

    pub(super) fn open_at(path: &Path, log_id: Uuid) -> Result<Option<Self>, ViewError> {
        let found = view::open_file(path, LAYOUT, log_id)?;
        Ok(found.map(|(connection, mark)| Self { connection, mark }))
    }

    pub(super) fn checkpoint(&self) -> u64 {
        self.mark.checkpoint
    }
    pub(super) fn skipped(&self) -> u64 {
        self.mark.skipped
    }

    pub(super) fn days(&self) -> Result<Vec<Day>, ViewError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT day, first_position, last_position FROM days ORDER BY day")?;
        let days = statement.query_map([], |row| {
            Ok(Day {
                day: row.get(0)?,
                first_position: unsigned(row.get(1)?),
                last_position: unsigned(row.get(2)?),
            })
        })?;
        Ok(days.collect::<Result<_, _>>()?)
    }

    /// Takes in what it does not have yet, in one transaction with its checkpoint.
    pub(super) fn apply(
        &mut self,
        batch: &[Applied],
        by_day: &BTreeMap<i64, Vec<Packed<'_>>>,
    ) -> Result<(), ViewError> {
        let Some((last, _)) = batch.last() else { return Ok(()) };
        let seen = self.mark.checkpoint;
        let is_new = |recorded: &Recorded| recorded.position > seen;
        let unknown = |applied: &&Applied| is_new(&applied.0) && view::is_unknown::<AccessLog>(applied);
        let unknown = batch.iter().filter(unknown).count();
        let mark = Mark {
            checkpoint: seen.max(last.position),
            skipped: self.mark.skipped + u64::try_from(unknown).unwrap_or(u64::MAX),
        };
        let mut gathered = Gathered::default();
        let transaction = self.connection.transaction()?;
        for (day, packed) in by_day {
            let packed: Vec<Packed<'_>> =
                packed.iter().copied().filter(|(recorded, _)| is_new(recorded)).collect();
            note_day(&transaction, *day, &packed)?;
            for (recorded, accessed) in packed {
                gathered.take_in(&transaction, recorded, accessed)?;
            }
        }
        for (recorded, event) in batch.iter().filter(|(recorded, _)| is_new(recorded)) {
            if let Some(Event::Access(access::Event::TunnelsUsed(used))) = event {
                gathered.take_in_use(recorded.workspace, used);
            }
        }
        let mut of_family = batch.iter().filter(|(recorded, _)| recorded.family() == Family::Accesses);
        if let Some((first, _)) = of_family.next() {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO counted VALUES (1, ?1)")?
                .execute([position(first.position)])?;
        }
        gathered.write(&transaction)?;
        mark.write(&transaction)?;
        transaction.commit()?;
        self.mark = mark;
        Ok(())
    }

    pub(super) fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        for sql in [
            "SELECT * FROM shares ORDER BY share",
            "SELECT * FROM tunnels ORDER BY tunnel",
            "SELECT * FROM share_days ORDER BY share, day",
            "SELECT * FROM days ORDER BY day",
            "SELECT * FROM running ORDER BY event, place",
            // Not `counted`: how one came by the sums is not what they are.
        ] {
            view::dump_query(&self.connection, sql, sink)?;
        }
        Ok(())
    }
}

fn note_day(db: &Transaction<'_>, day: i64, packed: &[Packed<'_>]) -> rusqlite::Result<()> {
    let Some(((first, _), (last, _))) = packed.first().zip(packed.last()) else { return Ok(()) };
    let mut lags: Option<(i64, i64)> = None;
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO share_days VALUES (?1, ?2)")?;
    let mut shares = Vec::new();
    for (recorded, accessed) in packed {
        for access in &accessed.accesses {
            let lag = recorded.recorded_at.millis().saturating_sub(access.accessed_at.millis());
            lags = Some(lags.map_or((lag, lag), |(min, max)| (min.min(lag), max.max(lag))));
        }
        if !accessed.accesses.is_empty() && !shares.contains(&accessed.share_id) {
            shares.push(accessed.share_id);
        }
    }
    for share in shares {
        insert.execute((share.uuid(), day))?;
    }
    let (lag_min, lag_max) = lags.unwrap_or((i64::MAX, i64::MIN));
    db.prepare_cached(
        "INSERT INTO days VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (day) DO UPDATE SET
             last_position = max(last_position, excluded.last_position),
             lag_min = min(lag_min, excluded.lag_min), lag_max = max(lag_max, excluded.lag_max)",
    )?
    .execute((day, position(first.position), position(last.position), lag_min, lag_max))
    .map(|_| ())
}

impl Gathered {
    fn take_in(
        &mut self,
        db: &Transaction<'_>,
        recorded: &Recorded,
        accessed: &domain::access::ShareAccessed,
    ) -> rusqlite::Result<()> {
        let sum = self.shares.entry(accessed.share_id).or_default();
        sum.workspace = Some(recorded.workspace);
        let mut active_at: Option<i64> = None;
        let before = (sum.bytes_in, sum.bytes_out);
        for (place, access) in accessed.accesses.iter().enumerate() {
            let times = i64::from(access.repeat.unwrap_or(1));
            sum.accesses += times;
            sum.last_accessed_at = sum.last_accessed_at.max(Some(access.accessed_at.millis()));
            if access.denied.is_some() {
                sum.denied += times;
            } else {
                active_at = active_at.max(Some(access.accessed_at.millis()));
            }
            sum.bytes_in = sum.bytes_in.saturating_add(position(access.bytes_in));
            sum.bytes_out = sum.bytes_out.saturating_add(position(access.bytes_out));
            if access.running {
                note_running(db, recorded, accessed, place, access)?;
            }
        }
        for completion in &accessed.completions {
            active_at = active_at.max(Some(recorded.recorded_at.millis()));
            let counted = complete(db, completion)?;
            sum.bytes_in = sum.bytes_in.saturating_add(position(completion.bytes_in) - counted.0);
            sum.bytes_out = sum.bytes_out.saturating_add(position(completion.bytes_out) - counted.1);
        }
        let added = (sum.bytes_in - before.0, sum.bytes_out - before.1);
        if let Some(at) = active_at {
            let carried = self.carried(recorded.workspace, accessed.tunnel_id, at);
            carried.bytes_in = carried.bytes_in.saturating_add(added.0);
            carried.bytes_out = carried.bytes_out.saturating_add(added.1);
        }
        Ok(())
    }

    fn take_in_use(&mut self, workspace: WorkspaceId, used: &TunnelsUsed) {
        for tunnel in &used.tunnels {
            let carried = self.carried(workspace, tunnel.tunnel_id, tunnel.last_activity_at.millis());
            carried.connections = carried.connections.saturating_add(position(tunnel.connections));
            carried.bytes_in = carried.bytes_in.saturating_add(position(tunnel.bytes_in));
            carried.bytes_out = carried.bytes_out.saturating_add(position(tunnel.bytes_out));
        }
    }

    fn carried(&mut self, workspace: WorkspaceId, tunnel: TunnelId, at: i64) -> &mut Carried {
        let fresh = Carried { workspace, last_activity_at: at, connections: 0, bytes_in: 0, bytes_out: 0 };
        let carried = self.tunnels.entry(tunnel).or_insert(fresh);
        carried.last_activity_at = carried.last_activity_at.max(at);
        carried
    }

    fn write(&self, db: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut add = db.prepare_cached(
            "INSERT INTO shares VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (share) DO UPDATE SET
                 accesses = accesses + excluded.accesses, denied = denied + excluded.denied,
                 bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out,
                 last_accessed_at = max(coalesce(last_accessed_at, excluded.last_accessed_at),
                     coalesce(excluded.last_accessed_at, last_accessed_at))",
        )?;
        for (share, sum) in &self.shares {
            let Some(workspace) = sum.workspace else { continue };
            add.execute((
                share.uuid(),
                workspace.uuid(),
                sum.accesses,
                sum.denied,
                sum.bytes_in,
                sum.bytes_out,
                sum.last_accessed_at,
            ))?;
        }
        let mut touch = db.prepare_cached(
            "INSERT INTO tunnels VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (tunnel) DO UPDATE SET
                 last_activity_at = max(last_activity_at, excluded.last_activity_at),
                 connections = connections + excluded.connections,
                 bytes_in = bytes_in + excluded.bytes_in, bytes_out = bytes_out + excluded.bytes_out",
        )?;
        for (tunnel, carried) in &self.tunnels {
            touch.execute((
                tunnel.uuid(),
                carried.workspace.uuid(),
                carried.last_activity_at,
                carried.connections,
                carried.bytes_in,
                carried.bytes_out,
            ))?;
        }
        Ok(())
    }
}

/// Remembers an access that still ran, with the bytes that totals have of it.
fn note_running(
    db: &Transaction<'_>,
    recorded: &Recorded,
    accessed: &domain::access::ShareAccessed,
    place: usize,
    access: &Access,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO running VALUES (?1, ?2, 0, ?3, ?4, ?5, NULL, ?6, ?7, ?8)")?
        .execute((
            recorded.id.uuid(),
            small(place),
            access.latency_ms,
            position(access.bytes_in),
            position(access.bytes_out),
            accessed.share_id.uuid(),
            accessed.tunnel_id.uuid(),
            recorded.recorded_at.day(),
        ))?;
    Ok(())
}

/// Remembers how an access ended; answers the bytes of it that totals have already. The last word counts.
fn complete(db: &Transaction<'_>, completion: &Completion) -> rusqlite::Result<(i64, i64)> {
    let id = (completion.event_id.uuid(), completion.index);
    let known = db
        .prepare_cached("SELECT bytes_in, bytes_out FROM running WHERE event = ?1 AND place = ?2")?
        .query_row(id, |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let ended_by = completion
        .ended_by
        .map(|ended_by| serde_json::to_string(&ended_by).expect("a plain enum").trim_matches('"').to_owned());
    // Where it was and when stays as it is.
    db.prepare_cached(
        "INSERT INTO running VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, NULL, NULL, NULL) ON CONFLICT DO UPDATE SET
             completed = 1, latency_ms = excluded.latency_ms, bytes_in = excluded.bytes_in,
             bytes_out = excluded.bytes_out, ended_by = excluded.ended_by",
    )?
    .execute((
        id.0,
        id.1,
        completion.latency_ms,
        position(completion.bytes_in),
        position(completion.bytes_out),
        ended_by,
    ))?;
    Ok(known.unwrap_or((0, 0)))
}

/// A place in an event: at most a few hundred accesses fit into one.
fn small(place: usize) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}

/// How an access ended, if it has.
pub(super) fn end_of(db: &Connection, event: EventId, place: usize) -> rusqlite::Result<Option<End>> {
    db.prepare_cached(
        "SELECT latency_ms, bytes_in, bytes_out, ended_by FROM running
         WHERE event = ?1 AND place = ?2 AND completed = 1",
    )?
    .query_row((event.uuid(), small(place)), |row| {
        let ended_by: Option<String> = row.get(3)?;
        Ok(End {
            latency_ms: row.get(0)?,
            bytes_in: unsigned(row.get(1)?),
            bytes_out: unsigned(row.get(2)?),
            ended_by: ended_by.and_then(|word| serde_json::from_value(serde_json::Value::String(word)).ok()),
        })
    })
    .optional()
}

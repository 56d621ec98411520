//! Questions to the access log: accesses of a share, newest first, in pages of bounded work, and totals.
//!
//! "Newest" is by when they were recorded: a request that ran for long stands where it was first written down. Cursors
//! name that moment, the event's number among the workspace's own and the place in the event; never the log's own
//! position, which would tell one tenant about another.

use std::path::{Path, PathBuf};

use domain::{
    access::{self, Access, Denied, EndedBy, Visitor},
    event::Event,
    ids::{EventId, ShareId, TunnelId, WorkspaceId},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::{ShareTotals, TunnelTotals, day_file_path, facets::Wanted, summary};
use crate::view::{Pool, ViewError, read_only, unsigned};

/// One page takes apart at most this many packed events (some 50,000 accesses): a filter that matches little answers
/// with what it found and where to go on.
pub const SCAN_EVENTS_MAX: usize = 500;
/// One page passes by at most this many packed events, looking at their facets only.
pub const WALK_EVENTS_MAX: usize = 100_000;

/// Opens the personal part of a share's accesses: JSON, or `None` when its key was destroyed.
pub type Opener<'a> = &'a dyn Fn(WorkspaceId, ShareId, &[u8]) -> Option<String>;

/// Which accesses. What is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessFilter {
    /// Accessed at this moment or later.
    pub since: Option<Timestamp>,
    /// Accessed at this moment or earlier.
    pub until: Option<Timestamp>,
    /// The status code lies between these, both included: (404, 404), or (500, 599).
    pub status: Option<(u16, u16)>,
    pub method: Option<String>,
    /// The visitor's address, as recorded.
    pub ip: Option<String>,
    /// The whole path; with a `*` at its end, what it begins with.
    pub path: Option<String>,
}

/// One access, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRow {
    pub event_id: EventId,
    /// The place in its event: its id is `<event_id>.<index>`.
    pub index: u16,
    pub share_id: ShareId,
    pub accessed_at: Timestamp,
    pub method: String,
    pub status_code: u16,
    pub latency_ms: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub denied: Option<Denied>,
    pub ended_by: Option<EndedBy>,
    /// It ran when it was recorded and nothing was heard of its end.
    pub running: bool,
    pub repeat: Option<u32>,
    /// Who it was and where to; `None` when erased.
    pub visitor: Option<Visitor>,
}

/// A part of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPage {
    pub rows: Vec<AccessRow>,
    /// Where to go on. A page may be short, even empty, and yet have one: its work was done.
    pub next: Option<String>,
}

/// Asks the access log. Cheap to clone; queries never wait for the writer.
#[derive(Debug, Clone)]
pub struct AccessLogReader {
    folder: PathBuf,
    summary: Pool,
}

/// Strictly older than this lies the next page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    recorded_at: i64,
    seq: u64,
    index: usize,
}

impl Place {
    fn text(self) -> String {
        format!("{:x}.{:x}.{:x}", self.recorded_at, self.seq, self.index)
    }
    fn parse(text: &str) -> Result<Self, ViewError> {
        let mut parts = text.split('.');
        let mut part = || parts.next().and_then(|part| u64::from_str_radix(part, 16).ok());
        let found = part().zip(part()).zip(part()).and_then(|((at, seq), index)| {
            Some(Self { recorded_at: at.try_into().ok()?, seq, index: index.try_into().ok()? })
        });
        match (found, parts.next()) {
            (Some(place), None) => Ok(place),
            (Some(_) | None, _) => Err(ViewError::InvalidCursor),
        }
    }
}

/// A day worth looking into, and the span of `recorded_at` that the filter leaves of it.
#[derive(Debug, Clone, Copy)]
struct Span {
    day: i64,
    from: i64,
    to: i64,
}

/// A packed event as it is kept.
struct PackedRow {
    recorded_at: i64,
    seq: u64,
    event_id: EventId,
    version: u16,
    data: String,
    personal: Option<Vec<u8>>,
}

impl AccessLogReader {
    pub(super) fn new(folder: PathBuf, summary: Pool) -> Self {
        Self { folder, summary }
    }

    /// The totals of a share; zero for one that nobody ever visited. Takes the same time whatever its history.
    ///
    /// # Errors
    /// See [`ViewError`]; so for every question below.
    pub fn totals(&self, workspace: WorkspaceId, share: ShareId) -> Result<ShareTotals, ViewError> {
        Ok(self.totals_of(workspace, &[share])?.pop().unwrap_or_default())
    }

    /// The totals of several shares, in their order.
    pub fn totals_of(
        &self,
        workspace: WorkspaceId,
        shares: &[ShareId],
    ) -> Result<Vec<ShareTotals>, ViewError> {
        self.summary.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT accesses, denied, bytes_in, bytes_out, last_accessed_at FROM shares
                 WHERE share = ?1 AND workspace = ?2",
            )?;
            let mut totals = Vec::with_capacity(shares.len());
            for share in shares {
                let found = statement
                    .query_row((share.uuid(), workspace.uuid()), |row| {
                        Ok(ShareTotals {
                            accesses: unsigned(row.get(0)?),
                            denied: unsigned(row.get(1)?),
                            bytes_in: unsigned(row.get(2)?),
                            bytes_out: unsigned(row.get(3)?),
                            last_accessed_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                        })
                    })
                    .optional()?;
                totals.push(found.unwrap_or_default());
            }
            Ok(totals)
        })
    }

    /// What each tunnel carried, in the order of the tunnels; zero for one that nobody ever used.
    pub fn carried_by(
        &self,
        workspace: WorkspaceId,
        tunnels: &[TunnelId],
    ) -> Result<Vec<TunnelTotals>, ViewError> {
        self.summary.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT last_activity_at, connections, bytes_in, bytes_out FROM tunnels
                 WHERE tunnel = ?1 AND workspace = ?2",
            )?;
            let mut totals = Vec::with_capacity(tunnels.len());
            for tunnel in tunnels {
                let found = statement.query_row((tunnel.uuid(), workspace.uuid()), |row| {
                    Ok(TunnelTotals {
                        last_activity_at: Some(Timestamp::from_millis(row.get(0)?)),
                        connections: unsigned(row.get(1)?),
                        bytes_in: unsigned(row.get(2)?),
                        bytes_out: unsigned(row.get(3)?),
                    })
                });
                totals.push(found.optional()?.unwrap_or_default());
            }
            Ok(totals)
        })
    }

    /// Accesses of a share, newest first. At most `limit` of them, after at most [`SCAN_EVENTS_MAX`] packed events
    /// were taken apart and [`WALK_EVENTS_MAX`] passed by.
    pub fn accesses(
        &self,
        workspace: WorkspaceId,
        share: ShareId,
        filter: &AccessFilter,
        limit: usize,
        cursor: Option<&str>,
        open: Opener<'_>,
    ) -> Result<AccessPage, ViewError> {
        let cursor = cursor.map(Place::parse).transpose()?;
        self.summary.with(|db| {
            let mut page = Reading {
                summary: db,
                workspace,
                share,
                filter,
                limit,
                open,
                rows: Vec::new(),
                last: None,
                scanned: 0,
                walked: 0,
            };
            for span in spans(db, workspace, share, filter, cursor)? {
                if let Some(next) = page.read_day(&self.folder, span, cursor)? {
                    return Ok(AccessPage { rows: page.rows, next: Some(next.text()) });
                }
            }
            Ok(AccessPage { rows: page.rows, next: None })
        })
    }
}

/// The days of a share that the filter and the cursor leave, newest first.
fn spans(
    db: &Connection,
    workspace: WorkspaceId,
    share: ShareId,
    filter: &AccessFilter,
    cursor: Option<Place>,
) -> Result<Vec<Span>, ViewError> {
    let mut statement = db.prepare_cached(
        "SELECT d.day, d.lag_min, d.lag_max FROM shares s CROSS JOIN share_days sd ON sd.share = s.share
             CROSS JOIN days d ON d.day = sd.day
         WHERE s.share = ?1 AND s.workspace = ?2 ORDER BY d.day DESC",
    )?;
    let days = statement.query_map((share.uuid(), workspace.uuid()), |row| {
        let (day, lag_min, lag_max): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // An access is recorded after it began, by the lags that this day has seen: so a bound on the one is a bound
        // on the other, and the index, which is in the order of recording, can be entered in the right place.
        let from = filter.since.map_or(i64::MIN, |since| since.millis().saturating_add(lag_min));
        let to = filter.until.map_or(i64::MAX, |until| until.millis().saturating_add(lag_max));
        Ok(Span { day, from, to: to.min(cursor.map_or(i64::MAX, |place| place.recorded_at)) })
    })?;
    let day_ms = 86_400_000;
    let mut spans = days.collect::<Result<Vec<_>, _>>()?;
    spans.retain(|span| {
        let start = span.day.saturating_mul(day_ms);
        span.from <= span.to && start <= span.to && start.saturating_add(day_ms) > span.from
    });
    Ok(spans)
}

/// A page while it is read.
struct Reading<'a> {
    summary: &'a Connection,
    workspace: WorkspaceId,
    share: ShareId,
    filter: &'a AccessFilter,
    limit: usize,
    open: Opener<'a>,
    rows: Vec<AccessRow>,
    /// The place of the last row.
    last: Option<Place>,
    scanned: usize,
    walked: usize,
}

impl Reading<'_> {
    /// Reads on in one day; answers where the next page begins once this one is full.
    fn read_day(
        &mut self,
        folder: &Path,
        span: Span,
        cursor: Option<Place>,
    ) -> Result<Option<Place>, ViewError> {
        let day = read_only(&day_file_path(folder, span.day))?;
        // All columns of this one are in the index.
        let mut walk = day.prepare(
            "SELECT recorded_at, seq, facets, position FROM packed
             WHERE share = ?1 AND recorded_at BETWEEN ?2 AND ?3
                 AND (recorded_at, seq) <= (?4, ?5) AND last_at >= ?6 AND first_at <= ?7
             ORDER BY recorded_at DESC, seq DESC",
        )?;
        let mut fetch = day.prepare(
            "SELECT recorded_at, seq, event, version, data, personal FROM packed WHERE position = ?1",
        )?;
        let (at, seq) = cursor
            .map_or((i64::MAX, i64::MAX), |place| (place.recorded_at, crate::view::position(place.seq)));
        let since = self.filter.since.map_or(i64::MIN, Timestamp::millis);
        let until = self.filter.until.map_or(i64::MAX, Timestamp::millis);
        let wanted = Wanted::new(self.filter.status, self.filter.method.as_deref());
        let mut rows = walk.query((self.share.uuid(), span.from, span.to, at, seq, since, until))?;
        while let Some(row) = rows.next()? {
            let here = Place { recorded_at: row.get(0)?, seq: unsigned(row.get(1)?), index: 0 };
            let bits: i64 = row.get(2)?;
            if wanted.may_be_in(bits) {
                let position: i64 = row.get(3)?;
                let packed = fetch.query_row([position], packed_row)?;
                let below = cursor
                    .filter(|place| (place.recorded_at, place.seq) == (here.recorded_at, here.seq))
                    .map_or(usize::MAX, |place| place.index);
                if let Some(next) = self.read_packed(&packed, below)? {
                    return Ok(Some(next));
                }
                self.scanned += 1;
            }
            self.walked += 1;
            if self.scanned >= SCAN_EVENTS_MAX || self.walked >= WALK_EVENTS_MAX {
                return Ok(Some(here));
            }
        }
        Ok(None)
    }

    fn read_packed(&mut self, packed: &PackedRow, below: usize) -> Result<Option<Place>, ViewError> {
        // What was recorded was read once already, when it was applied; a row that cannot be read shows nothing.
        let decoded = Event::decode("share.accessed", packed.version, &packed.data);
        let Ok(Event::Access(access::Event::Accessed(accessed))) = decoded else { return Ok(None) };
        let mut visitors: Option<Vec<Visitor>> = None;
        for (index, access) in accessed.accesses.iter().enumerate().rev().filter(|(index, _)| *index < below)
        {
            if !self.is_asked_for(access) {
                continue;
            }
            let visitors = visitors.get_or_insert_with(|| self.visitors(packed));
            let visitor = visitors.get(index);
            if !self.is_asked_of(visitor) {
                continue;
            }
            if self.rows.len() >= self.limit {
                return Ok(self.last.or(Some(Place {
                    recorded_at: packed.recorded_at,
                    seq: packed.seq,
                    index: index + 1,
                })));
            }
            let row = self.row(packed.event_id, index, access, visitor.cloned())?;
            self.rows.push(row);
            self.last = Some(Place { recorded_at: packed.recorded_at, seq: packed.seq, index });
        }
        Ok(None)
    }

    fn is_asked_for(&self, access: &Access) -> bool {
        let filter = self.filter;
        filter.since.is_none_or(|since| access.accessed_at >= since)
            && filter.until.is_none_or(|until| access.accessed_at <= until)
            && filter.status.is_none_or(|(from, to)| (from..=to).contains(&access.status_code))
            && filter.method.as_ref().is_none_or(|method| access.method == *method)
    }

    fn is_asked_of(&self, visitor: Option<&Visitor>) -> bool {
        let path_fits = |asked: &str, path: &str| match asked.strip_suffix('*') {
            Some(beginning) => path.starts_with(beginning),
            None => path == asked,
        };
        let (ip, path) = (self.filter.ip.as_deref(), self.filter.path.as_deref());
        ip.is_none_or(|ip| visitor.is_some_and(|visitor| visitor.ip == ip))
            && path.is_none_or(|path| visitor.is_some_and(|visitor| path_fits(path, &visitor.path)))
    }

    fn visitors(&self, packed: &PackedRow) -> Vec<Visitor> {
        packed
            .personal
            .as_deref()
            .and_then(|sealed| (self.open)(self.workspace, self.share, sealed))
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or_default()
    }

    fn row(
        &self,
        event_id: EventId,
        index: usize,
        access: &Access,
        visitor: Option<Visitor>,
    ) -> Result<AccessRow, ViewError> {
        let mut row = AccessRow {
            event_id,
            index: u16::try_from(index).unwrap_or(u16::MAX),
            share_id: self.share,
            accessed_at: access.accessed_at,
            method: access.method.clone(),
            status_code: access.status_code,
            latency_ms: access.latency_ms,
            bytes_in: access.bytes_in,
            bytes_out: access.bytes_out,
            denied: access.denied,
            ended_by: access.ended_by,
            running: access.running,
            repeat: access.repeat,
            visitor,
        };
        if access.running
            && let Some(end) = summary::end_of(self.summary, event_id, index)?
        {
            row.latency_ms = end.latency_ms;
            row.bytes_in = end.bytes_in;
            row.bytes_out = end.bytes_out;
            row.ended_by = end.ended_by;
            row.running = false;
        }
        Ok(row)
    }
}

fn packed_row(row: &Row<'_>) -> rusqlite::Result<PackedRow> {
    Ok(PackedRow {
        recorded_at: row.get(0)?,
        seq: unsigned(row.get(1)?),
        event_id: EventId::new(row.get::<_, Uuid>(2)?),
        version: row.get(3)?,
        data: row.get(4)?,
        personal: row.get(5)?,
    })
}

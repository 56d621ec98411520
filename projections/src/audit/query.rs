//! Questions to the index: which facts fit, newest first; what follows a number, oldest first; which number a moment had.
//!
//! Claims are in the index, so that numbers have no gaps, and in no answer. Numbers are those of (workspace, family), from 1, as the API shows them. They grow with time, so a moment is found
//! by halving.

use std::collections::BTreeMap;

use domain::{
    ids::WorkspaceId,
    recorded::{Family, StreamName},
    time::Timestamp,
};
use rusqlite::{Connection, Row, ToSql, types::Type};
use uuid::Uuid;

use super::BOOKKEEPING;
use crate::view::{Pool, ViewError, position, unsigned};

/// The most events that one page looks at: with filters that hardly anything fits it answers with what it found and
/// where to go on.
pub const SCAN_MAX: usize = 20_000;

/// Which facts; what is `None` or empty does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of one of these types.
    pub types: Vec<String>,
    /// Caused by this key or agent, or this part of the hub.
    pub actor: Option<String>,
    /// Concerning all of these.
    pub things: Vec<Uuid>,
    /// Recorded at this moment or later.
    pub since: Option<Timestamp>,
    /// Recorded at this moment or earlier.
    pub until: Option<Timestamp>,
}

/// Where an event stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub family: Family,
    /// Its number in the workspace's family.
    pub seq: u64,
    /// The log's own position.
    pub position: u64,
    pub recorded_at: Timestamp,
    pub event_type: String,
    pub actor: String,
    pub stream: StreamName,
    pub revision: u64,
}

/// Part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    pub rows: Vec<AuditRow>,
    /// Go on below this number. A page may be short, even empty, and yet have more behind it: its work was done.
    pub next: Option<u64>,
}

/// What follows a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Following {
    pub rows: Vec<AuditRow>,
    /// The last event that was looked at, whether it fits or not: its number, and its position in the log.
    pub reached: Option<(u64, u64)>,
    /// There may be more behind it.
    pub more: bool,
}

/// What is known of one family of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// The first number that is still there.
    pub first: u64,
    pub last: u64,
}

/// What facts have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditCounts {
    pub events: u64,
    /// The earliest and the latest of them.
    pub span: Option<(Timestamp, Timestamp)>,
    pub by_type: BTreeMap<String, u64>,
    pub by_actor: BTreeMap<String, u64>,
    /// By the hour's beginning.
    pub by_hour: BTreeMap<Timestamp, u64>,
    /// Whether that is all; if not, older ones fit the filter as well.
    pub complete: bool,
}

/// What is no [`BOOKKEEPING`], in the words of the layout's indexes: SQLite uses them for a question in the same words.
const SHOWN: &str = "type NOT GLOB 'claim.*'";
const HOUR_MS: i64 = 3_600_000;

/// Asks the index. Cheap to clone; queries never wait for the writer.
#[derive(Debug, Clone)]
pub struct AuditReader {
    pool: Pool,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Visit {
    On,
    Enough,
}

impl AuditReader {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Facts of a workspace that fit, newest first, with numbers below `below`.
    ///
    /// # Errors
    /// See [`ViewError`]; so for every question below.
    pub fn facts(
        &self,
        workspace: WorkspaceId,
        filter: &AuditFilter,
        below: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, ViewError> {
        let mut rows = Vec::new();
        let next = self.walk(workspace, filter, below, SCAN_MAX, &mut |row| {
            rows.push(row);
            if rows.len() > limit { Visit::Enough } else { Visit::On }
        })?;
        let is_more = rows.len() > limit;
        rows.truncate(limit);
        let next = if is_more { rows.last().map(|row| row.seq) } else { next };
        Ok(AuditPage { rows, next })
    }

    /// Counts the newest facts that fit, at most `most` that it has to look at.
    pub fn counts(
        &self,
        workspace: WorkspaceId,
        filter: &AuditFilter,
        most: usize,
    ) -> Result<AuditCounts, ViewError> {
        let mut counts = AuditCounts::default();
        let next = self.walk(workspace, filter, None, most, &mut |row| {
            counts.events += 1;
            let at = row.recorded_at;
            counts.span = Some(counts.span.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
            *counts.by_type.entry(row.event_type).or_default() += 1;
            *counts.by_actor.entry(row.actor).or_default() += 1;
            let hour = Timestamp::from_millis(at.millis().div_euclid(HOUR_MS) * HOUR_MS);
            *counts.by_hour.entry(hour).or_default() += 1;
            Visit::On
        })?;
        counts.complete = next.is_none();
        Ok(counts)
    }

    /// Events of one family with numbers above `after`, oldest first; with types, only those.
    pub fn following(
        &self,
        workspace: WorkspaceId,
        family: Family,
        types: &[String],
        after: u64,
        limit: usize,
    ) -> Result<Following, ViewError> {
        self.pool.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT seq, position, recorded_at, type, actor, stream, revision, family FROM events
                 WHERE workspace = ?1 AND family = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
            )?;
            let most = i64::try_from(SCAN_MAX).unwrap_or(i64::MAX);
            let values = (workspace.uuid(), family as u8, position(after), most);
            let mut found = statement.query(values)?;
            let mut answer = Following::default();
            let mut seen = 0;
            while answer.rows.len() < limit
                && let Some(row) = found.next()?
            {
                let row = read(row)?;
                seen += 1;
                answer.reached = Some((row.seq, row.position));
                let wanted = types.is_empty() || types.contains(&row.event_type);
                if wanted && !row.event_type.starts_with(BOOKKEEPING) {
                    answer.rows.push(row);
                }
            }
            answer.more = answer.rows.len() == limit || seen == SCAN_MAX;
            Ok(answer)
        })
    }

    /// The last number of a family that stands at a position of the log or before it; 0 when there is none.
    pub fn number_before(
        &self,
        workspace: WorkspaceId,
        family: Family,
        position: u64,
    ) -> Result<u64, ViewError> {
        self.pool.with(|db| last_that(db, workspace, family, |at, _| at <= position))
    }

    /// The event of a number.
    pub fn event(
        &self,
        workspace: WorkspaceId,
        family: Family,
        seq: u64,
    ) -> Result<Option<AuditRow>, ViewError> {
        let found = self.following(workspace, family, &[], seq.saturating_sub(1), 1)?;
        Ok(found.rows.into_iter().find(|row| row.seq == seq))
    }

    /// The numbers that a family of a workspace has; `None` before its first event.
    pub fn retained(&self, workspace: WorkspaceId, family: Family) -> Result<Option<Retained>, ViewError> {
        self.pool.with(|db| retained(db, workspace, family))
    }

    /// The last number of a family at a moment; 0 before its first one, and before what was retired the last number of
    /// that.
    pub fn number_at(&self, workspace: WorkspaceId, family: Family, at: Timestamp) -> Result<u64, ViewError> {
        self.pool.with(|db| number_at(db, workspace, family, at))
    }

    /// As [`AuditReader::facts`] with another limit of work; adds the numbers that it finds.
    #[cfg(test)]
    pub(super) fn walk_at_most(
        &self,
        workspace: WorkspaceId,
        filter: &AuditFilter,
        below: Option<u64>,
        most: usize,
        found: &mut Vec<u64>,
    ) -> Result<Option<u64>, ViewError> {
        self.walk(workspace, filter, below, most, &mut |row| {
            found.push(row.seq);
            Visit::On
        })
    }

    /// Visits facts that fit, newest first; looks at `most` of them. Answers the number below which to go on, if it did
    /// not see all.
    fn walk(
        &self,
        workspace: WorkspaceId,
        filter: &AuditFilter,
        below: Option<u64>,
        most: usize,
        visit: &mut dyn FnMut(AuditRow) -> Visit,
    ) -> Result<Option<u64>, ViewError> {
        self.pool.with(|db| {
            let (first, last) = bounds(db, workspace, filter, below)?;
            let (sql, values) = query(workspace, filter, first, last);
            let mut statement = db.prepare_cached(&sql)?;
            let values: Vec<&dyn ToSql> = values.iter().map(AsRef::as_ref).collect();
            let mut found = statement.query(values.as_slice())?;
            let mut seen = 0;
            while let Some(row) = found.next()? {
                let (fits, row) = (row.get::<_, bool>(8)?, read(row)?);
                let seq = row.seq;
                seen += 1;
                if fits && visit(row) == Visit::Enough {
                    return Ok(Some(seq));
                }
                if seen == most {
                    return Ok((seq > first).then_some(seq));
                }
            }
            Ok(None)
        })
    }
}

/// Which numbers can fit at all: the first and the last one.
fn bounds(
    db: &Connection,
    workspace: WorkspaceId,
    filter: &AuditFilter,
    below: Option<u64>,
) -> Result<(u64, u64), ViewError> {
    let first = match filter.since {
        Some(since) => number_at(db, workspace, Family::Facts, since.plus_ms(-1))? + 1,
        None => 1,
    };
    let last = match filter.until {
        Some(until) => number_at(db, workspace, Family::Facts, until)?,
        None => u64::MAX,
    };
    Ok((first, below.map_or(last, |below| last.min(below.saturating_sub(1)))))
}

type Values = Vec<Box<dyn ToSql>>;

/// The question that walks the index which leaves least to look at; its last column says whether a fact fits.
fn query(workspace: WorkspaceId, filter: &AuditFilter, first: u64, last: u64) -> (String, Values) {
    let mut values: Values =
        vec![Box::new(workspace.uuid()), Box::new(position(first)), Box::new(position(last))];
    let mut place = |value: Box<dyn ToSql>| {
        values.push(value);
        format!("?{}", values.len())
    };
    let mut things = filter.things.iter();
    let mut fits = Vec::new();
    let from = if let Some(thing) = things.next() {
        let thing = place(Box::new(*thing));
        format!(
            "concerns c CROSS JOIN events e ON e.workspace = ?1 AND e.family = 0 AND e.seq = c.seq
             WHERE c.workspace = ?1 AND c.thing = {thing} AND c.seq BETWEEN ?2 AND ?3 ORDER BY c.seq DESC"
        )
    } else {
        let (index, term) = match (filter.types.as_slice(), &filter.actor) {
            ([only], _) => {
                ("INDEXED BY facts_by_type", format!("AND e.type = {}", place(Box::new(only.clone()))))
            }
            (_, Some(actor)) => {
                ("INDEXED BY facts_by_actor", format!("AND e.actor = {}", place(Box::new(actor.clone()))))
            }
            (_, None) => ("", String::new()),
        };
        format!(
            "events e {index} WHERE e.workspace = ?1 AND e.family = 0 AND {SHOWN} {term} AND e.seq BETWEEN ?2 AND ?3
             ORDER BY e.seq DESC"
        )
    };
    for thing in things {
        let thing = place(Box::new(*thing));
        fits.push(format!(
            "EXISTS (SELECT 1 FROM concerns d WHERE d.workspace = ?1 AND d.thing = {thing} AND d.seq = e.seq)"
        ));
    }
    if !filter.types.is_empty() {
        let types: Vec<String> = filter.types.iter().map(|name| place(Box::new(name.clone()))).collect();
        fits.push(format!("e.type IN ({})", types.join(", ")));
    }
    if let Some(actor) = &filter.actor {
        fits.push(format!("e.actor = {}", place(Box::new(actor.clone()))));
    }
    let columns = "e.seq, e.position, e.recorded_at, e.type, e.actor, e.stream, e.revision, e.family";
    let fits = if fits.is_empty() { "TRUE".to_owned() } else { fits.join(" AND ") };
    (format!("SELECT {columns}, {fits} FROM {from}"), values)
}

fn read(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let wrong = |column: usize, what: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, what.to_owned().into())
    };
    let stream: String = row.get(5)?;
    let family: usize = row.get::<_, u8>(7)?.into();
    Ok(AuditRow {
        seq: unsigned(row.get(0)?),
        position: unsigned(row.get(1)?),
        recorded_at: Timestamp::from_millis(row.get(2)?),
        event_type: row.get(3)?,
        actor: row.get(4)?,
        stream: StreamName::parse(&stream).ok_or_else(|| wrong(5, "a stream has a name"))?,
        revision: unsigned(row.get(6)?),
        family: *Family::ALL.get(family).ok_or_else(|| wrong(7, "a family of this build"))?,
    })
}

fn retained(db: &Connection, workspace: WorkspaceId, family: Family) -> Result<Option<Retained>, ViewError> {
    let mut statement = db.prepare_cached(
        "SELECT (SELECT last FROM retired WHERE workspace = ?1 AND family = ?2),
                (SELECT max(seq) FROM events WHERE workspace = ?1 AND family = ?2)",
    )?;
    let (retired, last) = statement.query_row((workspace.uuid(), family as u8), |row| {
        Ok((
            row.get::<_, Option<i64>>(0)?.map_or(0, unsigned),
            row.get::<_, Option<i64>>(1)?.map_or(0, unsigned),
        ))
    })?;
    // Of what was retired altogether the numbers are still known.
    let last = last.max(retired);
    Ok((last > 0).then_some(Retained { first: retired + 1, last }))
}

fn number_at(
    db: &Connection,
    workspace: WorkspaceId,
    family: Family,
    at: Timestamp,
) -> Result<u64, ViewError> {
    last_that(db, workspace, family, |_, recorded_at| recorded_at <= at.millis())
}

/// Halves what is there until the last one is found of which this holds, by its position and its time; it holds of all
/// before it. Some 20 look-ups for a million events.
fn last_that(
    db: &Connection,
    workspace: WorkspaceId,
    family: Family,
    holds: impl Fn(u64, i64) -> bool,
) -> Result<u64, ViewError> {
    let Some(Retained { first, last }) = retained(db, workspace, family)? else { return Ok(0) };
    if last < first {
        return Ok(last);
    }
    let mut statement = db.prepare_cached(
        "SELECT seq, position, recorded_at FROM events WHERE workspace = ?1 AND family = ?2 AND seq >= ?3
         ORDER BY seq LIMIT 1",
    )?;
    // The answer is at least `low`, which is before the first one to begin with, and below `high`.
    let (mut low, mut high) = (first - 1, last + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let values = (workspace.uuid(), family as u8, position(middle));
        let (seq, found, recorded_at): (i64, i64, i64) =
            statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if holds(unsigned(found), recorded_at) {
            low = unsigned(seq);
        } else {
            high = middle;
        }
    }
    // What was retired lies before anything that one could ask for.
    Ok(if low < first { first - 1 } else { low })
}

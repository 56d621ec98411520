//! What became of webhooks' messages: each with its tries, the newest first.
//!
//! One writer ([`Deliveries`]) and any number of readers ([`DeliveriesReader`], cheap to clone) of one SQLite file. What
//! is to be sent next is not asked here: couriers know it from the log. A message that is done leaves after
//! [`DAYS_KEPT`] days; the log remembers it for as long as its retention says.

use std::path::{Path, PathBuf};

use domain::{
    delivery::{DeliveriesNoted, Event as DeliveryEvent, GaveUp, Planned, Problem, Source, Then, Tried},
    event::Event,
    ids::{DeliveryId, EventId, WebhookId, WorkspaceId},
    recorded::{Families, Family, Recorded},
    time::Timestamp,
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, named_params};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    catalog::{Page, PageRequest},
    routes::id_of,
    view::{self, Applied, KeptView, Mark, Pool, View, ViewError, position, unsigned},
};

const LAYOUT: &str = include_str!("deliveries/layout.sql");

/// How long a message that is done is shown, counted by the time in the log.
pub const DAYS_KEPT: i64 = 30;
/// How many tries of a message are shown, the newest.
pub const TRIES_SHOWN: usize = 20;

/// The writer's side. There is one per file.
#[derive(Debug)]
pub struct Deliveries {
    connection: Connection,
    file: PathBuf,
    mark: Mark,
}

impl Deliveries {
    /// A handle for queries.
    pub fn reader(&self) -> DeliveriesReader {
        DeliveriesReader { pool: Pool::new(self.file.clone()) }
    }
}

impl View for Deliveries {
    const NAME: &'static str = "deliveries";
    const FAMILIES: Families = Families::only(Family::Deliveries);

    fn checkpoint(&self) -> u64 {
        self.mark.checkpoint
    }

    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        let mut mark = self.mark;
        let transaction = self.connection.transaction()?;
        for (recorded, event) in batch.iter().filter(|(recorded, _)| recorded.position > self.mark.checkpoint)
        {
            match event {
                Some(Event::Delivery(DeliveryEvent::Noted(it))) => noted(&transaction, recorded, it)?,
                // Of another family; no reader brings one.
                Some(_) => {}
                None => mark.skipped += 1,
            }
            mark.checkpoint = recorded.position;
        }
        if let Some((last, _)) = batch.last() {
            forget(&transaction, last.recorded_at)?;
        }
        mark.write(&transaction)?;
        transaction.commit()?;
        self.mark = mark;
        Ok(())
    }
}

impl KeptView for Deliveries {
    fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        let file = folder.join("deliveries.sqlite");
        let (connection, mark) = view::open_only_file(folder, &file, LAYOUT, log_id)?;
        Ok(Self { connection, file, mark })
    }
    fn skipped(&self) -> u64 {
        self.mark.skipped
    }
    fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        view::dump_query(&self.connection, "SELECT * FROM deliveries ORDER BY webhook, sequence", sink)?;
        view::dump_query(&self.connection, "SELECT * FROM tries ORDER BY webhook, sequence, number", sink)
    }
}

fn noted(db: &Transaction<'_>, recorded: &Recorded, noted: &DeliveriesNoted) -> rusqlite::Result<()> {
    let Some(webhook) = id_of::<WebhookId>(&recorded.stream, "deliveries-") else { return Ok(()) };
    let webhook = webhook.uuid();
    noted.planned.iter().try_for_each(|it| planned(db, recorded, webhook, it))?;
    noted.tried.iter().try_for_each(|it| tried(db, webhook, it))
}

fn planned(db: &Transaction<'_>, recorded: &Recorded, webhook: Uuid, it: &Planned) -> rusqlite::Result<()> {
    // What was noted once more is here already.
    db.prepare_cached(
        "INSERT OR IGNORE INTO deliveries VALUES (:webhook, :sequence, :workspace, :id, :message_id, :event_type,
             :source, :created_at, 'pending', 0, :next_at, NULL, NULL)",
    )?
    .execute(named_params! {
        ":webhook": webhook,
        ":sequence": position(it.sequence),
        ":workspace": recorded.workspace.uuid(),
        ":id": it.delivery_id.uuid(),
        ":message_id": it.message_id.uuid(),
        ":event_type": it.event_type,
        ":source": json(&it.source),
        ":created_at": it.planned_at.millis(),
        ":next_at": it.due_at.millis(),
    })
    .map(|_| ())
}

fn tried(db: &Transaction<'_>, webhook: Uuid, it: &Tried) -> rusqlite::Result<()> {
    let (status, next_at, done_at, gave_up) = match it.then {
        Then::Delivered { .. } => ("delivered", None, Some(it.at), None),
        Then::Again { at } => ("retrying", Some(at), None, None),
        Then::GivenUp { reason } => ("dead_lettered", None, Some(it.at), Some(word(reason))),
    };
    let sequence = position(it.sequence);
    db.prepare_cached(
        "UPDATE deliveries SET status = :status, tries = :tries, next_at = :next_at, done_at = :done_at,
             gave_up = :gave_up
         WHERE webhook = :webhook AND sequence = :sequence",
    )?
    .execute(named_params! {
        ":webhook": webhook,
        ":sequence": sequence,
        ":status": status,
        ":tries": it.number,
        ":next_at": next_at.map(|at| at.millis()),
        ":done_at": done_at.map(|at| at.millis()),
        ":gave_up": gave_up,
    })?;
    db.prepare_cached("INSERT OR REPLACE INTO tries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute((
            webhook,
            sequence,
            it.number,
            it.at.millis(),
            it.latency_ms,
            it.status,
            it.problem.map(word),
        ))
        .map(|_| ())
}

/// Rows that were done long before that moment leave.
fn forget(db: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let before = now.plus_ms(-DAYS_KEPT * 86_400_000).millis();
    db.prepare_cached(
        "DELETE FROM tries WHERE (webhook, sequence) IN (SELECT webhook, sequence FROM deliveries WHERE done_at < ?1)",
    )?
    .execute([before])?;
    db.prepare_cached("DELETE FROM deliveries WHERE done_at < ?1")?.execute([before]).map(|_| ())
}

/// How a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not tried yet.
    Pending,
    Retrying,
    Delivered,
    /// Tried no more.
    DeadLettered,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Retrying, Self::Delivered, Self::DeadLettered];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
        }
    }
    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A message as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub sequence: u64,
    pub message_id: EventId,
    pub event_type: String,
    pub source: Source,
    pub created_at: Timestamp,
    pub status: Status,
    pub tries: u32,
    /// When it is tried next.
    pub next_at: Option<Timestamp>,
    pub done_at: Option<Timestamp>,
    pub gave_up: Option<GaveUp>,
    /// The newest tries, oldest first.
    pub attempts: Vec<TryRow>,
}

/// A try as lists show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TryRow {
    pub number: u32,
    pub at: Timestamp,
    pub latency_ms: u32,
    pub status: Option<u16>,
    pub problem: Option<Problem>,
}

/// How many messages stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: u64,
    pub delivered: u64,
    pub dead_lettered: u64,
}

const COLUMNS: &str =
    "id, sequence, message_id, event_type, source, created_at, status, tries, next_at, done_at, gave_up";

/// Asks what became of messages. Cheap to clone; queries run on read-only connections and never wait for the writer.
#[derive(Debug, Clone)]
pub struct DeliveriesReader {
    pool: Pool,
}

impl DeliveriesReader {
    /// Messages of a webhook, the newest first.
    ///
    /// # Errors
    /// See [`ViewError`]; so for the questions below.
    pub fn list(
        &self,
        workspace: WorkspaceId,
        webhook: WebhookId,
        status: Option<Status>,
        page: PageRequest<'_>,
    ) -> Result<Page<DeliveryRow>, ViewError> {
        let below = match page.cursor {
            None => u64::MAX,
            Some(text) => text.parse().map_err(|_| ViewError::InvalidCursor)?,
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM deliveries
             WHERE webhook = ?1 AND workspace = ?2 AND sequence < ?3 AND (?4 IS NULL OR status = ?4)
             ORDER BY sequence DESC LIMIT ?5"
        );
        self.pool.with(|connection| {
            let limit = i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1);
            let values = (webhook.uuid(), workspace.uuid(), position(below), status.map(Status::name), limit);
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_map(values, delivery_row)?;
            let mut rows = found.collect::<rusqlite::Result<Vec<_>>>()?;
            let more = rows.len() > page.limit;
            rows.truncate(page.limit);
            for row in &mut rows {
                row.attempts = tries_of(connection, webhook, row.sequence)?;
            }
            let next = rows.last().filter(|_| more).map(|row| row.sequence.to_string());
            Ok(Page { rows, next })
        })
    }

    /// A message of a webhook.
    pub fn one(
        &self,
        workspace: WorkspaceId,
        webhook: WebhookId,
        id: DeliveryId,
    ) -> Result<Option<DeliveryRow>, ViewError> {
        let sql =
            format!("SELECT {COLUMNS} FROM deliveries WHERE id = ?1 AND webhook = ?2 AND workspace = ?3");
        self.pool.with(|connection| {
            let values = (id.uuid(), webhook.uuid(), workspace.uuid());
            let row = connection.prepare_cached(&sql)?.query_row(values, delivery_row).optional()?;
            let Some(mut row) = row else { return Ok(None) };
            row.attempts = tries_of(connection, webhook, row.sequence)?;
            Ok(Some(row))
        })
    }

    /// How many messages of a webhook stand how.
    pub fn counts(&self, workspace: WorkspaceId, webhook: WebhookId) -> Result<Counts, ViewError> {
        self.pool.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT status, count(*) FROM deliveries WHERE webhook = ?1 AND workspace = ?2 GROUP BY status",
            )?;
            let mut rows = statement.query((webhook.uuid(), workspace.uuid()))?;
            let mut counts = Counts::default();
            while let Some(row) = rows.next()? {
                let count = unsigned(row.get(1)?);
                match Status::named(&row.get::<_, String>(0)?) {
                    Some(Status::Pending | Status::Retrying) => counts.waiting += count,
                    Some(Status::Delivered) => counts.delivered += count,
                    Some(Status::DeadLettered) => counts.dead_lettered += count,
                    None => {}
                }
            }
            Ok(counts)
        })
    }
}

fn tries_of(connection: &Connection, webhook: WebhookId, sequence: u64) -> rusqlite::Result<Vec<TryRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, at, latency_ms, status, problem FROM tries WHERE webhook = ?1 AND sequence = ?2
         ORDER BY number DESC LIMIT ?3",
    )?;
    let shown = i64::try_from(TRIES_SHOWN).unwrap_or(i64::MAX);
    let found = statement.query_map((webhook.uuid(), position(sequence), shown), |row| {
        Ok(TryRow {
            number: row.get(0)?,
            at: Timestamp::from_millis(row.get(1)?),
            latency_ms: row.get(2)?,
            status: row.get(3)?,
            problem: named(row, 4)?,
        })
    })?;
    let mut tries = found.collect::<rusqlite::Result<Vec<_>>>()?;
    tries.reverse();
    Ok(tries)
}

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<DeliveryRow> {
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Timestamp::from_millis));
    let source: String = row.get(4)?;
    let status: String = row.get(6)?;
    Ok(DeliveryRow {
        id: DeliveryId::new(row.get(0)?),
        sequence: unsigned(row.get(1)?),
        message_id: EventId::new(row.get(2)?),
        event_type: row.get(3)?,
        source: serde_json::from_str(&source).map_err(|_| wrong(4, "source"))?,
        created_at: Timestamp::from_millis(row.get(5)?),
        status: Status::named(&status).ok_or_else(|| wrong(6, "status"))?,
        tries: row.get(7)?,
        next_at: time(8)?,
        done_at: time(9)?,
        gave_up: named(row, 10)?,
        attempts: Vec::new(),
    })
}

fn wrong(column: usize, name: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, name.to_owned(), rusqlite::types::Type::Text)
}

/// A plain enum by its name on the wire.
fn named<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    let value = serde_json::Value::String(text);
    serde_json::from_value(value).map(Some).map_err(|_| wrong(column, "name"))
}

fn word<T: Serialize>(value: T) -> String {
    json(&value).trim_matches('"').to_owned()
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with string keys")
}

#[cfg(test)]
mod tests;

//! Where every recorded event of a workspace stands: by its number, its time, its type, its author, and by what it
//! concerns. The audit, the event feed and time travel find events here and read them from the log.
//!
//! It holds no payload: what an event says stands in the log alone, so that a rebuild is quick, and what is erased there
//! is erased everywhere. Facts are indexed in every way that somebody asks for; of accesses only the place is kept.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use domain::{
    event::Event,
    recorded::{Actor, Families, Family, Recorded},
    retention,
};
use rusqlite::{Connection, Transaction};
use uuid::Uuid;

use crate::view::{self, Applied, KeptView, Mark, Pool, View, ViewError, position};

mod query;
mod subjects;

pub use query::{AuditCounts, AuditFilter, AuditPage, AuditReader, AuditRow, Following, Retained, SCAN_MAX};

use subjects::Subjects;

const LAYOUT: &str = include_str!("audit/layout.sql");

/// The writer's side. There is one per file.
#[derive(Debug)]
pub struct Audit {
    connection: Connection,
    file: PathBuf,
    mark: Mark,
}

impl Audit {
    /// Opens the index in a folder of its own. One of another log or layout is discarded.
    ///
    /// # Errors
    /// [`ViewError`] when the folder or the file cannot be written.
    pub fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        let file = folder.join("audit.sqlite");
        let (connection, mark) = view::open_only_file(folder, &file, LAYOUT, log_id)?;
        Ok(Self { connection, file, mark })
    }

    /// A handle for queries.
    pub fn reader(&self) -> AuditReader {
        AuditReader::new(Pool::new(self.file.clone()))
    }
}

/// Remembers one event.
fn insert(transaction: &Transaction<'_>, recorded: &Recorded) -> rusqlite::Result<()> {
    let workspace = recorded.workspace.uuid();
    let family = recorded.family();
    transaction
        .prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
        .execute((
            workspace,
            family as u8,
            position(recorded.seq),
            position(recorded.position),
            recorded.recorded_at.millis(),
            &*recorded.event_type,
            actor(&recorded.actor),
            recorded.stream.as_str(),
            position(recorded.revision),
        ))?;
    if family != Family::Facts {
        return Ok(());
    }
    if &*recorded.event_type == SUMMED {
        return forget(transaction, recorded);
    }
    if recorded.event_type.starts_with(BOOKKEEPING) {
        return Ok(());
    }
    let mut concerns = transaction.prepare_cached("INSERT OR IGNORE INTO concerns VALUES (?1, ?2, ?3)")?;
    for thing in concerned(transaction, recorded)? {
        concerns.execute((workspace, thing, position(recorded.seq)))?;
    }
    Ok(())
}

/// The things that a fact concerns: its own, those that it names, and those that its own belongs to.
fn concerned(transaction: &Transaction<'_>, recorded: &Recorded) -> rusqlite::Result<BTreeSet<Uuid>> {
    let workspace = recorded.workspace.uuid();
    let Subjects { thing, others } = subjects::of(recorded);
    let mut concerned: BTreeSet<Uuid> = others.iter().copied().chain(thing).collect();
    let Some(thing) = thing else { return Ok(concerned) };
    // A tunnel may move to another agent, and belongs to both of them then.
    if recorded.revision == 1 || &*recorded.event_type == "tunnel.updated" {
        let mut belongs = transaction.prepare_cached("INSERT OR IGNORE INTO things VALUES (?1, ?2, ?3)")?;
        for owner in &others {
            belongs.execute((workspace, thing, owner))?;
        }
    }
    let mut owners =
        transaction.prepare_cached("SELECT owner FROM things WHERE workspace = ?1 AND thing = ?2")?;
    let mut owners_of = |thing: Uuid| -> rusqlite::Result<Vec<Uuid>> {
        owners.query_map((workspace, thing), |row| row.get(0))?.collect()
    };
    // A share belongs to its tunnel, and with it to the tunnel's agent.
    for owner in owners_of(thing)? {
        concerned.insert(owner);
        concerned.extend(owners_of(owner)?);
    }
    Ok(concerned)
}

/// Types that begin like this are the hub's own bookkeeping of who has which name, port or slug. Nobody outside is shown
/// them: a random slug opens its link. They have numbers, so that numbers have no gaps, and are found by nothing else.
const BOOKKEEPING: &str = "claim.";
/// Recorded before accesses are retired: it says where their numbers stood.
const SUMMED: &str = "history.summed";

/// Forgets where the accesses stand that are about to be retired. The hub's own fact concerns nothing else.
fn forget(transaction: &Transaction<'_>, recorded: &Recorded) -> rusqlite::Result<()> {
    let Ok(Event::Retention(retention::Event::Summed(summed))) = recorded.event() else { return Ok(()) };
    let family = Family::Accesses as u8;
    for last in &summed.numbers {
        let values = (last.workspace_id.uuid(), family, position(last.number));
        transaction.prepare_cached("INSERT OR REPLACE INTO retired VALUES (?1, ?2, ?3)")?.execute(values)?;
        transaction
            .prepare_cached("DELETE FROM events WHERE workspace = ?1 AND family = ?2 AND seq <= ?3")?
            .execute(values)?;
    }
    Ok(())
}

/// An author as the index knows it.
fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Key(id) => id.to_string(),
        Actor::Agent(id) => id.to_string(),
        Actor::System(name) => name.clone(),
    }
}

impl View for Audit {
    const NAME: &'static str = "audit";
    const FAMILIES: Families = Families::only(Family::Facts).and(Family::Accesses);

    fn reads(_recorded: &Recorded) -> bool {
        false
    }

    fn checkpoint(&self) -> u64 {
        self.mark.checkpoint
    }

    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        let mut mark = self.mark;
        let transaction = self.connection.transaction()?;
        for (recorded, _) in batch.iter().filter(|(recorded, _)| recorded.position > self.mark.checkpoint) {
            insert(&transaction, recorded)?;
            mark.checkpoint = recorded.position;
        }
        mark.write(&transaction)?;
        transaction.commit()?;
        self.mark = mark;
        Ok(())
    }
}

impl KeptView for Audit {
    fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        Self::open(folder, log_id)
    }
    fn skipped(&self) -> u64 {
        self.mark.skipped
    }
    fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        for sql in [
            "SELECT * FROM events ORDER BY workspace, family, seq",
            "SELECT * FROM concerns ORDER BY workspace, thing, seq",
            "SELECT * FROM things ORDER BY workspace, thing, owner",
            "SELECT * FROM retired ORDER BY workspace, family",
        ] {
            view::dump_query(&self.connection, sql, sink)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! What lists and single GETs show beyond [`crate::routes::Routes`]: agents, tunnels, shares and keys with their times.
//!
//! One writer ([`Catalog`]) and any number of readers ([`CatalogReader`], cheap to clone) of one SQLite file. The rows
//! say what facts decided; whether an agent answers right now and what visitors did is asked elsewhere.

use std::path::{Path, PathBuf};

use domain::recorded::{Families, Family};
use rusqlite::Connection;
use uuid::Uuid;

use crate::view::{self, Applied, KeptView, Mark, Pool, View, ViewError};

mod apply;
mod commands;
mod people;
mod query;

pub use commands::CommandRow;
pub use people::{Numbers, TeammateRow};
pub use query::{
    AgentRow, FormerShare, KeyRow, Page, PageRequest, ShareFilter, ShareKey, ShareRow, TunnelFilter,
    TunnelRow,
};

const LAYOUT: &str = include_str!("catalog/layout.sql");

/// The writer's side. There is one per file.
#[derive(Debug)]
pub struct Catalog {
    connection: Connection,
    file: PathBuf,
    mark: Mark,
}

impl Catalog {
    /// Opens the catalog in a folder of its own. A catalog of another log or layout is discarded.
    ///
    /// # Errors
    /// [`ViewError`] when the folder or the file cannot be written.
    pub fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        let file = folder.join("catalog.sqlite");
        let (connection, mark) = view::open_only_file(folder, &file, LAYOUT, log_id)?;
        Ok(Self { connection, file, mark })
    }

    /// The position of the last event taken in.
    pub fn checkpoint(&self) -> u64 {
        self.mark.checkpoint
    }

    /// Takes in events, in one transaction with the checkpoint; `None` stands for an event of an unknown type.
    ///
    /// # Errors
    /// [`ViewError::Sqlite`]: nothing of the batch was taken in.
    pub fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        let mut mark = self.mark;
        let transaction = self.connection.transaction()?;
        for (recorded, event) in batch.iter().filter(|(recorded, _)| recorded.position > self.mark.checkpoint)
        {
            match event {
                Some(event) => apply::event(&transaction, recorded, event)?,
                None => mark.skipped += 1,
            }
            mark.checkpoint = recorded.position;
        }
        mark.write(&transaction)?;
        transaction.commit()?;
        self.mark = mark;
        Ok(())
    }

    /// A handle for queries.
    pub fn reader(&self) -> CatalogReader {
        CatalogReader { pool: Pool::new(self.file.clone()) }
    }
}

impl View for Catalog {
    const NAME: &'static str = "catalog";
    const FAMILIES: Families = Families::only(Family::Facts);

    fn checkpoint(&self) -> u64 {
        self.checkpoint()
    }
    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        self.apply(batch)
    }
}

impl KeptView for Catalog {
    fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        Self::open(folder, log_id)
    }
    fn skipped(&self) -> u64 {
        self.mark.skipped
    }
    fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        for table in ["agents", "tunnels", "shares", "keys", "commands"] {
            view::dump_query(
                &self.connection,
                &format!("SELECT * FROM {table} ORDER BY workspace, id"),
                sink,
            )?;
        }
        Ok(())
    }
}

/// Asks the catalog. Cheap to clone; queries run on read-only connections and never wait for the writer.
#[derive(Debug, Clone)]
pub struct CatalogReader {
    pool: Pool,
}

#[cfg(test)]
mod tests;

//! What every view that is kept in SQLite shares: the checkpoint in the transaction of the rows, and when a file is
//! thrown away.
//!
//! Nothing exists only in a view. So a file that does not fit (another log's, another layout's, damaged, written by a
//! build that skipped what this one may understand) is deleted without a word and filled again from the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use domain::{
    event::Event,
    recorded::{Families, Recorded},
};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction};
use uuid::Uuid;

/// A recorded event and what it says; `None` when this build does not know its type or cannot read its data, and for a
/// view that does not ask ([`View::reads`]).
pub type Applied = (Recorded, Option<Event>);

/// An event as the view wants it.
pub fn prepare<V: View>(recorded: Recorded) -> Applied {
    let event = if V::reads(&recorded) { recorded.event().ok() } else { None };
    (recorded, event)
}

/// Whether the view asked what the event says and got no answer.
pub fn is_unknown<V: View>((recorded, event): &Applied) -> bool {
    event.is_none() && V::reads(recorded)
}

/// A fold of the log with a checkpoint of its own.
pub trait View: Send + 'static {
    /// The word for telemetry, and the name of its folder.
    const NAME: &'static str;
    /// What it reads.
    const FAMILIES: Families;
    /// Whether it wants to know what an event says, or only that it is there: reading costs more than all the rest.
    fn reads(_recorded: &Recorded) -> bool {
        true
    }

    /// The position of the last event that it has taken in; 0: none.
    fn checkpoint(&self) -> u64;

    /// Takes in events in log order, whole or not at all; those up to the checkpoint change nothing.
    ///
    /// # Errors
    /// [`ViewError`]: nothing of the batch has been taken in that a second attempt would take in again.
    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError>;
}

/// A view that is kept in a folder of its own, and can be thrown away and compared.
pub trait KeptView: View + Sized {
    /// Opens the view in a folder, which is made when missing, and emptied when it does not fit.
    ///
    /// # Errors
    /// The folder or its files cannot be written.
    fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError>;

    /// How many events it has skipped because their type was unknown.
    fn skipped(&self) -> u64;

    /// Hands out everything that the view says, in an order that depends on the content alone.
    ///
    /// # Errors
    /// The files cannot be read.
    fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError>;
}

/// Why a view could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("the view cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the view's folder cannot be used: {0}")]
    Files(#[from] io::Error),
    /// Answer 400: the caller made it up, or it is of another list.
    #[error("the cursor is none of this list")]
    InvalidCursor,
}

/// Who waits longer for another process (a backup, somebody's `sqlite3`) to let go of the file gets an error, and
/// the runner tries again.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// The write-ahead file is cut back to this after a checkpoint (bytes).
const WAL_BYTES_KEPT: u32 = 4 * 1024 * 1024;

const META: &str = "
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    layout TEXT NOT NULL,
    log_id BLOB NOT NULL,
    checkpoint INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    skipped_by TEXT NOT NULL
);";

/// Where a file stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The last event that went into this file.
    pub(crate) checkpoint: u64,
    /// Events of an unknown type among those.
    pub(crate) skipped: u64,
}

impl Mark {
    pub(crate) fn write(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached("UPDATE meta SET checkpoint = ?1, skipped = ?2, skipped_by = ?3")?
            .execute((position(self.checkpoint), position(self.skipped), BUILD))
            .map(|_| ())
    }
}

const BUILD: &str = env!("CARGO_PKG_VERSION");

/// SQLite's integers are signed; no log reaches the other half.
pub(crate) fn position(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back from [`position`].
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Opens the only file of a view for its one writer; when it does not fit, the folder is emptied first.
pub(crate) fn open_only_file(
    folder: &Path,
    file: &Path,
    layout: &str,
    log_id: Uuid,
) -> Result<(Connection, Mark), ViewError> {
    fs::create_dir_all(folder)?;
    if let Some(found) = open_file(file, layout, log_id)? {
        return Ok(found);
    }
    empty_folder(folder)?;
    open_file(file, layout, log_id)?.ok_or_else(|| kept_nothing(file))
}

/// A file that was made a moment ago does not fit.
pub(crate) fn kept_nothing(path: &Path) -> ViewError {
    io::Error::other(format!("{} does not keep what is written", path.display())).into()
}

/// Opens a file for its one writer; `None` when there is one that does not fit and has to go.
pub(crate) fn open_file(
    path: &Path,
    layout: &str,
    log_id: Uuid,
) -> Result<Option<(Connection, Mark)>, ViewError> {
    match try_open(path, layout, log_id) {
        Ok(found) => Ok(found),
        Err(error) if damaged(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn try_open(path: &Path, layout: &str, log_id: Uuid) -> rusqlite::Result<Option<(Connection, Mark)>> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A commit is not synced: after a power cut the file stands at an earlier commit, with the checkpoint of then.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.set_prepared_statement_cache_capacity(64);
    let known = connection.table_exists(None, "meta")?;
    let transaction = connection.transaction()?;
    if !known {
        transaction.execute_batch(META)?;
        transaction.execute_batch(layout)?;
        transaction.execute("INSERT INTO meta VALUES (1, ?1, ?2, 0, 0, ?3)", (layout, log_id, BUILD))?;
    }
    let fits = transaction
        .query_row("SELECT layout, log_id, checkpoint, skipped, skipped_by FROM meta", [], |row| {
            let mark = Mark { checkpoint: unsigned(row.get(2)?), skipped: unsigned(row.get(3)?) };
            let same = row.get::<_, String>(0)? == layout && row.get::<_, Uuid>(1)? == log_id;
            // What another build did not know this one may know.
            let understood = mark.skipped == 0 || row.get::<_, String>(4)? == BUILD;
            Ok((same && understood).then_some(mark))
        })
        .optional()?
        .flatten();
    transaction.commit()?;
    Ok(fits.map(|mark| (connection, mark)))
}

fn damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    if let rusqlite::Error::SqliteFailure(failure, _) = error {
        // `Unknown` is "no such column": a file of another layout that happens to have a `meta`.
        let codes = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase, ErrorCode::Unknown];
        return codes.contains(&failure.code);
    }
    matches!(
        error,
        rusqlite::Error::SqlInputError { .. }
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

/// Deletes a folder with everything in it and makes it again, empty.
pub(crate) fn empty_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(folder)
}

/// Read-only connections to one file: writers never wait for them, nor they for writers (WAL).
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Connections that are kept for the next query; more exist only while more queries run.
const IDLE_MAX: usize = 4;

impl Pool {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path: path.into(), idle: Arc::default() }
    }

    /// Runs a query on a connection of its own.
    pub(crate) fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, ViewError>,
    ) -> Result<T, ViewError> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => read_only(&self.path)?,
        };
        let answer = query(&connection);
        // After an error the connection may be in any state: the next query gets a new one.
        if answer.is_ok() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
        }
        answer
    }
}

pub(crate) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Hands out every row of a query, each value with its type and length before it, so that no two contents look alike.
pub(crate) fn dump_query(
    connection: &Connection,
    sql: &str,
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), ViewError> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    sink(sql.as_bytes());
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            let mut put = |kind: u8, bytes: &[u8]| {
                sink(&[kind]);
                sink(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
                sink(bytes);
            };
            match row.get_ref(column)? {
                ValueRef::Null => put(0, &[]),
                ValueRef::Integer(value) => put(1, &value.to_le_bytes()),
                ValueRef::Real(value) => put(2, &value.to_le_bytes()),
                ValueRef::Text(text) => put(3, text),
                ValueRef::Blob(bytes) => put(4, bytes),
            }
        }
    }
    Ok(())
}

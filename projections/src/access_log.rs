//! What visitors did: every access of every share, newest first, and the totals of each share.
//!
//! Cheap to write is the first goal. A packed event stays one row, as it was recorded and with its personal part
//! sealed; it is taken apart when somebody reads. There is one file per day of `recorded_at`, so that retention
//! deletes files, and one summary file for what is true of all days together.
//!
//! **Several files, one checkpoint.** SQLite commits one file at a time. A batch goes into the day files first, each
//! with a checkpoint of its own, and into the summary last; every file skips what lies up to its own checkpoint. A
//! crash between two files therefore leaves some files ahead, and the batch, applied again, changes only the others.
//! A power cut may also take back the last commits of one file and not of another (commits are not synced): so the
//! summary remembers what each day's file must hold, and [`AccessLog::open`] goes back to the earliest position that
//! any file is missing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use domain::{
    access::{self, ShareAccessed},
    event::Event,
    recorded::{Families, Family, Personal, Recorded},
    retention,
};
use rusqlite::Connection;
use uuid::Uuid;

use crate::view::{self, Applied, KeptView, Mark, Pool, View, ViewError, position};

mod facets;
mod query;
mod retiring;
mod stats;
mod summary;

pub use query::{
    AccessFilter, AccessLogReader, AccessPage, AccessRow, Opener, SCAN_EVENTS_MAX, WALK_EVENTS_MAX,
};
pub use retiring::{Summing, Sums};
pub use stats::{AccessStats, Top};
pub use summary::{ShareTotals, TunnelTotals};

use summary::Summary;

const DAY_LAYOUT: &str = include_str!("access_log/day.sql");
/// Pages in the write-ahead file of a day before they move to the file itself: the larger, the fewer syncs (16 MiB).
const DAY_WAL_PAGES: u32 = 4_096;
/// Positions of facts that say nothing here and are passed over without a commit; after a crash they are passed over
/// again.
const BEHIND_MAX: u64 = 16_384;

/// The writer's side. There is one per folder.
#[derive(Debug)]
pub struct AccessLog {
    folder: PathBuf,
    log_id: Uuid,
    summary: Summary,
    /// The file that is written now.
    day: Option<DayFile>,
    /// What every file has.
    checkpoint: u64,
}

#[derive(Debug)]
struct DayFile {
    day: i64,
    connection: Connection,
    mark: Mark,
}

/// An event of this view with what it says.
type Packed<'a> = (&'a Recorded, &'a ShareAccessed);

impl AccessLog {
    /// Opens the view in a folder of its own. One of another log or layout is discarded.
    ///
    /// # Errors
    /// [`ViewError`] when the folder or a file cannot be written.
    pub fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        std::fs::create_dir_all(folder)?;
        let summary = match Summary::open(folder, log_id)? {
            Some(summary) => summary,
            None => {
                view::empty_folder(folder)?;
                Summary::open(folder, log_id)?.ok_or_else(|| view::kept_nothing(folder))?
            }
        };
        retiring::tidy(folder, &summary)?;
        let mut log =
            Self { folder: folder.to_owned(), log_id, checkpoint: summary.checkpoint(), day: None, summary };
        log.checkpoint = log.complete_up_to()?;
        Ok(log)
    }

    /// The position up to which every file has everything.
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// Takes in events; `None` stands for an event of an unknown type. See the file's head for what happens when it
    /// is killed on the way.
    ///
    /// # Errors
    /// [`ViewError`]: applying the same batch again takes in what is missing and nothing twice.
    pub fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        // What comes before a retirement is counted before it.
        let mut rest = batch;
        while let Some(at) = rest.iter().position(|(_, event)| matches!(event, Some(Event::Retention(_)))) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                self.count(before)?;
            }
            if let Some(((recorded, Some(Event::Retention(event))), after)) = from.split_first() {
                self.retire(recorded, event)?;
                rest = after;
            }
        }
        if rest.is_empty() { Ok(()) } else { self.count(rest) }
    }

    fn count(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        let last = batch.last().map_or(0, |(recorded, _)| recorded.position);
        let nothing_to_write = !batch.iter().any(|(recorded, _)| Self::reads(recorded));
        if nothing_to_write && last.saturating_sub(self.summary.checkpoint()) < BEHIND_MAX {
            self.checkpoint = self.checkpoint.max(last);
            return Ok(());
        }
        let by_day = packed_by_day(batch);
        for (day, packed) in &by_day {
            self.day_file(*day)?.append(packed)?;
        }
        self.summary.apply(batch, &by_day)?;
        self.checkpoint = self.checkpoint.max(last);
        Ok(())
    }

    /// A handle for queries.
    pub fn reader(&self) -> AccessLogReader {
        AccessLogReader::new(self.folder.clone(), Pool::new(summary::file(&self.folder)))
    }

    fn day_file(&mut self, day: i64) -> Result<&mut DayFile, ViewError> {
        if self.day.as_ref().is_none_or(|open| open.day != day) {
            self.day = None;
            self.day = Some(DayFile::open(&self.folder, day, self.log_id)?);
        }
        Ok(self.day.as_mut().expect("opened above"))
    }

    /// The earliest position that some file is missing something after.
    fn complete_up_to(&self) -> Result<u64, ViewError> {
        let mut complete = self.summary.checkpoint();
        for known in self.summary.days()? {
            let file = day_file_path(&self.folder, known.day);
            if !file.exists() {
                complete = complete.min(known.first_position - 1);
                continue;
            }
            let held = DayFile::open(&self.folder, known.day, self.log_id)?.mark.checkpoint;
            if held < known.last_position {
                complete = complete.min(held.max(known.first_position - 1));
            }
        }
        Ok(complete)
    }
}

fn packed_by_day(batch: &[Applied]) -> BTreeMap<i64, Vec<Packed<'_>>> {
    let mut by_day: BTreeMap<i64, Vec<Packed<'_>>> = BTreeMap::new();
    for (recorded, event) in batch {
        if let Some(Event::Access(access::Event::Accessed(accessed))) = event {
            by_day.entry(recorded.recorded_at.day()).or_default().push((recorded, accessed));
        }
    }
    by_day
}

/// The file of a day. The name has the day as a person writes it.
fn day_file_path(folder: &Path, day: i64) -> PathBuf {
    let noon =
        domain::time::Timestamp::from_millis(day.saturating_mul(86_400_000).saturating_add(43_200_000));
    let text = noon.to_string();
    folder.join(format!("accesses-{}.sqlite", text.get(..10).unwrap_or(&text)))
}

impl DayFile {
    fn open(folder: &Path, day: i64, log_id: Uuid) -> Result<Self, ViewError> {
        let path = day_file_path(folder, day);
        let found = view::open_file(&path, DAY_LAYOUT, log_id)?;
        let (connection, mark) = match found {
            Some(found) => found,
            None => {
                remove_file(&path)?;
                view::open_file(&path, DAY_LAYOUT, log_id)?.ok_or_else(|| view::kept_nothing(&path))?
            }
        };
        connection.pragma_update(None, "wal_autocheckpoint", DAY_WAL_PAGES)?;
        Ok(Self { day, connection, mark })
    }

    /// Appends what the file does not have yet, in one transaction with its checkpoint.
    fn append(&mut self, packed: &[Packed<'_>]) -> Result<(), ViewError> {
        let mut mark = self.mark;
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO packed VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for (recorded, accessed) in packed {
                if recorded.position <= self.mark.checkpoint {
                    continue;
                }
                mark.checkpoint = recorded.position;
                let times = accessed.accesses.iter().map(|access| access.accessed_at.millis());
                // An event that only completes others has no row of its own.
                let Some((first, last)) = times.clone().min().zip(times.max()) else { continue };
                insert.execute((
                    position(recorded.position),
                    accessed.share_id.uuid(),
                    recorded.recorded_at.millis(),
                    position(recorded.seq),
                    first,
                    last,
                    facets::of(&accessed.accesses),
                    recorded.id.uuid(),
                    recorded.version,
                    &*recorded.data,
                    sealed(&recorded.personal),
                ))?;
            }
        }
        mark.write(&transaction)?;
        transaction.commit()?;
        self.mark = mark;
        Ok(())
    }
}

/// The personal part as it may lie on a disk: sealed, or not at all.
fn sealed(personal: &Personal) -> Option<&[u8]> {
    match personal {
        Personal::Sealed(bytes) => Some(bytes),
        // Opened parts are for readers. One that came here would outlive the destruction of its key.
        Personal::Open(_) | Personal::None | Personal::Erased => None,
    }
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

impl View for AccessLog {
    const NAME: &'static str = "accesses";
    // Of the facts it wants those about what was retired.
    const FAMILIES: Families = Families::only(Family::Accesses).and(Family::Facts);

    fn reads(recorded: &Recorded) -> bool {
        recorded.family() == Family::Accesses || retention::is_about(&recorded.event_type)
    }

    fn checkpoint(&self) -> u64 {
        self.checkpoint()
    }
    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        self.apply(batch)
    }
}

impl KeptView for AccessLog {
    fn open(folder: &Path, log_id: Uuid) -> Result<Self, ViewError> {
        Self::open(folder, log_id)
    }
    fn skipped(&self) -> u64 {
        self.summary.skipped()
    }
    fn dump(&self, sink: &mut dyn FnMut(&[u8])) -> Result<(), ViewError> {
        self.summary.dump(sink)?;
        for known in self.summary.days()? {
            let day = DayFile::open(&self.folder, known.day, self.log_id)?;
            view::dump_query(&day.connection, "SELECT * FROM packed ORDER BY position", sink)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

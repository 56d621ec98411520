//! Where the log of a data directory is: in the directory itself, or in a database.
//!
//! A directory whose log is in a database says so in a file of its own, `external/log.json`: its keyring and its views
//! belong to that log and to no other, and a hub that is started without the address must not begin a new one.

use std::{
    convert::Infallible,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    postgres::{Address, AddressError},
    segments::log_dir,
};

/// The address of an external log as the operator wrote it. It may have a password, so it shows nothing of itself, and
/// reading it from the command line never fails: what clap says of a wrong value repeats it.
#[derive(Clone, PartialEq, Eq)]
pub struct LogUrl(String);

impl FromStr for LogUrl {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for LogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogUrl(…)")
    }
}

impl LogUrl {
    /// Whether it says anything: an empty variable is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a log is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In the data directory.
    Embedded,
    Postgres(Box<Address>),
}

/// Why it is not clear where the log is.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(
        "{} has an event log of its own, which would be left behind; give a log in a database another data directory",
        .0.display()
    )]
    HasItsOwn(PathBuf),
    #[error("the event log of {} is in {server}; give its address with --log or HUB_LOG", data.display())]
    IsElsewhere { data: PathBuf, server: String },
    #[error(
        "{} belongs to the event log {known}, and there is {found}; is it another database, or one made anew?",
        data.display()
    )]
    Another { data: PathBuf, known: Uuid, found: Uuid },
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// What a data directory says of its log in a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    /// Of this file.
    format: u32,
    log_id: Uuid,
    /// For words.
    server: String,
}

/// Where the log of a data directory is, as the operator and the directory say. Makes and changes nothing.
///
/// # Errors
/// [`PlaceError`]: they contradict each other, or the address is none.
pub fn of(data: &Path, url: Option<&LogUrl>) -> Result<Place, PlaceError> {
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return match note(data)? {
            Some(note) => Err(PlaceError::IsElsewhere { data: data.to_owned(), server: note.server }),
            None => Ok(Place::Embedded),
        };
    };
    let address = Address::parse(&url.0)?;
    if log_dir(data).exists() {
        return Err(PlaceError::HasItsOwn(data.to_owned()));
    }
    Ok(Place::Postgres(Box::new(address)))
}

/// The log in a database that a data directory belongs to, if it belongs to one.
///
/// # Errors
/// What it says cannot be read.
pub fn bound_to(data: &Path) -> Result<Option<Uuid>, PlaceError> {
    Ok(note(data)?.map(|note| note.log_id))
}

/// Whether the directory has been used with a log in a database.
pub fn is_external(data: &Path) -> bool {
    note_path(data).exists()
}

/// The folder of the files of seals of a log in a database.
pub fn seals_folder(data: &Path) -> PathBuf {
    folder(data).join("seals")
}

/// Binds a data directory to a log in a database: what is known of it already must be of this log.
///
/// # Errors
/// It belongs to another log, or the disk says no.
pub fn bind(data: &Path, log_id: Uuid, server: &str) -> Result<(), PlaceError> {
    let known = note(data)?;
    if let Some(known) = &known
        && known.log_id != log_id
    {
        return Err(PlaceError::Another { data: data.to_owned(), known: known.log_id, found: log_id });
    }
    let wanted = Note { format: 1, log_id, server: server.to_owned() };
    if known.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let path = note_path(data);
    write(&path, &wanted).map_err(|error| PlaceError::Io { path, error })
}

fn folder(data: &Path) -> PathBuf {
    data.join("external")
}

fn note_path(data: &Path) -> PathBuf {
    folder(data).join("log.json")
}

fn note(data: &Path) -> Result<Option<Note>, PlaceError> {
    let path = note_path(data);
    let read = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
    };
    read.map(Some).map_err(|error| PlaceError::Io { path, error })
}

/// There whole or not at all.
fn write(path: &Path, note: &Note) -> io::Result<()> {
    let folder = path.parent().expect("it has a folder of its own");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension("part");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(serde_json::to_string_pretty(note)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;

//! Where the log's files are: names, the identity of a log, segment headers, the lock.
//!
//! ```text
//! <data>/lock                     one process per data directory
//! <data>/log/identity             format and log id
//! <data>/log/facts/<first position>-<day>.seg      (accesses, deliveries alike)
//! <data>/log/seals/<day>.seals    signed heads
//! <data>/state/index              checkpoint of what can be rebuilt
//! ```
//!
//! How the files lie there is the *storage format*, a character in the identity and in every segment's header. A release
//! that changes it writes the identity anew, before anything else, as
//! `PCONLOG ‖ format ‖ log id 16 ‖ length u8 ‖ release ‖ whatever it needs ‖ CRC-32 of all before`, so that this one can say
//! which release to use. (Which shapes of events there are is the log's format, and a fact: [`domain::log_format`].)

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::{recorded::Family, time::Timestamp};
use parking_lot::RwLock;

use super::disk::{AtPath, PACED_BYTES, PathError, sync_dir, write_whole};

/// Bytes of a segment before its first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
const SEGMENT_MAGIC: [u8; 8] = *b"PCONSEG1";
const IDENTITY_MAGIC: [u8; 8] = *b"PCONLOG1";
/// The storage format that this release reads and writes: the last character of both.
const STORAGE_FORMAT: char = '1';

pub(crate) fn log_dir(data: &Path) -> PathBuf {
    data.join("log")
}
pub(crate) fn family_dir(data: &Path, family: Family) -> PathBuf {
    log_dir(data).join(family.name())
}
pub(crate) fn seals_dir(data: &Path) -> PathBuf {
    log_dir(data).join("seals")
}
pub(crate) fn checkpoint_path(data: &Path) -> PathBuf {
    data.join("state").join("index")
}
/// Where the filler makes the next segment of a family ready.
pub(crate) fn spare_path(data: &Path, family: Family) -> PathBuf {
    family_dir(data, family).join("spare")
}
/// `YYYY-MM-DD` of a day since the epoch.
pub(crate) fn date(day: i64) -> String {
    Timestamp::from_millis(day.saturating_mul(86_400_000)).to_string()[..10].to_owned()
}
pub(crate) fn segment_path(data: &Path, family: Family, first_position: u64, day: i64) -> PathBuf {
    family_dir(data, family).join(format!("{first_position:020}-{}.seg", date(day)))
}

/// The exclusive right to a data directory; released when dropped, also by the death of the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holding the file open is what holds the lock")] File);

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    InUse,
    Io(PathError),
}

impl Lock {
    pub(crate) fn take(data: &Path) -> Result<Self, LockError> {
        let path = data.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        Self::on(file.at(&path).map_err(LockError::Io)?, &path)
    }
    /// Without making anything: `None` if no process ever locked this directory.
    pub(crate) fn take_if_there(data: &Path) -> Result<Option<Self>, LockError> {
        let path = data.join("lock");
        match File::open(&path) {
            Ok(file) => Self::on(file, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::Io(PathError { path, source })),
        }
    }
    fn on(file: File, path: &Path) -> Result<Self, LockError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse),
            Err(TryLockError::Error(source)) => {
                Err(LockError::Io(PathError { path: path.to_owned(), source }))
            }
        }
    }
}

/// Why the identity cannot be read.
#[derive(Debug)]
pub(crate) enum IdentityError {
    Missing,
    Damaged,
    /// Whole, and of a storage format that this release does not read.
    Later(LaterFormat),
    Io(PathError),
}

/// A log whose files lie as a later release lays them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaterFormat {
    format: char,
    release: String,
}

impl std::fmt::Display for LaterFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (format, release, own) = (self.format, &self.release, env!("CARGO_PKG_VERSION"));
        write!(
            f,
            "the event log has the storage format {format} of release {release}; this is release {own}, which reads \
             {STORAGE_FORMAT}: start release {release} or a later one (nothing was changed)"
        )
    }
}

pub(crate) fn identity_path(data: &Path) -> PathBuf {
    log_dir(data).join("identity")
}

pub(crate) fn read_identity(data: &Path) -> Result<uuid::Uuid, IdentityError> {
    let path = identity_path(data);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(IdentityError::Missing),
        Err(source) => return Err(IdentityError::Io(PathError { path, source })),
    };
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or(IdentityError::Damaged)?;
    if *crc != crc32fast::hash(content).to_le_bytes() {
        return Err(IdentityError::Damaged);
    }
    if let Some(later) = later_format(content) {
        return Err(IdentityError::Later(later));
    }
    if content.len() != 24 || !content.starts_with(&IDENTITY_MAGIC) {
        return Err(IdentityError::Damaged);
    }
    uuid::Uuid::from_slice(&content[8..]).map_err(|_| IdentityError::Damaged)
}

/// What a later release says of itself in the identity.
fn later_format(content: &[u8]) -> Option<LaterFormat> {
    let format = other_format(content, &IDENTITY_MAGIC)?;
    let length = usize::from(*content.get(24)?);
    let release = std::str::from_utf8(content.get(25..25 + length)?).ok()?;
    // It is shown to the operator.
    let plain =
        !release.is_empty() && release.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b));
    plain.then(|| LaterFormat { format, release: release.to_owned() })
}

/// The storage format of something that begins as this magic does, but for its last character.
fn other_format(bytes: &[u8], magic: &[u8; 8]) -> Option<char> {
    let format = char::from(*bytes.strip_prefix(&magic[..7])?.first()?);
    (format != STORAGE_FORMAT && format.is_ascii_alphanumeric()).then_some(format)
}

pub(crate) fn write_identity(data: &Path, log_id: uuid::Uuid) -> Result<(), PathError> {
    let mut bytes = [&IDENTITY_MAGIC[..], log_id.as_bytes()].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    write_whole(&identity_path(data), &bytes)
}

/// One segment file of a family.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_position: u64,
    /// The end of what is committed, in bytes: readers go no further.
    end: AtomicU64,
    /// Held open while it is written to; others are opened as needed, so that old segments cost no descriptor.
    file: RwLock<Option<Arc<File>>>,
}

impl Segment {
    pub(crate) fn new(path: PathBuf, first_position: u64, end: u64, file: Option<Arc<File>>) -> Self {
        Self { path, first_position, end: AtomicU64::new(end), file: RwLock::new(file) }
    }
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }
    pub(crate) fn publish_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }
    /// For reading.
    pub(crate) fn open(&self) -> io::Result<Arc<File>> {
        if let Some(file) = &*self.file.read() {
            return Ok(Arc::clone(file));
        }
        File::open(&self.path).map(Arc::new)
    }
    /// For writing; stays open until [`Segment::release`].
    pub(crate) fn hold(&self) -> Result<Arc<File>, PathError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).at(&self.path)?;
        Ok(Arc::clone(self.file.write().insert(Arc::new(file))))
    }
    pub(crate) fn release(&self) {
        *self.file.write() = None;
    }
    /// The name without its directories, for messages and the checkpoint.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
    /// The day in its name.
    pub(crate) fn day(&self) -> Option<i64> {
        let date = self.name().get(21..31)?;
        format!("{date}T00:00:00Z").parse::<Timestamp>().ok().map(Timestamp::day)
    }
}

/// The segments of a family by first position. Files that are no segments are left alone.
pub(crate) fn list_segments(data: &Path, family: Family) -> Result<Vec<Segment>, PathError> {
    let dir = family_dir(data, family);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PathError { path: dir, source }),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry.at(&dir)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let first =
            name.strip_suffix(".seg").and_then(|name| name.get(..20)).and_then(|digits| digits.parse().ok());
        if let Some(first) = first {
            segments.push(Segment::new(path, first, 0, None));
        }
    }
    segments.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(segments)
}

pub(crate) fn segment_header(log_id: uuid::Uuid, family: Family) -> [u8; SEGMENT_HEADER_BYTES as usize] {
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..24].copy_from_slice(log_id.as_bytes());
    header[24] = family as u8;
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The storage format of a segment of this log that is whole and not of this release's format.
pub(crate) fn later_segment(bytes: &[u8], log_id: uuid::Uuid) -> Option<char> {
    let header = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>()?;
    let whole = header[60..] == crc32fast::hash(&header[..60]).to_le_bytes();
    (whole && header[8..24] == *log_id.as_bytes()).then(|| other_format(header, &SEGMENT_MAGIC)).flatten()
}

/// Makes a segment file at `path`: header, then zeros up to `capacity` bytes, so that later writes change no metadata
/// and a sync of them is one write to the disk. Durable when this returns, but for its name.
pub(crate) fn make_segment(
    path: &Path,
    log_id: uuid::Uuid,
    family: Family,
    capacity: u64,
) -> Result<Arc<File>, PathError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .at(path)?;
    file.write_all_at(&segment_header(log_id, family), 0).at(path)?;
    let zeros = vec![0; PACED_BYTES];
    let mut at = SEGMENT_HEADER_BYTES;
    while at < capacity {
        let piece = usize::try_from(capacity - at).map_or(PACED_BYTES, |left| left.min(PACED_BYTES));
        file.write_all_at(&zeros[..piece], at).and_then(|()| file.sync_data()).at(path)?;
        at += piece as u64;
    }
    file.sync_all().at(path)?;
    Ok(Arc::new(file))
}

/// The directories of a log, made when missing.
pub(crate) fn make_dirs(data: &Path) -> Result<(), PathError> {
    let dirs = Family::ALL.map(|family| family_dir(data, family));
    for dir in dirs.iter().chain([&seals_dir(data), &data.join("state")]) {
        fs::create_dir_all(dir).at(dir)?;
    }
    for dir in [data, &log_dir(data)] {
        sync_dir(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

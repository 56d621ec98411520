//! The keyring's file: `magic 8`, then records of `length u16 ‖ its complement u16 ‖ CRC-32 u32 ‖
//! body`, and the list of destroyed keys.
//!
//! The complement tells a damaged length from a record that breaks off: the latter alone may be dropped.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use domain::ids::{ShareId, WorkspaceId};

use super::{KeyId, KeyringError};

const MAGIC: [u8; 8] = *b"PCONKEY1";
const DESTROYED_BYTES: usize = 16 + 4;

/// A key for personal data.
#[derive(Clone)]
pub(super) struct PersonalRecord {
    pub(super) id: KeyId,
    pub(super) workspace: WorkspaceId,
    pub(super) scope: Option<ShareId>,
    pub(super) day: i64,
    pub(super) key: [u8; 32],
}

/// What the file holds. No `Debug`: every variant is a secret.
#[derive(Clone)]
pub(super) enum Record {
    SealSeed([u8; 32]),
    Secret(String, [u8; 32]),
    Personal(PersonalRecord),
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(96);
        match self {
            Self::SealSeed(seed) => {
                body.push(1);
                body.extend_from_slice(seed);
            }
            Self::Secret(name, secret) => {
                body.push(2);
                body.extend_from_slice(secret);
                body.extend_from_slice(name.as_bytes());
            }
            Self::Personal(record) => {
                body.push(3);
                body.extend_from_slice(&record.id);
                body.extend_from_slice(record.workspace.uuid().as_bytes());
                body.extend_from_slice(&record.day.to_le_bytes());
                body.extend_from_slice(&record.key);
                if let Some(share) = record.scope {
                    body.extend_from_slice(share.uuid().as_bytes());
                }
            }
        }
        let length = u16::try_from(body.len()).expect("names of secrets are short");
        let mut bytes = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes);
        crc.update(&body);
        bytes.extend_from_slice(&crc.finalize().to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        match kind {
            1 => Some(Self::SealSeed(rest.try_into().ok()?)),
            2 => {
                let (secret, name) = rest.split_first_chunk::<32>()?;
                Some(Self::Secret(String::from_utf8(name.to_vec()).ok()?, *secret))
            }
            3 => {
                let (id, rest) = rest.split_first_chunk::<16>()?;
                let (workspace, rest) = rest.split_first_chunk::<16>()?;
                let (day, rest) = rest.split_first_chunk::<8>()?;
                let (key, share) = rest.split_first_chunk::<32>()?;
                let scope = match share {
                    [] => None,
                    share => Some(ShareId::new(uuid::Uuid::from_slice(share).ok()?)),
                };
                Some(Self::Personal(PersonalRecord {
                    id: *id,
                    workspace: WorkspaceId::new(uuid::Uuid::from_bytes(*workspace)),
                    scope,
                    day: i64::from_le_bytes(*day),
                    key: *key,
                }))
            }
            _ => None,
        }
    }
}

/// The open file. Its writer knows where its durable end is.
pub(super) struct RecordFile {
    path: PathBuf,
    file: File,
    end: u64,
}

impl RecordFile {
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Record>), KeyringError> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => {
                refuse_exposed(&file, path)?;
                let (records, end) = parse(&read_all(&file, path)?, path)?;
                // A torn record was never used. It goes before the next one comes.
                file.set_len(end).and_then(|()| file.sync_all()).map_err(io_error(path))?;
                Ok((Self { path: path.to_owned(), file, end }, records))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent).map_err(io_error(parent))?;
                }
                let file = write_new(path, &MAGIC)?;
                Ok((Self { path: path.to_owned(), file, end: MAGIC.len() as u64 }, Vec::new()))
            }
            Err(error) => Err(io_error(path)(error)),
        }
    }

    /// Adds a record; durable when this returns.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), KeyringError> {
        let bytes = record.encode();
        let written = self.file.write_all_at(&bytes, self.end).and_then(|()| self.file.sync_all());
        if let Err(error) = written {
            // Never used, so it may be cut off; if that fails too, the next record overwrites it.
            drop(self.file.set_len(self.end));
            return Err(io_error(&self.path)(error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn records(&self) -> Result<Vec<Record>, KeyringError> {
        parse(&read_all(&self.file, &self.path)?, &self.path).map(|(records, _)| records)
    }

    /// Replaces the file by one with these records. The old one is overwritten as far as the disk lets us.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> Result<(), KeyringError> {
        let bytes: Vec<u8> = MAGIC.into_iter().chain(records.iter().flat_map(Record::encode)).collect();
        let file = write_new(&self.path, &bytes)?;
        let old = std::mem::replace(&mut self.file, file);
        let zeros = vec![0; usize::try_from(self.end).unwrap_or(0)];
        self.end = bytes.len() as u64;
        // The new file stands already; a disk that keeps the old blocks anyway is beyond us.
        drop(old.write_all_at(&zeros, 0).and_then(|()| old.sync_all()));
        Ok(())
    }
}

/// The records of a keyring that is only looked at.
pub(super) fn read(path: &Path) -> Result<Vec<Record>, KeyringError> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    parse(&bytes, path).map(|(records, _)| records)
}

fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, u64), KeyringError> {
    let damaged = |offset: usize, reason| KeyringError::Damaged {
        path: path.to_owned(),
        offset: offset as u64,
        reason,
    };
    if !bytes.starts_with(&MAGIC) {
        return Err(damaged(0, "it does not begin like a keyring"));
    }
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while at < bytes.len() {
        let Some(header) = bytes[at..].first_chunk::<8>() else { break };
        // The file grew, but its new bytes were never written: a torn tail too.
        if bytes[at..].iter().all(|byte| *byte == 0) {
            break;
        }
        let length = u16::from_le_bytes([header[0], header[1]]);
        if !length != u16::from_le_bytes([header[2], header[3]]) {
            return Err(damaged(at, "a record's length is wrong"));
        }
        let length = usize::from(length);
        let Some(body) = bytes.get(at + 8..at + 8 + length) else { break };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[..4]);
        crc.update(body);
        if crc.finalize().to_le_bytes() != header[4..] {
            return Err(damaged(at, "the checksum of a record does not match"));
        }
        records.push(Record::decode(body).ok_or_else(|| damaged(at, "a record of an unknown kind"))?);
        at += 8 + length;
    }
    Ok((records, at as u64))
}

/// The list of destroyed keys of a keyring.
pub(crate) fn destroyed_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".destroyed");
    PathBuf::from(name)
}

/// The keys that must never come back.
pub(super) fn read_destroyed(path: &Path) -> Result<HashSet<KeyId>, KeyringError> {
    let path = destroyed_path(path);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(io_error(&path)(error)),
    };
    let mut destroyed = HashSet::new();
    // A torn entry is the last, and its key was not yet out of the keyring: its destroyer was told of the failure.
    for (number, entry) in bytes.chunks_exact(DESTROYED_BYTES).enumerate() {
        let (id, crc) = entry.split_first_chunk::<16>().expect("an entry has 20 bytes");
        if crc32fast::hash(id).to_le_bytes() != crc {
            let offset = (number * DESTROYED_BYTES) as u64;
            return Err(KeyringError::Damaged { path, offset, reason: "an entry's checksum does not match" });
        }
        destroyed.insert(*id);
    }
    Ok(destroyed)
}

/// Adds keys to the list; durable when this returns.
pub(super) fn append_destroyed(path: &Path, ids: &[KeyId]) -> Result<(), KeyringError> {
    let path = destroyed_path(path);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error(&path))?;
    let length = file.metadata().map_err(io_error(&path))?.len();
    let end = length - length % DESTROYED_BYTES as u64;
    let entries: Vec<u8> =
        ids.iter().flat_map(|id| [&id[..], &crc32fast::hash(id).to_le_bytes()].concat()).collect();
    file.write_all_at(&entries, end).and_then(|()| file.sync_all()).map_err(io_error(&path))?;
    sync_parent(&path)
}

/// Puts a whole new file in this place, durable when this returns.
fn write_new(path: &Path, bytes: &[u8]) -> Result<File, KeyringError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let file =
        OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&beside);
    let file = file.map_err(io_error(&beside))?;
    file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(io_error(&beside))?;
    fs::rename(&beside, path).map_err(io_error(path))?;
    sync_parent(path)?;
    Ok(file)
}

fn sync_parent(path: &Path) -> Result<(), KeyringError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io_error(parent))
}

fn refuse_exposed(file: &File, path: &Path) -> Result<(), KeyringError> {
    let mode = file.metadata().map_err(io_error(path))?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyringError::Exposed { path: path.to_owned() }) }
}

fn read_all(file: &File, path: &Path) -> Result<Vec<u8>, KeyringError> {
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut &*file)
        .and_then(|()| (&mut &*file).read_to_end(&mut bytes))
        .map_err(io_error(path))?;
    Ok(bytes)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyringError {
    let path = path.to_owned();
    move |source| KeyringError::Io { path, source }
}

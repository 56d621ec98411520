//! Seals: signed statements of what the log held, in files of their own, one per day.
//!
//! A seal says: this log was acknowledged up to this position, and the hash over the heads of its chains was this.
//! Cutting acknowledged events off the end breaks no chain, but it leaves a seal that the log does not reach.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::time::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use super::{
    disk::{AtPath, PathError, sync_dir},
    files::{date, seals_dir},
    frame::{Link, is_zero},
};
use crate::keyring::public_key;

const MAGIC: [u8; 4] = *b"pcS1";
const SIGNED_BYTES: usize = 104;
/// The smallest piece that a disk writes whole.
const SECTOR_BYTES: u64 = 512;
/// Bytes of one seal. A multiple of four, as a sector is: no piece of a seal in a sector is smaller, and no whole seal
/// begins or ends with four zeros, short of a chance in four thousand million.
pub(crate) const SEAL_BYTES: usize = SIGNED_BYTES + 64 + 4;

/// A statement about the log's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) log_id: uuid::Uuid,
    pub(crate) position: u64,
    /// When the event at that position was recorded.
    pub(crate) recorded_at: Timestamp,
    pub(crate) heads: Link,
    pub(crate) public_key: [u8; 32],
}

impl Seal {
    fn signed_part(&self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(self.log_id.as_bytes());
        bytes[24..32].copy_from_slice(&self.position.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.recorded_at.millis().to_le_bytes());
        bytes[40..72].copy_from_slice(&self.heads);
        bytes[72..].copy_from_slice(&self.public_key);
        bytes
    }

    /// Signed, as it stands in a file.
    pub(crate) fn write(&self, key: &Ed25519KeyPair) -> [u8; SEAL_BYTES] {
        let mut bytes = [0; SEAL_BYTES];
        let signed = self.signed_part();
        bytes[..SIGNED_BYTES].copy_from_slice(&signed);
        bytes[SIGNED_BYTES..SEAL_BYTES - 4].copy_from_slice(key.sign(&signed).as_ref());
        let crc = crc32fast::hash(&bytes[..SEAL_BYTES - 4]);
        bytes[SEAL_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a seal of this log.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn read(bytes: &[u8; SEAL_BYTES], log_id: uuid::Uuid) -> Result<Self, &'static str> {
        if !has_form(bytes) {
            return Err("a seal's checksum does not match");
        }
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let seal = Self {
            log_id: uuid::Uuid::from_bytes(bytes[8..24].try_into().expect("sixteen bytes")),
            position: long(24),
            recorded_at: Timestamp::from_millis(long(32).cast_signed()),
            heads: bytes[40..72].try_into().expect("32 bytes"),
            public_key: bytes[72..104].try_into().expect("32 bytes"),
        };
        if seal.log_id != log_id {
            return Err("a seal of another log");
        }
        UnparsedPublicKey::new(&ED25519, seal.public_key)
            .verify(&bytes[..SIGNED_BYTES], &bytes[SIGNED_BYTES..SEAL_BYTES - 4])
            .map_err(|_| "a seal's signature is wrong")?;
        Ok(seal)
    }
}

/// Whether what stands in a seal's place, at `offset` of its file, can come from a write that did not finish: the disk
/// writes sectors whole, so some sector of it is as it was before, zero or not there. One whose bytes are all there and
/// wrong was changed.
pub(crate) fn looks_torn(bytes: &[u8; SEAL_BYTES], offset: u64) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let in_sector = usize::try_from((offset + at as u64) % SECTOR_BYTES).expect("less than a sector");
        let piece = &bytes[at..bytes.len().min(at + SECTOR_BYTES as usize - in_sector)];
        if is_zero(piece) {
            return true;
        }
        at += piece.len();
    }
    false
}

/// The end of what is worth keeping in a file of seals: behind its last seal, whatever broke off after it.
fn end_of(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length - length % SEAL_BYTES as u64;
    while end > 0 {
        let mut bytes = [0; SEAL_BYTES];
        let start = end - SEAL_BYTES as u64;
        file.read_exact_at(&mut bytes, start)?;
        if has_form(&bytes) || !looks_torn(&bytes, start) {
            break;
        }
        end = start;
    }
    Ok(end)
}

fn has_form(bytes: &[u8; SEAL_BYTES]) -> bool {
    let crc = &bytes[SEAL_BYTES - 4..];
    bytes.starts_with(&MAGIC) && crc == crc32fast::hash(&bytes[..SEAL_BYTES - 4]).to_le_bytes()
}

/// The seal files, oldest first.
pub(crate) fn list(data: &Path) -> Result<Vec<PathBuf>, PathError> {
    list_in(&seals_dir(data))
}

/// The same of a folder that has nothing but seals.
pub(crate) fn list_in(dir: &Path) -> Result<Vec<PathBuf>, PathError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PathError { path: dir.to_owned(), source }),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.at(dir)?.path();
        if path.extension().is_some_and(|extension| extension == "seals") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The files of seals with what they say about positions up to `position`: what a copy of the log that ends there has.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn copied(
    data: &Path,
    log_id: uuid::Uuid,
    position: u64,
) -> Result<Vec<(PathBuf, Vec<u8>)>, PathError> {
    let mut copied = Vec::new();
    for path in list(data)? {
        let bytes = fs::read(&path).at(&path)?;
        let counts = |chunk: &&[u8]| {
            let seal = chunk.first_chunk().map(|bytes| Seal::read(bytes, log_id));
            // What is damaged is copied as it is: to judge that is not a copy's business.
            !matches!(seal, Some(Ok(seal)) if seal.position > position)
        };
        let kept: Vec<u8> = bytes.chunks_exact(SEAL_BYTES).take_while(counts).flatten().copied().collect();
        if !kept.is_empty() {
            copied.push((path, kept));
        }
    }
    Ok(copied)
}

/// The highest position that a valid seal acknowledges; 0 when there is none. Only the newest file that has one is
/// read: positions grow.
pub(crate) fn highest(data: &Path, log_id: uuid::Uuid) -> Result<u64, PathError> {
    highest_in(&seals_dir(data), log_id)
}

/// The same of a folder that has nothing but seals.
pub(crate) fn highest_in(dir: &Path, log_id: uuid::Uuid) -> Result<u64, PathError> {
    for path in list_in(dir)?.iter().rev() {
        let bytes = fs::read(path).at(path)?;
        let seals = bytes.chunks_exact(SEAL_BYTES).rev().filter_map(|chunk| chunk.first_chunk());
        if let Some(seal) = seals.map(|bytes| Seal::read(bytes, log_id)).find_map(Result::ok) {
            return Ok(seal.position);
        }
    }
    Ok(0)
}

/// Writes seals.
#[derive(Debug)]
pub(crate) struct Sealer {
    folder: PathBuf,
    key: Arc<Ed25519KeyPair>,
    open: Option<(String, File, u64)>,
}

impl Sealer {
    /// Of the embedded log in a data directory.
    pub(crate) fn new(data: &Path, key: Arc<Ed25519KeyPair>) -> Self {
        Self::in_folder(seals_dir(data), key)
    }

    /// Into a folder that is there.
    pub(crate) fn in_folder(folder: PathBuf, key: Arc<Ed25519KeyPair>) -> Self {
        Self { folder, key, open: None }
    }

    /// Signs and stores a seal; durable when this answers with its bytes.
    pub(crate) fn seal(
        &mut self,
        log_id: uuid::Uuid,
        position: u64,
        recorded_at: Timestamp,
        heads: Link,
    ) -> Result<[u8; SEAL_BYTES], PathError> {
        let seal = Seal { log_id, position, recorded_at, heads, public_key: public_key(&self.key) };
        let bytes = seal.write(&self.key);
        let name = format!("{}.seals", date(recorded_at.day()));
        let path = self.folder.join(&name);
        if self.open.as_ref().is_none_or(|(open, ..)| *open != name) {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path);
            let file = file.at(&path)?;
            let length = file.metadata().at(&path)?.len();
            sync_dir(&self.folder)?;
            // The remains of a seal that broke off go first, so that what may remain of the next one is recognised.
            let end = end_of(&file, length).at(&path)?;
            if end < length {
                file.set_len(end).and_then(|()| file.sync_all()).at(&path)?;
            }
            self.open = Some((name, file, end));
        }
        let (_, file, end) = self.open.as_mut().expect("opened above");
        file.write_all_at(&bytes, *end).and_then(|()| file.sync_data()).at(&path)?;
        *end += SEAL_BYTES as u64;
        Ok(bytes)
    }
}

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
    frame::Link,
};
use crate::keyring::public_key;

const MAGIC: [u8; 4] = *b"pcS1";
const SIGNED_BYTES: usize = 104;
/// Bytes of one seal.
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

    fn write(&self, key: &Ed25519KeyPair) -> [u8; SEAL_BYTES] {
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
        let crc = &bytes[SEAL_BYTES - 4..];
        if !bytes.starts_with(&MAGIC) || crc != crc32fast::hash(&bytes[..SEAL_BYTES - 4]).to_le_bytes() {
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

/// The seal files, oldest first.
pub(crate) fn list(data: &Path) -> Result<Vec<PathBuf>, PathError> {
    let dir = seals_dir(data);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PathError { path: dir, source }),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.at(&dir)?.path();
        if path.extension().is_some_and(|extension| extension == "seals") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The highest position that a valid seal acknowledges; 0 when there is none. Only the newest file that has one is
/// read: positions grow.
pub(crate) fn highest(data: &Path, log_id: uuid::Uuid) -> Result<u64, PathError> {
    for path in list(data)?.iter().rev() {
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
    data: PathBuf,
    key: Arc<Ed25519KeyPair>,
    open: Option<(String, File, u64)>,
}

impl Sealer {
    pub(crate) fn new(data: &Path, key: Arc<Ed25519KeyPair>) -> Self {
        Self { data: data.to_owned(), key, open: None }
    }

    /// Signs and stores a seal; durable when this returns.
    pub(crate) fn seal(
        &mut self,
        log_id: uuid::Uuid,
        position: u64,
        recorded_at: Timestamp,
        heads: Link,
    ) -> Result<(), PathError> {
        let seal = Seal { log_id, position, recorded_at, heads, public_key: public_key(&self.key) };
        let name = format!("{}.seals", date(recorded_at.day()));
        let path = seals_dir(&self.data).join(&name);
        if self.open.as_ref().is_none_or(|(open, ..)| *open != name) {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
            let file = file.at(&path)?;
            let length = file.metadata().at(&path)?.len();
            sync_dir(&seals_dir(&self.data))?;
            // The remains of a seal that broke off are written over.
            self.open = Some((name, file, length - length % SEAL_BYTES as u64));
        }
        let (_, file, end) = self.open.as_mut().expect("opened above");
        file.write_all_at(&seal.write(&self.key), *end).and_then(|()| file.sync_data()).at(&path)?;
        *end += SEAL_BYTES as u64;
        Ok(())
    }
}

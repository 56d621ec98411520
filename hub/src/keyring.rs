//! The keyring: secrets that cannot be rebuilt, in one append-only file that only its owner may read.
//!
//! It holds the key that seals the log, named secrets, and one key per workspace, scope and day for personal data.
//! A key is durable before it is used. Destroying a key erases what was sealed with it, for ever: its number goes
//! to a list beside the keyring (`<keyring>.destroyed`), which is honoured also when an older keyring is put back.
//! No secret of this file is ever shown, not even by `Debug`.

mod file;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::{
    ids::{ShareId, WorkspaceId},
    time::Timestamp,
};
use parking_lot::{Mutex, RwLock};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

pub(crate) use file::destroyed_path;
use file::{PersonalRecord, Record, RecordFile};

/// The first byte of sealed data: its format.
const BLOB_VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 16;
/// Bytes that sealing adds: version, key id, nonce, tag.
pub const SEAL_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN + 16;

/// Why the keyring cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("the keyring {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the keyring {} is damaged at byte {offset}: {reason}", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: &'static str },
    #[error("the keyring {} can be read by others; run: chmod 600 {}", path.display(), path.display())]
    Exposed { path: PathBuf },
    #[error("the keyring {} holds no seal key", path.display())]
    NoSealKey { path: PathBuf },
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Whose personal data: a workspace, a share of it or what belongs to no share, and the day it was recorded on.
type PersonalName = (WorkspaceId, Option<ShareId>, i64);
type KeyId = [u8; KEY_ID_BYTES];

struct PersonalKey {
    id: KeyId,
    name: PersonalName,
    key: LessSafeKey,
}

/// The key that a blob names; `None` for what is no blob.
fn key_of(bytes: &[u8]) -> Option<KeyId> {
    let (&version, rest) = bytes.split_first()?;
    let (id, _) = rest.split_first_chunk::<KEY_ID_BYTES>()?;
    (version == BLOB_VERSION).then_some(*id)
}

impl PersonalKey {
    /// Opens a blob that names this key.
    fn open(&self, workspace: WorkspaceId, scope: Option<ShareId>, bytes: &[u8]) -> Option<String> {
        let (nonce, sealed) = bytes.get(1 + KEY_ID_BYTES..)?.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(bound(workspace, scope)), &mut sealed).ok()?;
        let length = plain.len();
        sealed.truncate(length);
        String::from_utf8(sealed).ok()
    }
}

/// The keys for personal data in a keyring that is only read: nothing of it is changed, and no secret can be asked for.
pub struct PersonalKeys(Keys);

impl fmt::Debug for PersonalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PersonalKeys").finish_non_exhaustive()
    }
}

impl PersonalKeys {
    /// Reads the keyring file and the list of destroyed keys beside it.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        let mut keys = Keys { destroyed: file::read_destroyed(path)?, ..Keys::default() };
        for record in &file::read(path)? {
            if let Record::Personal(record) = record
                && !keys.destroyed.contains(&record.id)
            {
                keys.add(record);
            }
        }
        Ok(Self(keys))
    }

    /// As [`Keyring::open_personal`].
    pub fn open_personal(
        &self,
        workspace: WorkspaceId,
        scope: Option<ShareId>,
        bytes: &[u8],
    ) -> Option<String> {
        self.0.by_id.get(&key_of(bytes)?)?.open(workspace, scope, bytes)
    }
}

/// Whose personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// What belongs to no share.
    Workspace(WorkspaceId),
    /// The visitors of a share.
    Share(WorkspaceId, ShareId),
    /// Everything of a workspace.
    Everybody(WorkspaceId),
}

impl Whose {
    fn has(self, (workspace, scope, _): PersonalName) -> bool {
        match self {
            Self::Workspace(of) => workspace == of && scope.is_none(),
            Self::Share(of, share) => workspace == of && scope == Some(share),
            Self::Everybody(of) => workspace == of,
        }
    }
}

#[derive(Default)]
struct Keys {
    /// What to seal with now.
    current: HashMap<PersonalName, Arc<PersonalKey>>,
    /// What to open with.
    by_id: HashMap<KeyId, Arc<PersonalKey>>,
    secrets: HashMap<String, [u8; 32]>,
    destroyed: HashSet<KeyId>,
}

/// An open keyring. One process has it; the data directory's lock sees to that.
pub struct Keyring {
    path: PathBuf,
    random: SystemRandom,
    seal_key: Arc<Ed25519KeyPair>,
    /// Read in the hot path; never held over I/O.
    keys: RwLock<Keys>,
    /// Held while a record is made durable. Taken before `keys`.
    file: Mutex<RecordFile>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Opens the keyring, or makes one (mode 0600) with a seal key when there is none (its directory too). Keys on the list of destroyed
    /// ones are taken out of the file.
    ///
    /// # Errors
    /// [`KeyringError`]; a record that broke off at the very end was never used and is dropped.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let random = SystemRandom::new();
        let (file, records) = RecordFile::open(path)?;
        let destroyed = file::read_destroyed(path)?;
        let mut keys = Keys { destroyed, ..Keys::default() };
        let mut seal_seed = None;
        let mut revived = false;
        for record in &records {
            match record {
                Record::SealSeed(seed) => seal_seed = Some(*seed),
                Record::Secret(name, secret) => {
                    keys.secrets.insert(name.clone(), *secret);
                }
                Record::Personal(record) if keys.destroyed.contains(&record.id) => revived = true,
                Record::Personal(record) => keys.add(record),
            }
        }
        let mut file = file;
        if revived {
            file.rewrite(&keep(&records, &keys.destroyed))?;
        }
        let seed = match seal_seed {
            Some(seed) => seed,
            None => {
                let seed = random_bytes(&random)?;
                file.append(&Record::SealSeed(seed))?;
                seed
            }
        };
        let seal_key = Arc::new(seal_key(&seed, path)?);
        Ok(Self { path: path.to_owned(), random, seal_key, keys: RwLock::new(keys), file: Mutex::new(file) })
    }

    /// The key that signs seals of the log (Ed25519).
    pub fn seal_key(&self) -> Arc<Ed25519KeyPair> {
        Arc::clone(&self.seal_key)
    }

    /// The secret of this name (for HMAC keys and the like), made at its first use.
    ///
    /// # Errors
    /// It is new and could not be made durable.
    pub fn secret(&self, name: &str) -> Result<[u8; 32], KeyringError> {
        if let Some(secret) = self.keys.read().secrets.get(name) {
            return Ok(*secret);
        }
        let mut file = self.file.lock();
        if let Some(secret) = self.keys.read().secrets.get(name) {
            return Ok(*secret);
        }
        let secret = random_bytes(&self.random)?;
        file.append(&Record::Secret(name.to_owned(), secret))?;
        self.keys.write().secrets.insert(name.to_owned(), secret);
        Ok(secret)
    }

    /// Seals personal data under the key of its workspace, scope and day. The blob names its key.
    ///
    /// # Errors
    /// The day's key is new and could not be made durable, or there is no randomness: do not store the data.
    pub fn seal_personal(
        &self,
        workspace: WorkspaceId,
        scope: Option<ShareId>,
        at: Timestamp,
        plaintext: &str,
    ) -> Result<Box<[u8]>, KeyringError> {
        let key = self.personal_key((workspace, scope, at.day()))?;
        let nonce: [u8; NONCE_LEN] = random_bytes(&self.random)?;
        let mut blob = Vec::with_capacity(SEAL_BYTES + plaintext.len());
        blob.push(BLOB_VERSION);
        blob.extend_from_slice(&key.id);
        blob.extend_from_slice(&nonce);
        let start = blob.len();
        blob.extend_from_slice(plaintext.as_bytes());
        let tag = key
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound(workspace, scope)),
                &mut blob[start..],
            )
            .expect("a text of memory size is within AES-GCM's limit");
        blob.extend_from_slice(tag.as_ref());
        Ok(blob.into())
    }

    /// Opens what [`Keyring::seal_personal`] made for the same workspace and scope. `None`: its key was destroyed (or
    /// the bytes are no such blob); shown as erased.
    pub fn open_personal(
        &self,
        workspace: WorkspaceId,
        scope: Option<ShareId>,
        bytes: &[u8],
    ) -> Option<String> {
        let key = Arc::clone(self.keys.read().by_id.get(&key_of(bytes)?)?);
        key.open(workspace, scope, bytes)
    }

    /// Destroys the keys of some days: what they sealed is erased, here and in every older copy of the
    /// keyring that is opened beside the list of destroyed keys. Answers how many keys that were. What is sealed
    /// for these days afterwards gets new keys.
    ///
    /// # Errors
    /// It may then be half done (keys on the list, still in the file); opening the keyring finishes it.
    pub fn destroy(&self, whose: Whose, first_day: i64, last_day: i64) -> Result<usize, KeyringError> {
        let mut file = self.file.lock();
        let is_meant = |name: PersonalName| whose.has(name) && (first_day..=last_day).contains(&name.2);
        let ids: Vec<KeyId> = {
            let keys = self.keys.read();
            keys.by_id.values().filter(|key| is_meant(key.name)).map(|key| key.id).collect()
        };
        if ids.is_empty() {
            return Ok(0);
        }
        file::append_destroyed(&self.path, &ids)?;
        let destroyed = {
            let mut keys = self.keys.write();
            keys.current.retain(|name, _| !is_meant(*name));
            for id in &ids {
                keys.by_id.remove(id);
                keys.destroyed.insert(*id);
            }
            keys.destroyed.clone()
        };
        let records = file.records()?;
        file.rewrite(&keep(&records, &destroyed))?;
        Ok(ids.len())
    }

    fn personal_key(&self, name: PersonalName) -> Result<Arc<PersonalKey>, KeyringError> {
        if let Some(key) = self.keys.read().current.get(&name) {
            return Ok(Arc::clone(key));
        }
        let mut file = self.file.lock();
        if let Some(key) = self.keys.read().current.get(&name) {
            return Ok(Arc::clone(key));
        }
        let record = PersonalRecord {
            id: random_bytes(&self.random)?,
            workspace: name.0,
            scope: name.1,
            day: name.2,
            key: random_bytes(&self.random)?,
        };
        file.append(&Record::Personal(record.clone()))?;
        let mut keys = self.keys.write();
        keys.add(&record);
        Ok(Arc::clone(&keys.by_id[&record.id]))
    }
}

impl Keys {
    fn add(&mut self, record: &PersonalRecord) {
        let unbound = UnboundKey::new(&AES_256_GCM, &record.key).expect("the key has 32 bytes");
        let name = (record.workspace, record.scope, record.day);
        let key = Arc::new(PersonalKey { id: record.id, name, key: LessSafeKey::new(unbound) });
        self.by_id.insert(key.id, Arc::clone(&key));
        self.current.insert(name, key);
    }
}

/// The public halves of the seal keys in a keyring file, newest last: what an offline check compares seals with.
///
/// # Errors
/// [`KeyringError`]. The file is only read.
pub fn seal_public_keys(path: &Path) -> Result<Vec<[u8; 32]>, KeyringError> {
    let records = file::read(path)?;
    let mut keys = Vec::new();
    for record in &records {
        if let Record::SealSeed(seed) = record {
            keys.push(public_key(&seal_key(seed, path)?));
        }
    }
    if keys.is_empty() { Err(KeyringError::NoSealKey { path: path.to_owned() }) } else { Ok(keys) }
}

/// The public half of a seal key.
pub(crate) fn public_key(key: &Ed25519KeyPair) -> [u8; 32] {
    key.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
}

fn seal_key(seed: &[u8; 32], path: &Path) -> Result<Ed25519KeyPair, KeyringError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyringError::NoSealKey { path: path.to_owned() })
}

/// What a blob is bound to: it opens for no other workspace or share.
fn bound(workspace: WorkspaceId, scope: Option<ShareId>) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes[..16].copy_from_slice(workspace.uuid().as_bytes());
    if let Some(share) = scope {
        bytes[16] = 1;
        bytes[17..].copy_from_slice(share.uuid().as_bytes());
    }
    bytes
}

fn keep(records: &[Record], destroyed: &HashSet<KeyId>) -> Vec<Record> {
    let kept = |record: &&Record| !matches!(record, Record::Personal(key) if destroyed.contains(&key.id));
    records.iter().filter(kept).cloned().collect()
}

fn random_bytes<const N: usize>(random: &SystemRandom) -> Result<[u8; N], KeyringError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| KeyringError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

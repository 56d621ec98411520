//! What was retired: the signed statement that the accesses up to some commit are gone, and how their chains stood there.
//!
//! One file, `log/retired`, the newest statement in the place of the one before. A walk skips what it covers; nothing
//! else may be missing. Its hash is in the log, as `history.retired`: a statement that the log does not know is none.
//!
//! Accesses alone are ever retired, and whole days of them: a segment holds one day.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use domain::{ids::WorkspaceId, recorded::Family};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use super::{
    chain::Head,
    disk::{AtPath, PathError, write_whole},
    files::log_dir,
    frame::{self, Parsed},
    scan::Damage,
};
use crate::keyring::public_key;

const MAGIC: [u8; 8] = *b"PCONRET1";
const SIGNATURE_BYTES: usize = 64;

/// Up to where the family of accesses may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Boundary {
    /// The last commit with accesses that are gone.
    pub(crate) commit: u64,
    /// The position of that commit's last event.
    pub(crate) position: u64,
}

/// A statement of what was retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) log_id: uuid::Uuid,
    /// Accesses recorded on days before this one are gone.
    pub(crate) before_day: i64,
    pub(crate) boundary: Boundary,
    /// How the chains of accesses stood there, by workspace.
    pub(crate) heads: BTreeMap<WorkspaceId, Head>,
    pub(crate) public_key: [u8; 32],
}

/// Whether a segment's events are covered by a statement.
pub(crate) fn covers(retired: Option<&Retired>, family: Family, first_position: u64) -> bool {
    family == Family::Accesses && retired.is_some_and(|it| first_position <= it.boundary.position)
}

pub(crate) fn path(data: &Path) -> PathBuf {
    log_dir(data).join("retired")
}

impl Retired {
    /// The statement as it is stored, signed.
    pub(crate) fn encode(&self, key: &Ed25519KeyPair) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(self.log_id.as_bytes());
        bytes.extend_from_slice(&self.before_day.to_le_bytes());
        for number in [self.boundary.commit, self.boundary.position, self.heads.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (workspace, head) in &self.heads {
            bytes.extend_from_slice(workspace.uuid().as_bytes());
            bytes.extend_from_slice(&head.seq.to_le_bytes());
            bytes.extend_from_slice(&head.link);
        }
        bytes.extend_from_slice(&self.public_key);
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(signature.as_ref());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        let mut rest = signed.strip_prefix(&MAGIC)?;
        let mut take = |length: usize| {
            let (taken, left) = rest.split_at_checked(length)?;
            rest = left;
            Some(taken)
        };
        let log_id = uuid::Uuid::from_slice(take(16)?).ok()?;
        let before_day = i64::from_le_bytes(take(8)?.try_into().ok()?);
        let mut number = || Some(u64::from_le_bytes(take(8)?.try_into().ok()?));
        let boundary = Boundary { commit: number()?, position: number()? };
        let count = number()?;
        let mut heads = BTreeMap::new();
        for _ in 0..count {
            let workspace = WorkspaceId::new(uuid::Uuid::from_slice(take(16)?).ok()?);
            let seq = u64::from_le_bytes(take(8)?.try_into().ok()?);
            heads.insert(workspace, Head { seq, link: take(32)?.try_into().ok()? });
        }
        let public_key: [u8; 32] = take(32)?.try_into().ok()?;
        let good = UnparsedPublicKey::new(&ED25519, public_key).verify(signed, signature).is_ok();
        (good && rest.is_empty()).then_some(Self { log_id, before_day, boundary, heads, public_key })
    }
}

/// The hash by which the log knows a statement, in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    crate::secrets::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// The statement of this log and its bytes, if anything was ever retired.
///
/// # Errors
/// [`Damage`]: it is damaged, or another log's.
pub(crate) fn read(data: &Path, log_id: uuid::Uuid) -> Result<Option<(Retired, Vec<u8>)>, Damage> {
    let path = path(data);
    let damage = |reason: String, unreadable| Damage {
        file: path.clone(),
        offset: 0,
        position: None,
        stream: None,
        event: None,
        reason,
        unreadable,
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damage(format!("it cannot be read: {error}"), true)),
    };
    match Retired::decode(&bytes) {
        Some(retired) if retired.log_id == log_id => Ok(Some((retired, bytes))),
        Some(_) => Err(damage("a statement of another log".to_owned(), false)),
        None => Err(damage(
            "the statement of what was retired is damaged, or its signature wrong".to_owned(),
            false,
        )),
    }
}

pub(crate) fn write(data: &Path, bytes: &[u8]) -> Result<(), PathError> {
    write_whole(&path(data), bytes)
}

/// Follows the chains of accesses through one whole segment file; answers the last commit and position in it.
///
/// # Errors
/// The segment cannot be read, or is damaged.
pub(crate) fn follow(
    segment: &Path,
    bytes: &[u8],
    heads: &mut BTreeMap<WorkspaceId, Head>,
) -> Result<Boundary, PathError> {
    let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut at = usize::try_from(super::files::SEGMENT_HEADER_BYTES).expect("a small constant");
    let mut boundary = Boundary::default();
    while at < bytes.len() {
        let (parsed, length) = frame::parse(&bytes[at..]);
        match parsed {
            Parsed::Event(event) => {
                let head = heads.entry(event.workspace()).or_default();
                if event.seq() != head.seq + 1 || event.link() != event.link_after(&head.link) {
                    return Err(damaged("an event does not continue its chain")).at(segment);
                }
                *head = Head { seq: event.seq(), link: event.link() };
            }
            Parsed::Mark(mark) => boundary = Boundary { commit: mark.commit, position: mark.last },
            Parsed::Empty => break,
            Parsed::Bad(reason) => return Err(damaged(reason)).at(segment),
        }
        at += length;
    }
    Ok(boundary)
}

/// A statement that nobody has signed yet.
pub(crate) fn unsigned(
    log_id: uuid::Uuid,
    before_day: i64,
    boundary: Boundary,
    heads: BTreeMap<WorkspaceId, Head>,
    key: &Ed25519KeyPair,
) -> Retired {
    Retired { log_id, before_day, boundary, heads, public_key: public_key(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_comes_back_as_it_was_signed_and_no_byte_of_it_can_be_changed() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let heads = [(WorkspaceId::new(uuid::Uuid::from_u128(1)), Head { seq: 9, link: [3; 32] })].into();
        let boundary = Boundary { commit: 5, position: 12 };
        let retired = unsigned(uuid::Uuid::from_u128(2), 20_000, boundary, heads, &key);
        let bytes = retired.encode(&key);
        assert_eq!(Retired::decode(&bytes), Some(retired));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Retired::decode(&changed), None, "byte {at}");
        }
        assert_eq!(Retired::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Retired::decode(&[]), None);
    }
}

//! Whom `reach` trusts: the key that a service answered with first, as ssh does it.
//!
//! First contact without a fingerprint trusts the hub; afterwards a hub that puts somebody else in the service's place is
//! noticed.

use std::{collections::BTreeMap, fmt};

use parking_lot::Mutex;
use wire::sealed::PublicKey;

/// What a service's key is to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Met before, or for the first time and now pinned.
    Trusted,
    /// Another key is pinned, by this fingerprint.
    Changed { pinned: String },
}

/// The keys of services as this machine knows them.
pub trait KnownServices: fmt::Debug + Send + Sync + 'static {
    /// Judges the key that `service` answers with, and pins it on first contact.
    fn judge(&self, service: &str, key: &PublicKey) -> Verdict;
}

/// Known for as long as the process runs.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<BTreeMap<String, String>>);

impl KnownServices for InMemory {
    fn judge(&self, service: &str, key: &PublicKey) -> Verdict {
        let mut pinned = self.0.lock();
        judge(pinned.entry(service.to_owned()).or_insert_with(|| key.fingerprint()), key)
    }
}

/// Compares with what is pinned.
pub(crate) fn judge(pinned: &str, key: &PublicKey) -> Verdict {
    if pinned == key.fingerprint() {
        Verdict::Trusted
    } else {
        Verdict::Changed { pinned: pinned.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_is_pinned_and_another_one_is_refused_by_name() {
        let known = InMemory::default();
        let (first, second) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(known.judge("db", &first), Verdict::Trusted);
        assert_eq!(known.judge("db", &first), Verdict::Trusted);
        assert_eq!(known.judge("db", &second), Verdict::Changed { pinned: first.fingerprint() });
        assert_eq!(known.judge("web", &second), Verdict::Trusted);
    }
}

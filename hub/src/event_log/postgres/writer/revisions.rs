//! The revisions of streams that were appended to lately: this hub alone appends, so they stay right until a connection
//! is lost.

use std::collections::{HashMap, HashSet};

use domain::recorded::StreamName;

/// How many streams are remembered, in two halves: some 200 bytes each. Those of a busy hub's tunnels and shares fit;
/// one that does not is asked for.
const STREAMS_MAX: usize = 65_536;

/// A memory of bounded size. When a half is full the older half is forgotten.
#[derive(Debug, Default)]
pub(super) struct Revisions {
    young: HashMap<StreamName, u64>,
    old: HashMap<StreamName, u64>,
    /// Of the streams of the batch in the making.
    chosen: HashMap<StreamName, u64>,
}

impl Revisions {
    /// Has what is known of these streams ready; answers those of which nothing is.
    pub(super) fn choose<'a>(
        &mut self,
        streams: impl Iterator<Item = &'a StreamName>,
    ) -> HashSet<StreamName> {
        self.chosen.clear();
        let mut unknown = HashSet::new();
        for stream in streams {
            match self.young.get(stream).or_else(|| self.old.get(stream)) {
                Some(revision) => {
                    self.chosen.insert(stream.clone(), *revision);
                }
                None => {
                    unknown.insert(stream.clone());
                }
            }
        }
        unknown
    }

    /// Of the streams that were chosen.
    pub(super) fn chosen(&self) -> &HashMap<StreamName, u64> {
        &self.chosen
    }

    /// Remembers where streams are now.
    pub(super) fn grew(&mut self, streams: impl Iterator<Item = (StreamName, u64)>) {
        for (stream, revision) in streams {
            if self.young.len() >= STREAMS_MAX / 2 {
                self.old = std::mem::take(&mut self.young);
            }
            self.chosen.insert(stream.clone(), revision);
            self.young.insert(stream, revision);
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::ShareId;
    use uuid::Uuid;

    use super::*;

    fn stream(n: usize) -> StreamName {
        StreamName::share(ShareId::new(Uuid::from_u128(n as u128)))
    }

    #[test]
    fn what_was_used_lately_is_known_and_the_memory_has_an_end() {
        let mut revisions = Revisions::default();
        assert_eq!(revisions.choose([&stream(1), &stream(2)].into_iter()).len(), 2);
        revisions.grew([(stream(1), 7)].into_iter());
        assert_eq!(revisions.chosen().get(&stream(1)), Some(&7));
        for n in 0..3 * STREAMS_MAX {
            revisions.grew([(stream(n), 1)].into_iter());
            revisions.choose([].into_iter());
            assert!(revisions.young.len() + revisions.old.len() <= STREAMS_MAX);
        }
        assert!(revisions.choose([&stream(3 * STREAMS_MAX - 1)].into_iter()).is_empty());
        assert_eq!(revisions.choose([&stream(0)].into_iter()), HashSet::from([stream(0)]));
    }

    #[test]
    fn the_newer_revision_counts() {
        let mut revisions = Revisions::default();
        revisions.grew([(stream(1), 1), (stream(1), 2)].into_iter());
        revisions.choose([&stream(1)].into_iter());
        assert_eq!(revisions.chosen().get(&stream(1)), Some(&2));
        revisions.forget();
        assert_eq!(revisions.choose([&stream(1)].into_iter()).len(), 1);
    }
}

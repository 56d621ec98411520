//! The hash chains: one per workspace and family, and one hash over all of their heads.

use std::collections::BTreeMap;

use domain::{ids::WorkspaceId, recorded::Family, time::Timestamp};

use super::{
    frame::{EventView, Link},
    retired::Retired,
};

/// The end of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The last `seq`; 0 before the first event.
    pub(crate) seq: u64,
    /// Its link; zeros before the first event.
    pub(crate) link: Link,
}

/// Every chain's head, in an order of their own.
pub(crate) type Heads = BTreeMap<(WorkspaceId, Family), Head>;

/// One hash over all heads: who knows it can tell whether anything in the log was changed, added or removed.
pub(crate) fn heads_hash(heads: &Heads) -> Link {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(b"private connect heads 1");
    for ((workspace, family), head) in heads {
        context.update(workspace.uuid().as_bytes());
        context.update(&[*family as u8]);
        context.update(&head.seq.to_le_bytes());
        context.update(&head.link);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Follows the chains through the log.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    pub(crate) heads: Heads,
    /// When the last event was recorded.
    pub(crate) recorded_at: Option<Timestamp>,
}

impl Chains {
    /// As they stand before the first event that is there.
    pub(crate) fn after(retired: Option<&Retired>) -> Self {
        let heads = retired.map(|it| &it.heads).into_iter().flatten();
        let heads = heads.map(|(workspace, head)| ((*workspace, Family::Accesses), *head)).collect();
        Self { heads, recorded_at: None }
    }

    /// Takes the next event of the log.
    ///
    /// # Errors
    /// How it breaks its chain or the order of time.
    pub(crate) fn follow(&mut self, family: Family, event: EventView<'_>) -> Result<(), &'static str> {
        let head = self.heads.entry((event.workspace(), family)).or_default();
        if event.seq() != head.seq + 1 {
            return Err("its seq does not follow the one before");
        }
        if event.link() != event.link_after(&head.link) {
            return Err("its link does not continue the chain");
        }
        if self.recorded_at.is_some_and(|last| event.recorded_at() < last) {
            return Err("it was recorded before its predecessor");
        }
        *head = Head { seq: event.seq(), link: event.link() };
        self.recorded_at = Some(event.recorded_at());
        Ok(())
    }
}

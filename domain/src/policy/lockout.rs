//! Who may try a code: whoever tried too many wrong ones waits.
//!
//! Wrong tries count against the key that made them, the address they came from and the workspace they were made in.
//! A key over its budget is locked out. Where address or workspace are over theirs, everybody is locked out who has
//! made a wrong try himself lately; whoever has not has one try, so that a teammate with the right code joins at any
//! time, whatever somebody else is doing beside him.
//!
//! So in [`LOCKED_MS`] a workspace sees at most [`Budget::workspace`] wrong tries and one more for each of its keys (at
//! most [`crate::workspace::KEYS_MAX`]): of a billion codes, in a day, some 100,000. An operator may set each budget
//! otherwise, and switch it off.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use crate::{ids::WorkspaceId, time::Timestamp};

/// Wrong tries count for this long, and a lock-out lasts as long, from the last one that was looked at (milliseconds).
pub const LOCKED_MS: i64 = 15 * 60_000;
/// How many names are remembered (keys, addresses and workspaces, those with a wrong try lately only); beyond that the
/// one that was quiet for longest is forgotten.
pub const REMEMBERED_MAX: usize = 65_536;

/// How many wrong tries are let pass within [`LOCKED_MS`]; 0 lets all pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub key: usize,
    pub address: usize,
    pub workspace: usize,
}

impl Budget {
    /// Nobody is ever locked out.
    pub const OFF: Self = Self { key: 0, address: 0, workspace: 0 };
}

impl Default for Budget {
    /// A person mistypes a code a few times; a team behind one address some more.
    fn default() -> Self {
        Self { key: 10, address: 30, workspace: 100 }
    }
}

/// Whose wrong tries are counted. Addresses and keys count within a workspace: nobody locks out another tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Suspect {
    Workspace(WorkspaceId),
    Address(WorkspaceId, IpAddr),
    /// A key or an agent, by its id in words.
    Caller(WorkspaceId, String),
}

/// Who tries.
#[derive(Debug, Clone, Copy)]
pub struct Trier<'a> {
    pub workspace: WorkspaceId,
    pub caller: &'a str,
    pub address: IpAddr,
}

impl Trier<'_> {
    fn suspects(self) -> [Suspect; 3] {
        [
            Suspect::Caller(self.workspace, self.caller.to_owned()),
            Suspect::Address(self.workspace, network(self.address)),
            Suspect::Workspace(self.workspace),
        ]
    }
}

/// An address as it is counted: one household of IPv6 has 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(six) => std::net::Ipv6Addr::from_bits(six.to_bits() >> 64 << 64).into(),
    }
}

/// The caller has to wait until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("locked out until {until}")]
pub struct LockedOut {
    pub until: Timestamp,
}

/// The wrong tries of one suspect.
#[derive(Debug, Default)]
struct Tries {
    /// Those of late, as many as the budget has, and at least the last one.
    recent: VecDeque<Timestamp>,
    locked_until: Option<Timestamp>,
}

impl Tries {
    fn note(&mut self, budget: usize, now: Timestamp) {
        let from = now.plus_ms(-LOCKED_MS);
        self.recent.retain(|at| *at > from);
        self.recent.push_back(now);
        if budget > 0 && self.recent.len() >= budget {
            self.locked_until = Some(now.plus_ms(LOCKED_MS));
        }
        let too_many = self.recent.len().saturating_sub(budget.max(1));
        self.recent.drain(..too_many);
    }
    fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.locked_until.filter(|until| *until > now)
    }
    fn last(&self) -> Option<Timestamp> {
        self.recent.back().copied()
    }
}

/// The wrong tries of late. In memory only: who can restart the hub needs no codes.
#[derive(Debug, Default)]
pub struct Lockout {
    budget: Budget,
    tries: BTreeMap<Suspect, Tries>,
}

impl Lockout {
    pub fn new(budget: Budget) -> Self {
        Self { budget, tries: BTreeMap::new() }
    }

    /// Whether somebody may try now.
    ///
    /// # Errors
    /// [`LockedOut`] with the end of it.
    pub fn admit(&self, trier: Trier<'_>, now: Timestamp) -> Result<(), LockedOut> {
        let [caller, address, workspace] = trier.suspects();
        let locked = |suspect: &Suspect| self.tries.get(suspect).and_then(|tries| tries.locked_until(now));
        if let Some(until) = locked(&caller) {
            return Err(LockedOut { until });
        }
        // Whoever made no wrong try of late is none of those that the others are locked out for.
        let last = self.tries.get(&caller).and_then(Tries::last);
        let forgiven = last.map(|last| last.plus_ms(LOCKED_MS)).filter(|at| *at > now);
        match (forgiven, locked(&address).max(locked(&workspace))) {
            (Some(forgiven), Some(until)) => Err(LockedOut { until: until.min(forgiven) }),
            (_, _) => Ok(()),
        }
    }

    /// Counts a wrong try. Those that were not admitted do not count: they learnt nothing.
    pub fn note_wrong(&mut self, trier: Trier<'_>, now: Timestamp) {
        if self.budget == Budget::OFF {
            return;
        }
        let Budget { key, address, workspace } = self.budget;
        for (suspect, budget) in trier.suspects().into_iter().zip([key, address, workspace]) {
            self.tries.entry(suspect).or_default().note(budget, now);
        }
        self.forget(now);
    }

    /// How many names are remembered.
    pub fn remembered(&self) -> usize {
        self.tries.len()
    }

    fn forget(&mut self, now: Timestamp) {
        if self.tries.len() <= REMEMBERED_MAX {
            return;
        }
        let from = now.plus_ms(-LOCKED_MS);
        self.tries.retain(|_, tries| tries.last().is_some_and(|last| last > from));
        while self.tries.len() > REMEMBERED_MAX {
            let quiet = self.tries.iter().min_by_key(|(_, tries)| tries.last());
            let Some(quiet) = quiet.map(|(suspect, _)| suspect.clone()) else { return };
            self.tries.remove(&quiet);
        }
    }
}

#[cfg(test)]
mod tests;

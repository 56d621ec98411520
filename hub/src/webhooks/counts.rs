//! What couriers tell metrics: what came of their tries, and how they stand. No webhook has a number of its own there.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use domain::{
    delivery::{Backlog, GaveUp, Problem, Said, Then},
    time::Timestamp,
    webhook::DisableReason,
};

use crate::metrics::count::{ByName, Times};

/// What comes of a try.
const OUTCOMES: [&str; 14] = [
    "delivered",
    "status_3xx",
    "status_4xx",
    "status_5xx",
    "status_other",
    "url_refused",
    "unresolved",
    "address_refused",
    "unreachable",
    "tls",
    "timed_out",
    "broken_off",
    "not_http",
    "source_lost",
];
/// Why a message is tried no more.
const REASONS: [&str; 4] = ["exhausted", "gone", "source_lost", "inactive"];
/// Why the hub disables a webhook.
const DISABLED: [&str; 2] = ["gone", "failing"];
/// A receiver beside the hub takes some milliseconds, one far away half a second, and 15 s are the end (microseconds).
const BOUNDS_US: [u64; 7] = [5_000, 25_000, 100_000, 250_000, 1_000_000, 5_000_000, 15_000_000];

/// Of all couriers, since the start.
#[derive(Debug)]
pub struct Counts {
    pub attempts: ByName,
    pub times: Times,
    pub dead_letters: ByName,
    pub disabled: ByName,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            attempts: ByName::new(&OUTCOMES),
            times: Times::new(&BOUNDS_US),
            dead_letters: ByName::new(&REASONS),
            disabled: ByName::new(&DISABLED),
        }
    }
}

impl Counts {
    /// A message was tried.
    pub(super) fn tried(&self, said: Said, latency_ms: u32, then: Option<Then>) {
        self.times.add(std::time::Duration::from_millis(latency_ms.into()));
        self.attempts.add(match said {
            Said::Status(200..=299) => "delivered",
            Said::Status(300..=399) => "status_3xx",
            Said::Status(400..=499) => "status_4xx",
            Said::Status(500..=599) => "status_5xx",
            Said::Status(_) => "status_other",
            Said::Nothing(problem) => named(problem),
        });
        match then {
            Some(Then::GivenUp { reason }) => self.dead_letters.add(match reason {
                GaveUp::Exhausted => "exhausted",
                GaveUp::Gone => "gone",
                GaveUp::SourceLost => "source_lost",
                GaveUp::Inactive => "inactive",
            }),
            Some(Then::Delivered { .. } | Then::Again { .. }) | None => {}
        }
    }

    /// The hub has disabled a webhook.
    pub(super) fn disabled(&self, reason: DisableReason) {
        match reason {
            DisableReason::Gone => self.disabled.add("gone"),
            DisableReason::Failing => self.disabled.add("failing"),
            // Not the hub's doing.
            DisableReason::Requested => {}
        }
    }
}

fn named(problem: Problem) -> &'static str {
    match problem {
        Problem::UrlRefused => "url_refused",
        Problem::Unresolved => "unresolved",
        Problem::AddressRefused => "address_refused",
        Problem::Unreachable => "unreachable",
        Problem::Tls => "tls",
        Problem::TimedOut => "timed_out",
        Problem::BrokenOff => "broken_off",
        Problem::NotHttp => "not_http",
        Problem::SourceLost => "source_lost",
    }
}

/// How one courier stands, as it last said. Nothing in it is exact to the moment, and nobody waits for it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_known: AtomicBool,
    active: AtomicBool,
    down: AtomicBool,
    /// Everything up to this position is planned.
    read_up_to: AtomicU64,
    pending: AtomicU64,
    /// When the oldest message that is not delivered was planned; 0: there is none.
    oldest_ms: AtomicI64,
}

impl Standing {
    /// Says it.
    pub(super) fn tell(&self, backlog: &Backlog, active: bool) {
        self.active.store(active, Relaxed);
        self.down.store(backlog.is_down(), Relaxed);
        self.read_up_to.store(backlog.facts_after.min(backlog.accesses_after), Relaxed);
        self.pending.store(u64::try_from(backlog.pending()).unwrap_or(u64::MAX), Relaxed);
        // They are in the order in which they were planned.
        let oldest = backlog.messages().next().map_or(0, |it| it.planned_at.millis());
        self.oldest_ms.store(oldest, Relaxed);
        self.is_known.store(true, Relaxed);
    }
}

/// How all couriers stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overview {
    pub active: u64,
    pub inactive: u64,
    /// Active ones whose last three messages failed.
    pub down: u64,
    /// What the active one that is furthest behind has not read.
    pub lag_positions: u64,
    /// Messages of active ones that are not delivered.
    pub pending: u64,
    /// How long the oldest of them has waited.
    pub oldest_waiting_ms: u64,
}

impl Overview {
    pub(super) fn add(&mut self, standing: &Standing, head: u64, now: Timestamp) {
        if !standing.is_known.load(Relaxed) {
            return;
        }
        // Who is sent nothing is behind by somebody's decision.
        if !standing.active.load(Relaxed) {
            self.inactive += 1;
            return;
        }
        self.active += 1;
        self.down += u64::from(standing.down.load(Relaxed));
        self.lag_positions = self.lag_positions.max(head.saturating_sub(standing.read_up_to.load(Relaxed)));
        self.pending += standing.pending.load(Relaxed);
        let oldest = standing.oldest_ms.load(Relaxed);
        let waited = if oldest == 0 { 0 } else { now.millis().saturating_sub(oldest) };
        self.oldest_waiting_ms = self.oldest_waiting_ms.max(u64::try_from(waited).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_series_of_its_own() {
        use Problem as P;
        let counts = Counts::default();
        let problems = [
            P::UrlRefused,
            P::Unresolved,
            P::AddressRefused,
            P::Unreachable,
            P::Tls,
            P::TimedOut,
            P::BrokenOff,
            P::NotHttp,
            P::SourceLost,
        ];
        let statuses = [200, 302, 410, 503, 700].map(Said::Status);
        for said in problems.map(Said::Nothing).into_iter().chain(statuses) {
            counts.tried(said, 3, None);
        }
        let reasons = [GaveUp::Exhausted, GaveUp::Gone, GaveUp::SourceLost, GaveUp::Inactive];
        for reason in reasons {
            counts.tried(Said::Status(500), 3, Some(Then::GivenUp { reason }));
        }
        counts.disabled(DisableReason::Gone);
        counts.disabled(DisableReason::Failing);
        for of in [&counts.attempts, &counts.dead_letters, &counts.disabled] {
            assert!(of.all().all(|(name, count)| name != "other" && count > 0), "{of:?}");
        }
        assert_eq!(counts.times.read().total(), 18);
    }

    #[test]
    fn the_furthest_behind_is_shown_and_who_is_sent_nothing_is_not() {
        let (mut overview, now) = (Overview::default(), Timestamp::from_millis(10_000));
        let standing = |position: u64, active: bool| {
            let standing = Standing::default();
            standing.tell(&Backlog::starting_after(position), active);
            standing
        };
        for (position, active) in [(90, true), (100, true), (5, false)] {
            overview.add(&standing(position, active), 100, now);
        }
        overview.add(&Standing::default(), 100, now);
        let expected = Overview { active: 2, inactive: 1, lag_positions: 10, ..Overview::default() };
        assert_eq!(overview, expected);
    }
}

//! Retires old accesses, by age or size, a day at a time: sums them up, records that, and lets them go.
//!
//! Killed between any two lines: what was summed and recorded but not retired is retired by the next look, with the same
//! statement; what was begun to be removed the next start removes. Views have to be past what goes, so that what they
//! show is what they counted; and webhooks past it too, where it is younger than what they can count on: what is older
//! and not delivered their couriers leave out, and say so.

use std::{sync::Arc, time::Duration};

use domain::{
    delivery::AGE_MS_MAX,
    event::Event,
    ids::EventId,
    recorded::{Actor, Families, Family, Recorded, SYSTEM_WORKSPACE, StreamName},
    retention::{self, HistoryRetired, HistorySummed, LastNumber, OpenAccess},
    time::Day,
};
use projections::{
    access_log::{Summing, Sums},
    view::{Applied, ViewError},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::SharedClock,
    event_log::{
        Append, AppendError, Expected, NewEvent, ReadError, SharedLog,
        segments::{RetireError, Retirement, Segments},
    },
    readers::Views,
    webhooks::{NoCourier, Webhooks},
};

/// How often one looks whether something is due: days are what it is about.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// How long the views may take to be past what is to go; else it is tried again.
const VIEWS_PATIENCE: Duration = Duration::from_secs(60);
/// Packed events read at once.
const BATCH: usize = 256;
/// Sums in one event: some 200 bytes each.
const SUMS_PER_EVENT: usize = 1_000;
/// Events of one look: an append has no more.
const EVENTS_MAX: usize = 900;

/// How much is kept. 0 is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many days before today.
    pub days: u32,
    /// So many bytes of accesses in the log; today's stay, however many they are.
    pub bytes: u64,
}

impl Keep {
    /// The day before which accesses are to go, if any are.
    pub fn before(self, today: Day, held: &[(Day, u64)]) -> Option<Day> {
        let by_age = (self.days > 0).then(|| Day::new(today.number() - i64::from(self.days)));
        let mut total: u64 = held.iter().map(|(_, bytes)| bytes).sum();
        let mut by_size = None;
        for (day, bytes) in held.iter().filter(|(day, _)| *day < today) {
            if self.bytes == 0 || total <= self.bytes {
                break;
            }
            total -= bytes;
            by_size = Some(Day::new(day.number() + 1));
        }
        let before = by_age.max(by_size)?;
        held.iter().any(|(day, _)| *day < before).then_some(before)
    }
}

/// Why nothing was retired.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    #[error(transparent)]
    Segments(#[from] RetireError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("it could not be recorded: {0}")]
    Append(#[from] AppendError),
    #[error("the views are behind what is to go")]
    ViewsBehind,
    #[error("a webhook's courier does not say what it needs")]
    NoCourier,
    #[error("more shares and tunnels than one append has room for")]
    TooMany,
    #[error("it was interrupted: {0}")]
    Stopped(String),
}

/// Retires accesses.
#[derive(Debug, Clone)]
pub struct Retention {
    pub log: SharedLog,
    pub segments: Arc<Segments>,
    pub views: Arc<Views>,
    pub webhooks: Arc<Webhooks>,
    pub clock: SharedClock,
    pub keep: Keep,
}

impl Retention {
    /// Looks now and then, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            match self.look().await {
                Ok(None) => {}
                Ok(Some(before)) => tracing::info!(%before, "accesses of earlier days were retired"),
                Err(error) => tracing::warn!(%error, "no accesses were retired; tried again in an hour"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Retires what is due; answers the day before which accesses went.
    ///
    /// # Errors
    /// See [`RetentionError`]: the log is whole, and the next look goes on.
    pub async fn look(&self) -> Result<Option<Day>, RetentionError> {
        let recorded = self.recorded().await?;
        let last = recorded.iter().rev().find_map(|(_, event)| {
            let Event::Retention(retention::Event::Retired(retired)) = event else { return None };
            Some(retired.clone())
        });
        if let Some(last) = &last
            && let Some(retirement) = self.retirable(last.before, Some(last.up_to)).await?
            && retirement.statement_hash == last.statement
        {
            self.retire(retirement).await?;
            return Ok(Some(last.before));
        }
        let today = Day::of(self.clock.now());
        let held = self.segments.access_days().map_err(RetireError::Io)?;
        let Some(before) = self.keep.before(today, &held) else { return Ok(None) };
        let Some((before, retirement)) = self.released(before).await? else { return Ok(None) };
        self.seen(retirement.up_to).await?;
        let sums = self.sum_up(&retirement, &carried(&recorded, last.as_ref())).await?;
        let revision = u64::try_from(recorded.len()).unwrap_or(u64::MAX);
        let position = self.record(&retirement, sums, revision).await?;
        self.seen(position).await?;
        self.retire(retirement).await?;
        Ok(Some(before))
    }

    /// What can go of the accesses before a day without a webhook missing it in silence: all of it if every courier is
    /// past it; else only what is older than webhooks can count on, which couriers then leave out and say so.
    async fn released(&self, before: Day) -> Result<Option<(Day, Retirement)>, RetentionError> {
        let nobody = |NoCourier| RetentionError::NoCourier;
        let Some(all) = self.retirable(before, None).await? else { return Ok(None) };
        let too_old = Day::of(self.clock.now().plus_ms(-AGE_MS_MAX));
        let force = before <= too_old;
        if self.webhooks.let_go(all.up_to, force).await.map_err(nobody)? >= all.up_to {
            return Ok(Some((before, all)));
        }
        if force {
            tracing::info!(%before, "accesses stay for now: a webhook is being told of some");
            return Ok(None);
        }
        let Some(part) = self.retirable(too_old, None).await? else {
            tracing::info!(%before, "accesses stay for now: a webhook has not been told of them");
            return Ok(None);
        };
        let free = self.webhooks.let_go(part.up_to, true).await.map_err(nobody)?;
        Ok((free >= part.up_to).then_some((too_old, part)))
    }

    /// Waits until the views have everything up to a position.
    async fn seen(&self, position: u64) -> Result<(), RetentionError> {
        let is_seen = self.views.wait_for_accesses(position, VIEWS_PATIENCE).await
            && self.views.wait_for_audit(position, VIEWS_PATIENCE).await;
        if is_seen { Ok(()) } else { Err(RetentionError::ViewsBehind) }
    }

    /// What is recorded of earlier retirements.
    async fn recorded(&self) -> Result<Vec<(Recorded, Event)>, RetentionError> {
        let (stream, mut found) = (StreamName::history(Family::Accesses), Vec::new());
        loop {
            let from = u64::try_from(found.len()).unwrap_or(u64::MAX).saturating_add(1);
            let read = self.log.read_stream(&stream, from, BATCH).await?;
            if read.is_empty() {
                return Ok(found);
            }
            for recorded in read {
                let event = recorded.event().map_err(|error| ReadError::Damaged(error.to_string()))?;
                found.push((recorded, event));
            }
        }
    }

    async fn retirable(&self, before: Day, up_to: Option<u64>) -> Result<Option<Retirement>, RetentionError> {
        let segments = Arc::clone(&self.segments);
        Ok(blocking(move || segments.retirable(before, up_to)).await??)
    }

    async fn retire(&self, retirement: Retirement) -> Result<(), RetentionError> {
        let segments = Arc::clone(&self.segments);
        Ok(blocking(move || segments.retire(&retirement)).await??)
    }

    async fn sum_up(&self, retirement: &Retirement, open: &[OpenAccess]) -> Result<Sums, RetentionError> {
        let (mut after, up_to) = (retirement.after, retirement.up_to);
        let mut summing = Summing::begin(open)?;
        loop {
            let mut batch = self.log.read_all(after, Families::only(Family::Accesses), BATCH).await?;
            batch.retain(|recorded| recorded.position <= up_to);
            let Some(last) = batch.last() else { return Ok(summing.end()?) };
            after = last.position;
            summing = blocking(move || {
                let applied: Vec<Applied> = batch
                    .into_iter()
                    .map(|recorded| {
                        let event = recorded.event().ok();
                        (recorded, event)
                    })
                    .collect();
                summing.take_in(&applied).map(|()| summing)
            })
            .await??;
        }
    }

    /// Sums and retirement in one append: all of it is recorded, or nothing. Answers where.
    async fn record(
        &self,
        retirement: &Retirement,
        sums: Sums,
        revision: u64,
    ) -> Result<u64, RetentionError> {
        let up_to = retirement.up_to;
        let numbers: Vec<LastNumber> = retirement
            .numbers
            .iter()
            .map(|(workspace_id, number)| LastNumber { workspace_id: *workspace_id, number: *number })
            .collect();
        let most = sums.shares.len().max(sums.tunnels.len()).max(sums.open.len()).max(numbers.len());
        let parts = most.div_ceil(SUMS_PER_EVENT).max(1);
        if parts >= EVENTS_MAX {
            return Err(RetentionError::TooMany);
        }
        let summed = (0..parts).map(|part| {
            let summed = HistorySummed {
                up_to,
                shares: part_of(&sums.shares, part),
                tunnels: part_of(&sums.tunnels, part),
                open: part_of(&sums.open, part),
                numbers: part_of(&numbers, part),
            };
            retention::Event::Summed(summed)
        });
        let retired = retention::Event::Retired(HistoryRetired {
            family: Family::Accesses,
            before: retirement.before,
            after: retirement.after,
            up_to,
            statement: retirement.statement_hash.clone(),
        });
        let events = summed.chain([retired]).map(|event| {
            let encoded = Event::Retention(event).encode();
            NewEvent {
                id: EventId::new(Uuid::now_v7()),
                event_type: encoded.event_type,
                version: encoded.version,
                data: encoded.data,
                personal: None,
                causation: None,
            }
        });
        let append = Append {
            stream: StreamName::history(Family::Accesses),
            expected: Expected::Revision(revision),
            workspace: SYSTEM_WORKSPACE,
            actor: Actor::System("retention".to_owned()),
            correlation: None,
            at: self.clock.now(),
            events: events.collect(),
        };
        Ok(self.log.append(append).await?.position)
    }
}

/// What was running when the last retirement ended.
fn carried(recorded: &[(Recorded, Event)], last: Option<&HistoryRetired>) -> Vec<OpenAccess> {
    let summed = recorded.iter().filter_map(|(_, event)| {
        let Event::Retention(retention::Event::Summed(summed)) = event else { return None };
        Some(summed)
    });
    let of_last = summed.filter(|summed| last.is_some_and(|last| last.up_to == summed.up_to));
    of_last.flat_map(|summed| summed.open.iter().cloned()).collect()
}

fn part_of<T: Clone>(all: &[T], part: usize) -> Vec<T> {
    all.iter().skip(part * SUMS_PER_EVENT).take(SUMS_PER_EVENT).cloned().collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RetentionError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RetentionError::Stopped(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_decided_by_age_and_by_size_and_today_stays() {
        let held = [(Day::new(10), 100), (Day::new(11), 200), (Day::new(12), 50), (Day::new(20), 400)];
        let before = |days, bytes| Keep { days, bytes }.before(Day::new(20), &held).map(Day::number);
        for (days, bytes, expected) in [
            (0, 0, None),
            (10, 0, None),
            (9, 0, Some(11)),
            (1, 0, Some(19)),
            (30, 0, None),
            (0, 750, None),
            (0, 749, Some(11)),
            (0, 650, Some(11)),
            (0, 649, Some(12)),
            (0, 1, Some(13)),
            (9, 649, Some(12)),
            (1, 749, Some(19)),
        ] {
            assert_eq!(before(days, bytes), expected, "{days} days, {bytes} bytes");
        }
        assert_eq!(Keep { days: 1, bytes: 1 }.before(Day::new(20), &[]), None);
    }
}

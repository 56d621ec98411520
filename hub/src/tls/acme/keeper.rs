//! Has a certificate from the authority at all times: takes up the kept one, and renews it when two thirds of its life
//! are over.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::{
    AcmePlan, Issued,
    authority::obtain,
    store::{SavedCertificate, Store},
};
use crate::clock::SharedClock;

/// After a failure: authorities count failures by the hour, and most end by somebody's doing.
const RETRY_MIN: Duration = Duration::from_secs(5 * 60);
const RETRY_MAX: Duration = Duration::from_secs(12 * 3_600);
/// A certificate that still holds leaves time for so many more tries at least; never more often than that part of its
/// life allows.
const TRIES_LEFT: u64 = 4;
const TRIES_OF_A_LIFE: u64 = 60;
/// An authority may refuse a request for its nonce alone, which says nothing about the names (RFC 8555, section 6.5): it is
/// asked again at once, so often.
const NONCE_TRIES: u32 = 8;
const NONCE_AGAIN: Duration = Duration::from_millis(500);
/// The longest sleep: a clock that was set, or a machine that slept, is noticed by then.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What the keeper works with.
#[derive(Debug)]
pub struct Keeper {
    plan: AcmePlan,
    issued: Arc<Issued>,
    store: Store,
    clock: SharedClock,
}

impl Keeper {
    /// Takes up what is kept.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(plan: AcmePlan, issued: Arc<Issued>, folder: &Path, clock: SharedClock) -> Result<Self> {
        let store =
            Store::at(folder).with_context(|| format!("while making the folder {}", folder.display()))?;
        let keeper = Self { plan, issued, store, clock };
        // Another authority, or another list of names, is another certificate.
        let kept = keeper
            .store
            .certificate()
            .filter(|saved| saved.directory == keeper.plan.directory && saved.domains == keeper.plan.domains);
        match kept.map(|saved| saved.open()) {
            Some(Ok(shown)) if shown.validity.holds(keeper.now()) => keeper.issued.show(shown),
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "the kept certificate cannot be used and is asked for anew");
            }
        }
        Ok(keeper)
    }

    /// Keeps the certificate good until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let wait = match self.due_in() {
                Some(wait) => wait,
                None => {
                    let tried = tokio::select! {
                        () = stop.cancelled() => return,
                        tried = self.renew() => tried,
                    };
                    self.issued.failing.store(tried.is_err(), Relaxed);
                    match tried {
                        Ok(()) => {
                            failures = 0;
                            continue;
                        }
                        Err(error) => {
                            let wait = self.again_in(failures);
                            failures += 1;
                            let (domains, seconds) = (self.plan.domains.join(", "), wait.as_secs());
                            tracing::error!(
                                "no certificate for {domains} from {}: {error:#}; the next try is in {seconds} s",
                                self.plan.directory
                            );
                            wait
                        }
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().millis().div_euclid(1_000)
    }

    /// How long to sleep; `None`: it is time.
    fn due_in(&self) -> Option<Duration> {
        let due = self.issued.shown()?.validity.two_thirds();
        let left = u64::try_from(due - self.now()).ok().filter(|left| *left > 0)?;
        Some(Duration::from_secs(left).min(LOOK_EVERY))
    }

    /// How long to wait after a failure that followed so many others: less where the certificate would run out first.
    fn again_in(&self, failures: u32) -> Duration {
        let wait = after(failures);
        let Some(shown) = self.issued.shown() else { return wait };
        let validity = shown.validity;
        let seconds = |length: i64| u64::try_from(length).unwrap_or(0);
        let left = seconds(validity.not_after - self.now());
        let seldom = seconds(validity.not_after - validity.not_before) / TRIES_OF_A_LIFE;
        wait.min(Duration::from_secs((left / TRIES_LEFT).max(seldom).max(1)))
    }

    async fn renew(&self) -> Result<()> {
        let mut tries = 1;
        let saved: SavedCertificate = loop {
            match obtain(&self.plan, &self.store, &self.issued).await {
                Err(error) if tries < NONCE_TRIES && is_nonce_refused(&error) => tries += 1,
                obtained => break obtained?,
            }
            tokio::time::sleep(NONCE_AGAIN).await;
        };
        let shown = saved.open().context("while reading the certificate")?;
        if let Err(error) = self.store.save_certificate(&saved) {
            tracing::error!(%error, "the certificate is in use but could not be kept: the next start asks for another");
        }
        tracing::info!(
            domains = self.plan.domains.join(", "),
            not_after = %super::super::certificates::moment(shown.validity.not_after),
            "a certificate came from the authority"
        );
        self.issued.show(shown);
        Ok(())
    }
}

fn is_nonce_refused(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<instant_acme::Error>());
    causes.any(|cause| {
        let instant_acme::Error::Api(problem) = cause else { return false };
        problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":badNonce"))
    })
}

/// The wait after so many failures before this one: twice as long each time.
fn after(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.min(16)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use domain::time::Timestamp;

    use super::*;
    use crate::clock::SetClock;

    const OURS: &str = "https://ca.example/dir";

    fn plan(directory: &str) -> AcmePlan {
        AcmePlan {
            domains: vec!["hub.example".to_owned()],
            email: None,
            directory: directory.to_owned(),
            ca: None,
        }
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_half_a_day() {
        let minutes = |failures| after(failures).as_secs() / 60;
        assert_eq!([0, 1, 2, 7, 8, 1_000].map(minutes), [5, 10, 20, 640, 720, 720]);
    }

    type Date = (i32, u8, u8);

    /// A keeper at a moment, with a certificate kept of these days and of `https://ca.example/dir`.
    fn keeper_at(moment: &str, directory: &str, (from, to): (Date, Date)) -> Keeper {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
        let key = rcgen::KeyPair::generate().unwrap();
        let saved = SavedCertificate {
            directory: OURS.to_owned(),
            domains: vec!["hub.example".to_owned()],
            chain: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        };
        Store::at(folder.path()).unwrap().save_certificate(&saved).unwrap();
        let (plan, clock) = (plan(directory), SetClock::at(moment.parse::<Timestamp>().unwrap()));
        let issued = Issued::new(&plan);
        Keeper::open(plan, issued, folder.path(), clock).unwrap()
    }

    #[test]
    fn a_certificate_of_a_few_days_is_asked_for_more_often_before_it_runs_out() {
        let days = |moment| keeper_at(moment, OURS, ((2026, 1, 1), (2026, 1, 7)));
        let hours = |keeper: Keeper, failures| keeper.again_in(failures).as_secs_f32() / 3_600.0;
        assert_eq!(hours(days("2026-01-05T00:00:00Z"), 20), 12.0);
        assert_eq!(hours(days("2026-01-06T00:00:00Z"), 20), 6.0, "a quarter of what is left");
        assert_eq!(hours(days("2026-01-06T23:59:00Z"), 20), 2.4, "a sixtieth of its life");
        assert_eq!(days("2026-01-06T23:59:00Z").again_in(0), RETRY_MIN, "never later than without");
        let months = keeper_at("2026-03-31T23:00:00Z", OURS, ((2026, 1, 1), (2026, 4, 1)));
        assert_eq!(hours(months, 20), 12.0);
    }

    #[test]
    fn a_kept_certificate_is_taken_up_until_two_thirds_of_its_life_and_for_its_directory_only() {
        let at = |directory: &str, moment: &str| {
            let keeper = keeper_at(moment, directory, ((2026, 1, 1), (2026, 4, 1)));
            (keeper.issued.shown().is_some(), keeper.due_in())
        };
        assert_eq!(at(OURS, "2026-02-01T00:00:00Z"), (true, Some(LOOK_EVERY)));
        assert_eq!(at(OURS, "2026-03-01T23:59:00Z"), (true, Some(Duration::from_secs(60))));
        assert_eq!(at(OURS, "2026-03-02T00:00:00Z"), (true, None), "due, and shown until another comes");
        assert_eq!(at(OURS, "2026-04-02T00:00:00Z"), (false, None), "over");
        assert_eq!(at("https://other.example/dir", "2026-02-01T00:00:00Z"), (false, None));
    }
}

//! Keeps the agent's token good while the process runs: exchanged well before it ends, saved before it is used.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::{
    agent::TokenCell,
    api::Api,
    commands::identity::rotate,
    settings::config_file::{ConfigFile, SavedAgent},
};

/// A token that ends within this time is exchanged: a third of its life, so that a laptop may sleep for a week.
const ROTATE_BEFORE: SignedDuration = SignedDuration::from_hours(10 * 24);
/// How often the clock is looked at: a machine that slept has missed its timers.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long to wait after a try that failed, at first and at most.
const TRY_AGAIN_MIN: Duration = Duration::from_secs(5);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(3_600);

/// Looks after one identity's token.
pub(super) struct Keeper {
    pub(super) api: Api,
    pub(super) config: Option<ConfigFile>,
    pub(super) identity: Arc<Mutex<SavedAgent>>,
    pub(super) token: TokenCell,
}

impl Keeper {
    pub(super) async fn run(self) {
        let mut again_after = TRY_AGAIN_MIN;
        // The session that is about to begin comes with the token of now; the hub lets it go on under the next.
        tokio::time::sleep(TRY_AGAIN_MIN).await;
        loop {
            let saved = self.identity.lock().clone();
            if !is_due(&saved.expires_at, Timestamp::now()) {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            match rotate(&self.api, self.config.as_ref(), &saved).await {
                Ok(fresh) => {
                    again_after = TRY_AGAIN_MIN;
                    // An agent that was made for a while ends with its token, whichever it has.
                    let is_last = fresh.expires_at <= saved.expires_at;
                    self.take(fresh);
                    if is_last {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(?error, "the agent's token is not exchanged yet");
                    // Another process of this machine may have been faster.
                    if let Some(saved_since) = self.saved_since(&saved) {
                        self.take(saved_since);
                        continue;
                    }
                    tokio::time::sleep(again_after).await;
                    again_after = again_after.saturating_mul(2).min(TRY_AGAIN_MAX);
                }
            }
        }
    }

    fn take(&self, fresh: SavedAgent) {
        self.token.set(fresh.token.clone());
        *self.identity.lock() = fresh;
    }

    fn saved_since(&self, known: &SavedAgent) -> Option<SavedAgent> {
        let config = self.config.as_ref()?.read().ok()?;
        let saved = config.hubs.get(self.api.hub().as_str())?.agent.clone()?;
        (saved.id == known.id && saved.token != known.token).then_some(saved)
    }
}

// A date that cannot be read is left alone: the hub says when the token is no longer good.
fn is_due(expires_at: &str, now: Timestamp) -> bool {
    expires_at.parse::<Timestamp>().is_ok_and(|end| end.duration_since(now) < ROTATE_BEFORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_exchanged_in_the_last_third_of_its_life() {
        let now: Timestamp = "2026-03-02T10:00:00Z".parse().unwrap();
        assert!(!is_due("2026-04-01T10:00:00.000Z", now), "new");
        assert!(!is_due("2026-03-12T10:00:00.000Z", now));
        assert!(is_due("2026-03-12T09:59:59.000Z", now));
        assert!(is_due("2026-03-01T10:00:00.000Z", now), "whoever slept too long tries at least");
        assert!(!is_due("some day", now));
    }
}

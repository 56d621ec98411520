//! Whether somebody watches a service, and whether it was found well. What one look found is no fact: only a change is,
//! once it has shown itself often enough ([`crate::policy::health`]).

use serde::{Deserialize, Serialize};

use super::{Event, Rejection};

/// The shortest time between two looks (seconds): a look is a connection to somebody's target.
pub const INTERVAL_S_MIN: u32 = 10;
/// The longest (seconds).
pub const INTERVAL_S_MAX: u32 = 3_600;

/// Somebody wants the service watched, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthConfigured {
    pub enabled: bool,
    pub interval_seconds: u32,
}

/// The service answers, after it did not or for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealthy {}

/// The service does not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUnhealthy {
    /// What was found, in words.
    pub reason: String,
}

/// What watching a service has shown last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Healthy,
    Unhealthy { reason: String },
}

/// How a service is watched and what that has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub config: Option<HealthConfigured>,
    /// `None`: not watched, or nothing is known yet.
    pub finding: Option<Finding>,
}

impl Health {
    /// Seconds between two looks, while somebody wants them.
    pub fn interval_s(&self) -> Option<u32> {
        self.config.as_ref().filter(|config| config.enabled).map(|config| config.interval_seconds)
    }

    pub(super) fn configure(&self, config: &HealthConfigured) -> Result<Vec<Event>, Rejection> {
        if !(INTERVAL_S_MIN..=INTERVAL_S_MAX).contains(&config.interval_seconds) {
            return Err(Rejection::IntervalRange);
        }
        let known = self.config.as_ref() == Some(config);
        Ok(if known { vec![] } else { vec![Event::HealthConfigured(config.clone())] })
    }

    pub(super) fn find(&self, finding: &Finding) -> Vec<Event> {
        // Whoever switched watching off wants no news of it, and a look may have been under way.
        if self.interval_s().is_none() {
            return vec![];
        }
        match (&self.finding, finding) {
            (Some(Finding::Healthy), Finding::Healthy)
            | (Some(Finding::Unhealthy { .. }), Finding::Unhealthy { .. }) => vec![],
            (_, Finding::Healthy) => vec![Event::Healthy(ServiceHealthy {})],
            (_, Finding::Unhealthy { reason }) => {
                vec![Event::Unhealthy(ServiceUnhealthy { reason: reason.clone() })]
            }
        }
    }

    pub(super) fn evolve_config(&mut self, config: &HealthConfigured) {
        if !config.enabled {
            self.finding = None;
        }
        self.config = Some(config.clone());
    }
}

//! Whether somebody watches a service, and whether it was found well. What one look found is no fact: only a change is,
//! once it has shown itself often enough ([`crate::policy::health`]).

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// How far a look at a service came when it failed, in the order in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Its agent could not be asked.
    Agent,
    Dns,
    Tcp,
    Udp,
    Tls,
    Http,
}

impl Step {
    pub const ALL: [Self; 6] = [Self::Agent, Self::Dns, Self::Tcp, Self::Udp, Self::Tls, Self::Http];
    /// The word for it, in events and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }
}

/// The service does not answer as it should.
///
/// Version 1 had the step in its words (`tcp: connection refused`), for readers to take apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUnhealthy {
    /// What failed; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// What was found, in words.
    pub reason: String,
}

/// From version 1: a step in front of the words becomes the step.
pub(crate) fn unhealthy_from_1(mut old: Value) -> Value {
    // The steps of a look itself: agents that could not be asked had no word of their own.
    let looked = Step::ALL.iter().filter(|step| **step != Step::Agent);
    let found = old["reason"].as_str().and_then(|words| {
        let (before, after) = words.split_once(": ")?;
        looked.map(|step| step.name()).find(|name| *name == before).map(|step| (step, after.to_owned()))
    });
    if let Some((step, reason)) = found {
        old["step"] = step.into();
        old["reason"] = reason.into();
    }
    old
}

/// To version 1, for logs of the first format.
pub(crate) fn unhealthy_to_1(mut new: Value) -> Value {
    let step = new.as_object_mut().and_then(|fields| fields.remove("step"));
    match step.as_ref().and_then(Value::as_str) {
        Some(step) if step != Step::Agent.name() => {
            let words = format!("{step}: {}", new["reason"].as_str().unwrap_or_default());
            new["reason"] = words.into();
        }
        Some(_) | None => {}
    }
    new
}

/// What watching a service has shown last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Healthy,
    Unhealthy { step: Option<Step>, reason: String },
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
            (_, Finding::Unhealthy { step, reason }) => {
                vec![Event::Unhealthy(ServiceUnhealthy { step: *step, reason: reason.clone() })]
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

#[cfg(test)]
mod tests;

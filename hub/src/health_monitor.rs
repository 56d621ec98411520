//! Looks at watched services now and then, through the agents that expose them, and records when one becomes healthy or
//! unhealthy.
//!
//! What is watched stands in the facts, so it is watched again after a restart. A single look is no fact: it shows in
//! the service's last diagnostics, in memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{
    ids::{AgentId, TunnelId, WorkspaceId},
    policy::health::Damper,
    tunnel::{Command, Finding, Step},
};
use parking_lot::Mutex;
use projections::routes::Routes;
use schemas::rest::{DiagnosticStep, Diagnostics};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actors::{Executor, FailFast, Who},
    diagnostics::{Kept, Kind},
    gateway::Gateway,
};

/// How often the monitor looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// How many services are looked at at once; the others of a tick wait for the next.
const LOOKS_AT_ONCE: usize = 64;
/// How long a target may take: less than the shortest interval.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// The longest reason that is recorded (characters): it comes from the agent.
const REASON_CHARS_MAX: usize = 300;

/// Watches services.
#[derive(Debug)]
pub struct HealthMonitor {
    routes: Arc<Routes>,
    executor: Executor,
    gateway: Gateway,
    kept: Arc<Kept>,
    watched: Mutex<BTreeMap<TunnelId, Watched>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    _fail_fast: FailFast,
}

#[derive(Debug)]
struct Watched {
    interval: Duration,
    next: Instant,
    damper: Damper,
}

/// A service that is watched.
#[derive(Debug)]
struct Subject {
    agent: AgentId,
    workspace: WorkspaceId,
    /// What it counts as.
    known: Option<bool>,
    paused: bool,
}

impl HealthMonitor {
    /// Knows from `routes` what is watched; the follower tells it what changes.
    pub fn new(routes: Arc<Routes>, executor: Executor, gateway: Gateway, kept: Arc<Kept>) -> Self {
        let monitor = Self {
            routes,
            executor,
            gateway,
            kept,
            watched: Mutex::default(),
            room: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            tasks: TaskTracker::new(),
            _fail_fast: FailFast("health monitor"),
        };
        for (id, _) in monitor.routes.all_tunnels() {
            monitor.follow(id);
        }
        monitor
    }

    /// Watches a service as its facts say now, or no longer.
    pub fn follow(&self, id: TunnelId) {
        let wanted = self.routes.tunnel(id).and_then(|entry| entry.state.open()?.health.interval_s());
        let mut watched = self.watched.lock();
        match wanted {
            None => {
                watched.remove(&id);
            }
            Some(seconds) => {
                let interval = Duration::from_secs(seconds.into());
                // The first look comes soon; those of many services do not all come at once.
                let soon = interval.mul_f64(f64::from(id.uuid().as_bytes()[15]) / 256.0).min(TICK * 3);
                let fresh = Watched { interval, next: Instant::now() + soon, damper: Damper::default() };
                watched.insert(id, fresh);
            }
        }
    }

    /// Works until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
            for id in self.due() {
                let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else { break };
                if let Some(watched) = self.watched.lock().get_mut(&id) {
                    watched.next = Instant::now() + watched.interval;
                }
                let (monitor, stop) = (Arc::clone(&self), stop.clone());
                self.tasks.spawn(async move {
                    stop.run_until_cancelled(monitor.look(id)).await;
                    drop(place);
                });
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What is due, the longest overdue first.
    fn due(&self) -> Vec<TunnelId> {
        let now = Instant::now();
        let watched = self.watched.lock();
        let mut due: Vec<_> =
            watched.iter().filter(|(_, it)| it.next <= now).map(|(id, it)| (it.next, *id)).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// One look, now.
    pub async fn look(&self, id: TunnelId) {
        let Some(Subject { agent, workspace, known, paused }) = self.subject(id) else {
            self.watched.lock().remove(&id);
            return;
        };
        // It is meant to refuse.
        if paused {
            return;
        }
        let found = self.gateway.check(agent, id, LOOK_PATIENCE).await;
        let trouble = match &found {
            Ok(found) => trouble(found),
            Err(error) => Some((Some(Step::Agent), error.to_string())),
        };
        if let Ok(found) = found {
            self.kept.note(id, Kind::Health, agent, found);
        }
        let verdict = {
            let mut watched = self.watched.lock();
            let Some(watched) = watched.get_mut(&id) else { return };
            watched.damper.note(known, trouble.is_none())
        };
        let finding = match (verdict, trouble) {
            (Some(true), None) => Finding::Healthy,
            (Some(false), Some((step, reason))) => {
                Finding::Unhealthy { step, reason: reason.chars().take(REASON_CHARS_MAX).collect() }
            }
            (Some(_) | None, _) => return,
        };
        let who = Who::hub(workspace, "health");
        if let Err(error) = self.executor.tunnel(id, who, Command::Find(finding)).await {
            // The next look finds the same.
            tracing::warn!(tunnel = %id, %error, "a service's health was not recorded");
        }
    }

    fn subject(&self, id: TunnelId) -> Option<Subject> {
        let entry = self.routes.tunnel(id)?;
        let details = entry.state.open()?;
        details.health.interval_s()?;
        let known = details.health.finding.as_ref().map(|finding| *finding == Finding::Healthy);
        Some(Subject {
            agent: details.created.agent_id,
            workspace: details.created.workspace_id,
            known,
            paused: details.paused,
        })
    }
}

/// What is wrong with a service, by what its agent found: the step that failed, where one did, and what it showed.
/// `None`: it is well.
fn trouble(found: &Diagnostics) -> Option<(Option<Step>, String)> {
    let failed =
        |step: &Option<DiagnosticStep>| step.as_ref().filter(|step| !step.ok).map(|it| it.detail.clone());
    let tls = found.tls.as_ref().filter(|step| !step.ok).map(|step| step.detail.clone());
    let steps = [
        (Step::Dns, failed(&found.dns)),
        (Step::Tcp, failed(&found.tcp)),
        (Step::Udp, failed(&found.udp)),
        (Step::Tls, tls),
        (Step::Http, failed(&found.http)),
    ];
    let named = steps.into_iter().find_map(|(step, detail)| Some((Some(step), detail?)));
    let answers = |status| (Some(Step::Http), format!("it answers {status}"));
    named
        .or_else(|| (!found.reachable).then(|| (None, "it does not answer".to_owned())))
        .or_else(|| server_error(found.http.as_ref()?).map(answers))
}

/// The status of a status line, from 500 on: the server says itself that it is not well.
fn server_error(http: &DiagnosticStep) -> Option<u16> {
    let status: u16 = http.detail.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    (status >= 500).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(ok: bool, detail: &str) -> Option<DiagnosticStep> {
        Some(DiagnosticStep { ok, ms: 1.0, detail: detail.to_owned() })
    }

    #[test]
    fn a_service_is_well_when_every_step_is_and_no_server_error_comes() {
        let well = Diagnostics {
            reachable: true,
            dns: step(true, "127.0.0.1"),
            tcp: step(true, "127.0.0.1:80"),
            http: step(true, "HTTP/1.1 404 Not Found"),
            ..Diagnostics::default()
        };
        assert_eq!(trouble(&well), None, "a page that is missing is an answer");
        for (found, expected) in [
            (Diagnostics { tcp: step(false, "refused"), ..well.clone() }, (Some(Step::Tcp), "refused")),
            (
                Diagnostics { http: step(true, "HTTP/1.1 503 Service Unavailable"), ..well },
                (Some(Step::Http), "it answers 503"),
            ),
            (Diagnostics::default(), (None, "it does not answer")),
        ] {
            let (at, words) = expected;
            assert_eq!(trouble(&found), Some((at, words.to_owned())));
        }
    }
}

//! Turns what falls due into commands: expiries become events. Nothing waits for it: the edge refuses by the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    agent_command, environment,
    event::Event,
    ids::{CommandId, EnvironmentId, MessageId, ShareId, TunnelId},
    message,
    recorded::Recorded,
    share,
    time::Timestamp,
    tunnel,
};
use parking_lot::Mutex;
use projections::routes::Routes;
use tokio_util::sync::CancellationToken;

use super::{Executor, FailFast, Who};
use crate::clock::SharedClock;

/// How often the timekeeper looks: running streams of an expired share end within 1 s.
const TICK: Duration = Duration::from_millis(250);
/// How many expiries are carried out in one tick; the rest waits for the next.
const DUE_PER_TICK_MAX: usize = 1_000;
/// When wall and monotonic clock part by more than this, one of them is wrong (milliseconds).
const CLOCKS_APART_MS_MAX: i64 = 60_000;
/// How long the clocks must agree again before anything is appended in their name.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// Sleeping actors' addresses are forgotten every so many ticks.
const SLEEPERS_TICKS: u32 = 120;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Share(ShareId),
    Tunnel(TunnelId),
    Command(CommandId),
    Message(MessageId),
    Environment(EnvironmentId),
}

/// What is due and when; nothing that has ended.
#[derive(Debug, Default)]
struct Calendar {
    by_time: BTreeSet<(Timestamp, Due)>,
    times: BTreeMap<Due, Timestamp>,
}

impl Calendar {
    fn add(&mut self, at: Timestamp, due: Due) {
        self.remove(due);
        self.by_time.insert((at, due));
        self.times.insert(due, at);
    }
    fn remove(&mut self, due: Due) {
        if let Some(at) = self.times.remove(&due) {
            self.by_time.remove(&(at, due));
        }
    }
    /// Forgets what was seen to, unless it is due at another time by now.
    fn settle(&mut self, at: Timestamp, due: Due) {
        if self.times.get(&due) == Some(&at) {
            self.remove(due);
        }
    }
    fn next(&self, now: Timestamp) -> Option<(Timestamp, Due)> {
        self.by_time.first().filter(|(at, _)| *at <= now).copied()
    }
}

/// Owns what falls due, and when.
#[derive(Debug)]
pub struct Timekeeper {
    executor: Executor,
    routes: Arc<Routes>,
    clock: SharedClock,
    due: Mutex<Calendar>,
    _fail_fast: FailFast,
}

impl Timekeeper {
    /// Knows from `routes` what is due at some time; the follower tells it what comes.
    pub fn new(executor: Executor, routes: Arc<Routes>, clock: SharedClock) -> Self {
        let shares = routes.all_shares().into_iter().filter_map(|(id, entry)| {
            let created = entry.state.created.as_ref().filter(|_| entry.state.ended.is_none())?;
            Some((created.expires_at?, Due::Share(id)))
        });
        let tunnels = routes
            .all_tunnels()
            .into_iter()
            .filter_map(|(id, entry)| Some((entry.state.open()?.created.expires_at?, Due::Tunnel(id))));
        let commands = routes
            .all_commands()
            .into_iter()
            .filter_map(|(id, entry)| Some((entry.state.due_at()?, Due::Command(id))));
        let messages = routes.all_messages().into_iter().filter_map(|(id, entry)| {
            let sent = entry.state.sent.as_ref().filter(|_| !entry.state.expired)?;
            Some((sent.expires_at, Due::Message(id)))
        });
        let environments = routes.all_environments().into_iter().filter_map(|(id, entry)| {
            let shared = entry.state.shared.as_ref().filter(|_| entry.state.ended.is_none())?;
            Some((shared.expires_at, Due::Environment(id)))
        });
        let mut due = Calendar::default();
        for (at, what) in shares.chain(tunnels).chain(commands).chain(messages).chain(environments) {
            due.add(at, what);
        }
        Self { executor, routes, clock, due: Mutex::new(due), _fail_fast: FailFast("timekeeper") }
    }

    /// Notes what a fact makes due, and forgets what has ended before its time.
    pub fn note(&self, recorded: &Recorded, event: &Event) {
        let name = recorded.stream.as_str();
        match event {
            Event::Share(share::Event::Created(created)) => {
                if let Some(at) = created.expires_at {
                    self.due.lock().add(at, Due::Share(created.share_id));
                }
            }
            Event::Tunnel(tunnel::Event::Created(created)) => {
                if let Some(at) = created.expires_at {
                    self.due.lock().add(at, Due::Tunnel(created.tunnel_id));
                }
            }
            Event::Environment(environment::Event::Shared(shared)) => {
                self.due.lock().add(shared.expires_at, Due::Environment(shared.environment_id));
            }
            Event::Environment(environment::Event::Revoked(_) | environment::Event::Expired(_)) => {
                if let Some(id) = name.strip_prefix("environment-").and_then(|id| id.parse().ok()) {
                    self.due.lock().remove(Due::Environment(id));
                }
            }
            Event::Share(share::Event::Revoked(_) | share::Event::Expired(_)) => {
                if let Some(id) = name.strip_prefix("share-").and_then(|id| id.parse().ok()) {
                    self.due.lock().remove(Due::Share(id));
                }
            }
            Event::Tunnel(tunnel::Event::Deleted(_) | tunnel::Event::Expired(_)) => {
                if let Some(id) = name.strip_prefix("tunnel-").and_then(|id| id.parse().ok()) {
                    self.due.lock().remove(Due::Tunnel(id));
                }
            }
            Event::AgentCommand(_) => {
                // How far it is, is already known: whoever decided the event applied it.
                let id = name.strip_prefix("command-").and_then(|id| id.parse().ok());
                let Some(id) = id else { return };
                let mut calendar = self.due.lock();
                match self.routes.command(id).and_then(|entry| entry.state.due_at()) {
                    Some(at) => calendar.add(at, Due::Command(id)),
                    None => calendar.remove(Due::Command(id)),
                }
            }
            Event::Message(message::Event::Sent(sent)) => {
                self.due.lock().add(sent.expires_at, Due::Message(sent.message_id));
            }
            Event::Message(message::Event::Expired(_)) => {
                if let Some(id) = name.strip_prefix("message-").and_then(|id| id.parse().ok()) {
                    self.due.lock().remove(Due::Message(id));
                }
            }
            Event::Message(message::Event::Read(_))
            | Event::Tunnel(_)
            | Event::Workspace(_)
            | Event::Agent(_)
            | Event::Claim(_)
            | Event::Node(_)
            | Event::Environment(_)
            | Event::Retention(_)
            | Event::Seal(_)
            | Event::Webhook(_)
            | Event::Delivery(_)
            | Event::LogFormat(_)
            | Event::Access(_) => {}
        }
    }

    /// Works until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut clocks = Clocks::new(self.clock.now());
        let mut tick = 0_u32;
        while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
            let now = self.clock.now();
            if clocks.agree(now) {
                self.carry_out(now).await;
            }
            tick = tick.wrapping_add(1);
            if tick.is_multiple_of(SLEEPERS_TICKS) {
                self.executor.forget_sleepers();
            }
        }
    }

    /// Expires everything that is due at `now`.
    pub async fn carry_out(&self, now: Timestamp) {
        for _ in 0..DUE_PER_TICK_MAX {
            let Some((at, due)) = self.due.lock().next(now) else { return };
            if !self.expire(due, now).await {
                // The log takes no writes: what is due stays due.
                return;
            }
            self.due.lock().settle(at, due);
        }
    }

    async fn expire(&self, due: Due, now: Timestamp) -> bool {
        match due {
            Due::Share(id) => {
                let entry = self.routes.share(id);
                let owner =
                    entry.and_then(|entry| entry.state.created.as_ref().map(|created| created.workspace_id));
                let Some(owner) = owner else { return true };
                let who = Who::hub(owner, "timekeeper");
                settled(self.executor.share(id, who, share::Command::Expire { now }).await)
            }
            Due::Environment(id) => {
                let entry = self.routes.environment(id);
                let owner =
                    entry.and_then(|entry| entry.state.shared.as_ref().map(|shared| shared.workspace_id));
                let Some(owner) = owner else { return true };
                let who = Who::hub(owner, "timekeeper");
                settled(self.executor.environment(id, who, environment::Command::Expire { now }).await)
            }
            Due::Tunnel(id) => {
                let entry = self.routes.tunnel(id);
                let owner =
                    entry.and_then(|entry| entry.state.open().map(|details| details.created.workspace_id));
                let Some(owner) = owner else { return true };
                let who = Who::hub(owner, "timekeeper");
                settled(self.executor.tunnel(id, who, tunnel::Command::Expire { now }).await)
            }
            Due::Command(id) => {
                let entry = self.routes.command(id);
                let owner =
                    entry.and_then(|entry| entry.state.queued.as_ref().map(|queued| queued.workspace_id));
                let Some(owner) = owner else { return true };
                let who = Who::hub(owner, "timekeeper");
                settled(self.executor.command(id, who, agent_command::Command::Expire { now }).await)
            }
            Due::Message(id) => {
                let entry = self.routes.message(id);
                let owner = entry.and_then(|entry| entry.state.sent.as_ref().map(|sent| sent.workspace_id));
                let Some(owner) = owner else { return true };
                let who = Who::hub(owner, "timekeeper");
                settled(self.executor.message(id, who, message::Command::Expire { now }, None).await)
            }
        }
    }
}

/// Whether the matter is closed: done, or refused for good.
fn settled<R: std::fmt::Debug>(answer: Result<super::Done, super::ExecuteError<R>>) -> bool {
    match answer {
        Ok(_) | Err(super::ExecuteError::Rejected(_) | super::ExecuteError::NotFound) => true,
        Err(error) => {
            tracing::warn!(?error, "an expiry could not be recorded, it is tried again");
            false
        }
    }
}

/// Watches whether wall clock and monotonic clock go alike.
#[derive(Debug)]
struct Clocks {
    wall: Timestamp,
    monotonic: Instant,
    unsettled_since: Option<Instant>,
}

impl Clocks {
    fn new(now: Timestamp) -> Self {
        Self { wall: now, monotonic: Instant::now(), unsettled_since: None }
    }

    fn agree(&mut self, now: Timestamp) -> bool {
        let wall_ms = now.millis() - self.wall.millis();
        let monotonic_ms = i64::try_from(self.monotonic.elapsed().as_millis()).unwrap_or(i64::MAX);
        if wall_ms.saturating_sub(monotonic_ms).abs() > CLOCKS_APART_MS_MAX {
            tracing::error!(
                wall_ms,
                monotonic_ms,
                "the wall clock jumped, expiries are not recorded until it settles"
            );
            self.unsettled_since = Some(Instant::now());
        }
        self.wall = now;
        self.monotonic = Instant::now();
        if self.unsettled_since.is_some_and(|since| since.elapsed() > SETTLED_AFTER) {
            self.unsettled_since = None;
        }
        self.unsettled_since.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_before_its_time_is_not_waited_for() {
        let start = Timestamp::from_millis(0);
        let due = |n| Due::Share(ShareId::new(uuid::Uuid::from_u128(n)));
        let mut calendar = Calendar::default();
        calendar.add(start.plus_ms(2), due(2));
        calendar.add(start.plus_ms(1), due(1));
        calendar.add(start.plus_ms(1), due(1));
        assert_eq!(calendar.next(start), None);
        assert_eq!(calendar.next(start.plus_ms(2)), Some((start.plus_ms(1), due(1))));
        calendar.remove(due(1));
        calendar.remove(due(1));
        assert_eq!(calendar.next(start.plus_ms(2)), Some((start.plus_ms(2), due(2))));
        calendar.add(start.plus_ms(9), due(2));
        calendar.settle(start.plus_ms(2), due(2));
        assert_eq!(calendar.next(start.plus_ms(9)), Some((start.plus_ms(9), due(2))), "put off meanwhile");
        calendar.settle(start.plus_ms(9), due(2));
        assert!(calendar.by_time.is_empty() && calendar.times.is_empty());
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed() {
        let start = Timestamp::from_millis(1_000_000);
        let mut clocks = Clocks::new(start);
        assert!(clocks.agree(start.plus_ms(1)));
        assert!(!clocks.agree(start.plus_ms(3_600_000)));
        assert!(!clocks.agree(start.plus_ms(3_600_001)), "it has to settle first");
        let mut clocks = Clocks::new(start);
        assert!(!clocks.agree(start.plus_ms(-3_600_000)));
    }
}

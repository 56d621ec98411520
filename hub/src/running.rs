//! What runs now, by what it runs under: ending everything under a share, tunnel, agent or key is one look-up.
//!
//! Whoever starts a stream takes its tokens first and checks `Routes` second: then an end that comes in between is
//! seen by one of the two.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use domain::ids::{AgentId, KeyId, ShareId, TunnelId};
use tokio_util::sync::CancellationToken;

/// Something that streams run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Under {
    Share(ShareId),
    Tunnel(TunnelId),
    /// The agent's session.
    Agent(AgentId),
    Key(KeyId),
}

/// Agents' departures that are remembered; beyond that the older ones are forgotten.
const DEPARTURES_MAX: usize = 10_000;
/// A departure is remembered at least this long, where there is room.
const DEPARTURE_KEPT: Duration = Duration::from_secs(60);

/// The tokens that running streams hold.
#[derive(Debug)]
pub struct Running {
    tokens: DashMap<Under, CancellationToken>,
    /// When agents' sessions ended; `None`: for good, as far as the hub knows.
    departures: DashMap<AgentId, Option<Instant>>,
    started: Instant,
}

impl Default for Running {
    fn default() -> Self {
        Self { tokens: DashMap::new(), departures: DashMap::new(), started: Instant::now() }
    }
}

impl Running {
    /// The token of everything that starts under `under` from now on; cancelled when that ends.
    pub fn token(&self, under: Under) -> CancellationToken {
        if let Some(token) = self.tokens.get(&under) {
            return token.clone();
        }
        self.tokens.entry(under).or_default().clone()
    }

    /// The agent whose session just ended does not come back by itself.
    pub fn left_for_good(&self, agent: AgentId) {
        if let Some(mut departure) = self.departures.get_mut(&agent) {
            *departure = None;
        }
    }

    /// Whether the agent's last session at this hub ended for good.
    pub fn has_left_for_good(&self, agent: AgentId) -> bool {
        self.departures.get(&agent).is_some_and(|departure| departure.is_none())
    }

    /// Whether an agent's session ended so lately that it may be on its way back.
    pub fn left_within(&self, agent: AgentId, lately: Duration) -> bool {
        self.departures.get(&agent).is_some_and(|departure| departure.is_some_and(|at| at.elapsed() < lately))
    }

    /// Whether the hub started so lately: whoever was connected to the one before has had to leave.
    pub fn started_within(&self, lately: Duration) -> bool {
        self.started.elapsed() < lately
    }

    /// Ends everything that runs under `under`. What starts afterwards gets a new token.
    pub fn end(&self, under: Under) {
        if let Under::Agent(agent) = under {
            if self.departures.len() >= DEPARTURES_MAX {
                self.departures
                    .retain(|_, departure| departure.is_some_and(|at| at.elapsed() < DEPARTURE_KEPT));
            }
            if self.departures.len() < DEPARTURES_MAX {
                self.departures.insert(agent, Some(Instant::now()));
            }
        }
        if let Some((_, token)) = self.tokens.remove(&under) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_departure_is_remembered_for_a_while() {
        let agent = AgentId::new(uuid::Uuid::from_u128(2));
        let running = Running::default();
        assert!(!running.left_within(agent, DEPARTURE_KEPT));
        running.end(Under::Agent(agent));
        assert!(running.left_within(agent, DEPARTURE_KEPT));
        assert!(!running.left_within(agent, Duration::ZERO));
        assert!(!running.has_left_for_good(agent));
        running.left_for_good(agent);
        assert!(running.has_left_for_good(agent));
        assert!(!running.left_within(agent, DEPARTURE_KEPT));
    }

    #[test]
    fn an_end_cancels_what_ran_before_it_and_nothing_after() {
        let running = Running::default();
        let under = Under::Share(ShareId::new(uuid::Uuid::from_u128(1)));
        let before = running.token(under);
        running.end(under);
        assert!(before.is_cancelled());
        assert!(!running.token(under).is_cancelled());
    }
}

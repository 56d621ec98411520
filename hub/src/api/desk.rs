//! One at a time at each agent's desk: whoever counts what waits for an agent and adds to it.

use domain::ids::AgentId;
use tokio::sync::{Mutex, MutexGuard};

/// How many desks there are for all agents: bounded, and two agents that share one wait a moment for each other.
const DESKS: usize = 64;

/// The locks.
#[derive(Debug)]
pub struct Desk([Mutex<()>; DESKS]);

impl Default for Desk {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Desk {
    /// While this is held nobody else adds to what waits for the agent.
    pub async fn of(&self, agent: AgentId) -> MutexGuard<'_, ()> {
        // The last bytes of an id are random.
        self.0[usize::from(agent.uuid().as_bytes()[15]) % DESKS].lock().await
    }
}

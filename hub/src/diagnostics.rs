//! What agents found when they looked at services last. In memory: observations, not facts; a restart forgets them. What
//! lasts is a change of a watched service's health, which is a fact ([`domain::tunnel`]), and how it is watched.

use std::sync::Arc;

use dashmap::DashMap;
use domain::{
    ids::{AgentId, TunnelId},
    time::Timestamp,
};
use projections::routes::Routes;
use schemas::rest::Diagnostics;

use crate::clock::SharedClock;

/// Services that are remembered at most; from then on those that are gone are forgotten first, then any.
const REMEMBERED_MAX: usize = 10_000;

/// Who looked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The exposing agent, because somebody asked.
    Check,
    /// Another agent, the way that `reach` goes.
    Reach,
    /// The exposing agent, because the service is watched.
    Health,
}

/// What was found last.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub at: Timestamp,
    pub agent: AgentId,
    pub diagnostics: Diagnostics,
}

/// The last of each kind, by service.
#[derive(Debug)]
pub struct Kept {
    routes: Arc<Routes>,
    clock: SharedClock,
    last: DashMap<(TunnelId, Kind), Found>,
}

impl Kept {
    pub fn new(routes: Arc<Routes>, clock: SharedClock) -> Self {
        Self { routes, clock, last: DashMap::new() }
    }

    /// Keeps what an agent found; answers it with its time.
    pub fn note(&self, tunnel: TunnelId, kind: Kind, agent: AgentId, diagnostics: Diagnostics) -> Found {
        let found = Found { at: self.clock.now(), agent, diagnostics };
        self.last.insert((tunnel, kind), found.clone());
        if self.last.len() > REMEMBERED_MAX * 3 {
            self.last
                .retain(|(id, _), _| self.routes.tunnel(*id).is_some_and(|it| it.state.open().is_some()));
        }
        if self.last.len() > REMEMBERED_MAX * 3 {
            self.last.clear();
        }
        found
    }

    /// The last of a kind.
    pub fn last(&self, tunnel: TunnelId, kind: Kind) -> Option<Found> {
        self.last.get(&(tunnel, kind)).map(|found| found.clone())
    }
}

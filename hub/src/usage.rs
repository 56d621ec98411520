//! How much tunnels carry beside their shares: connections through their ports, and those of agents that reach them.
//!
//! Counted in memory, by tunnel; recorded every few seconds as one event for each workspace in which something was
//! carried, however many connections there were. A crash loses what was counted since.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use domain::{
    access::{self, TunnelUse, TunnelsUsed},
    event::Event,
    ids::{EventId, TunnelId, WorkspaceId},
    recorded::{Actor, StreamName},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock::SharedClock,
    event_log::{Append, AppendError, Expected, NewEvent, SharedLog},
};

/// How often what was counted is recorded.
const RECORD_EVERY: Duration = Duration::from_secs(2);
/// How many tunnels one event is about: far below the size that packed events have at most.
const TUNNELS_PER_EVENT: usize = 64;

/// The counts since they were recorded last: bounded by the tunnels that are used in between.
#[derive(Debug)]
pub struct Usage {
    clock: SharedClock,
    counts: DashMap<TunnelId, (WorkspaceId, TunnelUse)>,
}

impl Usage {
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, counts: DashMap::new() }
    }

    /// A connection to a tunnel was opened.
    pub fn opened(&self, workspace: WorkspaceId, tunnel: TunnelId) {
        self.add(workspace, tunnel, 1, 0, 0);
    }

    /// A connection has ended: what it carried to the target, and from it.
    pub fn carried(&self, workspace: WorkspaceId, tunnel: TunnelId, to: u64, from: u64) {
        self.add(workspace, tunnel, 0, to, from);
    }

    fn add(&self, workspace: WorkspaceId, tunnel: TunnelId, connections: u64, bytes_in: u64, bytes_out: u64) {
        let last_activity_at = self.clock.now();
        let used = TunnelUse { tunnel_id: tunnel, connections, bytes_in, bytes_out, last_activity_at };
        self.merge(workspace, &used);
    }

    fn merge(&self, workspace: WorkspaceId, used: &TunnelUse) {
        let fresh = || TunnelUse { connections: 0, bytes_in: 0, bytes_out: 0, ..used.clone() };
        let mut slot = self.counts.entry(used.tunnel_id).or_insert_with(|| (workspace, fresh()));
        let known = &mut slot.1;
        known.connections = known.connections.saturating_add(used.connections);
        known.bytes_in = known.bytes_in.saturating_add(used.bytes_in);
        known.bytes_out = known.bytes_out.saturating_add(used.bytes_out);
        known.last_activity_at = known.last_activity_at.max(used.last_activity_at);
    }

    /// Takes out what was counted, by workspace.
    fn take(&self) -> Vec<(WorkspaceId, Vec<TunnelUse>)> {
        let ids: Vec<TunnelId> = self.counts.iter().map(|entry| *entry.key()).collect();
        let mut taken: std::collections::BTreeMap<WorkspaceId, Vec<TunnelUse>> = Default::default();
        for (_, (workspace, used)) in ids.iter().filter_map(|id| self.counts.remove(id)) {
            taken.entry(workspace).or_default().push(used);
        }
        taken.into_iter().collect()
    }
}

/// Records what was counted.
#[derive(Debug)]
pub struct UsageRecorder {
    pub usage: Arc<Usage>,
    pub log: SharedLog,
    pub clock: SharedClock,
    pub boot: Uuid,
}

impl UsageRecorder {
    /// Works until it is told to stop, and once more then.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(RECORD_EVERY)).await.is_some() {
            self.record().await;
        }
        self.record().await;
    }

    /// Records what was counted since the last time.
    pub async fn record(&self) {
        for (workspace, used) in self.usage.take() {
            for tunnels in used.chunks(TUNNELS_PER_EVENT) {
                self.append(workspace, tunnels).await;
            }
        }
    }

    async fn append(&self, workspace: WorkspaceId, tunnels: &[TunnelUse]) {
        let event = Event::Access(access::Event::TunnelsUsed(TunnelsUsed { tunnels: tunnels.to_vec() }));
        let encoded = event.encode();
        let append = Append {
            stream: StreamName::usage(workspace, self.boot),
            expected: Expected::Any,
            workspace,
            actor: Actor::System("usage".to_owned()),
            correlation: None,
            at: self.clock.now(),
            events: vec![NewEvent {
                id: EventId::new(Uuid::now_v7()),
                event_type: encoded.event_type,
                version: encoded.version,
                data: encoded.data,
                personal: None,
                causation: None,
            }],
        };
        match self.log.append(append).await {
            Ok(_) => {}
            // Perhaps counted: twice would be worse than not at all.
            Err(AppendError::InDoubt(error)) => {
                tracing::warn!(error, "it is not known whether the use of tunnels was recorded");
            }
            Err(error) => {
                tracing::debug!(%error, "the use of tunnels was not recorded, it is tried again");
                for used in tunnels {
                    self.usage.merge(workspace, used);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::time::Timestamp;

    use super::*;
    use crate::clock::SetClock;

    #[test]
    fn any_number_of_connections_is_one_count_for_each_tunnel() {
        let clock = SetClock::at(Timestamp::from_millis(1_000));
        let usage = Usage::new(clock.clone());
        let workspace = |n| WorkspaceId::new(Uuid::from_u128(n));
        let tunnel = |n| TunnelId::new(Uuid::from_u128(n));
        for _ in 0..1_000 {
            usage.opened(workspace(1), tunnel(1));
            usage.carried(workspace(1), tunnel(1), 10, 100);
        }
        clock.advance_ms(5);
        usage.opened(workspace(2), tunnel(2));
        let taken = usage.take();
        assert_eq!(taken.len(), 2, "one list for each workspace");
        let busy = &taken[0].1[0];
        assert_eq!((busy.connections, busy.bytes_in, busy.bytes_out), (1_000, 10_000, 100_000));
        assert_eq!(taken[1].1[0].last_activity_at, Timestamp::from_millis(1_005));
        assert!(usage.take().is_empty(), "what was taken is counted once");
        usage.merge(workspace(1), busy);
        assert_eq!(usage.take()[0].1[0], *busy, "what could not be recorded is counted again");
    }
}

//! Things as facts had them at a moment of the past: the few streams that decide about one thing, folded up to there.
//!
//! The same folds as for the present ([`Routes`]) take in the same events in the same order, only fewer, so that the
//! answer is the one that was given then. How much is read is bounded by [`EVENTS_MAX`].

use domain::{
    event::Event,
    ids::{AgentId, ShareId, TunnelId, WorkspaceId},
    recorded::{Family, Recorded, StreamName},
    share,
    time::Timestamp,
    tunnel,
};
use projections::{
    audit::{AuditFilter, AuditReader},
    routes::Routes,
    view::ViewError,
};

use crate::event_log::{ReadError, SharedLog};

/// The most events that one question reads: about a third of a second.
pub const EVENTS_MAX: usize = 50_000;
/// Events read at once.
const CHUNK: usize = 500;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Nothing was there then, or not in this workspace.
    #[error("nothing of that id was there")]
    NotThere,
    #[error("more than {EVENTS_MAX} events decide about it")]
    TooLong,
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    View(#[from] ViewError),
}

/// A moment of a workspace's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The number of its last fact then.
    pub seq: u64,
    /// Events up to here had happened: by their place, if somebody asked for a place.
    position: Option<u64>,
    /// What time it was: expiry is judged by it.
    pub at: Timestamp,
}

impl Moment {
    /// When the fact of this number had just been recorded.
    pub fn of_fact(seq: u64, position: u64, recorded_at: Timestamp) -> Self {
        Self { seq, position: Some(position), at: recorded_at }
    }

    /// When everything of that moment had been recorded.
    pub fn of_time(seq: u64, at: Timestamp) -> Self {
        Self { seq, position: None, at }
    }

    fn includes(&self, recorded: &Recorded) -> bool {
        match self.position {
            Some(position) => recorded.position <= position,
            None => recorded.recorded_at <= self.at,
        }
    }
}

/// Some things as they were.
#[derive(Debug)]
pub struct Past {
    pub moment: Moment,
    pub routes: Routes,
    /// When the agents' sessions began.
    connected: Vec<(AgentId, Timestamp)>,
}

impl Past {
    /// Since when an agent was connected then; `None` when it was not.
    pub fn connected_at(&self, agent: AgentId) -> Option<Timestamp> {
        let entry = self.routes.agent(agent)?;
        let session = entry.state.session.as_ref()?;
        // A session of a boot that was over had ended with it.
        let node = self.routes.node(&StreamName::node(&session.node))?;
        if node.state.boot != Some(session.boot) {
            return None;
        }
        self.connected.iter().rev().find(|(of, _)| *of == agent).map(|(_, at)| *at)
    }
}

/// Reads what decided about a thing.
#[derive(Debug)]
pub struct Historian<'a> {
    log: &'a SharedLog,
    audit: AuditReader,
    workspace: WorkspaceId,
    moment: Moment,
    /// What was read, stream by stream.
    events: Vec<Recorded>,
}

impl<'a> Historian<'a> {
    pub fn new(log: &'a SharedLog, audit: AuditReader, workspace: WorkspaceId, moment: Moment) -> Self {
        Self { log, audit, workspace, moment, events: Vec::new() }
    }

    /// A tunnel, its agent, and the link of a public one.
    ///
    /// # Errors
    /// See [`HistoryError`]; so for the other things.
    pub async fn tunnel(mut self, id: TunnelId) -> Result<Past, HistoryError> {
        let tunnel = self.fold::<tunnel::Tunnel>(StreamName::tunnel(id)).await?;
        let details = tunnel.open().ok_or(HistoryError::NotThere)?;
        if details.created.workspace_id != self.workspace {
            return Err(HistoryError::NotThere);
        }
        self.read_agent(details.created.agent_id).await?;
        if details.created.is_public {
            self.read_public_share(id).await?;
        }
        Ok(self.past())
    }

    /// A share, its tunnel and its agent.
    pub async fn share(mut self, id: ShareId) -> Result<Past, HistoryError> {
        let share = self.fold::<share::Share>(StreamName::share(id)).await?;
        let created = share.created.ok_or(HistoryError::NotThere)?;
        if created.workspace_id != self.workspace {
            return Err(HistoryError::NotThere);
        }
        let tunnel = self.fold::<tunnel::Tunnel>(StreamName::tunnel(created.tunnel_id)).await?;
        if let Some(details) = tunnel.open() {
            self.read_agent(details.created.agent_id).await?;
        }
        Ok(self.past())
    }

    /// An agent and its tunnels.
    pub async fn agent(mut self, id: AgentId) -> Result<Past, HistoryError> {
        let agent = self.read_agent(id).await?;
        let here = agent.registered.is_some_and(|it| it.workspace_id == self.workspace && !agent.deleted);
        if !here {
            return Err(HistoryError::NotThere);
        }
        let types = ["tunnel.created", "tunnel.updated"].map(str::to_owned).to_vec();
        let mut tunnels = self.streams_concerning(id.uuid(), types).await?;
        tunnels.sort_unstable();
        tunnels.dedup();
        for tunnel in tunnels {
            self.read(&tunnel).await?;
        }
        Ok(self.past())
    }

    async fn read_agent(&mut self, id: AgentId) -> Result<domain::agent::Agent, HistoryError> {
        let agent = self.fold::<domain::agent::Agent>(StreamName::agent(id)).await?;
        if let Some(session) = &agent.session {
            self.read(&StreamName::node(&session.node)).await?;
        }
        Ok(agent)
    }

    /// The newest public share of a tunnel that had not ended.
    async fn read_public_share(&mut self, tunnel: TunnelId) -> Result<(), HistoryError> {
        let types = vec!["share.created".to_owned()];
        for stream in self.streams_concerning(tunnel.uuid(), types).await? {
            let before = self.events.len();
            let share = self.fold::<share::Share>(stream).await?;
            let is_it = share.ended.is_none() && share.created.is_some_and(|created| created.public);
            if is_it {
                return Ok(());
            }
            self.events.truncate(before);
        }
        Ok(())
    }

    /// The streams with facts of these types that concern a thing, newest first; some may be named twice.
    async fn streams_concerning(
        &self,
        thing: uuid::Uuid,
        types: Vec<String>,
    ) -> Result<Vec<StreamName>, HistoryError> {
        let (audit, workspace, last) = (self.audit.clone(), self.workspace, self.moment.seq);
        let filter = AuditFilter { types, things: vec![thing], ..AuditFilter::default() };
        let found = tokio::task::spawn_blocking(move || {
            let (mut streams, mut below) = (Vec::new(), last.checked_add(1));
            loop {
                let page = audit.facts(workspace, &filter, below, CHUNK)?;
                streams.extend(page.rows.into_iter().map(|row| row.stream));
                below = page.next;
                if below.is_none() {
                    return Ok(streams);
                }
                if streams.len() > EVENTS_MAX {
                    return Err(HistoryError::TooLong);
                }
            }
        });
        found.await.unwrap_or_else(|error| Err(ReadError::Unavailable(error.to_string()).into()))
    }

    /// Reads a stream up to the moment and answers what it came to.
    async fn fold<A: domain::aggregate::Aggregate>(&mut self, stream: StreamName) -> Result<A, HistoryError> {
        let from = self.events.len();
        self.read(&stream).await?;
        let mut state = A::default();
        for recorded in &self.events[from..] {
            if let Some(event) = recorded.event().ok().and_then(A::from_event) {
                state.evolve(&event);
            }
        }
        Ok(state)
    }

    /// Reads a stream up to the moment, once.
    async fn read(&mut self, stream: &StreamName) -> Result<(), HistoryError> {
        debug_assert_eq!(stream.family(), Family::Facts);
        let mut revision = 1;
        loop {
            let read = self.log.read_stream(stream, revision, CHUNK).await?;
            let count = read.len();
            let before = self.events.len();
            self.events.extend(read.into_iter().take_while(|recorded| self.moment.includes(recorded)));
            let taken = self.events.len() - before;
            if self.events.len() > EVENTS_MAX {
                return Err(HistoryError::TooLong);
            }
            if taken < CHUNK || count < CHUNK {
                return Ok(());
            }
            revision += u64::try_from(CHUNK).unwrap_or(u64::MAX);
        }
    }

    fn past(mut self) -> Past {
        self.events.sort_by_key(|recorded| recorded.position);
        self.events.dedup_by_key(|recorded| recorded.position);
        let routes = Routes::default();
        let mut connected = Vec::new();
        for recorded in &self.events {
            let event = recorded.event().ok();
            if let Some(Event::Agent(domain::agent::Event::Connected(session))) = &event {
                connected.push((session.agent_id, recorded.recorded_at));
            }
            routes.apply_next(recorded, event.as_ref());
        }
        Past { moment: self.moment, routes, connected }
    }
}

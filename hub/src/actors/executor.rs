//! The one way to execute a command: finds or starts the actor that owns the aggregate, and asks it.

use std::{fmt, sync::Arc};

use actix::{Actor, Addr, ArbiterHandle, MailboxError};
use dashmap::DashMap;
use domain::{
    agent::{self, Agent},
    agent_command::{self, AgentCommand},
    aggregate::Aggregate,
    claim::{self, Claim},
    environment::{self, Environment},
    ids::{
        AgentId, CommandId, EnvironmentId, EventId, MessageId, RequestId, ShareId, TunnelId, WebhookId,
        WorkspaceId,
    },
    log_format::{self, LogFormat},
    message::{self, Message},
    node::{self, Node},
    recorded::{Actor as Author, SYSTEM_WORKSPACE, StreamName},
    share::{self, Share},
    tunnel::{self, Tunnel},
    webhook::{self, Webhook},
    workspace::{self, Workspace},
};

use super::aggregate::{AggregateActor, Deps, Execute};

/// Who asks, in which workspace, and because of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub workspace: WorkspaceId,
    pub actor: Author,
    pub request: Option<RequestId>,
    /// The event that this command follows from.
    pub causation: Option<EventId>,
}

impl Who {
    /// A part of the hub itself, on behalf of a workspace.
    pub fn hub(workspace: WorkspaceId, role: &str) -> Self {
        Self { workspace, actor: Author::System(role.to_owned()), request: None, causation: None }
    }
    /// A part of the hub about the hub.
    pub fn system(role: &str) -> Self {
        Self::hub(SYSTEM_WORKSPACE, role)
    }
}

/// The command's events are durable and visible in `Routes` (or nothing new had to happen).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Views that have reached this position show it.
    pub position: u64,
    /// The stream's revision: the ETag.
    pub revision: u64,
}

/// Why a command was not done, split by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError<R> {
    /// A fact stands in the way.
    #[error("refused")]
    Rejected(R),
    /// It belongs to another workspace, which is to say: it does not exist.
    #[error("not found")]
    NotFound,
    /// The aggregate is no longer at the revision that the command was meant for.
    #[error("changed meanwhile")]
    Changed,
    /// Others were faster three times, or too many wait. Try again.
    #[error("too many commands for one aggregate at once")]
    Busy,
    /// The log takes no writes or cannot be read. Certainly not done.
    #[error("the event log is unavailable: {0}")]
    Unavailable(String),
    /// The log refused the shape of the append. Certainly not done; a bug.
    #[error("the event log refused the append: {0}")]
    Refused(String),
    /// Perhaps done. Look before trying again.
    #[error("it is not known whether the command was done: {0}")]
    InDoubt(String),
}

type Directory<A> = DashMap<StreamName, Addr<AggregateActor<A>>>;

/// Executes commands. Cheap to clone; may be asked from any thread.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {
    deps: Arc<Deps>,
    arbiters: Vec<ArbiterHandle>,
    workspaces: Directory<Workspace>,
    agents: Directory<Agent>,
    tunnels: Directory<Tunnel>,
    shares: Directory<Share>,
    claims: Directory<Claim>,
    nodes: Directory<Node>,
    commands: Directory<AgentCommand>,
    messages: Directory<Message>,
    environments: Directory<Environment>,
    webhooks: Directory<Webhook>,
    formats: Directory<LogFormat>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Aggregates' actors will live on `arbiters`, spread by stream.
    ///
    /// # Panics
    /// Without any arbiter: start-up's mistake.
    pub fn new(deps: Arc<Deps>, arbiters: Vec<ArbiterHandle>) -> Self {
        assert!(!arbiters.is_empty(), "actors need an arbiter to live on");
        Self(Arc::new(Inner {
            deps,
            arbiters,
            workspaces: DashMap::new(),
            agents: DashMap::new(),
            tunnels: DashMap::new(),
            shares: DashMap::new(),
            claims: DashMap::new(),
            nodes: DashMap::new(),
            commands: DashMap::new(),
            messages: DashMap::new(),
            environments: DashMap::new(),
            webhooks: DashMap::new(),
            formats: DashMap::new(),
        }))
    }

    pub async fn workspace(
        &self,
        id: WorkspaceId,
        who: Who,
        command: workspace::Command,
    ) -> Result<Done, ExecuteError<workspace::Rejection>> {
        self.workspace_at(id, who, None, command).await
    }
    /// The same, only if it is at this revision.
    pub async fn workspace_at(
        &self,
        id: WorkspaceId,
        who: Who,
        expected: Option<u64>,
        command: workspace::Command,
    ) -> Result<Done, ExecuteError<workspace::Rejection>> {
        self.execute(&self.0.workspaces, StreamName::workspace(id), who, expected, command).await
    }
    pub async fn agent(
        &self,
        id: AgentId,
        who: Who,
        command: agent::Command,
    ) -> Result<Done, ExecuteError<agent::Rejection>> {
        self.agent_at(id, who, None, command).await
    }
    /// The same, only if it is at this revision.
    pub async fn agent_at(
        &self,
        id: AgentId,
        who: Who,
        expected: Option<u64>,
        command: agent::Command,
    ) -> Result<Done, ExecuteError<agent::Rejection>> {
        self.execute(&self.0.agents, StreamName::agent(id), who, expected, command).await
    }
    pub async fn tunnel(
        &self,
        id: TunnelId,
        who: Who,
        command: tunnel::Command,
    ) -> Result<Done, ExecuteError<tunnel::Rejection>> {
        self.tunnel_at(id, who, None, command).await
    }
    /// The same, only if it is at this revision.
    pub async fn tunnel_at(
        &self,
        id: TunnelId,
        who: Who,
        expected: Option<u64>,
        command: tunnel::Command,
    ) -> Result<Done, ExecuteError<tunnel::Rejection>> {
        self.execute(&self.0.tunnels, StreamName::tunnel(id), who, expected, command).await
    }
    pub async fn share(
        &self,
        id: ShareId,
        who: Who,
        command: share::Command,
    ) -> Result<Done, ExecuteError<share::Rejection>> {
        self.share_at(id, who, None, command).await
    }
    /// The same, only if it is at this revision.
    pub async fn share_at(
        &self,
        id: ShareId,
        who: Who,
        expected: Option<u64>,
        command: share::Command,
    ) -> Result<Done, ExecuteError<share::Rejection>> {
        self.execute(&self.0.shares, StreamName::share(id), who, expected, command).await
    }
    /// `stream` comes from [`StreamName::claim`].
    pub async fn claim(
        &self,
        stream: StreamName,
        who: Who,
        command: claim::Command,
    ) -> Result<Done, ExecuteError<claim::Rejection>> {
        self.execute(&self.0.claims, stream, who, None, command).await
    }
    pub async fn environment(
        &self,
        id: EnvironmentId,
        who: Who,
        command: environment::Command,
    ) -> Result<Done, ExecuteError<environment::Rejection>> {
        self.environment_at(id, who, None, command).await
    }
    pub async fn environment_at(
        &self,
        id: EnvironmentId,
        who: Who,
        expected: Option<u64>,
        command: environment::Command,
    ) -> Result<Done, ExecuteError<environment::Rejection>> {
        self.execute(&self.0.environments, StreamName::environment(id), who, expected, command).await
    }
    pub async fn webhook(
        &self,
        id: WebhookId,
        who: Who,
        command: webhook::Command,
    ) -> Result<Done, ExecuteError<webhook::Rejection>> {
        self.webhook_at(id, who, None, command).await
    }
    /// The same, only if it is at this revision.
    pub async fn webhook_at(
        &self,
        id: WebhookId,
        who: Who,
        expected: Option<u64>,
        command: webhook::Command,
    ) -> Result<Done, ExecuteError<webhook::Rejection>> {
        self.execute(&self.0.webhooks, StreamName::webhook(id), who, expected, command).await
    }
    pub async fn node(
        &self,
        name: &str,
        who: Who,
        command: node::Command,
    ) -> Result<Done, ExecuteError<node::Rejection>> {
        self.execute(&self.0.nodes, StreamName::node(name), who, None, command).await
    }
    pub async fn log_format(
        &self,
        who: Who,
        command: log_format::Command,
    ) -> Result<Done, ExecuteError<log_format::Rejection>> {
        self.execute(&self.0.formats, StreamName::log_format(), who, None, command).await
    }

    pub async fn command(
        &self,
        id: CommandId,
        who: Who,
        command: agent_command::Command,
    ) -> Result<Done, ExecuteError<agent_command::Rejection>> {
        self.execute(&self.0.commands, StreamName::command(id), who, None, command).await
    }
    /// `personal` is what the message says, sealed: it goes into the first event.
    pub async fn message(
        &self,
        id: MessageId,
        who: Who,
        command: message::Command,
        personal: Option<Box<[u8]>>,
    ) -> Result<Done, ExecuteError<message::Rejection>> {
        let stream = StreamName::message(id);
        self.execute_with(&self.0.messages, stream, Execute { who, expected: None, command, personal }).await
    }

    /// How many aggregates are awake.
    pub fn awake(&self) -> usize {
        let inner = &self.0;
        inner.workspaces.len()
            + inner.agents.len()
            + inner.tunnels.len()
            + inner.shares.len()
            + inner.claims.len()
            + inner.nodes.len()
            + inner.commands.len()
            + inner.messages.len()
            + inner.environments.len()
            + inner.webhooks.len()
            + inner.formats.len()
    }

    /// Forgets the addresses of aggregates that went to sleep: called by the timekeeper now and then.
    pub fn forget_sleepers(&self) {
        let inner = &self.0;
        inner.workspaces.retain(|_, addr| addr.connected());
        inner.agents.retain(|_, addr| addr.connected());
        inner.tunnels.retain(|_, addr| addr.connected());
        inner.shares.retain(|_, addr| addr.connected());
        inner.claims.retain(|_, addr| addr.connected());
        inner.nodes.retain(|_, addr| addr.connected());
        inner.commands.retain(|_, addr| addr.connected());
        inner.messages.retain(|_, addr| addr.connected());
        inner.environments.retain(|_, addr| addr.connected());
        inner.webhooks.retain(|_, addr| addr.connected());
        inner.formats.retain(|_, addr| addr.connected());
    }

    async fn execute<A>(
        &self,
        directory: &Directory<A>,
        stream: StreamName,
        who: Who,
        expected: Option<u64>,
        command: A::Command,
    ) -> Result<Done, ExecuteError<A::Rejection>>
    where
        A: Aggregate,
    {
        self.execute_with(directory, stream, Execute { who, expected, command, personal: None }).await
    }

    async fn execute_with<A: Aggregate>(
        &self,
        directory: &Directory<A>,
        stream: StreamName,
        message: Execute<A>,
    ) -> Result<Done, ExecuteError<A::Rejection>> {
        // An actor may fall asleep between the look-up and the question; then a new one is asked. Twice asleep in a
        // row means that the hub is stopping.
        for _ in 0..2 {
            let addr = self.find_or_start(directory, &stream);
            match addr.send(message.clone()).await {
                Ok(answer) => return answer,
                Err(MailboxError::Timeout) => return Err(ExecuteError::Busy),
                Err(MailboxError::Closed) => {}
            }
        }
        Err(ExecuteError::InDoubt("the hub is stopping".to_owned()))
    }

    fn find_or_start<A: Aggregate>(
        &self,
        directory: &Directory<A>,
        stream: &StreamName,
    ) -> Addr<AggregateActor<A>> {
        if let Some(addr) = directory.get(stream).filter(|addr| addr.connected()) {
            return addr.clone();
        }
        let mut slot = directory.entry(stream.clone()).or_insert_with(|| self.start(stream));
        if !slot.connected() {
            *slot = self.start(stream);
        }
        slot.clone()
    }

    fn start<A: Aggregate>(&self, stream: &StreamName) -> Addr<AggregateActor<A>> {
        let actor = AggregateActor::<A>::new(stream.clone(), Arc::clone(&self.0.deps));
        let place = crc32fast::hash(stream.as_str().as_bytes()) as usize % self.0.arbiters.len();
        AggregateActor::start_in_arbiter(&self.0.arbiters[place], move |_| actor)
    }
}

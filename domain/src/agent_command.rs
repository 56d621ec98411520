//! A command to an agent: what somebody wants done there, and what became of it.
//!
//! ```text
//!   queued ──deliver──► delivered ──finish──► done / failed
//!      └──expire──► expired      └──no answer for long──► failed (`no_answer`)
//! ```
//!
//! A result is recorded whenever it comes, also for a command that had expired meanwhile: what the agent did is a fact.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{AgentId, CommandId, SessionId, TunnelId, WorkspaceId},
    names::Name,
    target::{Protocol, Target},
    time::Timestamp,
};

/// The most commands that wait for one agent: all of them are in memory and sent at once when it comes.
pub const PENDING_MAX: usize = 100;
/// How long a command waits for its agent unless it is told otherwise (milliseconds): long enough for a lunch break, short
/// enough that nobody is surprised.
pub const TTL_MS: i64 = 60 * 60_000;
/// The shortest and longest that it may be told to wait (seconds).
pub const TTL_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;
/// How long after its end a command that the agent took may stay without a result (milliseconds).
pub const ANSWER_GRACE_MS: i64 = 10 * 60_000;
/// The most bytes of a result, as JSON: an agent fills no log.
pub const RESULT_BYTES_MAX: usize = 32 * 1024;

/// What an agent shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "action", content = "params")]
pub enum Order {
    /// Connect anew.
    Restart,
    /// End the process.
    Stop,
    /// Serve a target under a name.
    Expose {
        target: Target,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        protocol: Protocol,
    },
    /// Lead a local port to a tunnel.
    Reach {
        tunnel_id: TunnelId,
        service: Name,
        protocol: Protocol,
        /// 0: any.
        port: u16,
    },
    /// Say how it stands.
    Status,
}

impl Order {
    /// The word for it in URLs and lists.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Expose { .. } => "expose",
            Self::Reach { .. } => "reach",
            Self::Status => "status",
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Outcome {
    Done {
        result: Value,
    },
    Failed {
        /// For programs: `target_not_allowed`, `local_port_taken`, `in_doubt`…
        code: String,
        /// For people.
        message: String,
    },
}

/// Somebody wants something done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandQueued {
    pub command_id: CommandId,
    pub workspace_id: WorkspaceId,
    pub agent_id: AgentId,
    pub order: Order,
    /// Not delivered by then, it is not carried out.
    pub expires_at: Timestamp,
}

/// The agent has it, and will say what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandDelivered {
    pub session_id: SessionId,
}

/// The agent did it, or says why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandFinished {
    pub outcome: Outcome,
}

/// Its agent did not come in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandExpired {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Queued(CommandQueued),
    Delivered(CommandDelivered),
    Finished(CommandFinished),
    Expired(CommandExpired),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Queued(_) => ("command.queued", 1),
            Self::Delivered(_) => ("command.delivered", 1),
            Self::Finished(_) => ("command.finished", 1),
            Self::Expired(_) => ("command.expired", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Queued(payload) => json(payload),
            Self::Delivered(payload) => json(payload),
            Self::Finished(payload) => json(payload),
            Self::Expired(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("command.queued", 1) => parse(data, Self::Queued),
            ("command.delivered", 1) => parse(data, Self::Delivered),
            ("command.finished", 1) => parse(data, Self::Finished),
            ("command.expired", 1) => parse(data, Self::Expired),
            _ => Ok(None),
        }
    }
}

/// What can be asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Queue { command: CommandQueued, now: Timestamp },
    Deliver { session_id: SessionId },
    Finish { outcome: Outcome },
    Expire { now: Timestamp },
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the command exists already, and differently")]
    CommandExists,
    #[error("no such command")]
    CommandUnknown,
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("it is not due yet")]
    NotDue,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Queued,
    Delivered,
    Finished(Outcome),
    Expired,
}

/// A command as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentCommand {
    pub queued: Option<CommandQueued>,
    pub progress: Progress,
}

impl AgentCommand {
    /// The order, while its agent has yet to say what became of it.
    pub fn pending(&self) -> Option<&CommandQueued> {
        match self.progress {
            Progress::Queued | Progress::Delivered => self.queued.as_ref(),
            Progress::Finished(_) | Progress::Expired => None,
        }
    }
    /// When something has to be recorded although nothing happened.
    pub fn due_at(&self) -> Option<Timestamp> {
        let queued = self.queued.as_ref()?;
        match self.progress {
            Progress::Queued => Some(queued.expires_at),
            Progress::Delivered => Some(queued.expires_at.plus_ms(ANSWER_GRACE_MS)),
            Progress::Finished(_) | Progress::Expired => None,
        }
    }

    fn queue(&self, command: &CommandQueued, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        match &self.queued {
            Some(known) if known == command => Ok(vec![]),
            Some(_) => Err(Rejection::CommandExists),
            None if command.expires_at <= now => Err(Rejection::ExpiryPast),
            None => Ok(vec![Event::Queued(command.clone())]),
        }
    }

    fn expire(&self, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        match (&self.progress, self.due_at()) {
            (Progress::Finished(_) | Progress::Expired, _) => Ok(vec![]),
            (_, Some(due)) if due > now => Err(Rejection::NotDue),
            (Progress::Queued, _) => Ok(vec![Event::Expired(CommandExpired {})]),
            (Progress::Delivered, _) => {
                let outcome = Outcome::Failed {
                    code: "no_answer".to_owned(),
                    message: "the agent took the command and did not say what became of it".to_owned(),
                };
                Ok(vec![Event::Finished(CommandFinished { outcome })])
            }
        }
    }
}

impl Aggregate for AgentCommand {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "command";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Queue { command, now } => self.queue(command, *now),
            Command::Deliver { .. } | Command::Finish { .. } | Command::Expire { .. }
                if self.queued.is_none() =>
            {
                Err(Rejection::CommandUnknown)
            }
            Command::Deliver { session_id } => match self.progress {
                Progress::Queued => Ok(vec![Event::Delivered(CommandDelivered { session_id: *session_id })]),
                Progress::Delivered | Progress::Finished(_) | Progress::Expired => Ok(vec![]),
            },
            Command::Finish { outcome } => match self.progress {
                // The agent says it again until it is sure that it was heard.
                Progress::Finished(_) => Ok(vec![]),
                Progress::Queued | Progress::Delivered | Progress::Expired => {
                    Ok(vec![Event::Finished(CommandFinished { outcome: outcome.clone() })])
                }
            },
            Command::Expire { now } => self.expire(*now),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Queued(queued) => {
                *self = Self { queued: Some(queued.clone()), progress: Progress::Queued };
            }
            Event::Delivered(_) => self.progress = Progress::Delivered,
            Event::Finished(finished) => self.progress = Progress::Finished(finished.outcome.clone()),
            Event::Expired(_) => self.progress = Progress::Expired,
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.queued.as_ref().map(|queued| queued.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::AgentCommand(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::AgentCommand(event)
    }
}

#[cfg(test)]
mod tests;

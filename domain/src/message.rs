//! A message from one agent to another of its workspace: sent, read, over.
//!
//! What it says is in the sealed personal part of `message.sent` and nowhere else.

use serde::{Deserialize, Serialize};

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::{AgentId, KeyId, MessageId, WorkspaceId},
    names::Name,
    time::Timestamp,
};

/// The most messages that one agent has, read or unread: all of them are in memory, without what they say.
pub const MAILBOX_MAX: usize = 500;
/// How long a message is kept unless it is told otherwise (seconds): a week.
pub const TTL_SECONDS_DEFAULT: u64 = 7 * 86_400;
/// The shortest and longest that it may be told to be kept (seconds).
pub const TTL_SECONDS: std::ops::RangeInclusive<u64> = 60..=30 * 86_400;
/// The most bytes that a message says, as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// How many agents a broadcast reaches at most.
pub const BROADCAST_MAX: usize = 1_000;

/// A message is in somebody's box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    pub message_id: MessageId,
    pub workspace_id: WorkspaceId,
    /// In whose name it was sent.
    pub from: AgentId,
    pub to: AgentId,
    /// The key that sent it in the agent's name; `None`: the agent itself, by its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// A word of the senders' own, to sort messages by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<Name>,
    /// It went to everybody.
    pub broadcast: bool,
    /// How long what it says is, as JSON.
    pub payload_bytes: u32,
    pub expires_at: Timestamp,
}

/// Whoever it was for has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageRead {}

/// It is kept no longer: its time is over, or a newer one needed the place of one that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageExpired {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Sent(MessageSent),
    Read(MessageRead),
    Expired(MessageExpired),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Sent(_) => ("message.sent", 1),
            Self::Read(_) => ("message.read", 1),
            Self::Expired(_) => ("message.expired", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Sent(payload) => json(payload),
            Self::Read(payload) => json(payload),
            Self::Expired(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("message.sent", 1) => parse(data, Self::Sent),
            ("message.read", 1) => parse(data, Self::Read),
            ("message.expired", 1) => parse(data, Self::Expired),
            _ => Ok(None),
        }
    }
}

/// What can be asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Send {
        message: MessageSent,
        now: Timestamp,
    },
    MarkRead,
    Expire {
        now: Timestamp,
    },
    /// Leave, if it was read: a newer one needs the place.
    MakeRoom,
}

/// What can stand in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the message exists already, and differently")]
    MessageExists,
    #[error("no such message")]
    MessageUnknown,
    #[error("the expiry lies in the past")]
    ExpiryPast,
    #[error("it is not due yet")]
    NotDue,
    #[error("nobody has read it yet")]
    Unread,
}

/// A message as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub sent: Option<MessageSent>,
    pub read: bool,
    pub expired: bool,
}

impl Message {
    /// What was sent, while it is kept.
    pub fn kept(&self, now: Timestamp) -> Option<&MessageSent> {
        self.sent.as_ref().filter(|sent| !self.expired && sent.expires_at > now)
    }
}

impl Aggregate for Message {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "message";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        let over = || Ok(vec![Event::Expired(MessageExpired {})]);
        match (command, &self.sent) {
            (Command::Send { message, .. }, Some(known)) if known == message => Ok(vec![]),
            (Command::Send { .. }, Some(_)) => Err(Rejection::MessageExists),
            (Command::Send { message, now }, None) if message.expires_at <= *now => {
                Err(Rejection::ExpiryPast)
            }
            (Command::Send { message, .. }, None) => Ok(vec![Event::Sent(message.clone())]),
            (Command::MarkRead | Command::Expire { .. } | Command::MakeRoom, None) => {
                Err(Rejection::MessageUnknown)
            }
            (Command::MarkRead | Command::Expire { .. } | Command::MakeRoom, Some(_)) if self.expired => {
                Ok(vec![])
            }
            (Command::MarkRead, Some(_)) if self.read => Ok(vec![]),
            (Command::MarkRead, Some(_)) => Ok(vec![Event::Read(MessageRead {})]),
            (Command::Expire { now }, Some(sent)) if sent.expires_at > *now => Err(Rejection::NotDue),
            (Command::Expire { .. }, Some(_)) => over(),
            (Command::MakeRoom, Some(_)) if !self.read => Err(Rejection::Unread),
            (Command::MakeRoom, Some(_)) => over(),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Sent(sent) => *self = Self { sent: Some(sent.clone()), ..Self::default() },
            Event::Read(_) => self.read = true,
            Event::Expired(_) => self.expired = true,
        }
    }

    fn workspace(&self) -> Option<WorkspaceId> {
        self.sent.as_ref().map(|sent| sent.workspace_id)
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Message(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Message(event)
    }
}

#[cfg(test)]
mod tests;

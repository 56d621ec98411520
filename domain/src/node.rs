//! A hub process: each start is a fact, so that sessions of an earlier boot end with it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    event::{self, Read, json, parse},
    ids::WorkspaceId,
};

/// A node began a new life: every session of its earlier boots is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStarted {
    pub node: String,
    pub boot: Uuid,
    /// The hub's version.
    pub version: String,
    /// The newest log format that it reads; absent in the days of the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_format: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Started(NodeStarted),
}

impl Event {
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Started(_) => ("node.started", 1),
        }
    }
    pub(crate) fn data(&self) -> String {
        match self {
            Self::Started(payload) => json(payload),
        }
    }
    pub(crate) fn read(event_type: &str, version: u16, data: &str) -> Read<Self> {
        match (event_type, version) {
            ("node.started", 1) => parse(data, Self::Started),
            _ => Ok(None),
        }
    }
}

/// What a node can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Start(NodeStarted),
}

/// A node has nothing that stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {}

/// The node's last known boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub boot: Option<Uuid>,
}

impl Aggregate for Node {
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;
    const KIND: &'static str = "node";

    fn decide(&self, command: &Command) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Start(started) if self.boot == Some(started.boot) => Ok(vec![]),
            Command::Start(started) => Ok(vec![Event::Started(started.clone())]),
        }
    }
    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.boot = Some(started.boot),
        }
    }
    fn workspace(&self) -> Option<WorkspaceId> {
        None
    }

    fn from_event(event: event::Event) -> Option<Event> {
        if let event::Event::Node(event) = event { Some(event) } else { None }
    }
    fn into_event(event: Event) -> event::Event {
        event::Event::Node(event)
    }
}

#[cfg(test)]
mod tests;

//! Every kind of event there is: the table of contents of the system, and the walk from stored shape to newest.
//!
//! Events are for ever. A shape never changes: a need is met by a new optional field, or by a new version with a
//! step in [`UPCASTS`]. `schemas/events/` holds one golden example per type and version.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    access, agent, agent_command, claim, delivery, environment, message, node, retention, seal, share,
    tunnel, webhook, workspace,
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Workspace(workspace::Event),
    Agent(agent::Event),
    Tunnel(tunnel::Event),
    Share(share::Event),
    Claim(claim::Event),
    Node(node::Event),
    Access(access::Event),
    AgentCommand(agent_command::Event),
    Message(message::Event),
    Environment(environment::Event),
    Retention(retention::Event),
    Seal(seal::Event),
    Webhook(webhook::Event),
    Delivery(delivery::Event),
}

/// An event as the log stores it, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub event_type: &'static str,
    pub version: u16,
    /// JSON.
    pub data: String,
}

/// Why stored data is no event of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("event type `{event_type}` version {version} is unknown to this build")]
    Unknown { event_type: String, version: u16 },
    #[error("event type `{event_type}` version {version} does not have its shape: {reason}")]
    Shape { event_type: String, version: u16, reason: String },
}

impl Event {
    /// The wire name and the version that this build writes.
    pub fn type_and_version(&self) -> (&'static str, u16) {
        match self {
            Self::Workspace(event) => event.type_and_version(),
            Self::Agent(event) => event.type_and_version(),
            Self::Tunnel(event) => event.type_and_version(),
            Self::Share(event) => event.type_and_version(),
            Self::Claim(event) => event.type_and_version(),
            Self::Node(event) => event.type_and_version(),
            Self::Access(event) => event.type_and_version(),
            Self::AgentCommand(event) => event.type_and_version(),
            Self::Message(event) => event.type_and_version(),
            Self::Environment(event) => event.type_and_version(),
            Self::Retention(event) => event.type_and_version(),
            Self::Seal(event) => event.type_and_version(),
            Self::Webhook(event) => event.type_and_version(),
            Self::Delivery(event) => event.type_and_version(),
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Encoded {
        let (event_type, version) = self.type_and_version();
        let data = match self {
            Self::Workspace(event) => event.data(),
            Self::Agent(event) => event.data(),
            Self::Tunnel(event) => event.data(),
            Self::Share(event) => event.data(),
            Self::Claim(event) => event.data(),
            Self::Node(event) => event.data(),
            Self::Access(event) => event.data(),
            Self::AgentCommand(event) => event.data(),
            Self::Message(event) => event.data(),
            Self::Environment(event) => event.data(),
            Self::Retention(event) => event.data(),
            Self::Seal(event) => event.data(),
            Self::Webhook(event) => event.data(),
            Self::Delivery(event) => event.data(),
        };
        Encoded { event_type, version, data }
    }

    /// Reads a stored event, up-casting older versions.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(event_type: &str, version: u16, data: &str) -> Result<Self, DecodeError> {
        decode_with(UPCASTS, event_type, version, data)
    }
}

/// One step from an older shape to the next: pure, total on every value of the old shape.
#[derive(Debug)]
pub struct Upcast {
    pub event_type: &'static str,
    /// The version it reads; it makes `from + 1`.
    pub from: u16,
    pub step: fn(Value) -> Value,
}

/// The steps that this build knows, oldest first. Empty until a shape is superseded.
pub const UPCASTS: &[Upcast] = &[];

/// Like [`Event::decode`] with a given table, so that a test can walk a path of several versions.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_with(
    upcasts: &[Upcast],
    event_type: &str,
    version: u16,
    data: &str,
) -> Result<Event, DecodeError> {
    let mut steps =
        upcasts.iter().filter(|step| step.event_type == event_type && step.from >= version).peekable();
    if steps.peek().is_none() {
        return read(event_type, version, data);
    }
    let shape = |error: serde_json::Error| shape_error(event_type, version, &error);
    let mut value: Value = serde_json::from_str(data).map_err(shape)?;
    let mut reached = version;
    for step in steps {
        if step.from != reached {
            break;
        }
        value = (step.step)(value);
        reached += 1;
    }
    read(event_type, reached, &value.to_string())
}

fn read(event_type: &str, version: u16, data: &str) -> Result<Event, DecodeError> {
    let aggregate = event_type.split('.').next().unwrap_or_default();
    let read = match aggregate {
        "workspace" | "key" => {
            workspace::Event::read(event_type, version, data).map(|e| e.map(Event::Workspace))
        }
        "agent" => agent::Event::read(event_type, version, data).map(|e| e.map(Event::Agent)),
        "tunnel" | "service" => tunnel::Event::read(event_type, version, data).map(|e| e.map(Event::Tunnel)),
        "usage" => access::Event::read(event_type, version, data).map(|e| e.map(Event::Access)),
        "share" if event_type == "share.accessed" => {
            access::Event::read(event_type, version, data).map(|e| e.map(Event::Access))
        }
        "share" => share::Event::read(event_type, version, data).map(|e| e.map(Event::Share)),
        "claim" => claim::Event::read(event_type, version, data).map(|e| e.map(Event::Claim)),
        "node" => node::Event::read(event_type, version, data).map(|e| e.map(Event::Node)),
        "command" => {
            agent_command::Event::read(event_type, version, data).map(|e| e.map(Event::AgentCommand))
        }
        "message" => message::Event::read(event_type, version, data).map(|e| e.map(Event::Message)),
        "environment" => {
            environment::Event::read(event_type, version, data).map(|e| e.map(Event::Environment))
        }
        "history" => retention::Event::read(event_type, version, data).map(|e| e.map(Event::Retention)),
        "log" => seal::Event::read(event_type, version, data).map(|e| e.map(Event::Seal)),
        "webhook" => webhook::Event::read(event_type, version, data).map(|e| e.map(Event::Webhook)),
        "delivery" => delivery::Event::read(event_type, version, data).map(|e| e.map(Event::Delivery)),
        _ => Ok(None),
    };
    read.map_err(|error| shape_error(event_type, version, &error))?
        .ok_or_else(|| DecodeError::Unknown { event_type: event_type.to_owned(), version })
}

fn shape_error(event_type: &str, version: u16, error: &serde_json::Error) -> DecodeError {
    DecodeError::Shape { event_type: event_type.to_owned(), version, reason: error.to_string() }
}

/// What an aggregate's `read` answers: `None` for a type or version that it does not know.
pub(crate) type Read<E> = Result<Option<E>, serde_json::Error>;

pub(crate) fn json<T: Serialize>(payload: &T) -> String {
    serde_json::to_string(payload).expect("payloads have string keys and no failing serializers")
}

pub(crate) fn parse<T: DeserializeOwned, E>(data: &str, wrap: fn(T) -> E) -> Read<E> {
    serde_json::from_str(data).map(|payload| Some(wrap(payload)))
}

#[cfg(test)]
mod tests;

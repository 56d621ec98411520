//! Every kind of event there is: the table of contents of the system, and the walk from stored shape to newest.
//!
//! Events are for ever. A shape never changes: a need is met by a new optional field, or by a new version with a
//! step in [`UPCASTS`]. `schemas/events/` holds one golden example per type and version. Which version is written follows
//! the log's format ([`crate::log_format`]).

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    access, agent, agent_command, claim, delivery, environment, log_format, message, node, retention, seal,
    share, tunnel, webhook, workspace,
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
    LogFormat(log_format::Event),
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
    /// The wire name and the newest version.
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
            Self::LogFormat(event) => event.type_and_version(),
        }
    }

    /// The stored form in the newest version: for logs of the newest format, and for types that have one version only.
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
            Self::LogFormat(event) => event.data(),
        };
        Encoded { event_type, version, data }
    }

    /// The stored form in a log of this format: a shape that came with a later format is written as it was before.
    pub fn encode_for(&self, format: u16) -> Encoded {
        encode_with(UPCASTS, self.encode(), format)
    }

    /// Reads a stored event, up-casting older versions.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(event_type: &str, version: u16, data: &str) -> Result<Self, DecodeError> {
        decode_with(UPCASTS, event_type, version, data)
    }
}

/// One step from an older shape to the next, and back: pure, total on every value of the shape that they read.
#[derive(Debug)]
pub struct Upcast {
    pub event_type: &'static str,
    /// The version it reads; it makes `from + 1`.
    pub from: u16,
    pub step: fn(Value) -> Value,
    /// The log format from which on `from + 1` is written.
    pub format: u16,
    /// From `from + 1` to `from`, for logs of an earlier format. What the old shape has no place for may be lost; reading
    /// the result says nothing that was not so.
    pub back: fn(Value) -> Value,
}

/// The steps that this build knows, by type and version.
pub const UPCASTS: &[Upcast] = &[Upcast {
    event_type: "service.unhealthy",
    from: 1,
    step: tunnel::health::unhealthy_from_1,
    format: 2,
    back: tunnel::health::unhealthy_to_1,
}];

/// The data of a stored event in its newest shape, for whoever shows it without asking what it means. Data that is no
/// event of this build comes back as it is.
pub fn newest_data(event_type: &str, version: u16, data: Value) -> Value {
    walk(UPCASTS, event_type, version, data).1
}

/// Walks the steps from a version as far as they lead.
fn walk(upcasts: &[Upcast], event_type: &str, version: u16, mut value: Value) -> (u16, Value) {
    let mut reached = version;
    for step in upcasts.iter().filter(|step| step.event_type == event_type) {
        if step.from == reached {
            value = (step.step)(value);
            reached += 1;
        }
    }
    (reached, value)
}

/// Like [`Event::encode_for`] with a given table: walks the steps back that came with later formats.
fn encode_with(upcasts: &[Upcast], newest: Encoded, format: u16) -> Encoded {
    let too_new = |step: &&Upcast| step.event_type == newest.event_type && step.format > format;
    let mut steps = upcasts.iter().rev().filter(too_new).peekable();
    if steps.peek().is_none() {
        return newest;
    }
    let mut value: Value = serde_json::from_str(&newest.data).expect("it was written as JSON a moment ago");
    let mut version = newest.version;
    for step in steps {
        if step.from + 1 == version {
            value = (step.back)(value);
            version = step.from;
        }
    }
    Encoded { event_type: newest.event_type, version, data: value.to_string() }
}

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
    if !upcasts.iter().any(|step| step.event_type == event_type && step.from == version) {
        return read(event_type, version, data);
    }
    let shape = |error: serde_json::Error| shape_error(event_type, version, &error);
    let value: Value = serde_json::from_str(data).map_err(shape)?;
    let (reached, value) = walk(upcasts, event_type, version, value);
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
        "log" if event_type == "log.sealed" => {
            seal::Event::read(event_type, version, data).map(|e| e.map(Event::Seal))
        }
        "webhook" => webhook::Event::read(event_type, version, data).map(|e| e.map(Event::Webhook)),
        "log" => log_format::Event::read(event_type, version, data).map(|e| e.map(Event::LogFormat)),
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

//! What a fact concerns: the thing whose stream it stands in, and the things that it names.
//!
//! Found by the names of fields, not by the kinds of events: an event that this build does not know is found as well,
//! and a new one that names what it concerns as all others do (`agentId`, `tunnelId`, …) needs no line here.

use domain::{
    ids::{AgentId, CommandId, EnvironmentId, KeyId, MessageId, ShareId, TunnelId},
    recorded::{Actor, Recorded},
};
use serde_json::Value;
use uuid::Uuid;

/// The things of one fact.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Subjects {
    /// The one that it happened to.
    pub(super) thing: Option<Uuid>,
    /// Those that it names besides; its author, if that is an agent.
    pub(super) others: Vec<Uuid>,
}

pub(super) fn of(recorded: &Recorded) -> Subjects {
    let thing = thing_of(recorded.stream.as_str());
    let mut others = Vec::new();
    if let Ok(Value::Object(data)) = serde_json::from_str(&recorded.data) {
        let texts = data.iter().filter_map(|(field, value)| Some((field, value.as_str()?)));
        others.extend(texts.filter_map(|(field, text)| named(field, text)));
    }
    if let Actor::Agent(id) = &recorded.actor {
        others.push(id.uuid());
    }
    others.retain(|other| Some(*other) != thing);
    others.sort_unstable();
    others.dedup();
    Subjects { thing, others }
}

/// The thing that a stream is of.
fn thing_of(stream: &str) -> Option<Uuid> {
    let (kind, rest) = stream.split_once('-')?;
    match kind {
        "agent" => rest.parse().ok().map(AgentId::uuid),
        "tunnel" => rest.parse().ok().map(TunnelId::uuid),
        "share" => rest.parse().ok().map(ShareId::uuid),
        "command" => rest.parse().ok().map(CommandId::uuid),
        "message" => rest.parse().ok().map(MessageId::uuid),
        "environment" => rest.parse().ok().map(EnvironmentId::uuid),
        _ => None,
    }
}

/// The id in a field that names a thing.
fn named(field: &str, text: &str) -> Option<Uuid> {
    match field {
        // A message names both ends by what they are to it.
        "agentId" | "from" | "to" => text.parse().ok().map(AgentId::uuid),
        "tunnelId" => text.parse().ok().map(TunnelId::uuid),
        "shareId" => text.parse().ok().map(ShareId::uuid),
        "keyId" => text.parse().ok().map(KeyId::uuid),
        "environmentId" => text.parse().ok().map(EnvironmentId::uuid),
        _ => None,
    }
}

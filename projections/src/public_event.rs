//! A recorded event as outsiders get it: what it concerns by id, its own fields, and nothing that opens anything.
//!
//! Stored events say what their stream does not: `share.revoked` has a reason and no id. Here the stream's id is put
//! beside the fields. Digests of secrets, and slugs that are as good as a link's token, are left out.
//! Messages name no version of their data: it has the newest shape, whenever the event was recorded.

use domain::{
    access::{Access, ShareAccessed, Visitor},
    event,
    ids::{EventId, ShareId},
    recorded::{Family, Personal, Recorded},
};
use schemas::rest::{AccessEntry, events::PublicEvent};
use serde_json::{Map, Value};

/// What the log does not have and a public event shows all the same.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// The code of the environment share that the event is about: it follows from a key of the keyring.
    pub code: Option<&'a str>,
}

/// Fields of stored data that are nobody else's business: what a code is drawn with.
const INTERNAL: [&str; 1] = ["draw"];

/// An event as outsiders get it. Accesses are shown without what is personal: see [`accesses`].
pub fn public(recorded: &Recorded, known: Known<'_>) -> PublicEvent {
    PublicEvent {
        id: recorded.id.to_string(),
        event_type: recorded.event_type.to_string(),
        event: recorded.event_type.to_string(),
        timestamp: recorded.recorded_at.to_string(),
        workspace_id: recorded.workspace.to_string(),
        data: shown(
            recorded,
            event::newest_data(&recorded.event_type, recorded.version, stored(recorded)),
            known,
        ),
    }
}

/// What the event concerns, and its fields as they were recorded: whoever shows this shows the version too.
pub fn data(recorded: &Recorded, known: Known<'_>) -> Map<String, Value> {
    shown(recorded, stored(recorded), known)
}

fn stored(recorded: &Recorded) -> Value {
    // What cannot be read is not shown.
    serde_json::from_str(&recorded.data).unwrap_or_default()
}

fn shown(recorded: &Recorded, data: Value, known: Known<'_>) -> Map<String, Value> {
    let mut data = match data {
        // What a courier notes is full of the log's own positions, which never leave the hub.
        _ if recorded.family() == Family::Deliveries => Map::new(),
        Value::Object(fields) => fields,
        // No event of ours.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    without_secrets(&mut data);
    if let Some((name, id)) = subject(recorded) {
        data.entry(name).or_insert_with(|| Value::String(id.to_owned()));
    }
    if let Some(code) = known.code {
        data.insert("code".to_owned(), Value::String(code.to_owned()));
    }
    data
}

/// The id that a stream's name carries, and the field that shows it.
fn subject(recorded: &Recorded) -> Option<(&'static str, &str)> {
    let name = match recorded.stream.kind() {
        "agent" => "agentId",
        "tunnel" => "tunnelId",
        "share" => "shareId",
        "environment" => "environmentId",
        "webhook" | "deliveries" => "webhookId",
        "command" => "commandId",
        "message" => "messageId",
        _ => return None,
    };
    let (_, id) = recorded.stream.as_str().split_once('-')?;
    Some((name, id))
}

fn without_secrets(fields: &mut Map<String, Value>) {
    // A random slug is a way in, as the token is. A chosen one is public by choice.
    if fields.get("slugChosen") != Some(&Value::Bool(true))
        && fields.get("public") != Some(&Value::Bool(true))
    {
        fields.remove("slug");
    }
    fields.retain(|name, _| !name.ends_with("Hash") && !INTERNAL.contains(&name.as_str()));
    for value in fields.values_mut() {
        without_secrets_below(value);
    }
}

fn without_secrets_below(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("Hash"));
            fields.values_mut().for_each(without_secrets_below);
        }
        Value::Array(items) => items.iter_mut().for_each(without_secrets_below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The accesses of a packed event in the form of the access log, in their order. What is personal comes from the opened
/// part of the envelope; erased or sealed, it shows as null.
pub fn accesses(recorded: &Recorded, accessed: &ShareAccessed) -> Vec<AccessEntry> {
    let visitors: Vec<Visitor> = match &recorded.personal {
        Personal::Open(text) => serde_json::from_str(text).unwrap_or_default(),
        Personal::None | Personal::Sealed(_) | Personal::Erased => Vec::new(),
    };
    let shown = |(index, access): (usize, &Access)| {
        entry(recorded.id, accessed.share_id, index, access, visitors.get(index).cloned())
    };
    accessed.accesses.iter().enumerate().map(shown).collect()
}

fn entry(
    event: EventId,
    share: ShareId,
    index: usize,
    access: &Access,
    visitor: Option<Visitor>,
) -> AccessEntry {
    let (ip_address, user_agent, path) = match visitor {
        Some(visitor) => (Some(visitor.ip), visitor.user_agent, Some(visitor.path)),
        None => (None, None, None),
    };
    AccessEntry {
        id: format!("{event}.{index}"),
        share_id: share.to_string(),
        accessed_at: access.accessed_at.to_string(),
        ip_address,
        user_agent,
        path,
        method: access.method.clone(),
        status_code: access.status_code,
        latency_ms: u64::from(access.latency_ms),
        bytes_in: access.bytes_in,
        bytes_out: access.bytes_out,
        denied: access.denied.map(word),
        ended_by: access.ended_by.map(word),
        repeat: access.repeat,
    }
}

/// The wire name of a plain enum's value.
fn word(value: impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("plain enums are words");
    value.as_str().expect("plain enums are words").to_owned()
}

#[cfg(test)]
mod tests;

//! A recorded event in the forms that leave the hub: an entry of the audit, an event of the feed, a CloudEvent.
//!
//! Positions shown are numbers in (workspace, family): the log's own would tell one tenant how busy the others are.
//! What an event says is shown as webhooks show it ([`projections::public_event`]).

use domain::recorded::{Personal, Recorded};
use projections::public_event::{Known, data};
use schemas::rest::{AuditEntry, audit::RecordedEvent};
use serde_json::{Value, json};

/// The word in the place of what was erased.
const ERASED: &str = "erased";

/// As the audit lists it: without what is personal.
pub fn entry(recorded: &Recorded) -> AuditEntry {
    AuditEntry {
        id: recorded.id.to_string(),
        position: recorded.seq,
        stream: recorded.stream.to_string(),
        revision: recorded.revision,
        r#type: recorded.event_type.to_string(),
        version: recorded.version,
        recorded_at: recorded.recorded_at.to_string(),
        actor: actor(recorded),
        request_id: recorded.correlation.map(|id| id.to_string()),
        data: Value::Object(data(recorded, Known::default())),
    }
}

/// As the feed tells it, with what is personal as far as it was opened.
pub fn event(recorded: &Recorded) -> RecordedEvent {
    RecordedEvent {
        id: recorded.id.to_string(),
        position: recorded.seq,
        family: recorded.family().name().to_owned(),
        stream: recorded.stream.to_string(),
        revision: recorded.revision,
        r#type: recorded.event_type.to_string(),
        version: recorded.version,
        recorded_at: recorded.recorded_at.to_string(),
        workspace_id: recorded.workspace.to_string(),
        actor: actor(recorded),
        causation_id: recorded.causation.map(|id| id.to_string()),
        correlation_id: recorded.correlation.map(|id| id.to_string()),
        data: data(recorded, Known::default()),
        personal: personal(recorded),
    }
}

/// As CloudEvents 1.0 has it, in the JSON format. `source` and `id` name it everywhere and for ever; the log's own facts
/// are extensions, `sequence` and `partitionkey` as CloudEvents' own documents define them.
pub fn cloud_event(recorded: &Recorded) -> Value {
    let mut cloud = json!({
        "specversion": "1.0",
        "id": recorded.id.to_string(),
        "source": format!("/workspaces/{}", recorded.workspace),
        "type": &*recorded.event_type,
        "subject": recorded.stream.as_str(),
        "time": recorded.recorded_at.to_string(),
        "datacontenttype": "application/json",
        "schemaversion": recorded.version.to_string(),
        // A string that sorts as the number does: the numbers of CloudEvents have 32 bits.
        "sequence": format!("{:020}", recorded.seq),
        "partitionkey": recorded.family().name(),
        "revision": recorded.revision.to_string(),
        "data": data(recorded, Known::default()),
    });
    let author = actor(recorded);
    cloud["actorkind"] = author["kind"].clone();
    cloud["actorid"] = author["id"].clone();
    if let Some(id) = recorded.causation {
        cloud["causationid"] = id.to_string().into();
    }
    if let Some(id) = recorded.correlation {
        cloud["correlationid"] = id.to_string().into();
    }
    if let Some(personal) = personal(recorded) {
        cloud["data"]["personal"] = personal;
    }
    cloud
}

fn actor(recorded: &Recorded) -> Value {
    serde_json::to_value(&recorded.actor).expect("plain data with string keys")
}

fn personal(recorded: &Recorded) -> Option<Value> {
    match &recorded.personal {
        // Whoever did not open it does not want to show it.
        Personal::None | Personal::Sealed(_) => None,
        Personal::Open(text) => {
            Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_string())))
        }
        Personal::Erased => Some(ERASED.into()),
    }
}

#[cfg(test)]
mod tests;

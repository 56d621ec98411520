//! `GET /v1/agents/:id/audit-logs`: what was recorded of an agent, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::recorded::{Recorded, StreamName};
use schemas::rest::{AuditEntry, AuditLogs};
use serde_json::Value;

use super::{Ports, agents, caller::Caller, error::ApiError, lists};

/// A page is that many revisions of the agent's stream, read in one piece by the log's index: a request's work does not
/// depend on how long the agent's history is.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    agent: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let (id, entry) = agents::look_at(&ports, &caller, &agent)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    let last = match &page.cursor {
        None => entry.revision,
        // One that is not there yet is where the newest are.
        Some(text) => text
            .parse::<u64>()
            .ok()
            .filter(|revision| *revision > 0)
            .ok_or_else(|| ApiError::field("cursor", "must be one that an earlier page gave"))?
            .min(entry.revision),
    };
    let limit = page.limit as u64;
    let first = last.saturating_sub(limit - 1).max(1);
    let count = usize::try_from(last - first + 1).unwrap_or(page.limit);
    let stream = StreamName::agent(id);
    let events = ports.log.read_stream(&stream, first, count).await.map_err(ApiError::internal)?;
    let logs = events.iter().rev().map(shown).collect();
    let next = (first > 1).then(|| (first - 1).to_string());
    Ok(lists::answer(&request, &AuditLogs { logs }, next.as_deref()))
}

fn shown(recorded: &Recorded) -> AuditEntry {
    let mut data: Value = serde_json::from_str(&recorded.data).unwrap_or_default();
    without_hashes(&mut data);
    AuditEntry {
        id: recorded.id.to_string(),
        position: recorded.seq,
        revision: recorded.revision,
        r#type: recorded.event_type.to_string(),
        version: recorded.version,
        recorded_at: recorded.recorded_at.to_string(),
        actor: serde_json::to_value(&recorded.actor).expect("plain data with string keys"),
        request_id: recorded.correlation.map(|id| id.to_string()),
        data,
    }
}

/// A hash of a secret is no secret, and still nobody's business.
fn without_hashes(data: &mut Value) {
    match data {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("Hash"));
            fields.values_mut().for_each(without_hashes);
        }
        Value::Array(items) => items.iter_mut().for_each(without_hashes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

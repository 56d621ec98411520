//! `GET /v1/agents/:id/audit-logs`: what was recorded of an agent, newest first.

use actix_web::{HttpRequest, HttpResponse, web};
use domain::recorded::StreamName;
use schemas::rest::AuditLogs;

use super::{Ports, agents, caller::Caller, error::ApiError, lists};
use crate::event_forms;

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
    let logs = events.iter().rev().map(event_forms::entry).collect();
    let next = (first > 1).then(|| (first - 1).to_string());
    Ok(lists::answer(&request, &AuditLogs { logs }, next.as_deref()))
}

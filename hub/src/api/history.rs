//! `?at=` on single tunnels, shares and agents: as they were.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header};
use domain::{recorded::Family, time::Timestamp};
use projections::{access_log, audit::Retained};
use serde::Serialize;
use serde_json::Value;

use super::{
    Ports,
    caller::Caller,
    error::ApiError,
    events, lists,
    present::{self, Scene},
};
use crate::history::{EVENTS_MAX, Historian, HistoryError, Moment};

/// What readers count and facts do not decide.
const COUNTED: [&str; 7] = [
    "accessCount",
    "bytesIn",
    "bytesOut",
    "connectionCount",
    "lastAccessedAt",
    "lastActivityAt",
    "lastSeenAt",
];

/// The moment that a question is about, if it is not now.
///
/// # Errors
/// 400 for an unknown parameter.
pub fn asked(request: &HttpRequest) -> Result<Option<String>, ApiError> {
    let parameters = lists::parameters(request, &["at"])?;
    Ok(lists::parameter(&parameters, "at").map(str::to_owned))
}

/// A tunnel as it was.
///
/// # Errors
/// 404 when it was not there, 410 when that is no longer known.
pub async fn tunnel(ports: &Ports, caller: &Caller, id: &str, at: &str) -> Result<HttpResponse, ApiError> {
    let missing = || ApiError::not_found("tunnel", id);
    let tunnel = id.parse().map_err(|_| missing())?;
    let moment = moment(ports, caller, at).await?.ok_or_else(missing)?;
    let _place = ports.readings.wait(caller.workspace).await?;
    let past =
        historian(ports, caller, moment).tunnel(tunnel).await.map_err(|error| told(error, missing()))?;
    let entry = past.routes.tunnel(tunnel).ok_or_else(missing)?;
    let carried = access_log::TunnelTotals::default();
    let shown = present::open_tunnel(Scene::Then(ports, &past), tunnel, &entry, carried);
    Ok(answer(&shown.ok_or_else(missing)?, entry.revision))
}

/// A share as it was.
///
/// # Errors
/// As [`tunnel`].
pub async fn share(ports: &Ports, caller: &Caller, id: &str, at: &str) -> Result<HttpResponse, ApiError> {
    let missing = || ApiError::not_found("share", id);
    let share = id.parse().map_err(|_| missing())?;
    let moment = moment(ports, caller, at).await?.ok_or_else(missing)?;
    let _place = ports.readings.wait(caller.workspace).await?;
    let past = historian(ports, caller, moment).share(share).await.map_err(|error| told(error, missing()))?;
    let entry = past.routes.share(share).ok_or_else(missing)?;
    let used = access_log::ShareTotals::default();
    let shown = present::counted_share(Scene::Then(ports, &past), share, &entry, used);
    Ok(answer(&shown.ok_or_else(missing)?, entry.revision))
}

/// An agent as it was.
///
/// # Errors
/// As [`tunnel`].
pub async fn agent(ports: &Ports, caller: &Caller, id: &str, at: &str) -> Result<HttpResponse, ApiError> {
    let missing = || ApiError::not_found("agent", id);
    let agent = id.parse().map_err(|_| missing())?;
    let moment = moment(ports, caller, at).await?.ok_or_else(missing)?;
    let _place = ports.readings.wait(caller.workspace).await?;
    let past = historian(ports, caller, moment).agent(agent).await.map_err(|error| told(error, missing()))?;
    let entry = past.routes.agent(agent).ok_or_else(missing)?;
    let shown = present::agent_in(Scene::Then(ports, &past), agent, &entry);
    Ok(answer(&shown.ok_or_else(missing)?, entry.revision))
}

fn historian<'a>(ports: &'a Ports, caller: &Caller, moment: Moment) -> Historian<'a> {
    Historian::new(&ports.log, ports.views.audit(), caller.workspace, moment)
}

/// The moment that a text means; `None` when nothing had happened yet.
async fn moment(ports: &Ports, caller: &Caller, text: &str) -> Result<Option<Moment>, ApiError> {
    events::see_all(ports).await;
    let (audit, workspace, facts) = (ports.views.audit(), caller.workspace, Family::Facts);
    let Retained { first, last } =
        lists::view(audit.retained(workspace, facts))?.unwrap_or(Retained { first: 1, last: 0 });
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let seq: u64 = text.parse().ok().filter(|seq| (1..=last).contains(seq)).ok_or_else(|| {
            ApiError::field("at", format_args!("must be a moment, or a position from 1 to {last}"))
        })?;
        if seq < first {
            return Err(events::retired(first));
        }
        let row = lists::view(audit.event(workspace, facts, seq))?;
        let row =
            row.ok_or_else(|| ApiError::internal("a position between the first and the last is missing"))?;
        return Ok(Some(Moment::of_fact(seq, row.position, row.recorded_at)));
    }
    let at: Timestamp = text.parse().map_err(|error| ApiError::field("at", error))?;
    if at > ports.clock.now() {
        return Err(ApiError::field("at", "must not lie in the future"));
    }
    match lists::view(audit.number_at(workspace, facts, at))? {
        0 if first > 1 => Err(events::retired(first)),
        0 => Ok(None),
        seq => Ok(Some(Moment::of_time(seq, at))),
    }
}

fn told(error: HistoryError, missing: ApiError) -> ApiError {
    match error {
        HistoryError::NotThere => missing,
        HistoryError::TooLong => ApiError::new(
            StatusCode::BAD_REQUEST,
            "history_too_long",
            format!("More than {EVENTS_MAX} events decide about it; ask `/v1/audit` what happened."),
        ),
        error @ (HistoryError::Log(_) | HistoryError::View(_)) => ApiError::internal(error),
    }
}

/// Without what readers count.
fn answer(shown: &impl Serialize, revision: u64) -> HttpResponse {
    let mut body = serde_json::to_value(shown).expect("answers have string keys");
    if let Value::Object(fields) = &mut body {
        fields.retain(|name, _| !COUNTED.contains(&name.as_str()));
    }
    HttpResponse::Ok().insert_header((header::ETAG, lists::etag(revision))).json(body)
}

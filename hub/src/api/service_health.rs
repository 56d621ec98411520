//! How services are: looked at from another agent, the last look of each kind, and watching them.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    ids::TunnelId,
    tunnel::{Command, Details, Finding, HealthConfigured},
    workspace::Scope,
};
use schemas::{
    frames::Depth,
    rest::services::{ConfigureHealth, FoundDiagnostics, HealthStatus, LastDiagnostics, ReachService},
};

use super::{Ports, agents, body::Body, caller::Caller, error::ApiError, idempotency, lists, tunnels};
use crate::diagnostics::{Found, Kind};

/// How long a look may take unless it is asked for another time (milliseconds).
const TIMEOUT_MS: u64 = 10_000;
/// How often a service is looked at unless it is asked for otherwise (seconds).
const INTERVAL_S: u32 = 60;

/// `POST /v1/services/:id/reach`: another agent looks, the way that `connect reach` goes.
pub async fn reach(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<ReachService>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = tunnels::find(&ports, &caller, &id)?;
    let details = open(&entry.state, id)?;
    let depth = match body.value.mode.as_deref() {
        None | Some("full") => Depth::Full,
        Some("tcp") => Depth::Tcp,
        Some("tls") => Depth::Tls,
        Some("http") => Depth::Http,
        Some(_) => return Err(ApiError::field("mode", "must be full, tcp, tls or http")),
    };
    let timeout_ms = match body.value.timeout_ms {
        None => TIMEOUT_MS,
        Some(asked) => u64::try_from(asked)
            .ok()
            .filter(|asked| (100..=30_000).contains(asked))
            .ok_or_else(|| ApiError::field("timeoutMs", "must be from 100 to 30000"))?,
    };
    let (source, _) = agents::find(&ports, &caller, &body.value.source_agent_id)?;
    // Looking twice is as good as once; the key only must not have been another request's.
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let limit = Duration::from_millis(timeout_ms);
    let found = ports.gateway.check_reach(source, details, depth, limit).await;
    let found = found.map_err(|error| tunnels::not_asked(&error, "reaching"))?;
    let kept = ports.diagnostics.note(id, Kind::Reach, source, found);
    Ok(HttpResponse::Ok().json(shown(kept)))
}

/// `GET /v1/services/:id/diagnostics`.
pub async fn diagnostics(
    ports: web::Data<Ports>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (id, entry) = tunnels::find(&ports, &caller, &id)?;
    let last = |kind| ports.diagnostics.last(id, kind).map(shown);
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(entry.revision))).json(LastDiagnostics {
        id: id.to_string(),
        check: last(Kind::Check),
        reach: last(Kind::Reach),
        health: last(Kind::Health),
        health_status: health(open(&entry.state, id)?),
    }))
}

/// `PATCH /v1/services/:id/health-config`.
pub async fn configure(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<ConfigureHealth>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = tunnels::find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let known = open(&entry.state, id)?.health.config.clone();
    let known = known.unwrap_or(HealthConfigured { enabled: false, interval_seconds: INTERVAL_S });
    let interval_seconds = match body.value.interval_seconds {
        None => known.interval_seconds,
        Some(asked) => {
            u32::try_from(asked).map_err(|_| ApiError::field("intervalSeconds", "must be from 10 to 3600"))?
        }
    };
    let enabled = body.value.enabled.unwrap_or(known.enabled);
    let asked = HealthConfigured { enabled, interval_seconds };
    let done = ports.executor.tunnel_at(id, caller.who(), expected, Command::ConfigureHealth(asked)).await?;
    let entry = ports.routes.tunnel(id).ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(health(open(&entry.state, id)?)))
}

fn open(tunnel: &domain::tunnel::Tunnel, id: TunnelId) -> Result<&Details, ApiError> {
    tunnel.open().ok_or_else(|| ApiError::not_found("tunnel", id))
}

fn health(details: &Details) -> HealthStatus {
    let config = details.health.config.as_ref();
    let (status, step, reason) = match &details.health.finding {
        None => ("unknown", None, None),
        Some(Finding::Healthy) => ("healthy", None, None),
        Some(Finding::Unhealthy { step, reason }) => ("unhealthy", *step, Some(reason.clone())),
    };
    HealthStatus {
        enabled: config.is_some_and(|config| config.enabled),
        interval_seconds: config.map_or(INTERVAL_S, |config| config.interval_seconds),
        status: status.to_owned(),
        step: step.map(|step| step.name().to_owned()),
        reason,
    }
}

fn shown(found: Found) -> FoundDiagnostics {
    FoundDiagnostics {
        agent_id: found.agent.to_string(),
        checked_at: found.at.to_string(),
        diagnostics: found.diagnostics,
    }
}

//! Services: the same things as tunnels, registered by name.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{target::Target, tunnel::TunnelUpdated, workspace::Scope};
use schemas::rest::RegisterService;

use super::{
    Ports, agents,
    body::{Body, Nothing},
    caller::Caller,
    error::ApiError,
    idempotency, tunnels,
};
use crate::{creation::NewTunnel, diagnostics::Kind};

/// How long an agent may look at its target.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// `POST /v1/services/register`: creates the service of that name, or brings it to where it is now.
pub async fn register(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<RegisterService>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let asked = &body.value;
    let name = tunnels::name(&asked.name)?;
    let protocol = tunnels::protocol(asked.protocol.as_deref())?;
    let target = Target::new(&asked.target_host, asked.target_port)
        .map_err(|error| ApiError::field("targetHost", error))?;
    let (agent_id, _) = agents::find(&ports, &caller, &asked.agent_id)?;
    let is_public = asked.is_public.unwrap_or(false);
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let Some(id) = ports.routes.tunnel_named(caller.workspace, name.as_str()) else {
        let new = NewTunnel { agent_id, name: Some(name), target, protocol, is_public, expires_at: None };
        let (id, done) = tunnels::make(&ports, &caller, &seed, new).await?;
        return tunnels::shown(&ports, &caller, StatusCode::CREATED, id, done);
    };
    let change = TunnelUpdated {
        agent_id: Some(agent_id),
        target: Some(target),
        protocol: Some(protocol),
        is_public: Some(is_public),
        ..TunnelUpdated::default()
    };
    let done = ports.creator.update(&caller.who(), id, change).await?;
    if is_public {
        tunnels::publish(&ports, &caller, &seed, id).await?;
    }
    tunnels::confirmed(&ports, agent_id, id).await;
    tunnels::shown(&ports, &caller, StatusCode::OK, id, done)
}

/// `POST /v1/services/:id/check`: the exposing agent looks at its target now.
pub async fn check(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    _nothing: Nothing,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (id, entry) = tunnels::find(&ports, &caller, &id)?;
    let details = entry.state.open().ok_or_else(|| ApiError::not_found("tunnel", id))?;
    // Looking twice is as good as once; the key only must not have been another request's.
    idempotency::seed(&ports, &caller, &request, b"").await?;
    let found = ports.gateway.check(details.created.agent_id, id, CHECK_PATIENCE).await;
    let diagnostics = found.map_err(|error| tunnels::not_asked(&error, "exposing"))?;
    let kept = ports.diagnostics.note(id, Kind::Check, details.created.agent_id, diagnostics);
    Ok(HttpResponse::Ok().json(kept.diagnostics))
}

//! Tunnels, field by field as seed 004 shows them.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use domain::{
    ids::{AgentId, TunnelId},
    names::Name,
    policy::expiry::Lifetime,
    target::{InvalidTarget, Protocol, Target, connection_string},
    tunnel::{Command, Condition, DeleteReason, Outage, Switch, Tunnel, TunnelUpdated},
    workspace::Scope,
};
use projections::{catalog::TunnelFilter, routes::Entry};
use schemas::{
    frames::PortOutcome,
    rest::{ConnectTunnel, Connected, ConnectedTunnel, CreateTunnel, Success, TargetText, UpdateTunnel},
};

use super::{
    Ports, agents,
    body::Body,
    caller::Caller,
    error::{ApiError, Refusal as _},
    history, idempotency, lists, present,
};
use crate::{
    actors::{Done, ExecuteError},
    creation::{CreateError, NewTunnel},
    gateway::sessions::AskError,
    secrets::Seed,
};

/// How long a creation waits for the agent to confirm that it can dial the target.
pub const CONFIRM_PATIENCE: Duration = Duration::from_secs(2);
/// How long a reaching agent may take to listen.
const PORT_PATIENCE: Duration = Duration::from_secs(10);

/// `POST /v1/tunnels`.
pub async fn create(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<CreateTunnel>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    // What the fields say is checked before an idempotency key is spent on it.
    let lifetime = body.value.expires_in.as_deref().map(Lifetime::parse).transpose();
    let lifetime = lifetime.map_err(|error| ApiError::field("expiresIn", error))?;
    let name = body.value.name.as_deref().map(name).transpose()?;
    let target = target(&body.value.target)?;
    let protocol = protocol(body.value.protocol.as_deref())?;
    let (agent_id, _) = agents::find(&ports, &caller, &body.value.agent_id)?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let expires_at = lifetime.and_then(|lifetime| lifetime.ends_at(now));
    let is_public = body.value.is_public.unwrap_or(false);
    let new = NewTunnel { agent_id, name, target, protocol, is_public, expires_at };
    let (id, done) = make(&ports, &caller, &seed, new).await?;
    shown(&ports, &caller, StatusCode::CREATED, id, done)
}

/// Creates a tunnel and waits for its agent's word; also what the services group does.
///
/// # Errors
/// As [`crate::creation::Creator::tunnel`].
pub async fn make(
    ports: &Ports,
    caller: &Caller,
    seed: &Seed,
    new: NewTunnel,
) -> Result<(TunnelId, Done), ApiError> {
    let (agent_id, is_public) = (new.agent_id, new.is_public);
    let (id, done) = ports.creator.tunnel(&caller.who(), seed, new).await?;
    if is_public {
        publish(ports, caller, seed, id).await?;
    }
    confirmed(ports, agent_id, id).await;
    Ok((id, done))
}

/// Gives a public HTTP tunnel its permanent link; raw TCP and UDP have their port instead.
///
/// # Errors
/// As [`crate::creation::Creator::public_share`].
pub async fn publish(ports: &Ports, caller: &Caller, seed: &Seed, id: TunnelId) -> Result<(), ApiError> {
    match ports.creator.public_share(&caller.who(), seed, id).await {
        Ok(_) | Err(CreateError::NotShareable(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits a moment until the exposing agent, if it is there, said whether it can dial the target.
pub async fn confirmed(ports: &Ports, agent: AgentId, id: TunnelId) {
    if ports.gateway.is_connected(agent) {
        ports.gateway.wait_state(id, CONFIRM_PATIENCE).await;
    }
}

/// A tunnel as the answer to a write.
///
/// # Errors
/// 404 when it was deleted in between.
pub fn shown(
    ports: &Ports,
    caller: &Caller,
    status: StatusCode,
    id: TunnelId,
    done: Done,
) -> Result<HttpResponse, ApiError> {
    let entry = ports.routes.tunnel(id).ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let body = present::tunnel(ports, id, &entry)?.ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let mut response = HttpResponse::build(status);
    lists::written(ports, caller, Done { revision: entry.revision, ..done }, &mut response);
    Ok(response.json(body))
}

/// A name as a request carries it.
///
/// # Errors
/// 400 naming the field.
pub fn name(text: &str) -> Result<Name, ApiError> {
    Name::parse(text).map_err(|error| ApiError::field("name", error))
}

/// A protocol as a request carries it; `auto` when absent.
///
/// # Errors
/// 400 naming the field.
pub fn protocol(text: Option<&str>) -> Result<Protocol, ApiError> {
    text.map_or(Ok(Protocol::Auto), str::parse).map_err(|error| ApiError::field("protocol", error))
}

fn target(text: &TargetText) -> Result<Target, ApiError> {
    let checked: Result<Target, InvalidTarget> = match text {
        TargetText::Text(text) => Target::parse(text),
        TargetText::Parts(parts) => Target::new(&parts.host, parts.port),
    };
    checked.map_err(|error| ApiError::field("target", error))
}

/// `GET /v1/tunnels` and `/v1/services`.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    lists::see_own_writes(&ports, &caller, &request).await;
    let (filter, now) = (TunnelFilter::default(), ports.clock.now());
    let found = lists::view(ports.catalog.tunnels(caller.workspace, filter, now, page.of_view()))?;
    let ids: Vec<TunnelId> = found.rows.iter().map(|row| row.id).collect();
    let shown = present::tunnels(&ports, caller.workspace, &ids)?;
    Ok(lists::answer(&request, &shown, found.next.as_deref()))
}

/// The caller's open tunnel of that id; another workspace's does not exist.
///
/// # Errors
/// 404.
pub fn find(ports: &Ports, caller: &Caller, text: &str) -> Result<(TunnelId, Arc<Entry<Tunnel>>), ApiError> {
    let missing = || ApiError::not_found("tunnel", text);
    let id: TunnelId = text.parse().map_err(|_| missing())?;
    let entry = ports.routes.tunnel(id).ok_or_else(missing)?;
    let here = entry.state.open().is_some_and(|details| details.created.workspace_id == caller.workspace);
    if here { Ok((id, entry)) } else { Err(missing()) }
}

/// `GET /v1/tunnels/:id`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    if let Some(at) = history::asked(&request)? {
        return history::tunnel(&ports, &caller, &id, &at).await;
    }
    let (id, entry) = find(&ports, &caller, &id)?;
    let shown = present::tunnel(&ports, id, &entry)?;
    Ok(HttpResponse::Ok().insert_header((header::ETAG, lists::etag(entry.revision))).json(shown))
}

/// `PATCH /v1/tunnels/:id`: name, metadata, paused or active.
pub async fn update(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<UpdateTunnel>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let body = body.value;
    let switch = match body.status.as_deref() {
        None => None,
        Some("paused") => Some(Switch::Pause),
        Some("active") => Some(Switch::Resume),
        Some(_) => return Err(ApiError::field("status", "must be active or paused")),
    };
    let name = body.name.as_deref().map(name).transpose()?;
    let change = TunnelUpdated { name, metadata: body.metadata, ..TunnelUpdated::default() };
    let done = ports.creator.change_at(&caller.who(), id, expected, change, switch).await?;
    let entry = ports.routes.tunnel(id).ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let shown = present::tunnel(&ports, id, &entry)?.ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, Done { revision: entry.revision, ..done }, &mut response);
    Ok(response.json(schemas::rest::TunnelUpdated {
        id: shown.id,
        name: shown.name,
        status: shown.status,
        metadata: shown.metadata,
    }))
}

/// `DELETE /v1/tunnels/:id`: its connections and shares end with it.
pub async fn delete(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let command = Command::Delete { reason: DeleteReason::Requested };
    let done = ports.executor.tunnel_at(id, caller.who(), expected, command).await?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

/// `POST /v1/tunnels/:id/connect`: the reaching agent listens on a local port.
pub async fn connect(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<ConnectTunnel>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let details = entry.state.open().ok_or_else(|| ApiError::not_found("tunnel", id))?;
    let created = &details.created;
    let port = match body.value.local_port {
        None => created.target.port,
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| ApiError::field("localPort", "must be from 1 to 65535"))?,
    };
    let (agent_id, _) = agents::find(&ports, &caller, &body.value.agent_id)?;
    if details.paused {
        return Err(ApiError::unavailable(
            "tunnel_paused",
            "The tunnel is paused; set its status to active first.",
        ));
    }
    // The agent answers a port that leads there already as it answers a new one; the key only must not have been another
    // request's.
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let name = created.name.to_string();
    let protocol = created.protocol;
    let outcome = ports.gateway.open_port(agent_id, id, protocol, name, port, PORT_PATIENCE).await;
    let local_port = match outcome {
        Ok(PortOutcome::Listening(port)) => port,
        Ok(PortOutcome::Taken) => {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "local_port_taken",
                format!("Port {port} is in use on the reaching agent's machine; send another `localPort`."),
            ));
        }
        Ok(PortOutcome::Failed(words)) => {
            return Err(ApiError::new(StatusCode::BAD_GATEWAY, "local_port_failed", words));
        }
        Err(error) => return Err(not_asked(&error, "reaching")),
    };
    let warning = match &details.condition {
        Condition::Failed(Outage::TargetUnreachable(words) | Outage::TargetRefused(words)) => {
            Some(format!("The tunnel's target does not answer now: {words}"))
        }
        Condition::Failed(Outage::AgentDisconnected) | Condition::Connecting => {
            Some("The exposing agent is not connected now.".to_owned())
        }
        Condition::Connected(_) => None,
    };
    Ok(HttpResponse::Ok().json(Connected {
        success: true,
        tunnel: ConnectedTunnel {
            id: id.to_string(),
            name: created.name.to_string(),
            target_host: created.target.host.clone(),
            target_port: created.target.port,
            local_port,
            tunnel_port: created.tunnel_port,
        },
        connection_string: connection_string(created.protocol, created.target.port, local_port, None),
        message: format!("Tunnel active on port {}", created.tunnel_port),
        warning,
    }))
}

/// An agent that could not be asked, as an answer.
pub fn not_asked(error: &AskError, which: &str) -> ApiError {
    match error {
        AskError::AgentOffline => ApiError::unavailable(
            "agent_offline",
            format!("The {which} agent is not connected; start it there with `connect up`."),
        ),
        AskError::Timeout => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "agent_timeout",
            format!("The {which} agent did not answer in time."),
        ),
        AskError::Busy => {
            ApiError::unavailable("agent_busy", format!("The {which} agent has too many questions."))
        }
        AskError::Unreadable => ApiError::new(
            StatusCode::BAD_GATEWAY,
            "agent_failed",
            format!("The {which} agent answered nonsense."),
        ),
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::AgentUnknown(id) => Self::not_found("agent", id),
            CreateError::TunnelUnknown(id) => Self::not_found("tunnel", id),
            CreateError::NameTaken(name) => Self::new(
                StatusCode::CONFLICT,
                "tunnel_name_taken",
                format!(
                    "A tunnel named `{name}` exists in this workspace; choose another name or delete that one."
                ),
            ),
            CreateError::NamesExhausted => Self::new(
                StatusCode::CONFLICT,
                "tunnel_names_exhausted",
                "No automatic name is left; send a `name`.",
            ),
            CreateError::PortsExhausted => Self::unavailable(
                "tunnel_ports_exhausted",
                "No tunnel port is left; delete tunnels or widen the range (HUB_TUNNEL_PORTS).",
            ),
            CreateError::SlugTaken(slug) => Self::new(
                StatusCode::CONFLICT,
                "subdomain_taken",
                format!("The subdomain `{slug}` is taken; choose another."),
            ),
            CreateError::SlugQuarantined(until) => Self::new(
                StatusCode::CONFLICT,
                "subdomain_quarantined",
                format!("The subdomain was in use before; it is free again on {until}."),
            ),
            CreateError::NotShareable(protocol) => Self::new(
                StatusCode::BAD_REQUEST,
                "not_shareable",
                format!(
                    "A {} tunnel cannot be shared by link; teammates use `connect reach`.",
                    protocol.name()
                ),
            ),
            CreateError::Claim(ExecuteError::Rejected(rejection)) => rejection.to_api(),
            CreateError::Claim(error) => error.into(),
            CreateError::Tunnel(error) => error.into(),
            CreateError::Share(error) => error.into(),
        }
    }
}

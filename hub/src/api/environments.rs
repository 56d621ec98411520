//! Environment shares: what one agent exposes, handed to teammates by a code; and who the teammates are.
//!
//! Whoever has the code may look and join. What there is, who waits, and the end are the owner's: the key that shared it,
//! or an admin key of the workspace. Every URL with a code counts wrong ones.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::StatusCode, web};
use domain::{
    environment::{Command, DAYS_MAX, Environment, EnvironmentShared, Joining, RevokeReason, Route},
    ids::{AgentId, EnvironmentId},
    policy::expiry::Lifetime,
    target::connection_string,
    workspace::Scope,
};
use projections::routes::Entry;
use schemas::rest::{
    Success,
    environments::{
        CreateEnvironment, Decided, EnvironmentCreated, EnvironmentJoined, EnvironmentRoute,
        EnvironmentShare, JoinedAgent, Joiner, OpenedRoute, Teammate,
    },
};
use uuid::Uuid;

use super::{Ports, agents, body::Body, caller::Caller, error::ApiError, idempotency, lists, tunnels};
use crate::environments::{Join, NewEnvironment, NotFound, OpenRoute, ShareError};

type Found = (EnvironmentId, Arc<Entry<Environment>>);

/// `POST /v1/env-shares`.
pub async fn create(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<CreateEnvironment>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let asked = &body.value;
    // What the fields say is checked before an idempotency key is spent on it.
    let name = asked.name.as_deref().map(tunnels::name).transpose()?;
    let lifetime = match &asked.expires_in {
        None => Lifetime::DEFAULT,
        Some(text) => {
            Lifetime::parse_within(text, DAYS_MAX).map_err(|error| ApiError::field("expiresIn", error))?
        }
    };
    let (agent_id, _) = agents::find(&ports, &caller, &asked.agent_id)?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
    let expires_at = lifetime.ends_at(now).ok_or_else(|| ApiError::internal("a life without an end"))?;
    let require_approval = asked.require_approval.unwrap_or(false);
    let new = NewEnvironment { agent_id, name, expires_at, require_approval };
    let (id, done) = ports.environments.share(&caller.who(), &seed, new).await?;
    let gone = || ApiError::not_found("environment share", "of this request");
    let entry = ports.routes.environment(id).ok_or_else(gone)?;
    let shared = entry.state.shared.as_ref().ok_or_else(gone)?;
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(EnvironmentCreated {
        code: ports.environments.code_of(shared),
        name: shared.name.as_ref().map(ToString::to_string),
        expires_at: shared.expires_at.to_string(),
        require_approval: shared.require_approval,
        routes: shared.routes.iter().map(route).collect(),
    }))
}

/// `GET /v1/env-shares`: the caller's living ones; an admin key sees everybody's.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    let now = ports.clock.now();
    let living = ports.routes.environments_of(caller.workspace).into_iter().filter_map(|id| {
        let entry = ports.routes.environment(id)?;
        let shared = entry.state.living(now).filter(|shared| is_owner(&caller, shared))?;
        Some((id, show(&ports, &entry, shared)))
    });
    let (shown, next) = page.cut(living)?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}

/// The share of the code that somebody typed, and counts a wrong one.
fn find(ports: &Ports, caller: &Caller, request: &HttpRequest, code: &str) -> Result<Found, ApiError> {
    let address = ports.peer_of(request).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let name = match caller.key_id() {
        Some(id) => id.to_string(),
        None => format!("{:?}", caller.who().actor),
    };
    ports.environments.find(caller.workspace, &name, address, code).map_err(|error| match error {
        // The code is not repeated: a typing mistake may be one character away from a right one.
        NotFound::Unknown => ApiError::new(
            StatusCode::NOT_FOUND,
            "environment_not_found",
            "No environment share of this workspace has this code; it may be over. Ask for a new one.",
        ),
        NotFound::LockedOut(locked) => {
            let wait_ms = locked.until.millis() - ports.clock.now().millis();
            let seconds = u64::try_from(wait_ms).unwrap_or(0).div_ceil(1_000).max(1);
            let words = format!("Too many wrong codes; try again in {seconds} s.");
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_wrong_codes", words);
            ApiError { retry_after: Some(seconds), ..error }
        }
    })
}

fn shared_of(found: &Found) -> Result<&EnvironmentShared, ApiError> {
    found.1.state.shared.as_ref().ok_or_else(|| ApiError::internal("a share that was found was never shared"))
}

fn is_owner(caller: &Caller, shared: &EnvironmentShared) -> bool {
    shared.owner == caller.who().actor || caller.require(Scope::Admin).is_ok()
}

/// Goes on only for whoever decides about a share.
fn owned<'a>(caller: &Caller, found: &'a Found) -> Result<&'a EnvironmentShared, ApiError> {
    let shared = shared_of(found)?;
    if is_owner(caller, shared) {
        return Ok(shared);
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "not_the_owner",
        "Only the key that shared this environment, or an admin key, decides about it.",
    ))
}

/// `GET /v1/env-shares/:code`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let found = find(&ports, &caller, &request, &code)?;
    let shown = show(&ports, &found.1, shared_of(&found)?);
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(found.1.revision))).json(shown))
}

/// `POST /v1/env-shares/:code/join`: 200 with the routes once the agent listens, 202 while the owner has to approve.
pub async fn join(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
    body: Body<Joiner>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let found = find(&ports, &caller, &request, &code)?;
    let (agent_id, _) = agents::find(&ports, &caller, &body.value.agent_id)?;
    let shared = shared_of(&found)?;
    ports.environments.ready(agent_id).map_err(|error| tunnels::not_asked(&error, "joining"))?;
    // Joining again is answered as the first time; a key that was used for something else is refused all the same.
    idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let joined = ports.environments.join(&caller.who(), found.0, agent_id).await?;
    let (status, word, routes) = match joined {
        Join::Pending => (StatusCode::ACCEPTED, "pending", None),
        Join::Joined(routes) => (StatusCode::OK, "joined", Some(routes.iter().map(opened).collect())),
    };
    let mut response = HttpResponse::build(status);
    etag_now(&ports, found.0, &mut response);
    Ok(response.json(EnvironmentJoined {
        status: word.to_owned(),
        code: ports.environments.code_of(shared),
        name: shared.name.as_ref().map(ToString::to_string),
        expires_at: shared.expires_at.to_string(),
        routes,
    }))
}

fn etag_now(ports: &Ports, id: EnvironmentId, response: &mut HttpResponseBuilder) {
    if let Some(entry) = ports.routes.environment(id) {
        response.insert_header(("etag", lists::etag(entry.revision)));
    }
}

/// `GET /v1/env-shares/:code/pending`: who waits for approval.
pub async fn pending(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    let found = find(&ports, &caller, &request, &code)?;
    owned(&caller, &found)?;
    let joiners = found.1.state.joiners.iter();
    let waiting =
        joiners.filter(|(_, joining)| **joining == Joining::Asked).map(|(id, _)| (*id, agent(&ports, *id)));
    let (shown, next) = page.cut(waiting)?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}

/// `POST /v1/env-shares/:code/approve`.
pub async fn approve(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
    body: Body<Joiner>,
) -> Result<HttpResponse, ApiError> {
    decide(&ports, &caller, &request, &code, &body, Verdict::Approved).await
}

/// `POST /v1/env-shares/:code/deny`.
pub async fn deny(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
    body: Body<Joiner>,
) -> Result<HttpResponse, ApiError> {
    decide(&ports, &caller, &request, &code, &body, Verdict::Denied).await
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Approved,
    Denied,
}

/// Of several decisions about one request the first counts, and the others are told so with 409.
async fn decide(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    code: &str,
    body: &Body<Joiner>,
    verdict: Verdict,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let found = find(ports, caller, request, code)?;
    owned(caller, &found)?;
    let (agent_id, _) = agents::find(ports, caller, &body.value.agent_id)?;
    let seed = idempotency::seed(ports, caller, request, &body.bytes).await?;
    let decision = Uuid::from_bytes(*seed.bytes("decision").first_chunk().expect("32 bytes"));
    let now = ports.clock.now();
    let (command, word) = match verdict {
        Verdict::Approved => (Command::Approve { agent_id, decision, now }, "approved"),
        Verdict::Denied => (Command::Deny { agent_id, decision, now }, "denied"),
    };
    let done = ports.executor.environment(found.0, caller.who(), command).await?;
    let mut response = HttpResponse::Ok();
    lists::written(ports, caller, done, &mut response);
    Ok(response.json(Decided { success: true, agent_id: agent_id.to_string(), status: word.to_owned() }))
}

/// `DELETE /v1/env-shares/:code`: nobody joins any more, and joined routes close.
pub async fn revoke(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    code: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let found = find(&ports, &caller, &request, &code)?;
    owned(&caller, &found)?;
    let expected = lists::if_match(&request, found.1.revision)?;
    let command = Command::Revoke { reason: RevokeReason::Requested };
    let done = ports.executor.environment_at(found.0, caller.who(), expected, command).await?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

/// `GET /v1/teammates`: for `connect clone --list`.
pub async fn teammates(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    lists::see_own_writes(&ports, &caller, &request).await;
    let found = lists::view(ports.catalog.teammates(caller.workspace, ports.clock.now(), page.of_view()))?;
    let shown: Vec<Teammate> = found
        .rows
        .into_iter()
        .map(|row| Teammate {
            name: row.name,
            agent_ids: row.agents.iter().map(ToString::to_string).collect(),
            service_count: row.services,
        })
        .collect();
    Ok(lists::answer(&request, &shown, found.next.as_deref()))
}

fn show(ports: &Ports, entry: &Entry<Environment>, shared: &EnvironmentShared) -> EnvironmentShare {
    let waiting = entry.state.joiners.values().filter(|joining| **joining == Joining::Asked).count();
    EnvironmentShare {
        code: ports.environments.code_of(shared),
        name: shared.name.as_ref().map(ToString::to_string),
        agent_id: shared.agent_id.to_string(),
        created_at: entry.created_at.to_string(),
        expires_at: shared.expires_at.to_string(),
        require_approval: shared.require_approval,
        routes: shared.routes.iter().map(route).collect(),
        joined: entry.state.joined().map(|(id, _)| agent(ports, id)).collect(),
        pending_count: u64::try_from(waiting).unwrap_or(u64::MAX),
    }
}

fn agent(ports: &Ports, id: AgentId) -> JoinedAgent {
    let entry = ports.routes.agent(id);
    let registered = entry.as_ref().and_then(|entry| entry.state.registered.as_ref());
    JoinedAgent {
        agent_id: id.to_string(),
        name: registered.map(|agent| agent.name.to_string()).unwrap_or_default(),
        label: registered.map(|agent| agent.label.to_string()).unwrap_or_default(),
    }
}

fn route(route: &Route) -> EnvironmentRoute {
    EnvironmentRoute {
        name: route.name.to_string(),
        tunnel_id: route.tunnel_id.to_string(),
        target_host: route.target.host.clone(),
        target_port: route.target.port,
        protocol: route.protocol.name().to_owned(),
    }
}

fn opened(open: &OpenRoute) -> OpenedRoute {
    let EnvironmentRoute { name, tunnel_id, target_host, target_port, protocol } = route(&open.route);
    let local_port = open.local_port.as_ref().ok().copied();
    OpenedRoute {
        name,
        tunnel_id,
        target_host,
        target_port,
        protocol,
        local_port,
        connection_string: local_port
            .map(|port| connection_string(open.route.protocol, target_port, port, None)),
        problem: open.local_port.as_ref().err().cloned(),
    }
}

impl From<ShareError> for ApiError {
    fn from(error: ShareError) -> Self {
        match error {
            ShareError::TooMany => Self::new(
                StatusCode::CONFLICT,
                "environments_exhausted",
                "This workspace has as many environment shares as it may; revoke one first.",
            ),
            ShareError::NoCode => Self::unavailable("no_code_left", "No free code was found; try again."),
            ShareError::Claim(error) => error.into(),
            ShareError::Environment(error) => error.into(),
        }
    }
}

//! Agents: register, provision, list, look, delete.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{
    agent::{AgentRegistered, ClientType, Command, TOKEN_LIFE_MS, Takeover, Token},
    ids::AgentId,
    names::Name,
    workspace::Scope,
};
use schemas::rest::{AgentCredentials, ProvisionAgent, RegisterAgent, Success};

use super::{
    Ports,
    body::Body,
    caller::{By, Caller},
    error::ApiError,
    history, idempotency, lists, present,
};
use crate::{
    actors::Done,
    secrets::{SecretKind, Seed},
};

/// A provisioned agent's life unless it is asked for another (seconds).
const PROVISION_SECONDS: i64 = 7_200;

/// `POST /v1/agents/register`: 201 for a new agent, 200 for a known one with a new token.
///
/// An `agentId` that another workspace has is a 404, where one that nobody has is a new agent: so somebody who knows an
/// id learns that it is in use, and nothing else. An agent's id is the name of its stream, and of all that refers to it,
/// for the whole hub; it cannot be two agents. Ids that the hub or `connect` makes are random in 74 bits or more, so
/// nobody comes to know one by trying; whoever thinks up ids of their own decides how well they are hidden.
pub async fn register(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<RegisterAgent>,
) -> Result<HttpResponse, ApiError> {
    caller.require_key(Scope::Agent)?;
    let asked = match &body.value.agent_id {
        None => None,
        Some(text) => Some(
            text.parse::<AgentId>()
                .map_err(|_| ApiError::field("agentId", "must be a UUID in lower case"))?,
        ),
    };
    // Who registers again without a label keeps the one it has.
    let known = asked.and_then(|id| ports.routes.agent(id)).and_then(|entry| {
        let registered = entry.state.registered.as_ref()?;
        (registered.workspace_id == caller.workspace)
            .then(|| (registered.label.clone(), registered.name.clone()))
    });
    let (label, name) = (body.value.label.as_deref(), body.value.name.as_deref());
    let names = match known {
        Some((known_label, known_name)) => names(
            Some(label.unwrap_or(known_label.as_str())),
            Some(name.or(label).unwrap_or(known_name.as_str())),
        )?,
        None => names(label, name)?,
    };
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let issue = Issue { id: asked, names, client_type: None, life_ms: TOKEN_LIFE_MS };
    let (credentials, created, done) = issue.carry_out(&ports, &caller, &seed).await?;
    let mut response = HttpResponse::build(if created { StatusCode::CREATED } else { StatusCode::OK });
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(credentials))
}

/// `POST /v1/agents/provision`: a short-lived agent that ends with its token.
pub async fn provision(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<ProvisionAgent>,
) -> Result<HttpResponse, ApiError> {
    caller.require_key(Scope::Agent)?;
    let seconds = body.value.ttl_seconds.unwrap_or(PROVISION_SECONDS);
    if !(300..=86_400).contains(&seconds) {
        return Err(ApiError::field("ttlSeconds", "must be from 300 to 86400"));
    }
    let client_type: ClientType =
        serde_json::from_value(body.value.client_type.clone().into()).map_err(|_| {
            ApiError::field(
                "clientType",
                "must be one of cursor, claude-code, codex, devin, github-actions, cli, sdk, other",
            )
        })?;
    let names = names(body.value.label.as_deref(), body.value.name.as_deref())?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let life_ms = seconds * 1_000;
    let issue = Issue { id: None, names, client_type: Some(client_type), life_ms };
    let (mut credentials, _, done) = issue.carry_out(&ports, &caller, &seed).await?;
    let workspace = ports.routes.workspace(caller.workspace);
    credentials.workspace_name =
        workspace.and_then(|entry| entry.state.created.as_ref().map(|created| created.name.to_string()));
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(credentials))
}

fn names(label: Option<&str>, name: Option<&str>) -> Result<(Name, Name), ApiError> {
    let label = Name::parse(label.unwrap_or("agent")).map_err(|error| ApiError::field("label", error))?;
    let name = match name {
        None => label.clone(),
        Some(name) => Name::parse(name).map_err(|error| ApiError::field("name", error))?,
    };
    Ok((label, name))
}

struct Issue {
    id: Option<AgentId>,
    names: (Name, Name),
    client_type: Option<ClientType>,
    life_ms: i64,
}

impl Issue {
    async fn carry_out(
        self,
        ports: &Ports,
        caller: &Caller,
        seed: &Seed,
    ) -> Result<(AgentCredentials, bool, Done), ApiError> {
        let now = seed.first_seen().unwrap_or_else(|| ports.clock.now());
        let id = self.id.unwrap_or_else(|| AgentId::new(seed.uuid(now, "agent")));
        // A repetition of what made the agent is answered as that was.
        let created = self.id.is_none() || ports.routes.agent(id).is_none();
        let takeover = match caller.require(Scope::Write) {
            Ok(()) => Takeover::Any,
            Err(_) => Takeover::OwnKey,
        };
        let token = seed.secret(SecretKind::AgentToken, "token");
        let expires_at = now.plus_ms(self.life_ms);
        let agent = AgentRegistered {
            agent_id: id,
            workspace_id: caller.workspace,
            label: self.names.0,
            name: self.names.1,
            client_type: self.client_type,
            ephemeral: self.client_type.is_some(),
            token: Token { token_hash: token.digest_hex(), expires_at, key_id: caller.key_id() },
        };
        let done = ports.executor.agent(id, caller.who(), Command::Register { agent, now, takeover }).await?;
        let credentials = AgentCredentials {
            agent_id: id.to_string(),
            token: token.reveal().to_owned(),
            expires_at: expires_at.to_string(),
            workspace_id: caller.workspace.to_string(),
            workspace_name: None,
        };
        Ok((credentials, created, done))
    }
}

/// `GET /v1/agents`.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    lists::see_own_writes(&ports, &caller, &request).await;
    let found = lists::view(ports.catalog.agents(caller.workspace, page.of_view()))?;
    let entries = found.rows.iter().filter_map(|row| Some((row.id, ports.routes.agent(row.id)?)));
    let shown: Vec<_> = entries.filter_map(|(id, entry)| present::agent(&ports, id, &entry)).collect();
    Ok(lists::answer(&request, &shown, found.next.as_deref()))
}

/// `GET /v1/agents/online`.
pub async fn online(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let page = lists::page(&lists::parameters(&request, &["limit", "cursor"])?)?;
    let online = ports.gateway.online().into_iter().filter(|online| online.workspace == caller.workspace);
    let mut ids: Vec<_> = online.map(|online| online.agent).collect();
    ids.sort_unstable();
    let entries = ids.into_iter().filter_map(|id| Some((id, ports.routes.agent(id)?)));
    let shown = entries.filter_map(|(id, entry)| Some((id, present::agent(&ports, id, &entry)?)));
    let (shown, next) = page.cut(shown)?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}

/// The caller's agent of that id; another workspace's does not exist.
pub fn find(
    ports: &Ports,
    caller: &Caller,
    text: &str,
) -> Result<(AgentId, std::sync::Arc<projections::routes::Entry<domain::agent::Agent>>), ApiError> {
    let missing = || ApiError::not_found("agent", text);
    let id: AgentId = text.parse().map_err(|_| missing())?;
    let entry = ports.routes.agent(id).ok_or_else(missing)?;
    let here = entry.state.registered.as_ref().is_some_and(|agent| agent.workspace_id == caller.workspace);
    if here && !entry.state.deleted { Ok((id, entry)) } else { Err(missing()) }
}

/// The agent in whose name a caller may speak: itself by its token, any agent of the workspace for a key that may change
/// agents, and for a key that only runs them those that were registered with it.
///
/// # Errors
/// 404 for an agent that is not in the caller's workspace, 403 for one that is somebody else's.
pub fn speaks_for(
    ports: &Ports,
    caller: &Caller,
    text: &str,
) -> Result<(AgentId, std::sync::Arc<projections::routes::Entry<domain::agent::Agent>>), ApiError> {
    caller.require(Scope::Agent)?;
    let (id, entry) = find(ports, caller, text)?;
    let is_own = match &caller.by {
        By::Agent(own) => *own == id,
        By::Key { id: key, .. } => {
            caller.require(Scope::Write).is_ok()
                || entry.state.tokens.last().is_some_and(|token| token.key_id == Some(*key))
        }
    };
    if is_own {
        return Ok((id, entry));
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "agent_not_yours",
        "Only this agent, the key that registered it, or a key with the scope `write` may do that.",
    ))
}

/// The agent that a caller may look at: with a key that reads, or its own.
///
/// # Errors
/// 403 without the scope, 404 as [`find`].
pub fn look_at(
    ports: &Ports,
    caller: &Caller,
    text: &str,
) -> Result<(AgentId, std::sync::Arc<projections::routes::Entry<domain::agent::Agent>>), ApiError> {
    match caller.require(Scope::Read) {
        Ok(()) => find(ports, caller, text),
        Err(missing) => {
            caller.require(Scope::Agent).map_err(|_| missing)?;
            speaks_for(ports, caller, text)
        }
    }
}

/// `GET /v1/agents/:id`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    if let Some(at) = history::asked(&request)? {
        return history::agent(&ports, &caller, &id, &at).await;
    }
    let (id, entry) = find(&ports, &caller, &id)?;
    let shown = present::agent(&ports, id, &entry);
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(entry.revision))).json(shown))
}

/// `DELETE /v1/agents/:id`: its session and tunnels end with it.
pub async fn delete(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, entry) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, entry.revision)?;
    let done = ports.executor.agent_at(id, caller.who(), expected, Command::Delete).await?;
    ports.last_seen.remove(&id);
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

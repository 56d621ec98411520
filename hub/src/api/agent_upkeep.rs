//! What keeps an agent going: a new token in time, and signs of life.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{
    agent::{Command, TOKEN_LIFE_MS, Token},
    ids::AgentId,
    time::Timestamp,
};
use schemas::rest::{AgentCredentials, Heartbeat, HeartbeatAnswer, RotateToken};

use super::{
    Ports, agents,
    body::Body,
    caller::{By, Caller, request_id},
    error::ApiError,
    idempotency, limit, lists, url,
};
use crate::secrets::{SecretKind, hex, sha256};

/// A token that ends within this time is to be rotated: long enough for a laptop's holidays (milliseconds).
const ROTATE_BEFORE_MS: i64 = 10 * 86_400_000;

/// `POST /v1/agents/rotate-token`: the current token in the body is the credential. Repeated with the same
/// `Idempotency-Key` while the old token is good, it gives the same new one.
pub async fn rotate_token(
    ports: web::Data<Ports>,
    request: HttpRequest,
    body: Body<RotateToken>,
) -> Result<HttpResponse, ApiError> {
    url::check_query(&request)?;
    let asked: AgentId = body
        .value
        .agent_id
        .parse()
        .map_err(|_| ApiError::field("agentId", "must be a UUID in lower case"))?;
    let now = ports.clock.now();
    let digest = sha256(body.value.current_token.as_bytes());
    let found = ports.routes.agent_by_token(&digest, now).filter(|(id, _)| *id == asked);
    let Some((id, entry)) = found else {
        // A guess, as any other.
        limit::count_public(&ports, &request)?;
        return Err(invalid_token());
    };
    limit::count_caller(&ports, &request, id.uuid())?;
    let workspace = entry.state.registered.as_ref().ok_or_else(invalid_token)?.workspace_id;
    let caller = Caller { workspace, by: By::Agent(id), request: request_id(&request) };
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let secret = seed.secret(SecretKind::AgentToken, "token");
    let issued_at = seed.first_seen().unwrap_or(now);
    let current_hash = hex(&digest);
    // The key behind it and the end of a short-lived agent are the aggregate's to decide.
    let token =
        Token { token_hash: secret.digest_hex(), expires_at: issued_at.plus_ms(TOKEN_LIFE_MS), key_id: None };
    let command = Command::RotateToken { current_hash: current_hash.clone(), token, now };
    let done = ports.executor.agent(id, caller.who(), command).await?;
    ports.gateway.token_rotated(id, &current_hash, &secret.digest_hex());
    let expires_at = newest_end(&ports, id).ok_or_else(invalid_token)?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(AgentCredentials {
        agent_id: id.to_string(),
        token: secret.reveal().to_owned(),
        expires_at: expires_at.to_string(),
        workspace_id: workspace.to_string(),
        workspace_name: None,
    }))
}

fn invalid_token() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "invalid_agent_token",
        "This is not the agent's current token. Register the agent again with a key.",
    )
}

fn newest_end(ports: &Ports, id: AgentId) -> Option<Timestamp> {
    ports.routes.agent(id)?.state.tokens.last().map(|token| token.expires_at)
}

/// `POST /v1/agents/heartbeat`: the agent is seen, and told what it should know.
pub async fn heartbeat(
    ports: web::Data<Ports>,
    caller: Caller,
    body: Body<Heartbeat>,
) -> Result<HttpResponse, ApiError> {
    let (id, entry) = agents::speaks_for(&ports, &caller, &body.value.agent_id)?;
    let now = ports.clock.now();
    ports.last_seen.insert(id, now);
    let messages = ports.routes.messages_of(id);
    let unread = messages.iter().filter(|(_, entry)| !entry.state.read && entry.state.kept(now).is_some());
    let token_ends = entry.state.tokens.last().map(|token| token.expires_at);
    // What is provisioned ends with its token, whichever it has.
    let may_rotate = entry.state.registered.as_ref().is_some_and(|registered| !registered.ephemeral);
    Ok(HttpResponse::Ok().json(HeartbeatAnswer {
        success: true,
        agent_id: id.to_string(),
        status: if ports.gateway.is_connected(id) { "online" } else { "offline" }.to_owned(),
        server_time: now.to_string(),
        token_expires_at: token_ends.map(|at| at.to_string()),
        rotate_token: may_rotate && token_ends.is_some_and(|at| at <= now.plus_ms(ROTATE_BEFORE_MS)),
        pending_commands: ports.routes.pending_commands(id).len() as u64,
        unread_messages: unread.count() as u64,
    }))
}

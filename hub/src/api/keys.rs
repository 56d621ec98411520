//! API keys, and who one is.

use std::collections::BTreeSet;

use actix_web::{HttpRequest, HttpResponse, web};
use domain::{
    ids::KeyId,
    names::Name,
    policy::expiry::Lifetime,
    time::Timestamp,
    workspace::{Command, KeyCreated, Scope},
};
use ipnet::IpNet;
use schemas::rest::{CreateKey, Success, WhoAmI, Workspace};

use super::{
    Ports,
    body::Body,
    caller::{By, Caller},
    error::ApiError,
    idempotency, lists, present,
};
use crate::{running::Under, secrets::SecretKind};

/// `POST /v1/api-keys`: the secret is in this answer and nowhere else.
pub async fn create(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    body: Body<CreateKey>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Admin)?;
    let now = ports.clock.now();
    // What the fields say is checked before an idempotency key is spent on it.
    checked(&body.value, now)?;
    let seed = idempotency::seed(&ports, &caller, &request, &body.bytes).await?;
    let secret = seed.secret(SecretKind::ApiKey, "key");
    let first_seen = seed.first_seen().unwrap_or(now);
    let Checked { name, scopes, ranges, expires_at } = checked(&body.value, first_seen)?;
    let key = KeyCreated {
        key_id: KeyId::new(seed.uuid(first_seen, "key-id")),
        name,
        scopes,
        key_hash: secret.digest_hex(),
        prefix: secret.preview(),
        allowed_ip_ranges: ranges,
        expires_at,
    };
    let command = Command::CreateKey { key: key.clone(), now: first_seen };
    let done = ports.executor.workspace(caller.workspace, caller.who(), command).await?;
    let state = domain::workspace::Key { created: key, revoked: false };
    let mut shown = present::key(&ports, &state, None);
    shown.key = Some(secret.reveal().to_owned());
    let mut response = HttpResponse::Created();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(shown))
}

/// What a key may be, from the fields of the request.
struct Checked {
    name: Name,
    scopes: Vec<Scope>,
    ranges: Vec<IpNet>,
    expires_at: Option<Timestamp>,
}

fn checked(body: &CreateKey, now: Timestamp) -> Result<Checked, ApiError> {
    let scopes: BTreeSet<Scope> = match &body.scopes {
        // The least that is of use: whoever wants more names it.
        None => BTreeSet::from([Scope::Read]),
        Some(names) => names.iter().map(|name| scope(name)).collect::<Result<_, _>>()?,
    };
    if scopes.is_empty() {
        return Err(ApiError::field("scopes", "must name at least one scope"));
    }
    let ranges =
        body.allowed_ip_ranges.iter().flatten().map(|text| ip_range(text)).collect::<Result<_, _>>()?;
    let expires_at = match &body.expires_in {
        None => None,
        Some(text) => {
            Lifetime::parse(text).map_err(|error| ApiError::field("expiresIn", error))?.ends_at(now)
        }
    };
    let name = Name::parse(&body.name).map_err(|error| ApiError::field("name", error))?;
    Ok(Checked { name, scopes: scopes.into_iter().collect(), ranges, expires_at })
}

fn scope(name: &str) -> Result<Scope, ApiError> {
    [Scope::Admin, Scope::Write, Scope::Read, Scope::Agent]
        .into_iter()
        .find(|scope| scope.name() == name)
        .ok_or_else(|| ApiError::field("scopes", "must be of admin, write, read, agent"))
}

fn ip_range(text: &str) -> Result<IpNet, ApiError> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| ApiError::field("allowedIpRanges", "must be addresses or CIDR ranges"))
}

/// `GET /v1/api-keys`: never a secret.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Admin)?;
    let parameters = lists::parameters(&request, &["limit", "cursor"])?;
    let page = lists::page(&parameters)?;
    let workspace =
        ports.routes.workspace(caller.workspace).ok_or_else(|| ApiError::not_found("workspace", ""))?;
    let keys = workspace.state.keys.iter().filter(|(_, key)| !key.revoked);
    let (shown, next) = page.cut(keys.map(|(id, key)| (*id, present::key(&ports, key, None))))?;
    Ok(lists::answer(&request, &shown, next.as_deref()))
}

/// `DELETE /v1/api-keys/:id`: the key stops at once, and what it opened is closed.
pub async fn revoke(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Admin)?;
    let id: KeyId = id.parse().map_err(|_| ApiError::not_found("key", &*id))?;
    // A key is a part of its workspace, and its revision the workspace's.
    let entry = ports.routes.workspace(caller.workspace);
    let entry = entry.filter(|entry| entry.state.keys.get(&id).is_some_and(|key| !key.revoked));
    let entry = entry.ok_or_else(|| ApiError::not_found("key", id))?;
    let expected = lists::if_match(&request, entry.revision)?;
    let command = Command::RevokeKey { key_id: id };
    let done = ports.executor.workspace_at(caller.workspace, caller.who(), expected, command).await?;
    ports.running.end(Under::Key(id));
    ports.gateway.end_by_key(id);
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

/// `GET /v1/whoami`.
pub async fn whoami(ports: web::Data<Ports>, caller: Caller) -> Result<HttpResponse, ApiError> {
    let workspace_name = workspace_name(&ports, &caller);
    let (key_id, key_name, agent_id, scopes) = match &caller.by {
        By::Key { id, name, scopes } => (
            Some(id.to_string()),
            Some(name.clone()),
            None,
            scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        ),
        By::Agent(id) => (None, None, Some(id.to_string()), vec![Scope::Agent.name().to_owned()]),
    };
    let workspace_id = caller.workspace.to_string();
    Ok(HttpResponse::Ok().json(WhoAmI { workspace_id, workspace_name, key_id, key_name, agent_id, scopes }))
}

/// `GET /v1/workspace`.
pub async fn workspace(ports: web::Data<Ports>, caller: Caller) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let entry =
        ports.routes.workspace(caller.workspace).ok_or_else(|| ApiError::not_found("workspace", ""))?;
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(entry.revision))).json(Workspace {
        id: caller.workspace.to_string(),
        name: workspace_name(&ports, &caller),
        created_at: entry.created_at.to_string(),
    }))
}

fn workspace_name(ports: &Ports, caller: &Caller) -> String {
    let entry = ports.routes.workspace(caller.workspace);
    entry
        .and_then(|entry| entry.state.created.as_ref().map(|created| created.name.to_string()))
        .unwrap_or_default()
}

//! Shares: create, list, revoke, and what a visitor may know. Who came is in [`super::access_logs`].

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use domain::{
    access::Denied,
    ids::{ShareId, TunnelId},
    names::{Description, Name},
    policy::{expiry::Lifetime, methods::Method, paths::PathRule, slug},
    share::{Command, RevokeReason, Share},
    time::Timestamp,
    workspace::Scope,
};
use projections::{
    catalog::{ShareFilter, ShareKey, ShareRow},
    routes::Entry,
};
use schemas::rest::{
    CreateShare, ServiceShareCreated, ShareCreated, ShareInfo, ShareInfoService, Shares, Success,
};

use std::sync::Arc;

use super::{
    Ports, access_logs::see_accesses, body::Body, caller::Caller, error::ApiError, history, idempotency,
    limit, lists, present, tunnels, url,
};
use crate::{
    creation::{NewLink, NewShare},
    secrets::sha256,
};

/// `POST /v1/tunnels/:id/share`.
pub async fn create_for_tunnel(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<CreateShare>,
) -> Result<HttpResponse, ApiError> {
    let (mut response, share) = create(&ports, &caller, &request, &id, body).await?;
    Ok(response.json(share))
}

/// `POST /v1/services/:id/shares`: the same, wrapped as the seed shows it.
pub async fn create_for_service(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
    body: Body<CreateShare>,
) -> Result<HttpResponse, ApiError> {
    let (mut response, share) = create(&ports, &caller, &request, &id, body).await?;
    Ok(response.json(ServiceShareCreated { success: true, share }))
}

async fn create(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    id: &str,
    body: Body<CreateShare>,
) -> Result<(actix_web::HttpResponseBuilder, ShareCreated), ApiError> {
    caller.require(Scope::Write)?;
    let (tunnel_id, _) = tunnels::find(ports, caller, id)?;
    // What the fields say is checked before an idempotency key is spent on it.
    into_share(&body.value, tunnel_id, ports.clock.now())?;
    let seed = idempotency::seed(ports, caller, request, &body.bytes).await?;
    let new = into_share(&body.value, tunnel_id, seed.first_seen().unwrap_or_else(|| ports.clock.now()))?;
    let (name, expires_at, chosen) = (new.name.to_string(), new.expires_at, new.subdomain.is_some());
    let NewLink { id: share_id, token, slug, done } = ports.creator.share(&caller.who(), &seed, new).await?;
    let mut response = HttpResponse::Created();
    lists::written(ports, caller, done, &mut response);
    let notice = "A chosen subdomain can be guessed: whoever guesses it can use this share.";
    let created = ShareCreated {
        id: share_id.to_string(),
        token: token.reveal().to_owned(),
        name,
        expires_at: expires_at.map(|at| at.to_string()),
        share_url: ports.links.share(token.reveal()),
        subdomain_url: Some(ports.links.slug(&slug)),
        notice: chosen.then(|| notice.to_owned()),
    };
    Ok((response, created))
}

fn into_share(body: &CreateShare, tunnel_id: TunnelId, now: Timestamp) -> Result<NewShare, ApiError> {
    let lifetime = match &body.expires_in {
        None => Lifetime::DEFAULT,
        Some(text) => Lifetime::parse(text).map_err(|error| ApiError::field("expiresIn", error))?,
    };
    let rate_limit_per_min = match body.rate_limit_per_min {
        None => None,
        Some(limit) => Some(
            u16::try_from(limit)
                .ok()
                .filter(|limit| (1..=1_000).contains(limit))
                .ok_or_else(|| ApiError::field("rateLimitPerMin", "must be 1-1000"))?,
        ),
    };
    if let Some(subdomain) = &body.subdomain {
        slug::check_chosen(subdomain).map_err(|error| ApiError::field("subdomain", error))?;
    }
    Ok(NewShare {
        tunnel_id,
        name: Name::parse(&body.name).map_err(|error| ApiError::field("name", error))?,
        description: match &body.description {
            None => None,
            Some(text) => {
                Some(Description::parse(text).map_err(|error| ApiError::field("description", error))?)
            }
        },
        expires_at: lifetime.ends_at(now),
        allowed_paths: rules(body.allowed_paths.as_deref())?,
        allowed_methods: methods(body.allowed_methods.as_deref())?,
        rate_limit_per_min,
        subdomain: body.subdomain.clone(),
        public: false,
        read_only: body.read_only.unwrap_or(true),
    })
}

fn rules(texts: Option<&[String]>) -> Result<Option<Vec<PathRule>>, ApiError> {
    let parse = |text: &String| PathRule::parse(text).map_err(|error| ApiError::field("allowedPaths", error));
    match texts {
        None => Ok(None),
        Some([]) => {
            Err(ApiError::field("allowedPaths", "must not be empty; leave it out to allow every path"))
        }
        Some(texts) => texts.iter().map(parse).collect::<Result<Vec<_>, _>>().map(Some),
    }
}

fn methods(texts: Option<&[String]>) -> Result<Option<Vec<Method>>, ApiError> {
    let parse =
        |text: &String| text.parse::<Method>().map_err(|error| ApiError::field("allowedMethods", error));
    match texts {
        None => Ok(None),
        Some([]) => {
            Err(ApiError::field("allowedMethods", "must not be empty; leave it out to allow every method"))
        }
        Some(texts) => texts.iter().map(parse).collect::<Result<Vec<_>, _>>().map(Some),
    }
}

/// `GET /v1/services/:id/shares`: ended ones too, newest last.
pub async fn list_of_service(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let (tunnel, _) = tunnels::find(&ports, &caller, &id)?;
    let parameters = lists::parameters(&request, &["limit", "cursor"])?;
    let (shares, next) = page_of(&ports, &caller, &request, &parameters, Some(tunnel), None).await?;
    Ok(lists::answer(&request, &Shares { shares }, next.as_deref()))
}

/// `GET /v1/shares?tunnelId&active`.
pub async fn list(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    let parameters = lists::parameters(&request, &["limit", "cursor", "tunnelId", "active"])?;
    let tunnel = match lists::parameter(&parameters, "tunnelId") {
        None => None,
        Some(text) => Some(tunnels::find(&ports, &caller, text)?.0),
    };
    let active = match lists::parameter(&parameters, "active") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(ApiError::field("active", "must be true or false")),
    };
    let (shares, next) = page_of(&ports, &caller, &request, &parameters, tunnel, active).await?;
    Ok(lists::answer(&request, &Shares { shares }, next.as_deref()))
}

async fn page_of(
    ports: &Ports,
    caller: &Caller,
    request: &HttpRequest,
    parameters: &[(String, String)],
    tunnel: Option<TunnelId>,
    active: Option<bool>,
) -> Result<(Vec<schemas::rest::Share>, Option<String>), ApiError> {
    let page = lists::page(parameters)?;
    lists::see_own_writes(ports, caller, request).await;
    see_accesses(ports).await;
    let now = ports.clock.now();
    let filter = ShareFilter { tunnel, active };
    let found = lists::view(ports.catalog.shares(caller.workspace, filter, now, page.of_view()))?;
    Ok((present::shares(ports, caller.workspace, &found.rows)?, found.next))
}

/// A share of the caller's workspace: in memory, or one that ended long ago as the catalog remembers it.
pub(super) enum Known {
    Here(Arc<Entry<Share>>),
    Former(Box<ShareRow>),
}

impl Known {
    fn revision(&self) -> u64 {
        match self {
            Self::Here(entry) => entry.revision,
            Self::Former(row) => row.revision,
        }
    }
}

/// The caller's share of that id, lately or long ended ones too; another workspace's does not exist.
///
/// # Errors
/// 404.
pub(super) fn find(ports: &Ports, caller: &Caller, text: &str) -> Result<(ShareId, Known), ApiError> {
    let missing = || ApiError::not_found("share", text);
    let id: ShareId = text.parse().map_err(|_| missing())?;
    let Some(entry) = ports.routes.share(id) else {
        let row = lists::view(ports.catalog.share(caller.workspace, id, ports.clock.now()))?;
        return row.map(|row| (id, Known::Former(Box::new(row)))).ok_or_else(missing);
    };
    let here = entry.state.created.as_ref().is_some_and(|created| created.workspace_id == caller.workspace);
    if here { Ok((id, Known::Here(entry))) } else { Err(missing()) }
}

/// `GET /v1/shares/:id`.
pub async fn get(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Read)?;
    if let Some(at) = history::asked(&request)? {
        return history::share(&ports, &caller, &id, &at).await;
    }
    let (id, known) = find(&ports, &caller, &id)?;
    see_accesses(&ports).await;
    let shown = match &known {
        Known::Here(entry) => present::share(&ports, id, entry)?,
        Known::Former(row) => Some(present::former_share(&ports, caller.workspace, row)?),
    };
    Ok(HttpResponse::Ok().insert_header(("etag", lists::etag(known.revision()))).json(shown))
}

/// `DELETE /v1/shares/:id`: the link refuses the next request.
pub async fn revoke(
    ports: web::Data<Ports>,
    caller: Caller,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    caller.require(Scope::Write)?;
    let (id, known) = find(&ports, &caller, &id)?;
    let expected = lists::if_match(&request, known.revision())?;
    let command = Command::Revoke { reason: RevokeReason::Requested };
    let done = ports.executor.share_at(id, caller.who(), expected, command).await?;
    let mut response = HttpResponse::Ok();
    lists::written(&ports, &caller, done, &mut response);
    Ok(response.json(Success { success: true }))
}

/// What a visitor may know of a link: no target. Used by the API's and by the edge's listener.
///
/// # Errors
/// 404 for an unknown token, 403 for an ended share, 429 when too many unknown tokens are tried.
pub async fn info_of(ports: &Ports, token: &str) -> Result<ShareInfo, ApiError> {
    let unknown = || ApiError::new(StatusCode::NOT_FOUND, "share_not_found", "No such link.");
    // A paused tunnel or an absent agent does not change what the link is.
    let over = |denied: Denied| {
        let said = |code, words: &'static str| Some(ApiError::new(StatusCode::FORBIDDEN, code, words));
        if denied == Denied::ShareExpired {
            return said("share_expired", "This link has expired.");
        }
        let is_over = matches!(denied, Denied::ShareRevoked | Denied::TunnelGone);
        if is_over { said("share_revoked", "This link was revoked.") } else { None }
    };
    let digest = sha256(token.as_bytes());
    let Some((_, entry)) = ports.routes.share_by_token(&digest) else {
        // Whoever guesses tokens here shares the limit of those who guess at the edge.
        limit::count_unknown(ports)?;
        let former = (ports.former)(ShareKey::Token(digest)).await;
        return Err(former.and_then(|former| over(former.denied)).unwrap_or_else(unknown));
    };
    let created = entry.state.created.as_ref().ok_or_else(unknown)?;
    if let Some(error) = ports.routes.gate(&entry.state, ports.clock.now()).err().and_then(over) {
        return Err(error);
    }
    let tunnel = ports.routes.tunnel(created.tunnel_id).ok_or_else(unknown)?;
    let details = tunnel.state.open().ok_or_else(unknown)?;
    let workspace = ports.routes.workspace(created.workspace_id);
    Ok(ShareInfo {
        name: created.name.to_string(),
        description: created.description.as_ref().map(|text| text.as_str().to_owned()),
        expires_at: created.expires_at.map(|at| at.to_string()),
        workspace_name: workspace
            .and_then(|entry| entry.state.created.as_ref().map(|created| created.name.to_string()))
            .unwrap_or_default(),
        service: ShareInfoService {
            name: details.created.name.to_string(),
            protocol: details.created.protocol.name().to_owned(),
        },
    })
}

/// `GET /v1/shared/:token/info`, without credentials.
pub async fn info(
    ports: web::Data<Ports>,
    request: HttpRequest,
    token: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    limit::count_public(&ports, &request)?;
    url::check_query(&request)?;
    Ok(HttpResponse::Ok().json(info_of(&ports, &token).await?))
}

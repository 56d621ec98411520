//! Who is asking: the only place that knows credentials.

use std::net::IpAddr;

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, dev::Payload, http::StatusCode, http::header, web,
};
use domain::{
    ids::{AgentId, KeyId, RequestId, WorkspaceId},
    recorded::Actor,
    workspace::Scope,
};

use super::{Ports, error::ApiError, limit, url};
use crate::{
    actors::Who,
    secrets::{SecretKind, sha256},
};

/// By what the caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    Key {
        id: KeyId,
        name: String,
        scopes: Vec<Scope>,
    },
    /// An agent with its own token: it may look after itself and its tunnels.
    Agent(AgentId),
}

/// Somebody with valid credentials, in one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub workspace: WorkspaceId,
    pub by: By,
    pub request: RequestId,
}

impl Caller {
    /// Goes on only with a permission.
    ///
    /// # Errors
    /// 403 naming the missing scope.
    pub fn require(&self, needed: Scope) -> Result<(), ApiError> {
        let granted = match &self.by {
            By::Key { scopes, .. } => scopes.iter().any(|scope| scope.grants(needed)),
            By::Agent(_) => needed == Scope::Agent,
        };
        if granted {
            return Ok(());
        }
        Err(scope_missing(needed))
    }

    /// Goes on only with a key that has a permission. An agent's own token makes no agents: they would outlive the key
    /// that it came from, and its own end.
    ///
    /// # Errors
    /// 403.
    pub fn require_key(&self, needed: Scope) -> Result<(), ApiError> {
        match self.by {
            By::Key { .. } => self.require(needed),
            By::Agent(_) => Err(scope_missing(needed)),
        }
    }

    /// The author of what this caller causes.
    pub fn who(&self) -> Who {
        let actor = match &self.by {
            By::Key { id, .. } => Actor::Key(*id),
            By::Agent(id) => Actor::Agent(*id),
        };
        Who { workspace: self.workspace, actor, request: Some(self.request), causation: None }
    }

    pub fn key_id(&self) -> Option<KeyId> {
        match &self.by {
            By::Key { id, .. } => Some(*id),
            By::Agent(_) => None,
        }
    }
}

/// The request's id, made by the first middleware.
pub fn request_id(request: &HttpRequest) -> RequestId {
    request.extensions().get::<RequestId>().copied().unwrap_or_else(|| RequestId::new(uuid::Uuid::nil()))
}

impl FromRequest for Caller {
    type Error = actix_web::Error;
    type Future = std::future::Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(identified(request).map_err(Into::into))
    }
}

/// Counts as well: a caller by its key or agent, a failure by its address, so that guessing is slow. A query parameter
/// that the URL does not know is refused here, once for all routes.
fn identified(request: &HttpRequest) -> Result<Caller, ApiError> {
    let ports = request.app_data::<web::Data<Ports>>().expect("every App of the API carries its ports");
    counted(ports, request, secret_of(request).and_then(|secret| identify(ports, request, secret)))
}

/// Who somebody is who brought a secret otherwise than in a header: in a form. Counts as every other caller.
///
/// # Errors
/// 401, 403 or 429, as for secrets in headers.
pub fn by_secret(ports: &Ports, request: &HttpRequest, secret: &str) -> Result<Caller, ApiError> {
    counted(ports, request, identify(ports, request, secret))
}

fn counted(
    ports: &Ports,
    request: &HttpRequest,
    identified: Result<Caller, ApiError>,
) -> Result<Caller, ApiError> {
    match identified {
        Ok(caller) => {
            let id = match &caller.by {
                By::Key { id, .. } => id.uuid(),
                By::Agent(id) => id.uuid(),
            };
            limit::count_caller(ports, request, id)?;
            url::check_query(request)?;
            Ok(caller)
        }
        Err(error) => limit::count_public(ports, request).and(Err(error)),
    }
}

fn identify(ports: &Ports, request: &HttpRequest, secret: &str) -> Result<Caller, ApiError> {
    let (digest, now, id) = (sha256(secret.as_bytes()), ports.clock.now(), request_id(request));
    if secret.starts_with(SecretKind::AgentToken.prefix()) {
        let (agent_id, agent) = ports.routes.agent_by_token(&digest, now).ok_or_else(invalid)?;
        let workspace = agent.state.registered.as_ref().ok_or_else(invalid)?.workspace_id;
        return Ok(Caller { workspace, by: By::Agent(agent_id), request: id });
    }
    let (workspace, key) = ports.routes.key(&digest, now).ok_or_else(invalid)?;
    let ranges = &key.created.allowed_ip_ranges;
    let peer = ports.peer_of(request);
    if !ranges.is_empty() && !peer.is_some_and(|ip| ranges.iter().any(|range| range.contains(&ip))) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "ip_not_allowed",
            "This key may not be used from this address.",
        ));
    }
    let created = &key.created;
    let by = By::Key { id: created.key_id, name: created.name.to_string(), scopes: created.scopes.clone() };
    ports.key_used(created.key_id, now);
    Ok(Caller { workspace, by, request: id })
}

/// Goes on only with a token that the operator has set for one URL; it is nobody's credentials elsewhere.
///
/// # Errors
/// 401.
pub fn by_operators_token(request: &HttpRequest, token: &str) -> Result<(), ApiError> {
    let words = "Send the operator's token as `Authorization: Bearer`.";
    let missing = || ApiError::new(StatusCode::UNAUTHORIZED, "credentials_missing", words);
    let given = secret_of(request)
        .map_err(|error| if error.code == "credentials_missing" { missing() } else { error })?;
    // Digests: how far a guess is right does not show in the time.
    if sha256(given.as_bytes()) == sha256(token.as_bytes()) { Ok(()) } else { Err(invalid()) }
}

fn secret_of(request: &HttpRequest) -> Result<&str, ApiError> {
    let headers = request.headers();
    // Two different credentials in one request is one credential too many: which of them was meant?
    let key = headers.get("x-api-key").map(|value| value.to_str().unwrap_or_default());
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let value = value.to_str().unwrap_or_default();
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" }
    });
    match (key, bearer) {
        (Some(key), Some(bearer)) if key != bearer => Err(invalid()),
        (Some(secret), _) | (None, Some(secret)) if !secret.is_empty() => Ok(secret),
        (None, None) => Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "credentials_missing",
            "Send an API key in `x-api-key` or as `Authorization: Bearer`.",
        )),
        (Some(_), _) | (None, Some(_)) => Err(invalid()),
    }
}

fn scope_missing(needed: Scope) -> ApiError {
    let words = format!("This needs a key with the scope `{}`.", needed.name());
    ApiError::new(StatusCode::FORBIDDEN, "scope_missing", words)
}

fn invalid() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "credentials_invalid",
        "The credentials are unknown, revoked or expired.",
    )
}

/// The peer's address: behind a trusted proxy the last address in all lines of `X-Forwarded-For` that is no trusted
/// proxy. An IPv4 address is one, however the socket shows it.
pub fn peer_behind(peer: IpAddr, forwarded: &[&str], trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|range| range.contains(ip));
    let peer = peer.to_canonical();
    if !is_trusted(&peer) {
        return peer;
    }
    forwarded
        .iter()
        .rev()
        .flat_map(|list| list.rsplit(','))
        .map_while(|entry| entry.trim().parse::<IpAddr>().ok().map(|ip| ip.to_canonical()))
        .find(|ip| !is_trusted(ip))
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_is_believed_only_from_a_trusted_proxy() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, expected) in [
            ("1.2.3.4", &["9.9.9.9"][..], "1.2.3.4"),
            ("10.0.0.1", &["9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, 9.9.9.9, 10.0.0.7"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6", "9.9.9.9"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6", "9.9.9.9", "10.0.0.7"], "9.9.9.9"),
            ("10.0.0.1", &["6.6.6.6, junk, 10.0.0.7"], "10.0.0.1"),
            ("10.0.0.1", &["6.6.6.6", "\u{0}"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:9.9.9.9"], "9.9.9.9"),
        ] {
            assert_eq!(peer_behind(ip(peer), forwarded, &trusted), ip(expected), "{peer} {forwarded:?}");
        }
    }
}

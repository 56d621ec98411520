//! How many requests per minute: by key with valid credentials, by address without; on every answer's headers.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::{
        StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
};
use uuid::Uuid;

use super::{Ports, error::ApiError};
use crate::{
    edge::EdgeOptions,
    limits::{Key, Scope, Verdict},
};

/// The code of every refusal by a limit per minute.
pub const CODE: &str = "rate_limited";

/// Counts a request of a key, or of an agent with its own token.
///
/// # Errors
/// 429 with the seconds to wait.
pub fn count_caller(ports: &Ports, request: &HttpRequest, id: Uuid) -> Result<(), ApiError> {
    let key = Key::id(Scope::ApiKey, id);
    judge(request, ports.limits.check(key, ports.settings.limit_key_per_min))
}

/// Counts a request without valid credentials by its address.
///
/// # Errors
/// 429 with the seconds to wait.
pub fn count_public(ports: &Ports, request: &HttpRequest) -> Result<(), ApiError> {
    let address = ports.peer_of(request).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let key = Key::address(Scope::Public, address);
    judge(request, ports.limits.check(key, ports.settings.limit_public_per_min))
}

/// Counts a question about a token that is not in memory, from whatever address, together with those at the edge: each
/// costs a look into the catalog.
///
/// # Errors
/// 429 with the seconds to wait.
pub fn count_unknown(ports: &Ports) -> Result<(), ApiError> {
    passed(ports.limits.check(Key::all(Scope::UnknownShare), EdgeOptions::default().limit_unknown_per_min))
}

fn judge(request: &HttpRequest, verdict: Verdict) -> Result<(), ApiError> {
    request.extensions_mut().insert(verdict);
    passed(verdict)
}

/// Goes on below the limit.
///
/// # Errors
/// 429 with the seconds to wait.
pub fn passed(verdict: Verdict) -> Result<(), ApiError> {
    if verdict.allowed {
        return Ok(());
    }
    let words = format!("At most {} requests per minute; try again in {} s.", verdict.limit, verdict.reset_s);
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, CODE, words);
    Err(ApiError { retry_after: Some(u64::from(verdict.reset_s)), ..error })
}

/// Says on an answer what is left: the common fields, and those of the IETF draft (`RateLimit`, `RateLimit-Policy`).
pub fn show(verdict: Verdict, headers: &mut HeaderMap) {
    for (name, value) in fields(verdict) {
        let value = HeaderValue::from_str(&value).expect("numbers are plain ASCII");
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Those fields; none where there is no limit.
pub fn fields(verdict: Verdict) -> impl Iterator<Item = (&'static str, String)> {
    let Verdict { limit, remaining, reset_s, .. } = verdict;
    let fields = [
        ("x-ratelimit-limit", limit.to_string()),
        ("x-ratelimit-remaining", remaining.to_string()),
        ("x-ratelimit-reset", reset_s.to_string()),
        ("ratelimit-policy", format!("\"minute\";q={limit};w=60")),
        ("ratelimit", format!("\"minute\";r={remaining};t={reset_s}")),
    ];
    fields.into_iter().filter(move |_| limit > 0)
}

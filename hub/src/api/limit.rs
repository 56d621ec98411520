//! How many requests per minute: by key with valid credentials, by address without; on every answer's headers.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::{
        StatusCode,
        header::{HeaderMap, HeaderName, HeaderValue},
    },
};
use domain::ids::KeyId;

use super::{Ports, error::ApiError};
use crate::limits::{Key, Scope, Verdict};

/// Counts a request of a key.
///
/// # Errors
/// 429 with the seconds to wait.
pub fn count_key(ports: &Ports, request: &HttpRequest, id: KeyId) -> Result<(), ApiError> {
    let key = Key::id(Scope::ApiKey, id.uuid());
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

fn judge(request: &HttpRequest, verdict: Verdict) -> Result<(), ApiError> {
    request.extensions_mut().insert(verdict);
    if verdict.allowed {
        return Ok(());
    }
    let words = format!("At most {} requests per minute; try again in {} s.", verdict.limit, verdict.reset_s);
    let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", words);
    Err(ApiError { retry_after: Some(u64::from(verdict.reset_s)), ..error })
}

/// Says on an answer what is left: the common fields, and those of the IETF draft (`RateLimit`, `RateLimit-Policy`).
pub fn show(verdict: Verdict, headers: &mut HeaderMap) {
    if verdict.limit == 0 {
        return;
    }
    let Verdict { limit, remaining, reset_s, .. } = verdict;
    for (name, value) in [
        ("x-ratelimit-limit", limit.to_string()),
        ("x-ratelimit-remaining", remaining.to_string()),
        ("x-ratelimit-reset", reset_s.to_string()),
        ("ratelimit-policy", format!("\"minute\";q={limit};w=60")),
        ("ratelimit", format!("\"minute\";r={remaining};t={reset_s}")),
    ] {
        let value = HeaderValue::from_str(&value).expect("numbers are plain ASCII");
        headers.insert(HeaderName::from_static(name), value);
    }
}

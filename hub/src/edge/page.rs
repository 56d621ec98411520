//! The edge's own answers: a problem for programs, a small page for people.

use std::fmt::Write as _;

use bytes::Bytes;
use domain::{access::Denied, ids::RequestId};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
        VARY,
    },
};
use schemas::problem::Problem;

use super::banner::{escape, names_html};
use crate::limits::Verdict;

/// The code of an answer to a request whose access could not be recorded.
pub(super) const CANNOT_LOG: &str = "cannot_log";

/// An answer of the edge itself, before it becomes bytes.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// For programs, for ever.
    pub(super) code: &'static str,
    /// For people, with what to do next.
    pub(super) message: String,
    /// The limit that was asked, for its headers.
    pub(super) limit: Option<Verdict>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), limit: None }
    }

    /// Nobody has the token or slug.
    pub(super) fn unknown_share() -> Self {
        Self::new(StatusCode::NOT_FOUND, "share_not_found", "There is no such link. Check the address.")
    }

    /// The same bytes could be read as another request.
    pub(super) fn ambiguous_head() -> Self {
        let message = "The request's head can be read in more than one way: its lines end with CRLF, and the length of \
                       its body is said once.";
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The bare host has nothing there.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
    }

    /// The access could not be recorded, so it must not happen.
    pub(super) fn cannot_log() -> Self {
        let message = "The hub cannot record accesses right now. Try again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, CANNOT_LOG, message)
    }

    /// The hub stops, and what still ran is cut off.
    pub(super) fn draining() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "The hub is stopping. Try again in a moment.")
    }

    /// The target could not be reached, in words that say nothing of where it is.
    pub(super) fn unreachable(why: &str) -> Self {
        let refusal = Self::of(Denied::UpstreamFailed);
        let why = why.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
        let message = if says(&["refused"]) {
            "The service behind this link refused the connection. Is it running?"
        } else if says(&["timed out", "timeout", "does not answer", "within"]) {
            "The service behind this link did not accept a connection in time. Is it running?"
        } else if says(&["lookup", "look up", "resolve", "no address", "not known"]) {
            "The host name of the service behind this link was not found."
        } else if says(&["certificate", "tls", "handshake"]) {
            "The service behind this link did not agree on an encrypted connection."
        } else {
            return refusal;
        };
        Self { message: message.to_owned(), ..refusal }
    }

    /// More requests than a limit allows.
    pub(super) fn rate_limited(verdict: Verdict) -> Self {
        let message = format!("Too many requests. Try again in {} s.", verdict.reset_s);
        Self { limit: Some(verdict), ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message) }
    }

    /// The answer to each reason that a record can give.
    pub(super) fn of(denied: Denied) -> Self {
        let (status, code, message) = match denied {
            Denied::ShareRevoked => (403, "share_revoked", "This link was revoked by its owner."),
            Denied::ShareExpired => {
                (403, "share_expired", "This link has expired. Ask its owner for a new one.")
            }
            Denied::TunnelPaused => (503, "tunnel_paused", "This service is paused. Try again later."),
            Denied::TunnelGone => (403, "tunnel_gone", "The service behind this link no longer exists."),
            Denied::AgentOffline => {
                (503, "agent_offline", "The machine behind this link is offline. Try again later.")
            }
            Denied::MethodNotAllowed => (403, "method_not_allowed", "This link does not allow that method."),
            Denied::AmbiguousPath => {
                (400, "ambiguous_path", "This path can be read in more than one way. Use its plain form.")
            }
            Denied::PathNotAllowed => (403, "path_not_allowed", "This link does not allow that path."),
            Denied::RateLimited => (429, "rate_limited", "Too many requests. Try again in a moment."),
            Denied::BadRequest => (400, "bad_request", "The request is malformed."),
            Denied::UpstreamFailed => {
                (502, "upstream_failed", "The service behind this link did not answer. Is it running?")
            }
            Denied::UpstreamTimeout => {
                (504, "upstream_timeout", "The service behind this link took too long to answer.")
            }
            Denied::NotServed => {
                (403, "not_served", "This link leads to a database and answers queries only.")
            }
        };
        Self::new(StatusCode::from_u16(status).expect("a constant above"), code, message)
    }
}

/// A problem, or a page for whoever accepts HTML.
pub(super) fn refusal(
    refusal: &Refusal,
    accept: Option<&HeaderValue>,
    request: RequestId,
) -> Response<Bytes> {
    let request_id = request.to_string();
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let html = names_html(accept);
    let (content_type, body) = if html {
        ("text/html; charset=utf-8", page(refusal, &request_id))
    } else {
        problem(refusal, accept, request_id.clone())
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if html {
        let policy = "default-src 'none'; frame-ancestors 'none'";
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
    own_headers(headers, &request_id);
    if let Some(verdict) = refusal.limit {
        limit_headers(headers, verdict);
    }
    response
}

/// 204 with what may be asked.
pub(super) fn options(allow: &str, request: RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    own_headers(response.headers_mut(), &request.to_string());
    response
}

/// 302 to a share's own origin. `None` when the address is no header value.
pub(super) fn redirect(to: &str, request: RequestId) -> Option<Response<Bytes>> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(to).ok()?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    own_headers(headers, &request.to_string());
    Some(response)
}

fn own_headers(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(id) = HeaderValue::try_from(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

fn limit_headers(headers: &mut HeaderMap, verdict: Verdict) {
    headers.insert(RETRY_AFTER, verdict.reset_s.into());
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), verdict.limit.into());
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), verdict.remaining.into());
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), verdict.reset_s.into());
    let (limit, left, reset) = (verdict.limit, verdict.remaining, verdict.reset_s);
    for (name, value) in [
        ("ratelimit-policy", format!("\"default\";q={limit};w=60")),
        ("ratelimit", format!("\"default\";r={left};t={reset}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn problem(refusal: &Refusal, accept: &str, request_id: String) -> (&'static str, String) {
    let problem = Problem {
        status_code: refusal.status.as_u16(),
        error: refusal.status.canonical_reason().unwrap_or_default().to_owned(),
        code: refusal.code.to_owned(),
        message: refusal.message.clone(),
        request_id,
        details: Vec::new(),
        retry_after: refusal.limit.map(|verdict| u64::from(verdict.reset_s)),
    };
    let wants_rfc9457 = accept.contains("application/problem+json");
    if wants_rfc9457 {
        return ("application/problem+json", problem.rfc9457().to_string());
    }
    ("application/json", serde_json::to_string(&problem).expect("a problem has string keys only"))
}

fn page(refusal: &Refusal, request_id: &str) -> String {
    let status = refusal.status;
    let title = status.canonical_reason().unwrap_or("Refused");
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} - Private Connect</title></head>\n\
         <body bgcolor=\"#f3f4f6\" text=\"#1f2937\"><table width=\"100%\" cellpadding=\"48\"><tr><td align=\"center\">\
         <font face=\"sans-serif\"><h1>{title}</h1><p>",
        status = status.as_u16(),
    );
    escape(&refusal.message, &mut html);
    let code = refusal.code;
    writeln!(html, "</p><p><small>{code}<br>{request_id}</small></p></font></td></tr></table></body></html>")
        .expect("a string takes everything");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_target_is_told_in_words_that_do_not_say_where_it_is() {
        for (why, expected) in [
            ("db.internal:3000: Connection refused (os error 111)", "refused the connection"),
            ("db.internal:3000: it does not answer within 5 seconds", "in time"),
            ("db.internal:3000: Connection timed out (os error 110)", "in time"),
            (
                "db.internal:3000: failed to lookup address information: Name or service not known",
                "was not found",
            ),
            ("db.internal:3000: the name has no address", "was not found"),
            ("db.internal:443: invalid peer certificate: Expired", "encrypted connection"),
            ("db.internal:3000: No route to host (os error 113)", "did not answer"),
        ] {
            let refusal = Refusal::unreachable(why);
            assert_eq!((refusal.status.as_u16(), refusal.code), (502, "upstream_failed"));
            assert!(refusal.message.contains(expected), "{why}: {}", refusal.message);
            assert!(!refusal.message.contains("db.internal"), "{}", refusal.message);
        }
    }
}

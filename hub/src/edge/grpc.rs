//! What gRPC wants of its transport: which requests are calls, and refusals that its clients understand. Pure.
//!
//! A call goes to the target over HTTP/2, since its status stands in the trailers. gRPC-Web does without and is an
//! ordinary request.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header::CONTENT_TYPE};

use super::page::Refusal;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Status codes of gRPC that an edge has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unavailable = 14,
}

/// Whether a request is a call: over HTTP/2, with a content type of gRPC's own.
pub(super) fn is_call(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2
        && headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let rest = kind.as_bytes().strip_prefix(b"application/grpc");
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        })
}

/// A refusal as a call's answer: status 200 and the reason in what would be the trailers (gRPC over HTTP/2,
/// "Trailers-Only").
pub(super) fn refusal(refusal: &Refusal) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    status(response.headers_mut(), code_of(refusal.status), &refusal.message);
    response
}

/// The end of a call that was broken off after its answer had begun.
pub(super) fn trailers(refusal: &Refusal) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status(&mut trailers, code_of(refusal.status), &refusal.message);
    trailers
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Unavailable,
    }
}

fn status(headers: &mut HeaderMap, code: Code, message: &str) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    // Percent-encoded by gRPC's own rule: printable ASCII without the percent sign stays.
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    if let Ok(message) = HeaderValue::try_from(encoded) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_version_and_content_type() {
        for (version, kind, expected) in [
            (Version::HTTP_2, "application/grpc", true),
            (Version::HTTP_2, "application/grpc+proto", true),
            (Version::HTTP_2, "application/grpc;charset=utf-8", true),
            (Version::HTTP_2, "application/grpc-web+proto", false),
            (Version::HTTP_2, "application/json", false),
            (Version::HTTP_11, "application/grpc", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_call(version, &headers), expected, "{version:?} {kind}");
        }
        assert!(!is_call(Version::HTTP_2, &HeaderMap::new()));
    }

    #[test]
    fn a_refusal_is_a_status_that_clients_of_grpc_show() {
        let refused = refusal(&Refusal::new(StatusCode::FORBIDDEN, "share_revoked", "100% é gone"));
        assert_eq!(refused.status(), StatusCode::OK);
        assert_eq!(refused.headers()["grpc-status"], "7");
        assert_eq!(refused.headers()["grpc-message"], "100%25 %C3%A9 gone");
    }
}

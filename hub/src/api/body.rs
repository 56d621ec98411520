//! Request bodies: JSON only, bounded, unknown fields refused by name.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
    web::Bytes,
};
use futures_util::{FutureExt as _, TryFutureExt as _, future::LocalBoxFuture};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::error::ApiError;

/// The longest request body (bytes): the largest thing anyone sends is a tunnel's metadata.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A body that has the shape of `T`, and its bytes as they came (for the fingerprint of an idempotency key).
#[derive(Debug)]
pub struct Body<T> {
    pub value: T,
    pub bytes: Bytes,
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let json = is_json(request);
        let bytes = Bytes::from_request(request, payload);
        async move {
            if !json {
                return Err(ApiError::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported_media_type",
                    "Send the body as JSON with `Content-Type: application/json`.",
                )
                .into());
            }
            let bytes = bytes.await.map_err(|error| {
                let status = error.as_response_error().status_code();
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    let words = format!("A body has at most {BODY_BYTES_MAX} bytes.");
                    return ApiError::new(status, "body_too_large", words);
                }
                ApiError::new(StatusCode::BAD_REQUEST, "body_unreadable", "The body did not arrive whole.")
            })?;
            let value = read(&bytes)?;
            Ok(Self { value, bytes })
        }
        .boxed_local()
    }
}

/// The body of a request that has nothing to say: none, or an empty object.
#[derive(Debug)]
pub struct Nothing;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl FromRequest for Nothing {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // Many clients say `application/json` whether they send anything or not.
        let is_absent = (is_json(request) || !request.headers().contains_key(header::CONTENT_TYPE))
            && !request.headers().contains_key(header::TRANSFER_ENCODING)
            && request.headers().get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
        if is_absent {
            return std::future::ready(Ok(Self)).boxed_local();
        }
        Body::<NoFields>::from_request(request, payload).map_ok(|_| Self).boxed_local()
    }
}

fn is_json(request: &HttpRequest) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else { return false };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// Reads JSON strictly.
///
/// # Errors
/// 400 naming the field where serde can tell it.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for an object, by position.
    if bytes.trim_ascii_start().first().is_some_and(|first| b"[0123456789-tfn\"".contains(first)) {
        return Err(ApiError::field("body", "must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_json",
                format!("The body is not valid JSON (line {}, column {}).", inner.line(), inner.column()),
            );
        }
        wrong_field("", if path == "." { "body" } else { &path }, &inner)
    })?;
    deserializer.end().map_err(|_| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            "Something follows the JSON value in the body.",
        )
    })?;
    Ok(value)
}

/// Reads a part of a body, in the field `under`, whose shape another field decides.
///
/// # Errors
/// 400 naming the field, as [`read`].
pub fn part<T: DeserializeOwned>(value: Value, under: &str) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        wrong_field(&format!("{under}."), &path, &error.into_inner())
    })
}

/// A field that has another shape, in people's words.
fn wrong_field(prefix: &str, path: &str, error: &serde_json::Error) -> ApiError {
    let words = error.to_string();
    // The position that serde_json appends says nothing to whoever sent a field.
    let words = words.split(" at line ").next().unwrap_or(&words);
    let field = |name: &str, words: &str| ApiError::field(&format!("{prefix}{name}"), words);
    match named(words) {
        Some((name, "unknown field")) => field(name, "is no field of this request"),
        Some((name, "duplicate field")) => field(name, "is given twice"),
        Some((name, _)) => field(name, "is required"),
        None => field(path, &format!("is wrong: {words}")),
    }
}

/// The field that serde names in its words, and what it says of it.
fn named(words: &str) -> Option<(&str, &'static str)> {
    ["unknown field", "missing field", "duplicate field"].into_iter().find_map(|what| {
        let rest = words.strip_prefix(what)?.strip_prefix(" `")?;
        Some((rest.split('`').next()?, what))
    })
}

#[cfg(test)]
mod tests {
    use schemas::rest::CreateTunnel;

    use super::*;

    #[test]
    fn bad_json_is_refused_with_the_field_it_is_about() {
        for (text, field) in [
            (r#"{"target":"a:1","agentId":"x","colour":1}"#, "colour"),
            (r#"{"target":"a:1"}"#, "agentId"),
            (r#"{"target":"a:1","agentId":"x","agentId":"y"}"#, "agentId"),
            (r#"{"target":"a:1","agentId":7}"#, "agentId"),
            (r#"{"target":"a:1","agentId":"x","isPublic":"yes"}"#, "isPublic"),
            ("[]", "body"),
            (r#"["a:1","x",null,null,null,null]"#, "body"),
            ("7", "body"),
        ] {
            let error = read::<CreateTunnel>(text.as_bytes()).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{text}");
            assert_eq!(error.details.first().map(|d| d.field.as_str()), Some(field), "{text}: {error}");
        }
        for text in ["", "{", r#"{"target":"a:1","agentId":"x"} x"#, "\u{feff}{}"] {
            assert_eq!(read::<CreateTunnel>(text.as_bytes()).unwrap_err().code, "invalid_json", "{text}");
        }
    }
}

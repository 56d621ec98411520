//! The middleware around every answer: request id, the one error shape, methods that a URL does not have.

use std::{borrow::Cow, time::Instant};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{StatusCode, header},
    middleware::Next,
    web,
};
use domain::ids::RequestId;
use schemas::{frames::SESSION_PATH, problem::Problem};
use uuid::Uuid;

use super::{Ports, error::ApiError, limit};
use crate::{
    limits::Verdict,
    metrics::api::{RouteNumber, UnderWay},
};

/// Put into a response's extensions: its body is the answer, whatever its status.
#[derive(Debug, Clone, Copy)]
pub struct BodyOfItsOwn;

/// The answer to a URL that the API does not have.
pub async fn no_such_url(ports: web::Data<Ports>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    limit::count_public(&ports, &request)?;
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "no_such_url",
        format!("Nothing answers {} {} here.", request.method(), request.path()),
    ))
}

/// Gives the request its id before, and the answer its id and error shape after.
///
/// # Errors
/// None of its own.
pub async fn around<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = RequestId::new(Uuid::now_v7());
    request.extensions_mut().insert(id);
    let mut accepted = request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    let problem_json = accepted.any(asks_for_problem);
    let method = request.method().clone();
    let (begun, ports) = (Instant::now(), request.app_data::<web::Data<Ports>>().cloned());
    // Dropped with this task when the caller leaves.
    let _under_way = ports.as_ref().map(|ports| UnderWay::begin(&ports.metrics));
    // Handlers' and extractors' errors arrive as responses that carry them. (A clone of the request held over this
    // call would make routing panic: it wants the request for itself.)
    let response = next.call(request).await?.map_into_boxed_body();
    let status = response.status();
    let own_body = response.response().extensions().get::<BodyOfItsOwn>().is_some();
    let mut response = if !own_body && (status.is_client_error() || status.is_server_error()) {
        let error = cause(&response);
        if status == StatusCode::TOO_MANY_REQUESTS
            && error.code != limit::CODE
            && let Some(ports) = &ports
        {
            ports.metrics.api.lockouts.add(error.code);
        }
        if status.is_server_error() {
            let internal = error.internal.as_deref().unwrap_or_default();
            // The pattern, not the path: paths of visitors hold tokens.
            let route = response.request().match_pattern().unwrap_or_default();
            tracing::warn!(request_id = %id, %method, route, code = error.code, internal, "request {id} failed");
        }
        let rendered = render(&error, id, problem_json);
        let (exchange, former) = response.into_parts();
        let mut rendered = rendered;
        for name in [header::ALLOW, header::WWW_AUTHENTICATE] {
            if let Some(value) = former.headers().get(&name) {
                rendered.headers_mut().insert(name, value.clone());
            }
        }
        ServiceResponse::new(exchange, rendered)
    } else {
        response
    };
    let verdict = response.request().extensions().get::<Verdict>().copied();
    if let Some(ports) = ports {
        let (request, api) = (response.request(), &ports.metrics.api);
        let route = request.app_data::<RouteNumber>().copied();
        // The agents' session is the gateway's URL.
        let route = route.or_else(|| (request.path() == SESSION_PATH).then(|| api.session()));
        api.answered(route, method.as_str(), response.status().as_u16(), begun.elapsed());
    }
    let headers = response.headers_mut();
    if let Some(verdict) = verdict {
        limit::show(verdict, headers);
    }
    headers.insert(
        header::HeaderName::from_static("x-request-id"),
        header::HeaderValue::from_str(&id.to_string()).expect("an id is plain ASCII"),
    );
    // Answers hold secrets and other people's names: nobody on the way keeps them.
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// Whether an `Accept` names the media type of RFC 9457 itself and does not refuse it by `q=0`.
pub(super) fn asks_for_problem(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|it| it.eq_ignore_ascii_case("application/problem+json"));
        let quality = parts.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
        is_named && quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0))
    })
}

fn cause(response: &ServiceResponse<BoxBody>) -> ApiError {
    let status = response.status();
    if let Some(error) = response.response().error() {
        if let Some(error) = error.as_error::<ApiError>() {
            return error.clone();
        }
        let (code, words): (_, Cow<'static, str>) = match status {
            StatusCode::BAD_REQUEST => ("bad_request", error.to_string().into()),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The body is too large.".into()),
            _ => return ApiError { status, ..ApiError::internal(error) },
        };
        return ApiError::new(status, code, words);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        return ApiError::new(
            status,
            "method_not_allowed",
            "This URL does not answer that method; see `Allow`.",
        );
    }
    ApiError::new(status, "error", status.canonical_reason().unwrap_or("Error"))
}

/// The answer's body and headers.
pub fn render(error: &ApiError, id: RequestId, problem_json: bool) -> HttpResponse {
    let problem = Problem {
        status_code: error.status.as_u16(),
        error: error.status.canonical_reason().unwrap_or("Error").to_owned(),
        code: error.code.to_owned(),
        message: error.message.to_string(),
        request_id: id.to_string(),
        details: error.details.clone(),
        retry_after: error.retry_after,
    };
    let mut builder = HttpResponse::build(error.status);
    if let Some(seconds) = error.retry_after {
        builder.insert_header((header::RETRY_AFTER, seconds));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        builder.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"private-connect\""));
    }
    if problem_json {
        builder.content_type("application/problem+json").body(problem.rfc9457().to_string())
    } else {
        builder.json(problem)
    }
}

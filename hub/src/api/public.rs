//! What visitors who have only the link are answered on the edge's listener: `/v1/shared/:token/info`, and the query
//! endpoint, which does not exist yet and says so.

use std::sync::{Arc, OnceLock};

use actix_web::web;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, Response, header};
use schemas::problem::Problem;

use super::{Ports, error::ApiError, limit, problems::asks_for_problem, shares};
use crate::{
    edge::{PublicEndpoints, PublicPlace, PublicRequest},
    limits::{Key, Scope, Verdict},
};

/// Answers once start-up has put the ports in place; 503 before.
pub fn endpoints(ports: Arc<OnceLock<web::Data<Ports>>>) -> PublicEndpoints {
    Arc::new(move |request| {
        let ports = ports.get().cloned();
        async move { respond(ports.as_deref().map(AsRef::as_ref), &request).await }.boxed()
    })
}

async fn respond(ports: Option<&Ports>, request: &PublicRequest) -> Response<Bytes> {
    let mut verdict = Verdict::UNLIMITED;
    let answered = match ports {
        None => Err(ApiError::unavailable("starting", "The hub is starting; try again in a moment.")),
        Some(ports) => {
            let key = Key::address(Scope::Public, request.visitor);
            verdict = ports.limits.check(key, ports.settings.limit_public_per_min);
            answer(ports, request, verdict).await
        }
    };
    let mut accepted = request.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let problem_json = answered.is_err() && accepted.any(asks_for_problem);
    let media_type = if problem_json { "application/problem+json" } else { "application/json" };
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CACHE_CONTROL, "no-store")
        .header("x-request-id", request.request.to_string());
    for (name, value) in limit::fields(verdict) {
        response = response.header(name, value);
    }
    let (status, body) = match answered {
        Ok(body) => (http::StatusCode::OK, body),
        Err(error) => {
            if let Some(seconds) = error.retry_after {
                response = response.header(header::RETRY_AFTER, seconds);
            }
            if error.status == actix_web::http::StatusCode::METHOD_NOT_ALLOWED {
                response = response.header(header::ALLOW, "GET, HEAD");
            }
            problem(&error, request, problem_json)
        }
    };
    response.status(status).body(body).expect("status and headers are plain")
}

async fn answer(ports: &Ports, request: &PublicRequest, verdict: Verdict) -> Result<Bytes, ApiError> {
    limit::passed(verdict)?;
    match request.place {
        PublicPlace::Info if matches!(request.method, Method::GET | Method::HEAD) => {
            let info = shares::info_of(ports, &request.token).await?;
            serde_json::to_vec(&info).map(Bytes::from).map_err(ApiError::internal)
        }
        PublicPlace::Info => Err(ApiError::new(
            actix_web::http::StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This URL answers GET.",
        )),
        PublicPlace::Query => Err(ApiError::new(
            actix_web::http::StatusCode::NOT_FOUND,
            "no_such_url",
            "This hub does not answer database queries.",
        )),
    }
}

fn problem(error: &ApiError, request: &PublicRequest, problem_json: bool) -> (http::StatusCode, Bytes) {
    let status =
        http::StatusCode::from_u16(error.status.as_u16()).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let problem = Problem {
        status_code: status.as_u16(),
        error: status.canonical_reason().unwrap_or("Error").to_owned(),
        code: error.code.to_owned(),
        message: error.message.to_string(),
        request_id: request.request.to_string(),
        details: error.details.clone(),
        retry_after: error.retry_after,
    };
    let body = if problem_json {
        problem.rfc9457().to_string().into_bytes()
    } else {
        serde_json::to_vec(&problem).unwrap_or_default()
    };
    (status, Bytes::from(body))
}

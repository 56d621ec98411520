//! Whether the hub is alive, ready and healthy; and its metrics.

use std::sync::atomic::Ordering;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use schemas::rest::{Health, Liveness};

use super::{Ports, caller, error::ApiError, limit, problems::BodyOfItsOwn};

fn summary(ports: &Ports) -> (Health, bool) {
    let (writable, intact) = (ports.log.writable().is_ok(), ports.log.intact().is_ok());
    let reason = match (writable, intact) {
        (false, _) => Some("log_unavailable"),
        (true, false) => Some("log_damaged"),
        (true, true) => None,
    };
    let health = Health {
        status: if reason.is_none() { "ok" } else { "degraded" }.to_owned(),
        reason: reason.map(str::to_owned),
        database: if writable { "connected" } else { "read-only" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: ports.started.elapsed().as_secs(),
    };
    (health, reason.is_none())
}

/// `GET /health`: 503, `degraded` and a reason when the log cannot be written, or is not what was written. (A hub with a
/// damaged log stays ready: what is intact is served.)
pub async fn health(ports: web::Data<Ports>) -> HttpResponse {
    let (health, ok) = summary(&ports);
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = HttpResponse::build(status).json(health);
    response.extensions_mut().insert(BodyOfItsOwn);
    response
}

/// `GET /livez`: the process answers.
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(Liveness { status: "ok".to_owned() })
}

/// `GET /readyz`: new work is welcome: the log takes writes, the views keep up, the hub does not drain.
pub async fn readyz(ports: web::Data<Ports>) -> Result<HttpResponse, ApiError> {
    if ports.draining.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("draining", "The hub is stopping; it takes no new work."));
    }
    if let Err(reason) = ports.log.writable() {
        let error = ApiError::unavailable("log_unavailable", "The event log takes no writes now.");
        return Err(ApiError { internal: Some(reason), ..error });
    }
    if let Err(reason) = ports.views.health() {
        let error = ApiError::unavailable("views_unavailable", "The views cannot be written now.");
        return Err(ApiError { internal: Some(reason), ..error });
    }
    Ok(HttpResponse::Ok().json(Liveness { status: "ready".to_owned() }))
}

/// `GET /metrics`, for Prometheus: for whoever reaches the API, or for the holder of the operator's token where one is set.
///
/// # Errors
/// 401 without that token, 429 when it is guessed.
pub async fn metrics(ports: web::Data<Ports>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if let Some(token) = &ports.settings.metrics_token
        && let Err(error) = caller::by_operators_token(&request, token)
    {
        return limit::count_public(&ports, &request).and(Err(error));
    }
    let text = crate::metrics::render(ports.into_inner()).await.map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

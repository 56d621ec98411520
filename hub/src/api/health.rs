//! Whether the hub is alive, ready and healthy; and its metrics.

use std::sync::atomic::Ordering;

use actix_web::{HttpResponse, http::StatusCode, web};
use schemas::rest::Health;

use super::{Ports, error::ApiError};

fn summary(ports: &Ports) -> (Health, bool) {
    let writable = ports.log.writable().is_ok();
    let health = Health {
        status: if writable { "ok" } else { "degraded" }.to_owned(),
        database: if writable { "connected" } else { "read-only" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: ports.started.elapsed().as_secs(),
    };
    (health, writable)
}

/// `GET /health`: 503 and `degraded` when the log cannot be written.
pub async fn health(ports: web::Data<Ports>) -> HttpResponse {
    let (health, ok) = summary(&ports);
    HttpResponse::build(if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }).json(health)
}

/// `GET /livez`: the process answers.
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
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
    Ok(HttpResponse::Ok().json(serde_json::json!({ "status": "ready" })))
}

/// `GET /metrics`, for Prometheus.
pub async fn metrics(ports: web::Data<Ports>) -> Result<HttpResponse, ApiError> {
    let text = ports.metrics.render(&ports).map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

//! `/openapi.json`, and Swagger UI at `/docs` from the binary: no other host is asked for anything, and the page's policy
//! would not let it.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use utoipa_swagger_ui::Config;

use super::{describe::document, error::ApiError};

/// The page runs what this hub serves, and talks to this hub. Swagger UI's own pictures are `data:` URLs.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long a browser keeps a part of the page: they change with the hub's version only.
const KEPT: &str = "public, max-age=3600";

const PAGE: &str = include_str!("docs/page.html");
const START: &str = include_str!("docs/start.js");

/// The parts that the page needs; Swagger UI's package has more.
pub const FILES: [&str; 4] = ["favicon-32x32.png", "start.js", "swagger-ui-bundle.js", "swagger-ui.css"];

/// `GET /openapi.json`.
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(document::text())
}

/// `GET /docs`.
pub async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(PAGE)
}

/// `GET /docs/:file`.
pub async fn file(name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let missing = || {
        ApiError::new(StatusCode::NOT_FOUND, "no_such_url", "The documentation has no such file; see /docs.")
    };
    let name = FILES.into_iter().find(|known| *known == name.as_str()).ok_or_else(missing)?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CACHE_CONTROL, KEPT))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if name == "start.js" {
        return Ok(response.content_type("text/javascript; charset=utf-8").body(START));
    }
    let found = utoipa_swagger_ui::serve(name, Arc::new(Config::from("/openapi.json")));
    let found = found.map_err(ApiError::internal)?.ok_or_else(missing)?;
    Ok(response.content_type(found.content_type).body(found.bytes.into_owned()))
}

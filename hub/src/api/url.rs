//! One URL and its methods: GET answers HEAD as well, OPTIONS says what there is, anything else is 405 with `Allow`.

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route,
    http::{Method, header},
    web,
};

use super::{Ports, error::ApiError, limit};

/// A URL that is being described.
pub struct Url {
    resource: Resource,
    allowed: Vec<&'static str>,
}

impl Url {
    pub fn at(path: &str) -> Self {
        Self { resource: web::resource(path), allowed: Vec::new() }
    }
    /// GET, and HEAD: the server leaves the body out.
    #[must_use]
    pub fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("GET", web::get(), handler.clone()).with("HEAD", web::head(), handler)
    }
    #[must_use]
    pub fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("POST", web::post(), handler)
    }
    #[must_use]
    pub fn patch<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("PATCH", web::patch(), handler)
    }
    #[must_use]
    pub fn delete<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("DELETE", web::delete(), handler)
    }

    fn with<F, Args>(mut self, method: &'static str, route: Route, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allowed.push(method);
        Self { resource: self.resource.route(route.to(handler)), ..self }
    }

    /// All there is to say about it.
    pub fn finish(self) -> Resource {
        let allow = [self.allowed.as_slice(), &["OPTIONS"]].concat().join(", ");
        self.resource.default_service(web::to(move |ports: web::Data<Ports>, request: HttpRequest| {
            let answer = other_method(&ports, &request, &allow);
            async move { answer }
        }))
    }
}

// Before any credentials, so it counts as public.
fn other_method(ports: &Ports, request: &HttpRequest, allow: &str) -> Result<HttpResponse, ApiError> {
    limit::count_public(ports, request)?;
    let mut response = if *request.method() == Method::OPTIONS {
        HttpResponse::NoContent()
    } else {
        HttpResponse::MethodNotAllowed()
    };
    Ok(response.insert_header((header::ALLOW, allow)).finish())
}

//! One URL and its methods: GET answers HEAD as well, OPTIONS says what there is, anything else is 405 with `Allow`.
//! Every method comes with its description, so there is none without.

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route,
    http::{Method, header},
    web,
};

use super::{Ports, describe::Operation, error::ApiError, limit, lists};
use crate::metrics::api::RouteNumber;

/// A URL that is being described.
pub struct Url {
    path: &'static str,
    resource: Resource,
    allowed: Vec<&'static str>,
    operations: Vec<(&'static str, Operation)>,
}

/// A method of a URL, and what it says of itself.
#[derive(Debug, Clone)]
pub struct Described {
    pub method: &'static str,
    pub path: &'static str,
    pub operation: Operation,
}

/// The query parameters that each method of a URL knows.
struct Known(Vec<(&'static str, Vec<&'static str>)>);

impl Url {
    pub fn at(path: &'static str) -> Self {
        Self { path, resource: web::resource(path), allowed: Vec::new(), operations: Vec::new() }
    }
    /// GET, and HEAD: the server leaves the body out.
    #[must_use]
    pub fn get<F, Args>(self, handler: F, operation: Operation) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let mut url = self.with("GET", web::get(), handler.clone(), operation);
        url.allowed.push("HEAD");
        Self { resource: url.resource.route(web::head().to(handler)), ..url }
    }
    #[must_use]
    pub fn post<F, Args>(self, handler: F, operation: Operation) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("POST", web::post(), handler, operation)
    }
    #[must_use]
    pub fn patch<F, Args>(self, handler: F, operation: Operation) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("PATCH", web::patch(), handler, operation)
    }
    #[must_use]
    pub fn delete<F, Args>(self, handler: F, operation: Operation) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.with("DELETE", web::delete(), handler, operation)
    }

    fn with<F, Args>(mut self, method: &'static str, route: Route, handler: F, operation: Operation) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allowed.push(method);
        self.operations.push((method, operation));
        Self { resource: self.resource.route(route.to(handler)), ..self }
    }

    /// What it says of itself.
    pub fn described(self) -> impl Iterator<Item = Described> {
        let path = self.path;
        self.operations.into_iter().map(move |(method, operation)| Described { method, path, operation })
    }

    /// Its path, with the names of its parts.
    pub fn template(&self) -> &'static str {
        self.path
    }

    /// What the server takes. `number`: its place in the table.
    pub fn finish(self, number: RouteNumber) -> Resource {
        let names = |operation: &Operation| operation.query.iter().map(|it| it.name).collect::<Vec<_>>();
        let known = self.operations.iter().map(|(method, operation)| (*method, names(operation)));
        let known = Known(known.collect());
        let allow = [self.allowed.as_slice(), &["OPTIONS"]].concat().join(", ");
        let others = web::to(move |ports: web::Data<Ports>, request: HttpRequest| {
            let answer = other_method(&ports, &request, &allow);
            async move { answer }
        });
        self.resource.app_data(known).app_data(number).default_service(others)
    }
}

/// Refuses query parameters that this method of this URL does not know, and those that are given twice: a misspelt
/// filter must not answer with everything.
///
/// # Errors
/// 400 naming the parameter.
pub fn check_query(request: &HttpRequest) -> Result<(), ApiError> {
    let Some(Known(known)) = request.app_data::<Known>() else { return Ok(()) };
    let method = if *request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    let names = known.iter().find(|(of, _)| *of == method).map_or(&[][..], |(_, names)| names);
    lists::parameters(request, names).map(|_| ())
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

//! The description itself, described.

use schemas::rest::OpenApi;

use crate::api::describe::{Access, Operation, places::Place};

fn open(id: &'static str, summary: &'static str) -> Operation {
    Operation::new("Documentation", id, summary, Access::Unlimited)
}

pub fn document() -> Operation {
    open("getOpenApi", "This description").answers::<OpenApi>(200, "OpenAPI 3.1.")
}

pub fn page() -> Operation {
    open("getDocs", "Swagger UI").answers_text("A page that works without any other host.", "text/html")
}

pub fn file() -> Operation {
    open("getDocsFile", "A part of that page").at("file", Place::DocsFile).answers_text("The file.", "*/*")
}

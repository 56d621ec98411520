//! Who used a share, described.

use domain::{
    access::{METHOD_BYTES_MAX, PATH_BYTES_MAX},
    workspace::Scope,
};
use schemas::rest::{AccessLog, access_logs::AccessStats};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

fn on(id: &'static str, summary: &'static str) -> Operation {
    Operation::new("Shares", id, summary, Access::Scope(Scope::Read)).at("id", Place::Share)
}

/// Which accesses, alike for all three questions.
fn filtered(operation: Operation) -> Operation {
    let moment = || json!({ "type": "string", "format": "date-time" });
    let status = json!({ "type": "string", "pattern": "^([1-5][0-9]{2}|[1-5]xx)$" });
    let method = format!("^[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{METHOD_BYTES_MAX}}}$");
    let ip = json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] });
    operation
        .asks("since", moment(), "Not before this.")
        .asks("until", moment(), "Before this.")
        .asks("status", status, "Answered with this status, or with one of this class: `404`, `4xx`.")
        .asks("method", json!({ "type": "string", "pattern": method }), "With this method.")
        .asks("ip", ip, "From this address.")
        .asks(
            "path",
            json!({ "type": "string", "minLength": 1, "maxLength": PATH_BYTES_MAX }),
            "With this path, without a query.",
        )
}

pub fn list() -> Operation {
    filtered(on("listAccesses", "Who used a share").paged("^[0-9a-f]{1,12}\\.[0-9a-f]{1,12}\\.[0-9a-f]{1,8}$"))
        .says("Newest first, everything that was answered before the question included. Paths are without their query.")
        .answers::<AccessLog>(200, "Accesses; what was erased is null.")
        .shows("Link")
}

pub fn stats() -> Operation {
    filtered(on("getAccessStats", "What the accesses of a share have in common"))
        .says(
            "Counts the newest 500,000 that fit the filters; `complete` says whether there are older ones, to be asked for \
             with `until`.",
        )
        .answers::<AccessStats>(200, "The numbers.")
        .refuses(503, &["too_many_readings"])
}

pub fn export() -> Operation {
    filtered(on("exportAccesses", "All accesses of a share as a file"))
        .says(
            "Newest first, as fast as it is read. An answer that ends without its end mark (the last chunk, or END_STREAM) is \
             not whole: go on with `until`.",
        )
        .asks(
            "format",
            json!({ "type": "string", "enum": ["ndjson", "csv"], "default": "ndjson" }),
            "An `AccessEntry` per line, or a table whose cells no spreadsheet takes for formulas.",
        )
        .answers_text("The file, as an attachment.", "application/x-ndjson")
        .answers_text("The file, as an attachment.", "text/csv")
        .refuses(503, &["too_many_readings"])
}

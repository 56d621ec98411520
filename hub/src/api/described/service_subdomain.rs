//! Subdomains of public services, described.

use domain::workspace::Scope;
use schemas::rest::services::{SetSubdomain, Subdomain, SubdomainCheck};
use serde_json::json;

use crate::api::describe::{Access, Operation, places::Place};

/// One that nothing reserves.
const EXAMPLE: &str = "acme-shop";

fn on(id: &'static str, summary: &'static str, scope: Scope) -> Operation {
    Operation::new("Services", id, summary, Access::Scope(scope)).at("id", Place::Tunnel)
}

pub fn set() -> Operation {
    on("setSubdomain", "Choose a public service's subdomain", Scope::Write)
        .says(
            "The former public URL ends at once, and its subdomain is out of use for 30 days if it was chosen. `null` gives a \
             random one again, which nobody can guess.",
        )
        .conditional()
        .takes::<SetSubdomain>(json!({ "subdomain": EXAMPLE }))
        .answers::<Subdomain>(200, "The subdomain as it is now.")
        .written()
        .refuses(400, &["not_shareable"])
        .refuses(404, &["not_found"])
        .refuses(
            409,
            &[
                "not_public",
                "subdomain_taken",
                "subdomain_quarantined",
                "already_taken",
                "quarantined",
                "already_exists",
            ],
        )
}

pub fn check() -> Operation {
    on("checkSubdomain", "Whether a subdomain can be had", Scope::Read)
        .says("Looks without taking it: somebody else may be faster.")
        .needs("subdomain", json!({ "type": "string", "example": EXAMPLE }), "The one that is wanted.")
        .answers::<SubdomainCheck>(200, "Whether it can be had, and why not.")
}

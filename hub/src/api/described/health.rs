//! Whether the hub is alive, described.

use schemas::rest::{Health, Liveness};

use crate::api::describe::{Access, Operation};

fn open(id: &'static str, summary: &'static str) -> Operation {
    Operation::new("Health", id, summary, Access::Unlimited)
}

pub fn short() -> Operation {
    status("getHealthOfHub")
}

pub fn health() -> Operation {
    status("getHealth")
}

fn status(id: &'static str) -> Operation {
    open(id, "Whether the hub is healthy")
        .answers::<Health>(200, "It is.")
        .answers::<Health>(503, "Degraded: `reason` says why.")
}

pub fn livez() -> Operation {
    open("getLiveness", "Whether the process answers").answers::<Liveness>(200, "It does.")
}

pub fn readyz() -> Operation {
    open("getReadiness", "Whether new work is welcome")
        .answers::<Liveness>(200, "It is.")
        .refuses(503, &["draining", "log_unavailable", "views_unavailable"])
}

pub fn metrics() -> Operation {
    open("getMetrics", "Metrics for Prometheus")
        .says("Where the operator has set a token for it (`HUB_METRICS_TOKEN`), it has to come as `Authorization: Bearer`.")
        .answers_text("The text format of Prometheus.", "text/plain")
        .refuses(401, &["credentials_missing", "credentials_invalid"])
        .refuses(429, &["rate_limited"])
}

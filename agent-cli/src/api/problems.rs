//! What the hub refuses, in people's words: message, exit code and the next step. The one place that decides it.

use schemas::problem::Problem;

use wire::tls;

use super::ApiError;
use crate::{
    failure::{Exit, Failure},
    hub_tls,
};

/// Where a key comes from, for every message that lacks one.
pub(crate) const KEY_HINT: &str = "connect up --api-key pc_…, or set PRIVATECONNECT_TOKEN; \
    the hub shows its first key when it starts for the first time";

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::NoKey => Self::new("no_api_key", "No API key is known for this hub").hint(KEY_HINT),
            ApiError::Unreachable { hub, error } if tls::reason(&error).is_some() => {
                let (what, hint) = tls::reason(&error).map(hub_tls::explained).unwrap_or_default();
                Self { causes: vec![what], ..Self::new("hub_not_believed", format!("No TLS with {hub}")) }
                    .hint(hint)
            }
            ApiError::Unreachable { hub, error } => {
                let (code, what) = if error.is_timeout() {
                    ("hub_timeout", "does not answer in time")
                } else {
                    ("hub_unreachable", "cannot be reached")
                };
                // The URL is in our message already.
                Self::new(code, format!("The hub at {hub} {what}"))
                    .because(&error.without_url())
                    .hint("is the hub running there? choose another with --hub or CONNECT_HUB_URL")
            }
            ApiError::Strange { hub, status, why } => Self::new(
                "not_a_hub",
                format!(
                    "{hub} answered {} in a way that no Private Connect hub does: {why}",
                    status.as_u16()
                ),
            )
            .hint("check the address: --hub or CONNECT_HUB_URL"),
            ApiError::Refused(problem) => refused(&problem),
        }
    }
}

fn refused(problem: &Problem) -> Failure {
    let mut message = problem.message.clone();
    for detail in &problem.details {
        message.push_str(&format!("\n  {}: {}", detail.field, detail.message));
    }
    let failure = Failure::new(problem.code.clone(), message);
    let failure = match problem.status_code {
        // What the hub calls invalid came from our arguments.
        400 | 422 => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    };
    if problem.code == "tls_required" {
        return failure.hint("write https:// in --hub or CONNECT_HUB_URL");
    }
    match (problem.status_code, problem.retry_after) {
        (401, _) => failure.hint(KEY_HINT),
        (429, Some(seconds)) => failure.hint(format!("try again in {seconds} s")),
        (500..=599, _) if !problem.request_id.is_empty() => {
            failure.hint(format!("the hub's operator finds more under request {}", problem.request_id))
        }
        _ => failure,
    }
}

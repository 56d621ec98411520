//! What went wrong → status, code and words; nowhere else (docs/status-codes.md lists every code).

use std::{borrow::Cow, fmt};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use domain::{agent, agent_command, claim, environment, message, node, share, tunnel, webhook, workspace};
use schemas::problem::FieldProblem;

use crate::actors::ExecuteError;

/// An answer that is no success. The middleware of `api::problems` gives it its body and request id.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: StatusCode,
    /// For programs, for ever.
    pub code: &'static str,
    /// For people, with the next step where there is one.
    pub message: Cow<'static, str>,
    pub details: Vec<FieldProblem>,
    /// Seconds; with 429.
    pub retry_after: Option<u64>,
    /// What telemetry gets beside the message and the caller does not.
    pub internal: Option<String>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new(), retry_after: None, internal: None }
    }
    /// One field that breaks its rule.
    pub fn field(field: &str, message: impl fmt::Display) -> Self {
        let details = vec![FieldProblem { field: field.to_owned(), message: message.to_string() }];
        let words = format!("`{field}` {message}.");
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "validation_failed", words) }
    }
    /// It does not exist, or not in the caller's workspace.
    pub fn not_found(kind: &'static str, id: impl fmt::Display) -> Self {
        let code = match kind {
            "agent" => "agent_not_found",
            "tunnel" => "tunnel_not_found",
            "share" => "share_not_found",
            "key" => "key_not_found",
            "command" => "command_not_found",
            "message" => "message_not_found",
            "webhook" => "webhook_not_found",
            "delivery" => "delivery_not_found",
            _ => "not_found",
        };
        Self::new(StatusCode::NOT_FOUND, code, format!("No {kind} {id} in this workspace."))
    }
    pub fn conflict(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }
    fn bad(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }
    pub fn unavailable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
    /// `If-Match` names another revision.
    pub fn changed() -> Self {
        let words = "It has changed since you read it; read it again and repeat the change.";
        Self::new(StatusCode::PRECONDITION_FAILED, "etag_mismatch", words)
    }
    /// A bug or a broken dependency: the caller learns no internals.
    pub fn internal(error: impl fmt::Display) -> Self {
        let message =
            "The hub failed to answer this request; its operator finds the cause by the request id.";
        Self {
            internal: Some(error.to_string()),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }
    // The body is made by the middleware, which knows the request's id and what the client accepts.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status)
    }
}

/// A domain's refusal as an answer.
pub trait Refusal {
    fn to_api(&self) -> ApiError;
}

impl<R: Refusal> From<ExecuteError<R>> for ApiError {
    fn from(error: ExecuteError<R>) -> Self {
        let with = |internal: String, error: Self| Self { internal: Some(internal), ..error };
        match error {
            ExecuteError::Rejected(rejection) => rejection.to_api(),
            ExecuteError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "not_found", "Nothing of that id in this workspace.")
            }
            ExecuteError::Changed => Self::changed(),
            ExecuteError::Busy => {
                Self::unavailable("busy", "Too many changes to one thing at once; try again in a moment.")
            }
            ExecuteError::Unavailable(reason) => with(
                reason,
                Self::unavailable(
                    "log_unavailable",
                    "The event log takes no writes now; nothing was changed.",
                ),
            ),
            ExecuteError::Refused(reason) => Self::internal(reason),
            ExecuteError::InDoubt(reason) => with(
                reason,
                Self::unavailable(
                    "in_doubt",
                    "It is not known whether this was done; look before trying again.",
                ),
            ),
        }
    }
}

impl Refusal for workspace::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::WorkspaceExists | Self::KeyExists(_) => ApiError::conflict("already_exists", words),
            Self::WorkspaceUnknown => ApiError::new(StatusCode::NOT_FOUND, "workspace_not_found", words),
            Self::KeyUnknown(id) => ApiError::not_found("key", id),
            Self::KeysExhausted => ApiError::conflict("keys_exhausted", words),
            Self::ScopesMissing => ApiError::field("scopes", "must name at least one scope"),
            Self::ExpiryPast => ApiError::field("expiresIn", "must lie in the future"),
            Self::LastAdminKey => ApiError::conflict("last_admin_key", words),
        }
    }
}

impl Refusal for agent::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::AgentUnknown | Self::AgentGone => {
                ApiError::new(StatusCode::NOT_FOUND, "agent_not_found", words)
            }
            Self::TokenUnknown => ApiError::new(StatusCode::UNAUTHORIZED, "invalid_agent_token", words),
            Self::SessionSuperseded => ApiError::conflict("session_superseded", words),
            Self::AgentOfAnotherKey => ApiError::new(
                StatusCode::FORBIDDEN,
                "agent_not_yours",
                "This agent was registered with another key. Use that key, one with the scope `write`, or register a new agent without `agentId`.",
            ),
        }
    }
}

impl Refusal for tunnel::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::TunnelExists => ApiError::conflict("already_exists", words),
            Self::TunnelUnknown => ApiError::new(StatusCode::NOT_FOUND, "tunnel_not_found", words),
            Self::ProtectedPort { port, engine } => ApiError::bad(
                "protected_port",
                format!(
                    "Port {port} ({engine}) is never published. Use `connect reach`, or a share, which serves queries only."
                ),
            ),
            Self::MetadataTooLarge { .. } => ApiError::field("metadata", self),
            Self::ExpiryPast => ApiError::field("expiresIn", "must lie in the future"),
            Self::NotDue => ApiError::conflict("not_due", words),
            Self::IntervalRange => ApiError::field("intervalSeconds", "must be from 10 to 3600"),
        }
    }
}

impl Refusal for share::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::ShareExists => ApiError::conflict("already_exists", words),
            Self::ShareUnknown => ApiError::new(StatusCode::NOT_FOUND, "share_not_found", words),
            Self::ExpiryPast => ApiError::field("expiresIn", "must lie in the future"),
            Self::RateLimitRange => ApiError::field("rateLimitPerMin", "must be 1-1000"),
            Self::TooManyPaths => ApiError::field("allowedPaths", "must have at most 50 rules"),
            Self::EmptyList => ApiError::bad("validation_failed", words),
            Self::NotDue => ApiError::conflict("not_due", words),
        }
    }
}

impl Refusal for environment::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::Unknown | Self::Over => {
                ApiError::new(StatusCode::NOT_FOUND, "environment_not_found", words)
            }
            Self::Exists => ApiError::conflict("already_exists", words),
            Self::NothingToShare => ApiError::bad(
                "nothing_to_share",
                "The agent has no active tunnel; expose something there first.".to_owned(),
            ),
            Self::TooManyRoutes => ApiError::conflict("too_many_routes", words),
            Self::ExpiryPast | Self::ExpiryTooFar => ApiError::field("expiresIn", "must be 1m to 7d"),
            Self::OwnEnvironment => ApiError::conflict("own_environment", words),
            Self::Denied => ApiError::new(StatusCode::FORBIDDEN, "join_denied", words),
            Self::TooManyJoiners => ApiError::conflict("too_many_joiners", words),
            Self::NotPending => ApiError::conflict(
                "not_pending",
                "No request of this agent waits for a decision: it did not ask, or it was decided already."
                    .to_owned(),
            ),
            Self::NotDue => ApiError::conflict("not_due", words),
        }
    }
}

impl Refusal for claim::Rejection {
    fn to_api(&self) -> ApiError {
        match self {
            Self::ClaimTaken { .. } => ApiError::conflict("already_taken", "It is taken already.".to_owned()),
            Self::ClaimQuarantined { until } => ApiError::conflict(
                "quarantined",
                format!("It was in use before and is free again on {until}."),
            ),
            Self::ClaimNotHeld { .. } => ApiError::internal(self),
        }
    }
}

impl Refusal for agent_command::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::CommandExists => ApiError::conflict("already_exists", words),
            Self::CommandUnknown => ApiError::new(StatusCode::NOT_FOUND, "command_not_found", words),
            Self::ExpiryPast => ApiError::field("ttlSeconds", "must lie in the future"),
            Self::NotDue => ApiError::conflict("not_due", words),
        }
    }
}

impl Refusal for message::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::MessageExists => ApiError::conflict("already_exists", words),
            Self::MessageUnknown => ApiError::new(StatusCode::NOT_FOUND, "message_not_found", words),
            Self::ExpiryPast => ApiError::field("ttlSeconds", "must lie in the future"),
            Self::NotDue => ApiError::conflict("not_due", words),
            Self::Unread => ApiError::conflict("mailbox_full", words),
        }
    }
}

impl Refusal for webhook::Rejection {
    fn to_api(&self) -> ApiError {
        let words = format!("{self}.");
        match self {
            Self::WebhookExists => ApiError::conflict("already_exists", words),
            Self::WebhookUnknown => ApiError::new(StatusCode::NOT_FOUND, "webhook_not_found", words),
        }
    }
}

impl Refusal for node::Rejection {
    fn to_api(&self) -> ApiError {
        match *self {}
    }
}

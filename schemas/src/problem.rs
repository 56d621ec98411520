//! The one error body, everywhere (product.md section 2).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs (`code`, for ever) and people (`message`, with the next step).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub status_code: u16,
    /// The status's reason phrase.
    pub error: String,
    pub code: String,
    pub message: String,
    #[schema(value_type = crate::rest::texts::RequestId)]
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<FieldProblem>,
    /// Seconds; only with 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after: Option<u64>,
}

/// One field that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    pub field: String,
    pub message: String,
}

impl Problem {
    /// The same as RFC 9457 `application/problem+json`: a superset of this shape.
    pub fn rfc9457(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("a problem has string keys only");
        if let Some(object) = value.as_object_mut() {
            object.insert("type".into(), format!("urn:private-connect:problem:{}", self.code).into());
            object.insert("title".into(), self.error.clone().into());
            object.insert("status".into(), self.status_code.into());
            object.insert("detail".into(), self.message.clone().into());
            object.insert("instance".into(), self.request_id.clone().into());
        }
        value
    }
}

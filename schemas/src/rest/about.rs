//! What the hub says of itself and of its caller.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::texts;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// Why it is degraded: `log_unavailable`, `log_damaged`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    pub database: String,
    pub version: String,
    pub uptime: u64,
}

/// `GET /livez` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Liveness {
    /// `ok` or `ready`.
    pub status: String,
}

/// `GET /openapi.json`: OpenAPI 3.1, of which only the outermost members are described here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenApi {
    pub openapi: String,
    #[schema(value_type = Object)]
    pub info: Value,
    #[schema(value_type = Vec<Object>)]
    pub servers: Value,
    #[schema(value_type = Vec<Object>)]
    pub tags: Value,
    #[schema(value_type = Object)]
    pub paths: Value,
    #[schema(value_type = Object)]
    pub components: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhoAmI {
    #[schema(value_type = texts::WorkspaceId)]
    pub workspace_id: String,
    pub workspace_name: String,
    #[schema(value_type = Option<texts::KeyId>, required)]
    pub key_id: Option<String>,
    #[schema(required)]
    pub key_name: Option<String>,
    #[schema(value_type = Option<texts::AgentId>, required)]
    pub agent_id: Option<String>,
    #[schema(value_type = Vec<texts::Scope>)]
    pub scopes: Vec<String>,
}

/// `GET /v1/workspace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    #[schema(value_type = texts::WorkspaceId)]
    pub id: String,
    pub name: String,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
}

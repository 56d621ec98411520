//! Device login: a machine without a key shows a code, somebody with a key lets it in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::texts;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartDeviceLogin {
    /// What the machine is called; whoever approves sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub agent_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCode {
    /// Secret: the machine asks for its key with it.
    #[schema(value_type = texts::DeviceCodeText)]
    pub device_code: String,
    /// For people: `XXXX-XXXX`.
    #[schema(value_type = texts::UserCode)]
    pub user_code: String,
    pub verification_url: String,
    /// Seconds.
    pub expires_in: u64,
    /// Seconds between two questions.
    pub interval: u64,
}

/// Approves or denies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceDecision {
    /// As the machine shows it; upper or lower case, with or without the hyphen.
    pub user_code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceDecided {
    pub success: bool,
    /// What the machine said of itself.
    #[schema(required)]
    pub label: Option<String>,
    #[schema(required)]
    pub agent_name: Option<String>,
}

/// The key, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceToken {
    pub api_key: String,
    #[schema(value_type = texts::KeyId)]
    pub key_id: String,
    #[schema(value_type = texts::WorkspaceId)]
    pub workspace_id: String,
    pub workspace_name: String,
    #[schema(value_type = Vec<texts::Scope>)]
    pub scopes: Vec<String>,
}

impl std::fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceToken").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

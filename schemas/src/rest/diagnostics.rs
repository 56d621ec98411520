//! What an agent finds when it looks at a target.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an agent found when it looked at a target. Times in milliseconds; an absent part was not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostics {
    /// Whether the target takes connections. For UDP, which has none: whether there is a way to it.
    pub reachable: bool,
    /// What it was found to speak, where the tunnel leaves that open: `tcp`, `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dns: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tcp: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub udp: Option<DiagnosticStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub tls: Option<TlsStep>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub http: Option<DiagnosticStep>,
    #[schema(required)]
    pub latency_ms: Option<f64>,
}

/// The step of TLS. `ok`: agreed, and the certificate is one that the agent's owner accepts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsStep {
    pub ok: bool,
    pub ms: f64,
    pub detail: String,
    /// `TLSv1.2` or `TLSv1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub version: Option<String>,
    /// What both sides agreed to speak inside: `h2`, `http/1.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub alpn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub certificate: Option<Certificate>,
}

/// What stands in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub subject_alt_names: Vec<String>,
    pub valid_from: String,
    pub expires_at: String,
    /// By what the agent's machine and its owner trust, whether or not the tunnel is used without that.
    pub is_trusted: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticStep {
    pub ok: bool,
    pub ms: f64,
    pub detail: String,
}

//! What the accesses of a share have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::texts;

/// `GET /v1/shares/:id/logs/stats`. A record that stands for several accesses counts as that many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessStats {
    #[schema(value_type = texts::ShareId)]
    pub share_id: String,
    /// The earliest access that is counted; `null` without any.
    #[schema(value_type = Option<texts::Moment>, required)]
    pub first_accessed_at: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub last_accessed_at: Option<String>,
    /// `false`: there are older ones that fit the filters and are not counted. Ask for them with `until`.
    pub complete: bool,
    pub accesses: u64,
    /// Of these, the refused.
    pub denied: u64,
    /// Of these, those whose path and address were erased.
    pub erased: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// By status code.
    pub by_status: BTreeMap<String, u64>,
    /// The most frequent paths.
    pub by_path: Vec<PathCount>,
    /// Accesses of all other paths.
    pub other_paths: u64,
    /// The most frequent addresses.
    pub by_ip: Vec<AddressCount>,
    pub other_ips: u64,
    /// Oldest first; hours without an access are left out.
    pub by_hour: Vec<HourCount>,
    pub latency_ms: Percentiles,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PathCount {
    pub path: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCount {
    pub ip_address: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HourCount {
    /// When the hour begins.
    #[schema(value_type = texts::Moment)]
    pub hour: String,
    pub count: u64,
}

/// By the nearest rank; `null` without any access that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    #[schema(required)]
    pub p50: Option<u32>,
    #[schema(required)]
    pub p95: Option<u32>,
    #[schema(required)]
    pub p99: Option<u32>,
}

//! What was recorded: single events with their place and author, pages of them, and what they have in common.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::texts;

/// An event as it was recorded: its place in the log of the workspace, its time, its author, what it follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedEvent {
    #[schema(value_type = texts::EventId)]
    pub id: String,
    /// Its number among the workspace's events of its family, from 1.
    #[schema(minimum = 1)]
    pub position: u64,
    /// `facts`, or `accesses`: these have numbers of their own.
    #[schema(value_type = texts::Family)]
    pub family: String,
    /// What it happened to.
    pub stream: String,
    /// Its number in that stream, from 1: of a tunnel, share or agent the `ETag`.
    #[schema(minimum = 1)]
    pub revision: u64,
    pub r#type: String,
    /// The version of its `data`.
    pub version: u16,
    #[schema(value_type = texts::Moment)]
    pub recorded_at: String,
    #[schema(value_type = texts::WorkspaceId)]
    pub workspace_id: String,
    /// `{"kind": "key" | "agent" | "system", "id": …}`.
    #[schema(value_type = Object)]
    pub actor: Value,
    /// The event that it follows from, if another event caused it.
    #[schema(value_type = Option<texts::EventId>, required)]
    pub causation_id: Option<String>,
    /// The request that it all began with.
    #[schema(value_type = Option<texts::RequestId>, required)]
    pub correlation_id: Option<String>,
    /// What it concerns by id, and its own fields; secrets and their hashes are left out.
    #[schema(value_type = Object)]
    pub data: Map<String, Value>,
    /// What is personal about it: addresses, user agents, paths, texts. Absent where nothing is; the word `erased` once
    /// it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value, required = false)]
    pub personal: Option<Value>,
}

/// Events in the order of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventPage {
    pub events: Vec<RecordedEvent>,
    /// What to ask for next, as `fromPosition`, now or when more has happened.
    #[schema(value_type = texts::FeedPosition)]
    pub next_position: String,
}

/// What recorded facts have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStats {
    pub events: u64,
    /// The earliest that is counted; `null` without any.
    #[schema(value_type = Option<texts::Moment>, required)]
    pub first_recorded_at: Option<String>,
    #[schema(value_type = Option<texts::Moment>, required)]
    pub last_recorded_at: Option<String>,
    /// `false`: there are older ones that fit the filters and are not counted. Ask for them with `until`.
    pub complete: bool,
    /// Most frequent first.
    pub by_type: Vec<TypeCount>,
    /// The most frequent authors.
    pub by_actor: Vec<ActorCount>,
    /// Events of all other authors.
    pub other_actors: u64,
    /// Oldest first; hours without an event are left out.
    pub by_hour: Vec<super::access_logs::HourCount>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TypeCount {
    pub r#type: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActorCount {
    /// The id of a key or an agent, or the name of a part of the hub.
    pub actor: String,
    pub count: u64,
}

/// Whose personal data, of which days, is erased for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EraseData {
    /// The first day, in UTC.
    #[schema(value_type = texts::Day)]
    pub from: String,
    /// The last day, in UTC; the first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Day>)]
    pub until: Option<String>,
}

/// What was erased.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataErased {
    pub success: bool,
    #[schema(value_type = texts::Day)]
    pub from: String,
    #[schema(value_type = texts::Day)]
    pub until: String,
    /// How many keys were destroyed; 0: nothing personal of these days was there, or it was erased before.
    pub keys_destroyed: u64,
}

//! Commands to agents.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{OneOfBuilder, Ref, RefOr, Schema},
};

use super::{Metadata, numbers, texts};

/// What an agent is told to do. `params` are those of the action: what fits is described by [`PlainCommand`],
/// [`ExposeCommand`] and [`ReachCommand`], one for each way to fill it in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendCommand {
    /// `restart`, `stop`, `expose`, `reach` or `status`.
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Metadata>,
    /// How long it waits for an agent that is offline.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    pub ttl_seconds: Option<i64>,
}

impl PartialSchema for SendCommand {
    fn schema() -> RefOr<Schema> {
        let shapes = [PlainCommand::name(), ExposeCommand::name(), ReachCommand::name()];
        let shapes = shapes.into_iter().map(Ref::from_schema_name);
        let choice = OneOfBuilder::new()
            .description(Some("What an agent is told to do: one shape for each kind of action."));
        RefOr::T(Schema::OneOf(shapes.fold(choice, OneOfBuilder::item).build()))
    }
}

impl ToSchema for SendCommand {
    fn schemas(known: &mut Vec<(String, RefOr<Schema>)>) {
        known.push((PlainCommand::name().into_owned(), PlainCommand::schema()));
        PlainCommand::schemas(known);
        known.push((ExposeCommand::name().into_owned(), ExposeCommand::schema()));
        ExposeCommand::schemas(known);
        known.push((ReachCommand::name().into_owned(), ReachCommand::schema()));
        ReachCommand::schemas(known);
    }
}

/// `restart`, `stop`, `status`: without parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainCommand {
    #[schema(value_type = texts::PlainAction)]
    pub action: String,
    pub params: Option<NoParams>,
    /// How long it waits for an agent that is offline.
    #[schema(minimum = 10, maximum = 86400)]
    pub ttl_seconds: Option<i64>,
}

/// Have the agent expose a target, if its owner allows that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExposeCommand {
    #[schema(value_type = texts::ExposeAction)]
    pub action: String,
    pub params: ExposeParams,
    /// How long it waits for an agent that is offline.
    #[schema(minimum = 10, maximum = 86400)]
    pub ttl_seconds: Option<i64>,
}

/// Have the agent open a local port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReachCommand {
    #[schema(value_type = texts::ReachAction)]
    pub action: String,
    pub params: ReachParams,
    /// How long it waits for an agent that is offline.
    #[schema(minimum = 10, maximum = 86400)]
    pub ttl_seconds: Option<i64>,
}

/// Nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// What the agent exposes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExposeParams {
    #[schema(value_type = texts::HostAndPort)]
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Name>)]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<texts::Protocol>)]
    pub protocol: Option<String>,
}

/// What the agent reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReachParams {
    /// A service's name or id.
    pub service: String,
    /// The target's own unless said otherwise; 0: any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "numbers::maybe_whole")]
    #[schema(minimum = 0, maximum = 65535)]
    pub port: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandQueued {
    pub success: bool,
    #[schema(value_type = texts::CommandId)]
    pub command_id: String,
    /// For people.
    pub message: String,
    pub agent_online: bool,
}

/// Why it was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandOutcome {
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentCommand {
    #[schema(value_type = texts::CommandId)]
    pub id: String,
    #[schema(value_type = texts::AgentId)]
    pub agent_id: String,
    #[schema(value_type = texts::CommandAction)]
    pub action: String,
    #[schema(value_type = Object)]
    pub params: Value,
    /// `queued`, `delivered`, `done`, `failed` or `expired`.
    #[schema(value_type = texts::CommandStatus)]
    pub status: String,
    /// With `done`.
    #[schema(required)]
    pub result: Option<Value>,
    /// With `failed`.
    #[schema(required)]
    pub error: Option<CommandOutcome>,
    #[schema(value_type = texts::Moment)]
    pub created_at: String,
    #[schema(value_type = texts::Moment)]
    pub updated_at: String,
    #[schema(value_type = texts::Moment)]
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentCommands {
    pub commands: Vec<AgentCommand>,
}

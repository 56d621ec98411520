//! Commands to agents: what lists of them show.

use domain::{
    agent_command::{Event, Order, Outcome},
    ids::{AgentId, CommandId, WorkspaceId},
    recorded::Recorded,
    time::Timestamp,
};
use rusqlite::{Row, Transaction, named_params, types::Type};

use super::{
    CatalogReader,
    apply::{json, run},
    query::{self, Page, PageRequest, below, more, time},
};
use crate::{
    routes::id_of,
    view::{ViewError, position, unsigned},
};

/// A command as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRow {
    pub id: CommandId,
    pub agent_id: AgentId,
    pub order: Order,
    /// `queued`, `delivered`, `done`, `failed` or `expired`.
    pub status: String,
    pub outcome: Option<Outcome>,
    pub expires_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub revision: u64,
}

const COMMAND: &str = "id, agent, agent_order, status, outcome, expires_at, created_at, updated_at, revision";

/// Takes in an event.
pub(super) fn event(db: &Transaction<'_>, recorded: &Recorded, event: &Event) -> rusqlite::Result<()> {
    let Some(id) = id_of::<CommandId>(&recorded.stream, "command-") else { return Ok(()) };
    let (workspace, id, at) = (recorded.workspace.uuid(), id.uuid(), recorded.recorded_at.millis());
    let revision = position(recorded.revision);
    let set = |status: &str, outcome: Option<String>| {
        run(
            db,
            "UPDATE commands SET status = ?3, outcome = ?4, updated_at = ?5, revision = ?6
             WHERE workspace = ?1 AND id = ?2",
            (workspace, id, status, outcome, at, revision),
        )
    };
    match event {
        Event::Queued(queued) => run(
            db,
            "INSERT OR REPLACE INTO commands VALUES (:workspace, :id, :agent, :order, 'queued', NULL, :expires_at,
                 :at, :at, :revision)",
            named_params! {
                ":workspace": workspace, ":id": id, ":at": at, ":revision": revision,
                ":agent": queued.agent_id.uuid(),
                ":order": json(&queued.order),
                ":expires_at": queued.expires_at.millis(),
            },
        ),
        Event::Delivered(_) => set("delivered", None),
        Event::Finished(finished) => {
            let status = match finished.outcome {
                Outcome::Done { .. } => "done",
                Outcome::Failed { .. } => "failed",
            };
            set(status, Some(json(&finished.outcome)))
        }
        Event::Expired(_) => set("expired", None),
    }
}

impl CatalogReader {
    /// The commands of an agent, the newest first.
    ///
    /// # Errors
    /// See [`ViewError`]; so for the question below.
    pub fn commands(
        &self,
        workspace: WorkspaceId,
        agent: AgentId,
        page: PageRequest<'_>,
    ) -> Result<Page<CommandRow>, ViewError> {
        let sql = format!(
            "SELECT {COMMAND} FROM commands WHERE workspace = ?1 AND agent = ?2 AND id < ?3
             ORDER BY id DESC LIMIT ?4"
        );
        let values = (workspace.uuid(), agent.uuid(), below(page.cursor)?, more(page));
        self.page(&sql, values, page, command_row, |row| row.id.uuid())
    }

    /// A command of a workspace.
    pub fn command(&self, workspace: WorkspaceId, id: CommandId) -> Result<Option<CommandRow>, ViewError> {
        let sql = format!("SELECT {COMMAND} FROM commands WHERE workspace = ?1 AND id = ?2");
        self.one(&sql, (workspace.uuid(), id.uuid()), command_row)
    }
}

fn command_row(row: &Row<'_>) -> rusqlite::Result<CommandRow> {
    let absent = || rusqlite::Error::InvalidColumnType(2, "agent_order".to_owned(), Type::Null);
    Ok(CommandRow {
        id: CommandId::new(row.get(0)?),
        agent_id: AgentId::new(row.get(1)?),
        order: query::json(row, 2)?.ok_or_else(absent)?,
        status: row.get(3)?,
        outcome: query::json(row, 4)?,
        expires_at: time(row, 5)?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
        revision: unsigned(row.get(8)?),
    })
}

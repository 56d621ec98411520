//! What a courier reads that is far behind the others: found by the audit's index, so that it reads of the log what
//! concerns its workspace and nothing else; where the index is not as far, everything.

use domain::{
    event::Event,
    ids::WorkspaceId,
    public_events,
    recorded::{Families, Family, Recorded, StreamName},
    webhook::Event as WebhookEvent,
};
use projections::{
    audit::{AuditReader, Following},
    view::ViewError,
};
use tokio::sync::watch;

use super::recent::{Fact, Page, Visits};
use crate::event_log::{ReadError, SharedLog};

/// Events of a stream are read in pages of this many.
const PAGE: usize = 500;
/// What is said of webhooks themselves: their couriers have to know, whatever their filters.
const OF_WEBHOOKS: [&str; 7] = [
    "webhook.created",
    "webhook.updated",
    "webhook.disabled",
    "webhook.enabled",
    "webhook.secret_rotated",
    "webhook.skipped",
    "webhook.deleted",
];

/// The audit's index and how far it is.
#[derive(Debug, Clone)]
pub struct Index {
    pub audit: AuditReader,
    pub audited: watch::Receiver<u64>,
}

/// Reads for one workspace.
#[derive(Debug)]
pub(super) struct Behind {
    log: SharedLog,
    index: Option<Index>,
    workspace: WorkspaceId,
}

impl Behind {
    pub(super) fn new(log: SharedLog, index: Option<Index>, workspace: WorkspaceId) -> Self {
        Self { log, index, workspace }
    }

    pub(super) fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// Facts behind a place that a webhook is sent, and its own, at most so many.
    pub(super) async fn facts(
        &self,
        after: u64,
        limit: usize,
        own: &StreamName,
        matches: impl Fn(&str) -> bool,
    ) -> Result<Page<Fact>, ReadError> {
        let public = public_events::TYPES.into_iter().filter(|name| matches(name));
        let types = public.chain(OF_WEBHOOKS).map(str::to_owned).collect();
        if let Some((found, audited)) = self.ask(Family::Facts, types, after, limit).await? {
            let mut items = Vec::new();
            for row in &found.rows {
                let is_others = row.stream.kind() == "webhook" && row.stream != *own;
                if is_others && !matches(&row.event_type) {
                    continue;
                }
                items.extend(self.at(row.position, Family::Facts).await?.as_ref().and_then(Fact::of));
            }
            return Ok(Page { items, to: end_of(&found, audited, after) });
        }
        let (batch, to) = self.everything(after, Family::Facts, limit).await?;
        Ok(Page { items: batch.iter().filter_map(Fact::of).collect(), to })
    }

    /// Accesses behind a place, at most so many packed events.
    pub(super) async fn visits(&self, after: u64, limit: usize) -> Result<Page<Visits>, ReadError> {
        let types = vec![public_events::ACCESSED.to_owned()];
        if let Some((found, audited)) = self.ask(Family::Accesses, types, after, limit).await? {
            let mut items = Vec::new();
            for row in &found.rows {
                items.extend(self.visits_at(row.position).await?);
            }
            return Ok(Page { items, to: end_of(&found, audited, after) });
        }
        let (batch, to) = self.everything(after, Family::Accesses, limit).await?;
        Ok(Page { items: batch.iter().filter_map(Visits::of).collect(), to })
    }

    /// The packed accesses at a position; `None` when they have left the log.
    pub(super) async fn visits_at(&self, position: u64) -> Result<Option<Visits>, ReadError> {
        Ok(self.at(position, Family::Accesses).await?.as_ref().and_then(Visits::of))
    }

    /// All that a webhook's stream says.
    pub(super) async fn of_stream(&self, stream: &StreamName) -> Result<Vec<WebhookEvent>, ReadError> {
        let (mut events, mut revision) = (Vec::new(), 1);
        loop {
            let page = self.log.read_stream(stream, revision, PAGE).await?;
            let Some(last) = page.last() else { return Ok(events) };
            revision = last.revision + 1;
            events.extend(page.iter().filter_map(|recorded| match recorded.event() {
                Ok(Event::Webhook(event)) => Some(event),
                Ok(_) | Err(_) => None,
            }));
        }
    }

    /// What the index has behind a place, and how far the index is; `None` when it is no further than that.
    async fn ask(
        &self,
        family: Family,
        types: Vec<String>,
        after: u64,
        limit: usize,
    ) -> Result<Option<(Following, u64)>, ReadError> {
        let Some(index) = &self.index else { return Ok(None) };
        // Before the question: what is added meanwhile is for the next time.
        let audited = *index.audited.borrow();
        if audited <= after {
            return Ok(None);
        }
        let (audit, workspace) = (index.audit.clone(), self.workspace);
        let asked = tokio::task::spawn_blocking(move || {
            let before = audit.number_before(workspace, family, after)?;
            audit.following(workspace, family, &types, before, limit)
        });
        let failed = |error: ViewError| ReadError::Unavailable(error.to_string());
        let found =
            asked.await.map_err(|error| ReadError::Unavailable(error.to_string()))?.map_err(failed)?;
        Ok(Some((found, audited)))
    }

    /// The event of the workspace at a position.
    async fn at(&self, position: u64, family: Family) -> Result<Option<Recorded>, ReadError> {
        let found = self.log.read_all(position.saturating_sub(1), Families::only(family), 1).await?;
        Ok(found.into_iter().next().filter(|it| it.position == position && it.workspace == self.workspace))
    }

    /// Everything behind a place, of all workspaces; what is others' is left out.
    async fn everything(
        &self,
        after: u64,
        family: Family,
        limit: usize,
    ) -> Result<(Vec<Recorded>, u64), ReadError> {
        // Before the question, again.
        let head = *self.log.head().borrow();
        let mut batch = self.log.read_all(after, Families::only(family), limit).await?;
        let to = batch.last().map_or(head, |last| last.position).max(after);
        batch.retain(|recorded| recorded.workspace == self.workspace);
        Ok((batch, to))
    }
}

/// Up to where an answer of the index has everything.
fn end_of(found: &Following, audited: u64, after: u64) -> u64 {
    match found.reached {
        Some((_, position)) if found.more => position.max(after),
        Some(_) | None => audited.max(after),
    }
}

//! Webhooks: by workspace, those that are not deleted.

use std::sync::Arc;

use domain::{
    ids::{WebhookId, WorkspaceId},
    webhook::{Event, Webhook},
};

use super::{Brought, Entry, Gone, Routes, id_of};

impl Routes {
    pub fn webhook(&self, id: WebhookId) -> Option<Arc<Entry<Webhook>>> {
        self.webhooks.get(&id).map(|entry| Arc::clone(&entry))
    }
    /// The webhooks of a workspace, oldest first.
    pub fn webhooks_of(&self, workspace: WorkspaceId) -> Vec<WebhookId> {
        self.webhooks_by_workspace
            .get(&workspace)
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default()
    }
    /// Every webhook that is there or was deleted lately: for start-up and couriers, not for request paths.
    pub fn all_webhooks(&self) -> Vec<(WebhookId, Arc<Entry<Webhook>>)> {
        self.webhooks.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    pub(super) fn apply_webhook(&self, brought: Brought<'_>, event: &Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of(&recorded.stream, "webhook-") else { return };
        self.fold(&self.webhooks, id, brought, event, |_, after| match after {
            Webhook::Unknown => {}
            Webhook::Live(details) => {
                self.webhooks_by_workspace.entry(details.created.workspace_id).or_default().insert(id);
            }
            Webhook::Deleted(details) => {
                let workspace = details.created.workspace_id;
                if let Some(mut living) = self.webhooks_by_workspace.get_mut(&workspace) {
                    living.remove(&id);
                }
                self.webhooks_by_workspace.remove_if(&workspace, |_, living| living.is_empty());
                self.note_end(recorded, Gone::Webhook(id, recorded.revision));
            }
        });
    }
}

#[cfg(test)]
mod tests;

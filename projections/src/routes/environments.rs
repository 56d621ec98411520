//! Environment shares: by workspace, by the digest of their code, and by the agents that have joined them.

use std::sync::Arc;

use domain::{
    environment::{Environment, Event},
    ids::{AgentId, EnvironmentId, WorkspaceId},
};

use super::{Brought, Digest, Entry, Gone, Routes, id_of, unhex};

impl Routes {
    pub fn environment(&self, id: EnvironmentId) -> Option<Arc<Entry<Environment>>> {
        self.environments.get(&id).map(|entry| Arc::clone(&entry))
    }
    /// The environment share of a workspace whose code has this digest, unless an event says that it has ended; its
    /// time may be over.
    pub fn environment_by_code(
        &self,
        workspace: WorkspaceId,
        digest: &Digest,
    ) -> Option<(EnvironmentId, Arc<Entry<Environment>>)> {
        let id = self.environments_by_code.get(&(workspace, *digest)).map(|found| *found)?;
        Some((id, self.environment(id)?))
    }
    /// The environment shares of a workspace that no event has ended, oldest first.
    pub fn environments_of(&self, workspace: WorkspaceId) -> Vec<EnvironmentId> {
        self.environments_by_workspace
            .get(&workspace)
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default()
    }
    /// The environment shares that an agent has joined, lately ended ones too.
    pub fn environments_joined_by(&self, agent: AgentId) -> Vec<(EnvironmentId, Arc<Entry<Environment>>)> {
        let joined: Vec<EnvironmentId> = self
            .environments_by_joiner
            .get(&agent)
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default();
        joined.into_iter().filter_map(|id| Some((id, self.environment(id)?))).collect()
    }
    /// Every environment share that lives or ended lately: for start-up and sweeps, not for request paths.
    pub fn all_environments(&self) -> Vec<(EnvironmentId, Arc<Entry<Environment>>)> {
        self.environments.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    pub(super) fn apply_environment(&self, brought: Brought<'_>, event: &Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of(&recorded.stream, "environment-") else { return };
        self.fold(&self.environments, id, brought, event, |_, after| {
            let Some(shared) = &after.shared else { return };
            if let Event::Joined(joined) = event {
                self.environments_by_joiner.entry(joined.agent_id).or_default().insert(id);
            }
            let of_code = unhex(&shared.code_hash).map(|digest| (shared.workspace_id, digest));
            if after.ended.is_none() {
                self.environments_by_workspace.entry(shared.workspace_id).or_default().insert(id);
                if let Some(of_code) = of_code {
                    self.environments_by_code.insert(of_code, id);
                }
                return;
            }
            if let Some(of_code) = of_code {
                self.environments_by_code.remove_if(&of_code, |_, holder| *holder == id);
            }
            if let Some(mut living) = self.environments_by_workspace.get_mut(&shared.workspace_id) {
                living.remove(&id);
            }
            self.environments_by_workspace.remove_if(&shared.workspace_id, |_, living| living.is_empty());
            self.note_end(recorded, Gone::Environment(id, recorded.revision));
        });
    }

    pub(super) fn forget_environment(&self, id: EnvironmentId, revision: u64) {
        let gone = self.environments.remove_if(&id, |_, entry| entry.revision == revision);
        for (agent, _) in gone.iter().flat_map(|(_, entry)| entry.state.joined()) {
            if let Some(mut joined) = self.environments_by_joiner.get_mut(&agent) {
                joined.remove(&id);
            }
            self.environments_by_joiner.remove_if(&agent, |_, joined| joined.is_empty());
        }
    }
}

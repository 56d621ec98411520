//! What waits for agents: commands, messages, and who offers what.

use std::{collections::BTreeSet, sync::Arc};

use domain::{
    agent::Agent,
    agent_command::{self, AgentCommand},
    ids::{AgentId, CommandId, MessageId, WorkspaceId},
    message::{self, Message},
};

use super::{Brought, Entry, Gone, Routes, id_of};

impl Routes {
    /// A command that waits, or ended lately.
    pub fn command(&self, id: CommandId) -> Option<Arc<Entry<AgentCommand>>> {
        self.commands.get(&id).map(|entry| Arc::clone(&entry))
    }
    /// What an agent has yet to do or to answer, the oldest first.
    pub fn pending_commands(&self, agent: AgentId) -> Vec<(CommandId, Arc<Entry<AgentCommand>>)> {
        let ids: Vec<CommandId> =
            self.commands_by_agent.get(&agent).map(|ids| ids.iter().copied().collect()).unwrap_or_default();
        ids.into_iter().filter_map(|id| Some((id, self.command(id)?))).collect()
    }
    /// Every command in memory: for start-up, not for request paths.
    pub fn all_commands(&self) -> Vec<(CommandId, Arc<Entry<AgentCommand>>)> {
        self.commands.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    /// A message that is kept, or was until lately.
    pub fn message(&self, id: MessageId) -> Option<Arc<Entry<Message>>> {
        self.messages.get(&id).map(|entry| Arc::clone(&entry))
    }
    /// What is in an agent's box, the newest first; some of it may be over by the clock.
    pub fn messages_of(&self, agent: AgentId) -> Vec<(MessageId, Arc<Entry<Message>>)> {
        let ids: Vec<MessageId> = self
            .messages_by_agent
            .get(&agent)
            .map(|ids| ids.iter().rev().copied().collect())
            .unwrap_or_default();
        ids.into_iter().filter_map(|id| Some((id, self.message(id)?))).collect()
    }
    /// Every message in memory: for start-up, not for request paths.
    pub fn all_messages(&self) -> Vec<(MessageId, Arc<Entry<Message>>)> {
        self.messages.iter().map(|entry| (*entry.key(), Arc::clone(entry.value()))).collect()
    }

    /// The agents of a workspace that offer something of that name.
    pub fn agents_offering(&self, workspace: WorkspaceId, capability: &str) -> Vec<AgentId> {
        self.agents_by_capability
            .get(&(workspace, capability.to_owned()))
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default()
    }

    pub(super) fn apply_command(&self, brought: Brought<'_>, event: &agent_command::Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of::<CommandId>(&recorded.stream, "command-") else { return };
        // An agent may say what came of a command that had expired, and left, long before.
        if !matches!(event, agent_command::Event::Queued(_)) && !self.commands.contains_key(&id) {
            return;
        }
        self.fold(&self.commands, id, brought, event, |before: Option<&AgentCommand>, after| {
            let agent = |of: &AgentCommand| of.pending().map(|queued| queued.agent_id);
            let (was, is) = (before.and_then(agent), agent(after));
            if let Some(agent) = is {
                self.commands_by_agent.entry(agent).or_default().insert(id);
            } else if let Some(agent) = was {
                self.commands_by_agent.entry(agent).and_modify(|ids| {
                    ids.remove(&id);
                });
                self.commands_by_agent.remove_if(&agent, |_, ids| ids.is_empty());
                // It ends once, whatever is said of it afterwards.
                self.note_end(recorded, Gone::Command(id));
            }
        });
    }

    pub(super) fn apply_message(&self, brought: Brought<'_>, event: &message::Event) {
        let recorded = brought.recorded;
        let Some(id) = id_of::<MessageId>(&recorded.stream, "message-") else { return };
        self.fold(&self.messages, id, brought, event, |_, after| {
            let Some(sent) = &after.sent else { return };
            if after.expired {
                self.messages_by_agent.entry(sent.to).and_modify(|ids| {
                    ids.remove(&id);
                });
                self.messages_by_agent.remove_if(&sent.to, |_, ids| ids.is_empty());
                self.note_end(recorded, Gone::Message(id, recorded.revision));
            } else {
                self.messages_by_agent.entry(sent.to).or_default().insert(id);
            }
        });
    }

    pub(super) fn index_capabilities(&self, id: AgentId, before: Option<&Agent>, after: &Agent) {
        let Some(workspace) = after.registered.as_ref().map(|registered| registered.workspace_id) else {
            return;
        };
        let names = |agent: &Agent| -> BTreeSet<String> {
            agent.capabilities.iter().map(|offered| offered.name.as_str().to_owned()).collect()
        };
        let (was, is) = (before.map(names).unwrap_or_default(), names(after));
        for name in was.difference(&is) {
            let key = (workspace, name.clone());
            self.agents_by_capability.entry(key.clone()).and_modify(|ids| {
                ids.remove(&id);
            });
            self.agents_by_capability.remove_if(&key, |_, ids| ids.is_empty());
        }
        for name in is.difference(&was) {
            self.agents_by_capability.entry((workspace, name.clone())).or_default().insert(id);
        }
    }
}

#[cfg(test)]
mod tests;

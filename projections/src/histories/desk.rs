//! What waits for agents, in histories.

use domain::{
    agent::{self, Capability},
    agent_command::{self, AgentCommand, CommandQueued, Order, Outcome},
    ids::{CommandId, MessageId, SessionId},
    message::{self, Message, MessageSent},
    recorded::StreamName,
};

use super::{World, agent_id, id, name, workspace_id};

pub(crate) fn command_id(number: u8) -> CommandId {
    CommandId::new(id(0x700 + u128::from(number)))
}
pub(crate) fn message_id(number: u8) -> MessageId {
    MessageId::new(id(0x800 + u128::from(number)))
}

impl World {
    /// A command of an agent's workspace.
    pub(crate) fn command(&mut self, number: u8, agent: u8, command: &agent_command::Command) {
        let stream = StreamName::command(command_id(number));
        self.tell::<AgentCommand>(&stream, workspace_id(agent % 2), command);
    }
    pub(crate) fn queue_command(&mut self, number: u8, agent: u8, life_ms: i64) {
        let now = self.now();
        let command = CommandQueued {
            command_id: command_id(number),
            workspace_id: workspace_id(agent % 2),
            agent_id: agent_id(agent),
            order: Order::Restart,
            expires_at: now.plus_ms(life_ms),
        };
        self.command(number, agent, &agent_command::Command::Queue { command, now });
    }
    /// A message of the receiver's workspace.
    pub(crate) fn message(&mut self, number: u8, to: u8, command: &message::Command) {
        let stream = StreamName::message(message_id(number));
        self.tell::<Message>(&stream, workspace_id(to % 2), command);
    }
    pub(crate) fn send_message(&mut self, number: u8, from: u8, to: u8, life_ms: i64) {
        let now = self.now();
        let message = MessageSent {
            message_id: message_id(number),
            workspace_id: workspace_id(to % 2),
            from: agent_id(from),
            to: agent_id(to),
            key_id: None,
            topic: None,
            broadcast: false,
            payload_bytes: 2,
            expires_at: now.plus_ms(life_ms),
        };
        self.message(number, to, &message::Command::Send { message, now });
    }

    pub(super) fn step_at_the_desk(&mut self, a: u8, b: u8) {
        let now = self.now();
        // A command and a message have one agent.
        match b % 9 {
            0 | 1 => self.queue_command(a % 12, a % 6, 3_600_000),
            2 => {
                let session_id = SessionId::new(id(0x600));
                self.command(a % 12, a % 6, &agent_command::Command::Deliver { session_id });
            }
            3 => {
                let outcome = Outcome::Done { result: serde_json::json!({ "b": b }) };
                self.command(a % 12, a % 6, &agent_command::Command::Finish { outcome });
            }
            4 => self.command(a % 12, a % 6, &agent_command::Command::Expire { now }),
            5 | 6 => self.send_message(a % 12, a % 2, a % 6, 3_600_000),
            7 => {
                let command = if b.is_multiple_of(2) {
                    message::Command::MarkRead
                } else {
                    message::Command::Expire { now }
                };
                self.message(a % 12, a % 6, &command);
            }
            _ => {
                let capability =
                    Capability { name: name(["gpu", "deploy"][usize::from(b / 9 % 2)]), metadata: [].into() };
                self.agent(a % 6, &agent::Command::SetCapabilities { capabilities: vec![capability] });
            }
        }
    }
}

//! Which commands were begun and how they ended, also beyond the end of the process.
//!
//! The file is written whole and atomically, for its owner only. Without one, or when it cannot be written, commands
//! are remembered for as long as the process runs; a file that cannot be read is begun anew.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use schemas::frames::{CommandFailure, CommandOutcome};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many commands are remembered: several times what the hub lets wait for one agent.
const REMEMBERED_MAX: usize = 512;
/// A file longer than this is none of ours (bytes): that many results of the greatest length.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it is begun now.
    New,
    /// It is being carried out by this process.
    Begun,
    /// A process that has gone began it.
    InDoubt(CommandOutcome),
    Ended(CommandOutcome),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    command: Uuid,
    /// `None`: begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<End>,
    #[serde(skip)]
    is_ours: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Done(String),
    Failed { code: String, message: String },
}

impl End {
    fn of(outcome: &CommandOutcome) -> Self {
        match outcome.clone() {
            CommandOutcome::Done(json) => Self::Done(json),
            CommandOutcome::Failed(CommandFailure { code, message }) => Self::Failed { code, message },
        }
    }
    fn outcome(&self) -> CommandOutcome {
        match self.clone() {
            Self::Done(json) => CommandOutcome::Done(json),
            Self::Failed { code, message } => CommandOutcome::Failed(CommandFailure { code, message }),
        }
    }
}

/// The oldest first.
#[derive(Debug, Default)]
pub(super) struct Memory {
    commands: VecDeque<Remembered>,
    file: Option<PathBuf>,
}

impl Memory {
    pub(super) fn open(file: Option<PathBuf>) -> Self {
        let commands = file.as_deref().and_then(read).unwrap_or_default();
        Self { commands, file }
    }

    /// Notes that a command is begun, if it was not before.
    pub(super) fn begin(&mut self, command: u128) -> Known {
        let id = Uuid::from_u128(command);
        if let Some(known) = self.commands.iter_mut().find(|known| known.command == id) {
            return match &known.end {
                Some(end) => Known::Ended(end.outcome()),
                None if known.is_ours => Known::Begun,
                None => {
                    let outcome = CommandOutcome::Failed(CommandFailure {
                        code: "in_doubt".to_owned(),
                        message: "the agent's process ended while it carried the command out: look before sending it again"
                            .to_owned(),
                    });
                    known.end = Some(End::of(&outcome));
                    self.save();
                    Known::InDoubt(outcome)
                }
            };
        }
        if self.commands.len() >= REMEMBERED_MAX {
            self.commands.pop_front();
        }
        self.commands.push_back(Remembered { command: id, end: None, is_ours: true });
        self.save();
        Known::New
    }

    /// Notes how a command ended.
    pub(super) fn end(&mut self, command: u128, outcome: &CommandOutcome) {
        let id = Uuid::from_u128(command);
        if let Some(known) = self.commands.iter_mut().find(|known| known.command == id) {
            known.end = Some(End::of(outcome));
            self.save();
        }
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = write(file, &self.commands) {
            tracing::warn!(%error, "commands are remembered only as long as this process runs");
        }
    }
}

fn read(file: &Path) -> Option<VecDeque<Remembered>> {
    if fs::metadata(file).ok()?.len() > BYTES_MAX {
        return None;
    }
    let mut commands: VecDeque<Remembered> = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    while commands.len() > REMEMBERED_MAX {
        commands.pop_front();
    }
    Some(commands)
}

fn write(file: &Path, commands: &VecDeque<Remembered>) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    crate::settings::config_file::private_folder(folder)?;
    // Mode 0600 from its creation on.
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&serde_json::to_vec(commands)?)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn done() -> CommandOutcome {
        CommandOutcome::Done("{}".to_owned())
    }

    #[test]
    fn a_command_is_begun_once_and_its_end_is_said_again() {
        let mut memory = Memory::open(None);
        assert_eq!(memory.begin(1), Known::New);
        assert_eq!(memory.begin(1), Known::Begun);
        memory.end(1, &done());
        assert_eq!(memory.begin(1), Known::Ended(done()));
    }

    #[test]
    fn what_ended_is_remembered_by_the_next_process_and_what_did_not_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deeper").join("commands.json");
        let mut memory = Memory::open(Some(file.clone()));
        memory.begin(1);
        memory.end(1, &done());
        memory.begin(2);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut next = Memory::open(Some(file.clone()));
        assert_eq!(next.begin(1), Known::Ended(done()));
        let Known::InDoubt(outcome) = next.begin(2) else { panic!("it was begun") };
        assert_eq!(next.begin(2), Known::Ended(outcome.clone()));
        assert_eq!(Memory::open(Some(file)).begin(2), Known::Ended(outcome), "and stays so");
    }

    #[test]
    fn the_memory_is_bounded_and_a_broken_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("commands.json");
        fs::write(&file, "no JSON").unwrap();
        let mut memory = Memory::open(Some(file));
        for command in 0..REMEMBERED_MAX as u128 + 10 {
            assert_eq!(memory.begin(command), Known::New);
        }
        assert_eq!(memory.commands.len(), REMEMBERED_MAX);
    }
}

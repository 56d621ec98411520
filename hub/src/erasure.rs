//! Erases what is personal in records of the past: who came, from where, with what; texts between agents.
//!
//! The records stay, and with them the chain over them: only the keys that open what is sealed in them are destroyed, for
//! ever, also where an older copy of the keyring is put back. Destroyed first and noted second: killed in between, it is
//! erased without a note, and whoever asks again, having had no answer, leaves one.

use std::sync::Arc;

use domain::{
    ids::{ShareId, WorkspaceId},
    time::{Day, Timestamp},
    workspace::{self, PersonalErased},
};

use crate::{
    actors::{Done, ExecuteError, Executor, Who},
    keyring::{Keyring, KeyringError, Whose},
};

/// Why nothing was erased, or it is not noted.
#[derive(Debug)]
pub enum EraseError {
    Keyring(KeyringError),
    /// The keys are destroyed.
    Note(ExecuteError<workspace::Rejection>),
    Stopped(String),
}

/// Whose data of which days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erase {
    pub workspace: WorkspaceId,
    /// The visitors of this share; `None`: everybody in the workspace.
    pub share: Option<ShareId>,
    pub first_day: Day,
    pub last_day: Day,
    pub now: Timestamp,
}

impl Erase {
    /// Destroys the keys and notes it; answers how many they were.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub async fn carry_out(
        self,
        keyring: &Arc<Keyring>,
        executor: &Executor,
        who: Who,
    ) -> Result<(u64, Done), EraseError> {
        let whose = match self.share {
            Some(share) => Whose::Share(self.workspace, share),
            None => Whose::Everybody(self.workspace),
        };
        let keyring = Arc::clone(keyring);
        let (first, last) = (self.first_day.number(), self.last_day.number());
        let destroyed = tokio::task::spawn_blocking(move || keyring.destroy(whose, first, last)).await;
        let destroyed = destroyed.map_err(|error| EraseError::Stopped(error.to_string()))?;
        let keys = u64::try_from(destroyed.map_err(EraseError::Keyring)?).unwrap_or(u64::MAX);
        let erased = PersonalErased {
            share_id: self.share,
            first_day: self.first_day,
            last_day: self.last_day,
            erased_at: self.now,
            keys,
        };
        let note = workspace::Command::NoteErasure(erased);
        let done = executor.workspace(self.workspace, who, note).await.map_err(EraseError::Note)?;
        Ok((keys, done))
    }
}

//! The seam to the agent library: what `connect` needs of an agent session, and nothing of how it works.

use std::{fmt, future::Future};

use domain::target::Target;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

/// How the agent session stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "state")]
pub enum SessionState {
    /// On its way, first or again.
    Connecting {
        attempt: u32,
        last_error: Option<String>,
    },
    Connected {
        epoch: u64,
    },
    /// The hub will not have it; trying again by itself makes no sense.
    Refused {
        code: String,
        message: String,
    },
}

impl SessionState {
    /// Before anything was tried.
    pub const fn begin() -> Self {
        Self::Connecting { attempt: 0, last_error: None }
    }
    pub const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// Why a local port was not opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReachError {
    /// Somebody else listens there.
    Taken,
    /// In the system's words.
    Failed(String),
}

impl fmt::Display for ReachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("somebody else listens there"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}
impl std::error::Error for ReachError {}

/// One live agent session of this process.
pub trait Session: Send + Sync + 'static {
    /// An open local port; closes when dropped.
    type Port: Send + 'static;

    /// Follows the state.
    fn states(&self) -> watch::Receiver<SessionState>;
    /// From now on the hub may have this target dialled.
    fn allow(&self, target: &Target);
    /// Opens a local port that leads to a tunnel; port 0 takes any.
    fn reach(&self, tunnel: Uuid, port: u16) -> impl Future<Output = Result<Self::Port, ReachError>> + Send;
    /// The number of an open port.
    fn number(port: &Self::Port) -> u16;
    /// Says goodbye to the hub and ends.
    fn stop(&self) -> impl Future<Output = ()> + Send;
}

/// Starts sessions: at first, after a takeover, after the credentials were renewed.
pub trait Launch: Send + Sync + 'static {
    type Session: Session;

    fn launch(&self) -> Self::Session;
    /// After the hub refused the credentials: gets new ones. `false` when that does not help.
    fn renew(&self) -> impl Future<Output = bool> + Send;
}

//! The seam to the agent library: what `connect` needs of an agent session, and nothing of how it works.

use std::{fmt, future::Future};

use domain::target::Target;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::agent::{Carries, CertificateCheck, Refusals};

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
    /// Somebody had the agent stop, by a command over the hub: every process of it ends.
    Stopped,
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

/// Whether this machine's target of a tunnel can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    Answers,
    /// It speaks TLS, and its certificate is not accepted; why, in words.
    Distrusted(String),
    /// Why not, in words.
    Unreachable(String),
    /// It is not on the list of what may be dialled.
    NotAllowed(String),
}

/// One live agent session of this process.
pub trait Session: Send + Sync + 'static {
    /// An open local port; closes when dropped.
    type Port: Send + 'static;

    /// Follows the state.
    fn states(&self) -> watch::Receiver<SessionState>;
    /// From now on the hub may have this target dialled.
    fn allow(&self, target: &Target);
    /// From now on the certificate of this target is judged so.
    ///
    /// # Errors
    /// Why that cannot be, in words.
    fn check_certificate(&self, target: &Target, check: &CertificateCheck) -> Result<(), String>;
    /// Opens a local port that leads to a tunnel, the service of that name; port 0 takes any.
    fn reach(
        &self,
        tunnel: Uuid,
        service: &str,
        carries: Carries,
        port: u16,
    ) -> impl Future<Output = Result<Self::Port, ReachError>> + Send;
    /// The number of an open port.
    fn number(port: &Self::Port) -> u16;
    /// Follows the connections to an open port that were refused, counted since it was opened.
    fn refusals(port: &Self::Port) -> watch::Receiver<Refusals>;
    /// How the target of one of this agent's tunnels stands, once it is known and no longer as `seen`. `None`: the
    /// session is over.
    fn target(
        &self,
        tunnel: Uuid,
        seen: Option<&TargetState>,
    ) -> impl Future<Output = Option<TargetState>> + Send;
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

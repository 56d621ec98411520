//! What the processes of one machine say to each other: one JSON object a line over a socket of mode 0600.

use domain::target::Target;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, LinesCodec};
use uuid::Uuid;

use super::{
    news::News,
    session::{ReachError, SessionState},
};
use crate::agent::{Carries, CertificateCheck};

/// The version of this conversation; another version is another build of `connect`.
pub(super) const PROTOCOL: u16 = 4;
/// The longest line, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// What a process wants of the session, for as long as the process lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Want {
    Allow(Target),
    Reach {
        tunnel: Uuid,
        service: String,
        carries: Carries,
        port: u16,
    },
    /// How the certificate of a target is judged; a path is absolute.
    CheckCertificate {
        target: Target,
        check: CertificateCheck,
    },
    /// News about whether the target of one of this agent's tunnels answers.
    Watch {
        tunnel: Uuid,
    },
}

/// From an attached process to the one that holds the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) want: Want,
}

/// The answer to a [`Want`]: the port that is open, 0 where none was asked for.
pub(super) type Granted = Result<u16, ReachError>;

/// From the process that holds the session to an attached one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tell {
    /// The first line.
    Hello {
        protocol: u16,
    },
    State(SessionState),
    Answer {
        id: u64,
        granted: Granted,
    },
    News(News),
}

/// Lines in both directions.
pub(super) struct Line<S>(Framed<S, LinesCodec>);

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self(Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX)))
    }
    /// Sends one object; `false` when nobody listens any more.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> bool {
        let line = serde_json::to_string(message).expect("our own messages have string keys only");
        self.0.send(line).await.is_ok()
    }
    /// The next object; `None` at the end and after anything that is none. Cancel-safe.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = self.0.next().await?.ok()?;
        serde_json::from_str(&line).ok()
    }
}

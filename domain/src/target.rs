//! Where a tunnel leads: `host:port`, how it is spoken to, and what it is called when nobody names it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a tunnel's target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Decided by looking at the traffic or target.
    Auto,
    Tcp,
    Udp,
    Http,
    Https,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = InvalidProtocol;
    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        [Self::Auto, Self::Tcp, Self::Udp, Self::Http, Self::Https]
            .into_iter()
            .find(|protocol| protocol.name() == text)
            .ok_or(InvalidProtocol)
    }
}

/// The text names no protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of auto, tcp, udp, http, https")]
pub struct InvalidProtocol;

/// A host and a port that an agent dials. The host is kept without brackets; [`fmt::Display`] adds them for IPv6.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

//! Where a tunnel leads: `host:port`, how it is spoken to, and what it is called when nobody names it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{names::NAME_CHARS_MAX, policy::ports::protected_engine};

mod host;
pub use host::InvalidHost;

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

/// Why a text is no [`Target`]; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    #[error("must be host:port, such as localhost:3000")]
    Form,
    #[error("must be host:port without a scheme such as http://; say how it is spoken to with the protocol")]
    Scheme,
    #[error("must be host:port without user name or password; credentials stay with the agent")]
    UserInfo,
    #[error("must be host:port without a path or query")]
    Path,
    #[error("needs a host before the port, such as localhost")]
    HostMissing,
    #[error("needs a port after the host, such as localhost:3000")]
    PortMissing,
    #[error("the port must be a number from 1 to 65535")]
    PortRange,
    #[error("an IPv6 address with a port needs brackets, such as [::1]:5432")]
    BracketsMissing,
    #[error(transparent)]
    Host(#[from] InvalidHost),
}

impl Target {
    /// Reads `host:port`, with an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`InvalidTarget`] says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidTarget> {
        if text.contains("://") {
            return Err(InvalidTarget::Scheme);
        }
        if text.contains('@') {
            return Err(InvalidTarget::UserInfo);
        }
        if text.contains(['/', '?', '#']) {
            return Err(InvalidTarget::Path);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(InvalidTarget::Form)?;
            let port = rest.strip_prefix(':').ok_or(if rest.is_empty() {
                InvalidTarget::PortMissing
            } else {
                InvalidTarget::Form
            })?;
            return Ok(Self { host: host::ipv6(host)?, port: port_of(port)? });
        }
        let (host, port) = text.rsplit_once(':').ok_or(match text {
            "" => InvalidTarget::Form,
            _ => InvalidTarget::PortMissing,
        })?;
        match host {
            "" => Err(InvalidTarget::HostMissing),
            _ if host.contains(':') => Err(InvalidTarget::BracketsMissing),
            _ => Ok(Self { host: host::name_or_ipv4(host)?, port: port_of(port)? }),
        }
    }

    /// Like [`Target::parse`]; besides, `:3000` means this machine. For the command line alone: in an API call "this
    /// machine" would be nobody's.
    ///
    /// # Errors
    /// See [`InvalidTarget`].
    pub fn parse_local(text: &str) -> Result<Self, InvalidTarget> {
        match text.strip_prefix(':') {
            Some(port) if !port.contains(':') => {
                Ok(Self { host: "localhost".to_owned(), port: port_of(port)? })
            }
            Some(_) | None => Self::parse(text),
        }
    }

    /// From a host, an IPv6 address with or without brackets, and a number.
    ///
    /// # Errors
    /// See [`InvalidTarget`].
    pub fn new(host: &str, port: i64) -> Result<Self, InvalidTarget> {
        if host.is_empty() {
            return Err(InvalidTarget::HostMissing);
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bare {
            Some(bare) => host::ipv6(bare)?,
            None if host.contains(':') => host::ipv6(host)?,
            None => host::name_or_ipv4(host)?,
        };
        Ok(Self { host, port: in_range(port)? })
    }
}

fn port_of(text: &str) -> Result<u16, InvalidTarget> {
    if text.is_empty() {
        return Err(InvalidTarget::PortMissing);
    }
    if !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(InvalidTarget::PortRange);
    }
    // Only digits are left: what does not fit is too large.
    in_range(text.parse().unwrap_or(i64::MAX))
}

fn in_range(port: i64) -> Result<u16, InvalidTarget> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or(InvalidTarget::PortRange)
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

/// What a tunnel to this port is called when nobody names it.
pub fn default_name(port: u16) -> String {
    let known = match port {
        22 => "ssh",
        80 | 443 | 3000 => "web",
        1433 => "sqlserver",
        1521 => "oracle",
        3306 => "mysql",
        5432 => "postgres",
        5672 => "rabbitmq",
        6379 | 6380 => "redis",
        7687 => "neo4j",
        8080 => "api",
        8529 => "arangodb",
        9042 => "cassandra",
        9092 => "kafka",
        9200 => "elasticsearch",
        11211 => "memcached",
        26257 => "cockroachdb",
        27017 => "mongodb",
        50000 => "db2",
        _ => return format!("service-{port}"),
    };
    known.to_owned()
}

/// The n-th try of a name that must be unique: itself, then `name-2`, `name-3`, cut so that it stays a
/// [`Name`](crate::names::Name) when it was one.
pub fn numbered(name: &str, number: usize) -> String {
    if number <= 1 {
        return name.to_owned();
    }
    let suffix = format!("-{number}");
    let kept: String = name.chars().take(NAME_CHARS_MAX - suffix.len()).collect();
    format!("{}{suffix}", kept.trim_end())
}

/// A database whose queries a share can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    Postgres,
    MySql,
    Redis,
    MongoDb,
}

impl Engine {
    /// The engine that usually listens on a port.
    pub const fn of_port(port: u16) -> Option<Self> {
        match port {
            5432 | 26257 => Some(Self::Postgres),
            3306 => Some(Self::MySql),
            6379 | 6380 => Some(Self::Redis),
            27017 => Some(Self::MongoDb),
            _ => None,
        }
    }
}

/// What a client on the reaching machine connects to: by detected engine, else the target's port, else the protocol.
pub fn connection_string(
    protocol: Protocol,
    target_port: u16,
    local_port: u16,
    engine: Option<Engine>,
) -> String {
    match (engine.or(Engine::of_port(target_port)), protocol) {
        (Some(Engine::Postgres), _) => format!("postgres://localhost:{local_port}/postgres"),
        (Some(Engine::MySql), _) => format!("mysql://localhost:{local_port}"),
        (Some(Engine::Redis), _) => format!("redis://localhost:{local_port}"),
        (Some(Engine::MongoDb), _) => format!("mongodb://localhost:{local_port}"),
        (None, Protocol::Http) => format!("http://localhost:{local_port}"),
        (None, Protocol::Https) => format!("https://localhost:{local_port}"),
        (None, Protocol::Auto | Protocol::Tcp | Protocol::Udp) => format!("tcp://localhost:{local_port}"),
    }
}

/// Whether a port belongs to a database: never published, its shares serve queries only.
pub const fn is_database(port: u16) -> bool {
    protected_engine(port).is_some()
}

/// How a share serves its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shareable {
    /// Requests are proxied.
    Http,
    /// Only the query endpoint and its page, never bytes.
    QueryOnly,
    /// Not at all: 400 `not_shareable`.
    No,
}

/// How a share of a tunnel would serve it (product.md section 3). A database's port decides whatever the protocol
/// says: `https` must not open a way around its protection.
pub const fn shareable(protocol: Protocol, port: u16) -> Shareable {
    match protocol {
        Protocol::Udp => Shareable::No,
        _ if is_database(port) => Shareable::QueryOnly,
        Protocol::Tcp => Shareable::No,
        Protocol::Auto | Protocol::Http | Protocol::Https => Shareable::Http,
    }
}

#[cfg(test)]
mod tests;

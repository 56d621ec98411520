//! Where the database is, as an operator writes it, and how far the way there is trusted.
//!
//! Nothing that is said of an address, right or wrong, has its user or password in it: what could be one of them by a
//! slip of the pen (an `@` or `#` that should have been written as `%40` or `%23`) is not repeated either.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Config, Host, SslMode};
use wire::tls::trust::Trust;

/// How long a server may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// When a peer that says nothing is looked after, how often, and how long sent bytes may stay unconfirmed: a server that
/// is gone is noticed in half a minute at most, whatever the system's own settings.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const UNCONFIRMED_MAX: Duration = Duration::from_secs(15);

/// Why an address is none. Says nothing of what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "the log's address must be like postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full, with special \
         characters in user and password percent-encoded"
    )]
    Form,
    #[error("this build has no event log in KurrentDB or EventStoreDB; use postgres://…")]
    EventStore,
    #[error(
        "sslmode `prefer` and `allow` fall back to a connection that everybody can read; use `verify-full`, or \
         `disable` on a network of your own"
    )]
    FallsBack,
    #[error("sslmode must be one of disable, require, verify-ca, verify-full")]
    SslMode,
    #[error("the log's address takes no parameters but sslmode, sslrootcert, host and port")]
    Parameter,
}

/// A database.
#[derive(Clone)]
pub struct Address {
    config: Config,
    /// Whom to believe, where TLS is spoken.
    trust: Option<Trust>,
    shown: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`AddressError`], without a word of what was written.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.starts_with("esdb://") || text.starts_with("esdb+discover://") {
            return Err(AddressError::EventStore);
        }
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(AddressError::Form);
        }
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        let (mut ssl_mode, mut root, mut passed) = (None, None, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(AddressError::Parameter)?;
            match name {
                "sslmode" => ssl_mode = Some(value),
                "sslrootcert" => root = Some(decoded(value)?),
                "host" | "port" => passed.push(parameter),
                _ => return Err(AddressError::Parameter),
            }
        }
        let rest = format!("{place}?{}", passed.join("&"));
        let mut config: Config = rest.trim_end_matches('?').parse().map_err(|_| AddressError::Form)?;
        let shown = shown(&config).ok_or(AddressError::Form)?;
        let trust = match ssl_mode {
            Some("disable") => None,
            Some("require" | "verify-ca" | "verify-full") => Some(believed(root)),
            Some("prefer" | "allow") => return Err(AddressError::FallsBack),
            Some(_) => return Err(AddressError::SslMode),
            None if root.is_none() && config.get_hosts().iter().all(is_here) => None,
            None => Some(believed(root)),
        };
        config
            .application_name("private-connect-hub")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNCONFIRMED_MAX)
            .ssl_mode(if trust.is_some() { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, trust, shown })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
    pub(super) fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
}

fn believed(root: Option<String>) -> Trust {
    root.map_or(Trust::System, |file| Trust::File(PathBuf::from(file)))
}

fn decoded(text: &str) -> Result<String, AddressError> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| AddressError::Form)
}

/// Whether the way to the server leaves this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Server and database in words; `None` if a part of it does not look like one and may be a secret in the wrong place.
fn shown(config: &Config) -> Option<String> {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:/".contains(&b))
    };
    let hosts = config.get_hosts();
    let ports = config.get_ports();
    let mut servers = Vec::new();
    for (at, host) in hosts.iter().enumerate() {
        let name = match host {
            Host::Tcp(name) if plain(name) && !name.contains('/') => name.clone(),
            Host::Unix(path) => path.to_str().filter(|path| plain(path))?.to_owned(),
            Host::Tcp(_) => return None,
        };
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        servers.push(if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") });
    }
    // A name of a database may have any character, but one that is needed in a log of ours does not have to.
    let database = match config.get_dbname() {
        Some(name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) => name,
        Some(_) => return None,
        None => "",
    };
    (!servers.is_empty()).then(|| format!("PostgreSQL at {}/{database}", servers.join(",")))
}

#[cfg(test)]
mod tests;

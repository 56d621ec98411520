//! Where webhooks may be sent, as far as a URL alone says it. What a name resolves to is judged at every try.
//!
//! One spelling for one place: no user names, no fragments, no IPv4 in octal, hexadecimal or as one number, no trailing
//! dot. A parser that reads a URL otherwise than this one finds nothing to read otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{addresses, ports};

/// The longest URL (bytes).
pub const URL_BYTES_MAX: usize = 2_000;

/// Ports that no web server has and other things do: what browsers refuse as well (the fetch standard's list of bad
/// ports), and memcached. Databases' come from [`ports`].
const PORTS_REFUSED: [u16; 84] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
    3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211, 2375,
];

/// The machine that a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Lower-case, without a trailing dot.
    Name(String),
    Address(IpAddr),
}

/// A URL that webhooks may be sent to, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub tls: bool,
    pub host: Host,
    pub port: u16,
    /// As it goes into the request, query included; begins with a slash.
    pub path: String,
    /// What the `Host` header says.
    pub authority: String,
}

/// Why a text is no such URL; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    #[error("must be an absolute URL as in https://example.com/hook")]
    NoUrl,
    #[error("must be at most 2000 characters")]
    Length,
    #[error("must not name a user or password; whoever receives it knows the hub by the signature")]
    UserInfo,
    #[error("must not have a fragment")]
    Fragment,
    #[error(
        "must name its host as a domain, as an IPv4 address of four decimal numbers, or as an IPv6 address in brackets"
    )]
    Host,
    #[error("must not name this port; web servers do not listen there")]
    Port,
    #[error("must begin with https://; the operator allows http:// for the addresses of HUB_WEBHOOK_ALLOW")]
    NotEncrypted,
    #[error(
        "must not lead to a private, loopback or link-local address; the operator can allow some (HUB_WEBHOOK_ALLOW)"
    )]
    Private,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`InvalidUrl`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidUrl::Length);
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(InvalidUrl::NoUrl),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        if path.contains('#') {
            return Err(InvalidUrl::Fragment);
        }
        if !plain_path(path) {
            return Err(InvalidUrl::NoUrl);
        }
        let (host, port) = split_port(authority)?;
        let host = host_of(host)?;
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(text) => port_of(text)?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host, port, path, authority: authority.to_ascii_lowercase() })
    }

    /// Judges what can be judged without asking for a name's addresses.
    ///
    /// # Errors
    /// It is not encrypted, or names a place that nobody may reach through the hub.
    pub fn admit(&self, allowed: &[IpNet]) -> Result<(), InvalidUrl> {
        let named: Vec<IpAddr> = match &self.host {
            Host::Address(address) => vec![*address],
            // Whatever a resolver says of these names, this machine is meant (RFC 6761).
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Host::Name(_) if !self.tls && allowed.is_empty() => return Err(InvalidUrl::NotEncrypted),
            Host::Name(_) => return Ok(()),
        };
        if named.iter().all(|address| self.judge(*address, allowed).is_err()) {
            let good = named.iter().any(|address| addresses::judge(*address, allowed).is_ok());
            return Err(if good { InvalidUrl::NotEncrypted } else { InvalidUrl::Private });
        }
        Ok(())
    }

    /// Judges an address of its host, before each connection.
    ///
    /// # Errors
    /// Why it is not connected to, in words that fit after "the address".
    pub fn judge(&self, address: IpAddr, allowed: &[IpNet]) -> Result<(), String> {
        addresses::judge(address, allowed).map_err(|refused| refused.to_string())?;
        if self.tls || addresses::is_named(address, allowed) {
            return Ok(());
        }
        Err("may be spoken to over https only".to_owned())
    }
}

/// What may stand in a path and a query: what RFC 3986 lets, so that nothing has to be escaped or could be read otherwise.
fn plain_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(place, byte)| match byte {
        b'%' => bytes.get(place + 1..place + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(byte),
    })
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidUrl> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (_, after) = rest.split_once(']').ok_or(InvalidUrl::Host)?;
        let host = &authority[..authority.len() - after.len()];
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(InvalidUrl::Host),
        };
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn host_of(text: &str) -> Result<Host, InvalidUrl> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(InvalidUrl::Host)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| InvalidUrl::Host)?;
        return Ok(Host::Address(address.into()));
    }
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(InvalidUrl::Host);
    }
    // A name whose last label is a number is an address to some resolvers, in one of its old spellings.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) {
        let address: Ipv4Addr = name.parse().map_err(|_| InvalidUrl::Host)?;
        return Ok(Host::Address(address.into()));
    }
    Ok(Host::Name(name))
}

fn port_of(text: &str) -> Result<u16, InvalidUrl> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse::<u16>().ok().filter(|port| plain && *port > 0).ok_or(InvalidUrl::Host)?;
    if PORTS_REFUSED.contains(&port) || ports::protected_engine(port).is_some() {
        return Err(InvalidUrl::Port);
    }
    Ok(port)
}

#[cfg(test)]
mod tests;

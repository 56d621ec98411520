//! Which share a request head belongs to: pure, one parse for prefix, rule and upstream.
//!
//! Invariants: a request has one canonical host; what follows the link prefix is a slice of the visitor's own bytes,
//! and that slice is what rules are asked about and what the target receives.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, Method, Uri, Version, header, uri::Authority};

/// The host that a request is for, in one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host<'a> {
    /// Lower case, no trailing dot, no port, no brackets. Empty for HTTP/1.0 without a `Host`.
    pub(super) name: Cow<'a, str>,
    pub(super) port: Option<u16>,
}

/// Where a request leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `/shared/<token>…` on the bare host.
    Link {
        token: &'a str,
        /// What follows the token: empty, or from its `/` on.
        rest: &'a str,
    },
    /// A host name of its own.
    Slug {
        slug: String,
        /// The whole path.
        path: &'a str,
    },
    /// `/v1/shared/<token>/info` on the bare host.
    Info { token: &'a str },
    /// `/api/shared/<token>/query` on the bare host.
    Query { token: &'a str },
    /// Anything else on the bare host.
    Nothing,
}

/// The answer of [`route`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Routed<'a> {
    pub(super) host: Host<'a>,
    pub(super) place: Place<'a>,
}

/// Why a head leads nowhere for certain: it can be read in two ways, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error("a request needs exactly one Host header")]
    HostCount,
    #[error("the Host header is no host name")]
    HostForm,
    #[error("the request line and the Host header name different hosts")]
    HostDiffers,
    #[error("the request line has no path")]
    NoPath,
}

/// What the request line and the headers say about the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) version: Version,
    pub(super) headers: &'a HeaderMap,
}

/// Finds the way of a request. `base_domain` is lower case, without dots at its ends.
///
/// # Errors
/// [`BadHead`]: answered with 400 before any share is known.
pub(super) fn route<'a>(head: &Head<'a>, base_domain: Option<&str>) -> Result<Routed<'a>, BadHead> {
    let host = host_of(head)?;
    let path = head.uri.path();
    let rooted = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if !rooted && head.method != Method::CONNECT {
        return Err(BadHead::NoPath);
    }
    if let Some(slug) = slug_of(&host.name, base_domain) {
        let place = Place::Slug { slug: slug.to_owned(), path };
        return Ok(Routed { host, place });
    }
    Ok(Routed { host, place: place_of(path) })
}

fn place_of(path: &str) -> Place<'_> {
    if let Some(after) = path.strip_prefix("/shared/") {
        let end = after.find('/').unwrap_or(after.len());
        let (token, rest) = after.split_at(end);
        return Place::Link { token, rest };
    }
    let one_segment = |text: &&str| !text.is_empty() && !text.contains('/');
    let between = |prefix, suffix| path.strip_prefix(prefix)?.strip_suffix(suffix).filter(one_segment);
    if let Some(token) = between("/v1/shared/", "/info") {
        return Place::Info { token };
    }
    if let Some(token) = between("/api/shared/", "/query") {
        return Place::Query { token };
    }
    Place::Nothing
}

fn slug_of<'n>(name: &'n str, base_domain: Option<&str>) -> Option<&'n str> {
    let below = |domain: &str| name.strip_suffix(domain)?.strip_suffix('.');
    base_domain.and_then(below).or_else(|| below("localhost"))
}

fn host_of<'a>(head: &Head<'a>) -> Result<Host<'a>, BadHead> {
    let mut values = head.headers.get_all(header::HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(_), Some(_)) => return Err(BadHead::HostCount),
        (Some(value), None) => Some(parse_host(value.to_str().map_err(|_| BadHead::HostForm)?)?),
        (None, _) if head.version == Version::HTTP_11 => return Err(BadHead::HostCount),
        // HTTP/2 says it in `:authority`.
        (None, _) if head.version > Version::HTTP_11 && head.uri.authority().is_none() => {
            return Err(BadHead::HostCount);
        }
        (None, _) => None,
    };
    let Some(authority) = head.uri.authority() else {
        return Ok(host.unwrap_or(Host { name: Cow::Borrowed(""), port: None }));
    };
    let named = named_by(head.uri, authority)?;
    match host {
        Some(host) if !same(&host, &named, head.uri) => Err(BadHead::HostDiffers),
        Some(host) => Ok(host),
        None => Ok(named),
    }
}

fn named_by<'a>(uri: &'a Uri, authority: &'a Authority) -> Result<Host<'a>, BadHead> {
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err(BadHead::HostForm);
    }
    parse_host(authority.as_str())
}

fn same(one: &Host<'_>, other: &Host<'_>, uri: &Uri) -> bool {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    one.name == other.name && one.port.unwrap_or(default) == other.port.unwrap_or(default)
}

fn parse_host(text: &str) -> Result<Host<'_>, BadHead> {
    let (name, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (name, after) = inside.split_once(']').ok_or(BadHead::HostForm)?;
            if !matches!(name.parse(), Ok(IpAddr::V6(_))) {
                return Err(BadHead::HostForm);
            }
            (name, after)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, after) = text.split_at(end);
            let name = name.strip_suffix('.').unwrap_or(name);
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if !name.split('.').all(|label| !label.is_empty() && label.bytes().all(plain)) {
                return Err(BadHead::HostForm);
            }
            (name, after)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return Err(BadHead::HostForm),
        Some("") => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| BadHead::HostForm)?)
        }
        Some(_) => return Err(BadHead::HostForm),
    };
    let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    Ok(Host { name, port })
}

/// The origin at which a browser that came by the bare host reaches a share alone; `None` where no such name works.
/// `scheme` is what visitors use for the base domain, `is_secure` whether this one's connection is encrypted.
pub(super) fn slug_origin(
    host: &Host<'_>,
    slug: &str,
    base_domain: Option<&str>,
    scheme: &str,
    is_secure: bool,
) -> Option<String> {
    let scheme = if is_secure { "https" } else { scheme };
    let port = host.port.map(|port| format!(":{port}")).unwrap_or_default();
    // Browsers resolve names below `localhost` to the loopback address by themselves.
    let local = host.name == "localhost" || host.name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if local {
        let scheme = if is_secure { "https" } else { "http" };
        return Some(format!("{scheme}://{slug}.localhost{port}"));
    }
    base_domain.map(|domain| format!("{scheme}://{slug}.{domain}{port}"))
}

#[cfg(test)]
mod tests;

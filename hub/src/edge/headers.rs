//! Which headers cross the edge, and how: hop-by-hop, forwarded, cookies, locations. Pure.
//!
//! What is not named here passes untouched, repeated headers separately and in their order.

use std::{cell::RefCell, net::IpAddr, str::FromStr as _};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_ENCODING, CONNECTION, COOKIE, EXPECT, Entry, FORWARDED, HOST, IF_NONE_MATCH, LOCATION,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
    },
    uri::Authority,
};
use ipnet::IpNet;

/// Appended to the opaque part of an ETag when the banner changed the document.
pub(super) const ETAG_SUFFIX: &str = "-pconnect";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Names by which proxies tell who the client is; whoever may set them chooses his own address. Compared after `_`
/// became `-`: some targets read both alike.
const CLIENT_CLAIMS: [&str; 17] = [
    "forwarded",
    "forwarded-for",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-originating-ip",
    "x-original-forwarded-for",
    "x-envoy-external-address",
    "x-original-host",
    "x-host",
    "true-client-ip",
    "fastly-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "client-ip",
];

const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Names by which some frameworks let a request say that it is for another path than that in its first line.
const PATH_OVERRIDES: [&str; 3] = ["x-original-url", "x-original-uri", "x-rewrite-url"];

/// Removes what belongs to one connection only (RFC 9110, section 7.6.1): the fixed names and those that `Connection`
/// lists. `TE: trailers` stays, since the edge carries trailers.
pub(super) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = if headers.contains_key(CONNECTION) {
        tokens(headers, &CONNECTION)
            .filter(|name| {
                // `Host` is for everybody on the way, whatever a request says.
                let known = ["close", "keep-alive", "te", "upgrade", "host"];
                !known.iter().any(|known| name.eq_ignore_ascii_case(known))
            })
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .collect()
    } else {
        Vec::new()
    };
    for name in listed {
        remove(headers, &name);
    }
    let trailers =
        headers.contains_key(TE) && tokens(headers, &TE).any(|te| te.eq_ignore_ascii_case("trailers"));
    // One look at each name is cheaper than eight searches in the map; most messages have one of these or none.
    let is_one = |name: &&HeaderName| HOP_BY_HOP.contains(name) || is_framing_alias(name);
    while let Some(name) = headers.keys().find(is_one).cloned() {
        remove(headers, &name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether some targets would read the name as one that says how long a body is.
fn is_framing_alias(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    ["content-length", "transfer-encoding"].iter().any(|known| {
        name.len() == known.len() && memchr::memchr(b'_', name).is_some() && is_alike(name, known)
    })
}

fn remove(headers: &mut HeaderMap, name: &HeaderName) {
    headers.remove(name);
}

/// The comma-separated members of all values of a list header.
pub(super) fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

/// Whether the request asks for a WebSocket. Other upgrades are not passed on: `h2c` would carry requests that no rule
/// has seen.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    let mut protocols = tokens(headers, &UPGRADE);
    protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
        && protocols.next().is_none()
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// Whether a body is coded in another way than chunked, once, and in so many words: hyper takes more than that, and
/// somebody else may read it differently.
pub(super) fn has_odd_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) => !coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// Whether the visitor waits with the body until the target wants it.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes one line of the cookies that HTTP/2 may carry in several (RFC 9113, section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(b"; ".as_slice())) {
        headers.insert(COOKIE, joined);
    }
}

/// Puts back what [`drop_hop_by_hop`] took from a WebSocket handshake.
pub(super) fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Who the visitor is to the target; made once per connection.
#[derive(Debug)]
pub(super) struct ForwardedFor {
    /// The address that limits and records use.
    pub(super) visitor: IpAddr,
    /// The peer is one of the operator's proxies: what it says about the client is kept and extended.
    trusted: bool,
    /// What the connection came by: `http` or `https`.
    scheme: &'static str,
    address: HeaderValue,
    /// The peer as a node of `Forwarded` (RFC 7239), quoted where it must be.
    node: String,
    /// The last `Host` and what `Forwarded` said of it: the same for most requests of a connection.
    last: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl ForwardedFor {
    /// For a peer and what its first request says. Behind trusted proxies the visitor is the last address in
    /// `X-Forwarded-For` that is no trusted proxy.
    pub(super) fn new(
        peer: IpAddr,
        scheme: &'static str,
        headers: &HeaderMap,
        trusted_proxies: &[IpNet],
    ) -> Self {
        let peer = peer.to_canonical();
        let trusts = |ip: IpAddr| trusted_proxies.iter().any(|net| net.contains(&ip));
        let trusted = trusts(peer);
        let named: Vec<_> = if trusted { tokens(headers, &X_FORWARDED_FOR).collect() } else { Vec::new() };
        let mut visitor = peer;
        for text in named.into_iter().rev() {
            let Ok(ip) = text.parse::<IpAddr>() else { break };
            visitor = ip.to_canonical();
            if !trusts(visitor) {
                break;
            }
        }
        let node = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
        let address = HeaderValue::try_from(peer.to_string()).expect("an address is ASCII");
        Self { visitor, trusted, scheme, address, node, last: RefCell::new(None) }
    }

    /// Whether every request of the connection has the same visitor.
    pub(super) fn is_fixed(&self) -> bool {
        !self.trusted
    }

    /// Replaces (or, behind a trusted proxy, extends) what the request says about its client.
    pub(super) fn set(&self, headers: &mut HeaderMap, host: Option<&HeaderValue>) {
        if self.trusted {
            self.extend(headers, host);
            return;
        }
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_client_claim(name)).cloned().collect();
        for name in claims {
            remove(headers, &name);
        }
        headers.insert(X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host.clone());
        }
        if let Some(element) = self.element(host) {
            headers.insert(FORWARDED, element);
        }
    }

    fn extend(&self, headers: &mut HeaderMap, host: Option<&HeaderValue>) {
        let aliases: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().contains('_') && is_client_claim(name))
            .cloned()
            .collect();
        for name in aliases {
            remove(headers, &name);
        }
        let chain: Vec<&str> = tokens(headers, &X_FORWARDED_FOR).collect();
        let joined = chain.into_iter().chain(self.address.to_str().ok()).collect::<Vec<_>>().join(", ");
        if let Ok(value) = HeaderValue::try_from(joined) {
            headers.insert(X_FORWARDED_FOR, value);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(self.scheme));
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
        }
        if let Some(element) = self.element(host) {
            headers.append(FORWARDED, element);
        }
    }

    fn element(&self, host: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Some(host) = host else {
            return HeaderValue::try_from(format!("for={};proto={}", self.node, self.scheme)).ok();
        };
        let mut last = self.last.borrow_mut();
        if let Some((of, element)) = last.as_ref()
            && of == host
        {
            return Some(element.clone());
        }
        // The host was parsed by the route: it holds no quote and no backslash.
        let text = format!("for={};host=\"{}\";proto={}", self.node, host.to_str().ok()?, self.scheme);
        let element = HeaderValue::try_from(text).ok()?;
        *last = Some((host.clone(), element.clone()));
        Some(element)
    }
}

fn is_client_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    // Most names end here, at their first letter.
    if !matches!(name.first(), Some(b'x' | b'f' | b't' | b'c')) {
        return false;
    }
    starts_alike(name, "x-forwarded") || CLIENT_CLAIMS.iter().any(|known| is_alike(name, known))
}

fn is_alike(name: &[u8], known: &str) -> bool {
    name.len() == known.len() && starts_alike(name, known)
}

fn starts_alike(name: &[u8], known: &str) -> bool {
    name.len() >= known.len()
        && name.iter().zip(known.bytes()).all(|(b, k)| *b == k || (*b == b'_' && k == b'-'))
}

/// Removes the headers by which a request asks the target to take it for one of another method.
pub(super) fn drop_method_overrides(headers: &mut HeaderMap) {
    drop_alike(headers, &METHOD_OVERRIDES);
}

/// Removes the headers by which a request asks the target to take it for one of another path.
pub(super) fn drop_path_overrides(headers: &mut HeaderMap) {
    drop_alike(headers, &PATH_OVERRIDES);
}

fn drop_alike(headers: &mut HeaderMap, names: &[&str]) {
    let is_one = |name: &HeaderName| names.iter().any(|known| is_alike(name.as_str().as_bytes(), known));
    while let Some(name) = headers.keys().find(|name| is_one(name)).cloned() {
        remove(headers, &name);
    }
}

/// Asks the target for a document that the banner can go into: no compression, and ETags as the target knows them.
/// Says whether the visitor holds a document with a banner.
pub(super) fn ask_for_document(headers: &mut HeaderMap, identity: bool) -> bool {
    if identity {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let suffixed = format!("{ETAG_SUFFIX}\"");
    let mut found = false;
    if let Entry::Occupied(mut entry) = headers.entry(IF_NONE_MATCH) {
        for value in entry.iter_mut() {
            if let Ok(text) = value.to_str()
                && text.contains(&suffixed)
                && let Ok(plain) = HeaderValue::try_from(text.replace(&suffixed, "\""))
            {
                *value = plain;
                found = true;
            }
        }
    }
    found
}

/// The ETag of a document after the banner went in; `None` for something that is no ETag.
pub(super) fn etag_with_banner(value: &HeaderValue) -> Option<HeaderValue> {
    let opaque = value.to_str().ok()?.strip_suffix('"')?;
    if !opaque.trim_start_matches("W/").starts_with('"') {
        return None;
    }
    HeaderValue::try_from(format!("{opaque}{ETAG_SUFFIX}\"")).ok()
}

/// A target as others name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// `host:port`, without the port that the scheme implies.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.scheme) { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether an authority that stands behind that scheme is this one. The names of this machine are one.
    fn is(&self, scheme: &str, authority: &[u8]) -> bool {
        let Some(authority) =
            std::str::from_utf8(authority).ok().and_then(|text| Authority::from_str(text).ok())
        else {
            return false;
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let same_host = host.eq_ignore_ascii_case(&self.host) || is_loopback(host) && is_loopback(&self.host);
        // An authority with a user's name before it is somebody's trick or secret: not ours.
        let plain = !authority.as_str().contains('@');
        same_host && plain && authority.port_u16().unwrap_or(default_port(scheme)) == self.port
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Where a share's answers are seen from: what locations and cookie paths are rewritten by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    /// `/shared/<token>` for links in path form, else empty.
    pub(super) prefix: &'a str,
    pub(super) target: &'a Origin,
}

impl Seen<'_> {
    /// Rewrites a response's locations and cookies.
    pub(super) fn rewrite(&self, headers: &mut HeaderMap) {
        if let Some(location) = headers.get(LOCATION)
            && let Some(rewritten) = self.location(location.as_bytes())
            && let Ok(value) = HeaderValue::from_bytes(&rewritten)
        {
            headers.insert(LOCATION, value);
        }
        if let Entry::Occupied(mut cookies) = headers.entry(SET_COOKIE) {
            for cookie in cookies.iter_mut() {
                if let Some(rewritten) = self.cookie(cookie.as_bytes())
                    && let Ok(value) = HeaderValue::from_bytes(&rewritten)
                {
                    *cookie = value;
                }
            }
        }
    }

    /// A location as the visitor must see it: the target's own origin is the share, and its paths get the prefix.
    fn location(&self, location: &[u8]) -> Option<Vec<u8>> {
        let rest = |scheme: &'static str, lead: &str| {
            let start = location.get(..lead.len())?;
            let after = &location[lead.len()..];
            let end = after.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(after.len());
            let (authority, rest) = after.split_at(end);
            (start.eq_ignore_ascii_case(lead.as_bytes()) && self.target.is(scheme, authority)).then_some(rest)
        };
        let own = rest("http", "http://").or_else(|| rest("https", "https://"));
        if let Some(rest) = own.or_else(|| rest(self.target.scheme, "//")) {
            let slash: &[u8] = if rest.first() == Some(&b'/') { b"" } else { b"/" };
            return Some([self.prefix.as_bytes(), slash, rest].concat());
        }
        let rooted = location.first() == Some(&b'/') && location.get(1) != Some(&b'/');
        (rooted && !self.prefix.is_empty()).then(|| [self.prefix.as_bytes(), location].concat())
    }

    /// A cookie without `Domain` and, in path form, with the prefix in its path; `None` when it stays as it is.
    fn cookie(&self, cookie: &[u8]) -> Option<Vec<u8>> {
        let mut parts = cookie.split(|b| *b == b';');
        let mut rewritten = parts.next().unwrap_or_default().to_vec();
        let mut changed = false;
        let mut has_path = false;
        for part in parts {
            let attribute = part.trim_ascii_start();
            let end = attribute.iter().position(|b| *b == b'=').unwrap_or(attribute.len());
            let name = attribute[..end].trim_ascii_end();
            if name.eq_ignore_ascii_case(b"domain") {
                changed = true;
                continue;
            }
            rewritten.push(b';');
            let value = attribute[end..].strip_prefix(b"=").unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"path") && value.starts_with(b"/") {
                has_path = true;
                if !self.prefix.is_empty() {
                    changed = true;
                    rewritten.extend_from_slice(b" Path=");
                    rewritten.extend_from_slice(self.prefix.as_bytes());
                    rewritten.extend_from_slice(value);
                    continue;
                }
            }
            rewritten.extend_from_slice(part);
        }
        if !has_path && !self.prefix.is_empty() {
            // A browser's default for `/shared/<token>` itself would be `/shared`, which every link begins with.
            changed = true;
            rewritten.extend_from_slice(b"; Path=");
            rewritten.extend_from_slice(self.prefix.as_bytes());
            rewritten.push(b'/');
        }
        changed.then_some(rewritten)
    }
}

/// Sets the target's `Host`.
pub(super) fn set_host(headers: &mut HeaderMap, host: HeaderValue) {
    headers.insert(HOST, host);
}

#[cfg(test)]
mod tests;

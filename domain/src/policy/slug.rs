//! Slugs: the first label of a share's own host name, random or chosen (product.md sections 2.4 and 3).

/// The bytes of randomness in a random slug: 80 bits, so that nobody finds one by trying.
pub const RANDOM_BYTES: usize = 10;
/// A random slug has this many characters: five bits each.
pub const RANDOM_CHARS: usize = RANDOM_BYTES * 8 / 5;
/// The shortest chosen slug.
pub const CHOSEN_CHARS_MIN: usize = 3;
/// The longest label of a host name (RFC 1035).
pub const CHOSEN_CHARS_MAX: usize = 63;

// Lower case, since host names have no case; without 0, o, 1 and l, since links are read aloud and typed.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

// Names that a hub's operator needs beside the shares, that mail and certificate authorities trust, and that a
// visitor would take for the operator's own pages. Sorted.
const RESERVED: &[&str] = &[
    "_acme-challenge",
    "_dmarc",
    "_domainkey",
    "_mta-sts",
    "abuse",
    "account",
    "accounts",
    "acme-challenge",
    "admin",
    "administrator",
    "agent",
    "agents",
    "api",
    "app",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "broadcasthost",
    "cdn",
    "connect",
    "dashboard",
    "debug",
    "demo",
    "device",
    "dns",
    "docs",
    "download",
    "downloads",
    "edge",
    "email",
    "example",
    "ftp",
    "git",
    "graphql",
    "health",
    "help",
    "hostmaster",
    "hub",
    "image",
    "images",
    "imap",
    "info",
    "internal",
    "invalid",
    "isatap",
    "link",
    "links",
    "livez",
    "local",
    "localdomain",
    "localhost",
    "login",
    "logout",
    "mail",
    "metrics",
    "mta-sts",
    "mx",
    "news",
    "noc",
    "noreply",
    "ns",
    "ns0",
    "ns1",
    "ns2",
    "ns3",
    "ns4",
    "oauth",
    "openapi",
    "ops",
    "pay",
    "payment",
    "pop",
    "pop3",
    "postmaster",
    "private-connect",
    "privateconnect",
    "proxy",
    "public",
    "readyz",
    "register",
    "root",
    "secure",
    "security",
    "server",
    "share",
    "shared",
    "shares",
    "signin",
    "signup",
    "smtp",
    "ssh",
    "ssl",
    "sso",
    "static",
    "status",
    "support",
    "sysadmin",
    "system",
    "test",
    "tunnel",
    "tunnels",
    "usenet",
    "uucp",
    "v1",
    "vpn",
    "web",
    "webhook",
    "webhooks",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

/// The names that nobody can choose; some could not be chosen anyway.
pub const fn reserved() -> &'static [&'static str] {
    RESERVED
}

/// Why a text cannot be chosen as a subdomain; the message fits after the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlug {
    #[error("must be {CHOSEN_CHARS_MIN}-{CHOSEN_CHARS_MAX} characters")]
    Length,
    #[error("must contain only a-z, 0-9 and hyphens")]
    Character,
    #[error("must not begin or end with a hyphen")]
    OuterHyphen,
    /// RFC 5891 keeps `??--` for encodings: `xn--…` could look like anybody's name.
    #[error("must not have hyphens as third and fourth character")]
    Encoded,
    #[error("is reserved")]
    Reserved,
}

/// Whether a text may be chosen as a subdomain. Whether it is free is the claim's business.
///
/// # Errors
/// [`InvalidSlug`] says which rule is broken.
pub fn check_chosen(text: &str) -> Result<(), InvalidSlug> {
    if RESERVED.binary_search(&text).is_ok() {
        return Err(InvalidSlug::Reserved);
    }
    if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Err(InvalidSlug::Character);
    }
    if !(CHOSEN_CHARS_MIN..=CHOSEN_CHARS_MAX).contains(&text.len()) {
        return Err(InvalidSlug::Length);
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(InvalidSlug::OuterHyphen);
    }
    if text.as_bytes()[2..].starts_with(b"--") {
        return Err(InvalidSlug::Encoded);
    }
    Ok(())
}

/// The slug of random bytes, always [`RANDOM_CHARS`] long; different bytes give different slugs.
pub fn random(bytes: [u8; RANDOM_BYTES]) -> String {
    let mut padded = [0; 16];
    padded[16 - RANDOM_BYTES..].copy_from_slice(&bytes);
    let bits = u128::from_be_bytes(padded);
    (0..RANDOM_CHARS)
        .rev()
        .map(|place| char::from(ALPHABET[usize::try_from(bits >> (5 * place) & 31).expect("five bits")]))
        .collect()
}

#[cfg(test)]
mod tests;

//! Host names and addresses of targets: every accepted text means one host to every resolver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest host name, in characters, without the dot of the root (RFC 1035).
const NAME_CHARS_MAX: usize = 253;
/// The longest label of a host name (RFC 1035).
const LABEL_CHARS_MAX: usize = 63;

/// Why a text names no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    #[error("the host name must be at most {NAME_CHARS_MAX} characters")]
    Length,
    #[error("each part of the host name must be 1-{LABEL_CHARS_MAX} characters")]
    LabelLength,
    #[error(
        "the host name may contain only letters, digits, hyphens, underscores and dots (write others as xn--…)"
    )]
    Character,
    #[error("no part of the host name may begin or end with a hyphen")]
    OuterHyphen,
    /// `127.1`, `0177.0.0.1`, `0x7f000001` and `2130706433` are 127.0.0.1 to some resolvers only.
    #[error(
        "an IPv4 address must be four decimal numbers from 0 to 255 without leading zeros, such as 127.0.0.1"
    )]
    Ipv4,
    #[error("is no IPv6 address")]
    Ipv6,
    #[error("an IPv6 address must have no zone (`%eth0`): it means something on one machine only")]
    Zone,
}

/// Checks an IPv6 address without brackets and gives its one spelling. A mapped IPv4 address becomes that address,
/// so that no list of targets can be evaded by writing it differently.
pub(super) fn ipv6(text: &str) -> Result<String, InvalidHost> {
    if text.contains('%') {
        return Err(InvalidHost::Zone);
    }
    let address: Ipv6Addr = text.parse().map_err(|_| InvalidHost::Ipv6)?;
    Ok(IpAddr::from(address).to_canonical().to_string())
}

/// Checks a DNS name or IPv4 address and gives it in lower case.
pub(super) fn name_or_ipv4(text: &str) -> Result<String, InvalidHost> {
    let relative = text.strip_suffix('.').unwrap_or(text);
    if relative.len() > NAME_CHARS_MAX {
        return Err(InvalidHost::Length);
    }
    for label in relative.split('.') {
        if !(1..=LABEL_CHARS_MAX).contains(&label.len()) {
            return Err(InvalidHost::LabelLength);
        }
        // Underscores are no letters of host names, but of the names that container networks give.
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(InvalidHost::Character);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(InvalidHost::OuterHyphen);
        }
    }
    let last = relative.rsplit('.').next().unwrap_or_default();
    if is_number(last) && text.parse::<Ipv4Addr>().is_err() {
        return Err(InvalidHost::Ipv4);
    }
    Ok(text.to_ascii_lowercase())
}

// A name whose last label is a number is an address to `inet_aton` and to browsers (WHATWG "ends in a number").
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|b| b.is_ascii_digit()) || hex.is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
}

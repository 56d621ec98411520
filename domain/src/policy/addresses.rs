//! Which addresses the hub itself may be made to connect to: what the whole internet can reach, and what its operator
//! allows besides.
//!
//! An address inside an address (IPv4-mapped, NAT64) is judged as what it leads to. Of IPv6 only global unicast is
//! good at all, so a range that is handed out tomorrow for a new purpose is refused until somebody looks at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why an address is refused; fits after "the address".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("is one of this machine")]
    Loopback,
    #[error("is private")]
    Private,
    #[error("is one of the local link, where cloud metadata is")]
    LinkLocal,
    #[error("is no single public machine's")]
    Special,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 4], length: u8) -> Ipv6Net {
    let [a, b, c, d] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// The special-purpose registry of IPv4 (RFC 6890 and its successors), and an address at which a large cloud answers
/// its own machines only.
const V4: [(Ipv4Net, Refused); 17] = [
    (v4(0, 0, 0, 0, 8), Refused::Loopback),
    (v4(10, 0, 0, 0, 8), Refused::Private),
    (v4(100, 64, 0, 0, 10), Refused::Private),
    (v4(127, 0, 0, 0, 8), Refused::Loopback),
    (v4(168, 63, 129, 16, 32), Refused::LinkLocal),
    (v4(169, 254, 0, 0, 16), Refused::LinkLocal),
    (v4(172, 16, 0, 0, 12), Refused::Private),
    (v4(192, 0, 0, 0, 24), Refused::Special),
    (v4(192, 0, 2, 0, 24), Refused::Special),
    (v4(192, 31, 196, 0, 24), Refused::Special),
    (v4(192, 52, 193, 0, 24), Refused::Special),
    (v4(192, 88, 99, 0, 24), Refused::Special),
    (v4(192, 168, 0, 0, 16), Refused::Private),
    (v4(198, 18, 0, 0, 15), Refused::Private),
    (v4(198, 51, 100, 0, 24), Refused::Special),
    (v4(203, 0, 113, 0, 24), Refused::Special),
    // Multicast, what is reserved, and broadcast.
    (v4(224, 0, 0, 0, 3), Refused::Special),
];

/// Ranges of global unicast that are not: protocol assignments with Teredo, documentation, 6to4.
const V6: [(Ipv6Net, Refused); 5] = [
    (v6([0x2001, 0, 0, 0], 23), Refused::Special),
    (v6([0x2001, 0xdb8, 0, 0], 32), Refused::Special),
    (v6([0x2002, 0, 0, 0], 16), Refused::Special),
    (v6([0x2620, 0x4f, 0x8000, 0], 48), Refused::Special),
    (v6([0x3fff, 0, 0, 0], 20), Refused::Special),
];

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0], 3);
/// The well-known prefix of NAT64 (RFC 6052): its last four bytes are an IPv4 address.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

/// Whether the hub may connect to an address.
///
/// # Errors
/// Why not.
pub fn judge(address: IpAddr, allowed: &[IpNet]) -> Result<(), Refused> {
    let leads_to = innermost(address);
    if allowed.iter().any(|range| range.contains(&leads_to) || range.contains(&address)) {
        return Ok(());
    }
    match leads_to {
        IpAddr::V4(address) => judge_v4(address),
        IpAddr::V6(address) => judge_v6(address),
    }
}

/// Whether an operator named an address, or what it leads to.
pub fn is_named(address: IpAddr, allowed: &[IpNet]) -> bool {
    let leads_to = innermost(address);
    allowed.iter().any(|range| range.contains(&leads_to) || range.contains(&address))
}

/// The address that a connection to this one ends at.
pub fn innermost(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if NAT64.contains(&v6) {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    // Mapped addresses, and the long forgotten compatible ones (`::a.b.c.d`), which are outside of global unicast.
    address.to_canonical()
}

fn judge_v4(address: Ipv4Addr) -> Result<(), Refused> {
    let found = V4.iter().find(|(range, _)| range.contains(&address));
    found.map_or(Ok(()), |(_, refused)| Err(*refused))
}

fn judge_v6(address: Ipv6Addr) -> Result<(), Refused> {
    if let Some((_, refused)) = V6.iter().find(|(range, _)| range.contains(&address)) {
        return Err(*refused);
    }
    if GLOBAL_UNICAST.contains(&address) {
        return Ok(());
    }
    Err(if address.is_loopback() || address.is_unspecified() {
        Refused::Loopback
    } else if address.is_unicast_link_local() {
        Refused::LinkLocal
    } else if address.is_unique_local() {
        Refused::Private
    } else {
        Refused::Special
    })
}

#[cfg(test)]
mod tests;

//! Which local port `reach` opens: the saved one, the service's own, or one derived from its name.

use ring::digest::{SHA256, digest};

/// Derived ports lie above Linux's ephemeral range (32768 to 60999) and above the hub's tunnel ports, where neither
/// an outgoing connection nor a hub on the same machine takes them.
const DERIVED_FIRST: u16 = 61_000;
const DERIVED_COUNT: u16 = 4_000;
/// How many derived ports are tried.
const DERIVED_TRIES: u16 = 8;

/// The ports to try, in order. A chosen one is the only one.
pub(crate) fn candidates(chosen: Option<u16>, saved: Option<u16>, own: u16, service: &str) -> Vec<u16> {
    if let Some(port) = chosen {
        return vec![port];
    }
    let mut ports: Vec<u16> = Vec::new();
    for port in saved.into_iter().chain([own]).chain(derived(service)) {
        if port != 0 && !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

// The same name gives the same ports on every machine and in every version: SHA-256, not the standard hasher.
fn derived(service: &str) -> impl Iterator<Item = u16> {
    let hash = digest(&SHA256, service.as_bytes());
    let start = u16::from_be_bytes([hash.as_ref()[0], hash.as_ref()[1]]) % DERIVED_COUNT;
    (0..DERIVED_TRIES).map(move |step| DERIVED_FIRST + (start + step) % DERIVED_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_port_is_the_only_candidate() {
        assert_eq!(candidates(Some(15_432), Some(6_000), 5_432, "prod-db"), [15_432]);
        assert_eq!(candidates(Some(0), None, 5_432, "prod-db"), [0], "0 asks for any port");
    }

    #[test]
    fn the_saved_port_comes_before_the_services_own_and_that_before_derived_ones() {
        let ports = candidates(None, Some(6_000), 5_432, "prod-db");
        assert_eq!(ports[..2], [6_000, 5_432]);
        assert_eq!(ports.len(), 10);
        assert_eq!(candidates(None, Some(5_432), 5_432, "prod-db")[0], 5_432);
        assert_eq!(candidates(None, Some(5_432), 5_432, "prod-db").len(), 9, "no port is tried twice");
    }

    #[test]
    fn a_derived_port_depends_on_the_name_alone_and_never_changes() {
        // Frozen: whoever wrote the number down somewhere must find the service there next year.
        assert_eq!(candidates(None, None, 1, "prod-db")[1], 63_257);
        assert_eq!(candidates(None, None, 2, "prod-db")[1], 63_257);
        assert_ne!(candidates(None, None, 1, "staging-db")[1], 63_257);
    }

    #[test]
    fn derived_ports_stay_in_their_range() {
        for number in 0..2_000 {
            let ports = candidates(None, None, 80, &format!("service-{number}"));
            assert!(ports[1..].iter().all(|port| (61_000..65_000).contains(port)), "{ports:?}");
        }
    }
}

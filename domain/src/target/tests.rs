//! Which texts are targets, and what tunnels to them are called.

use proptest::prelude::*;

use super::*;
use crate::names::Name;

fn parsed(text: &str) -> Target {
    Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn a_target_is_a_host_and_a_port() {
    for (text, host, port, shown) in [
        ("localhost:5432", "localhost", 5432, "localhost:5432"),
        ("LocalHost:1", "localhost", 1, "localhost:1"),
        ("127.0.0.1:65535", "127.0.0.1", 65535, "127.0.0.1:65535"),
        ("db.internal.example.com:5432", "db.internal.example.com", 5432, "db.internal.example.com:5432"),
        ("example.com.:80", "example.com.", 80, "example.com.:80"),
        ("my_project_db_1:5432", "my_project_db_1", 5432, "my_project_db_1:5432"),
        ("xn--caf-dma.example:80", "xn--caf-dma.example", 80, "xn--caf-dma.example:80"),
        ("3com.example:80", "3com.example", 80, "3com.example:80"),
        ("[::1]:5432", "::1", 5432, "[::1]:5432"),
        ("[0:0:0:0:0:0:0:1]:80", "::1", 80, "[::1]:80"),
        ("[2001:DB8::1]:80", "2001:db8::1", 80, "[2001:db8::1]:80"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1", 80, "127.0.0.1:80"),
    ] {
        let target = parsed(text);
        assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
        assert_eq!(target.to_string(), shown);
        assert_eq!(parsed(shown), target, "{shown} reads back as another target");
    }
}

#[test]
fn what_is_no_target_is_refused_with_its_reason() {
    use InvalidHost as Host;
    let long_label = format!("{}:80", "a".repeat(64));
    let long_name = format!("{}:80", vec!["a".repeat(63); 4].join("."));
    for (text, error) in [
        ("", InvalidTarget::Form),
        ("localhost", InvalidTarget::PortMissing),
        ("localhost:", InvalidTarget::PortMissing),
        ("localhost:0", InvalidTarget::PortRange),
        ("localhost:65536", InvalidTarget::PortRange),
        ("localhost:99999999999999999999", InvalidTarget::PortRange),
        ("localhost:-1", InvalidTarget::PortRange),
        ("localhost:+80", InvalidTarget::PortRange),
        ("localhost:http", InvalidTarget::PortRange),
        ("localhost: 80", InvalidTarget::PortRange),
        ("localhost:80 ", InvalidTarget::PortRange),
        ("localhost:\u{664}\u{662}", InvalidTarget::PortRange),
        (":3000", InvalidTarget::HostMissing),
        ("http://localhost:3000", InvalidTarget::Scheme),
        ("postgres://user:secret@localhost:5432/db", InvalidTarget::Scheme),
        ("user@localhost:22", InvalidTarget::UserInfo),
        ("user:secret@localhost:22", InvalidTarget::UserInfo),
        ("localhost:3000/admin", InvalidTarget::Path),
        ("localhost:3000?x", InvalidTarget::Path),
        ("localhost:3000#x", InvalidTarget::Path),
        ("::1:5432", InvalidTarget::BracketsMissing),
        ("a:b:80", InvalidTarget::BracketsMissing),
        ("[::1", InvalidTarget::Form),
        ("[::1]", InvalidTarget::PortMissing),
        ("[::1]5432", InvalidTarget::Form),
        ("[::1]:0", InvalidTarget::PortRange),
        ("[]:80", InvalidTarget::Host(Host::Ipv6)),
        ("[localhost]:80", InvalidTarget::Host(Host::Ipv6)),
        ("[::g]:80", InvalidTarget::Host(Host::Ipv6)),
        ("[fe80::1%eth0]:80", InvalidTarget::Host(Host::Zone)),
        ("local host:80", InvalidTarget::Host(Host::Character)),
        ("caf\u{e9}.example:80", InvalidTarget::Host(Host::Character)),
        ("a\0b:80", InvalidTarget::Host(Host::Character)),
        ("a%00b:80", InvalidTarget::Host(Host::Character)),
        ("a..b:80", InvalidTarget::Host(Host::LabelLength)),
        (".:80", InvalidTarget::Host(Host::LabelLength)),
        (".a:80", InvalidTarget::Host(Host::LabelLength)),
        ("a..:80", InvalidTarget::Host(Host::LabelLength)),
        (&long_label, InvalidTarget::Host(Host::LabelLength)),
        (&long_name, InvalidTarget::Host(Host::Length)),
        ("-a:80", InvalidTarget::Host(Host::OuterHyphen)),
        ("a-.b:80", InvalidTarget::Host(Host::OuterHyphen)),
    ] {
        assert_eq!(Target::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn an_address_has_one_spelling() {
    for host in [
        "127.1",
        "127.0.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.0.0.0x1",
        "0x",
        "127.0.0.01",
        "256.0.0.1",
        "1.2.3.4.5",
        "example.1",
        "127.0.0.1.",
        "0",
    ] {
        let error = Err(InvalidTarget::Host(InvalidHost::Ipv4));
        assert_eq!(Target::parse(&format!("{host}:80")), error, "{host}");
        assert_eq!(Target::new(host, 80), error, "{host}");
    }
}

#[test]
fn a_target_can_be_given_in_parts() {
    assert_eq!(Target::new("localhost", 5432).unwrap(), parsed("localhost:5432"));
    assert_eq!(Target::new("::1", 80).unwrap(), parsed("[::1]:80"));
    assert_eq!(Target::new("[::1]", 80).unwrap(), parsed("[::1]:80"));
    for port in [0, -1, 65536, i64::MIN, i64::MAX] {
        assert_eq!(Target::new("localhost", port), Err(InvalidTarget::PortRange), "{port}");
    }
    assert_eq!(Target::new("", 80), Err(InvalidTarget::HostMissing));
    assert_eq!(Target::new("localhost:80", 80), Err(InvalidTarget::Host(InvalidHost::Ipv6)));
    assert_eq!(Target::new("fe80::1%1", 80), Err(InvalidTarget::Host(InvalidHost::Zone)));
}

#[test]
fn a_port_alone_means_this_machine_where_the_caller_says_so() {
    assert_eq!(Target::parse_local(":3000").unwrap(), parsed("localhost:3000"));
    assert_eq!(Target::parse_local("[::1]:3000").unwrap(), parsed("[::1]:3000"));
    assert_eq!(Target::parse_local(":0"), Err(InvalidTarget::PortRange));
    assert_eq!(Target::parse_local(":"), Err(InvalidTarget::PortMissing));
    assert_eq!(Target::parse_local("::1"), Err(InvalidTarget::BracketsMissing));
}

#[test]
fn a_tunnel_without_a_name_is_called_by_its_port() {
    for (port, name) in [
        (5432, "postgres"),
        (3306, "mysql"),
        (6379, "redis"),
        (27017, "mongodb"),
        (3000, "web"),
        (8080, "api"),
        (9999, "service-9999"),
        (1, "service-1"),
    ] {
        assert_eq!(default_name(port), name);
    }
}

#[test]
fn a_taken_name_is_numbered_within_100_characters() {
    assert_eq!(numbered("web", 1), "web");
    assert_eq!(numbered("web", 2), "web-2");
    assert_eq!(numbered("web", 13), "web-13");
    let long = "\u{e9}".repeat(100);
    assert_eq!(numbered(&long, 2), format!("{}-2", "\u{e9}".repeat(98)));
    let spaced = format!("{} x", "a".repeat(96));
    assert_eq!(numbered(&spaced, 222), format!("{}-222", "a".repeat(96)));
}

#[test]
fn a_connection_string_follows_engine_then_port_then_protocol() {
    use Protocol::{Auto, Http, Https, Tcp, Udp};
    for (protocol, target_port, engine, expected) in [
        (Auto, 5432, None, "postgres://localhost:9/postgres"),
        (Tcp, 26257, None, "postgres://localhost:9/postgres"),
        (Tcp, 3306, None, "mysql://localhost:9"),
        (Tcp, 6379, None, "redis://localhost:9"),
        (Tcp, 6380, None, "redis://localhost:9"),
        (Tcp, 27017, None, "mongodb://localhost:9"),
        (Tcp, 5433, Some(Engine::Postgres), "postgres://localhost:9/postgres"),
        (Tcp, 5432, Some(Engine::MySql), "mysql://localhost:9"),
        (Http, 5432, None, "postgres://localhost:9/postgres"),
        (Http, 8080, None, "http://localhost:9"),
        (Https, 8443, None, "https://localhost:9"),
        (Auto, 3000, None, "tcp://localhost:9"),
        (Tcp, 22, None, "tcp://localhost:9"),
        (Udp, 53, None, "tcp://localhost:9"),
    ] {
        assert_eq!(
            connection_string(protocol, target_port, 9, engine),
            expected,
            "{protocol:?} {target_port}"
        );
    }
}

#[test]
fn a_share_of_a_database_serves_queries_and_of_other_raw_ports_nothing() {
    use Protocol::{Auto, Http, Https, Tcp, Udp};
    for port in [5432, 3306, 27017, 6379, 6380, 26257, 9042, 8529, 7687, 1433, 1521, 50000] {
        assert!(is_database(port));
        for protocol in [Auto, Tcp, Http, Https] {
            assert_eq!(shareable(protocol, port), Shareable::QueryOnly, "{protocol:?} {port}");
        }
        assert_eq!(shareable(Udp, port), Shareable::No);
    }
    for (protocol, expected) in [
        (Auto, Shareable::Http),
        (Http, Shareable::Http),
        (Https, Shareable::Http),
        (Tcp, Shareable::No),
        (Udp, Shareable::No),
    ] {
        assert_eq!(shareable(protocol, 3000), expected, "{protocol:?}");
    }
    assert!(!is_database(3000));
}

#[test]
fn a_protocol_reads_back_as_it_is_shown() {
    for protocol in [Protocol::Auto, Protocol::Tcp, Protocol::Udp, Protocol::Http, Protocol::Https] {
        assert_eq!(protocol.name().parse(), Ok(protocol));
        assert_eq!(serde_json::to_string(&protocol).unwrap(), format!("\"{}\"", protocol.name()));
    }
    assert_eq!("HTTP".parse::<Protocol>(), Err(InvalidProtocol));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic_and_every_target_reads_back(
        text in prop_oneof!["\\PC{0,40}", "[\\[\\]a-f0-9.:%x_-]{0,24}:?[0-9]{0,6}"],
    ) {
        for target in [Target::parse(&text), Target::parse_local(&text), Target::new(&text, 80)].into_iter().flatten() {
            prop_assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()));
            prop_assert_eq!(Target::new(&target.host, target.port.into()), Ok(target));
        }
    }

    #[test]
    fn every_numbered_name_is_a_name(text in "\\PC{1,100}", number in any::<usize>()) {
        if Name::parse(&text).is_ok() {
            prop_assert!(Name::parse(&numbered(&text, number)).is_ok());
        }
    }
}

//! Every kind of address that must not be reached, in every spelling that leads there.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn nothing_but_what_the_whole_internet_can_reach_is_reached() {
    for (text, expected) in [
        ("127.0.0.1", Refused::Loopback),
        ("127.255.255.254", Refused::Loopback),
        ("0.0.0.0", Refused::Loopback),
        ("0.1.2.3", Refused::Loopback),
        ("10.1.2.3", Refused::Private),
        ("172.16.0.1", Refused::Private),
        ("172.31.255.255", Refused::Private),
        ("192.168.0.1", Refused::Private),
        ("100.64.0.1", Refused::Private),
        ("100.100.100.200", Refused::Private),
        ("198.19.255.255", Refused::Private),
        ("169.254.169.254", Refused::LinkLocal),
        ("168.63.129.16", Refused::LinkLocal),
        ("192.0.0.192", Refused::Special),
        ("192.0.2.1", Refused::Special),
        ("203.0.113.9", Refused::Special),
        ("224.0.0.1", Refused::Special),
        ("240.0.0.1", Refused::Special),
        ("255.255.255.255", Refused::Special),
        ("::", Refused::Loopback),
        ("::1", Refused::Loopback),
        ("::127.0.0.1", Refused::Special),
        ("::ffff:127.0.0.1", Refused::Loopback),
        ("::ffff:10.0.0.1", Refused::Private),
        ("::ffff:169.254.169.254", Refused::LinkLocal),
        ("64:ff9b::127.0.0.1", Refused::Loopback),
        ("64:ff9b::10.0.0.1", Refused::Private),
        ("64:ff9b:1::8.8.8.8", Refused::Special),
        ("fe80::1", Refused::LinkLocal),
        ("fec0::1", Refused::Special),
        ("fc00::1", Refused::Private),
        ("fd00:ec2::254", Refused::Private),
        ("ff02::1", Refused::Special),
        ("2001::1", Refused::Special),
        ("2001:db8::1", Refused::Special),
        ("2002:7f00:1::", Refused::Special),
        ("3fff::1", Refused::Special),
        ("100::1", Refused::Special),
        ("4000::1", Refused::Special),
    ] {
        assert_eq!(judge(ip(text), &[]), Err(expected), "{text}");
    }
    for text in [
        "8.8.8.8",
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(judge(ip(text), &[]), Ok(()), "{text}");
    }
}

#[test]
fn what_the_operator_names_is_reached_in_every_spelling_and_nothing_else() {
    let allowed = ["127.0.0.0/8".parse().unwrap(), "fd12::/16".parse().unwrap()];
    for text in ["127.0.0.1", "::ffff:127.0.0.1", "fd12::7"] {
        assert_eq!(judge(ip(text), &allowed), Ok(()), "{text}");
        assert!(is_named(ip(text), &allowed), "{text}");
    }
    for text in ["10.0.0.1", "fd13::7", "::1", "169.254.169.254"] {
        assert!(judge(ip(text), &allowed).is_err(), "{text}");
    }
    assert!(!is_named(ip("8.8.8.8"), &allowed), "good, and not because somebody named it");
}

proptest! {
    #[test]
    fn a_mapped_address_is_judged_as_the_one_inside(bits in any::<u32>()) {
        let inside = Ipv4Addr::from(bits);
        let judged = judge(IpAddr::V4(inside), &[]);
        prop_assert_eq!(judge(IpAddr::V6(inside.to_ipv6_mapped()), &[]), judged);
        let mut nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).octets();
        nat64[12..].copy_from_slice(&inside.octets());
        prop_assert_eq!(judge(IpAddr::from(nat64), &[]), judged);
    }

    #[test]
    fn what_the_standard_library_calls_local_is_refused(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let local = address.is_loopback() || address.is_private() || address.is_link_local()
            || address.is_unspecified() || address.is_multicast() || address.is_broadcast()
            || address.is_documentation();
        prop_assert!(!local || judge(IpAddr::V4(address), &[]).is_err());
    }
}

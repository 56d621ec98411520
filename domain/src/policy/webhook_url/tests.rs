//! Which URLs webhooks may have, and which tricks do not get past that.

use proptest::prelude::*;

use super::*;

fn allowed(ranges: &[&str]) -> Vec<IpNet> {
    ranges.iter().map(|range| range.parse().unwrap()).collect()
}

fn admit(url: &str, ranges: &[&str]) -> Result<(), InvalidUrl> {
    Endpoint::parse(url)?.admit(&allowed(ranges))
}

#[test]
fn a_url_is_taken_apart_as_it_is_sent() {
    let endpoint = Endpoint::parse("https://Hooks.Example.com:8443/in?a=1&b=%2F").unwrap();
    assert_eq!(endpoint.host, Host::Name("hooks.example.com".to_owned()));
    assert_eq!((endpoint.tls, endpoint.port), (true, 8443));
    assert_eq!(endpoint.path, "/in?a=1&b=%2F");
    assert_eq!(endpoint.authority, "hooks.example.com:8443");
    let bare = Endpoint::parse("https://example.com?x=1").unwrap();
    assert_eq!((bare.path.as_str(), bare.port), ("/?x=1", 443));
    let v6 = Endpoint::parse("https://[2606:4700::1111]:8443/").unwrap();
    assert_eq!(v6.host, Host::Address("2606:4700::1111".parse().unwrap()));
}

#[test]
fn only_urls_that_cannot_be_read_in_two_ways_are_taken() {
    for (url, expected) in [
        ("", InvalidUrl::NoUrl),
        ("example.com/hook", InvalidUrl::NoUrl),
        ("//example.com", InvalidUrl::NoUrl),
        ("file:///etc/passwd", InvalidUrl::NoUrl),
        ("gopher://127.0.0.1:6379/_SET", InvalidUrl::NoUrl),
        ("HTTPS://example.com", InvalidUrl::NoUrl),
        (" https://example.com", InvalidUrl::NoUrl),
        ("https://example.com/a b", InvalidUrl::NoUrl),
        ("https://example.com/\r\nx", InvalidUrl::NoUrl),
        ("https://example.com/%zz", InvalidUrl::NoUrl),
        ("https://example.com/%2", InvalidUrl::NoUrl),
        ("https://example.com/a\\b", InvalidUrl::NoUrl),
        ("https://example.com/ü", InvalidUrl::NoUrl),
        ("https://user:pass@example.com/", InvalidUrl::UserInfo),
        ("https://example.com@127.0.0.1/", InvalidUrl::UserInfo),
        ("https://example.com/#x", InvalidUrl::Fragment),
        ("https://", InvalidUrl::Host),
        ("https:///x", InvalidUrl::Host),
        ("https://example.com./", InvalidUrl::Host),
        ("https://localhost./", InvalidUrl::Host),
        ("https://exa mple.com/", InvalidUrl::Host),
        ("https://127.1/", InvalidUrl::Host),
        ("https://2130706433/", InvalidUrl::Host),
        ("https://0x7f000001/", InvalidUrl::Host),
        ("https://0x7f.0.0.1/", InvalidUrl::Host),
        ("https://0177.0.0.1/", InvalidUrl::Host),
        ("https://127.0.0.0x1/", InvalidUrl::Host),
        ("https://1.2.3.4.5/", InvalidUrl::Host),
        ("https://[::1/", InvalidUrl::Host),
        ("https://[fe80::1%25eth0]/", InvalidUrl::Host),
        ("https://[::1]x/", InvalidUrl::Host),
        ("https://example.com:/", InvalidUrl::Host),
        ("https://example.com:0/", InvalidUrl::Host),
        ("https://example.com:0443/", InvalidUrl::Host),
        ("https://example.com:65536/", InvalidUrl::Host),
        ("https://example.com:22/", InvalidUrl::Port),
        ("https://example.com:25/", InvalidUrl::Port),
        ("https://example.com:6379/", InvalidUrl::Port),
        ("https://example.com:5432/", InvalidUrl::Port),
    ] {
        assert_eq!(Endpoint::parse(url), Err(expected), "{url}");
    }
    let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
    assert_eq!(Endpoint::parse(&long), Err(InvalidUrl::Length));
}

#[test]
fn places_inside_are_refused_unless_the_operator_allows_them() {
    for url in [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://a.localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::10.0.0.1]/",
        "http://127.0.0.1/",
    ] {
        assert_eq!(admit(url, &[]), Err(InvalidUrl::Private), "{url}");
    }
    assert_eq!(admit("http://127.0.0.1:9000/", &["127.0.0.0/8"]), Ok(()));
    assert_eq!(admit("http://localhost:9000/", &["127.0.0.0/8"]), Ok(()));
    assert_eq!(admit("http://localhost:9000/", &["::1/128"]), Ok(()));
    assert_eq!(admit("https://[::ffff:127.0.0.1]/", &["127.0.0.0/8"]), Ok(()));
    assert_eq!(admit("http://10.0.0.1/", &["127.0.0.0/8"]), Err(InvalidUrl::Private));
}

#[test]
fn what_is_not_encrypted_goes_only_where_the_operator_said() {
    assert_eq!(admit("https://example.com/", &[]), Ok(()));
    assert_eq!(admit("http://example.com/", &[]), Err(InvalidUrl::NotEncrypted));
    assert_eq!(admit("http://8.8.8.8/", &[]), Err(InvalidUrl::NotEncrypted));
    assert_eq!(admit("http://8.8.8.8/", &["8.8.8.0/24"]), Ok(()));
    // What a name leads to is seen when it is asked for.
    let named = Endpoint::parse("http://inside.example/").unwrap();
    assert_eq!(named.admit(&allowed(&["10.0.0.0/8"])), Ok(()));
    assert_eq!(named.judge("10.1.2.3".parse().unwrap(), &allowed(&["10.0.0.0/8"])), Ok(()));
    assert!(named.judge("8.8.8.8".parse().unwrap(), &allowed(&["10.0.0.0/8"])).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fail_in_another_way(text in ".{0,80}") {
        let _ = Endpoint::parse(&text);
        let _ = Endpoint::parse(&format!("https://{text}"));
    }

    #[test]
    fn an_address_that_may_not_be_reached_is_in_no_url(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let refused = addresses::judge(address.into(), &[]).is_err();
        for url in [format!("https://{address}/"), format!("https://[{}]/", address.to_ipv6_mapped())] {
            prop_assert_eq!(admit(&url, &[]).is_err(), refused, "{}", url);
        }
        // Its other spellings are no URLs at all.
        for url in [format!("https://{bits}/"), format!("https://{bits:#x}/"), format!("https://0{bits:o}/")] {
            prop_assert!(Endpoint::parse(&url).is_err(), "{}", url);
        }
    }

    #[test]
    fn what_is_sent_is_what_was_written(path in "(/[a-z0-9._~!$&'()*+,;=:@-]{0,12}){0,4}", query in "(\\?[a-z=&]{0,10})?") {
        let text = format!("https://example.com{path}{query}");
        let endpoint = Endpoint::parse(&text).unwrap();
        let written = format!("{path}{query}");
        let expected = if written.starts_with('/') { written } else { format!("/{written}") };
        prop_assert_eq!(endpoint.path, expected);
    }
}

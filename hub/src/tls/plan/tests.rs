//! Which settings are refused, and that the refusal says what to do.

use clap::Parser as _;

use super::*;
use crate::settings::{Cli, Command};

fn plan(flags: &[&str]) -> Result<Plan> {
    let Command::Serve(serve) = Cli::parse_from([&["hub", "serve"], flags].concat()).command else {
        unreachable!("these are serve's flags")
    };
    Plan::of(&serve.settings)
}

fn refusal(flags: &[&str]) -> String {
    format!("{:#}", plan(flags).unwrap_err())
}

const PAIR: [&str; 4] = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];

#[test]
fn a_listener_beyond_this_machine_needs_tls_or_the_word_for_it() {
    for (flags, what) in [
        (["--listen", "0.0.0.0:7070"], "the API"),
        (["--listen", "[::]:7070"], "the API"),
        (["--listen", "192.0.2.1:7070"], "the API"),
        (["--listen", "[::ffff:192.0.2.1]:7070"], "the API"),
        (["--edge-listen", "0.0.0.0:7080"], "the edge"),
    ] {
        let words = refusal(&flags);
        assert!(
            words.contains(what) && words.contains("--tls-cert") && words.contains("127.0.0.1:70"),
            "{words}"
        );
        for word in [&["--insecure-public"][..], &["--insecure-public=on"], &PAIR] {
            assert!(plan(&[&flags, word].concat()).is_ok(), "{flags:?} {word:?}");
        }
        assert!(plan(&[&flags[..], &["--insecure-public=off"]].concat()).is_err());
    }
    for flags in [["--listen", "127.0.0.2:1"], ["--listen", "[::1]:1"], ["--listen", "[::ffff:127.0.0.1]:1"]]
    {
        assert!(plan(&flags).is_ok(), "{flags:?}");
    }
    // The edge's own certificate is not the API's.
    let edge = ["--edge-tls-cert", "c.pem", "--edge-tls-key", "k.pem"];
    assert!(plan(&[&["--edge-listen", "0.0.0.0:7080"][..], &edge].concat()).is_ok());
    assert!(plan(&[&["--listen", "0.0.0.0:7070"][..], &edge].concat()).is_err());
}

#[test]
fn half_a_pair_is_refused() {
    for (flag, missing) in [
        ("--tls-cert", "--tls-key"),
        ("--tls-key", "--tls-cert"),
        ("--edge-tls-cert", "--edge-tls-key"),
        ("--edge-tls-key", "--edge-tls-cert"),
    ] {
        let words = refusal(&[flag, "x.pem"]);
        assert!(words.contains(&format!("without {missing}")), "{words}");
    }
}

#[test]
fn one_address_for_both_needs_tls_and_names_that_are_apart() {
    const SAME: [&str; 4] = ["--listen", "127.0.0.1:8443", "--edge-listen", "127.0.0.1:8443"];
    fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&SAME[..], &PAIR, more].concat()
    }
    assert!(refusal(&[&SAME[..], &["--base-domain", "example.com"]].concat()).contains("needs TLS"));
    assert!(refusal(&with(&[])).contains("--base-domain"));
    let hub = ["--public-url", "https://hub.example.com"];
    assert!(plan(&with(&[&hub[..], &["--link-base-url", "https://hub.example.com:8443"]].concat())).is_err());
    for more in [&["--base-domain", "example.com"][..], &["--link-base-url", "https://links.example.com"]] {
        let shared = plan(&with(&[&hub[..], more].concat())).unwrap().shared.unwrap();
        assert_eq!(shared.api.as_deref(), Some("hub.example.com"));
    }
    assert!(plan(&["--listen", "127.0.0.1:0", "--edge-listen", "127.0.0.1:0"]).unwrap().shared.is_none());
    let names = EdgeNames { base_domain: Some("example.com".to_owned()), ..EdgeNames::default() };
    let base = |port| shared_link_base(&names, SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(base(443).as_deref(), Some("https://example.com"));
    assert_eq!(base(8443).as_deref(), Some("https://example.com:8443"));
}

#[test]
fn a_certificate_can_be_had_for_public_host_names_from_an_authority_that_speaks_tls() {
    let acme = |domains: &str| plan(&["--tls-acme-domains", domains]).map(|plan| plan.acme.unwrap());
    assert_eq!(
        acme("B.example.com,a.example.com,b.example.com").unwrap().domains,
        ["a.example.com", "b.example.com"]
    );
    for wrong in ["localhost", "192.0.2.1"] {
        assert!(acme(wrong).is_err(), "{wrong}");
    }
    let plain = ["--tls-acme-domains", "a.example.com", "--tls-acme-directory", "http://ca.example/dir"];
    assert!(refusal(&plain).contains("https://"));
    assert!(plan(&["--tls-acme-domains", "a.example.com", "--listen", "0.0.0.0:443"]).is_ok());
    assert_eq!(plan(&[]).unwrap().acme, None);
    assert!(refusal(&["--tls-acme-email", "ops@example.com"]).contains("--tls-acme-domains"));
}

#[test]
fn the_host_of_a_url_is_found_in_every_form() {
    for (url, host) in [
        ("https://Hub.Example.com", "hub.example.com"),
        ("https://hub.example.com.:8443/hub", "hub.example.com"),
        ("http://127.0.0.1:7070", "127.0.0.1"),
        ("https://[::1]:7070/x", "::1"),
    ] {
        assert_eq!(host_of(url).as_deref(), Some(host), "{url}");
    }
}

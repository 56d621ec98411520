//! Where a setting comes from, and that the example is true.

use domain::policy::lockout::Budget;

use super::*;
use crate::device_login::DeviceLimits;

fn settings(args: &[&str]) -> Settings {
    let Command::Serve(serve) = Cli::parse_from([&["hub", "serve"], args].concat()).command else {
        panic!("not serve")
    };
    serve.settings
}

#[test]
fn a_file_sets_what_neither_flag_nor_variable_does() {
    let flags = flags_of_file(
        "banner = false\nlimit_share_per_min = 7\ntrusted_proxies = [\"10.0.0.0/8\", \"::1/128\"]\nlisten = \"127.0.0.1:1\"",
        |name| name == "HUB_LISTEN",
    )
    .unwrap();
    let flags: Vec<&str> = flags.iter().map(|flag| flag.to_str().unwrap()).collect();
    assert!(!flags.iter().any(|flag| flag.starts_with("--listen=")), "a variable is stronger: {flags:?}");
    let read = settings(&[flags.as_slice(), &["--limit-share-per-min", "9"]].concat());
    assert_eq!(read.banner, Switch::Off);
    assert_eq!(read.limit_share_per_min, 9, "what was typed is stronger");
    assert_eq!(read.trusted_proxies.len(), 2);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    for text in ["bannner = \"off\"", "config = \"x\"", "help = true"] {
        let error = flags_of_file(text, |_| false).unwrap_err().to_string();
        assert!(error.contains("is no setting"), "{error}");
    }
    assert!(flags_of_file("banner = 1.5", |_| false).is_err());
    assert!(flags_of_file("banner = [", |_| false).is_err());
}

#[test]
fn the_example_names_every_setting_and_is_a_valid_file() {
    let example = example();
    let filled: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| l.contains(" = ") && !l.starts_with(' ')).unwrap_or(""))
        .filter(|l| !l.ends_with("\"\""))
        .collect::<Vec<_>>()
        .join("\n");
    let flags = flags_of_file(&filled, |_| false).unwrap();
    assert!(flags.len() > 15, "{flags:?}");
    let flags: Vec<&str> =
        flags.iter().map(|flag| flag.to_str().unwrap()).filter(|f| !f.ends_with('=')).collect();
    let read = settings(&flags);
    assert_eq!(read.tunnel_ports, 10_000..=31_999);
}

#[test]
fn the_checked_in_example_is_what_the_hub_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/config/hub.example.toml");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, example()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        example(),
        "run with UPDATE_GOLDENS=1 and look at the diff"
    );
}

#[test]
fn lock_outs_are_as_the_rules_have_them_unless_they_are_set_otherwise() {
    let read = settings(&[]);
    assert_eq!(read.wrong_codes(), Budget::default());
    assert_eq!(read.device_limits(), DeviceLimits::default());
    let off = settings(&[
        "--limit-wrong-codes-per-key=0",
        "--limit-wrong-codes-per-address=0",
        "--limit-wrong-codes-per-workspace=0",
        "--limit-wrong-device-codes=0",
        "--limit-devices-per-address=0",
    ]);
    assert_eq!(off.wrong_codes(), Budget::OFF);
    assert_eq!(off.device_limits(), DeviceLimits { wrong_codes: 0, waiting_per_address: 0 });
    assert!(Cli::try_parse_from(["hub", "serve", "--limit-wrong-codes-per-key=10001"]).is_err());
}

#[test]
fn a_port_range_has_two_ports_the_smaller_first() {
    assert_eq!(port_range("1-2"), Ok(1..=2));
    for text in ["", "1", "2-1", "0-5", "1-65536", "a-b"] {
        assert!(port_range(text).is_err(), "{text}");
    }
}

#[test]
fn what_links_are_made_of_is_judged_at_the_start_and_kept_in_one_form() {
    for good in ["https://hub.example.com/", "http://127.0.0.1:7070", "https://[::1]:8443/hub"] {
        assert_eq!(web_url(good).unwrap(), good.trim_end_matches('/'));
    }
    for bad in [
        "",
        "hub.example.com",
        "https://",
        "ftp://x",
        "https:///x",
        "https://a b",
        "https://u@x",
        "https://x?y",
    ] {
        assert!(web_url(bad).is_err(), "{bad}");
    }
    assert_eq!(domain_name(".Share.Example.com.").unwrap(), "share.example.com");
    for bad in ["", ".", "a..b", "https://x.example", "x.example:7080", "x y", "*.example.com"] {
        assert!(domain_name(bad).is_err(), "{bad}");
    }
}

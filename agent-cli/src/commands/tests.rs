//! What command tests share: one service, one link, and the transcripts that people see.

use jiff::tz::TimeZone;
use schemas::rest::{Share, ShareCreated, Tunnel};

use super::{services, share, targets};
use crate::{
    failure::Exit,
    output::{Face, failure_text},
};

/// The moment of seed 001.
pub(super) const MOMENT: &str = "2026-03-03T22:44:00.000Z";

/// One hour east: local time is not UTC in the transcripts.
pub(super) fn zone() -> TimeZone {
    TimeZone::fixed(jiff::tz::offset(1))
}

pub(super) fn service(name: &str, host: &str, port: u16) -> Tunnel {
    Tunnel {
        id: "tun_00000000000000000000000000000001".to_owned(),
        name: name.to_owned(),
        agent_id: "agent-1".to_owned(),
        target_host: host.to_owned(),
        target_port: port,
        tunnel_port: 10_001,
        protocol: "auto".to_owned(),
        status: "active".to_owned(),
        status_reason: None,
        is_public: false,
        public_url: None,
        metadata: std::collections::BTreeMap::new(),
        created_at: MOMENT.to_owned(),
        expires_at: None,
        last_activity_at: None,
        connection_count: 0,
        bytes_in: 0,
        bytes_out: 0,
    }
}

pub(super) fn new_link(subdomain_url: Option<&str>) -> ShareCreated {
    ShareCreated {
        id: "share_1".to_owned(),
        token: "share_tok_secret".to_owned(),
        name: "my-app".to_owned(),
        expires_at: Some(MOMENT.to_owned()),
        share_url: "http://127.0.0.1:7080/shared/share_tok_secret".to_owned(),
        subdomain_url: subdomain_url.map(str::to_owned),
        notice: None,
    }
}

pub(super) fn link(id: &str, name: &str, expires_at: Option<&str>, access_count: u64) -> Share {
    Share {
        id: id.to_owned(),
        tunnel_id: "tun_1".to_owned(),
        name: name.to_owned(),
        description: None,
        expires_at: expires_at.map(str::to_owned),
        revoked_at: None,
        created_at: MOMENT.to_owned(),
        last_accessed_at: None,
        access_count,
        is_active: true,
        token_preview: "share_tok_ab…".to_owned(),
        allowed_paths: None,
        allowed_methods: None,
        rate_limit_per_min: None,
        read_only: true,
        subdomain: format!("slug-of-{id}"),
    }
}

/// A transcript ends with a line break, a message does not.
pub(super) fn assert_transcript(shown: &str, transcript: &str) {
    assert_eq!(format!("{shown}\n"), transcript);
}

#[test]
fn words_with_a_port_are_targets_and_others_are_services() {
    for word in ["localhost:3000", ":3000", "3000", "[::1]:80"] {
        assert!(targets::looks_like_one(word), "{word}");
    }
    for word in ["prod-db", "web", "", "api2", "tun_1"] {
        assert!(!targets::looks_like_one(word), "{word}");
    }
}

#[test]
fn a_target_without_a_host_is_on_this_machine() {
    for (word, target) in [
        (":3000", "localhost:3000"),
        ("3000", "localhost:3000"),
        ("db.internal:5432", "db.internal:5432"),
        ("[::1]:80", "[::1]:80"),
    ] {
        assert_eq!(targets::parse(word).unwrap().to_string(), target);
    }
}

#[test]
fn what_is_no_target_is_a_usage_error_with_an_example() {
    for word in ["", "localhost", "localhost:", ":0", ":70000", "http://localhost:3000", "::1:80", "a:b"] {
        let failure = targets::parse(word).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{word}");
        assert!(failure.hint.unwrap().contains("localhost:3000"));
    }
}

#[test]
fn a_protected_port_is_refused_in_the_seeds_words_with_the_flag_that_was_used() {
    let failure = share::refuse_database("--public", 5432, "postgres").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert_transcript(
        &failure_text(&failure, Face::TERMINAL),
        include_str!("../../tests/transcripts/expose-protected.txt"),
    );
    for port in [5432, 3306, 27017, 6379, 6380, 26257, 9042, 8529, 7687, 1433, 1521, 50000] {
        let failure = share::refuse_database("--link", port, "x").unwrap_err();
        assert!(failure.message.starts_with("--link creates"), "{port}");
        assert_eq!(failure.code, "protected_port");
    }
    share::refuse_database("--link", 3000, "x").unwrap();
}

#[test]
fn the_rules_of_a_link_are_checked_before_anything_is_asked() {
    let no_texts: &[String] = &[];
    let texts = |text: &str| vec![text.to_owned()];
    let good = share::Rules { expires: "24h", methods: no_texts, paths: no_texts, rate_limit: None };
    share::check(good).unwrap();
    for expires in ["1h", "7d", "30d", "never", "90m"] {
        share::check(share::Rules { expires, ..good }).unwrap();
    }
    share::check(share::Rules { methods: &texts(" get"), paths: &texts("/api/*"), ..good }).unwrap();
    for wrong in [
        share::Rules { expires: "1 day", ..good },
        share::Rules { expires: "0h", ..good },
        share::Rules { methods: &texts("TRACE"), ..good },
        share::Rules { paths: &texts("api/*"), ..good },
    ] {
        assert_eq!(share::check(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
    }
}

#[test]
fn the_rules_of_a_link_arrive_at_the_hub_as_it_wants_them() {
    let (methods, paths) = (["get".to_owned(), " POST".to_owned()], ["/api/*".to_owned()]);
    let rules = share::Rules { expires: "7d", methods: &methods, paths: &paths, rate_limit: Some(60) };
    assert_eq!(
        serde_json::to_string(&share::request("my-app", rules)).unwrap(),
        r#"{"name":"my-app","expiresIn":"7d","allowedPaths":["/api/*"],"allowedMethods":["GET","POST"],"rateLimitPerMin":60}"#
    );
    let free = share::Rules { expires: "24h", methods: &[], paths: &[], rate_limit: None };
    assert_eq!(
        serde_json::to_string(&share::request("my-app", free)).unwrap(),
        r#"{"name":"my-app","expiresIn":"24h"}"#
    );
}

#[test]
fn the_address_to_hand_out_works_in_every_program() {
    let address = |subdomain| share::address(&new_link(subdomain)).to_owned();
    assert_eq!(address(Some("https://x7k9m2.share.example")), "https://x7k9m2.share.example");
    assert_eq!(
        address(Some("http://x7k9m2.localhost:7080")),
        "http://127.0.0.1:7080/shared/share_tok_secret"
    );
    assert_eq!(address(None), "http://127.0.0.1:7080/shared/share_tok_secret");
}

#[test]
fn the_json_of_services_and_links_keeps_its_form() {
    assert_eq!(
        serde_json::to_string(&services::json(&service("web", "::1", 3000))).unwrap(),
        r#"{"id":"tun_00000000000000000000000000000001","name":"web","agentId":"agent-1","target":"[::1]:3000","protocol":"auto","status":"active","statusReason":null,"isPublic":false,"publicUrl":null,"tunnelPort":10001}"#
    );
    assert_eq!(
        serde_json::to_string(&share::json(&new_link(Some("https://x7k9m2.share.example")))).unwrap(),
        r#"{"id":"share_1","name":"my-app","url":"https://x7k9m2.share.example","shareUrl":"http://127.0.0.1:7080/shared/share_tok_secret","subdomainUrl":"https://x7k9m2.share.example","expiresAt":"2026-03-03T22:44:00.000Z"}"#
    );
}

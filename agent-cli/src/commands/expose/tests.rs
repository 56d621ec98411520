//! `connect expose`: what is refused, and what people see.

use super::*;
use crate::commands::tests::{assert_transcript, new_link, service, zone};

fn args(target: &str) -> ExposeArgs {
    ExposeArgs {
        target: target.to_owned(),
        protocol: "auto".to_owned(),
        link_expires: "24h".to_owned(),
        ..ExposeArgs::default()
    }
}

#[test]
fn a_link_is_shown_as_in_the_seed() {
    let (service, link) =
        (service("my-app", "localhost", 3000), new_link(Some("https://x7k9m2.share.example")));
    assert_transcript(
        &exposed_text(&service, &CertificateCheck::System, Some(&link), Face::TERMINAL, &zone()),
        include_str!("../../../tests/transcripts/expose-link.txt"),
    );
    assert_transcript(
        &exposed_text(&service, &CertificateCheck::System, Some(&link), Face::PIPE, &zone()),
        include_str!("../../../tests/transcripts/expose-link-plain.txt"),
    );
}

#[test]
fn a_permanent_url_is_shown_as_in_the_seed() {
    let mut service = service("my-app", "localhost", 3000);
    service.is_public = true;
    service.public_url = Some("https://abc123.share.example".to_owned());
    assert_transcript(
        &exposed_text(&service, &CertificateCheck::System, None, Face::TERMINAL, &zone()),
        include_str!("../../../tests/transcripts/expose-public.txt"),
    );
}

#[test]
fn a_private_service_is_shown_without_any_url() {
    let mut service = service("my-app", "localhost", 3000);
    // An older public life of the service: not what was asked for now.
    service.public_url = Some("https://abc123.share.example".to_owned());
    assert_transcript(
        &exposed_text(&service, &CertificateCheck::System, None, Face::TERMINAL, &zone()),
        include_str!("../../../tests/transcripts/expose.txt"),
    );
}

#[test]
fn a_link_that_never_ends_says_so_and_a_notice_is_shown() {
    let mut link = new_link(None);
    link.expires_at = None;
    link.notice = Some("Anyone can guess this name.".to_owned());
    let text = share::text(&link, Face::PIPE, &zone());
    assert!(text.ends_with("\nExpires: never\nAnyone can guess this name."), "{text}");
}

#[test]
fn databases_are_refused_for_both_flags_and_named_by_their_port() {
    let public = ExposeArgs { public: true, ..args("localhost:5432") };
    let failure = planned(&public, &[]).unwrap_err();
    assert_eq!((failure.exit.code(), failure.code.as_ref()), (2, "protected_port"));
    assert!(failure.message.starts_with("--public creates"));
    assert!(failure.message.ends_with("use: connect reach postgres"));
    let link = ExposeArgs { link: true, name: Some("prod-db".to_owned()), ..args("db:3306") };
    assert!(planned(&link, &[]).unwrap_err().message.ends_with("use: connect reach prod-db"));
    planned(&args("localhost:5432"), &[]).unwrap();
}

#[test]
fn everything_typed_is_checked_before_the_hub_is_asked() {
    for wrong in [
        args("nowhere"),
        ExposeArgs { protocol: "gopher".to_owned(), ..args(":3000") },
        ExposeArgs { allow_target: vec!["no-port".to_owned()], ..args(":3000") },
    ] {
        assert_eq!(planned(&wrong, &[]).unwrap_err().exit, Exit::Usage, "{wrong:?}");
    }
}

#[test]
fn targets_of_the_config_and_of_the_command_line_are_allowed_together() {
    let typed = ExposeArgs { allow_target: vec!["db:5432".to_owned()], ..args(":3000") };
    let exposure = planned(&typed, &["cache:6379".to_owned()]).unwrap();
    let allowed: Vec<String> = exposure.allowed.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["cache:6379", "db:5432"]);
}

#[test]
fn a_certificate_that_is_not_checked_is_said_and_one_by_own_issuers_too() {
    let mut service = service("admin", "localhost", 8443);
    service.protocol = "https".to_owned();
    let shown = [CertificateCheck::Unchecked, CertificateCheck::Issuers("/home/me/ca.pem".into())]
        .map(|check| exposed_text(&service, &check, None, Face::TERMINAL, &zone()));
    assert_transcript(&shown.join("\n"), include_str!("../../../tests/transcripts/expose-target-tls.txt"));
    let json = |check: CertificateCheck| serde_json::to_value(services::own_json(&service, &check)).unwrap();
    assert_eq!(json(CertificateCheck::Unchecked)["targetCertificate"], "unchecked");
    assert_eq!(json(CertificateCheck::Issuers("/x".into()))["targetCertificate"], "issuers");
    assert_eq!(json(CertificateCheck::System).get("targetCertificate"), None);
}

#[test]
fn flags_about_a_certificate_are_for_targets_that_have_one() {
    let insecure = ExposeArgs { target_insecure: true, ..args(":8443") };
    assert_eq!(planned(&insecure, &[]).unwrap().certificate, CertificateCheck::Unchecked);
    assert_eq!(planned(&args(":8443"), &[]).unwrap().certificate, CertificateCheck::System);
    for protocol in ["http", "tcp", "udp"] {
        let wrong = ExposeArgs { protocol: protocol.to_owned(), ..insecure.clone() };
        let failure = planned(&wrong, &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("--target-insecure"), "{}", failure.message);
    }
    let no_file = ExposeArgs { target_ca: Some("/no/such/file".into()), ..args(":8443") };
    let failure = planned(&no_file, &[]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message.contains("/no/such/file"), "{}", failure.message);
}

#[test]
fn a_link_to_what_is_no_web_site_is_refused_before_anything_is_exposed() {
    for protocol in ["tcp", "udp"] {
        let link = ExposeArgs { link: true, protocol: protocol.to_owned(), ..args(":3000") };
        let failure = planned(&link, &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains(protocol), "{}", failure.message);
        assert!(failure.hint.unwrap().contains("connect reach"));
    }
}

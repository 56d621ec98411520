//! `connect reach`: the diagnostics box.

use schemas::rest::TlsStep;

use super::*;
use crate::commands::tests::{assert_transcript, service};

fn step(ok: bool, ms: f64, detail: &str) -> Option<DiagnosticStep> {
    Some(DiagnosticStep { ok, ms, detail: detail.to_owned() })
}

#[test]
fn the_box_shows_each_step_that_was_looked_at() {
    let found = Diagnostics {
        reachable: true,
        dns: step(true, 0.31, "127.0.0.1"),
        tcp: step(true, 0.2, "connected"),
        http: step(false, 12.0, "503 Service Unavailable"),
        latency_ms: Some(0.2),
        ..Diagnostics::default()
    };
    assert_transcript(
        &diagnostics_text(&service("staging-api", "localhost", 8080), &found, Face::TERMINAL),
        include_str!("../../../tests/transcripts/reach-check.txt"),
    );
}

#[test]
fn without_ornaments_the_box_is_ascii() {
    let shown =
        diagnostics_text(&service("staging-api", "localhost", 8080), &Diagnostics::default(), Face::PIPE);
    assert!(shown.is_ascii());
    assert_transcript(&shown, include_str!("../../../tests/transcripts/reach-check-plain.txt"));
}

#[test]
fn a_hostile_target_cannot_break_out_of_the_box() {
    let found = Diagnostics { http: step(true, 1.0, "200\u{1b}[2J\r\nfake"), ..Diagnostics::default() };
    let shown = diagnostics_text(&service("a\nb", "localhost", 8080), &found, Face::TERMINAL);
    assert_eq!(shown.lines().count(), 9);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn of_a_udp_service_no_connection_is_claimed() {
    let mut service = service("dns", "localhost", 53);
    service.protocol = "udp".to_owned();
    let found = Diagnostics {
        reachable: true,
        dns: step(true, 0.31, "127.0.0.1"),
        udp: step(true, 0.1, "a way to 127.0.0.1:53; only an answer shows that somebody listens"),
        ..Diagnostics::default()
    };
    assert_transcript(
        &diagnostics_text(&service, &found, Face::TERMINAL),
        include_str!("../../../tests/transcripts/reach-check-udp.txt"),
    );
}

#[test]
fn what_answered_as_http_is_connected_to_as_http() {
    let http = || step(true, 1.0, "200 OK");
    let found = |tls, http| Diagnostics { tls, http, ..Diagnostics::default() };
    assert_eq!(seen_protocol(&found(None, http())), Protocol::Http);
    assert_eq!(seen_protocol(&found(Some(TlsStep::default()), http())), Protocol::Https);
    assert_eq!(seen_protocol(&found(None, step(false, 1.0, "no HTTP"))), Protocol::Auto);
    assert_eq!(seen_protocol(&found(None, None)), Protocol::Auto);
}

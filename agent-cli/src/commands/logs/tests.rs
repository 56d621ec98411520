//! `connect logs`: what people see, and what following remembers.

use super::*;
use crate::commands::tests::{MOMENT, assert_transcript, zone};

fn access(method: &str, path: Option<&str>, status_code: u16, latency_ms: u64) -> AccessEntry {
    AccessEntry {
        id: "evt_1.0".to_owned(),
        share_id: "share_1".to_owned(),
        accessed_at: MOMENT.to_owned(),
        ip_address: path.map(|_| "203.0.113.7".to_owned()),
        user_agent: None,
        path: path.map(str::to_owned),
        method: method.to_owned(),
        status_code,
        latency_ms,
        bytes_in: 0,
        bytes_out: 0,
        denied: None,
        ended_by: None,
        repeat: None,
    }
}

#[test]
fn each_access_is_a_line_with_local_time_and_why_it_was_denied() {
    let denied = AccessEntry {
        denied: Some("method_not_allowed".to_owned()),
        repeat: Some(31),
        ..access("DELETE", Some("/admin"), 403, 0)
    };
    let erased = AccessEntry { ended_by: Some("visitor".to_owned()), ..access("GET", None, 200, 5) };
    let entries = [access("GET", Some("/webhooks/stripe"), 200, 12), denied, erased];
    assert_transcript(
        &lines(&entries, Face::TERMINAL, &zone()),
        include_str!("../../../tests/transcripts/logs.txt"),
    );
    assert_eq!(lines(&[], Face::PIPE, &zone()), "Nobody has used this link yet");
}

#[test]
fn a_visitor_cannot_write_to_the_terminal_of_whoever_reads_the_log() {
    let hostile = access("GET\u{1b}[31m", Some("/\u{1b}]0;owned\u{7}\r\n[ok] fake"), 200, 1);
    let shown = line(&hostile, Face::TERMINAL, &zone());
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

#[test]
fn following_remembers_a_bounded_number_of_entries() {
    let mut seen = Seen::default();
    for number in 0..=SEEN_MAX {
        seen.remember(&number.to_string());
    }
    seen.remember("1");
    assert!(!seen.knows("0"));
    assert!(seen.knows("1") && seen.knows(&SEEN_MAX.to_string()));
    assert_eq!((seen.ids.len(), seen.order.len()), (SEEN_MAX, SEEN_MAX));
}

//! What is said about refusals and targets, and how seldom.

use super::*;
use crate::{
    agent::{Refusals, Tally},
    commands::tests::{assert_transcript, service},
};

const REASONS: [(Reason, &str); 9] = [
    (
        Reason::TargetUnreachable,
        "the agent cannot reach the target: localhost:5432: Connection refused (os error 111)",
    ),
    (Reason::TargetNotAllowed, "the agent's owner does not allow the target: localhost:5432"),
    (Reason::AgentOffline, "the agent is not connected"),
    (Reason::TunnelPaused, "the tunnel is paused"),
    (Reason::TunnelGone, "no such tunnel in this workspace"),
    (Reason::Busy, "the agent has no room for another stream"),
    (
        Reason::KeyChanged,
        "the service answers with another key than before: pinned is SHA256:old, now it is SHA256:new",
    ),
    (Reason::Unsealed, "the exposing agent does not answer"),
    (Reason::HubUnreachable, "the hub cannot be reached: there is no session with it"),
];

fn tunnel() -> TunnelId {
    "tun_00000000000000000000000000000001".parse().unwrap()
}

fn refused(reason: Reason, count: u64) -> Known {
    let refusals = Refusals::from([(reason, Tally { count, words: "why".to_owned() })]);
    Known { refused: BTreeMap::from([(tunnel().uuid(), refusals)]), ..Known::default() }
}

fn target(state: TargetState) -> Known {
    Known { targets: BTreeMap::from([(tunnel().uuid(), state)]), ..Known::default() }
}

fn unreachable(words: &str) -> TargetState {
    TargetState::Unreachable(words.to_owned())
}

/// How many connections each line that is due stands for.
fn counts(notices: &mut Notices<'_>, known: &Known, now: Instant) -> Vec<u64> {
    let count = |notice: &Notice| match notice {
        Notice::Refused { count, .. } => *count,
        Notice::Target(_) => 0,
    };
    notices.due(known, now).0.iter().map(count).collect()
}

#[test]
fn every_reason_is_said_with_what_to_do_next() {
    let service = service("prod-db", "localhost", 5432);
    let notices = Notices::about(&service, tunnel());
    let lines = REASONS.iter().enumerate().map(|(index, (reason, words))| {
        let count = index as u64 % 2 * 11 + 1;
        notices.text(&Notice::Refused { reason: *reason, count, words: (*words).to_owned() })
    });
    let lines: Vec<String> = lines.collect();
    assert_transcript(&lines.join("\n"), include_str!("../../../tests/transcripts/reach-refused.txt"));
}

#[test]
fn a_target_that_stops_and_comes_back_is_said_on_the_exposing_side() {
    let service = service("prod-db", "localhost", 5432);
    let notices = Notices::about(&service, tunnel());
    let lines = [
        unreachable("localhost:5432: Connection refused (os error 111)"),
        TargetState::Answers,
        TargetState::NotAllowed("the agent's owner does not allow db:5432".to_owned()),
    ]
    .map(|state| notices.text(&Notice::Target(state)));
    assert_transcript(&lines.join("\n"), include_str!("../../../tests/transcripts/expose-target.txt"));
}

#[test]
fn a_reason_is_said_at_once_and_then_at_most_every_five_seconds_with_a_count() {
    let service = service("prod-db", "localhost", 5432);
    let mut notices = Notices::about(&service, tunnel());
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let offline = |count| refused(Reason::AgentOffline, count);
    assert_eq!(counts(&mut notices, &offline(1), begin), [1]);
    assert_eq!(notices.due(&offline(40), after(1)), (vec![], Some(after(5))), "it is said later");
    assert_eq!(counts(&mut notices, &offline(41), after(5)), [40]);
    assert_eq!(notices.due(&offline(41), after(20)), (vec![], None), "nothing new, nothing to wait for");
    assert_eq!(counts(&mut notices, &offline(42), after(20)), [1]);
    assert_eq!(counts(&mut notices, &refused(Reason::TunnelPaused, 2), after(20)), [2], "another reason");
    let other = Known {
        refused: BTreeMap::from([(uuid::Uuid::nil(), offline(9).refused[&tunnel().uuid()].clone())]),
        ..Known::default()
    };
    assert_eq!(counts(&mut notices, &other, after(60)), [] as [u64; 0], "another service");
}

#[test]
fn a_target_is_said_when_it_changes_and_not_when_it_is_as_the_hub_said() {
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let begun = |status: &str| {
        let mut service = service("web", "localhost", 3000);
        service.status = status.to_owned();
        service
    };
    for (status, state, lines) in [
        ("active", TargetState::Answers, 0),
        ("connecting", TargetState::Answers, 0),
        ("error", unreachable("x"), 0),
        ("active", unreachable("x"), 1),
        ("connecting", unreachable("x"), 1),
        ("error", TargetState::Answers, 1),
    ] {
        let service = begun(status);
        let mut notices = Notices::about(&service, tunnel());
        assert_eq!(notices.due(&target(state.clone()), now).0.len(), lines, "{status} {state:?}");
        assert_eq!(notices.due(&target(state), after(60)), (vec![], None), "and once only");
    }
    let service = begun("active");
    let mut notices = Notices::about(&service, tunnel());
    assert_eq!(notices.due(&target(unreachable("x")), now).0.len(), 1);
    assert_eq!(notices.due(&target(TargetState::Answers), after(1)), (vec![], Some(after(5))), "it flaps");
    assert_eq!(notices.due(&target(unreachable("y")), after(2)), (vec![], None), "as was said");
    assert_eq!(
        notices.due(&target(TargetState::Answers), after(6)).0,
        [Notice::Target(TargetState::Answers)]
    );
}

#[test]
fn programs_get_reason_count_and_words() {
    let service = service("prod-db", "localhost", 5432);
    let notices = Notices::about(&service, tunnel());
    let refused =
        Notice::Refused { reason: Reason::TargetUnreachable, count: 3, words: "no\u{1b}[2J".to_owned() };
    assert_eq!(
        crate::output::text::json_line(&notices.json(&refused)),
        r#"{"count":3,"event":"refused","message":"no\u001b[2J","reason":"target_unreachable","service":"prod-db","serviceId":"tun_00000000000000000000000000000001"}"#
    );
    assert_eq!(
        notices.json(&Notice::Target(TargetState::Answers)).to_string(),
        r#"{"event":"target","message":null,"service":"prod-db","serviceId":"tun_00000000000000000000000000000001","state":"answers"}"#
    );
}

#[test]
fn of_a_udp_service_no_connections_are_spoken_of() {
    let mut service = service("dns", "localhost", 53);
    service.protocol = "udp".to_owned();
    let notices = Notices::about(&service, tunnel());
    let refusals = REASONS.iter().map(|(reason, words)| {
        let words = words.replace("localhost:5432", "localhost:53");
        notices.text(&Notice::Refused { reason: *reason, count: 2, words })
    });
    let target = unreachable("localhost:53: Connection refused (os error 111)");
    let lines: Vec<String> = refusals.chain([notices.text(&Notice::Target(target))]).collect();
    let lines = lines.join("\n");
    assert!(!lines.contains("connections"), "{lines}");
    assert_transcript(&lines, include_str!("../../../tests/transcripts/reach-refused-udp.txt"));
}

#[test]
fn a_certificate_that_is_not_accepted_is_said_once_with_what_to_do() {
    let mut service = service("admin", "localhost", 8443);
    let distrusted = || target(TargetState::Distrusted("its certificate has expired. Renew it".to_owned()));
    let now = Instant::now();
    // The hub's answer had the words already where the tunnel is of https alone.
    for (status, expected) in [("active", 1), ("error", 0)] {
        service.status = status.to_owned();
        let mut notices = Notices::about(&service, tunnel());
        assert_eq!(counts(&mut notices, &distrusted(), now).len(), expected, "{status}");
        assert_eq!(counts(&mut notices, &distrusted(), now).len(), 0);
        assert_eq!(counts(&mut notices, &target(TargetState::Answers), now + SAY_AGAIN * 2).len(), 1);
    }
    let notices = Notices::about(&service, tunnel());
    let words = "localhost:8443: its certificate has expired. Renew it".to_owned();
    let text = notices.text(&Notice::Target(TargetState::Distrusted(words)));
    assert_eq!(text, "admin: links to it do not work: its certificate has expired. Renew it");
}

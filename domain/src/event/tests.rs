//! Stored events are read in their newest shape or refused by name.

use super::*;
use crate::{testing::at, tunnel::TunnelPaused};

fn paused() -> Event {
    Event::Tunnel(tunnel::Event::Paused(TunnelPaused {}))
}
fn unknown(event_type: &str, version: u16) -> Result<Event, DecodeError> {
    Err(DecodeError::Unknown { event_type: event_type.to_owned(), version })
}

#[test]
fn an_event_reads_back_as_it_was_stored() {
    let stored = paused().encode();
    assert_eq!((stored.event_type, stored.version, stored.data.as_str()), ("tunnel.paused", 1, "{}"));
    assert_eq!(Event::decode("tunnel.paused", 1, "{}"), Ok(paused()));
}

#[test]
fn a_type_or_version_of_another_release_is_unknown_not_broken() {
    for (event_type, version) in [
        ("tunnel.paused", 2),
        ("tunnel.paused", 0),
        ("tunnel.frozen", 1),
        ("share.accessed", 2),
        ("share.opened", 1),
        ("key.created", 7),
        ("claim.stolen", 1),
        ("node.stopped", 1),
        ("agent.promoted", 1),
        ("webhook.created", 9),
        ("webhook.moved", 1),
        ("delivery.noted", 7),
        ("query.executed", 1),
        ("tunnel", 1),
        ("", 1),
        (".", 1),
    ] {
        assert_eq!(Event::decode(event_type, version, "{}"), unknown(event_type, version));
    }
}

#[test]
fn data_without_its_shape_says_which_event_it_was() {
    for data in ["", "{", "[]", "{}", "{\"reason\":\"bored\"}", "{\"reason\":\"requested\"} {}", "\u{0}"] {
        let Err(DecodeError::Shape { event_type, version, reason }) =
            Event::decode("tunnel.deleted", 1, data)
        else {
            panic!("{data:?} was read");
        };
        assert_eq!((event_type.as_str(), version), ("tunnel.deleted", 1));
        assert!(!reason.is_empty());
    }
}

// Today's version 1 stands for the newest, 0 for the one before.
const FROM_0: &[Upcast] = &[
    Upcast { event_type: "tunnel.paused", from: 0, step: |_| Value::Null, format: 3, back: |new| new },
    Upcast {
        event_type: "claim.released",
        from: 0,
        step: |mut old| {
            let until = old["until"].take();
            serde_json::json!({ "holder": old["owner"].take(), "quarantinedUntil": until })
        },
        format: 3,
        back: |mut new| {
            let until = new["quarantinedUntil"].take();
            serde_json::json!({ "owner": new["holder"].take(), "until": until })
        },
    },
];

#[test]
fn an_older_version_is_read_through_its_step() {
    let old = serde_json::json!({ "owner": "tun_1", "until": at(0).to_string() }).to_string();
    let released = claim::ClaimReleased { holder: "tun_1".to_owned(), quarantined_until: Some(at(0)) };
    let expected = Event::Claim(claim::Event::Released(released));
    assert_eq!(decode_with(FROM_0, "claim.released", 0, &old), Ok(expected.clone()));
    // The newest version does not pass any step.
    let new = expected.encode();
    assert_eq!(decode_with(FROM_0, "claim.released", 1, &new.data), Ok(expected));
}

#[test]
fn steps_of_other_types_are_not_taken() {
    assert_eq!(decode_with(FROM_0, "tunnel.resumed", 0, "{}"), unknown("tunnel.resumed", 0));
}

#[test]
fn steps_are_walked_one_after_the_other_as_far_as_they_lead() {
    const COUNT: fn(Value) -> Value = |value| Value::from(value.as_u64().unwrap_or_default() + 1);
    let step =
        |from| Upcast { event_type: "tunnel.paused", from, step: COUNT, format: 3, back: |value| value };
    // How far it came shows in the version that is then unknown.
    let table = [step(5), step(6), step(7)];
    assert_eq!(decode_with(&table, "tunnel.paused", 5, "0"), unknown("tunnel.paused", 8));
    assert_eq!(decode_with(&table, "tunnel.paused", 7, "0"), unknown("tunnel.paused", 8));
    assert_eq!(decode_with(&table, "tunnel.paused", 8, "0"), unknown("tunnel.paused", 8));
    let with_a_gap = [step(5), step(7)];
    assert_eq!(decode_with(&with_a_gap, "tunnel.paused", 5, "0"), unknown("tunnel.paused", 6));
}

#[test]
fn broken_data_is_an_error_also_on_the_way_through_steps() {
    for data in ["", "{", "nonsense"] {
        let read = decode_with(FROM_0, "claim.released", 0, data);
        assert!(matches!(read, Err(DecodeError::Shape { version: 0, .. })), "{data:?}: {read:?}");
    }
    // A step whose result has not the newest shape.
    let read = decode_with(FROM_0, "tunnel.paused", 0, "{}");
    assert!(matches!(read, Err(DecodeError::Shape { .. })), "{read:?}");
}

#[test]
fn a_log_of_an_earlier_format_gets_the_older_version_and_it_reads_back_the_same() {
    let released = claim::ClaimReleased { holder: "tun_1".to_owned(), quarantined_until: Some(at(0)) };
    let event = Event::Claim(claim::Event::Released(released));
    let old = encode_with(FROM_0, event.encode(), 2);
    assert_eq!((old.event_type, old.version), ("claim.released", 0));
    assert_eq!(old.data, serde_json::json!({ "owner": "tun_1", "until": at(0).to_string() }).to_string());
    assert_eq!(decode_with(FROM_0, old.event_type, old.version, &old.data), Ok(event.clone()));
    assert_eq!(
        encode_with(FROM_0, event.encode(), 3),
        event.encode(),
        "a log of the format in which it came"
    );
    assert_eq!(encode_with(FROM_0, paused().encode(), 1).version, 0);
}

#[test]
fn several_steps_back_are_walked_one_after_the_other_as_far_as_the_format_says() {
    const DOWN: fn(Value) -> Value = |value| Value::from(value.as_u64().unwrap_or_default() - 1);
    let step = |from, format| Upcast { event_type: "tunnel.paused", from, step: DOWN, format, back: DOWN };
    let table = [step(5, 2), step(6, 4), step(7, 5)];
    let newest = || Encoded { event_type: "tunnel.paused", version: 8, data: "10".to_owned() };
    let written = |format| {
        let encoded = encode_with(&table, newest(), format);
        (encoded.version, encoded.data)
    };
    for (format, version, data) in
        [(1, 5, "7"), (2, 6, "8"), (3, 6, "8"), (4, 7, "9"), (5, 8, "10"), (9, 8, "10")]
    {
        assert_eq!(written(format), (version, data.to_owned()), "format {format}");
    }
}

#[test]
fn every_format_up_to_the_newest_came_with_a_version_of_some_event() {
    let formats: std::collections::BTreeSet<u16> = UPCASTS.iter().map(|step| step.format).collect();
    let expected: std::collections::BTreeSet<u16> = (log_format::FIRST + 1..=log_format::NEWEST).collect();
    assert_eq!(formats, expected);
}

#[test]
fn the_data_of_an_older_version_is_shown_in_the_newest_shape() {
    let old = serde_json::json!({ "reason": "tcp: connection refused" });
    let new = serde_json::json!({ "step": "tcp", "reason": "connection refused" });
    assert_eq!(newest_data("service.unhealthy", 1, old.clone()), new);
    assert_eq!(newest_data("service.unhealthy", 2, new.clone()), new);
    assert_eq!(newest_data("service.unhealthy", 9, old.clone()), old, "of a later release: as it is");
}

#[test]
fn the_steps_of_this_build_lead_from_a_version_to_the_next_in_order() {
    for pair in UPCASTS.windows(2) {
        let [first, second] = pair else { unreachable!("windows of two") };
        let ordered = (first.event_type, first.from) < (second.event_type, second.from);
        assert!(ordered, "{} v{} stands before v{}", first.event_type, first.from, second.from);
    }
}

//! What leaves the hub of an event, and what does not.

use domain::{
    ids::{EventId, KeyId, RequestId, ShareId, TunnelId, WorkspaceId},
    recorded::{Actor, StreamName},
    time::Timestamp,
};
use uuid::Uuid;

use super::*;

fn recorded(stream: StreamName, data: &str, personal: Personal) -> Recorded {
    Recorded {
        position: 7_000,
        seq: 42,
        stream,
        revision: 3,
        id: EventId::new(Uuid::from_u128(5)),
        event_type: "tunnel.paused".into(),
        version: 1,
        recorded_at: Timestamp::from_millis(1_772_445_600_000),
        workspace: WorkspaceId::new(Uuid::from_u128(9)),
        actor: Actor::Key(KeyId::new(Uuid::from_u128(4))),
        causation: Some(EventId::new(Uuid::from_u128(3))),
        correlation: Some(RequestId::new(Uuid::from_u128(2))),
        data: data.into(),
        personal,
    }
}

fn paused() -> Recorded {
    let stream = StreamName::tunnel(TunnelId::new(Uuid::from_u128(1)));
    recorded(stream, r#"{"tokenHash":"abc"}"#, Personal::None)
}

#[test]
fn no_form_shows_the_log_s_own_position_or_a_hash() {
    let event = paused();
    for text in [
        serde_json::to_string(&entry(&event)).unwrap(),
        serde_json::to_string(&super::event(&event)).unwrap(),
        cloud_event(&event).to_string(),
    ] {
        assert!(!text.contains("7000") && !text.contains("abc"), "{text}");
        assert!(text.contains("42") && text.contains("tunnel.paused"), "{text}");
    }
}

#[test]
fn a_cloud_event_has_what_the_specification_asks_for() {
    let cloud = cloud_event(&paused());
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "evt_00000000000000000000000000000005"),
        ("source", "/workspaces/ws_00000000000000000000000000000009"),
        ("type", "tunnel.paused"),
        ("subject", "tunnel-tun_00000000000000000000000000000001"),
        ("time", "2026-03-02T10:00:00.000Z"),
        ("datacontenttype", "application/json"),
        ("sequence", "00000000000000000042"),
        ("actorid", "key_00000000000000000000000000000004"),
        ("correlationid", "req_00000000000000000000000000000002"),
    ] {
        assert_eq!(cloud[name], value, "{name}");
    }
    // Names of attributes are lower-case letters and digits, and at least one of them.
    for name in cloud.as_object().unwrap().keys() {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{name}");
    }
    assert_eq!(cloud["data"]["tunnelId"], "tun_00000000000000000000000000000001");
}

#[test]
fn what_is_personal_is_shown_when_it_was_opened_and_named_when_it_was_erased() {
    let stream = StreamName::accesses(ShareId::new(Uuid::from_u128(6)), Uuid::from_u128(1));
    let with = |personal| recorded(stream.clone(), "{}", personal);
    assert_eq!(super::event(&with(Personal::Open("[1]".into()))).personal, Some(json!([1])));
    assert_eq!(super::event(&with(Personal::Erased)).personal, Some(json!("erased")));
    assert_eq!(super::event(&with(Personal::Sealed(Box::new([1])))).personal, None);
    assert_eq!(super::event(&with(Personal::None)).personal, None);
    assert_eq!(cloud_event(&with(Personal::Erased))["data"]["personal"], "erased");
}

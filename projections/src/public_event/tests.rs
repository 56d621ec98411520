//! What outsiders get of an event, and what they do not.

use domain::{
    access::{self, Denied},
    environment,
    event::Event,
    ids::Id,
    names::Name,
    recorded::{Actor, StreamName},
    share::{self, RevokeReason, ShareCreated},
    time::Timestamp,
    tunnel,
};
use serde_json::json;
use uuid::Uuid;

use super::*;

fn id<K>(n: u128) -> Id<K> {
    Id::new(Uuid::from_u128(n))
}

fn recorded(stream: StreamName, event: &Event, personal: Personal) -> Recorded {
    let encoded = event.encode();
    Recorded {
        position: 70,
        seq: 7,
        stream,
        revision: 2,
        id: id(5),
        event_type: encoded.event_type.into(),
        version: encoded.version,
        recorded_at: Timestamp::from_millis(1_772_445_600_000),
        workspace: id(9),
        actor: Actor::System("test".to_owned()),
        causation: None,
        correlation: None,
        data: encoded.data.into(),
        personal,
    }
}

#[test]
fn an_event_says_what_it_concerns_although_only_its_stream_knows() {
    let revoked =
        Event::Share(share::Event::Revoked(share::ShareRevoked { reason: RevokeReason::Requested }));
    let shown = public(&recorded(StreamName::share(id(3)), &revoked, Personal::None), Known::default());
    assert_eq!(
        serde_json::to_value(&shown).unwrap(),
        json!({
            "id": "evt_00000000000000000000000000000005",
            "type": "share.revoked",
            "event": "share.revoked",
            "timestamp": "2026-03-02T10:00:00.000Z",
            "workspaceId": "ws_00000000000000000000000000000009",
            "data": { "shareId": "share_00000000000000000000000000000003", "reason": "requested" },
        })
    );
    let shown = data(&recorded(StreamName::tunnel(id(3)), &unwell(), Personal::None), Known::default());
    assert_eq!(shown["tunnelId"], "tun_00000000000000000000000000000003");
}

fn unwell() -> Event {
    let unwell = tunnel::ServiceUnhealthy { step: Some(tunnel::Step::Tcp), reason: "refused".to_owned() };
    Event::Tunnel(tunnel::Event::Unhealthy(unwell))
}

#[test]
fn a_message_has_the_newest_shape_and_an_entry_of_the_audit_the_recorded_one() {
    let newest = recorded(StreamName::tunnel(id(3)), &unwell(), Personal::None);
    let old = unwell().encode_for(domain::log_format::FIRST);
    let old = Recorded { version: old.version, data: old.data.into(), ..newest.clone() };
    assert_eq!(old.version, 1);
    let told = public(&old, Known::default());
    assert_eq!(told, public(&newest, Known::default()));
    assert_eq!((&told.data["step"], &told.data["reason"]), (&json!("tcp"), &json!("refused")));
    let shown = data(&old, Known::default());
    assert_eq!((shown.get("step"), &shown["reason"]), (None, &json!("tcp: refused")));
}

#[test]
fn an_environment_is_named_by_its_code_where_that_is_known() {
    let expired = Event::Environment(environment::Event::Expired(environment::EnvironmentExpired {}));
    let recorded = recorded(StreamName::environment(id(3)), &expired, Personal::None);
    assert_eq!(data(&recorded, Known { code: Some("x7k9m2") })["code"], "x7k9m2");
    assert!(!data(&recorded, Known::default()).contains_key("code"));
}

fn created(chosen: bool) -> Event {
    Event::Share(share::Event::Created(ShareCreated {
        share_id: id(3),
        workspace_id: id(9),
        tunnel_id: id(2),
        name: Name::parse("demo").unwrap(),
        description: None,
        expires_at: None,
        allowed_paths: None,
        allowed_methods: None,
        rate_limit_per_min: None,
        slug: "k3v9x".to_owned(),
        slug_chosen: chosen,
        public: false,
        read_only: true,
        token_hash: "a".repeat(64),
        token_preview: "share_tok_abcdef".to_owned(),
    }))
}

#[test]
fn nothing_that_opens_a_link_is_told() {
    let of = |event: &Event| {
        let shown = public(&recorded(StreamName::share(id(3)), event, Personal::None), Known::default());
        serde_json::to_string(&shown).unwrap()
    };
    let text = of(&created(false));
    assert!(!text.contains(&"a".repeat(64)) && !text.contains("k3v9x"), "{text}");
    assert!(of(&created(true)).contains("k3v9x"), "a chosen one is public by choice");
}

fn accessed() -> access::ShareAccessed {
    let access = access::Access {
        accessed_at: Timestamp::from_millis(1_772_445_600_000),
        method: "GET".to_owned(),
        status_code: 403,
        latency_ms: 3,
        bytes_in: 0,
        bytes_out: 120,
        denied: Some(Denied::PathNotAllowed),
        ended_by: None,
        running: false,
        repeat: None,
    };
    access::ShareAccessed {
        share_id: id(3),
        tunnel_id: id(2),
        accesses: vec![access.clone(), access],
        completions: vec![],
    }
}

#[test]
fn accesses_have_the_form_of_the_access_log_and_ids_of_their_own() {
    let event = Event::Access(access::Event::Accessed(accessed()));
    let visitors =
        r#"[{"ip":"203.0.113.9","path":"/a"},{"ip":"203.0.113.8","userAgent":"curl","path":"/b"}]"#;
    let stream = StreamName::accesses(id(3), Uuid::from_u128(1));
    let shown = accesses(&recorded(stream.clone(), &event, Personal::Open(visitors.into())), &accessed());
    assert_eq!(shown[1].id, "evt_00000000000000000000000000000005.1");
    assert_eq!(shown[1].path.as_deref(), Some("/b"));
    assert_eq!(shown[0].denied.as_deref(), Some("path_not_allowed"));
    let erased = accesses(&recorded(stream, &event, Personal::Erased), &accessed());
    assert_eq!((erased.len(), erased[0].ip_address.as_deref()), (2, None));
}

//! One example per event type and version, checked in under `schemas/events/`: what stored events look like, for ever.
//!
//! `UPDATE_GOLDENS=1 cargo test -p domain --test event_goldens every_event_type` writes missing and changed examples of
//! the newest versions. A changed example of a released version is a mistake: see `docs/how-to/change-an-event.md`.
// tidy: long because every event has its place in one match here, in which the compiler finds the one that has none

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it must be")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use domain::{
    access::{self, Access, Completion, Denied, EndedBy, Visitor},
    agent::{self, Capability, ClientType, DisconnectReason, Token},
    agent_command::{self, Order, Outcome},
    claim::{self, ClaimKind},
    delivery,
    environment::{self, OpenedPort},
    event::{DecodeError, Event},
    ids::Id,
    log_format, message,
    names::{Description, Name},
    node,
    policy::{methods::Method, paths::PathRule},
    recorded::Actor,
    retention, seal,
    share::{self, RevokeReason},
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{self, DeleteReason, Outage},
    webhook,
    workspace::{self, Scope},
};
use serde_json::Value;
use uuid::Uuid;

#[path = "event_goldens/webhooks.rs"]
mod webhooks;

/// The number of arms of [`place`].
const TYPES: usize = 57;

/// Where an event's type stands among all: a new type does not compile until it has a place here, and has no place
/// until [`examples`] has one of it.
fn place(event: &Event) -> usize {
    match event {
        Event::Workspace(workspace::Event::Created(_)) => 0,
        Event::Workspace(workspace::Event::KeyCreated(_)) => 1,
        Event::Workspace(workspace::Event::KeyRevoked(_)) => 2,
        Event::Agent(agent::Event::Registered(_)) => 3,
        Event::Agent(agent::Event::TokenIssued(_)) => 4,
        Event::Agent(agent::Event::Connected(_)) => 5,
        Event::Agent(agent::Event::Disconnected(_)) => 6,
        Event::Agent(agent::Event::Deleted(_)) => 7,
        Event::Tunnel(tunnel::Event::Created(_)) => 8,
        Event::Tunnel(tunnel::Event::Updated(_)) => 9,
        Event::Tunnel(tunnel::Event::Connected(_)) => 10,
        Event::Tunnel(tunnel::Event::Disconnected(_)) => 11,
        Event::Tunnel(tunnel::Event::Paused(_)) => 12,
        Event::Tunnel(tunnel::Event::Resumed(_)) => 13,
        Event::Tunnel(tunnel::Event::Expired(_)) => 14,
        Event::Tunnel(tunnel::Event::Deleted(_)) => 15,
        Event::Share(share::Event::Created(_)) => 16,
        Event::Share(share::Event::Revoked(_)) => 17,
        Event::Share(share::Event::Expired(_)) => 18,
        Event::Claim(claim::Event::Taken(_)) => 19,
        Event::Claim(claim::Event::Confirmed(_)) => 20,
        Event::Claim(claim::Event::Released(_)) => 21,
        Event::Node(node::Event::Started(_)) => 22,
        Event::Access(access::Event::Accessed(_)) => 23,
        Event::Agent(agent::Event::CapabilitiesSet(_)) => 24,
        Event::AgentCommand(agent_command::Event::Queued(_)) => 25,
        Event::AgentCommand(agent_command::Event::Delivered(_)) => 26,
        Event::AgentCommand(agent_command::Event::Finished(_)) => 27,
        Event::AgentCommand(agent_command::Event::Expired(_)) => 28,
        Event::Message(message::Event::Sent(_)) => 29,
        Event::Message(message::Event::Read(_)) => 30,
        Event::Message(message::Event::Expired(_)) => 31,
        Event::Tunnel(tunnel::Event::HealthConfigured(_)) => 32,
        Event::Tunnel(tunnel::Event::Healthy(_)) => 33,
        Event::Tunnel(tunnel::Event::Unhealthy(_)) => 34,
        Event::Environment(environment::Event::Shared(_)) => 35,
        Event::Environment(environment::Event::JoinRequested(_)) => 36,
        Event::Environment(environment::Event::JoinApproved(_)) => 37,
        Event::Environment(environment::Event::JoinDenied(_)) => 38,
        Event::Environment(environment::Event::Joined(_)) => 39,
        Event::Environment(environment::Event::PortsOpened(_)) => 40,
        Event::Environment(environment::Event::Revoked(_)) => 41,
        Event::Environment(environment::Event::Expired(_)) => 42,
        Event::Access(access::Event::TunnelsUsed(_)) => 43,
        Event::Workspace(workspace::Event::PersonalErased(_)) => 44,
        Event::Retention(retention::Event::Summed(_)) => 45,
        Event::Retention(retention::Event::Retired(_)) => 46,
        Event::Webhook(webhook::Event::Created(_)) => 47,
        Event::Webhook(webhook::Event::Updated(_)) => 48,
        Event::Webhook(webhook::Event::Disabled(_)) => 49,
        Event::Webhook(webhook::Event::Enabled(_)) => 50,
        Event::Webhook(webhook::Event::SecretRotated(_)) => 51,
        Event::Webhook(webhook::Event::Skipped(_)) => 52,
        Event::Webhook(webhook::Event::Deleted(_)) => 53,
        Event::Delivery(delivery::Event::Noted(_)) => 54,
        Event::LogFormat(log_format::Event::Raised(_)) => 55,
        Event::Seal(seal::Event::Sealed(_)) => 56,
    }
}

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0195_5a3c_e000_7000_8000_0000_0000_0000 + n)
}
fn id<K>(n: u128) -> Id<K> {
    Id::new(uuid(n))
}
fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_772_445_600_000 + seconds * 1000)
}
fn hash(digit: char) -> String {
    digit.to_string().repeat(64)
}
fn token(digit: char) -> Token {
    Token { token_hash: hash(digit), expires_at: at(30 * 86_400), key_id: Some(id(4)) }
}

fn sealed() -> seal::LogSealed {
    seal::LogSealed { position: 70_000, recorded_at: at(60), heads: hash('b'), seal: "7063533100".to_owned() }
}

fn retired() -> [retention::Event; 2] {
    [
        retention::Event::Summed(retention::HistorySummed {
            up_to: 70_000,
            shares: vec![retention::ShareSum {
                workspace_id: id(7),
                share_id: id(3),
                accesses: 40,
                denied: 2,
                bytes_in: 1_000,
                bytes_out: 90_000,
                last_accessed_at: Some(at(0)),
            }],
            tunnels: vec![retention::TunnelSum {
                workspace_id: id(7),
                tunnel_id: id(2),
                last_activity_at: at(0),
                connections: 1,
                bytes_in: 1_000,
                bytes_out: 90_000,
            }],
            open: vec![retention::OpenAccess {
                event_id: id(9),
                index: 3,
                share_id: id(3),
                tunnel_id: id(2),
                day: "2026-03-01".parse().unwrap(),
                latency_ms: 5_000,
                bytes_in: 10,
                bytes_out: 20,
            }],
            numbers: vec![retention::LastNumber { workspace_id: id(7), number: 12 }],
        }),
        retention::Event::Retired(retention::HistoryRetired {
            family: domain::recorded::Family::Accesses,
            before: "2026-03-02".parse().unwrap(),
            after: 0,
            up_to: 70_000,
            statement: hash('a'),
        }),
    ]
}

fn environments() -> [environment::Event; 8] {
    [
        environment::Event::Shared(environment::EnvironmentShared {
            environment_id: id(12),
            workspace_id: id(7),
            agent_id: id(1),
            owner: Actor::Key(id(4)),
            name: Some(name("Bug #123 debugging")),
            expires_at: at(86_400),
            require_approval: true,
            routes: vec![environment::Route {
                tunnel_id: id(2),
                name: name("prod-db"),
                target: Target { host: "localhost".to_owned(), port: 5432 },
                protocol: Protocol::Tcp,
            }],
            draw: 0,
            code_hash: hash('c'),
        }),
        environment::Event::JoinRequested(environment::JoinRequested { agent_id: id(8) }),
        environment::Event::JoinApproved(environment::JoinApproved { agent_id: id(8), decision: uuid(30) }),
        environment::Event::JoinDenied(environment::JoinDenied { agent_id: id(8), decision: uuid(31) }),
        environment::Event::Joined(environment::EnvironmentJoined { agent_id: id(8) }),
        environment::Event::PortsOpened(environment::PortsOpened {
            agent_id: id(8),
            ports: vec![OpenedPort { tunnel_id: id(2), local_port: 5432 }],
        }),
        environment::Event::Revoked(environment::EnvironmentRevoked {
            reason: environment::RevokeReason::AgentDeleted,
        }),
        environment::Event::Expired(environment::EnvironmentExpired {}),
    ]
}

/// An example of every type in its newest version, every optional field present.
fn examples() -> Vec<Event> {
    let agents = [
        agent::Event::Registered(agent::AgentRegistered {
            agent_id: id(1),
            workspace_id: id(7),
            label: name("alice-laptop"),
            name: name("alice"),
            client_type: Some(ClientType::ClaudeCode),
            ephemeral: true,
            token: token('a'),
        }),
        agent::Event::TokenIssued(agent::AgentTokenIssued {
            token: token('b'),
            previous_until: at(300),
            label: Some(name("alice-desk")),
            name: Some(name("alice-2")),
        }),
        agent::Event::Connected(agent::AgentConnected {
            agent_id: id(1),
            session_id: id(11),
            epoch: 3,
            node: "hub-1".to_owned(),
            boot: uuid(20),
            instance: uuid(21),
            agent_version: "0.1.0".to_owned(),
        }),
        agent::Event::Disconnected(agent::AgentDisconnected {
            agent_id: id(1),
            session_id: id(11),
            epoch: 3,
            reason: DisconnectReason::KeyRevoked,
        }),
        agent::Event::Deleted(agent::AgentDeleted { agent_id: id(1) }),
        agent::Event::CapabilitiesSet(agent::AgentCapabilitiesSet {
            agent_id: id(1),
            capabilities: vec![Capability {
                name: name("deploy"),
                metadata: BTreeMap::from([("region".to_owned(), "eu".into())]),
            }],
        }),
    ];
    let commands = [
        agent_command::Event::Queued(agent_command::CommandQueued {
            command_id: id(30),
            workspace_id: id(7),
            agent_id: id(1),
            order: Order::Expose {
                target: Target { host: "localhost".to_owned(), port: 3000 },
                name: Some(name("web")),
                protocol: Protocol::Auto,
            },
            expires_at: at(3_600),
        }),
        agent_command::Event::Delivered(agent_command::CommandDelivered { session_id: id(11) }),
        agent_command::Event::Finished(agent_command::CommandFinished {
            outcome: Outcome::Failed {
                code: "target_not_allowed".to_owned(),
                message: "the agent's owner does not allow localhost:3000".to_owned(),
            },
        }),
        agent_command::Event::Expired(agent_command::CommandExpired {}),
    ];
    let messages = [
        message::Event::Sent(message::MessageSent {
            message_id: id(31),
            workspace_id: id(7),
            from: id(1),
            to: id(8),
            key_id: Some(id(4)),
            topic: Some(name("build")),
            broadcast: true,
            payload_bytes: 17,
            expires_at: at(7 * 86_400),
        }),
        message::Event::Read(message::MessageRead {}),
        message::Event::Expired(message::MessageExpired {}),
    ];
    let tunnels = [
        tunnel::Event::Created(tunnel::TunnelCreated {
            tunnel_id: id(2),
            workspace_id: id(7),
            agent_id: id(1),
            name: name("prod-db"),
            target: Target { host: "localhost".to_owned(), port: 5432 },
            protocol: Protocol::Tcp,
            is_public: false,
            tunnel_port: 10_007,
            expires_at: Some(at(86_400)),
        }),
        tunnel::Event::Updated(tunnel::TunnelUpdated {
            name: Some(name("production-database")),
            metadata: Some(tunnel::Metadata::from([("team".to_owned(), "core".into())])),
            agent_id: Some(id(8)),
            target: Some(Target { host: "::1".to_owned(), port: 5433 }),
            protocol: Some(Protocol::Auto),
            is_public: Some(false),
        }),
        tunnel::Event::Connected(tunnel::TunnelConnected { session_id: id(11) }),
        tunnel::Event::Disconnected(tunnel::TunnelDisconnected {
            outage: Outage::TargetUnreachable("connection refused".to_owned()),
        }),
        tunnel::Event::Paused(tunnel::TunnelPaused {}),
        tunnel::Event::Resumed(tunnel::TunnelResumed {}),
        tunnel::Event::Expired(tunnel::TunnelExpired {}),
        tunnel::Event::Deleted(tunnel::TunnelDeleted { reason: DeleteReason::AgentDeleted }),
        tunnel::Event::HealthConfigured(tunnel::HealthConfigured { enabled: true, interval_seconds: 30 }),
        tunnel::Event::Healthy(tunnel::ServiceHealthy {}),
        tunnel::Event::Unhealthy(tunnel::ServiceUnhealthy {
            step: Some(tunnel::Step::Tcp),
            reason: "connection refused".to_owned(),
        }),
    ];
    let shares = [
        share::Event::Created(share::ShareCreated {
            share_id: id(3),
            workspace_id: id(7),
            tunnel_id: id(2),
            name: name("contractor-access"),
            description: Some(Description::parse("Read-only preview\nuntil Friday").unwrap()),
            expires_at: Some(at(86_400)),
            allowed_paths: Some(vec![
                PathRule::parse("/api/*").unwrap(),
                PathRule::parse("/files/*.txt").unwrap(),
            ]),
            allowed_methods: Some(vec![Method::Get, Method::Post]),
            rate_limit_per_min: Some(60),
            slug: "acme-preview".to_owned(),
            slug_chosen: true,
            public: true,
            read_only: true,
            token_hash: hash('c'),
            token_preview: "share_tok_k7m2\u{2026}".to_owned(),
        }),
        share::Event::Revoked(share::ShareRevoked { reason: RevokeReason::TunnelDeleted }),
        share::Event::Expired(share::ShareExpired {}),
    ];
    let claims = [
        claim::Event::Taken(claim::ClaimTaken {
            kind: ClaimKind::TunnelName,
            key: "ws_01955a3ce00070008000000000000007/prod-db".to_owned(),
            workspace_id: id(7),
            holder: "tun_01955a3ce00070008000000000000002".to_owned(),
            command_id: uuid(30),
        }),
        claim::Event::Confirmed(claim::ClaimConfirmed {
            holder: "tun_01955a3ce00070008000000000000002".to_owned(),
        }),
        claim::Event::Released(claim::ClaimReleased {
            holder: "share_01955a3ce00070008000000000000003".to_owned(),
            quarantined_until: Some(at(30 * 86_400)),
        }),
    ];
    let workspaces = [
        workspace::Event::Created(workspace::WorkspaceCreated { workspace_id: id(7), name: name("default") }),
        workspace::Event::KeyCreated(workspace::KeyCreated {
            key_id: id(4),
            name: name("ci"),
            scopes: vec![Scope::Read, Scope::Agent],
            key_hash: hash('d'),
            prefix: "pc_k7m2\u{2026}".to_owned(),
            allowed_ip_ranges: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            expires_at: Some(at(86_400)),
        }),
        workspace::Event::KeyRevoked(workspace::KeyRevoked { key_id: id(4) }),
        workspace::Event::PersonalErased(workspace::PersonalErased {
            share_id: Some(id(3)),
            first_day: "2026-03-01".parse().unwrap(),
            last_day: "2026-03-02".parse().unwrap(),
            erased_at: at(0),
            keys: 2,
        }),
    ];
    let started = node::NodeStarted {
        node: "hub-1".to_owned(),
        boot: uuid(20),
        version: "0.1.0".to_owned(),
        reads_format: Some(2),
    };
    let mut examples: Vec<Event> = workspaces.map(Event::Workspace).into();
    examples.extend(agents.map(Event::Agent));
    examples.extend(tunnels.map(Event::Tunnel));
    examples.extend(shares.map(Event::Share));
    examples.extend(claims.map(Event::Claim));
    examples.extend(retired().map(Event::Retention));
    examples.push(Event::Seal(seal::Event::Sealed(sealed())));
    examples.push(Event::Node(node::Event::Started(started)));
    examples.push(Event::Access(access::Event::Accessed(accesses())));
    examples.extend(commands.map(Event::AgentCommand));
    examples.extend(messages.map(Event::Message));
    examples.extend(environments().map(Event::Environment));
    examples.push(Event::Access(access::Event::TunnelsUsed(access::TunnelsUsed {
        tunnels: vec![access::TunnelUse {
            tunnel_id: id(2),
            connections: 3,
            bytes_in: 1_024,
            bytes_out: 1_048_576,
            last_activity_at: at(60),
        }],
    })));
    examples.extend(webhooks::webhooks().map(Event::Webhook));
    examples.push(Event::Delivery(delivery::Event::Noted(webhooks::deliveries())));
    let raised = log_format::LogFormatRaised { format: 2, release: "0.1.0".to_owned() };
    examples.push(Event::LogFormat(log_format::Event::Raised(raised)));
    examples
}

fn accesses() -> access::ShareAccessed {
    let running = Access {
        accessed_at: at(60),
        method: "GET".to_owned(),
        status_code: 200,
        latency_ms: 5_000,
        bytes_in: 0,
        bytes_out: 5_120,
        denied: None,
        ended_by: None,
        running: true,
        repeat: None,
    };
    let left = Access { latency_ms: 12, ended_by: Some(EndedBy::Visitor), running: false, ..running.clone() };
    let refused = Access {
        method: "POST".to_owned(),
        status_code: 403,
        latency_ms: 0,
        bytes_out: 214,
        denied: Some(Denied::PathNotAllowed),
        ended_by: None,
        repeat: Some(17),
        ..left
    };
    let completion = Completion {
        event_id: id(40),
        index: 0,
        latency_ms: 61_000,
        bytes_in: 1_024,
        bytes_out: 1_048_576,
        ended_by: Some(EndedBy::Revoked),
    };
    access::ShareAccessed {
        share_id: id(3),
        tunnel_id: id(2),
        accesses: vec![running, left, refused],
        completions: vec![completion],
    }
}

/// The personal part that goes with [`accesses`].
fn visitors() -> Vec<Visitor> {
    let laptop = Visitor {
        ip: "203.0.113.7".to_owned(),
        user_agent: Some("Mozilla/5.0".to_owned()),
        path: "/api/orders".to_owned(),
    };
    let script = Visitor { ip: "2001:db8::7".to_owned(), user_agent: None, path: "/admin".to_owned() };
    vec![laptop.clone(), laptop, script]
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "schemas", "events"].iter().collect()
}

fn pretty(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap();
    format!("{value:#}\n")
}

/// Every golden by type and version; files that are none fail the test.
fn goldens() -> BTreeMap<(String, u16), String> {
    let entries = fs::read_dir(folder()).expect("schemas/events/ exists");
    let files = entries.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let file = entry.file_name().into_string().unwrap();
            let stem = file.strip_suffix(".json").unwrap_or_else(|| panic!("{file} is no event"));
            let (event_type, version) =
                stem.rsplit_once(".v").unwrap_or_else(|| panic!("{file} names no version"));
            let version = version.parse().unwrap_or_else(|_| panic!("{file} names no version"));
            ((event_type.to_owned(), version), fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

/// Compares a golden with what is written today, or writes it when asked to.
fn check(file: &str, written: &str) {
    let path = folder().join(file);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_else(|_| panic!("schemas/events/{file} is missing"));
    assert_eq!(golden, written, "schemas/events/{file} differs from what is written today");
}

#[test]
fn every_event_type_has_an_example_and_is_written_and_read_as_its_golden_says() {
    let mut places: Vec<usize> = examples().iter().map(place).collect();
    places.sort_unstable();
    assert_eq!(places, (0..TYPES).collect::<Vec<_>>(), "a type has no example, or two");
    for example in examples() {
        let stored = example.encode();
        let file = format!("{}.v{}.json", stored.event_type, stored.version);
        check(&file, &pretty(&stored.data));
        let golden = fs::read_to_string(folder().join(&file)).unwrap();
        assert_eq!(Event::decode(stored.event_type, stored.version, &golden), Ok(example), "{file}");
    }
    check("personal/share.accessed.v1.json", &pretty(&serde_json::to_string(&visitors()).unwrap()));
    let golden = fs::read_to_string(folder().join("personal/share.accessed.v1.json")).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Visitor>>(&golden).unwrap(), visitors());
}

#[test]
fn every_golden_is_still_read() {
    let goldens = goldens();
    assert!(goldens.len() >= TYPES);
    for ((event_type, version), golden) in goldens {
        let read = Event::decode(&event_type, version, &golden);
        assert!(read.is_ok(), "{event_type}.v{version}.json: {read:?}");
    }
}

#[test]
fn an_older_version_says_what_the_newest_one_says() {
    let newest: BTreeMap<&str, Event> =
        examples().into_iter().map(|event| (event.encode().event_type, event)).collect();
    let mut older = 0;
    for ((event_type, version), golden) in goldens() {
        let example = &newest[event_type.as_str()];
        if version < example.encode().version {
            assert_eq!(
                Event::decode(&event_type, version, &golden).as_ref(),
                Ok(example),
                "{event_type}.v{version}"
            );
            older += 1;
        }
    }
    assert!(older >= 1, "there are older versions");
}

#[test]
fn in_a_log_of_the_first_format_every_event_is_written_in_its_first_version() {
    for example in examples() {
        let stored = example.encode_for(log_format::FIRST);
        let file = format!("{}.v1.json", stored.event_type);
        assert_eq!(stored.version, 1, "{file}");
        let golden = fs::read_to_string(folder().join(&file)).unwrap();
        assert_eq!(pretty(&stored.data), golden, "{file}");
    }
}

#[test]
fn a_golden_with_a_field_of_another_type_is_no_event() {
    for ((event_type, version), golden) in goldens() {
        let value: Value = serde_json::from_str(&golden).unwrap();
        for field in value.as_object().unwrap().keys() {
            let mut broken = value.clone();
            broken[field] = Value::Array(vec![Value::Null]);
            let read = Event::decode(&event_type, version, &broken.to_string());
            let shape = matches!(read, Err(DecodeError::Shape { .. }));
            assert!(shape, "{event_type}.v{version} with a broken `{field}`: {read:?}");
        }
        let read = Event::decode(&event_type, version, "null");
        assert!(
            matches!(read, Err(DecodeError::Shape { .. })),
            "{event_type}.v{version} from null: {read:?}"
        );
    }
}

#[test]
fn only_these_fields_may_be_absent() {
    let mut optional = Vec::new();
    for ((event_type, version), golden) in goldens() {
        let value: Value = serde_json::from_str(&golden).unwrap();
        for field in value.as_object().unwrap().keys() {
            let mut without = value.clone();
            without.as_object_mut().unwrap().remove(field);
            if Event::decode(&event_type, version, &without.to_string()).is_ok() {
                optional.push(format!("{event_type}.v{version} {field}"));
            }
        }
    }
    let expected = [
        "agent.registered.v1 clientType",
        "agent.registered.v1 ephemeral",
        "agent.token_issued.v1 label",
        "agent.token_issued.v1 name",
        "claim.released.v1 quarantinedUntil",
        "delivery.noted.v1 failing",
        "delivery.noted.v1 failingSince",
        "delivery.noted.v1 planned",
        "delivery.noted.v1 quietUntil",
        "delivery.noted.v1 replayUpTo",
        "delivery.noted.v1 skipped",
        "delivery.noted.v1 tried",
        "environment.shared.v1 name",
        "key.created.v1 expiresAt",
        "message.sent.v1 keyId",
        "message.sent.v1 topic",
        "node.started.v1 readsFormat",
        "service.unhealthy.v2 step",
        "share.accessed.v1 completions",
        "share.created.v1 allowedMethods",
        "share.created.v1 allowedPaths",
        "share.created.v1 description",
        "share.created.v1 expiresAt",
        "share.created.v1 public",
        "share.created.v1 rateLimitPerMin",
        "share.created.v1 slugChosen",
        "tunnel.created.v1 expiresAt",
        "tunnel.updated.v1 agentId",
        "tunnel.updated.v1 isPublic",
        "tunnel.updated.v1 metadata",
        "tunnel.updated.v1 name",
        "tunnel.updated.v1 protocol",
        "tunnel.updated.v1 target",
        "webhook.created.v1 description",
        "webhook.updated.v1 description",
        "webhook.updated.v1 events",
        "webhook.updated.v1 url",
        "workspace.personal_erased.v1 shareId",
    ];
    assert_eq!(optional, expected);
}

#[test]
fn an_event_of_a_later_release_with_one_more_field_is_read_without_it() {
    for ((event_type, version), golden) in goldens() {
        let mut value: Value = serde_json::from_str(&golden).unwrap();
        value["addedLater"] = Value::Bool(true);
        assert_eq!(
            Event::decode(&event_type, version, &value.to_string()),
            Event::decode(&event_type, version, &golden)
        );
    }
}

#[test]
fn every_word_that_events_use_is_spelled_for_ever() {
    fn words<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
        values: &[T],
        spelled: &str,
    ) {
        let spelled: Vec<_> = spelled.split(' ').collect();
        assert_eq!(values.len(), spelled.len());
        for (value, word) in values.iter().zip(spelled) {
            assert_eq!(serde_json::to_value(value).unwrap(), word);
            assert_eq!(&serde_json::from_value::<T>(word.into()).unwrap(), value);
        }
    }
    use delivery::{GaveUp as G, Lane as L, Problem as X};
    use webhook::DisableReason as W;
    words(&[W::Requested, W::Gone, W::Failing], "requested gone failing");
    words(&[L::Ordered, L::Aside, L::Alone], "ordered aside alone");
    words(&[G::Exhausted, G::Gone, G::SourceLost, G::Inactive], "exhausted gone source_lost inactive");
    words(
        &[
            X::UrlRefused,
            X::Unresolved,
            X::AddressRefused,
            X::Unreachable,
            X::Tls,
            X::TimedOut,
            X::BrokenOff,
            X::NotHttp,
            X::SourceLost,
        ],
        "url_refused unresolved address_refused unreachable tls timed_out broken_off not_http source_lost",
    );
    use DisconnectReason as D;
    words(
        &[
            D::Left,
            D::Lost,
            D::Silent,
            D::Replaced,
            D::KeyRevoked,
            D::TokenExpired,
            D::Deleted,
            D::Protocol,
            D::Drained,
        ],
        "left lost silent replaced key_revoked token_expired deleted protocol drained",
    );
    use ClientType as C;
    words(
        &[C::Cursor, C::ClaudeCode, C::Codex, C::Devin, C::GithubActions, C::Cli, C::Sdk, C::Other],
        "cursor claude-code codex devin github-actions cli sdk other",
    );
    use environment::RevokeReason as V;
    words(&[V::Requested, V::AgentDeleted], "requested agent_deleted");
    words(&[DeleteReason::Requested, DeleteReason::AgentDeleted], "requested agent_deleted");
    words(&tunnel::Step::ALL, "agent dns tcp udp tls http");
    use RevokeReason as R;
    words(&[R::Requested, R::TunnelDeleted, R::TunnelExpired], "requested tunnel_deleted tunnel_expired");
    use ClaimKind as K;
    words(
        &[K::TunnelName, K::TunnelPort, K::Slug, K::Idempotency, K::EnvironmentCode],
        "tunnel_name tunnel_port slug idempotency environment_code",
    );
    for (outcome, spelled) in [
        (Outcome::Done { result: Value::Null }, r#"{"kind":"done","result":null}"#),
        (
            Outcome::Failed { code: "a".to_owned(), message: "b".to_owned() },
            r#"{"kind":"failed","code":"a","message":"b"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&outcome).unwrap(), spelled);
        assert_eq!(serde_json::from_str::<Outcome>(spelled).unwrap(), outcome);
    }
    words(&[Scope::Admin, Scope::Write, Scope::Read, Scope::Agent], "admin write read agent");
    use Protocol as P;
    words(&[P::Auto, P::Tcp, P::Udp, P::Http, P::Https], "auto tcp udp http https");
    words(&Method::ALL, "GET POST PUT PATCH DELETE");
    use EndedBy as E;
    words(&[E::Visitor, E::Upstream, E::Revoked, E::Stalled, E::Hub], "visitor upstream revoked stalled hub");
    words(
        &[
            Denied::ShareRevoked,
            Denied::ShareExpired,
            Denied::TunnelPaused,
            Denied::TunnelGone,
            Denied::AgentOffline,
            Denied::MethodNotAllowed,
            Denied::AmbiguousPath,
            Denied::PathNotAllowed,
            Denied::RateLimited,
            Denied::BadRequest,
            Denied::UpstreamFailed,
            Denied::UpstreamTimeout,
            Denied::NotServed,
        ],
        "share_revoked share_expired tunnel_paused tunnel_gone agent_offline method_not_allowed ambiguous_path \
         path_not_allowed rate_limited bad_request upstream_failed upstream_timeout not_served",
    );
    for (outage, spelled) in [
        (Outage::AgentDisconnected, r#"{"kind":"agent_disconnected"}"#),
        (Outage::TargetUnreachable("x".to_owned()), r#"{"kind":"target_unreachable","detail":"x"}"#),
        (Outage::TargetRefused("x".to_owned()), r#"{"kind":"target_refused","detail":"x"}"#),
    ] {
        assert_eq!(serde_json::to_string(&outage).unwrap(), spelled);
        assert_eq!(serde_json::from_str::<Outage>(spelled).unwrap(), outage);
    }
}

/// Every string in a value with the name of the field that holds it.
fn strings<'a>(field: &'a str, value: &'a Value, found: &mut Vec<(&'a str, &'a str)>) {
    match value {
        Value::String(text) => found.push((field, text)),
        Value::Array(items) => items.iter().for_each(|item| strings(field, item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| strings(name, value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn no_event_has_a_place_for_a_secret() {
    for ((event_type, version), golden) in goldens() {
        let value: Value = serde_json::from_str(&golden).unwrap();
        let mut found = Vec::new();
        strings("", &value, &mut found);
        for (field, text) in found {
            let lower = field.to_lowercase();
            let sounds_secret =
                ["token", "key", "secret", "password", "credential"].iter().any(|word| lower.contains(word));
            // `key` of a claim is what is claimed: a name, a port, a slug or a digest.
            let harmless = ["Hash", "Preview", "Id"].iter().any(|end| field.ends_with(end))
                || (event_type == "claim.taken" && field == "key");
            assert!(!sounds_secret || harmless, "{event_type}.v{version}: `{field}` could hold a secret");
            if field.ends_with("Hash") {
                let digest = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(digest, "{event_type}.v{version}: `{field}` is no SHA-256");
            }
            if field.ends_with("Preview") || field == "prefix" {
                assert!(text.chars().count() <= 16, "{event_type}.v{version}: `{field}` shows too much");
            }
        }
    }
}

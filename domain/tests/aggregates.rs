//! Properties of every aggregate: replay equals live, a repeated command changes nothing, no order of events panics.
//!
//! Commands and events are drawn from few ids, names and moments, so that they meet each other often.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it must be")]

use std::fmt::Debug;

use domain::{
    agent::{self, Agent, Capability, Takeover},
    agent_command::{self, AgentCommand, Order, Outcome},
    aggregate::Aggregate,
    claim::{self, Claim, ClaimKind},
    environment::{self, Environment},
    event::Event,
    ids::Id,
    log_format::{self, LogFormat},
    message::{self, Message},
    names::{Description, Name},
    node::{self, Node},
    policy::{methods::Method, paths::PathRule},
    recorded::Actor,
    share::{self, Share},
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{self, Tunnel},
    webhook::{self, Webhook},
    workspace::{self, Scope, Workspace},
};
use proptest::prelude::*;
use uuid::Uuid;

/// What a command or event is made of: its kind and three choices.
type Draw = [u8; 4];

fn id<K>(n: u8) -> Id<K> {
    Id::new(uuid(n))
}
fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n % 3) + 1)
}
fn at(n: u8) -> Timestamp {
    Timestamp::from_millis(i64::from(n % 4) * 100_000)
}
fn name(n: u8) -> Name {
    Name::parse(["a", "b", "c"][usize::from(n % 3)]).expect("a plain name")
}
fn hash(n: u8) -> String {
    char::from(b'a' + n % 3).to_string().repeat(64)
}
fn flag(n: u8) -> bool {
    n.is_multiple_of(2)
}

/// Lets commands through one after the other and checks what must hold at each step. Returns the last state.
fn live<A>(commands: &[A::Command]) -> A
where
    A: Aggregate + Debug + PartialEq,
    A::Command: Debug,
    A::Event: Debug + PartialEq,
    A::Rejection: Debug + PartialEq,
{
    let mut state = A::default();
    let mut replayed = A::default();
    for command in commands {
        let Ok(events) = state.decide(command) else { continue };
        for event in events {
            state.evolve(&event);
            // Replay reads what the log stores.
            let stored = A::into_event(event.clone()).encode();
            let read = Event::decode(stored.event_type, stored.version, &stored.data).unwrap();
            replayed.evolve(&A::from_event(read).expect("an aggregate reads its own events"));
            // In a log of an earlier format it is another version, and read all the same.
            for format in 1..=log_format::NEWEST {
                let stored = A::into_event(event.clone()).encode_for(format);
                assert!(Event::decode(stored.event_type, stored.version, &stored.data).is_ok(), "{stored:?}");
            }
            assert_eq!(replayed, state, "replay differs from live after {command:?}");
        }
        let again = state.decide(command);
        assert!(matches!(&again, Ok(events) if events.is_empty()), "{command:?} twice: {again:?}");
    }
    state
}

fn replay<A: Aggregate>(events: &[A::Event]) -> A {
    let mut state = A::default();
    for event in events {
        state.evolve(event);
    }
    state
}

// Agent ---------------------------------------------------------------------------------------------------------

fn token(n: u8) -> agent::Token {
    agent::Token { token_hash: hash(n), expires_at: at(n / 3), key_id: flag(n).then(|| id(n)) }
}
fn registered([_, a, b, c]: Draw) -> agent::AgentRegistered {
    agent::AgentRegistered {
        agent_id: id(0),
        workspace_id: id(a / 64),
        label: name(b),
        name: name(c),
        client_type: flag(a).then_some(agent::ClientType::Cli),
        ephemeral: flag(b),
        token: token(c),
    }
}
fn session([_, a, b, _]: Draw) -> agent::AgentConnected {
    agent::AgentConnected {
        agent_id: id(0),
        // One session has one epoch.
        session_id: Id::new(Uuid::from_u128(u128::from(a % 6))),
        epoch: u64::from(a % 6),
        node: "hub-1".to_owned(),
        boot: uuid(b),
        instance: uuid(b),
        agent_version: "0.1.0".to_owned(),
    }
}
fn agent_command(draw: Draw) -> agent::Command {
    let [kind, a, b, c] = draw;
    match kind % 7 {
        0 | 1 => agent::Command::Register {
            agent: registered(draw),
            now: at(a),
            takeover: if flag(a / 4) { Takeover::Any } else { Takeover::OwnKey },
        },
        2 => agent::Command::RotateToken { current_hash: hash(a), token: token(b), now: at(c) },
        3 | 4 => agent::Command::Connect { session: session(draw) },
        5 => agent::Command::SetCapabilities { capabilities: vec![capability(a)] },
        _ if a < 32 => agent::Command::Delete,
        _ => agent::Command::Disconnect {
            session_id: session(draw).session_id,
            reason: agent::DisconnectReason::Lost,
        },
    }
}
fn capability(n: u8) -> Capability {
    Capability { name: name(n), metadata: std::collections::BTreeMap::new() }
}
fn agent_event(draw: Draw) -> agent::Event {
    let [kind, a, b, c] = draw;
    match kind % 6 {
        5 => agent::Event::CapabilitiesSet(agent::AgentCapabilitiesSet {
            agent_id: id(0),
            capabilities: vec![capability(a)],
        }),
        0 => agent::Event::Registered(registered(draw)),
        1 => agent::Event::TokenIssued(agent::AgentTokenIssued {
            token: token(a),
            previous_until: at(b),
            label: flag(c).then(|| name(c)),
            name: flag(b).then(|| name(b)),
        }),
        2 => agent::Event::Connected(session(draw)),
        3 => agent::Event::Disconnected(agent::AgentDisconnected {
            agent_id: id(0),
            session_id: id(a),
            epoch: u64::from(b),
            reason: agent::DisconnectReason::Left,
        }),
        _ => agent::Event::Deleted(agent::AgentDeleted { agent_id: id(0) }),
    }
}

// Tunnel --------------------------------------------------------------------------------------------------------

fn target(n: u8) -> Target {
    let port = [3000, 5432, 8080][usize::from(n % 3)];
    Target { host: "localhost".to_owned(), port }
}
fn outage(n: u8) -> tunnel::Outage {
    match n % 3 {
        0 => tunnel::Outage::AgentDisconnected,
        1 => tunnel::Outage::TargetUnreachable("connection refused".to_owned()),
        _ => tunnel::Outage::TargetRefused("not allowed".to_owned()),
    }
}
fn tunnel_created([_, a, b, c]: Draw) -> tunnel::TunnelCreated {
    tunnel::TunnelCreated {
        tunnel_id: id(0),
        workspace_id: id(0),
        agent_id: id(a),
        name: name(b),
        target: target(c),
        protocol: Protocol::Auto,
        is_public: flag(a),
        tunnel_port: u16::from(b),
        expires_at: flag(c).then(|| at(b)),
    }
}
fn tunnel_updated([_, a, b, c]: Draw) -> tunnel::TunnelUpdated {
    tunnel::TunnelUpdated {
        name: flag(a).then(|| name(a)),
        metadata: flag(b).then(|| tunnel::Metadata::from([("k".to_owned(), c.into())])),
        agent_id: flag(a / 2).then(|| id(c)),
        target: flag(b / 2).then(|| target(c)),
        protocol: flag(c).then_some(Protocol::Http),
        is_public: flag(c / 2).then_some(flag(a / 4)),
    }
}
fn watched(n: u8) -> tunnel::HealthConfigured {
    tunnel::HealthConfigured { enabled: flag(n), interval_seconds: u32::from(n % 5) * 10 }
}
fn finding(n: u8) -> tunnel::Finding {
    if flag(n) {
        tunnel::Finding::Healthy
    } else {
        tunnel::Finding::Unhealthy { step: Some(tunnel::Step::Tcp), reason: "refused".to_owned() }
    }
}
fn switch(n: u8) -> Option<tunnel::Switch> {
    [None, Some(tunnel::Switch::Pause), Some(tunnel::Switch::Resume)][usize::from(n % 3)]
}
fn tunnel_command(draw: Draw) -> tunnel::Command {
    let [kind, a, _, _] = draw;
    match kind % 14 {
        0..3 => tunnel::Command::Create { tunnel: tunnel_created(draw), now: at(a) },
        3 => tunnel::Command::Update(tunnel_updated(draw)),
        4 => tunnel::Command::Change { update: tunnel_updated(draw), switch: switch(a) },
        5 => tunnel::Command::MarkConnected { session_id: id(a) },
        6 => tunnel::Command::MarkDisconnected { outage: outage(a) },
        7 => tunnel::Command::SessionEnded { session_id: id(a) },
        8 => tunnel::Command::Pause,
        9 => tunnel::Command::Resume,
        10 => tunnel::Command::Expire { now: at(a) },
        11 => tunnel::Command::ConfigureHealth(watched(a)),
        12 => tunnel::Command::Find(finding(a)),
        _ => tunnel::Command::Delete { reason: tunnel::DeleteReason::Requested },
    }
}
fn tunnel_event(draw: Draw) -> tunnel::Event {
    let [kind, a, _, _] = draw;
    match kind % 11 {
        0 => tunnel::Event::Created(tunnel_created(draw)),
        1 => tunnel::Event::Updated(tunnel_updated(draw)),
        2 => tunnel::Event::Connected(tunnel::TunnelConnected { session_id: id(a) }),
        3 => tunnel::Event::Disconnected(tunnel::TunnelDisconnected { outage: outage(a) }),
        4 => tunnel::Event::Paused(tunnel::TunnelPaused {}),
        5 => tunnel::Event::Resumed(tunnel::TunnelResumed {}),
        6 => tunnel::Event::Expired(tunnel::TunnelExpired {}),
        7 => tunnel::Event::HealthConfigured(watched(a)),
        8 => tunnel::Event::Healthy(tunnel::ServiceHealthy {}),
        9 => tunnel::Event::Unhealthy(tunnel::ServiceUnhealthy {
            step: flag(a).then_some(tunnel::Step::Http),
            reason: "refused".to_owned(),
        }),
        _ => tunnel::Event::Deleted(tunnel::TunnelDeleted { reason: tunnel::DeleteReason::AgentDeleted }),
    }
}

// Share ---------------------------------------------------------------------------------------------------------

fn share_created([_, a, b, c]: Draw) -> share::ShareCreated {
    share::ShareCreated {
        share_id: id(0),
        workspace_id: id(0),
        tunnel_id: id(a),
        name: name(b),
        description: None,
        expires_at: flag(c).then(|| at(b)),
        allowed_paths: flag(a).then(|| vec![PathRule::parse("/api/*").unwrap()]),
        allowed_methods: flag(b).then(|| vec![Method::Get]),
        rate_limit_per_min: flag(c / 2).then_some(u16::from(a)),
        slug: "k7m2p9x4q8w3e5r6".to_owned(),
        slug_chosen: flag(b),
        public: flag(a),
        read_only: true,
        token_hash: hash(c),
        token_preview: "share_tok_k7m2\u{2026}".to_owned(),
    }
}
fn revoke_reason(n: u8) -> share::RevokeReason {
    if flag(n) { share::RevokeReason::Requested } else { share::RevokeReason::TunnelDeleted }
}
fn share_command(draw: Draw) -> share::Command {
    let [kind, a, _, _] = draw;
    match kind % 4 {
        0 | 1 => share::Command::Create { share: share_created(draw), now: at(a) },
        2 => share::Command::Revoke { reason: revoke_reason(a) },
        _ => share::Command::Expire { now: at(a) },
    }
}
fn share_event(draw: Draw) -> share::Event {
    let [kind, a, _, _] = draw;
    match kind % 3 {
        0 => share::Event::Created(share_created(draw)),
        1 => share::Event::Revoked(share::ShareRevoked { reason: revoke_reason(a) }),
        _ => share::Event::Expired(share::ShareExpired {}),
    }
}

// Environment share ---------------------------------------------------------------------------------------------

fn environment_shared([_, a, b, c]: Draw) -> environment::EnvironmentShared {
    environment::EnvironmentShared {
        environment_id: id(0),
        workspace_id: id(0),
        agent_id: id(a),
        owner: Actor::Key(id(b)),
        name: flag(b).then(|| name(b)),
        expires_at: at(c),
        require_approval: flag(a),
        routes: (0..c % 3)
            .map(|n| environment::Route {
                tunnel_id: id(n),
                name: name(n),
                target: target(n),
                protocol: Protocol::Tcp,
            })
            .collect(),
        draw: u32::from(b),
        code_hash: hash(b),
    }
}
fn opened_ports(a: u8, b: u8) -> Vec<environment::OpenedPort> {
    (0..a % 3).map(|n| environment::OpenedPort { tunnel_id: id(n), local_port: u16::from(b % 4) }).collect()
}
fn environment_command(draw: Draw) -> environment::Command {
    let [kind, a, b, c] = draw;
    let (agent_id, decision, now) = (id(a), uuid(b), at(c));
    match kind % 8 {
        0 | 1 => environment::Command::Share { environment: Box::new(environment_shared(draw)), now: at(b) },
        2 => environment::Command::Join { agent_id, now },
        3 => environment::Command::Approve { agent_id, decision, now },
        4 => environment::Command::Deny { agent_id, decision, now },
        5 => environment::Command::NotePorts { agent_id, ports: opened_ports(b, c) },
        6 => environment::Command::Revoke { reason: environment::RevokeReason::Requested },
        _ => environment::Command::Expire { now },
    }
}
fn environment_event(draw: Draw) -> environment::Event {
    let [kind, a, b, c] = draw;
    let (agent_id, decision) = (id(a), uuid(b));
    match kind % 8 {
        0 => environment::Event::Shared(environment_shared(draw)),
        1 => environment::Event::JoinRequested(environment::JoinRequested { agent_id }),
        2 => environment::Event::JoinApproved(environment::JoinApproved { agent_id, decision }),
        3 => environment::Event::JoinDenied(environment::JoinDenied { agent_id, decision }),
        4 => environment::Event::Joined(environment::EnvironmentJoined { agent_id }),
        5 => {
            environment::Event::PortsOpened(environment::PortsOpened { agent_id, ports: opened_ports(b, c) })
        }
        6 => environment::Event::Revoked(environment::EnvironmentRevoked {
            reason: environment::RevokeReason::AgentDeleted,
        }),
        _ => environment::Event::Expired(environment::EnvironmentExpired {}),
    }
}

// Webhook -------------------------------------------------------------------------------------------------------

fn filter(n: u8) -> webhook::Filter {
    let types = [vec!["*"], vec!["tunnel.created"], vec!["share.accessed", "share.revoked"]];
    let types: Vec<String> = types[usize::from(n % 3)].iter().map(|it| (*it).to_owned()).collect();
    webhook::Filter::parse(&types).expect("public types")
}
fn webhook_created([_, a, b, c]: Draw) -> webhook::WebhookCreated {
    webhook::WebhookCreated {
        webhook_id: id(0),
        workspace_id: id(0),
        url: format!("https://{}.example", name(a)),
        events: filter(b),
        description: None,
        is_active: flag(c),
        draw: uuid(a),
    }
}
fn disable_reason(n: u8) -> webhook::DisableReason {
    if flag(n) { webhook::DisableReason::Gone } else { webhook::DisableReason::Requested }
}
fn skipped(a: u8, b: u8) -> webhook::WebhookSkipped {
    webhook::WebhookSkipped { from: at(a), to: at(b), count: 1 }
}
fn webhook_command(draw: Draw) -> webhook::Command {
    let [kind, a, b, c] = draw;
    match kind % 7 {
        0 | 1 => webhook::Command::Create(Box::new(webhook_created(draw))),
        2 => webhook::Command::Change(Box::new(webhook::Changes {
            url: flag(a).then(|| format!("https://{}.example", name(b))),
            events: flag(b).then(|| filter(a)),
            description: flag(c).then(|| Description::parse(["", "x"][usize::from(a % 2)]).expect("a text")),
            is_active: [None, Some(true), Some(false)][usize::from(c % 3)],
        })),
        3 => webhook::Command::Disable { reason: disable_reason(a) },
        4 => webhook::Command::RotateSecret { draw: uuid(a), now: at(b) },
        5 => webhook::Command::Skip(skipped(a, b)),
        _ => webhook::Command::Delete,
    }
}
fn webhook_event(draw: Draw) -> webhook::Event {
    let [kind, a, b, _] = draw;
    match kind % 7 {
        0 => webhook::Event::Created(webhook_created(draw)),
        1 => webhook::Event::Updated(webhook::WebhookUpdated {
            events: Some(filter(a)),
            ..webhook::WebhookUpdated::default()
        }),
        2 => webhook::Event::Disabled(webhook::WebhookDisabled { reason: disable_reason(a) }),
        3 => webhook::Event::Enabled(webhook::WebhookEnabled {}),
        4 => webhook::Event::SecretRotated(webhook::WebhookSecretRotated {
            draw: uuid(a),
            previous_until: at(b),
        }),
        5 => webhook::Event::Skipped(skipped(a, b)),
        _ => webhook::Event::Deleted(webhook::WebhookDeleted {}),
    }
}

// Claim ---------------------------------------------------------------------------------------------------------

fn holder(n: u8) -> String {
    format!("tun_{}", n % 3)
}
fn taken([_, a, b, c]: Draw) -> claim::ClaimTaken {
    claim::ClaimTaken {
        kind: if flag(c) { ClaimKind::TunnelName } else { ClaimKind::Slug },
        key: "demo".to_owned(),
        workspace_id: id(0),
        holder: holder(a),
        command_id: uuid(b),
    }
}
fn claim_command(draw: Draw) -> claim::Command {
    let [kind, a, b, _] = draw;
    match kind % 6 {
        0 | 1 => claim::Command::Take { claim: taken(draw), now: at(b) },
        2 => claim::Command::Confirm { holder: holder(a) },
        3 => claim::Command::Release { holder: holder(a), command_id: uuid(b), now: at(b) },
        4 => claim::Command::TakeAgain { claim: taken(draw), now: at(b) },
        _ => claim::Command::Abandon { command_id: uuid(b) },
    }
}
fn claim_event(draw: Draw) -> claim::Event {
    let [kind, a, b, c] = draw;
    match kind % 3 {
        0 => claim::Event::Taken(taken(draw)),
        1 => claim::Event::Confirmed(claim::ClaimConfirmed { holder: holder(a) }),
        _ => claim::Event::Released(claim::ClaimReleased {
            holder: holder(a),
            quarantined_until: flag(c).then(|| at(b)),
        }),
    }
}

// Workspace and node --------------------------------------------------------------------------------------------

fn key([_, a, b, c]: Draw) -> workspace::KeyCreated {
    workspace::KeyCreated {
        key_id: id(a),
        name: name(b),
        scopes: if flag(c) { vec![Scope::Admin] } else { vec![Scope::Read, Scope::Agent] },
        key_hash: hash(a),
        prefix: "pc_k7m2".to_owned(),
        allowed_ip_ranges: if flag(b) { vec!["10.0.0.0/8".parse().unwrap()] } else { vec![] },
        expires_at: flag(b).then(|| at(c)),
    }
}
fn workspace_created(n: u8) -> workspace::WorkspaceCreated {
    workspace::WorkspaceCreated { workspace_id: id(0), name: name(n) }
}
fn workspace_command(draw: Draw) -> workspace::Command {
    let [kind, a, _, _] = draw;
    match kind % 6 {
        0 => workspace::Command::Create(workspace_created(a)),
        5 => workspace::Command::NoteErasure(erased(a)),
        1 | 2 => workspace::Command::CreateKey { key: key(draw), now: at(a) },
        _ => workspace::Command::RevokeKey { key_id: id(a) },
    }
}
fn erased(n: u8) -> workspace::PersonalErased {
    let day = domain::time::Day::of(at(n));
    workspace::PersonalErased {
        share_id: None,
        first_day: day,
        last_day: day,
        erased_at: at(n),
        keys: n.into(),
    }
}
fn workspace_event(draw: Draw) -> workspace::Event {
    let [kind, a, _, _] = draw;
    match kind % 4 {
        0 => workspace::Event::Created(workspace_created(a)),
        1 => workspace::Event::KeyCreated(key(draw)),
        2 => workspace::Event::PersonalErased(erased(a)),
        _ => workspace::Event::KeyRevoked(workspace::KeyRevoked { key_id: id(a) }),
    }
}
fn node_started(n: u8) -> node::NodeStarted {
    node::NodeStarted {
        node: "hub-1".to_owned(),
        boot: uuid(n),
        version: "0.1.0".to_owned(),
        reads_format: flag(n).then_some(1),
    }
}

fn raised(n: u8) -> log_format::LogFormatRaised {
    log_format::LogFormatRaised { format: u16::from(n % 5), release: "0.1.0".to_owned() }
}

// Commands and messages ------------------------------------------------------------------------------------------

fn queued([_, a, b, _]: Draw) -> agent_command::CommandQueued {
    agent_command::CommandQueued {
        command_id: id(0),
        workspace_id: id(a / 64),
        agent_id: id(a),
        order: if flag(b) { Order::Restart } else { Order::Status },
        expires_at: at(b),
    }
}
fn outcome(n: u8) -> Outcome {
    if flag(n) {
        Outcome::Done { result: n.into() }
    } else {
        Outcome::Failed { code: "no".to_owned(), message: String::new() }
    }
}
fn order_command(draw: Draw) -> agent_command::Command {
    let [kind, a, b, c] = draw;
    match kind % 5 {
        0 | 1 => agent_command::Command::Queue { command: queued(draw), now: at(c) },
        2 => agent_command::Command::Deliver { session_id: id(a) },
        3 => agent_command::Command::Finish { outcome: outcome(b) },
        _ => agent_command::Command::Expire { now: Timestamp::from_millis(i64::from(c) * 10_000) },
    }
}
fn order_event(draw: Draw) -> agent_command::Event {
    let [kind, a, b, _] = draw;
    match kind % 4 {
        0 => agent_command::Event::Queued(queued(draw)),
        1 => agent_command::Event::Delivered(agent_command::CommandDelivered { session_id: id(a) }),
        2 => agent_command::Event::Finished(agent_command::CommandFinished { outcome: outcome(b) }),
        _ => agent_command::Event::Expired(agent_command::CommandExpired {}),
    }
}
fn sent([_, a, b, _]: Draw) -> message::MessageSent {
    message::MessageSent {
        message_id: id(0),
        workspace_id: id(a / 64),
        from: id(a),
        to: id(b),
        key_id: None,
        topic: None,
        broadcast: flag(a),
        payload_bytes: 2,
        expires_at: at(b),
    }
}
fn message_command(draw: Draw) -> message::Command {
    let [kind, _, _, c] = draw;
    match kind % 5 {
        0 | 1 => message::Command::Send { message: sent(draw), now: at(c) },
        2 => message::Command::MarkRead,
        3 => message::Command::MakeRoom,
        _ => message::Command::Expire { now: at(c) },
    }
}
fn message_event(draw: Draw) -> message::Event {
    match draw[0] % 3 {
        0 => message::Event::Sent(sent(draw)),
        1 => message::Event::Read(message::MessageRead {}),
        _ => message::Event::Expired(message::MessageExpired {}),
    }
}

fn mapped<T>(draws: &[Draw], make: fn(Draw) -> T) -> Vec<T> {
    draws.iter().map(|draw| make(*draw)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replay_equals_live_and_a_repeated_command_changes_nothing(draws in prop::collection::vec(any::<Draw>(), 0..24)) {
        let agent: Agent = live(&mapped(&draws, agent_command));
        prop_assert!(agent.tokens.len() <= 2, "more than two tokens are good");
        prop_assert!(!agent.deleted || agent.session.is_none(), "a deleted agent is connected");
        let _tunnel: Tunnel = live(&mapped(&draws, tunnel_command));
        let _share: Share = live(&mapped(&draws, share_command));
        let _claim: Claim = live(&mapped(&draws, claim_command));
        let _environment: Environment = live(&mapped(&draws, environment_command));
        let _webhook: Webhook = live(&mapped(&draws, webhook_command));
        let _workspace: Workspace = live(&mapped(&draws, workspace_command));
        let _command: AgentCommand = live(&mapped(&draws, order_command));
        let _message: Message = live(&mapped(&draws, message_command));
        let _node: Node = live(&mapped(&draws, |[_, a, _, _]| node::Command::Start(node_started(a))));
        let _format: LogFormat = live(&mapped(&draws, |[_, a, _, _]| log_format::Command::Raise(raised(a))));
    }

    #[test]
    fn what_has_ended_stays_ended(
        before in prop::collection::vec(any::<Draw>(), 0..12),
        after in prop::collection::vec(any::<Draw>(), 0..12),
    ) {
        let delete = tunnel::Command::Delete { reason: tunnel::DeleteReason::Requested };
        let all = [mapped(&before, tunnel_command), vec![delete], mapped(&after, tunnel_command)].concat();
        let created = all[..=before.len()].iter().any(|c| matches!(c, tunnel::Command::Create { .. }));
        let ended: Tunnel = live(&all[..=before.len()]);
        if created && !matches!(ended, Tunnel::Unknown) {
            prop_assert!(live::<Tunnel>(&all).open().is_none(), "a deleted tunnel came back");
        }
        let all = [
            mapped(&before, share_command),
            vec![share::Command::Revoke { reason: share::RevokeReason::Requested }],
            mapped(&after, share_command),
        ]
        .concat();
        let ended: Share = live(&all[..=before.len()]);
        if ended.created.is_some() {
            prop_assert_eq!(live::<Share>(&all), ended, "an ended share changed");
        }
    }

    #[test]
    fn no_order_of_events_makes_evolve_panic(draws in prop::collection::vec(any::<Draw>(), 0..24)) {
        let _agent: Agent = replay(&mapped(&draws, agent_event));
        let _tunnel: Tunnel = replay(&mapped(&draws, tunnel_event));
        let _share: Share = replay(&mapped(&draws, share_event));
        let _claim: Claim = replay(&mapped(&draws, claim_event));
        let _environment: Environment = replay(&mapped(&draws, environment_event));
        let _webhook: Webhook = replay(&mapped(&draws, webhook_event));
        let _workspace: Workspace = replay(&mapped(&draws, workspace_event));
        let _command: AgentCommand = replay(&mapped(&draws, order_event));
        let _message: Message = replay(&mapped(&draws, message_event));
        let _node: Node = replay(&mapped(&draws, |[_, a, _, _]| node::Event::Started(node_started(a))));
        let _format: LogFormat = replay(&mapped(&draws, |[_, a, _, _]| log_format::Event::Raised(raised(a))));
    }

    #[test]
    fn no_state_that_events_can_make_panics_on_any_command(
        events in prop::collection::vec(any::<Draw>(), 0..8),
        command in any::<Draw>(),
    ) {
        let _agent = replay::<Agent>(&mapped(&events, agent_event)).decide(&agent_command(command));
        let _tunnel = replay::<Tunnel>(&mapped(&events, tunnel_event)).decide(&tunnel_command(command));
        let _share = replay::<Share>(&mapped(&events, share_event)).decide(&share_command(command));
        let _claim = replay::<Claim>(&mapped(&events, claim_event)).decide(&claim_command(command));
        let _environment =
            replay::<Environment>(&mapped(&events, environment_event)).decide(&environment_command(command));
        let _webhook = replay::<Webhook>(&mapped(&events, webhook_event)).decide(&webhook_command(command));
        let _workspace = replay::<Workspace>(&mapped(&events, workspace_event)).decide(&workspace_command(command));
        let _command = replay::<AgentCommand>(&mapped(&events, order_event)).decide(&order_command(command));
        let _message = replay::<Message>(&mapped(&events, message_event)).decide(&message_command(command));
    }
}

//! Histories for tests: plausible commands, judged by the aggregates themselves, and visits on top.

use std::collections::BTreeMap;

use domain::{
    access::{self, Access, Completion, Denied, ShareAccessed, TunnelUse, TunnelsUsed, Visitor},
    agent::{self, Agent, AgentConnected, AgentRegistered, DisconnectReason, Token},
    aggregate::Aggregate,
    claim::{self, Claim, ClaimKind, ClaimTaken},
    environment::{self, Environment, EnvironmentShared},
    event::Event,
    ids::{AgentId, EnvironmentId, EventId, KeyId, SessionId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    node::{self, Node, NodeStarted},
    recorded::{Actor, Family, Personal, Recorded, StreamName},
    share::{self, RevokeReason, Share, ShareCreated},
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{self, DeleteReason, Outage, Tunnel, TunnelCreated, TunnelUpdated},
    workspace::{self, KeyCreated, KeyRevoked, Scope, Workspace, WorkspaceCreated},
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::view::Applied;

mod desk;

pub(crate) use desk::{command_id, message_id};

/// 2026-03-02T10:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_772_445_600_000);

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128((0x0195_0000_0000_7000_8000 << 48) | number)
}
pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}
pub(crate) fn hex(digit: u8) -> String {
    format!("{digit:02x}").repeat(32)
}
/// Stands for the keyring: what it seals nobody reads by chance.
pub(crate) fn seal(text: &str) -> Personal {
    Personal::Sealed(text.bytes().map(|byte| !byte).collect())
}
pub(crate) fn unseal(_: WorkspaceId, _: ShareId, sealed: &[u8]) -> Option<String> {
    String::from_utf8(sealed.iter().map(|byte| !byte).collect()).ok()
}

pub(crate) fn workspace_id(number: u8) -> WorkspaceId {
    WorkspaceId::new(id(0x100 + u128::from(number)))
}
pub(crate) fn agent_id(number: u8) -> AgentId {
    AgentId::new(id(0x200 + u128::from(number)))
}
pub(crate) fn tunnel_id(number: u8) -> TunnelId {
    TunnelId::new(id(0x300 + u128::from(number)))
}
pub(crate) fn share_id(number: u8) -> ShareId {
    ShareId::new(id(0x400 + u128::from(number)))
}
pub(crate) fn environment_id(number: u8) -> EnvironmentId {
    EnvironmentId::new(id(0x700 + u128::from(number)))
}
pub(crate) fn key_id(number: u8) -> KeyId {
    KeyId::new(id(0x500 + u128::from(number)))
}

/// A log in memory that is written by commands.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) recorded: Vec<Recorded>,
    pub(crate) now_ms: i64,
    seqs: BTreeMap<(WorkspaceId, Family), u64>,
    running: Vec<(ShareId, Completion)>,
    epoch: u64,
}

impl World {
    pub(crate) fn now(&self) -> Timestamp {
        START.plus_ms(self.now_ms)
    }

    /// What views are given.
    pub(crate) fn applied(&self) -> Vec<Applied> {
        self.recorded.iter().map(|recorded| (recorded.clone(), recorded.event().ok())).collect()
    }

    pub(crate) fn record(
        &mut self,
        stream: StreamName,
        workspace: WorkspaceId,
        event_type: &str,
        data: &str,
        personal: Personal,
    ) -> EventId {
        let position = u64::try_from(self.recorded.len()).unwrap() + 1;
        let revision =
            1 + u64::try_from(self.recorded.iter().filter(|known| known.stream == stream).count()).unwrap();
        let seq = self.seqs.entry((workspace, stream.family())).or_default();
        *seq += 1;
        let event_id = EventId::new(id(0x1_0000 + u128::from(position)));
        self.recorded.push(Recorded {
            position,
            seq: *seq,
            stream,
            revision,
            id: event_id,
            event_type: event_type.into(),
            version: 1,
            recorded_at: START.plus_ms(self.now_ms),
            workspace,
            actor: Actor::System("test".to_owned()),
            causation: None,
            correlation: None,
            data: data.into(),
            personal,
        });
        event_id
    }

    /// Lets an aggregate judge a command and records what it decides; a refusal changes nothing.
    pub(crate) fn tell<A: Aggregate>(
        &mut self,
        stream: &StreamName,
        workspace: WorkspaceId,
        command: &A::Command,
    ) {
        let mut state = A::default();
        for recorded in self.recorded.iter().filter(|recorded| recorded.stream == *stream) {
            if let Some(event) = A::from_event(recorded.event().unwrap()) {
                state.evolve(&event);
            }
        }
        for event in state.decide(command).unwrap_or_default() {
            let encoded = A::into_event(event).encode();
            self.record(stream.clone(), workspace, encoded.event_type, &encoded.data, Personal::None);
        }
    }

    pub(crate) fn workspace(&mut self, number: u8, command: &workspace::Command) {
        let workspace = workspace_id(number);
        self.tell::<Workspace>(&StreamName::workspace(workspace), workspace, command);
    }
    pub(crate) fn agent(&mut self, number: u8, command: &agent::Command) {
        self.tell::<Agent>(&StreamName::agent(agent_id(number)), workspace_id(number % 2), command);
    }
    pub(crate) fn tunnel(&mut self, number: u8, command: &tunnel::Command) {
        self.tell::<Tunnel>(&StreamName::tunnel(tunnel_id(number)), workspace_id(number % 2), command);
    }
    pub(crate) fn share(&mut self, number: u8, command: &share::Command) {
        self.tell::<Share>(&StreamName::share(share_id(number)), workspace_id(number % 2), command);
    }

    pub(crate) fn create_workspace(&mut self, number: u8) {
        let created = WorkspaceCreated { workspace_id: workspace_id(number), name: name("acme") };
        self.workspace(number, &workspace::Command::Create(created));
    }
    pub(crate) fn create_key(&mut self, number: u8, expires_in_ms: Option<i64>) {
        let now = self.now();
        let key = KeyCreated {
            key_id: key_id(number),
            name: name("ci"),
            scopes: vec![Scope::Admin],
            key_hash: hex(number),
            prefix: "pc_abc".to_owned(),
            allowed_ip_ranges: vec!["10.0.0.0/8".parse().unwrap()],
            expires_at: expires_in_ms.map(|span| now.plus_ms(span)),
        };
        self.workspace(number % 2, &workspace::Command::CreateKey { key, now });
    }
    pub(crate) fn token(&self, digit: u8, key: Option<u8>, life_ms: i64) -> Token {
        Token { token_hash: hex(digit), expires_at: self.now().plus_ms(life_ms), key_id: key.map(key_id) }
    }
    pub(crate) fn register(&mut self, number: u8, label: &str, token: Token) {
        self.register_as(number, label, "alice", false, token);
    }
    pub(crate) fn register_as(
        &mut self,
        number: u8,
        label: &str,
        called: &str,
        ephemeral: bool,
        token: Token,
    ) {
        let agent = AgentRegistered {
            agent_id: agent_id(number),
            workspace_id: workspace_id(number % 2),
            label: name(label),
            name: name(called),
            client_type: Some(agent::ClientType::ClaudeCode),
            ephemeral,
            token,
        };
        let now = self.now();
        self.agent(number, &agent::Command::Register { agent, now, takeover: agent::Takeover::Any });
    }
    pub(crate) fn connect(&mut self, number: u8, boot: u8) -> SessionId {
        self.epoch += 1;
        let session = AgentConnected {
            agent_id: agent_id(number),
            session_id: SessionId::new(id(0x600 + u128::from(self.epoch))),
            epoch: self.epoch,
            node: "hub-1".to_owned(),
            boot: id(u128::from(boot)),
            instance: id(7),
            agent_version: "0.1.0".to_owned(),
        };
        let id = session.session_id;
        self.agent(number, &agent::Command::Connect { session });
        id
    }
    pub(crate) fn start_node(&mut self, boot: u8) {
        let started = NodeStarted {
            node: "hub-1".to_owned(),
            boot: id(u128::from(boot)),
            version: "0.1.0".to_owned(),
            reads_format: None,
        };
        let system = domain::recorded::SYSTEM_WORKSPACE;
        self.tell::<Node>(&StreamName::node("hub-1"), system, &node::Command::Start(started));
    }
    pub(crate) fn create_tunnel(&mut self, number: u8, agent: u8, expires_in_ms: Option<i64>) {
        self.create_tunnel_named(&format!("web-{number}"), number, agent, expires_in_ms);
    }
    pub(crate) fn create_tunnel_named(
        &mut self,
        called: &str,
        number: u8,
        agent: u8,
        expires_in_ms: Option<i64>,
    ) {
        let now = self.now();
        let tunnel = TunnelCreated {
            tunnel_id: tunnel_id(number),
            workspace_id: workspace_id(number % 2),
            agent_id: agent_id(agent),
            name: name(called),
            target: Target { host: "localhost".to_owned(), port: 3000 },
            protocol: Protocol::Http,
            is_public: false,
            tunnel_port: 10_000 + u16::from(number),
            expires_at: expires_in_ms.map(|span| now.plus_ms(span)),
        };
        self.tunnel(number, &tunnel::Command::Create { tunnel, now });
    }
    pub(crate) fn create_share(&mut self, number: u8, tunnel: u8, expires_in_ms: Option<i64>) {
        let now = self.now();
        let share = ShareCreated {
            share_id: share_id(number),
            workspace_id: workspace_id(number % 2),
            tunnel_id: tunnel_id(tunnel),
            name: name("demo"),
            description: None,
            expires_at: expires_in_ms.map(|span| now.plus_ms(span)),
            allowed_paths: Some(vec![serde_json::from_str("\"/api/*\"").unwrap()]),
            allowed_methods: None,
            rate_limit_per_min: Some(60),
            slug: format!("slug-{number}"),
            slug_chosen: true,
            public: true,
            read_only: true,
            token_hash: hex(0x80 + number),
            token_preview: "share_tok_ab…".to_owned(),
        };
        self.share(number, &share::Command::Create { share, now });
    }
    pub(crate) fn environment(&mut self, number: u8, command: &environment::Command) {
        let stream = StreamName::environment(environment_id(number));
        self.tell::<Environment>(&stream, workspace_id(number % 2), command);
    }
    pub(crate) fn share_environment(&mut self, number: u8, agent: u8, life_ms: i64) {
        let now = self.now();
        let shared = EnvironmentShared {
            environment_id: environment_id(number),
            workspace_id: workspace_id(number % 2),
            agent_id: agent_id(agent),
            owner: Actor::Key(key_id(number % 2)),
            name: None,
            expires_at: now.plus_ms(life_ms),
            require_approval: number.is_multiple_of(3),
            routes: vec![environment::Route {
                tunnel_id: tunnel_id(number),
                name: name("web"),
                target: Target { host: "localhost".to_owned(), port: 3000 },
                protocol: Protocol::Http,
            }],
            draw: 0,
            code_hash: hex(0x40 + number),
        };
        self.environment(number, &environment::Command::Share { environment: Box::new(shared), now });
    }

    /// Something happens to an environment share, by chance.
    fn random_environment(&mut self, number: u8, flavour: u8) {
        let (now, joiner) = (self.now(), agent_id(flavour % 6));
        let decision = id(u128::from(flavour));
        let command = match flavour % 9 {
            0 | 1 => return self.share_environment(number, flavour % 6, 3_600_000),
            2 | 3 => environment::Command::Join { agent_id: joiner, now },
            4 => environment::Command::Approve { agent_id: joiner, decision, now },
            5 => environment::Command::Deny { agent_id: joiner, decision, now },
            6 => environment::Command::NotePorts {
                agent_id: joiner,
                ports: vec![environment::OpenedPort { tunnel_id: tunnel_id(number), local_port: 3000 }],
            },
            7 => environment::Command::Revoke { reason: environment::RevokeReason::Requested },
            _ => environment::Command::Expire { now },
        };
        self.environment(number, &command);
    }

    fn claim(&mut self, number: u8, command: &claim::Command) {
        let stream = StreamName::claim(ClaimKind::Slug, &hex(number));
        self.tell::<Claim>(&stream, workspace_id(number % 2), command);
    }

    /// Records visits of a share as one packed event.
    pub(crate) fn visit(
        &mut self,
        share: u8,
        tunnel: u8,
        accesses: Vec<Access>,
        completions: Vec<Completion>,
    ) -> EventId {
        let visitors: Vec<Visitor> = (0..accesses.len())
            .map(|place| Visitor {
                ip: format!("192.0.2.{}", place % 3),
                user_agent: Some("curl/8".to_owned()),
                path: format!("/{}/{place}", if place % 2 == 0 { "even" } else { "odd" }),
            })
            .collect();
        let personal = seal(&serde_json::to_string(&visitors).unwrap());
        let accessed =
            ShareAccessed { share_id: share_id(share), tunnel_id: tunnel_id(tunnel), accesses, completions };
        let event = Event::Access(access::Event::Accessed(accessed)).encode();
        let stream = StreamName::accesses(share_id(share), id(1));
        self.record(stream, workspace_id(share % 2), event.event_type, &event.data, personal)
    }
    pub(crate) fn access(&self, status_code: u16) -> Access {
        Access {
            accessed_at: self.now().plus_ms(-20),
            method: "GET".to_owned(),
            status_code,
            latency_ms: 3,
            bytes_in: 10,
            bytes_out: 1_000,
            denied: None,
            ended_by: None,
            running: false,
            repeat: None,
        }
    }

    /// Records that a tunnel was used beside its shares.
    pub(crate) fn used(&mut self, tunnel: u8, connections: u64, bytes_in: u64, bytes_out: u64) {
        let used = TunnelUse {
            tunnel_id: tunnel_id(tunnel),
            connections,
            bytes_in,
            bytes_out,
            last_activity_at: self.now(),
        };
        let event = Event::Access(access::Event::TunnelsUsed(TunnelsUsed { tunnels: vec![used] })).encode();
        let workspace = workspace_id(tunnel % 2);
        let stream = StreamName::usage(workspace, id(1));
        self.record(stream, workspace, event.event_type, &event.data, Personal::None);
    }

    fn random_visit(&mut self, share: u8, flavour: u8) {
        let flavour = flavour % 60;
        let mut accesses = Vec::new();
        for place in 0..flavour % 5 {
            let mut access = self.access([200, 404, 500, 403][usize::from((flavour + place) % 4)]);
            access.denied = (access.status_code == 403).then_some(Denied::PathNotAllowed);
            access.repeat = (flavour % 7 == 6).then_some(4);
            access.running = (flavour + place).is_multiple_of(6);
            accesses.push(access);
        }
        let completions = self
            .running
            .iter()
            .position(|(of, _)| *of == share_id(share))
            .map(|found| self.running.remove(found).1)
            .into_iter()
            .collect();
        let running: Vec<usize> = accesses
            .iter()
            .enumerate()
            .filter(|(_, access)| access.running)
            .map(|(place, _)| place)
            .collect();
        let event_id = self.visit(share, share, accesses, completions);
        for place in running {
            let completion = Completion {
                event_id,
                index: u16::try_from(place).unwrap(),
                latency_ms: 9_000,
                bytes_in: 11,
                bytes_out: 70_000,
                ended_by: Some(access::EndedBy::Visitor),
            };
            self.running.push((share_id(share), completion));
        }
    }

    /// One step of a random history: `kind` says what, `a` to whom, `b` how.
    fn step(&mut self, kind: u8, a: u8, b: u8) {
        let now = self.now();
        match kind {
            0 => self.create_workspace(a % 2),
            1 => self.create_key(a % 6, b.is_multiple_of(3).then_some(3_600_000)),
            2 => {
                let revoke = workspace::Command::RevokeKey { key_id: key_id(a % 6) };
                self.workspace(a % 2, &revoke);
            }
            3 | 4 => {
                let mut token = self.token(b, Some(a % 2 + 2 * (b % 3)), 86_400_000);
                // As claims and randomness see to it: no two have the same.
                token.token_hash = format!("{a:02x}{b:02x}").repeat(16);
                self.register(a % 6, if b.is_multiple_of(2) { "laptop" } else { "ci" }, token);
            }
            5 => {
                self.connect(a % 6, b % 3);
            }
            6 => {
                let session_id = SessionId::new(id(0x600 + u128::from(self.epoch)));
                self.agent(a % 6, &agent::Command::Disconnect { session_id, reason: DisconnectReason::Lost });
            }
            7 if b.is_multiple_of(4) => self.agent(a % 6, &agent::Command::Delete),
            7 => self.start_node(b % 3),
            8 | 9 => {
                // The agent is of the tunnel's own workspace.
                self.create_tunnel(a % 12, a % 2 + 2 * (b % 3), b.is_multiple_of(4).then_some(7_200_000));
            }
            10 => {
                let update = TunnelUpdated {
                    name: b.is_multiple_of(2).then(|| name(&format!("renamed-{a}-{}", b % 5))),
                    metadata: b
                        .is_multiple_of(3)
                        .then(|| [("team".to_owned(), serde_json::json!(b))].into_iter().collect()),
                    agent_id: b.is_multiple_of(5).then(|| agent_id(a % 2 + 2 * (b % 3))),
                    target: b.is_multiple_of(7).then(|| Target { host: "::1".to_owned(), port: 8080 }),
                    protocol: (b % 2 == 1).then_some(Protocol::Tcp),
                    is_public: (b % 3 == 1).then_some(true),
                };
                let switch = [None, Some(tunnel::Switch::Pause), Some(tunnel::Switch::Resume)];
                let switch = switch[usize::from(b % 3)];
                self.tunnel(a % 12, &tunnel::Command::Change { update, switch });
            }
            11 => {
                let command = match b % 7 {
                    0 => tunnel::Command::Pause,
                    1 => tunnel::Command::Resume,
                    2 => tunnel::Command::MarkConnected { session_id: SessionId::new(id(u128::from(b))) },
                    3 => tunnel::Command::MarkDisconnected { outage: Outage::AgentDisconnected },
                    4 => tunnel::Command::MarkDisconnected {
                        outage: Outage::TargetUnreachable("refused".to_owned()),
                    },
                    5 => tunnel::Command::Expire { now },
                    _ => tunnel::Command::Delete { reason: DeleteReason::Requested },
                };
                self.tunnel(a % 12, &command);
            }
            12 => self.create_share(a % 16, a % 12 / 2 * 2 + a % 2, b.is_multiple_of(2).then_some(3_600_000)),
            13 => {
                let command = if b.is_multiple_of(2) {
                    share::Command::Revoke { reason: RevokeReason::Requested }
                } else {
                    share::Command::Expire { now }
                };
                self.share(a % 16, &command);
            }
            14 => {
                let claim = ClaimTaken {
                    kind: ClaimKind::Slug,
                    key: "demo".to_owned(),
                    workspace_id: workspace_id(a % 2),
                    holder: "a".to_owned(),
                    command_id: id(u128::from(b % 2)),
                };
                let command_id = claim.command_id;
                let command = match b % 5 {
                    0 => claim::Command::Take { claim, now },
                    1 => claim::Command::TakeAgain { claim, now },
                    2 => claim::Command::Confirm { holder: "a".to_owned() },
                    _ => claim::Command::Release { holder: "a".to_owned(), command_id, now },
                };
                self.claim(a % 4, &command);
            }
            22 | 23 => self.random_environment(a % 8, b),
            15 => {
                let system = domain::recorded::SYSTEM_WORKSPACE;
                let stream = StreamName::parse("invoice-1").unwrap();
                self.record(stream, system, "invoice.sent", "{}", Personal::None);
            }
            16..=18 => self.step_at_the_desk(a, b),
            24 => self.used(a % 12, u64::from(b), 10, 20),
            _ => self.random_visit(a % 4, b),
        }
    }
}

/// Random histories of up to `steps` commands and visits, over some days.
pub(crate) fn history(steps: usize) -> impl Strategy<Value = World> {
    let pause_ms = prop_oneof![4 => 0_i64..60_000, 1 => 1_800_000_i64..40_000_000];
    prop::collection::vec((0_u8..26, any::<u8>(), any::<u8>(), pause_ms), 0..steps).prop_map(|steps| {
        let mut world = World::default();
        for number in 0..2 {
            world.create_workspace(number);
            world.create_key(number, None);
        }
        for (kind, a, b, pause_ms) in steps {
            world.now_ms += pause_ms;
            world.step(kind, a, b);
        }
        world
    })
}

/// The digest of a [`hex`] text.
pub(crate) fn digest(digit: u8) -> crate::routes::Digest {
    [digit; 32]
}

/// A revoked key, as a command.
pub(crate) fn revoke_key(number: u8) -> workspace::Command {
    workspace::Command::RevokeKey { key_id: KeyRevoked { key_id: key_id(number) }.key_id }
}

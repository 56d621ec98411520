//! Makes a data directory with a large event log, for `ops/big-log`: tunnels with a history, shares, packed accesses.
//! Prints the id of one share that has accesses.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use domain::{
    access::{self, Access, ShareAccessed, Visitor},
    agent::{self, AgentRegistered, TOKEN_LIFE_MS, Token},
    event::Event,
    ids::{AgentId, EventId, SessionId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    recorded::{Actor, StreamName},
    share::{self, ShareCreated},
    target::{Protocol, Target},
    time::Timestamp,
    tunnel::{self, DeleteReason, Outage, TunnelConnected, TunnelCreated, TunnelDeleted, TunnelDisconnected},
    workspace::{self, WorkspaceCreated},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hub::{
    clock::{Clock as _, SystemClock},
    core::DEFAULT_WORKSPACE,
    event_log::{
        Append, EventLog, Expected, NewEvent,
        segments::{Options, Segments},
    },
    keyring::Keyring,
    secrets::{SecretKind, Seed},
};
use uuid::Uuid;

/// Appends that wait at once: they share their fsyncs.
const AT_ONCE: usize = 256;
/// Accesses of one packed event; a hundred of these are just over its 16 KiB.
const PER_EVENT: usize = 80;
/// Shares that are visited.
const VISITED: usize = 20;
/// One tunnel in so many is open; the others are history.
const OPEN_ONE_IN: usize = 10;

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 200_000)]
    facts: usize,
    #[arg(long, default_value_t = 20_000)]
    streams: usize,
    #[arg(long, default_value_t = 5_000_000)]
    accesses: usize,
}

struct Maker {
    log: Segments,
    keyring: Arc<Keyring>,
    workspace: WorkspaceId,
    now: Timestamp,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(!args.data.join("log").exists(), "{} holds a log already", args.data.display());
    std::fs::create_dir_all(&args.data)?;
    let keyring = Arc::new(Keyring::open(&args.data.join("keyring"))?);
    let log = Segments::open(&args.data, Options::new(Arc::clone(&keyring)))?;
    let maker = Maker { log, keyring, workspace: WorkspaceId::new(Uuid::now_v7()), now: SystemClock.now() };
    let shares = maker.facts(args.facts, args.streams).await?;
    maker.accesses(&shares, args.accesses).await?;
    maker.log.close().await;
    hub::offline::say(&shares.first().context("at least one share is made")?.0.to_string());
    Ok(())
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("made here from plain characters")
}

impl Maker {
    async fn append(
        &self,
        stream: StreamName,
        events: Vec<Event>,
        personal: Option<Box<[u8]>>,
    ) -> Result<()> {
        let events = events
            .into_iter()
            .map(|event| {
                let encoded = event.encode();
                NewEvent {
                    id: EventId::new(Uuid::now_v7()),
                    event_type: encoded.event_type,
                    version: encoded.version,
                    data: encoded.data,
                    personal: personal.clone(),
                    causation: None,
                }
            })
            .collect();
        let append = Append {
            stream,
            expected: Expected::Any,
            workspace: self.workspace,
            actor: Actor::System("generator".to_owned()),
            correlation: None,
            at: self.now,
            events,
        };
        self.log.append(append).await.context("while appending")?;
        Ok(())
    }

    async fn facts(&self, facts: usize, streams: usize) -> Result<Vec<(ShareId, TunnelId)>> {
        let created = WorkspaceCreated { workspace_id: self.workspace, name: name(DEFAULT_WORKSPACE) };
        let event = Event::Workspace(workspace::Event::Created(created));
        self.append(StreamName::workspace(self.workspace), vec![event], None).await?;
        let agent_id = AgentId::new(Uuid::now_v7());
        let secret = Seed::random().secret(SecretKind::AgentToken, "token");
        let registered = AgentRegistered {
            agent_id,
            workspace_id: self.workspace,
            label: name("generator"),
            name: name("generator"),
            client_type: None,
            ephemeral: false,
            token: Token {
                token_hash: secret.digest_hex(),
                expires_at: self.now.plus_ms(TOKEN_LIFE_MS),
                key_id: None,
            },
        };
        let event = Event::Agent(agent::Event::Registered(registered));
        self.append(StreamName::agent(agent_id), vec![event], None).await?;

        let tunnels = streams.saturating_sub(2 + VISITED);
        let each = facts.saturating_sub(2 + VISITED).div_ceil(tunnels.max(1)).max(2);
        let ids: Vec<TunnelId> = (0..tunnels).map(|_| TunnelId::new(Uuid::now_v7())).collect();
        stream::iter(ids.iter().enumerate())
            .map(|(number, id)| {
                self.append(StreamName::tunnel(*id), self.life(number, *id, agent_id, each), None)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let open = ids.iter().step_by(OPEN_ONE_IN).take(VISITED);
        let shares: Vec<(ShareId, TunnelId)> = open.map(|id| (ShareId::new(Uuid::now_v7()), *id)).collect();
        for (number, (id, tunnel_id)) in shares.iter().enumerate() {
            let token = Seed::random().secret(SecretKind::ShareToken, "token");
            let created = ShareCreated {
                share_id: *id,
                workspace_id: self.workspace,
                tunnel_id: *tunnel_id,
                name: name(&format!("share-{number}")),
                description: None,
                expires_at: None,
                allowed_paths: None,
                allowed_methods: None,
                rate_limit_per_min: None,
                slug: format!("generated-{number}"),
                slug_chosen: true,
                public: false,
                read_only: true,
                token_hash: token.digest_hex(),
                token_preview: token.preview(),
            };
            self.append(StreamName::share(*id), vec![Event::Share(share::Event::Created(created))], None)
                .await?;
        }
        Ok(shares)
    }

    /// A tunnel that came, was connected and disconnected again and again, and mostly is gone.
    fn life(&self, number: usize, id: TunnelId, agent_id: AgentId, facts: usize) -> Vec<Event> {
        let created = TunnelCreated {
            tunnel_id: id,
            workspace_id: self.workspace,
            agent_id,
            name: name(&format!("service-{number}")),
            target: Target { host: "localhost".to_owned(), port: 3_000 },
            protocol: Protocol::Http,
            is_public: false,
            tunnel_port: u16::try_from(10_000 + number % 22_000).expect("below 32,000"),
            expires_at: None,
        };
        let mut events = vec![tunnel::Event::Created(created)];
        let ends = usize::from(!number.is_multiple_of(OPEN_ONE_IN));
        for turn in 0..facts.saturating_sub(1 + ends) {
            let session_id = SessionId::new(Uuid::now_v7());
            events.push(if turn.is_multiple_of(2) {
                tunnel::Event::Connected(TunnelConnected { session_id })
            } else {
                tunnel::Event::Disconnected(TunnelDisconnected { outage: Outage::AgentDisconnected })
            });
        }
        if ends == 1 {
            events.push(tunnel::Event::Deleted(TunnelDeleted { reason: DeleteReason::Requested }));
        }
        events.into_iter().map(Event::Tunnel).collect()
    }

    async fn accesses(&self, shares: &[(ShareId, TunnelId)], count: usize) -> Result<()> {
        let boot = Uuid::now_v7();
        stream::iter(0..count.div_ceil(PER_EVENT))
            .map(|number| async move {
                let (share_id, tunnel_id) = shares[number % shares.len()];
                let accesses = (0..PER_EVENT).map(|n| self.access(number * PER_EVENT + n)).collect();
                let visitors: Vec<Visitor> =
                    (0..PER_EVENT).map(|n| visitor(number * PER_EVENT + n)).collect();
                let plain = serde_json::to_string(&visitors)?;
                let sealed = self.keyring.seal_personal(self.workspace, Some(share_id), self.now, &plain)?;
                let packed = ShareAccessed { share_id, tunnel_id, accesses, completions: Vec::new() };
                let event = Event::Access(access::Event::Accessed(packed));
                self.append(StreamName::accesses(share_id, boot), vec![event], Some(sealed)).await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    fn access(&self, number: usize) -> Access {
        Access {
            accessed_at: self.now,
            method: if number.is_multiple_of(7) { "POST" } else { "GET" }.to_owned(),
            status_code: if number.is_multiple_of(997) { 500 } else { 200 },
            latency_ms: u32::try_from(number % 40).expect("below 40"),
            bytes_in: 0,
            bytes_out: u64::try_from(number % 4_096).expect("below 4,096"),
            denied: None,
            ended_by: None,
            running: false,
            repeat: None,
        }
    }
}

fn visitor(number: usize) -> Visitor {
    Visitor {
        ip: format!("10.0.{}.{}", number / 256 % 256, number % 256),
        user_agent: Some("curl/8".to_owned()),
        path: format!("/page/{}", number % 1_000),
    }
}

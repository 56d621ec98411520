//! Records the golden log of this release, for `ops/golden-log`: every event of `schemas/events/`, in the version that is
//! written in a given format, each in the stream where it belongs, in the order of a life; and what is alive besides.
//!
//! Ids, times and contents are the same at every run; the log's own id, its seal key and what seals personal data are
//! not: a golden log is recorded once and kept.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use domain::{
    claim::ClaimKind,
    event::Event,
    ids::{AgentId, CommandId, EnvironmentId, EventId, MessageId, ShareId, TunnelId, WebhookId, WorkspaceId},
    log_format::{FIRST, NEWEST},
    recorded::{Actor, Family, SYSTEM_WORKSPACE, StreamName},
    time::Timestamp,
};
use hub::{
    event_log::{
        Append, EventLog, Expected, NewEvent,
        segments::{Options, Segments},
    },
    keyring::Keyring,
};
use uuid::Uuid;

/// 2026-03-02T10:00:00Z, as in the goldens of events.
const START: Timestamp = Timestamp::from_millis(1_772_445_600_000);
/// The goldens' ids, but for their last digits.
const BASE: u128 = 0x0195_5a3c_e000_7000_8000_0000_0000_0000;
/// Of what is alive at the end: the same with another beginning.
const SECOND: u128 = 0x0195_5a3d_e000_7000_8000_0000_0000_0000;

/// One life, from beginning to end: the type, and whose stream it stands in.
const LIFE: &[(Of, &[&str])] = &[
    (Of::Node, &["node.started"]),
    (Of::Workspace, &["workspace.created", "key.created"]),
    (Of::Agent, &["agent.registered", "agent.token_issued", "agent.connected", "agent.capabilities_set"]),
    (Of::Claim, &["claim.taken"]),
    (Of::Tunnel, &["tunnel.created"]),
    (Of::Claim, &["claim.confirmed"]),
    (Of::Tunnel, &["tunnel.connected", "tunnel.updated", "tunnel.paused", "tunnel.resumed"]),
    (Of::Tunnel, &["service.health_configured", "service.healthy", "service.unhealthy"]),
    (Of::Share, &["share.created"]),
    (Of::Accesses, &["share.accessed"]),
    (Of::Usage, &["usage.recorded"]),
    (Of::Command, &["command.queued", "command.delivered", "command.finished", "command.expired"]),
    (Of::Message, &["message.sent", "message.read", "message.expired"]),
    (Of::Environment, &["environment.shared", "environment.join_requested", "environment.join_denied"]),
    (Of::Environment, &["environment.join_approved", "environment.joined", "environment.ports_opened"]),
    (Of::Webhook, &["webhook.created", "webhook.updated", "webhook.secret_rotated"]),
    (Of::Deliveries, &["delivery.noted"]),
    (Of::Webhook, &["webhook.skipped", "webhook.disabled", "webhook.enabled", "webhook.deleted"]),
    (Of::Environment, &["environment.revoked", "environment.expired"]),
    (Of::Share, &["share.expired", "share.revoked"]),
    (Of::Tunnel, &["tunnel.disconnected", "tunnel.expired", "tunnel.deleted"]),
    (Of::Claim, &["claim.released"]),
    (Of::Agent, &["agent.disconnected", "agent.deleted"]),
    (Of::Workspace, &["key.revoked", "workspace.personal_erased"]),
    (Of::History, &["history.summed", "history.retired"]),
];

/// What a second life has begun with when the log ends.
const ALIVE: &[(Of, &[&str])] = &[
    (Of::Workspace, &["key.created"]),
    (Of::Agent, &["agent.registered", "agent.connected"]),
    (Of::Tunnel, &["tunnel.created", "tunnel.connected", "service.health_configured", "service.unhealthy"]),
    (Of::Share, &["share.created"]),
    (Of::Accesses, &["share.accessed"]),
    (Of::Command, &["command.queued"]),
    (Of::Message, &["message.sent"]),
    (Of::Environment, &["environment.shared", "environment.joined"]),
    (Of::Webhook, &["webhook.created"]),
];

/// Whose stream.
#[derive(Debug, Clone, Copy)]
enum Of {
    Node,
    Workspace,
    Agent,
    Claim,
    Tunnel,
    Share,
    Accesses,
    Usage,
    Command,
    Message,
    Environment,
    Webhook,
    Deliveries,
    History,
}

impl Of {
    fn stream(self, base: u128) -> StreamName {
        let uuid = |n: u128| Uuid::from_u128(base + n);
        match self {
            Self::Node => StreamName::node("hub-1"),
            Self::Workspace => StreamName::workspace(workspace()),
            Self::Agent => StreamName::agent(AgentId::new(uuid(1))),
            Self::Claim => StreamName::claim(ClaimKind::TunnelName, &"a".repeat(64)),
            Self::Tunnel => StreamName::tunnel(TunnelId::new(uuid(2))),
            Self::Share => StreamName::share(ShareId::new(uuid(3))),
            Self::Accesses => StreamName::accesses(ShareId::new(uuid(3)), uuid(20)),
            Self::Usage => StreamName::usage(workspace(), uuid(20)),
            Self::Command => StreamName::command(CommandId::new(uuid(30))),
            Self::Message => StreamName::message(MessageId::new(uuid(31))),
            Self::Environment => StreamName::environment(EnvironmentId::new(uuid(12))),
            Self::Webhook => StreamName::webhook(WebhookId::new(uuid(13))),
            Self::Deliveries => StreamName::deliveries(WebhookId::new(uuid(13))),
            Self::History => StreamName::history(Family::Accesses),
        }
    }
    fn workspace(self) -> WorkspaceId {
        match self {
            Self::Node | Self::History => SYSTEM_WORKSPACE,
            Self::Workspace
            | Self::Agent
            | Self::Claim
            | Self::Tunnel
            | Self::Share
            | Self::Accesses
            | Self::Usage
            | Self::Command
            | Self::Message
            | Self::Environment
            | Self::Webhook
            | Self::Deliveries => workspace(),
        }
    }
}

/// The goldens' workspace.
fn workspace() -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(BASE + 7))
}

#[derive(Debug, Parser)]
struct Args {
    /// Where to; nothing must be there
    #[arg(long)]
    data: std::path::PathBuf,
    /// The log format that events are written in
    #[arg(long, default_value_t = NEWEST)]
    format: u16,
}

struct Recorder {
    log: Segments,
    keyring: Arc<Keyring>,
    format: u16,
    recorded: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(!args.data.exists(), "{} is there already", args.data.display());
    ensure!((FIRST..=NEWEST).contains(&args.format), "formats are {FIRST} to {NEWEST}");
    fs::create_dir_all(&args.data)?;
    let keyring = Arc::new(Keyring::open(&args.data.join("keyring"))?);
    let log = Segments::open(&args.data, Options::new(Arc::clone(&keyring)))?;
    let mut recorder = Recorder { log, keyring, format: args.format, recorded: 0 };
    if args.format > FIRST {
        recorder.append(StreamName::log_format(), SYSTEM_WORKSPACE, "log.format_raised", BASE).await?;
    }
    for (life, base) in [(LIFE, BASE), (ALIVE, SECOND)] {
        for (of, types) in life {
            for event_type in *types {
                recorder.append(of.stream(base), of.workspace(), event_type, base).await?;
            }
        }
    }
    recorder.log.close().await;
    trim(&args.data)
}

impl Recorder {
    async fn append(
        &mut self,
        stream: StreamName,
        workspace: WorkspaceId,
        event_type: &str,
        base: u128,
    ) -> Result<()> {
        self.recorded += 1;
        let event = example(event_type, base, self.format)?;
        let encoded = event.encode_for(self.format);
        let at = START.plus_ms(i64::from(self.recorded) * 1_000);
        let append = Append {
            expected: Expected::Any,
            workspace,
            actor: Actor::System("golden".to_owned()),
            correlation: None,
            at,
            events: vec![NewEvent {
                id: EventId::new(Uuid::from_u128(BASE + 0x1_0000 + u128::from(self.recorded))),
                event_type: encoded.event_type,
                version: encoded.version,
                data: encoded.data,
                personal: self.personal(event_type, workspace, base, at)?,
                causation: None,
            }],
            stream,
        };
        self.log.append(append).await.with_context(|| format!("while appending {event_type}"))?;
        Ok(())
    }

    fn personal(
        &self,
        event_type: &str,
        workspace: WorkspaceId,
        base: u128,
        at: Timestamp,
    ) -> Result<Option<Box<[u8]>>> {
        let share = Some(ShareId::new(Uuid::from_u128(base + 3)));
        Ok(match event_type {
            "share.accessed" => {
                let visitors = fs::read_to_string(goldens().join("personal/share.accessed.v1.json"))?;
                Some(self.keyring.seal_personal(workspace, share, at, &visitors)?)
            }
            "message.sent" => Some(self.keyring.seal_personal(
                workspace,
                None,
                at,
                "{\"payload\":\"the build is green\"}",
            )?),
            _ => None,
        })
    }
}

fn goldens() -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "schemas", "events"].iter().collect()
}

/// The golden example of a type that a log of this format has, of the first or the second life.
fn example(event_type: &str, base: u128, format: u16) -> Result<Event> {
    let version = (1..=format)
        .rev()
        .find(|version| goldens().join(format!("{event_type}.v{version}.json")).exists())
        .with_context(|| format!("{event_type} has no golden"))?;
    let golden = fs::read_to_string(goldens().join(format!("{event_type}.v{version}.json")))?;
    let golden = if base == BASE { golden } else { second(&golden) };
    Ok(Event::decode(event_type, version, &golden)?)
}

/// The ids of the second life; the workspace is the same.
fn second(golden: &str) -> String {
    golden.replace("01955a3c", "01955a3d").replace("ws_01955a3d", "ws_01955a3c")
}

/// Leaves what a backup would have: the log as far as it was written, and the keyring.
fn trim(data: &Path) -> Result<()> {
    fs::remove_dir_all(data.join("state"))?;
    fs::remove_file(data.join("lock"))?;
    for family in Family::ALL {
        for entry in fs::read_dir(data.join("log").join(family.name()))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "seg") {
                fs::remove_file(&path)?;
                continue;
            }
            let bytes = fs::read(&path)?;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            fs::write(&path, &bytes[..used])?;
        }
    }
    Ok(())
}

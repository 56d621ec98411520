//! Who may hold an agent's identity: judged once at the start of each session, one at a time for each agent.
//!
//! The same process takes over from its own older session at once. Another process is refused while the holder proves
//! that it is there, and takes over when it does not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::Addr;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    agent::{AgentConnected, Command, DisconnectReason, Rejection},
    ids::{AgentId, KeyId, SessionId, WorkspaceId},
    recorded::Actor as Author,
};
use parking_lot::Mutex;
use ring::hmac;
use schemas::frames::{Goodbye, GoodbyeCode, Hello, PROTOCOL, Welcome};
use socket2::Socket;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Gateway,
    pool::Pool,
    session::{AgentSession, Order},
    sessions::{Questions, Session, goodbye},
    settle,
};
use crate::{
    actors::{ExecuteError, Who},
    secrets::{Seed, random_bytes},
};

/// How often an epoch is chosen anew when another node was faster.
const EPOCHS_MAX: usize = 3;
/// The longest host name or version that is kept (bytes).
const TEXT_BYTES_MAX: usize = 255;

/// Who opened the connection, by its token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) agent: AgentId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) key: Option<KeyId>,
    pub(crate) token_hash: String,
}

impl Caller {
    fn who(&self) -> Who {
        Who { workspace: self.workspace, actor: Author::Agent(self.agent), request: None, causation: None }
    }
}

/// A session that begins. Dropping `states` ends it.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) session: Arc<Session>,
    pub(crate) states: mpsc::Sender<settle::Report>,
    pub(crate) welcome: Welcome,
}

/// Judges a hello. When it returns a session, the log knows it and the registry has it.
pub(crate) async fn greet(
    gateway: Gateway,
    caller: Caller,
    hello: Hello,
    orders: Addr<AgentSession>,
    socket: Socket,
) -> Result<Greeted, Goodbye> {
    let instance = judge(&caller, &hello)?;
    let turn = gateway.sessions().turn(caller.agent);
    let _turn = turn.lock().await;
    if gateway.is_draining() {
        return Err(goodbye(DisconnectReason::Drained));
    }
    if let Some(holder) = gateway.sessions().of(caller.agent) {
        if holder.instance == instance {
            gateway.close(&holder, DisconnectReason::Replaced, Some(goodbye(DisconnectReason::Replaced)));
        } else if answers(&gateway, &holder).await {
            return Err(held_elsewhere(&holder));
        } else {
            gateway.close(&holder, DisconnectReason::Silent, None);
            holder.shut();
        }
    }
    begin(&gateway, &caller, &hello, instance, orders, socket).await
}

/// Version and identity.
fn judge(caller: &Caller, hello: &Hello) -> Result<Uuid, Goodbye> {
    let refuse = |code, message: String| Goodbye { code, message, retry_after_ms: 0 };
    if hello.protocol_min > PROTOCOL || hello.protocol_max < PROTOCOL {
        let (min, max) = (hello.protocol_min, hello.protocol_max);
        return Err(refuse(
            GoodbyeCode::Protocol,
            format!(
                "this hub speaks protocol {PROTOCOL}, the agent {min} to {max}: update the older of the two"
            ),
        ));
    }
    if hello.agent_id != caller.agent.to_string() {
        return Err(refuse(GoodbyeCode::Unauthorized, "the token belongs to another agent".to_owned()));
    }
    Uuid::try_parse(&hello.instance)
        .map_err(|_| refuse(GoodbyeCode::Protocol, "the instance is no UUID".to_owned()))
}

/// Whether the holder of an identity reads and answers now.
async fn answers(gateway: &Gateway, holder: &Session) -> bool {
    let answered = holder.answered.notified();
    tokio::pin!(answered);
    // Listening before asking: an answer cannot fall in between.
    answered.as_mut().enable();
    holder.tell(Order::Ping);
    tokio::select! {
        () = answered => true,
        () = holder.ending.cancelled() => false,
        () = tokio::time::sleep(Duration::from_millis(gateway.settings().takeover_ms_max)) => false,
    }
}

fn held_elsewhere(holder: &Session) -> Goodbye {
    let host = &holder.host_name;
    let message = format!(
        "this agent is connected from {host}: stop it there, or give this machine an identity of its own"
    );
    Goodbye { code: GoodbyeCode::HeldElsewhere, message, retry_after_ms: 0 }
}

async fn begin(
    gateway: &Gateway,
    caller: &Caller,
    hello: &Hello,
    instance: Uuid,
    orders: Addr<AgentSession>,
    socket: Socket,
) -> Result<Greeted, Goodbye> {
    let parts = gateway.parts();
    let connected_at = parts.clock.now();
    let id = SessionId::new(Seed::random().uuid(connected_at, "session"));
    let epoch = record(gateway, caller, id, instance, &hello.agent_version).await?;
    let data_key = random_bytes();
    let (settings, now_ms) = (gateway.settings(), gateway.monotonic_ms());
    let session = Arc::new(Session {
        id,
        agent: caller.agent,
        workspace: caller.workspace,
        instance,
        host_name: kept(&hello.host_name),
        agent_version: kept(&hello.agent_version),
        connected_at,
        token_hash: Mutex::new(caller.token_hash.clone()),
        key: caller.key,
        data_key: hmac::Key::new(hmac::HMAC_SHA256, &data_key),
        counters: Mutex::default(),
        pool: Pool::new(settings.idle_connections_max, settings.openers_max),
        reach_streams: Arc::new(Semaphore::new(settings.reach_streams_max)),
        answered_ms: now_ms.into(),
        pinged_ms: now_ms.into(),
        answered: Notify::new(),
        wanted: 0.into(),
        ending: CancellationToken::new(),
        reason: Mutex::default(),
        orders,
        socket,
        questions: Questions::default(),
        links_begun: 0.into(),
        links_failed: 0.into(),
    });
    let (states, received) = mpsc::channel(settings.states_max);
    gateway.sessions().by_id.insert(id, Arc::clone(&session));
    gateway.sessions().by_agent.insert(caller.agent, Arc::clone(&session));
    gateway.counts().connected();
    gateway.spawn(settle::attend(gateway.clone(), Arc::clone(&session), received));
    session.pinged_ms.store(now_ms, Ordering::Relaxed);
    let welcome = Welcome {
        protocol: PROTOCOL,
        hub_version: parts.hub_version.clone(),
        session_id: id.to_string(),
        epoch,
        data_key: URL_SAFE_NO_PAD.encode(data_key),
        warm_connections: settings.warm_connections,
        heartbeat_ms: settings.heartbeat_ms,
    };
    Ok(Greeted { session, states, welcome })
}

/// Makes the session a fact; the epoch it got.
async fn record(
    gateway: &Gateway,
    caller: &Caller,
    session_id: SessionId,
    instance: Uuid,
    agent_version: &str,
) -> Result<u64, Goodbye> {
    let parts = gateway.parts();
    for _ in 0..EPOCHS_MAX {
        let epoch = parts.routes.agent(caller.agent).map_or(0, |entry| entry.state.epoch) + 1;
        let session = AgentConnected {
            agent_id: caller.agent,
            session_id,
            epoch,
            node: parts.node.clone(),
            boot: parts.boot,
            instance,
            agent_version: kept(agent_version),
        };
        match parts.executor.agent(caller.agent, caller.who(), Command::Connect { session }).await {
            Ok(_) => return Ok(epoch),
            Err(ExecuteError::Rejected(Rejection::SessionSuperseded)) => {}
            Err(ExecuteError::Rejected(
                Rejection::AgentUnknown | Rejection::AgentGone | Rejection::TokenUnknown,
            ))
            | Err(ExecuteError::NotFound) => return Err(goodbye(DisconnectReason::Deleted)),
            Err(error) => {
                tracing::warn!(agent = %caller.agent, %error, "an agent's session could not be recorded");
                break;
            }
        }
    }
    let message = "the hub cannot record the session now".to_owned();
    Err(Goodbye { code: GoodbyeCode::Draining, message, retry_after_ms: 1_000 })
}

/// What strangers say about themselves, cut to a length that fits everywhere.
fn kept(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().filter(|c| !c.is_control()).collect()
}

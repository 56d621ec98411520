//! Couriers without a network and without waiting, for tests: a log in memory, a clock that follows the runtime's paused
//! time, and a receiver that does what a test says.

use std::{sync::Arc, time::Duration};

use domain::{
    access::{Access, ShareAccessed},
    delivery::{Problem, Said},
    event::Event,
    ids::{EventId, ShareId, TunnelId, WebhookId, WorkspaceId},
    policy::retries::Schedule,
    recorded::{Actor, Families, Recorded, StreamName},
    time::Timestamp,
    webhook::{Changes, Command, Filter, WebhookCreated},
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use projections::routes::Routes;
use serde_json::Value;
use tokio::{runtime::Handle, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Parts, Webhooks,
    message::Messages,
    sending::{Outgoing, Post, Reply},
    signature::Secrets,
};
use crate::{
    actors::{Executor, Who, aggregate::Deps, arbiters::on_one_thread},
    clock::{Clock, SharedClock},
    environments::Codes,
    event_log::{Append, Expected, NewEvent, SharedLog, memory::Memory},
    keyring::Keyring,
};

/// 2026-03-02T10:00:00Z.
pub(super) const START: Timestamp = Timestamp::from_millis(1_772_445_600_000);

/// The runtime's time as the hub's.
#[derive(Debug)]
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        START.plus_ms(i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

/// A message as it came in.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub(super) at: Timestamp,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// What is signed.
    pub(super) raw: bytes::Bytes,
    pub(super) body: Value,
}

impl Came {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
    pub(super) fn id(&self) -> &str {
        self.header("webhook-id")
    }
    pub(super) fn sequence(&self) -> u64 {
        self.body["sequence"].as_u64().unwrap()
    }
    pub(super) fn seconds(&self) -> i64 {
        (self.at.millis() - START.millis()) / 1_000
    }
}

/// What a receiver does: how long it takes, and what it says.
pub(super) type Script = Box<dyn FnMut(&Came) -> (Duration, Reply) + Send>;

/// A receiver that keeps what comes and answers by its script.
#[derive(Clone)]
pub(super) struct Receiver {
    came: Arc<Mutex<Vec<Came>>>,
    script: Arc<Mutex<Script>>,
    clock: SharedClock,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

impl Post for Receiver {
    fn post(&self, message: Outgoing, _: Timestamp) -> BoxFuture<'static, Reply> {
        let receiver = self.clone();
        Box::pin(async move {
            let came = Came {
                at: receiver.clock.now(),
                url: message.url,
                headers: message.headers,
                body: serde_json::from_slice(&message.body).unwrap(),
                raw: message.body,
            };
            let (takes, reply) = (receiver.script.lock())(&came);
            receiver.came.lock().push(came);
            tokio::time::sleep(takes).await;
            reply
        })
    }
}

pub(super) fn says(status: u16) -> Reply {
    Reply { said: Said::Status(status), asked_ms: None }
}
pub(super) fn fails(problem: Problem) -> Reply {
    Reply::nothing(problem)
}
/// Answers at once.
pub(super) fn at_once(reply: Reply) -> (Duration, Reply) {
    (Duration::ZERO, reply)
}

pub(super) struct Rig {
    pub(super) memory: Arc<Memory>,
    pub(super) log: SharedLog,
    pub(super) routes: Arc<Routes>,
    pub(super) executor: Executor,
    pub(super) clock: SharedClock,
    pub(super) receiver: Receiver,
    pub(super) workspace: WorkspaceId,
    keyring: Arc<Keyring>,
    schedule: Schedule,
    running: Option<(Arc<Webhooks>, CancellationToken, JoinHandle<()>)>,
    _folder: tempfile::TempDir,
}

/// Runs a test in virtual time.
pub(super) fn in_virtual_time(test: impl AsyncFnOnce(Rig)) {
    on_one_thread(async |arbiters| {
        tokio::time::pause();
        let clock: SharedClock = Arc::new(Virtual(Instant::now()));
        let memory = Arc::new(Memory::new());
        let log: SharedLog = memory.clone();
        let routes = Arc::<Routes>::default();
        let deps = Deps { log: log.clone(), routes: Arc::clone(&routes), clock: clock.clone() };
        let executor = Executor::new(Arc::new(deps), arbiters);
        let folder = tempfile::tempdir().unwrap();
        let keyring = Arc::new(Keyring::open(&folder.path().join("keyring")).unwrap());
        let receiver = Receiver {
            came: Arc::default(),
            script: Arc::new(Mutex::new(Box::new(|_| at_once(says(200))))),
            clock: clock.clone(),
        };
        let workspace = WorkspaceId::new(Uuid::from_u128(7));
        let schedule = Schedule::default();
        let rig = Rig {
            memory,
            log,
            routes,
            executor,
            clock,
            receiver,
            workspace,
            keyring,
            schedule,
            running: None,
            _folder: folder,
        };
        test(rig).await;
    });
}

impl Rig {
    fn parts(&self) -> Parts {
        Parts {
            log: self.log.clone(),
            clock: self.clock.clone(),
            routes: Arc::clone(&self.routes),
            executor: self.executor.clone(),
            messages: Messages {
                log: self.log.clone(),
                keyring: Arc::clone(&self.keyring),
                codes: Codes::new(&[1; 32]),
            },
            secrets: self.secrets(),
            post: Box::new(self.receiver.clone()),
            schedule: self.schedule.clone(),
            index: None,
            counts: super::counts::Counts::default(),
        }
    }

    pub(super) fn secrets(&self) -> Secrets {
        Secrets::new(&[2; 32])
    }

    pub(super) fn schedule(&mut self, text: &str) {
        self.schedule = text.parse().unwrap();
    }

    /// Starts the couriers; of what ran before nothing is left.
    pub(super) fn start(&mut self) -> Arc<Webhooks> {
        let stop = CancellationToken::new();
        let webhooks = Arc::new(Webhooks::new(self.parts(), Handle::current()));
        let task = tokio::spawn(Arc::clone(&webhooks).run(stop.clone()));
        self.running = Some((Arc::clone(&webhooks), stop, task));
        webhooks
    }

    /// Ends them as a crash would: nothing is noted, nobody is waited for.
    pub(super) fn crash(&mut self) {
        if let Some((webhooks, _, task)) = self.running.take() {
            webhooks.abort_all();
            task.abort();
        }
    }

    /// Ends them as the hub's stop does.
    pub(super) async fn stop(&mut self) {
        if let Some((_, stop, task)) = self.running.take() {
            stop.cancel();
            task.await.unwrap();
        }
    }

    pub(super) async fn webhook(&self, n: u128, types: &[&str]) -> WebhookId {
        self.webhook_in(self.workspace, n, types).await
    }

    pub(super) async fn webhook_in(&self, workspace: WorkspaceId, n: u128, types: &[&str]) -> WebhookId {
        let id = WebhookId::new(Uuid::from_u128(n));
        let types: Vec<String> = types.iter().map(|it| (*it).to_owned()).collect();
        let created = WebhookCreated {
            webhook_id: id,
            workspace_id: workspace,
            url: format!("https://{n}.example/hook"),
            events: Filter::parse(&types).unwrap(),
            description: None,
            is_active: true,
            draw: Uuid::from_u128(40),
        };
        let create = Command::Create(Box::new(created));
        self.executor.webhook(id, Who::hub(workspace, "test"), create).await.unwrap();
        if let Some((webhooks, ..)) = &self.running {
            webhooks.follow(id);
        }
        id
    }

    pub(super) async fn tell(&self, id: WebhookId, command: Command) {
        self.executor.webhook(id, Who::hub(self.workspace, "test"), command).await.unwrap();
        if let Some((webhooks, ..)) = &self.running {
            webhooks.follow(id);
        }
    }

    pub(super) async fn change(&self, id: WebhookId, changes: Changes) {
        self.tell(id, Command::Change(Box::new(changes))).await;
    }

    /// Something happens to a tunnel.
    pub(super) async fn happens(&self, tunnel: u128, event_type: &'static str) -> EventId {
        self.happens_in(
            self.workspace,
            StreamName::tunnel(TunnelId::new(Uuid::from_u128(tunnel))),
            event_type,
            "{}",
        )
        .await
    }

    pub(super) async fn happens_in(
        &self,
        workspace: WorkspaceId,
        stream: StreamName,
        event_type: &'static str,
        data: &str,
    ) -> EventId {
        let id = EventId::new(Uuid::now_v7());
        let event =
            NewEvent { id, event_type, version: 1, data: data.to_owned(), personal: None, causation: None };
        let append = Append {
            stream,
            expected: Expected::Any,
            workspace,
            actor: Actor::System("test".to_owned()),
            correlation: None,
            at: self.clock.now(),
            events: vec![event],
        };
        self.log.append(append).await.unwrap();
        id
    }

    /// Visitors use a share, so many times.
    pub(super) async fn accessed(&self, share: u128, count: u16) {
        let share = ShareId::new(Uuid::from_u128(share));
        let access = |n: u16| Access {
            accessed_at: self.clock.now(),
            method: "GET".to_owned(),
            status_code: 200,
            latency_ms: u32::from(n),
            bytes_in: 0,
            bytes_out: 1,
            denied: None,
            ended_by: None,
            running: false,
            repeat: None,
        };
        let accessed = ShareAccessed {
            share_id: share,
            tunnel_id: TunnelId::new(Uuid::from_u128(1)),
            accesses: (0..count).map(access).collect(),
            completions: vec![],
        };
        let encoded = Event::Access(domain::access::Event::Accessed(accessed)).encode();
        let stream = StreamName::accesses(share, Uuid::from_u128(3));
        self.happens_in(self.workspace, stream, encoded.event_type, &encoded.data).await;
    }

    pub(super) fn script(&self, script: impl FnMut(&Came) -> (Duration, Reply) + Send + 'static) {
        *self.receiver.script.lock() = Box::new(script);
    }
    pub(super) fn answers(&self, reply: Reply) {
        self.script(move |_| at_once(reply));
    }

    /// What came so far.
    pub(super) fn came(&self) -> Vec<Came> {
        self.receiver.came.lock().clone()
    }
    pub(super) fn forget(&self) {
        self.receiver.came.lock().clear();
    }

    /// Lets time pass.
    pub(super) async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Everything that was recorded of some types.
    pub(super) async fn recorded(&self, event_type: &str) -> Vec<Recorded> {
        let all = self.log.read_all(0, Families::ALL, 100_000).await.unwrap();
        all.into_iter().filter(|it| it.event_type.as_ref() == event_type).collect()
    }
}

//! The control connection: found, kept, lost and found again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::target::Protocol;
use futures_util::{SinkExt as _, StreamExt as _};
use ring::hmac;
use schemas::{
    frames::{
        BODY_BYTES_MAX, CheckReach, CheckResult, CommandEnded, CommandOrdered, CommandTaken, Frame, Goodbye,
        GoodbyeCode, HANDSHAKE_MS_MAX, HEADER_BYTES, HEARTBEAT_MS, Hello, OpenPort, PROTOCOL, Ping, Pong,
        PortOpened, SESSION_PATH, SILENCE_MS_MAX, SUBPROTOCOL, Welcome,
        preface::{Purpose, proof_text},
    },
    problem::Problem,
    rest::{DiagnosticStep, Diagnostics},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};
use tokio_util::sync::CancellationToken;
use wire::side::Carrier;

use super::{
    Agent, AgentStatus, Carries, check,
    commands::{self, Then},
    data, hub_connection, ports, reach_check, streams,
    tunnels::Tunnels,
};

/// The waits between tries: twice as long each time, up to this, and a random half of it less. At most 3 s, so that an
/// agent is back within 5 s of its hub.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(3);
/// Frames that wait for the socket at most.
const OUTBOX_MAX: usize = 1_024;
/// Checks that run at once at most.
const CHECKS_MAX: usize = 16;
/// How long a goodbye may take to leave.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

type Socket = WebSocketStream<Carrier>;

/// A live session as data connections need it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session_id: String,
    key: hmac::Key,
    counter: AtomicU64,
    outbox: mpsc::Sender<Frame>,
    /// Room for data connections on demand.
    pub(super) wanted: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    /// Something on the way passes no data connections but WebSockets.
    pub(super) by_websocket: AtomicBool,
    /// Cancelled when the session is over.
    pub(super) ended: CancellationToken,
}

impl Link {
    /// A counter that was never used, and its proof in lower-case hex.
    pub(super) fn proof(&self, purpose: Purpose) -> (u64, String) {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let tag = hmac::sign(&self.key, proof_text(&self.session_id, counter, purpose).as_bytes());
        let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        (counter, hex)
    }

    /// Puts a frame in line; `false`: the session is over.
    pub(super) async fn send(&self, frame: Frame) -> bool {
        self.outbox.send(frame).await.is_ok()
    }
}

/// Why a try or a session ended.
enum End {
    /// [`super::AgentHandle::stop`].
    Stopped,
    /// Nothing that trying again could not mend.
    Lost(String),
    /// A command: connect anew, at once.
    Restart,
    /// A command: end.
    Ordered,
    /// The hub asks to come back no earlier than that.
    Later(Duration),
    /// For good, unless the token has changed since.
    Refused { code: &'static str, message: String },
}

/// Keeps the agent connected until it is stopped or refused for good.
pub(super) async fn run(agent: Agent) {
    let mut failures = 0_u32;
    loop {
        let token = agent.0.options.token.get();
        let began = Instant::now();
        let (was_live, end) = session(&agent, &token, failures).await;
        // One that ends as soon as it began is no success to build on.
        if was_live && began.elapsed() > BACK_OFF_MAX {
            failures = 0;
        }
        let wait = match end {
            End::Stopped => return,
            End::Ordered => {
                agent.0.status.send_replace(AgentStatus::Stopped);
                return;
            }
            End::Restart => {
                failures = 0;
                continue;
            }
            // Somebody renewed the token meanwhile: that one may be good.
            End::Refused { .. } if agent.0.options.token.get() != token => Duration::ZERO,
            End::Refused { code, message } => {
                agent.0.status.send_replace(AgentStatus::Refused { code: code.to_owned(), message });
                return;
            }
            End::Later(wait) => {
                say(&agent, failures, "the hub restarts");
                wait + back_off(1)
            }
            End::Lost(error) => {
                tracing::debug!(error, "the hub is not reached");
                say(&agent, failures, &error);
                back_off(failures)
            }
        };
        failures = failures.saturating_add(1);
        tokio::select! {
            () = agent.0.stop.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

fn say(agent: &Agent, failures: u32, error: &str) {
    let status = AgentStatus::Connecting { attempt: failures + 1, last_error: Some(error.to_owned()) };
    agent.0.status.send_replace(status);
}

/// The wait after so many failures in a row: none after a session that worked.
fn back_off(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let longest = BACK_OFF_MIN.saturating_mul(1 << (failures - 1).min(16)).min(BACK_OFF_MAX);
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    longest / 2 + longest / 2 * random / u32::from(u8::MAX)
}

/// One try, and the session that it may become; whether it did.
async fn session(agent: &Agent, token: &str, failures: u32) -> (bool, End) {
    if failures == 0 {
        agent.0.status.send_replace(AgentStatus::Connecting { attempt: 1, last_error: None });
    }
    let patience = Duration::from_millis(HANDSHAKE_MS_MAX);
    let greeted = tokio::select! {
        () = agent.0.stop.cancelled() => return (false, End::Stopped),
        greeted = timeout(patience, greet(agent, token)) => greeted,
    };
    let (socket, welcome) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(end)) => return (false, end),
        Err(_) => return (false, End::Lost("the hub does not answer".to_owned())),
    };
    let Some((link, outbox)) = link(&welcome) else {
        return (false, End::Lost("the hub's welcome cannot be read".to_owned()));
    };
    agent.0.tunnels.clear();
    agent.0.link.send_replace(Some(Arc::clone(&link)));
    agent.0.status.send_replace(AgentStatus::Connected { epoch: welcome.epoch });
    agent.0.tasks.spawn(data::keep_warm(agent.clone(), Arc::clone(&link), welcome.warm_connections));
    agent.0.tasks.spawn(streams::keep(agent.clone(), Arc::clone(&link)));
    if let Some(ended) = agent.0.commands.restarted(welcome.epoch) {
        link.send(Frame::CommandEnded(ended)).await;
    }
    let end = Conversation { agent, link: &link, socket, heard: Instant::now() }.hold(outbox).await;
    link.ended.cancel();
    agent.0.link.send_replace(None);
    (true, end)
}

/// Connects and shakes hands.
async fn greet(agent: &Agent, token: &str) -> Result<(Socket, Welcome), End> {
    let options = &agent.0.options;
    let hub =
        agent.0.hub.as_ref().map_err(|error| End::Refused { code: "hub_url", message: error.clone() })?;
    let lost = |error: std::io::Error| End::Lost(error.to_string());
    let socket = hub_connection::connect(hub, &agent.0.tls).await.map_err(lost)?;
    let mut request = format!("ws://{}{SESSION_PATH}", hub.authority)
        .into_client_request()
        .map_err(|error| End::Refused { code: "hub_url", message: error.to_string() })?;
    let bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| End::Refused {
        code: "unauthorized",
        message: "the agent's token is no token".to_owned(),
    })?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let limit = HEADER_BYTES + BODY_BYTES_MAX;
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let (mut socket, _) =
        client_async_with_config(request, socket, Some(config)).await.map_err(|error| unwelcome(&error))?;
    let hello = Hello {
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        agent_id: options.agent_id.clone(),
        instance: options.instance.to_string(),
        host_name: options.host_name.clone(),
        agent_version: options.agent_version.clone(),
    };
    send(&mut socket, &Frame::Hello(hello)).await.map_err(End::Lost)?;
    loop {
        match receive(socket.next().await).map_err(End::Lost)? {
            Some(Frame::Welcome(welcome)) => return Ok((socket, welcome)),
            Some(Frame::Goodbye(goodbye)) => return Err(after(goodbye)),
            Some(_) => return Err(End::Lost("the hub did not begin with a welcome".to_owned())),
            None => {}
        }
    }
}

/// What an HTTP answer instead of a session means.
fn unwelcome(error: &tungstenite::Error) -> End {
    let tungstenite::Error::Http(answer) = error else { return End::Lost(error.to_string()) };
    let problem: Option<Problem> =
        answer.body().as_deref().and_then(|body| serde_json::from_slice(body).ok());
    let status = answer.status();
    let message = problem.map_or_else(|| format!("the hub answered {status}"), |problem| problem.message);
    if status == tungstenite::http::StatusCode::UNAUTHORIZED {
        End::Refused { code: "unauthorized", message }
    } else {
        End::Lost(message)
    }
}

/// What a goodbye means.
fn after(goodbye: Goodbye) -> End {
    let Goodbye { code, message, retry_after_ms } = goodbye;
    match code {
        GoodbyeCode::HeldElsewhere => End::Refused { code: "held_elsewhere", message },
        GoodbyeCode::Unauthorized => End::Refused { code: "unauthorized", message },
        GoodbyeCode::Draining => End::Later(Duration::from_millis(retry_after_ms.into()).min(BACK_OFF_MAX)),
        GoodbyeCode::Protocol => End::Refused { code: "protocol", message },
        GoodbyeCode::Leaving | GoodbyeCode::Replaced => End::Lost(message),
    }
}

fn link(welcome: &Welcome) -> Option<(Arc<Link>, mpsc::Receiver<Frame>)> {
    let key = URL_SAFE_NO_PAD.decode(&welcome.data_key).ok().filter(|key| key.len() == 32)?;
    let (sender, outbox) = mpsc::channel(OUTBOX_MAX);
    let link = Link {
        session_id: welcome.session_id.clone(),
        key: hmac::Key::new(hmac::HMAC_SHA256, &key),
        counter: AtomicU64::new(0),
        outbox: sender,
        wanted: data::wanted_room(),
        checks: Arc::new(Semaphore::new(CHECKS_MAX)),
        by_websocket: AtomicBool::new(false),
        ended: CancellationToken::new(),
    };
    Some((Arc::new(link), outbox))
}

/// A session that is live.
struct Conversation<'a> {
    agent: &'a Agent,
    link: &'a Arc<Link>,
    socket: Socket,
    heard: Instant,
}

impl Conversation<'_> {
    async fn hold(mut self, mut outbox: mpsc::Receiver<Frame>) -> End {
        let silence_max = Duration::from_millis(SILENCE_MS_MAX);
        let mut heartbeat = interval(Duration::from_millis(HEARTBEAT_MS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut nonce = 0;
        loop {
            let silence_ends = self.heard + silence_max;
            let step = tokio::select! {
                () = self.agent.0.stop.cancelled() => {
                    self.leave().await;
                    return End::Stopped;
                }
                message = self.socket.next() => self.hear(message).await,
                Some(frame) = outbox.recv() => self.say(&frame).await,
                _ = heartbeat.tick() => {
                    nonce += 1;
                    self.say(&Frame::Ping(Ping { nonce })).await
                }
                () = tokio::time::sleep_until(silence_ends) => Err(End::Lost("the hub is silent".to_owned())),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn leave(&mut self) {
        let goodbye = Goodbye { code: GoodbyeCode::Leaving, message: String::new(), retry_after_ms: 0 };
        let leaving = async {
            send(&mut self.socket, &Frame::Goodbye(goodbye)).await?;
            // The hub closes; until then the goodbye may still be on its way.
            while let Some(Ok(_)) = self.socket.next().await {}
            Ok::<_, String>(())
        };
        let _ = timeout(GOODBYE_PATIENCE, leaving).await;
    }

    /// A hub that does not read is as gone as one that does not speak.
    async fn say(&mut self, frame: &Frame) -> Result<(), End> {
        let patience = Duration::from_millis(SILENCE_MS_MAX);
        match timeout(patience, send(&mut self.socket, frame)).await {
            Ok(sent) => sent.map_err(End::Lost),
            Err(_) => Err(End::Lost("the hub does not read".to_owned())),
        }
    }

    async fn hear(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Result<(), End> {
        let Some(frame) = receive(message).map_err(End::Lost)? else { return Ok(()) };
        self.heard = Instant::now();
        let agent = self.agent;
        match frame {
            Frame::Ping(Ping { nonce }) => self.say(&Frame::Pong(Pong { nonce })).await?,
            Frame::Pong(_) => {}
            // The versions agree, so a new session may do better.
            Frame::Goodbye(Goodbye { code: GoodbyeCode::Protocol, message, .. }) => {
                return Err(End::Lost(message));
            }
            Frame::Goodbye(goodbye) => return Err(after(goodbye)),
            Frame::TunnelAssigned(tunnel) => Tunnels::assign(agent, self.link, tunnel),
            Frame::TunnelWithdrawn(withdrawn) => agent.0.tunnels.withdraw(withdrawn.tunnel),
            Frame::DataWanted(wanted) => data::open_more(agent, self.link, wanted.count),
            Frame::OpenPort(wanted) => {
                self.open_port(&wanted, Carries::Bytes).await?;
            }
            Frame::OpenUdpPort(wanted) => {
                self.open_port(&wanted, Carries::Datagrams).await?;
            }
            Frame::ClosePort(closed) => {
                agent.0.ports.lock().remove(&closed.tunnel);
            }
            Frame::Check(wanted) => self.check(wanted.request, wanted.tunnel, wanted.timeout_ms),
            Frame::CommandOrdered(ordered) => self.carry_out(&ordered).await?,
            Frame::CheckReach(wanted) => self.check_reach(wanted),
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::TunnelState(_)
            | Frame::PortOpened(_)
            | Frame::CheckResult(_)
            | Frame::CommandTaken(_)
            | Frame::CommandEnded(_)
            | Frame::StreamOpen(_)
            | Frame::StreamAccepted(_)
            | Frame::StreamRefused(_)
            | Frame::StreamAdopt(_)
            | Frame::LinkBegin(_)
            | Frame::LinkAdopt(_) => {
                return Err(End::Lost("the hub sent a frame that a hub does not send".to_owned()));
            }
        }
        Ok(())
    }

    async fn open_port(&mut self, wanted: &OpenPort, carries: Carries) -> Result<(), End> {
        let outcome = ports::open_for_hub(self.agent, wanted, carries);
        self.say(&Frame::PortOpened(PortOpened { request: wanted.request, outcome })).await
    }

    /// Says that a command is here, does it, and says how it ended; a restart says so in its next session.
    async fn carry_out(&mut self, ordered: &CommandOrdered) -> Result<(), End> {
        let CommandOrdered { command, order } = ordered;
        let done = commands::carry_out(self.agent, &self.link.session_id, *command, order);
        self.say(&Frame::CommandTaken(CommandTaken { command: *command })).await?;
        if let Some(outcome) = done.outcome {
            self.say(&Frame::CommandEnded(CommandEnded { command: *command, outcome })).await?;
        }
        match done.then {
            Then::GoOn => Ok(()),
            Then::Restart => Err(End::Restart),
            Then::Stop => {
                self.leave().await;
                Err(End::Ordered)
            }
        }
    }

    /// Looks at a target in a task of its own and sends what it found. The hub's wait ends by itself when too many run.
    fn check(&self, request: u64, tunnel: u128, timeout_ms: u32) {
        let Ok(room) = Arc::clone(&self.link.checks).try_acquire_owned() else { return };
        let (agent, link) = (self.agent.clone(), Arc::clone(self.link));
        self.agent.0.tasks.spawn(async move {
            let limit = Duration::from_millis(timeout_ms.into());
            let found = match agent.0.tunnels.served(tunnel) {
                None => nothing("the agent does not know this tunnel"),
                Some((target, _)) if !agent.0.allowed.permits(&target.host, target.port) => {
                    nothing("the agent's owner does not allow this target")
                }
                Some((target, protocol)) => {
                    let judge = agent.0.target_tls.judge(&target);
                    let (found, speech) = check::look(&judge, &target, protocol, limit).await;
                    if let Some(speech) = speech.filter(|speech| speech.protocol != Protocol::Auto) {
                        agent.0.tunnels.note_speech(tunnel, speech);
                    }
                    found
                }
            };
            let json = serde_json::to_string(&found).expect("diagnostics are plain data");
            link.send(Frame::CheckResult(CheckResult { request, json })).await;
            drop(room);
        });
    }

    /// Looks at a tunnel of the workspace from here, where streams live.
    fn check_reach(&self, wanted: CheckReach) {
        let Ok(room) = Arc::clone(&self.link.checks).try_acquire_owned() else { return };
        let (agent, link) = (self.agent.clone(), Arc::clone(self.link));
        self.agent.on_core(move |local| async move {
            let found = reach_check::look(&agent, &local, &wanted).await;
            let json = serde_json::to_string(&found).expect("diagnostics are plain data");
            link.send(Frame::CheckResult(CheckResult { request: wanted.request, json })).await;
            drop(room);
        });
    }
}

fn nothing(why: &str) -> Diagnostics {
    let tcp = DiagnosticStep { ok: false, ms: 0.0, detail: why.to_owned() };
    Diagnostics { tcp: Some(tcp), ..Diagnostics::default() }
}

async fn send(socket: &mut Socket, frame: &Frame) -> Result<(), String> {
    let bytes = frame.encode().map_err(|error| error.to_string())?;
    socket.send(Message::binary(bytes)).await.map_err(|error| error.to_string())
}

/// `Ok(None)`: something that may be skipped.
fn receive(message: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Frame>, String> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Frame::decode(&bytes).map_err(|error| error.to_string()),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Text(_) | Message::Frame(_))) => Err("the hub sent no frame".to_owned()),
        Some(Ok(Message::Close(_))) | None => Err("the hub closed the session".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_is_at_once_and_later_ones_wait_longer_up_to_three_seconds() {
        assert_eq!(back_off(0), Duration::ZERO);
        for (failures, longest_ms) in
            [(1, 100), (2, 200), (3, 400), (5, 1_600), (6, 3_000), (u32::MAX, 3_000)]
        {
            for _ in 0..50 {
                let wait = back_off(failures);
                let longest = Duration::from_millis(longest_ms);
                assert!(wait >= longest / 2 && wait <= longest, "{failures}: {wait:?}");
            }
        }
    }

    #[test]
    fn only_what_trying_again_cannot_mend_is_final() {
        let codes = [
            (GoodbyeCode::HeldElsewhere, Some("held_elsewhere")),
            (GoodbyeCode::Unauthorized, Some("unauthorized")),
            (GoodbyeCode::Protocol, Some("protocol")),
            (GoodbyeCode::Draining, None),
            (GoodbyeCode::Leaving, None),
            (GoodbyeCode::Replaced, None),
        ];
        for (code, expected) in codes {
            let end = after(Goodbye { code, message: String::new(), retry_after_ms: 0 });
            let found = if let End::Refused { code, .. } = end { Some(code) } else { None };
            assert_eq!(found, expected);
        }
    }
}

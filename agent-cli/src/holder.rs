//! One agent session per machine and config, however many `connect` processes run.
//!
//! The first process holds the session and listens on a socket; later ones attach and say what they want (a target
//! allowed, a local port opened). When the holder ends, another takes its place and everybody says again what they
//! want, so nothing has to be remembered but one's own wants. What an attached process wanted ends with its connection.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use domain::target::Target;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub mod agent;
mod attached;
pub(crate) mod known;
mod news;
mod rotation;
mod seat;
pub mod session;
mod wire;

pub use news::Known;
use news::{Grants, News};
pub use seat::Place;
use seat::{Held, Seat, is_ours, jitter};
use session::{Launch, ReachError, Session, SessionState};
use wire::{Granted, Line, PROTOCOL, Tell, Want};

use crate::agent::{Carries, CertificateCheck};

/// Processes that may be attached at once; more are turned away.
pub const ATTACHED_MAX: usize = 256;
/// Wants that may wait for the session task.
const WANTS_WAITING_MAX: usize = 64;
/// How long leaving may take before the process ends regardless.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long attached processes have to end when somebody had the agent stop.
const GUESTS_PATIENCE: Duration = Duration::from_secs(2);
/// The base of the wait before a process takes over or tries again.
const TAKEOVER_MS: u64 = 50;

/// This process's part in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing decided yet, or the holder has just gone.
    Seeking,
    Holder,
    Attached,
}

/// What people are told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub role: Role,
    pub session: SessionState,
    /// What could not be brought back after a takeover, in words.
    pub lost: Vec<String>,
    /// What became of the ports and targets of this process.
    pub known: Known,
}

/// A process's membership in the session of its identity. [`Membership::leave`] ends it in order.
pub struct Membership {
    wants: mpsc::Sender<Wanted>,
    view: watch::Receiver<View>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Wanted {
    want: Want,
    answer: oneshot::Sender<Granted>,
}

impl Membership {
    /// Joins the session of an identity: by holding it, or by attaching to the process that does. Without a place
    /// (nothing can be written anywhere) the process holds a session that nobody can attach to.
    pub fn join<L: Launch>(place: Option<Place>, launch: L) -> Self {
        let (wants, waiting) = mpsc::channel(WANTS_WAITING_MAX);
        let begin = View {
            role: Role::Seeking,
            session: SessionState::begin(),
            lost: Vec::new(),
            known: Known::default(),
        };
        let (publish, view) = watch::channel(begin);
        let stop = CancellationToken::new();
        let member = Member {
            place,
            launch,
            waiting,
            backlog: VecDeque::new(),
            granted: Vec::new(),
            view: publish,
            stop: stop.clone(),
        };
        Self { wants, view, stop, task: tokio::spawn(member.run()) }
    }

    /// Follows how it stands.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until the session is connected or refused, at most `limit`; answers how it stands then.
    pub async fn settled(&self, limit: Duration) -> SessionState {
        let mut view = self.view();
        let settled = view.wait_for(|view| !matches!(view.session, SessionState::Connecting { .. }));
        let _ = tokio::time::timeout(limit, settled).await;
        self.view.borrow().session.clone()
    }

    /// Lets the hub have a target dialled, as long as this process lives.
    ///
    /// # Errors
    /// The session task has ended.
    pub async fn allow(&self, target: Target) -> Result<(), ReachError> {
        self.want(Want::Allow(target)).await.map(drop)
    }

    /// Decides how the certificate of a target is judged; the path of a file is absolute.
    ///
    /// # Errors
    /// The session task has ended, or the file is no longer what it was.
    pub async fn check_certificate(&self, target: Target, check: CertificateCheck) -> Result<(), ReachError> {
        self.want(Want::CheckCertificate { target, check }).await.map(drop)
    }

    /// Opens a local port that leads to a tunnel, as long as this process lives; answers its number.
    ///
    /// # Errors
    /// The port is taken, or cannot be opened.
    pub async fn reach(
        &self,
        tunnel: Uuid,
        service: &str,
        carries: Carries,
        port: u16,
    ) -> Result<u16, ReachError> {
        self.want(Want::Reach { tunnel, service: service.to_owned(), carries, port }).await
    }

    /// From now on [`Known::targets`] says whether the target of a tunnel of this agent answers.
    ///
    /// # Errors
    /// The session task has ended.
    pub async fn watch(&self, tunnel: Uuid) -> Result<(), ReachError> {
        self.want(Want::Watch { tunnel }).await.map(drop)
    }

    async fn want(&self, want: Want) -> Granted {
        let gone = || ReachError::Failed("the agent session has ended".to_owned());
        let (answer, granted) = oneshot::channel();
        self.wants.send(Wanted { want, answer }).await.map_err(|_| gone())?;
        granted.await.map_err(|_| gone())?
    }

    /// Ends it: local ports close, the hub is told, the next process takes over.
    pub async fn leave(self) {
        self.stop.cancel();
        let mut task = self.task;
        if tokio::time::timeout(LEAVE_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Why a process left its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It was told to stop.
    Stopped,
    /// The holder is gone or the credentials are new: look again who holds the session.
    Again,
}

struct Member<L> {
    place: Option<Place>,
    launch: L,
    waiting: mpsc::Receiver<Wanted>,
    /// Asked of a holder that went away before it answered.
    backlog: VecDeque<Wanted>,
    /// What this process wants and once got: said again after every change of holder.
    granted: Vec<Want>,
    view: watch::Sender<View>,
    stop: CancellationToken,
}

impl<L: Launch> Member<L> {
    async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let left = match tokio::select! {
                () = stop.cancelled() => return,
                seat = self.take() => seat,
            } {
                Ok(Some(Seat::Attached(stream))) => self.attach(stream).await,
                Ok(Some(Seat::Holder(held))) => self.hold(Some(&held)).await,
                Ok(None) => self.hold(None).await,
                Err(error) => {
                    self.say(SessionState::Refused {
                        code: "no_agent_socket".to_owned(),
                        message: format!("the socket that connect processes share cannot be used: {error}"),
                    });
                    stop.cancelled().await;
                    return;
                }
            };
            if left == Left::Stopped {
                return;
            }
            if self.view.borrow().session == SessionState::Stopped {
                // The command was meant for every process of the agent.
                stop.cancelled().await;
                return;
            }
            self.view.send_modify(|view| {
                view.role = Role::Seeking;
                if view.session.is_connected() {
                    view.session = SessionState::begin();
                }
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jitter(TAKEOVER_MS)) => {}
            }
        }
    }

    async fn take(&self) -> io::Result<Option<Seat>> {
        match &self.place {
            Some(place) => place.take().await.map(Some),
            None => Ok(None),
        }
    }

    async fn hold(&mut self, held: Option<&Held>) -> Left {
        let session = Arc::new(self.launch.launch());
        let mut states = session.states();
        let (mut grants, mut news) = Grants::of(Arc::clone(&session));
        let mut lost = Vec::new();
        for want in &mut self.granted {
            if let Err(error) = grants.grant(want).await
                && let Want::Reach { port, .. } = want
            {
                lost.push(format!("port {port}: {error}"));
            }
        }
        let state = states.borrow_and_update().clone();
        self.view.send_modify(|view| {
            (view.role, view.session, view.lost) = (Role::Holder, state, lost);
        });
        let stop = self.stop.clone();
        let mut guests = JoinSet::new();
        let mut is_over = false;
        let left = loop {
            while let Some(wanted) = self.backlog.pop_front() {
                self.serve_own(wanted, &mut grants).await;
            }
            tokio::select! {
                () = stop.cancelled() => break Left::Stopped,
                wanted = self.waiting.recv() => match wanted {
                    Some(wanted) => self.serve_own(wanted, &mut grants).await,
                    None => break Left::Stopped,
                },
                changed = states.changed(), if !is_over => {
                    if changed.is_err() {
                        // A session that was refused has ended for good, any other end is a fault to begin again from.
                        if !is_final(&states.borrow()) {
                            break Left::Again;
                        }
                        is_over = true;
                        continue;
                    }
                    let state = states.borrow_and_update().clone();
                    let unauthorized = matches!(&state, SessionState::Refused { code, .. } if code == "unauthorized");
                    if unauthorized && self.launch.renew().await {
                        break Left::Again;
                    }
                    self.say(state);
                }
                guest = accept(held) => match guest {
                    Ok(stream) if is_ours(&stream) && guests.len() < ATTACHED_MAX => {
                        guests.spawn(serve_guest(stream, Arc::clone(&session), self.view.subscribe()));
                    }
                    Ok(_) => {}
                    // Out of descriptors: give others the time to close some.
                    Err(_) => tokio::time::sleep(jitter(TAKEOVER_MS)).await,
                },
                Some(news) = news.recv() => self.learn(news),
                Some(_) = guests.join_next() => {}
            }
        };
        // Those who are attached end as well; whoever took over would bring the agent back.
        if self.view.borrow().session == SessionState::Stopped {
            let all_gone = async { while guests.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(GUESTS_PATIENCE, all_gone).await;
        }
        // The local ports first: whoever takes over wants the same numbers.
        guests.shutdown().await;
        drop(grants);
        session.stop().await;
        left
    }

    async fn serve_own<S: Session>(&mut self, wanted: Wanted, grants: &mut Grants<S>) {
        let mut want = wanted.want;
        let granted = grants.grant(&mut want).await;
        if granted.is_ok() {
            self.granted.push(want);
        }
        let _ = wanted.answer.send(granted);
    }

    fn learn(&self, news: News) {
        self.view.send_modify(|view| view.known.learn(news));
    }

    fn say(&self, state: SessionState) {
        self.view.send_if_modified(|view| {
            let is_new = view.session != state;
            view.session = state;
            is_new
        });
    }
}

/// Whether a session that ended so is not begun again by itself.
fn is_final(state: &SessionState) -> bool {
    match state {
        SessionState::Refused { .. } | SessionState::Stopped => true,
        SessionState::Connecting { .. } | SessionState::Connected { .. } => false,
    }
}

async fn accept(held: Option<&Held>) -> io::Result<tokio::net::UnixStream> {
    match held {
        Some(held) => held.listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

// Lives as long as the attached process's connection; its ports close with it.
async fn serve_guest<S: Session>(
    stream: tokio::net::UnixStream,
    session: Arc<S>,
    mut view: watch::Receiver<View>,
) {
    let mut line = Line::new(stream);
    let (mut grants, mut news) = Grants::of(session);
    if !line.send(&Tell::Hello { protocol: PROTOCOL }).await {
        return;
    }
    view.mark_changed();
    let mut told = None;
    loop {
        tokio::select! {
            ask = line.next::<wire::Ask>() => {
                let Some(mut ask) = ask else { return };
                let granted = grants.grant(&mut ask.want).await;
                if !line.send(&Tell::Answer { id: ask.id, granted }).await {
                    return;
                }
            }
            Some(news) = news.recv() => {
                if !line.send(&Tell::News(news)).await {
                    return;
                }
            }
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                let state = view.borrow_and_update().session.clone();
                if told.as_ref() == Some(&state) {
                    continue;
                }
                told = Some(state.clone());
                if !line.send(&Tell::State(state)).await {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

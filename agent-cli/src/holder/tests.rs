//! Several members of one identity in one process, over real sockets, with a session that is a table.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, time::Instant};

use parking_lot::Mutex;
use tokio::net::UnixStream;

use super::{session::TargetState, *};
use crate::agent::{Carries, CertificateCheck, Reason, Refusals};

/// What all sessions of a test share: the machine's ports and the hub's answer.
#[derive(Debug, Default)]
struct Machine {
    /// Open ports and the tunnels they lead to.
    open: BTreeMap<u16, Uuid>,
    /// Targets of the live session.
    allowed: Vec<Target>,
    checks: Vec<(Target, CertificateCheck)>,
    launched: usize,
    stopped: usize,
    /// What the next sessions begin with.
    state: Option<SessionState>,
    renewals: usize,
    publishers: Vec<watch::Sender<SessionState>>,
    /// The refusals of the open ports.
    refusals: BTreeMap<u16, watch::Sender<Refusals>>,
    /// How the one target of the live session stands.
    target: watch::Sender<Option<TargetState>>,
}

#[derive(Debug, Clone, Default)]
struct World(Arc<Mutex<Machine>>);

struct FakeSession {
    world: World,
    states: watch::Receiver<SessionState>,
}

struct FakePort {
    world: World,
    number: u16,
    refusals: watch::Receiver<Refusals>,
}

impl Drop for FakePort {
    fn drop(&mut self) {
        let mut machine = self.world.0.lock();
        machine.open.remove(&self.number);
        machine.refusals.remove(&self.number);
    }
}

impl Launch for World {
    type Session = FakeSession;
    fn launch(&self) -> FakeSession {
        let mut machine = self.0.lock();
        machine.launched += 1;
        machine.allowed.clear();
        machine.checks.clear();
        let epoch = machine.launched as u64;
        let state = machine.state.clone().unwrap_or(SessionState::Connected { epoch });
        let (publish, states) = watch::channel(state);
        machine.publishers.push(publish);
        FakeSession { world: self.clone(), states }
    }
    async fn renew(&self) -> bool {
        let mut machine = self.0.lock();
        machine.renewals += 1;
        machine.state = None;
        true
    }
}

impl Session for FakeSession {
    type Port = FakePort;
    fn states(&self) -> watch::Receiver<SessionState> {
        self.states.clone()
    }
    fn allow(&self, target: &Target) {
        self.world.0.lock().allowed.push(target.clone());
    }
    fn check_certificate(&self, target: &Target, check: &CertificateCheck) -> Result<(), String> {
        self.world.0.lock().checks.push((target.clone(), check.clone()));
        Ok(())
    }
    async fn reach(&self, tunnel: Uuid, _: &str, _: Carries, port: u16) -> Result<FakePort, ReachError> {
        let mut machine = self.world.0.lock();
        let number = if port == 0 { 50_000 + machine.open.len() as u16 } else { port };
        if machine.open.contains_key(&number) {
            return Err(ReachError::Taken);
        }
        machine.open.insert(number, tunnel);
        let (publish, refusals) = watch::channel(Refusals::new());
        machine.refusals.insert(number, publish);
        Ok(FakePort { world: self.world.clone(), number, refusals })
    }
    fn number(port: &FakePort) -> u16 {
        port.number
    }
    fn refusals(port: &FakePort) -> watch::Receiver<Refusals> {
        port.refusals.clone()
    }
    async fn target(&self, _: Uuid, seen: Option<&TargetState>) -> Option<TargetState> {
        let mut target = self.world.0.lock().target.subscribe();
        let news = target.wait_for(|state| state.is_some() && state.as_ref() != seen).await;
        news.expect("the world lives as long as its sessions").clone()
    }
    async fn stop(&self) {
        self.world.0.lock().stopped += 1;
    }
}

fn place(folder: &Path) -> Place {
    Place::new(Some(&folder.join("run")), &folder.join("config.toml"), "http://hub/", "agent-1")
}

fn target(port: u16) -> Target {
    Target { host: "localhost".to_owned(), port }
}

const TUNNEL: Uuid = Uuid::from_u128(7);

async fn role(membership: &Membership, role: Role) {
    let mut view = membership.view();
    let reached = view.wait_for(|view| view.role == role);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the role is reached").unwrap();
}

/// Waits until it is so, at most ten seconds.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

async fn holder_and_guest(folder: &Path, world: &World) -> (Membership, Membership) {
    let holder = Membership::join(Some(place(folder)), world.clone());
    role(&holder, Role::Holder).await;
    let guest = Membership::join(Some(place(folder)), world.clone());
    role(&guest, Role::Attached).await;
    (holder, guest)
}

#[tokio::test]
async fn the_first_process_holds_the_session_and_the_second_attaches_to_it() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    assert!(guest.settled(Duration::from_secs(10)).await.is_connected());
    holder.allow(target(3000)).await.unwrap();
    guest.allow(target(5432)).await.unwrap();
    assert_eq!(guest.reach(TUNNEL, "db", Carries::Bytes, 6000).await, Ok(6000));
    assert_eq!(guest.reach(TUNNEL, "db", Carries::Bytes, 6000).await, Err(ReachError::Taken));
    {
        let machine = world.0.lock();
        assert_eq!(machine.launched, 1, "one session for both");
        assert_eq!(machine.allowed, [target(3000), target(5432)]);
        assert_eq!(machine.open.keys().copied().collect::<Vec<_>>(), [6000]);
    }
    guest.leave().await;
    holder.leave().await;
    assert_eq!(world.0.lock().stopped, 1);
}

#[tokio::test]
async fn the_ports_of_an_attached_process_close_with_it() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    holder.reach(TUNNEL, "db", Carries::Bytes, 6000).await.unwrap();
    guest.reach(TUNNEL, "db", Carries::Bytes, 6001).await.unwrap();
    guest.leave().await;
    eventually("only the holder's port is left", || world.0.lock().open.keys().copied().eq([6000])).await;
    holder.leave().await;
}

#[tokio::test]
async fn when_the_holder_leaves_another_takes_over_and_brings_back_its_own_wants() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    holder.allow(target(3000)).await.unwrap();
    guest.allow(target(5432)).await.unwrap();
    let any = guest.reach(TUNNEL, "db", Carries::Bytes, 0).await.unwrap();
    holder.leave().await;
    role(&guest, Role::Holder).await;
    {
        let machine = world.0.lock();
        assert_eq!(machine.launched, 2);
        assert_eq!(machine.allowed, [target(5432)], "what the first one wanted went with it");
        assert_eq!(machine.open.keys().copied().collect::<Vec<_>>(), [any], "the same number as before");
    }
    assert!(guest.view().borrow().lost.is_empty());
    guest.leave().await;
}

#[tokio::test]
async fn of_many_that_lose_their_holder_exactly_one_takes_over() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, first) = holder_and_guest(folder.path(), &world).await;
    let mut guests = vec![first];
    for _ in 0..5 {
        let guest = Membership::join(Some(place(folder.path())), world.clone());
        role(&guest, Role::Attached).await;
        guests.push(guest);
    }
    for (number, guest) in guests.iter().enumerate() {
        guest.reach(TUNNEL, "db", Carries::Bytes, 7000 + number as u16).await.unwrap();
    }
    holder.leave().await;
    eventually("all ports are back", || world.0.lock().open.len() == 6).await;
    eventually("everybody has a seat", || {
        guests.iter().all(|guest| guest.view().borrow().role != Role::Seeking)
    })
    .await;
    let holders = guests.iter().filter(|guest| guest.view().borrow().role == Role::Holder).count();
    assert_eq!((holders, world.0.lock().launched), (1, 2));
    for guest in guests {
        guest.leave().await;
    }
}

#[tokio::test]
async fn a_port_that_somebody_took_meanwhile_is_reported_after_the_takeover() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    let number = guest.reach(TUNNEL, "db", Carries::Bytes, 6000).await.unwrap();
    // A foreign program is quicker than the takeover: it listens as soon as the holder's port is closed.
    let thief = tokio::spawn({
        let world = world.clone();
        async move {
            eventually("the port closes", || {
                let mut machine = world.0.lock();
                let is_free = !machine.open.contains_key(&number);
                if is_free {
                    machine.open.insert(number, Uuid::nil());
                }
                is_free
            })
            .await;
        }
    });
    holder.leave().await;
    thief.await.unwrap();
    role(&guest, Role::Holder).await;
    assert_eq!(guest.view().borrow().lost, ["port 6000: somebody else listens there"]);
    guest.leave().await;
}

#[tokio::test]
async fn refused_connections_are_told_to_the_process_whose_port_it_is_also_after_a_takeover() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    holder.reach(TUNNEL, "db", Carries::Bytes, 6000).await.unwrap();
    guest.reach(TUNNEL, "db", Carries::Bytes, 6001).await.unwrap();
    let refuse = |port: u16, count: u64| {
        let machine = world.0.lock();
        machine.refusals[&port].send_modify(|refusals| {
            crate::agent::refusals::add(refusals, Reason::AgentOffline, count, "the agent is not connected");
        });
    };
    let count = |member: &Membership| {
        let known = member.view().borrow().known.clone();
        known.refused.get(&TUNNEL).map_or(0, |refusals| refusals[&Reason::AgentOffline].count)
    };
    refuse(6000, 2);
    refuse(6001, 3);
    eventually("both hear of it", || (count(&holder), count(&guest)) == (2, 3)).await;
    holder.leave().await;
    role(&guest, Role::Holder).await;
    refuse(6001, 1);
    eventually("the count goes on", || count(&guest) == 4).await;
    guest.leave().await;
}

#[tokio::test]
async fn a_watched_target_is_told_to_whoever_watches_it_and_to_nobody_else() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    guest.watch(TUNNEL).await.unwrap();
    let target = |member: &Membership| member.view().borrow().known.targets.get(&TUNNEL).cloned();
    for state in [TargetState::Answers, TargetState::Unreachable("gone".to_owned())] {
        world.0.lock().target.send_replace(Some(state.clone()));
        eventually("the guest hears of it", || target(&guest) == Some(state.clone())).await;
        assert_eq!(target(&holder), None);
    }
    holder.leave().await;
    role(&guest, Role::Holder).await;
    world.0.lock().target.send_replace(Some(TargetState::Answers));
    eventually("also after the takeover", || target(&guest) == Some(TargetState::Answers)).await;
    guest.leave().await;
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let place = place(folder.path());
    std::fs::create_dir(folder.path().join("run")).unwrap();
    // What a killed process leaves behind: a socket file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(place.socket_for_tests()).unwrap());
    let member = Membership::join(Some(place), world);
    role(&member, Role::Holder).await;
    member.leave().await;
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only_and_goes_with_its_holder() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let member = Membership::join(Some(place(folder.path())), world);
    role(&member, Role::Holder).await;
    let socket = place(folder.path()).socket_for_tests();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    member.leave().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_folder_that_others_can_write_is_refused() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::set_permissions(folder.path().join("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let member = Membership::join(Some(place(folder.path())), world.clone());
    let SessionState::Refused { code, message } = member.settled(Duration::from_secs(10)).await else {
        panic!("not refused");
    };
    assert_eq!(code, "no_agent_socket");
    assert!(message.contains("can be written by others"), "{message}");
    assert_eq!(world.0.lock().launched, 0);
    member.leave().await;
}

#[tokio::test]
async fn another_hub_or_agent_or_config_is_another_place() {
    let folder = tempfile::tempdir().unwrap();
    let of = |config: &str, hub: &str, agent: &str| Place::new(None, &folder.path().join(config), hub, agent);
    let one = of("config.toml", "http://a/", "x");
    assert_eq!(one, of("./config.toml", "http://a/", "x"));
    assert_ne!(one, of("other.toml", "http://a/", "x"));
    assert_ne!(one, of("config.toml", "http://b/", "x"));
    assert_ne!(one, of("config.toml", "http://a/", "y"));
}

#[tokio::test]
async fn without_a_place_the_process_holds_a_session_of_its_own() {
    let world = World::default();
    let member = Membership::join(None, world.clone());
    role(&member, Role::Holder).await;
    assert_eq!(member.reach(TUNNEL, "db", Carries::Bytes, 6000).await, Ok(6000));
    member.leave().await;
    assert!(world.0.lock().open.is_empty());
}

#[tokio::test]
async fn refused_credentials_are_renewed_once_and_everybody_comes_back() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    holder.reach(TUNNEL, "db", Carries::Bytes, 6000).await.unwrap();
    guest.reach(TUNNEL, "db", Carries::Bytes, 6001).await.unwrap();
    let unauthorized = SessionState::Refused {
        code: "unauthorized".to_owned(),
        message: "the token has expired".to_owned(),
    };
    world.0.lock().publishers[0].send_replace(unauthorized);
    eventually("a second session", || world.0.lock().launched == 2).await;
    eventually("both ports are back", || world.0.lock().open.len() == 2).await;
    assert_eq!(world.0.lock().renewals, 1);
    holder.leave().await;
    guest.leave().await;
}

#[tokio::test]
async fn a_refusal_reaches_the_attached_processes_too_and_is_not_tried_again() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    let refused =
        SessionState::Refused { code: "held_elsewhere".to_owned(), message: "held by host box".to_owned() };
    let publisher = world.0.lock().publishers.remove(0);
    publisher.send_replace(refused.clone());
    let mut view = guest.view();
    view.wait_for(|view| view.session == refused).await.unwrap();
    // The library's task has ended: still no second session.
    drop(publisher);
    assert_eq!(holder.reach(TUNNEL, "db", Carries::Bytes, 6000).await, Ok(6000));
    let (launched, renewals) = {
        let machine = world.0.lock();
        (machine.launched, machine.renewals)
    };
    assert_eq!((launched, renewals), (1, 0));
    guest.leave().await;
    holder.leave().await;
}

#[tokio::test]
async fn a_stop_from_afar_ends_all_and_nobody_takes_over() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let (holder, guest) = holder_and_guest(folder.path(), &world).await;
    world.0.lock().publishers[0].send_replace(SessionState::Stopped);
    guest.view().wait_for(|view| view.session == SessionState::Stopped).await.unwrap();
    // As `stay` does it in each process, the holder first.
    let ((), ()) = tokio::join!(holder.leave(), async {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        guest.leave().await;
    });
    let machine = world.0.lock();
    assert_eq!((machine.launched, machine.stopped), (1, 1));
}

#[tokio::test]
async fn a_holder_of_another_version_is_named() {
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let place = place(folder.path());
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let Seat::Holder(held) = place.take().await.unwrap() else { panic!("the folder is new") };
    let stranger = tokio::spawn(async move {
        let (stream, _) = held.listener.accept().await.unwrap();
        let mut line = Line::new(stream);
        line.send(&Tell::Hello { protocol: 99 }).await;
        line.next::<wire::Ask>().await
    });
    let member = Membership::join(Some(place), world);
    let state = member.settled(Duration::from_secs(10)).await;
    assert!(matches!(&state, SessionState::Refused { code, .. } if code == "agent_version"), "{state:?}");
    member.leave().await;
    assert_eq!(stranger.await.unwrap(), None);
}

#[tokio::test]
async fn whoever_speaks_nonsense_or_too_long_is_cut_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (folder, world) = (tempfile::tempdir().unwrap(), World::default());
    let member = Membership::join(Some(place(folder.path())), world);
    role(&member, Role::Holder).await;
    for nonsense in ["{}\n".to_owned(), "\u{0}\n".to_owned(), "x".repeat(2 * wire::LINE_BYTES_MAX)] {
        let mut stream = UnixStream::connect(place(folder.path()).socket_for_tests()).await.unwrap();
        stream.write_all(nonsense.as_bytes()).await.ok();
        let mut rest = Vec::new();
        // A reset counts as an end too.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.starts_with(b"{\"hello\""), "{rest:?}");
    }
    assert_eq!(member.reach(TUNNEL, "db", Carries::Bytes, 6000).await, Ok(6000), "the session lives");
    member.leave().await;
}

#[test]
fn the_lines_between_processes_keep_their_form() {
    let line = |value: serde_json::Value| value.to_string();
    let want = |want: Want| line(serde_json::to_value(wire::Ask { id: 1, want }).unwrap());
    assert_eq!(want(Want::Allow(target(80))), r#"{"id":1,"want":{"allow":{"host":"localhost","port":80}}}"#);
    assert_eq!(
        want(Want::Reach { tunnel: TUNNEL, service: "db".to_owned(), carries: Carries::Bytes, port: 80 }),
        r#"{"id":1,"want":{"reach":{"carries":"bytes","port":80,"service":"db","tunnel":"00000000-0000-0000-0000-000000000007"}}}"#
    );
    for (check, form) in [
        (CertificateCheck::System, r#""system""#),
        (CertificateCheck::Unchecked, r#""unchecked""#),
        (CertificateCheck::Issuers("/ca.pem".into()), r#"{"issuers":"/ca.pem"}"#),
    ] {
        assert_eq!(
            want(Want::CheckCertificate { target: target(80), check }),
            format!(
                r#"{{"id":1,"want":{{"check_certificate":{{"check":{form},"target":{{"host":"localhost","port":80}}}}}}}}"#
            )
        );
    }
    assert_eq!(
        want(Want::Watch { tunnel: TUNNEL }),
        r#"{"id":1,"want":{"watch":{"tunnel":"00000000-0000-0000-0000-000000000007"}}}"#
    );
    let tell = |tell: Tell| line(serde_json::to_value(tell).unwrap());
    assert_eq!(tell(Tell::Hello { protocol: 3 }), r#"{"hello":{"protocol":3}}"#);
    assert_eq!(tell(Tell::State(SessionState::Stopped)), r#"{"state":{"state":"stopped"}}"#);
    assert_eq!(tell(Tell::Answer { id: 1, granted: Ok(80) }), r#"{"answer":{"granted":{"Ok":80},"id":1}}"#);
    assert_eq!(
        tell(Tell::Answer { id: 1, granted: Err(ReachError::Taken) }),
        r#"{"answer":{"granted":{"Err":"taken"},"id":1}}"#
    );
    assert_eq!(
        tell(Tell::State(SessionState::Connecting { attempt: 2, last_error: None })),
        r#"{"state":{"attempt":2,"lastError":null,"state":"connecting"}}"#
    );
    let (reason, words) = (Reason::TunnelPaused, "why".to_owned());
    assert_eq!(
        tell(Tell::News(News::Refused { tunnel: TUNNEL, reason, more: 2, words })),
        r#"{"news":{"refused":{"more":2,"reason":"tunnel_paused","tunnel":"00000000-0000-0000-0000-000000000007","words":"why"}}}"#
    );
    assert_eq!(
        tell(Tell::News(News::Target { tunnel: TUNNEL, state: TargetState::Unreachable("why".to_owned()) })),
        r#"{"news":{"target":{"state":{"unreachable":"why"},"tunnel":"00000000-0000-0000-0000-000000000007"}}}"#
    );
}

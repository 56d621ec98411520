//! Appends in, views out.

use std::sync::atomic::{AtomicUsize, Ordering};

use domain::{
    access::{self, Access, ShareAccessed},
    agent::{self, AgentRegistered, Token},
    event::Event,
    ids::{AgentId, EventId, ShareId, TunnelId, WorkspaceId},
    names::Name,
    recorded::{Actor, Recorded, StreamName},
    time::Timestamp,
};
use projections::catalog::PageRequest;

use super::{
    rebuild::{Checked, Progress, check, rebuild},
    *,
};
use crate::event_log::{Append, EventLog, Expected, NewEvent, memory::Memory};

const WORKSPACE: WorkspaceId = WorkspaceId::new(Uuid::from_u128(1));
const SHARE: ShareId = ShareId::new(Uuid::from_u128(2));
const PATIENCE: Duration = Duration::from_secs(10);
const ALL: PageRequest<'static> = PageRequest { limit: 1_000, cursor: None };

fn log() -> (Arc<Memory>, SharedLog) {
    let memory = Arc::new(Memory::new());
    (Arc::clone(&memory), memory)
}

async fn append(log: &SharedLog, stream: StreamName, event_type: &'static str, data: String) -> u64 {
    let event = NewEvent {
        id: EventId::new(Uuid::new_v4()),
        event_type,
        version: 1,
        data,
        personal: None,
        causation: None,
    };
    let append = Append {
        stream,
        expected: Expected::Any,
        workspace: WORKSPACE,
        actor: Actor::System("test".to_owned()),
        correlation: None,
        at: Timestamp::from_millis(1_772_445_600_000),
        events: vec![event],
    };
    log.append(append).await.unwrap().position
}

fn agent_id(number: u128) -> AgentId {
    AgentId::new(Uuid::from_u128(0x100 + number))
}

fn registered(number: u128, label: &str) -> Event {
    Event::Agent(agent::Event::Registered(AgentRegistered {
        agent_id: agent_id(number),
        workspace_id: WORKSPACE,
        label: Name::parse(label).unwrap(),
        name: Name::parse("alice").unwrap(),
        client_type: None,
        ephemeral: false,
        token: Token {
            token_hash: "ab".repeat(32),
            expires_at: Timestamp::from_millis(1_800_000_000_000),
            key_id: None,
        },
    }))
}

async fn register(log: &SharedLog, number: u128) -> u64 {
    let encoded = registered(number, "laptop").encode();
    append(log, StreamName::agent(agent_id(number)), encoded.event_type, encoded.data).await
}

async fn visit(log: &SharedLog) -> u64 {
    let access = Access {
        accessed_at: Timestamp::from_millis(1_772_445_600_000),
        method: "GET".to_owned(),
        status_code: 200,
        latency_ms: 1,
        bytes_in: 0,
        bytes_out: 10,
        denied: None,
        ended_by: None,
        running: false,
        repeat: None,
    };
    let accessed = ShareAccessed {
        share_id: SHARE,
        tunnel_id: TunnelId::new(Uuid::from_u128(3)),
        accesses: vec![access],
        completions: vec![],
    };
    let encoded = Event::Access(access::Event::Accessed(accessed)).encode();
    append(log, StreamName::accesses(SHARE, Uuid::from_u128(4)), encoded.event_type, encoded.data).await
}

async fn start(folder: &Path, log: &SharedLog) -> Views {
    let (routes, position) = load_routes(log).await.unwrap();
    Views::start(folder, log, Arc::new(routes), position).unwrap()
}

fn listed(views: &Views) -> usize {
    views.catalog().agents(WORKSPACE, ALL).unwrap().rows.len()
}

fn accesses(views: &Views) -> u64 {
    views.accesses().totals(WORKSPACE, SHARE).unwrap().accesses
}

/// Waits until something is so; a deadline stands for "never".
async fn eventually(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never became so");
}

#[tokio::test]
async fn who_waits_for_his_write_sees_it() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    let views = start(folder.path(), &log).await;
    for number in 0..20 {
        let position = register(&log, number).await;
        assert!(views.wait_for_catalog(position, PATIENCE).await);
        assert_eq!(listed(&views), usize::try_from(number).unwrap() + 1);
        let position = visit(&log).await;
        assert!(views.wait_for_accesses(position, PATIENCE).await);
        assert_eq!(accesses(&views), u64::try_from(number).unwrap() + 1);
    }
    views.stop().await;
}

#[tokio::test]
async fn a_position_of_another_family_is_reached_too() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    let views = start(folder.path(), &log).await;
    register(&log, 1).await;
    let position = visit(&log).await;
    assert!(views.wait_for_catalog(position, PATIENCE).await);
    assert!(views.wait_for_routes(position, PATIENCE).await);
    views.stop().await;
}

#[tokio::test]
async fn who_waits_for_what_is_not_written_waits_no_longer_than_he_says() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    let views = start(folder.path(), &log).await;
    let position = register(&log, 1).await;
    assert!(!views.wait_for_catalog(position + 1, Duration::from_millis(1)).await);
    views.stop().await;
    assert!(!views.wait_for_catalog(position + 1, PATIENCE).await, "nobody is left to wait for");
}

#[tokio::test]
async fn a_restarted_hub_goes_on_where_it_stopped() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    let views = start(folder.path(), &log).await;
    let position = register(&log, 1).await;
    views.wait_for_catalog(position, PATIENCE).await;
    views.stop().await;
    views.stop().await;
    let position = register(&log, 2).await;
    assert_eq!(listed(&views), 1, "it has stopped");
    let views = start(folder.path(), &log).await;
    assert!(views.wait_for_catalog(position, PATIENCE).await);
    assert_eq!(listed(&views), 2);
    views.stop().await;
}

#[tokio::test]
async fn routes_have_the_facts_of_before_the_start_and_of_after_it() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    register(&log, 1).await;
    let (routes, position) = load_routes(&log).await.unwrap();
    let routes = Arc::new(routes);
    assert!(routes.agent(agent_id(1)).is_some());
    let views = Views::start(folder.path(), &log, Arc::clone(&routes), position).unwrap();
    // Another node wrote this: nobody here applies it but the reader.
    let position = register(&log, 2).await;
    assert!(views.wait_for_routes(position, PATIENCE).await);
    assert!(routes.agent(agent_id(2)).is_some());
    views.stop().await;
}

#[tokio::test]
async fn events_that_this_build_does_not_know_are_skipped_and_counted() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    append(&log, StreamName::parse("invoice-1").unwrap(), "invoice.sent", "{}".to_owned()).await;
    let views = start(folder.path(), &log).await;
    let position = register(&log, 1).await;
    assert!(views.wait_for_catalog(position, PATIENCE).await);
    assert!(views.wait_for_accesses(position, PATIENCE).await);
    let counts = views.followers().map(|follower| (follower.name(), follower.skipped()));
    let expected = [("routes", 0), ("catalog", 1), ("accesses", 0), ("audit", 0), ("deliveries", 0)];
    assert_eq!(counts, expected, "routes were loaded before");
    assert_eq!(views.health(), Ok(()));
    views.stop().await;
}

/// What the folder of a view holds for a log of `written` agents, when the hub opens it with a log of one.
async fn opened_with_a_shorter_log(written: u128, same_log: bool) -> usize {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    register(&log, 100).await;
    let log_id = if same_log { log.log_id() } else { Uuid::from_u128(9) };
    let mut catalog = Catalog::open(&views_dir(folder.path()).join("catalog"), log_id).unwrap();
    let other: SharedLog = Arc::new(Memory::new());
    for number in 0..written {
        register(&other, number).await;
    }
    let batch = other.read_all(0, Families::ALL, 1_000).await.unwrap();
    let applied: Vec<Applied> = batch.into_iter().map(|r| (r.clone(), r.event().ok())).collect();
    catalog.apply(&applied).unwrap();
    drop(catalog);
    let views = start(folder.path(), &log).await;
    assert!(views.wait_for_catalog(1, PATIENCE).await);
    let row = views.catalog().agent(WORKSPACE, agent_id(100)).unwrap();
    let listed = listed(&views);
    views.stop().await;
    assert!(listed > 1 || row.is_some() || same_log);
    listed
}

#[tokio::test]
async fn a_view_that_saw_more_than_the_log_holds_is_filled_again() {
    assert_eq!(opened_with_a_shorter_log(3, true).await, 1);
}

#[tokio::test]
async fn a_view_of_another_log_is_filled_again() {
    assert_eq!(opened_with_a_shorter_log(1, false).await, 1);
}

/// A view that fails as often as it is told, then works.
#[derive(Debug)]
struct Flaky {
    failures_left: Arc<AtomicUsize>,
    taken: Arc<Mutex<Vec<u64>>>,
    panics: bool,
}

impl View for Flaky {
    const NAME: &'static str = "flaky";
    const FAMILIES: Families = Families::ALL;
    fn checkpoint(&self) -> u64 {
        0
    }
    fn apply(&mut self, batch: &[Applied]) -> Result<(), ViewError> {
        assert!(!self.panics, "as told");
        if self.failures_left.load(Ordering::SeqCst) > 0 {
            self.failures_left.fetch_sub(1, Ordering::SeqCst);
            return Err(std::io::Error::other("no space left on device").into());
        }
        self.taken.lock().extend(batch.iter().map(|(recorded, _)| recorded.position));
        Ok(())
    }
}

#[tokio::test]
async fn a_view_that_cannot_be_written_is_tried_again_and_says_why() {
    let (_, log) = log();
    let position = register(&log, 1).await;
    let failures_left = Arc::new(AtomicUsize::new(usize::MAX));
    let taken = Arc::default();
    let view = Flaky { failures_left: Arc::clone(&failures_left), taken: Arc::clone(&taken), panics: false };
    let runner = Runner::start(log, view, FACTS);
    let follower = runner.follower().clone();
    eventually(|| follower.trouble().is_some_and(|trouble| trouble.contains("no space left"))).await;
    assert_eq!(follower.reached(), 0);
    failures_left.store(1, Ordering::SeqCst);
    assert!(follower.wait_for(position, PATIENCE).await);
    eventually(|| follower.trouble().is_none()).await;
    assert_eq!(*taken.lock(), vec![position], "the batch came again, and once it was taken it came no more");
    runner.stop().await;
}

#[tokio::test]
async fn a_view_that_panics_says_so_and_can_be_stopped() {
    let (_, log) = log();
    register(&log, 1).await;
    let view = Flaky { failures_left: Arc::default(), taken: Arc::default(), panics: true };
    let runner = Runner::start(log, view, FACTS);
    let follower = runner.follower().clone();
    eventually(|| follower.trouble().is_some_and(|trouble| trouble.contains("panicked"))).await;
    runner.stop().await;
}

#[tokio::test]
async fn a_runner_applies_in_batches_of_its_pace_and_in_order() {
    let (_, log) = log();
    let mut last = 0;
    for number in 0..25 {
        last = register(&log, number).await;
    }
    let taken = Arc::default();
    let view = Flaky { failures_left: Arc::default(), taken: Arc::clone(&taken), panics: false };
    let runner = Runner::start(log, view, Pace { batch: 4, linger: Duration::ZERO });
    assert!(runner.follower().wait_for(last, PATIENCE).await);
    assert_eq!(*taken.lock(), (1..=last).collect::<Vec<u64>>());
    runner.stop().await;
}

#[tokio::test]
async fn who_waits_is_not_kept_by_the_lingering_nor_is_who_stops() {
    let (_, log) = log();
    let view = Flaky { failures_left: Arc::default(), taken: Arc::default(), panics: false };
    let pace = Pace { batch: 100, linger: Duration::from_secs(3_600) };
    let runner = Runner::start(Arc::clone(&log), view, pace);
    for number in 0..3 {
        let position = register(&log, number).await;
        assert!(runner.follower().wait_for(position, PATIENCE).await);
    }
    register(&log, 3).await;
    tokio::time::timeout(PATIENCE, runner.stop()).await.expect("it lingers no longer than it is let");
}

async fn filled(folder: &Path, log: &SharedLog) {
    let mut position = 0;
    for number in 0..30 {
        register(log, number).await;
        position = visit(log).await;
    }
    let views = start(folder, log).await;
    assert!(views.wait_for_catalog(position, PATIENCE).await);
    assert!(views.wait_for_accesses(position, PATIENCE).await);
    views.stop().await;
}

fn verdict(equal: [bool; 2]) -> Vec<Checked> {
    let views = ["catalog", "accesses"].into_iter().zip(equal).chain([("audit", true), ("deliveries", true)]);
    views.map(|(view, equal)| Checked { view, equal }).collect()
}

#[tokio::test]
async fn a_rebuilt_view_equals_the_kept_one() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    filled(folder.path(), &log).await;
    assert_eq!(check(folder.path(), &log, &mut |_| {}).await.unwrap(), verdict([true, true]));
    let mut seen: Vec<Progress> = Vec::new();
    rebuild(folder.path(), &log, &mut |progress| seen.push(progress)).await.unwrap();
    let total = *log.head().borrow();
    assert_eq!(seen.last(), Some(&Progress { view: "deliveries", done: total, total }));
    assert_eq!(check(folder.path(), &log, &mut |_| {}).await.unwrap(), verdict([true, true]));
    let views = start(folder.path(), &log).await;
    assert_eq!((listed(&views), accesses(&views)), (30, 30));
    views.stop().await;
    let left: Vec<_> = std::fs::read_dir(views_dir(folder.path())).unwrap().collect();
    assert_eq!(left.len(), 4, "no folder is left over: {left:?}");
}

#[tokio::test]
async fn a_view_that_says_something_else_is_found_and_mended() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    register(&log, 1).await;
    let mut forged: Recorded = log.read_all(0, Families::ALL, 1).await.unwrap().remove(0);
    forged.data = registered(1, "desktop").encode().data.into();
    let mut catalog = Catalog::open(&views_dir(folder.path()).join("catalog"), log.log_id()).unwrap();
    catalog.apply(&[(forged.clone(), forged.event().ok())]).unwrap();
    drop(catalog);
    assert_eq!(check(folder.path(), &log, &mut |_| {}).await.unwrap(), verdict([false, true]));
    rebuild(folder.path(), &log, &mut |_| {}).await.unwrap();
    assert_eq!(check(folder.path(), &log, &mut |_| {}).await.unwrap(), verdict([true, true]));
}

#[tokio::test]
async fn a_rebuild_that_was_killed_leaves_nothing_that_disturbs() {
    let (folder, (_, log)) = (tempfile::tempdir().unwrap(), log());
    filled(folder.path(), &log).await;
    let views = views_dir(folder.path());
    // Killed between the two renames: the kept view is aside, the new one not in place.
    std::fs::rename(views.join("catalog"), views.join("catalog.old")).unwrap();
    std::fs::create_dir(views.join("catalog.new")).unwrap();
    let head = *log.head().borrow();
    let views = start(folder.path(), &log).await;
    assert!(views.wait_for_catalog(head, PATIENCE).await);
    assert_eq!(listed(&views), 30);
    views.stop().await;
}

#[tokio::test]
async fn a_closed_log_leaves_the_views_readable_and_stoppable() {
    let (folder, (memory, log)) = (tempfile::tempdir().unwrap(), log());
    let views = start(folder.path(), &log).await;
    let position = register(&log, 1).await;
    assert!(views.wait_for_catalog(position, PATIENCE).await);
    memory.close().await;
    assert_eq!(listed(&views), 1);
    views.stop().await;
}

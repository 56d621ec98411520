//! What is new is there for whoever keeps up, and nobody is told that it is there who has missed some of it.

use domain::recorded::Actor;
use uuid::Uuid;

use super::*;
use crate::event_log::{Append, Expected, NewEvent, memory::Memory};

fn workspace(n: u128) -> WorkspaceId {
    WorkspaceId::new(Uuid::from_u128(n))
}

async fn happens(log: &SharedLog, of: WorkspaceId, event_type: &'static str) -> u64 {
    let event = NewEvent {
        id: EventId::new(Uuid::now_v7()),
        event_type,
        version: 1,
        data: "{}".to_owned(),
        personal: None,
        causation: None,
    };
    let append = Append {
        stream: StreamName::parse("tunnel-of-somebody").unwrap(),
        expected: Expected::Any,
        workspace: of,
        actor: Actor::System("test".to_owned()),
        correlation: None,
        at: Timestamp::from_millis(1_000),
        events: vec![event],
    };
    log.append(append).await.unwrap().position
}

async fn visited(log: &SharedLog, of: WorkspaceId, count: u16) -> u64 {
    let access = access::Access {
        accessed_at: Timestamp::from_millis(1_000),
        method: "GET".to_owned(),
        status_code: 200,
        latency_ms: 1,
        bytes_in: 0,
        bytes_out: 1,
        denied: None,
        ended_by: None,
        running: false,
        repeat: None,
    };
    let share = ShareId::new(Uuid::from_u128(5));
    let accessed = access::ShareAccessed {
        share_id: share,
        tunnel_id: domain::ids::TunnelId::new(Uuid::from_u128(6)),
        accesses: vec![access; count.into()],
        completions: vec![],
    };
    let encoded = Event::Access(access::Event::Accessed(accessed)).encode();
    let append = Append {
        stream: StreamName::accesses(share, Uuid::from_u128(3)),
        expected: Expected::Any,
        workspace: of,
        actor: Actor::System("test".to_owned()),
        correlation: None,
        at: Timestamp::from_millis(1_000),
        events: vec![NewEvent {
            id: EventId::new(Uuid::now_v7()),
            event_type: encoded.event_type,
            version: encoded.version,
            data: encoded.data,
            personal: None,
            causation: None,
        }],
    };
    log.append(append).await.unwrap().position
}

fn new() -> (SharedLog, Arc<Recent>) {
    let log: SharedLog = Arc::new(Memory::new());
    (log.clone(), Arc::new(Recent::new(log)))
}

fn places(page: Option<Page<Fact>>) -> Option<(Vec<u64>, u64)> {
    page.map(|page| (page.items.iter().map(|it| it.position).collect(), page.to))
}

#[tokio::test]
async fn each_workspace_gets_its_own_public_facts_and_only_news_of_its_own_wake_it() {
    let (log, recent) = new();
    let (mut one, mut two) = (recent.seat(workspace(1)), recent.seat(workspace(2)));
    happens(&log, workspace(1), "tunnel.created").await;
    happens(&log, workspace(3), "tunnel.created").await;
    happens(&log, workspace(1), "claim.taken").await;
    happens(&log, workspace(1), "tunnel.paused").await;
    recent.read_on().await.unwrap();
    assert_eq!(places(one.facts(0, 10)), Some((vec![1, 4], 4)));
    assert_eq!(places(one.facts(0, 1)), Some((vec![1], 1)), "there is more");
    assert_eq!(places(one.facts(1, 10)), Some((vec![4], 4)));
    assert_eq!(places(two.facts(0, 10)), Some((vec![], 4)));
    assert!(one.news.has_changed().unwrap() && !two.news.has_changed().unwrap());
    one.news.mark_unchanged();
    happens(&log, workspace(2), "tunnel.paused").await;
    recent.read_on().await.unwrap();
    assert!(!one.news.has_changed().unwrap() && two.news.has_changed().unwrap());
    two.news.mark_unchanged();
    assert_eq!(places(one.facts(9, 10)), Some((vec![], 9)), "nobody is sent back");
}

#[tokio::test]
async fn whoever_came_late_or_is_too_far_behind_is_told_that_something_is_missing() {
    let (log, recent) = new();
    happens(&log, workspace(1), "tunnel.created").await;
    recent.read_on().await.unwrap();
    let seat = recent.seat(workspace(1));
    assert_eq!(seat.facts(0, 10), None, "what was before nobody kept");
    assert_eq!(places(seat.facts(1, 10)), Some((vec![], 1)));
    for _ in 0..KEPT_OF_ONE_MAX + 5 {
        happens(&log, workspace(1), "tunnel.paused").await;
    }
    recent.read_on().await.unwrap();
    assert_eq!(seat.facts(5, 10), None, "it was too much to keep");
    assert_eq!(places(seat.facts(6, 2)), Some((vec![7, 8], 8)));
    // A lane that somebody left begins anew.
    drop(seat);
    let seat = recent.seat(workspace(1));
    assert_eq!(seat.facts(6, 2), None);
}

#[tokio::test]
async fn accesses_are_read_once_somebody_asks_for_them() {
    let (log, recent) = new();
    let seat = recent.seat(workspace(1));
    visited(&log, workspace(1), 3).await;
    recent.read_on().await.unwrap();
    assert_eq!(seat.visits(0, 10), None, "nobody had asked");
    visited(&log, workspace(2), 1).await;
    let position = visited(&log, workspace(1), 2).await;
    visited(&log, workspace(1), 0).await;
    recent.read_on().await.unwrap();
    let page = seat.visits(1, 10).unwrap();
    assert_eq!((page.items.len(), page.to), (1, 4), "what only completes says nothing new");
    assert_eq!((page.items[0].position, page.items[0].count), (position, 2));
    // Asked for in the middle of a look without them: what that look passed is missing.
    let (log, recent) = new();
    let seat = recent.seat(workspace(1));
    visited(&log, workspace(1), 3).await;
    let facts = Families::only(Family::Facts);
    assert_eq!(seat.visits(0, 10).map(|page| page.to), Some(0));
    recent.sort(&[], 1, facts);
    assert_eq!(seat.visits(0, 10), None);
}

//! A log's format goes up a day after an upgrade, or when somebody says so, and then newer shapes are written.

use std::{path::Path, sync::Arc};

use domain::{
    event::Event,
    ids::TunnelId,
    log_format::{FIRST, GRACE_MS, NEWEST},
    names::Name,
    node::{self, NodeStarted},
    recorded::StreamName,
    target::{Protocol, Target},
    tunnel::{self, Finding, HealthConfigured, ServiceUnhealthy, Step, TunnelCreated},
};
use hub::{
    actors::Who,
    clock::{Clock as _, SetClock},
    core::Core,
    operator::{Order, execute},
    upgrade::Upgrade,
};
use uuid::Uuid;

use crate::support::{NOW, put};

async fn open(data: &Path, clock: &Arc<SetClock>) -> Core {
    Core::open_at(data, None, "hub-1", clock.clone()).await.unwrap()
}

/// The hub starts, as a release that reads up to a format.
async fn start(core: &Core, boot: u128, reads: u16) {
    let started = NodeStarted {
        node: "hub-1".to_owned(),
        boot: Uuid::from_u128(boot),
        version: "0.0.0".to_owned(),
        reads_format: (reads > FIRST).then_some(reads),
    };
    core.executor.node("hub-1", Who::system("test"), node::Command::Start(started)).await.unwrap();
}

/// A service that is watched and found unwell; answers the version that this was written in, and what is read of it.
async fn unwell(core: &Core, number: u128) -> (u16, Event) {
    let workspace = match core.workspace_named("acme") {
        Some(id) => id,
        None => core.create_workspace("acme").await.unwrap(),
    };
    let (id, who) = (TunnelId::new(Uuid::from_u128(number)), Who::hub(workspace, "test"));
    let created = TunnelCreated {
        tunnel_id: id,
        workspace_id: workspace,
        agent_id: domain::ids::AgentId::new(Uuid::from_u128(1)),
        name: Name::parse("web").unwrap(),
        target: Target { host: "localhost".to_owned(), port: 80 },
        protocol: Protocol::Http,
        is_public: false,
        tunnel_port: 10_000,
        expires_at: None,
    };
    for command in [
        tunnel::Command::Create { tunnel: created, now: core.clock.now() },
        tunnel::Command::ConfigureHealth(HealthConfigured { enabled: true, interval_seconds: 60 }),
        tunnel::Command::Find(Finding::Unhealthy { step: Some(Step::Tcp), reason: "refused".to_owned() }),
    ] {
        core.executor.tunnel(id, who.clone(), command).await.unwrap();
    }
    let last = core.log.read_stream(&StreamName::tunnel(id), 3, 1).await.unwrap().remove(0);
    assert_eq!(&*last.event_type, "service.unhealthy");
    (last.version, last.event().unwrap())
}

fn found() -> Event {
    let found = ServiceUnhealthy { step: Some(Step::Tcp), reason: "refused".to_owned() };
    Event::Tunnel(tunnel::Event::Unhealthy(found))
}

#[actix::test]
async fn a_day_after_an_upgrade_newer_shapes_are_written_and_both_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (data, clock) = (dir.path().join("data"), SetClock::at(NOW));
    let core = open(&data, &clock).await;
    start(&core, 1, FIRST).await;
    clock.advance_ms(GRACE_MS);
    start(&core, 2, NEWEST).await;
    assert_eq!(unwell(&core, 10).await, (1, found()), "one could go back");
    let upgrade = Upgrade::of(&core);
    clock.advance_ms(GRACE_MS - 1);
    assert_eq!((upgrade.look().await, core.routes.log_format().format()), (Ok(false), FIRST));
    clock.advance_ms(1);
    assert_eq!((upgrade.look().await, core.routes.log_format().format()), (Ok(true), NEWEST));
    assert_eq!(unwell(&core, 11).await, (2, found()));
    core.close().await;
    drop((upgrade, core));
    // What the log says, a start reads.
    let core = open(&data, &clock).await;
    assert_eq!(core.routes.log_format().format(), NEWEST);
    for number in [10, 11] {
        let health = core.routes.tunnel(TunnelId::new(Uuid::from_u128(number))).unwrap();
        let finding = health.state.open().unwrap().health.finding.clone();
        let expected = Finding::Unhealthy { step: Some(Step::Tcp), reason: "refused".to_owned() };
        assert_eq!(finding, Some(expected));
    }
    core.close().await;
}

#[actix::test]
async fn whoever_goes_back_to_the_release_before_puts_it_off() {
    let dir = tempfile::tempdir().unwrap();
    let (data, clock) = (dir.path().join("data"), SetClock::at(NOW));
    let core = open(&data, &clock).await;
    let upgrade = Upgrade::of(&core);
    assert_eq!(upgrade.due().await.unwrap(), None, "nobody has started it");
    start(&core, 1, NEWEST).await;
    clock.advance_ms(GRACE_MS / 2);
    start(&core, 2, FIRST).await;
    clock.advance_ms(GRACE_MS);
    assert_eq!(upgrade.look().await, Ok(false));
    start(&core, 3, NEWEST).await;
    let due = clock.now().plus_ms(GRACE_MS);
    clock.advance_ms(GRACE_MS / 2);
    start(&core, 4, NEWEST).await;
    assert_eq!(upgrade.due().await.unwrap(), Some(due), "restarts do not put it off");
    // Another node of the same log is an older release.
    let older =
        "{\"node\":\"hub-2\",\"boot\":\"00000000-0000-0000-0000-000000000009\",\"version\":\"0.0.0\"}";
    put(&core, domain::recorded::SYSTEM_WORKSPACE, StreamName::node("hub-2"), "node.started", 1, older).await;
    core.close().await;
    drop((upgrade, core));
    let core = open(&data, &clock).await;
    assert_eq!(Upgrade::of(&core).due().await.unwrap(), None);
    core.close().await;
}

#[actix::test]
async fn the_operator_asks_how_it_stands_and_need_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (data, clock) = (dir.path().join("data"), SetClock::at(NOW));
    let core = open(&data, &clock).await;
    start(&core, 1, NEWEST).await;
    let told = async |finish| execute(&core, &Order::Upgrade { finish }).await.unwrap().join("\n");
    let waiting = told(false).await;
    for part in ["of format 1", &NOW.plus_ms(GRACE_MS).to_string(), "--finish"] {
        assert!(waiting.contains(part), "{part} in {waiting}");
    }
    let head = *core.log.head().borrow();
    for _ in 0..2 {
        let done = told(true).await;
        assert!(done.contains(&format!("[ok] the event log is of format {NEWEST}")), "{done}");
    }
    assert_eq!(*core.log.head().borrow(), head + 1, "raised once");
    assert_eq!(unwell(&core, 10).await, (2, found()));
    core.close().await;
}

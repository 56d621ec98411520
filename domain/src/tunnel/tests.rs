//! What a tunnel accepts and refuses, as given, when, then.

use super::*;
use crate::testing::{Given, at, given, id, name};

fn prod_db() -> TunnelCreated {
    TunnelCreated {
        tunnel_id: id(2),
        workspace_id: id(7),
        agent_id: id(1),
        name: name("prod-db"),
        target: Target { host: "localhost".to_owned(), port: 5432 },
        protocol: Protocol::Tcp,
        is_public: false,
        tunnel_port: 10_007,
        expires_at: Some(at(3_600)),
    }
}
fn web() -> TunnelCreated {
    TunnelCreated {
        name: name("web"),
        target: Target { host: "localhost".to_owned(), port: 3000 },
        protocol: Protocol::Http,
        ..prod_db()
    }
}
fn create(tunnel: TunnelCreated) -> Command {
    Command::Create { tunnel, now: at(0) }
}
fn mark_connected(session: u128) -> Command {
    Command::MarkConnected { session_id: id(session) }
}
fn connected(session: u128) -> Event {
    Event::Connected(TunnelConnected { session_id: id(session) })
}
fn mark(outage: Outage) -> Command {
    Command::MarkDisconnected { outage }
}
fn session_ended(session: u128) -> Command {
    Command::SessionEnded { session_id: id(session) }
}
fn disconnected(outage: Outage) -> Event {
    Event::Disconnected(TunnelDisconnected { outage })
}
fn unreachable() -> Outage {
    Outage::TargetUnreachable("connection refused".to_owned())
}
fn refused() -> Outage {
    Outage::TargetRefused("not on the list of allowed targets".to_owned())
}
fn delete() -> Command {
    Command::Delete { reason: DeleteReason::Requested }
}
fn deleted() -> Event {
    Event::Deleted(TunnelDeleted { reason: DeleteReason::Requested })
}
fn expire(now: i64) -> Command {
    Command::Expire { now: at(now) }
}
fn paused() -> Event {
    Event::Paused(TunnelPaused {})
}
fn unknown() -> Given<Tunnel> {
    given([])
}
fn waiting() -> Given<Tunnel> {
    given([Event::Created(prod_db())])
}
fn active() -> Given<Tunnel> {
    waiting().and([connected(11)])
}
fn failed() -> Given<Tunnel> {
    waiting().and([disconnected(unreachable())])
}
fn closed() -> Given<Tunnel> {
    active().and([deleted()])
}
fn condition(tunnel: &Given<Tunnel>) -> Condition {
    tunnel.state().open().expect("an open tunnel").condition.clone()
}

#[test]
fn an_unknown_tunnel_can_only_be_created() {
    for command in [
        Command::Update(TunnelUpdated::default()),
        mark_connected(11),
        mark(unreachable()),
        session_ended(11),
        Command::Pause,
        Command::Resume,
        expire(9_999),
        delete(),
    ] {
        unknown().when(command).then_rejected(&Rejection::TunnelUnknown);
    }
    let after = unknown().when(create(prod_db())).then([Event::Created(prod_db())]);
    assert_eq!(condition(&after), Condition::Connecting);
}

#[test]
fn the_same_creation_again_changes_nothing_whatever_happened_since() {
    let renamed = TunnelUpdated {
        name: Some(name("production-database")),
        target: Some(Target { host: "db".to_owned(), port: 5432 }),
        ..TunnelUpdated::default()
    };
    for state in [waiting(), active().and([Event::Updated(renamed)]), failed(), closed()] {
        state.when(create(prod_db())).then_nothing();
    }
}

#[test]
fn a_repeated_creation_may_have_been_allotted_another_name_and_port() {
    let again = TunnelCreated { name: name("postgres-2"), tunnel_port: 10_008, ..prod_db() };
    let after = waiting().when(create(again)).then_nothing();
    let details = after.state().open().unwrap();
    assert_eq!((details.created.name.clone(), details.created.tunnel_port), (name("prod-db"), 10_007));
}

#[test]
fn creating_it_again_differently_is_refused() {
    for other in [
        TunnelCreated { tunnel_id: id(3), ..prod_db() },
        TunnelCreated { workspace_id: id(8), ..prod_db() },
        TunnelCreated { agent_id: id(9), ..prod_db() },
        TunnelCreated { target: web().target, ..prod_db() },
        TunnelCreated { expires_at: None, ..prod_db() },
    ] {
        waiting().when(create(other.clone())).then_rejected(&Rejection::TunnelExists);
        closed().when(create(other)).then_rejected(&Rejection::TunnelExists);
    }
}

#[test]
fn a_tunnel_that_would_be_over_already_is_refused() {
    for expires in [-1, 0] {
        let tunnel = TunnelCreated { expires_at: Some(at(expires)), ..prod_db() };
        unknown().when(create(tunnel)).then_rejected(&Rejection::ExpiryPast);
    }
}

#[test]
fn a_database_is_never_published_neither_at_once_nor_later() {
    let protected = Rejection::ProtectedPort { port: 5432, engine: "PostgreSQL" };
    unknown().when(create(TunnelCreated { is_public: true, ..prod_db() })).then_rejected(&protected);
    let publish = TunnelUpdated { is_public: Some(true), ..TunnelUpdated::default() };
    waiting().when(Command::Update(publish.clone())).then_rejected(&protected);
    // Nor by leading a public tunnel to it.
    let move_there = TunnelUpdated { target: Some(prod_db().target), ..TunnelUpdated::default() };
    given::<Tunnel>([Event::Created(web())])
        .when(Command::Update(publish.clone()))
        .then([Event::Updated(publish)])
        .when(Command::Update(move_there))
        .then_rejected(&protected);
}

#[test]
fn every_protected_port_is_refused_by_name() {
    for (port, engine) in [
        (5432, "PostgreSQL"),
        (3306, "MySQL"),
        (27017, "MongoDB"),
        (6379, "Redis"),
        (6380, "Redis"),
        (26257, "CockroachDB"),
        (9042, "Cassandra"),
        (8529, "ArangoDB"),
        (7687, "Neo4j"),
        (1433, "SQL Server"),
        (1521, "Oracle"),
        (50000, "DB2"),
    ] {
        assert_eq!(check_publishable(port, true), Err(Rejection::ProtectedPort { port, engine }));
        assert_eq!(check_publishable(port, false), Ok(()));
    }
    assert_eq!(check_publishable(5433, true), Ok(()));
}

#[test]
fn an_update_records_only_what_differs() {
    let asked = TunnelUpdated {
        name: Some(name("prod-db")),
        protocol: Some(Protocol::Auto),
        metadata: Some(Metadata::from([("team".to_owned(), "core".into())])),
        ..TunnelUpdated::default()
    };
    let event = TunnelUpdated { name: None, ..asked.clone() };
    let after = active()
        .when(Command::Update(asked.clone()))
        .then([Event::Updated(event)])
        .when(Command::Update(asked))
        .then_nothing();
    assert_eq!(after.state().open().unwrap().metadata["team"], "core");
    assert_eq!(condition(&after), Condition::Connected(id(11)));
    active().when(Command::Update(TunnelUpdated::default())).then_nothing();
}

#[test]
fn a_tunnel_that_leads_elsewhere_waits_for_its_agent_again() {
    for update in [
        TunnelUpdated { agent_id: Some(id(9)), ..TunnelUpdated::default() },
        TunnelUpdated { target: Some(web().target), ..TunnelUpdated::default() },
    ] {
        let after = active().when(Command::Update(update.clone())).then([Event::Updated(update)]);
        assert_eq!(condition(&after), Condition::Connecting);
    }
}

#[test]
fn metadata_has_a_limit() {
    // The empty value takes 8 bytes: {"k":""}.
    let metadata = |bytes: usize| Metadata::from([("k".to_owned(), "x".repeat(bytes - 8).into())]);
    let update = |bytes| TunnelUpdated { metadata: Some(metadata(bytes)), ..TunnelUpdated::default() };
    let fits = update(METADATA_BYTES_MAX);
    waiting().when(Command::Update(fits.clone())).then([Event::Updated(fits)]);
    let bytes = METADATA_BYTES_MAX + 1;
    waiting().when(Command::Update(update(bytes))).then_rejected(&Rejection::MetadataTooLarge { bytes });
}

#[test]
fn a_session_confirms_a_tunnel_once() {
    for state in [waiting(), failed(), waiting().and([connected(10)])] {
        state.when(mark_connected(11)).then([connected(11)]).when(mark_connected(11)).then_nothing();
    }
}

#[test]
fn an_outage_is_recorded_when_it_is_news() {
    let offline = || Outage::AgentDisconnected;
    waiting().when(mark(offline())).then_nothing();
    active().when(mark(offline())).then([disconnected(offline())]).when(mark(offline())).then_nothing();
    for state in [waiting(), active(), failed().and([disconnected(refused())])] {
        let after = state
            .when(mark(unreachable()))
            .then([disconnected(unreachable())])
            .when(mark(unreachable()))
            .then_nothing();
        assert_eq!(condition(&after), Condition::Failed(unreachable()));
    }
    let after = failed().when(mark(offline())).then([disconnected(offline())]);
    assert_eq!(condition(&after), Condition::Connecting);
}

#[test]
fn the_end_of_an_old_session_says_nothing_about_a_tunnel_that_a_newer_one_serves() {
    let offline = Outage::AgentDisconnected;
    active().when(session_ended(11)).then([disconnected(offline)]).when(session_ended(11)).then_nothing();
    active().and([connected(12)]).when(session_ended(11)).then_nothing();
    for state in [waiting(), failed(), closed()] {
        state.when(session_ended(11)).then_nothing();
    }
}

#[test]
fn pausing_and_resuming_happen_when_they_change_something() {
    let after = active().when(Command::Resume).then_nothing().when(Command::Pause).then([paused()]);
    assert!(after.state().open().unwrap().paused);
    assert_eq!(condition(&after), Condition::Connected(id(11)), "a paused tunnel keeps its connection");
    let after = after
        .when(Command::Pause)
        .then_nothing()
        .when(Command::Resume)
        .then([Event::Resumed(TunnelResumed {})])
        .when(Command::Resume)
        .then_nothing();
    assert!(!after.state().open().unwrap().paused);
}

#[test]
fn what_is_changed_together_is_recorded_together_or_not_at_all() {
    let rename = TunnelUpdated { name: Some(name("production-database")), ..TunnelUpdated::default() };
    let change = |update: &TunnelUpdated, switch| Command::Change { update: update.clone(), switch };
    let after = active()
        .when(change(&rename, Some(Switch::Pause)))
        .then([Event::Updated(rename.clone()), paused()])
        .when(change(&rename, Some(Switch::Pause)))
        .then_nothing()
        .when(change(&TunnelUpdated::default(), Some(Switch::Resume)))
        .then([Event::Resumed(TunnelResumed {})]);
    let details = after.state().open().unwrap();
    assert_eq!((details.created.name.clone(), details.paused), (name("production-database"), false));
    active().when(change(&rename, None)).then([Event::Updated(rename.clone())]);
    // What may not be changed is not paused on the way.
    let publish = TunnelUpdated { is_public: Some(true), ..rename.clone() };
    let protected = Rejection::ProtectedPort { port: 5432, engine: "PostgreSQL" };
    active().when(change(&publish, Some(Switch::Pause))).then_rejected(&protected);
    closed().when(change(&rename, Some(Switch::Pause))).then_rejected(&Rejection::TunnelUnknown);
}

#[test]
fn what_was_published_before_its_port_was_protected_can_still_be_paused_and_renamed() {
    let published = given::<Tunnel>([Event::Created(TunnelCreated { is_public: true, ..prod_db() })]);
    let rename = TunnelUpdated { name: Some(name("old-db")), ..TunnelUpdated::default() };
    published
        .when(Command::Pause)
        .then([paused()])
        .when(Command::Update(rename.clone()))
        .then([Event::Updated(rename)]);
}

#[test]
fn a_tunnel_expires_when_its_time_is_over_and_not_before() {
    active().when(expire(3_599)).then_rejected(&Rejection::NotDue);
    let after = active()
        .when(expire(3_600))
        .then([Event::Expired(TunnelExpired {})])
        .when(expire(3_600))
        .then_nothing();
    assert!(after.state().open().is_none());
    let for_ever = TunnelCreated { expires_at: None, ..prod_db() };
    given::<Tunnel>([Event::Created(for_ever)]).when(expire(9_999_999)).then_rejected(&Rejection::NotDue);
}

#[test]
fn a_deleted_tunnel_stays_deleted_and_late_news_about_it_is_no_error() {
    for state in [waiting(), active(), failed(), active().and([paused()])] {
        state.when(delete()).then([deleted()]).when(delete()).then_nothing();
    }
    for command in [expire(9_999), mark(Outage::AgentDisconnected), session_ended(11)] {
        closed().when(command).then_nothing();
    }
    for command in
        [Command::Update(TunnelUpdated::default()), mark_connected(12), Command::Pause, Command::Resume]
    {
        closed().when(command).then_rejected(&Rejection::TunnelUnknown);
    }
}

fn watched(enabled: bool, interval_seconds: u32) -> HealthConfigured {
    HealthConfigured { enabled, interval_seconds }
}
fn unhealthy(reason: &str) -> Finding {
    Finding::Unhealthy { step: Some(Step::Tcp), reason: reason.to_owned() }
}

#[test]
fn a_service_is_watched_every_10_seconds_to_an_hour() {
    for (interval, is_good) in [(9, false), (10, true), (3_600, true), (3_601, false)] {
        let command = Command::ConfigureHealth(watched(true, interval));
        if is_good {
            let configured = Event::HealthConfigured(watched(true, interval));
            active().when(command.clone()).then([configured]).when(command).then_nothing();
        } else {
            active().when(command).then_rejected(&Rejection::IntervalRange);
        }
    }
}

#[test]
fn only_a_change_of_health_is_a_fact() {
    let down = || Event::Unhealthy(ServiceUnhealthy { step: Some(Step::Tcp), reason: "refused".to_owned() });
    let after = active()
        .and([Event::HealthConfigured(watched(true, 30))])
        .when(Command::Find(Finding::Healthy))
        .then([Event::Healthy(ServiceHealthy {})])
        .when(Command::Find(Finding::Healthy))
        .then_nothing()
        .when(Command::Find(unhealthy("refused")))
        .then([down()])
        .when(Command::Find(unhealthy("no answer")))
        .then_nothing();
    assert_eq!(after.state().open().unwrap().health.finding, Some(unhealthy("refused")));
}

#[test]
fn nothing_is_found_about_a_service_that_nobody_watches() {
    active().when(Command::Find(Finding::Healthy)).then_nothing();
    let off = [Event::HealthConfigured(watched(true, 30)), Event::Healthy(ServiceHealthy {})];
    let off = active().and(off).and([Event::HealthConfigured(watched(false, 30))]);
    assert_eq!(off.state().open().unwrap().health.finding, None, "what was known then says nothing now");
    off.when(Command::Find(unhealthy("refused"))).then_nothing();
}

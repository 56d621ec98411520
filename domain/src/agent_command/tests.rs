//! What a command goes through, as given, when, then.

use super::*;
use crate::testing::{Given, at, given, id, name};

const ENDS: i64 = 600;

fn restart() -> CommandQueued {
    CommandQueued {
        command_id: id(1),
        workspace_id: id(7),
        agent_id: id(2),
        order: Order::Restart,
        expires_at: at(ENDS),
    }
}
fn queue(command: CommandQueued) -> Command {
    Command::Queue { command, now: at(0) }
}
fn deliver(session: u128) -> Command {
    Command::Deliver { session_id: id(session) }
}
fn done() -> Outcome {
    Outcome::Done { result: serde_json::json!({ "epoch": 2 }) }
}
fn finish(outcome: Outcome) -> Command {
    Command::Finish { outcome }
}
fn delivered(session: u128) -> Event {
    Event::Delivered(CommandDelivered { session_id: id(session) })
}
fn finished(outcome: Outcome) -> Event {
    Event::Finished(CommandFinished { outcome })
}
fn expired() -> Event {
    Event::Expired(CommandExpired {})
}
fn expire(seconds: i64) -> Command {
    Command::Expire { now: at(seconds) }
}
fn waiting() -> Given<AgentCommand> {
    given([Event::Queued(restart())])
}

#[test]
fn a_command_is_queued_once_and_its_id_means_nothing_else() {
    given::<AgentCommand>([])
        .when(queue(restart()))
        .then([Event::Queued(restart())])
        .when(queue(restart()))
        .then_nothing()
        .when(queue(CommandQueued { order: Order::Stop, ..restart() }))
        .then_rejected(&Rejection::CommandExists);
}

#[test]
fn a_command_that_has_expired_before_it_begins_is_refused() {
    let late = CommandQueued { expires_at: at(0), ..restart() };
    given::<AgentCommand>([]).when(queue(late)).then_rejected(&Rejection::ExpiryPast);
}

#[test]
fn what_was_never_queued_is_unknown() {
    for command in [deliver(3), finish(done()), expire(ENDS)] {
        given::<AgentCommand>([]).when(command).then_rejected(&Rejection::CommandUnknown);
    }
}

#[test]
fn a_command_is_delivered_once_and_finished_once() {
    waiting()
        .when(deliver(3))
        .then([delivered(3)])
        // Sent again to the agent's next session.
        .when(deliver(4))
        .then_nothing()
        .when(finish(done()))
        .then([finished(done())])
        .when(finish(Outcome::Failed { code: "late".to_owned(), message: String::new() }))
        .then_nothing()
        .when(expire(9_999))
        .then_nothing();
}

#[test]
fn a_result_without_a_receipt_is_a_result() {
    waiting().when(finish(done())).then([finished(done())]);
}

#[test]
fn a_command_nobody_took_expires_at_its_time_and_not_before() {
    waiting()
        .when(expire(ENDS - 1))
        .then_rejected(&Rejection::NotDue)
        .when(expire(ENDS))
        .then([expired()])
        .when(expire(ENDS))
        .then_nothing()
        .when(deliver(3))
        .then_nothing();
}

#[test]
fn what_the_agent_did_is_a_fact_although_the_command_had_expired() {
    waiting().and([expired()]).when(finish(done())).then([finished(done())]);
}

#[test]
fn a_command_that_was_taken_and_never_answered_fails_in_the_end() {
    let taken = waiting().and([delivered(3)]);
    assert_eq!(taken.state().due_at(), Some(at(ENDS).plus_ms(ANSWER_GRACE_MS)));
    let judged = taken.when(expire(ENDS)).then_rejected(&Rejection::NotDue);
    let late = expire(ENDS + ANSWER_GRACE_MS / 1_000);
    let events = judged.state().decide(&late).unwrap();
    let [Event::Finished(CommandFinished { outcome: Outcome::Failed { code, .. } })] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(code, "no_answer");
}

#[test]
fn an_order_is_spelled_for_ever() {
    let target = Target { host: "localhost".to_owned(), port: 3000 };
    let expose = Order::Expose { target, name: Some(name("web")), protocol: Protocol::Auto };
    let reach =
        Order::Reach { tunnel_id: id(5), service: name("prod-db"), protocol: Protocol::Tcp, port: 15_432 };
    for (order, spelled) in [
        (Order::Restart, r#"{"action":"restart"}"#),
        (Order::Stop, r#"{"action":"stop"}"#),
        (Order::Status, r#"{"action":"status"}"#),
        (
            expose,
            r#"{"action":"expose","params":{"target":{"host":"localhost","port":3000},"name":"web","protocol":"auto"}}"#,
        ),
        (
            reach,
            r#"{"action":"reach","params":{"tunnelId":"tun_01955a3ce00070008000000000000005","service":"prod-db","protocol":"tcp","port":15432}}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&order).unwrap(), spelled);
        assert_eq!(serde_json::from_str::<Order>(spelled).unwrap(), order);
    }
}

//! Commands over the wire: told again until their end is known, and only their own agent's word counts.

use domain::{
    agent_command::{self, CommandQueued, Order, Outcome, Progress},
    ids::CommandId,
    time::Timestamp,
};
use schemas::frames::{CommandEnded, CommandFailure, CommandOrdered, CommandOutcome, CommandTaken};

use super::*;

async fn queued(hub: &Rig, agent: &Known) -> CommandId {
    let id = CommandId::new(Uuid::now_v7());
    let command = CommandQueued {
        command_id: id,
        workspace_id: agent.workspace,
        agent_id: agent.id,
        order: Order::Status,
        expires_at: Timestamp::from_millis(4_102_444_800_000),
    };
    let command = agent_command::Command::Queue { command, now: Timestamp::from_millis(0) };
    hub.executor.command(id, Who::hub(agent.workspace, "test"), command).await.unwrap();
    hub.gateway.order(id);
    id
}

fn progress(hub: &Rig, id: CommandId) -> Progress {
    hub.routes.command(id).unwrap().state.progress.clone()
}

async fn ordered(raw: &mut Raw) -> CommandOrdered {
    loop {
        match raw.next_but_pings().await {
            Some(Frame::CommandOrdered(ordered)) => return ordered,
            Some(_) => {}
            None => panic!("the session has ended"),
        }
    }
}

#[test]
fn a_command_is_told_at_each_session_until_its_end_is_known() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let id = queued(hub, &agent).await;
        let number = id.uuid().as_u128();
        let (mut raw, _) = Raw::session(hub, &agent).await;
        let expected = CommandOrdered { command: number, order: r#"{"action":"status"}"#.to_owned() };
        assert_eq!(ordered(&mut raw).await, expected);
        raw.send(&Frame::CommandTaken(CommandTaken { command: number })).await;
        eventually("it was delivered", || progress(hub, id) == Progress::Delivered).await;
        drop(raw);
        eventually("the agent is gone", || !hub.gateway.is_connected(agent.id)).await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        assert_eq!(ordered(&mut raw).await, expected, "its end is not known");
        let outcome = CommandOutcome::Done(r#"{"fine":true}"#.to_owned());
        // The last words of an agent that leaves count.
        raw.send(&Frame::CommandEnded(CommandEnded { command: number, outcome })).await;
        raw.send(&Frame::Goodbye(Goodbye {
            code: GoodbyeCode::Leaving,
            message: String::new(),
            retry_after_ms: 0,
        }))
        .await;
        let done = Progress::Finished(Outcome::Done { result: serde_json::json!({ "fine": true }) });
        eventually("it is done", || progress(hub, id) == done).await;
        eventually("the agent is gone", || !hub.gateway.is_connected(agent.id)).await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        let next = queued(hub, &agent).await;
        assert_eq!(ordered(&mut raw).await.command, next.uuid().as_u128(), "the first is not told again");
    });
}

#[test]
fn an_agent_speaks_of_its_own_commands_only_and_of_each_end_once() {
    with_hub(GatewaySettings::default(), async |hub| {
        let (victim, liar) = (hub.lone_agent().await, hub.lone_agent().await);
        let beside = hub.agent_beside(&victim).await;
        let (theirs, own) = (queued(hub, &victim).await, queued(hub, &beside).await);
        let failed = |code: &str| {
            CommandOutcome::Failed(CommandFailure { code: code.to_owned(), message: "x".repeat(9_999) })
        };
        for agent in [&liar, &beside] {
            let (mut raw, _) = Raw::session(hub, agent).await;
            for command in [theirs.uuid().as_u128(), 7] {
                raw.send(&Frame::CommandTaken(CommandTaken { command })).await;
                raw.send(&Frame::CommandEnded(CommandEnded { command, outcome: failed("lie") })).await;
            }
            for code in ["first", "second"] {
                let command = own.uuid().as_u128();
                raw.send(&Frame::CommandEnded(CommandEnded { command, outcome: failed(code) })).await;
            }
            // An answer to a ping: everything before it was heard.
            raw.send(&Frame::Ping(Ping { nonce: 7 })).await;
            while raw.next().await != Some(Frame::Pong(Pong { nonce: 7 })) {}
            if agent.id == beside.id {
                eventually("its own has ended", || progress(hub, own) != Progress::Queued).await;
            }
        }
        assert_eq!(progress(hub, theirs), Progress::Queued);
        let Progress::Finished(Outcome::Failed { code, message }) = progress(hub, own) else { panic!() };
        assert_eq!((code.as_str(), message.len()), ("first", 500), "words are kept up to a length");
    });
}

#[test]
fn a_result_that_is_no_json_or_too_long_is_said_to_be_so() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        for json in ["{".to_owned(), format!("\"{}\"", "x".repeat(agent_command::RESULT_BYTES_MAX))] {
            let id = queued(hub, &agent).await;
            let ended = CommandEnded { command: id.uuid().as_u128(), outcome: CommandOutcome::Done(json) };
            raw.send(&Frame::CommandEnded(ended)).await;
            eventually("it has ended", || progress(hub, id) != Progress::Queued).await;
            let Progress::Finished(Outcome::Failed { code, .. }) = progress(hub, id) else { panic!() };
            assert_eq!(code, "result_unreadable");
        }
    });
}

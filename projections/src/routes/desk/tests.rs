//! Events in, what waits for agents out.

use std::collections::BTreeMap;

use domain::{agent, agent_command, ids::SessionId, message};

use crate::{
    histories::{World, agent_id, command_id, message_id, name, workspace_id},
    routes::tests::{keeping, read_all, routes_of, shared},
};

#[test]
fn a_command_waits_for_its_agent_until_it_has_ended() {
    let mut world = shared();
    for number in [1, 2] {
        world.queue_command(number, 2, 60_000);
    }
    let waiting = |world: &World| -> Vec<_> {
        routes_of(world).pending_commands(agent_id(2)).into_iter().map(|(id, _)| id).collect()
    };
    assert_eq!(waiting(&world), [command_id(1), command_id(2)], "the oldest first");
    world.command(
        1,
        2,
        &agent_command::Command::Deliver { session_id: SessionId::new(crate::histories::id(1)) },
    );
    assert_eq!(waiting(&world).len(), 2, "its end is not known yet");
    let outcome = agent_command::Outcome::Done { result: serde_json::Value::Null };
    world.command(1, 2, &agent_command::Command::Finish { outcome });
    assert_eq!(waiting(&world), [command_id(2)]);
    world.now_ms += 60_000;
    world.command(2, 2, &agent_command::Command::Expire { now: world.now() });
    assert_eq!(waiting(&world), []);
    assert!(routes_of(&world).command(command_id(1)).is_some(), "what ended lately is still answered");
}

#[test]
fn what_is_said_of_a_command_that_has_left_does_not_bring_half_of_it_back() {
    let mut world = shared();
    for number in [1, 2] {
        world.queue_command(number, 2, 60_000);
    }
    world.now_ms += 60_000;
    for number in [1, 2] {
        world.command(number, 2, &agent_command::Command::Expire { now: world.now() });
    }
    let outcome = agent_command::Outcome::Done { result: serde_json::Value::Null };
    for number in [1, 2] {
        world.command(number, 2, &agent_command::Command::Finish { outcome: outcome.clone() });
    }
    assert_eq!(world.recorded.last().unwrap().revision, 3, "an agent may say so after the time");
    let routes = keeping(1);
    read_all(&routes, &world);
    assert!(routes.command(command_id(1)).is_none());
    let kept = routes.command(command_id(2)).unwrap();
    assert!(kept.state.queued.is_some());
    assert_eq!(kept.state.progress, agent_command::Progress::Finished(outcome));
}

#[test]
fn a_message_is_in_its_box_until_it_is_over_read_or_not() {
    let mut world = shared();
    for number in [1, 2] {
        world.send_message(number, 4, 2, 60_000);
    }
    world.message(1, 2, &message::Command::MarkRead);
    let in_box = |world: &World| -> Vec<_> {
        let found = routes_of(world).messages_of(agent_id(2));
        found.into_iter().map(|(id, entry)| (id, entry.state.read)).collect()
    };
    assert_eq!(in_box(&world), [(message_id(2), false), (message_id(1), true)], "the newest first");
    world.message(1, 2, &message::Command::MakeRoom);
    assert_eq!(in_box(&world), [(message_id(2), false)]);
    assert_eq!(routes_of(&world).messages_of(agent_id(4)).len(), 0, "the sender's box is another");
}

#[test]
fn an_agent_is_found_by_what_it_offers_now() {
    let mut world = shared();
    let offer = |world: &mut World, names: &[&str]| {
        let capabilities = names
            .iter()
            .map(|text| agent::Capability { name: name(text), metadata: BTreeMap::new() })
            .collect();
        world.agent(2, &agent::Command::SetCapabilities { capabilities });
    };
    let offering = |world: &World, name: &str| routes_of(world).agents_offering(workspace_id(0), name);
    offer(&mut world, &["deploy", "gpu"]);
    assert_eq!(offering(&world, "gpu"), [agent_id(2)]);
    assert_eq!(routes_of(&world).agents_offering(workspace_id(1), "gpu"), [], "another workspace");
    offer(&mut world, &["deploy"]);
    assert_eq!(offering(&world, "gpu"), []);
    assert_eq!(offering(&world, "deploy"), [agent_id(2)]);
    world.agent(2, &agent::Command::Delete);
    assert_eq!(offering(&world, "deploy"), []);
}

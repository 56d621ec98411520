//! Streams that agents open to tunnels of their workspace, and of no other.

use super::*;

#[test]
fn a_local_port_leads_to_a_teammates_tunnel_across_a_reconnect() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let port = other.reach(tunnel.id.uuid().as_u128(), "db", Carries::Bytes, 0).await.unwrap();
        let local = ("127.0.0.1", port.port());
        let bytes = random(1024 * 1024);
        let socket = TcpStream::connect(local).await.unwrap();
        assert!(soon(exchange(socket, &bytes)).await.unwrap() == bytes);

        let session = hub.gateway.sessions().of(reacher.id).unwrap();
        session.shut();
        // Before the hub knows it, a stream could still be opened, and would end with the session.
        soon(session.ending.cancelled()).await;
        let mut again = TcpStream::connect(local).await.unwrap();
        assert!(echoes(&mut again).await);
        drop(port);
        assert!(was_reset(&ended(&mut again).await));
        handle.stop().await;
        other.stop().await;
    });
}

#[test]
fn what_a_local_port_refuses_is_counted_by_its_reason() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, echoing) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let port = other.reach(tunnel.id.uuid().as_u128(), "db", Carries::Bytes, 0).await.unwrap();
        let mut refusals = port.refusals();
        let mut refused = async |reason: Reason| {
            let refused = ended_at(("127.0.0.1", port.port())).await;
            assert!(was_reset(&refused), "{reason:?}: {refused:?}");
            let refusals = soon(refusals.wait_for(|refusals| refusals.contains_key(&reason))).await.unwrap();
            assert_eq!(refusals[&reason].count, 1, "{refusals:?}");
            refusals[&reason].words.clone()
        };

        echoing.abort();
        let _ = echoing.await;
        let words = refused(Reason::TargetUnreachable).await;
        assert!(words.contains(&target.to_string()), "{words}");
        let mut states = handle.tunnel_states();
        let is_dead = |view: &TunnelView| matches!(view.servable, Some(Servable::Unreachable(_)));
        soon(states.wait_for(|views| views.values().any(is_dead))).await.unwrap();

        hub.tell(&agent, tunnel.id, tunnel::Command::Pause).await;
        refused(Reason::TunnelPaused).await;
        hub.tell(&agent, tunnel.id, tunnel::Command::Resume).await;
        handle.stop().await;
        refused(Reason::AgentOffline).await;
        hub.tell(&agent, tunnel.id, tunnel::Command::Delete { reason: DeleteReason::Requested }).await;
        refused(Reason::TunnelGone).await;
        other.stop().await;
    });
}

#[test]
fn a_tunnel_of_another_workspace_does_not_exist() {
    with_hub(GatewaySettings::default(), async |hub| {
        let (agent, stranger) = (hub.lone_agent().await, hub.lone_agent().await);
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        // Whether it is paused is no business of strangers either.
        hub.tell(&agent, tunnel.id, tunnel::Command::Pause).await;
        let (_raw, welcome) = Raw::session(hub, &stranger).await;
        for wanted in [tunnel.id.uuid().as_u128(), 12_345] {
            let refused = reach_raw(hub, &welcome, 1 + wanted % 1_000, wanted).await;
            let Frame::StreamRefused(refused) = refused else { panic!("{refused:?}") };
            assert_eq!(refused.code, RefusalCode::UnknownTunnel);
        }
        let (_raw, welcome) = Raw::session(hub, &hub.agent_beside(&agent).await).await;
        let refused = reach_raw(hub, &welcome, 1, tunnel.id.uuid().as_u128()).await;
        let Frame::StreamRefused(refused) = refused else { panic!("{refused:?}") };
        assert_eq!(refused.code, RefusalCode::Paused);
        handle.stop().await;
    });
}

async fn reach_raw(hub: &Rig, welcome: &Welcome, counter: u128, tunnel: u128) -> Frame {
    let counter = u64::try_from(counter).unwrap();
    let mut socket = data_connection(hub, welcome, counter, Purpose::Reach).await;
    assert!(head(&mut socket).await.starts_with("HTTP/1.1 101 "));
    let open = StreamOpen { tunnel, kind: StreamKind::Tcp, peer: String::new() };
    wire::frame_io::write(&mut socket, &Frame::StreamOpen(open)).await.unwrap();
    soon(wire::frame_io::read(&mut socket)).await.unwrap()
}

#[test]
fn what_is_reached_is_sealed_end_to_end_and_another_key_under_the_same_name_is_refused() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, impostor, reacher) =
            (hub.agent(workspace).await, hub.agent(workspace).await, hub.agent(workspace).await);
        let handles = [hub.run(&agent).await, hub.run(&impostor).await];
        let other = hub.run(&reacher).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let real = hub.working_tunnel(&agent, listener.local_addr().unwrap()).await;
        let (target, _echo) = echo().await;
        let trap = hub.working_tunnel(&impostor, target).await;

        let port = other.reach(real.id.uuid().as_u128(), "db", Carries::Bytes, 0).await.unwrap();
        drop(listener.accept().await.unwrap());
        let mut client = TcpStream::connect(("127.0.0.1", port.port())).await.unwrap();
        let (mut at_target, _) = soon(listener.accept()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(soon(at_target.read_u8()).await.unwrap(), b'x');

        // The same name leads to another agent now, as a hub that wants to read along would have it.
        let port = other.reach(trap.id.uuid().as_u128(), "db", Carries::Bytes, 0).await.unwrap();
        let mut refusals = port.refusals();
        assert!(was_reset(&ended_at(("127.0.0.1", port.port())).await));
        let refused = soon(refusals.wait_for(|refusals| refusals.contains_key(&Reason::KeyChanged))).await;
        let words = refused.unwrap()[&Reason::KeyChanged].words.clone();
        assert!(words.contains("SHA256:") && words.contains("another key"), "{words}");
        for handle in handles {
            handle.stop().await;
        }
        other.stop().await;
    });
}

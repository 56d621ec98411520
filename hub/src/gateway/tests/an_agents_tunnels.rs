//! What an agent says of its tunnels, and what the hub asks of it.

use super::*;

#[test]
fn a_tunnel_becomes_active_when_its_target_starts() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = reserved.local_addr().unwrap();
        drop(reserved);
        let tunnel = hub.tunnel(&agent, at).await;
        let condition = hub.gateway.wait_state(tunnel.id, SOON).await;
        assert!(matches!(condition, Some(Condition::Failed(Outage::TargetUnreachable(_)))), "{condition:?}");
        let _listener = TcpListener::bind(at).await.unwrap();
        eventually("the tunnel is active", || {
            let entry = hub.routes.tunnel(tunnel.id).unwrap();
            matches!(entry.state.open().unwrap().condition, Condition::Connected(_))
        })
        .await;
        handle.stop().await;
    });
}

#[test]
fn a_target_that_is_gone_is_reported_by_the_first_stream_that_needs_it() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tunnel = hub.working_tunnel(&agent, listener.local_addr().unwrap()).await;
        drop(listener);
        // The reset may come before the connection was looked at.
        if let Ok(mut socket) = TcpStream::connect(tunnel.at).await {
            assert!(was_reset(&ended(&mut socket).await));
        }
        eventually("the tunnel has failed", || {
            let entry = hub.routes.tunnel(tunnel.id).unwrap();
            matches!(entry.state.open().unwrap().condition, Condition::Failed(_))
        })
        .await;
        handle.stop().await;
    });
}

#[test]
fn what_the_agents_owner_does_not_allow_is_not_dialled_until_it_is_allowed() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let (target, _echo) = echo().await;
        let handle = agent_cli::agent::start(agent_cli::agent::AgentOptions {
            allow_loopback: false,
            identity: wire::sealed::handshake::Identity::generate(),
            known: std::sync::Arc::new(agent_cli::agent::trust::InMemory::default()),
            ..hub.options(&agent)
        });
        connected(&handle).await;
        let tunnel = hub.tunnel(&agent, target).await;
        let condition = hub.gateway.wait_state(tunnel.id, SOON).await;
        assert!(matches!(condition, Some(Condition::Failed(Outage::TargetRefused(_)))), "{condition:?}");
        let opened = hub.gateway.open(agent.id, tunnel.id, StreamKind::Tcp, "").await;
        assert!(matches!(opened, Err(OpenError::TargetNotAllowed(_))), "{opened:?}");
        handle.allow(&target.ip().to_string(), target.port());
        eventually("the tunnel is active", || {
            let entry = hub.routes.tunnel(tunnel.id).unwrap();
            matches!(entry.state.open().unwrap().condition, Condition::Connected(_))
        })
        .await;
        handle.stop().await;
    });
}

#[test]
fn an_agent_speaks_for_its_own_tunnels_only() {
    with_hub(GatewaySettings::default(), async |hub| {
        let (owner, other) = (hub.lone_agent().await, hub.lone_agent().await);
        let tunnel = hub.tunnel(&owner, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let own = hub.tunnel(&other, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let (mut raw, _) = Raw::session(hub, &other).await;
        for id in [tunnel.id, own.id] {
            let state = TunnelState { tunnel: id.uuid().as_u128(), servable: Servable::Yes };
            raw.send(&Frame::TunnelState(state)).await;
        }
        // In order: when the second one has arrived, the first one was judged.
        let own = hub.gateway.wait_state(own.id, SOON).await;
        assert!(matches!(own, Some(Condition::Connected(_))));
        assert_eq!(hub.facts_of(tunnel.id).await, ["tunnel.created"]);
    });
}

#[test]
fn an_agent_answers_checks_and_opens_ports() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let found = hub.gateway.check(agent.id, tunnel.id, SOON).await.unwrap();
        assert!(found.reachable && found.tcp.unwrap().ok);

        let open = |port| hub.gateway.open_port(reacher.id, tunnel.id, "service".into(), port, SOON);
        let Ok(PortOutcome::Listening(port)) = open(0).await else { panic!() };
        assert_eq!(open(port).await.unwrap(), PortOutcome::Listening(port));
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(echoes(&mut socket).await);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = open(taken.local_addr().unwrap().port()).await.unwrap();
        assert_eq!(taken, PortOutcome::Taken);

        hub.gateway.close_port(reacher.id, tunnel.id);
        assert!(was_reset(&ended(&mut socket).await));
        handle.stop().await;
        other.stop().await;
        let gone = hub.gateway.check(agent.id, tunnel.id, SOON).await;
        assert_eq!(gone.unwrap_err(), sessions::AskError::AgentOffline);
    });
}

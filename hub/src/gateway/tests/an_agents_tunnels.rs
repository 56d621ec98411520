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
        assert!(was_reset(&ended_at(tunnel.at).await));
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
            remembers: None,
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

        let open = |port| {
            let name = "service".into();
            hub.gateway.open_port(reacher.id, tunnel.id, Protocol::Tcp, name, port, SOON)
        };
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

#[test]
fn what_an_auto_target_speaks_is_asked_once_and_not_again_when_the_session_comes_back() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    if socket.read_u8().await.is_ok() {
                        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                    }
                });
            }
        });
        let opened = hub.tunnel_of(&agent, Protocol::Auto, "localhost".to_owned(), port).await;
        hub.working(opened).await;
        let mut states = handle.tunnel_states();
        let is_http = |view: &TunnelView| {
            let speaks_http = view.speech.as_ref().is_some_and(|speech| speech.protocol == Protocol::Http);
            speaks_http && view.servable == Some(Servable::Yes)
        };
        for _ in 0..2 {
            soon(states.wait_for(|views| views.values().any(is_http))).await.unwrap();
            hub.gateway.sessions().of(agent.id).unwrap().shut();
            soon(states.wait_for(|views| views.values().all(|view| view.servable.is_none()))).await.unwrap();
        }
        soon(states.wait_for(|views| views.values().any(is_http))).await.unwrap();
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
        handle.stop().await;
    });
}

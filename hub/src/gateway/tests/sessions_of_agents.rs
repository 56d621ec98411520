//! Who connects, who is refused, who is cut, and what the log learns of it.

use super::*;

#[test]
fn an_agent_comes_back_by_itself_with_its_tunnels_and_both_ends_are_facts() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let before = connected(&handle).await;
        let mut running = TcpStream::connect(tunnel.at).await.unwrap();
        assert!(echoes(&mut running).await);
        let first = hub.gateway.sessions().of(agent.id).unwrap();
        first.shut();
        assert!(was_reset(&ended(&mut running).await), "what ran through the session ends with it");
        eventually("another session", || {
            hub.gateway.sessions().of(agent.id).is_some_and(|session| session.id != first.id)
        })
        .await;
        eventually("the tunnel is active again", || {
            let entry = hub.routes.tunnel(tunnel.id).unwrap();
            let now = hub.gateway.sessions().of(agent.id).map(|session| session.id);
            matches!(&entry.state.open().unwrap().condition, Condition::Connected(id) if Some(*id) == now)
        })
        .await;
        assert!(connected(&handle).await > before);
        assert!(echoes(&mut TcpStream::connect(tunnel.at).await.unwrap()).await);
        handle.stop().await;
        eventually("the agent is gone", || !hub.gateway.is_connected(agent.id)).await;
        // Lost and found may be recorded as one step when the agent is faster than the hub's own notice.
        let facts = hub.facts_of(agent.id).await;
        assert_eq!(
            facts[..4],
            ["agent.registered", "agent.connected", "agent.disconnected", "agent.connected"]
        );
    });
}

#[test]
fn a_goodbye_is_recorded_as_such() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        handle.stop().await;
        eventually("the tunnel waits for its agent", || {
            let entry = hub.routes.tunnel(tunnel.id).unwrap();
            entry.state.open().unwrap().condition == Condition::Connecting
        })
        .await;
        let Event::Agent(agent::Event::Disconnected(end)) = hub.last_of(agent.id).await else { panic!() };
        assert_eq!(end.reason, DisconnectReason::Left);
    });
}

#[test]
fn an_agent_that_neither_reads_nor_answers_is_cut_and_leaves_nothing_behind() {
    with_hub(hasty(), async |hub| {
        let (deaf, healthy) = (hub.lone_agent().await, hub.lone_agent().await);
        let handle = hub.run(&healthy).await;
        let epoch = connected(&handle).await;
        let (raw, _) = Raw::session(hub, &deaf).await;
        let session = hub.gateway.sessions().of(deaf.id).unwrap();
        let began = Instant::now();
        // More than the sockets' buffers hold and less than the outbox does: the connection's actor is frozen in
        // the middle of a write, with its timers.
        for request in 0..300 {
            let json = "x".repeat(60_000);
            session.send(Frame::CheckResult(schemas::frames::CheckResult { request, json }));
        }
        let left = Arc::downgrade(&session);
        drop(session);
        eventually("the session is cut", || !hub.gateway.is_connected(deaf.id)).await;
        assert!(began.elapsed() >= Duration::from_millis(600), "cut by its silence, not by its outbox");
        eventually("the session's memory is free", || left.upgrade().is_none()).await;
        eventually("the end is a fact", || {
            hub.routes.agent(deaf.id).is_some_and(|entry| entry.state.session.is_none())
        })
        .await;
        let Event::Agent(agent::Event::Disconnected(end)) = hub.last_of(deaf.id).await else { panic!() };
        assert_eq!(end.reason, DisconnectReason::Silent);
        assert_eq!(connected(&handle).await, epoch, "others are not disturbed");
        drop(raw);
        handle.stop().await;
    });
}

#[test]
fn an_agent_whose_outbox_is_full_is_cut_before_it_is_silent() {
    let settings = GatewaySettings { outbox_max: 16, ..GatewaySettings::default() };
    with_hub(settings, async |hub| {
        let deaf = hub.lone_agent().await;
        let (raw, _) = Raw::session(hub, &deaf).await;
        let session = hub.gateway.sessions().of(deaf.id).unwrap();
        let began = Instant::now();
        while hub.gateway.is_connected(deaf.id) && began.elapsed() < SOON {
            let json = "x".repeat(60_000);
            session.send(Frame::CheckResult(schemas::frames::CheckResult { request: 1, json }));
            tokio::task::yield_now().await;
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(raw);
    });
}

#[test]
fn an_agent_that_only_stays_silent_is_cut_as_silent() {
    with_hub(hasty(), async |hub| {
        let agent = hub.lone_agent().await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        let began = Instant::now();
        // It reads, but it does not answer.
        while raw.next().await.is_some() {}
        assert!(began.elapsed() < Duration::from_secs(3));
        eventually("the end is a fact", || {
            hub.routes.agent(agent.id).is_some_and(|entry| entry.state.session.is_none())
        })
        .await;
        let Event::Agent(agent::Event::Disconnected(end)) = hub.last_of(agent.id).await else { panic!() };
        assert_eq!(end.reason, DisconnectReason::Silent);
    });
}

#[test]
fn another_process_is_refused_while_the_first_answers_and_told_who_it_is() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let second = agent_cli::agent::start(hub.options(&agent));
        let (code, message) = refused(&second).await;
        assert_eq!(code, "held_elsewhere");
        assert!(message.contains("a-machine"), "{message}");
        assert!(matches!(*handle.status().borrow(), AgentStatus::Connected { .. }));
        handle.stop().await;
        second.stop().await;
    });
}

#[test]
fn another_process_takes_over_from_one_that_does_not_answer() {
    let settings = GatewaySettings { takeover_ms_max: 200, ..GatewaySettings::default() };
    with_hub(settings, async |hub| {
        let agent = hub.lone_agent().await;
        let (mut frozen, _) = Raw::session(hub, &agent).await;
        let handle = hub.run(&agent).await;
        assert_eq!(connected(&handle).await, 2);
        while frozen.next().await.is_some() {}
        handle.stop().await;
    });
}

#[test]
fn the_same_process_takes_over_from_itself_at_once() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let hello = Frame::Hello(hello(&agent));
        let (mut first, mut second) = (Raw::open(hub, &agent).await, Raw::open(hub, &agent).await);
        first.send(&hello).await;
        let Some(Frame::Welcome(_)) = first.next().await else { panic!() };
        second.send(&hello).await;
        let Some(Frame::Welcome(welcome)) = second.next().await else { panic!() };
        assert_eq!(welcome.epoch, 2);
        let Some(Frame::Goodbye(goodbye)) = first.next_but_pings().await else { panic!() };
        assert_eq!(goodbye.code, GoodbyeCode::Replaced);
        assert!(first.next().await.is_none());
        assert!(hub.gateway.is_connected(agent.id));
    });
}

#[test]
fn what_breaks_the_protocol_ends_the_session_without_any_fact() {
    with_hub(GatewaySettings::default(), async |hub| {
        let before_hello: [(&str, Message); 5] = [
            ("a text", Message::text("hello")),
            ("another first frame", Message::binary(Frame::Ping(Ping { nonce: 1 }).encode().unwrap())),
            ("no frame", Message::binary(vec![1, 2, 3])),
            ("an unknown frame", Message::binary(vec![0x7f, 0xff, 0, 0, 0, 0, 0])),
            ("too much", Message::binary(vec![0; BODY_BYTES_MAX + 100])),
        ];
        for (what, message) in before_hello {
            let agent = hub.lone_agent().await;
            let mut raw = Raw::open(hub, &agent).await;
            raw.socket.send(message).await.unwrap();
            let Some(Frame::Goodbye(Goodbye { code, .. })) = raw.next().await else { panic!("{what}") };
            assert_eq!(code, GoodbyeCode::Protocol, "{what}");
            assert!(raw.next().await.is_none(), "{what}");
            assert_eq!(hub.facts_of(agent.id).await, ["agent.registered"], "{what}");
        }
        let agent = hub.lone_agent().await;
        let mut raw = Raw::open(hub, &agent).await;
        raw.send(&Frame::Hello(schemas::frames::Hello { protocol_min: 2, protocol_max: 9, ..hello(&agent) }))
            .await;
        let Some(Frame::Goodbye(Goodbye { code, message, .. })) = raw.next().await else { panic!() };
        assert_eq!(code, GoodbyeCode::Protocol);
        assert!(message.contains("protocol 1"), "{message}");

        let (mut raw, _) = Raw::session(hub, &agent).await;
        raw.send(&Frame::Hello(hello(&agent))).await;
        let Some(Frame::Goodbye(Goodbye { code, .. })) = raw.next_but_pings().await else { panic!() };
        assert_eq!(code, GoodbyeCode::Protocol);
    });
}

#[test]
fn an_unknown_optional_frame_is_skipped() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        raw.socket.send(Message::binary(vec![0x7f, 0xff, 1, 0, 0, 0, 0])).await.unwrap();
        raw.send(&Frame::Ping(Ping { nonce: 77 })).await;
        assert_eq!(raw.next_but_pings().await, Some(Frame::Pong(Pong { nonce: 77 })));
    });
}

#[test]
fn an_unknown_token_is_answered_401_and_the_agent_gives_up() {
    with_hub(GatewaySettings::default(), async |hub| {
        let known = hub.lone_agent().await;
        let stranger = Known { token: crate::secrets::Secret::brought("pca_guess"), ..known };
        let handle = agent_cli::agent::start(hub.options(&stranger));
        assert_eq!(refused(&handle).await.0, "unauthorized");
        handle.stop().await;
    });
}

#[test]
fn a_revoked_key_ends_its_agents_sessions_within_a_second_though_nobody_announces_it() {
    with_hub(GatewaySettings::default(), async |hub| {
        let (workspace, key) = hub.workspace().await;
        let agent = hub.agent((workspace, key)).await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let mut running = TcpStream::connect(tunnel.at).await.unwrap();
        assert!(echoes(&mut running).await);
        let revoke = workspace::Command::RevokeKey { key_id: key };
        hub.executor.workspace(workspace, Who::hub(workspace, "test"), revoke).await.unwrap();
        let began = Instant::now();
        assert!(was_reset(&ended(&mut running).await));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(refused(&handle).await.0, "unauthorized");
        assert!(!hub.gateway.is_connected(agent.id));
        handle.stop().await;
    });
}

#[test]
fn an_ended_session_is_told_why() {
    with_hub(GatewaySettings::default(), async |hub| {
        let (workspace, key) = hub.workspace().await;
        for (end, code) in [
            (DisconnectReason::Deleted, GoodbyeCode::Unauthorized),
            (DisconnectReason::Drained, GoodbyeCode::Draining),
        ] {
            let agent = hub.agent((workspace, key)).await;
            let (mut raw, _) = Raw::session(hub, &agent).await;
            hub.gateway.end(agent.id, end);
            assert!(!hub.gateway.is_connected(agent.id));
            let Some(Frame::Goodbye(goodbye)) = raw.next_but_pings().await else { panic!() };
            assert_eq!(goodbye.code, code);
            assert!(raw.next().await.is_none());
        }
        let agent = hub.agent((workspace, key)).await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        hub.gateway.end_by_key(key);
        let Some(Frame::Goodbye(goodbye)) = raw.next_but_pings().await else { panic!() };
        assert_eq!(goodbye.code, GoodbyeCode::Unauthorized);
    });
}

#[test]
fn a_log_that_takes_no_writes_puts_an_agent_off_and_lets_it_in_later() {
    with_hub(GatewaySettings::default(), async |hub| {
        use crate::event_log::memory::Fault;
        let agent = hub.lone_agent().await;
        hub.log.inject_on("agent-", Fault::Refuse("full".to_owned()));
        let (mut raw, began) = (Raw::open(hub, &agent).await, hub.facts_of(agent.id).await);
        raw.send(&Frame::Hello(hello(&agent))).await;
        let Some(Frame::Goodbye(goodbye)) = raw.next().await else { panic!() };
        assert_eq!(goodbye.code, GoodbyeCode::Draining);
        assert_eq!(hub.facts_of(agent.id).await, began);
        assert!(!hub.gateway.is_connected(agent.id));
        hub.run(&agent).await.stop().await;
    });
}

#[test]
fn a_draining_hub_takes_no_session_and_no_stream() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let (mut raw, welcome) = Raw::session(hub, &agent).await;
        let tunnel = hub.tunnel(&agent, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        hub.gateway.drain();
        let opened = hub.gateway.open(agent.id, tunnel.id, StreamKind::Tcp, "").await;
        assert_eq!(opened.unwrap_err(), OpenError::Busy);
        let mut data = data_connection(hub, &welcome, 1, Purpose::Serve).await;
        assert!(head(&mut data).await.starts_with("HTTP/1.1 503 "));
        let late = agent_cli::agent::start(hub.options(&agent));
        let mut status = late.status();
        soon(status.wait_for(|status| {
            matches!(status, AgentStatus::Connecting { last_error: Some(error), .. } if error.contains("stopping"))
        }))
        .await
        .unwrap();
        assert!(hub.gateway.stop(SOON).await);
        let Some(Frame::TunnelAssigned(_)) = raw.next_but_pings().await else { panic!() };
        let Some(Frame::Goodbye(goodbye)) = raw.next_but_pings().await else { panic!() };
        assert_eq!(goodbye.code, GoodbyeCode::Draining);
        let Event::Agent(agent::Event::Disconnected(end)) = hub.last_of(agent.id).await else { panic!() };
        assert_eq!(end.reason, DisconnectReason::Drained);
        late.stop().await;
    });
}

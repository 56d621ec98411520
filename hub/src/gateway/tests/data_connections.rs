//! Proofs, replays, warm connections and dead ones.

use super::*;

#[test]
fn a_proof_is_good_once_and_only_for_what_it_was_made_for() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let (_raw, welcome) = Raw::session(hub, &agent).await;
        let answer =
            async |counter, purpose| head(&mut data_connection(hub, &welcome, counter, purpose).await).await;
        assert!(answer(7, Purpose::Serve).await.starts_with("HTTP/1.1 101 "));
        assert!(answer(7, Purpose::Serve).await.starts_with("HTTP/1.1 401 "), "a replay");
        assert!(answer(5, Purpose::Serve).await.starts_with("HTTP/1.1 101 "), "connections overtake");

        let session = &welcome.session_id;
        let tag = ring::hmac::sign(&key_of(&welcome), proof_text(session, 8, Purpose::Serve).as_bytes());
        let proof = crate::secrets::hex(tag.as_ref());
        for (session, counter, purpose) in [
            (session.as_str(), 8, Purpose::Reach),
            (session.as_str(), 9, Purpose::Serve),
            ("ses_00000000000000000000000000000007", 8, Purpose::Serve),
        ] {
            let mut socket = preface_sent(hub, session, counter, purpose, &proof).await;
            assert!(head(&mut socket).await.starts_with("HTTP/1.1 401 "));
            assert_eq!(ended(&mut socket).await.unwrap(), 0);
        }
        // The failed tries used nothing up.
        let mut socket = preface_sent(hub, session, 8, Purpose::Serve, &proof).await;
        assert!(head(&mut socket).await.starts_with("HTTP/1.1 101 "));
    });
}

#[test]
fn the_end_of_a_session_is_the_end_of_its_proofs_and_idle_connections() {
    with_hub(hasty(), async |hub| {
        let agent = hub.lone_agent().await;
        let (raw, welcome) = Raw::session(hub, &agent).await;
        let mut idle = data_connection(hub, &welcome, 1, Purpose::Serve).await;
        assert!(head(&mut idle).await.starts_with("HTTP/1.1 101 "));
        drop(raw);
        assert_eq!(ended(&mut idle).await.unwrap(), 0);
        let mut late = data_connection(hub, &welcome, 2, Purpose::Serve).await;
        assert!(head(&mut late).await.starts_with("HTTP/1.1 401 "));
    });
}

#[test]
fn a_dead_warm_connection_is_skipped() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        let session = hub.gateway.sessions().of(agent.id).unwrap();
        // Looks alive, and dies when it is used.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            near.set_nonblocking(true).unwrap();
            let (far, _) = listener.accept().unwrap();
            session.pool.offer(wire::side::Parked::Plain(near));
            std::thread::spawn(move || {
                use std::io::Read as _;
                let _ = (&far).read(&mut [0; 1]);
            });
        }
        let opened = hub.gateway.open(agent.id, tunnel.id, StreamKind::Tcp, "").await;
        assert!(echoes(&mut opened.unwrap()).await);
        handle.stop().await;
    });
}

#[test]
fn an_agent_that_brings_no_connection_is_waited_for_no_longer_than_the_limit() {
    with_hub(GatewaySettings { open_timeout_ms: 100, ..GatewaySettings::default() }, async |hub| {
        let agent = hub.lone_agent().await;
        let tunnel = hub.tunnel(&agent, SocketAddr::from(([127, 0, 0, 1], 9))).await;
        let (mut raw, _) = Raw::session(hub, &agent).await;
        let opened = hub.gateway.open(agent.id, tunnel.id, StreamKind::Tcp, "").await;
        assert_eq!(opened.unwrap_err(), OpenError::Timeout);
        let Some(Frame::TunnelAssigned(_)) = raw.next_but_pings().await else { panic!() };
        let Some(Frame::DataWanted(wanted)) = raw.next_but_pings().await else { panic!() };
        assert_eq!(wanted.count, 1);
    });
}

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_cli::agent::AgentStatus;
use domain::{
    agent::{self, DisconnectReason},
    event::Event,
    tunnel::{self, Condition, DeleteReason, Outage},
    workspace,
};
use futures_util::SinkExt as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::frames::{
    BODY_BYTES_MAX, Frame, Goodbye, GoodbyeCode, Ping, Pong, PortOutcome, RefusalCode, STREAM_PATH, Servable,
    StreamKind, StreamOpen, TunnelState, Welcome,
    preface::{Purpose, proof_text},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use super::{rig::*, *};
use crate::actors::Who;
use crate::streams::{OpenError, Streams as _};

fn random(bytes: usize) -> Vec<u8> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).unwrap();
    random
}

/// Sends everything, then the end, and reads to the end meanwhile.
async fn exchange(mut socket: TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (mut read, mut write) = socket.split();
    let sending = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    let mut back = Vec::new();
    let (sent, received) = tokio::join!(sending, read.read_to_end(&mut back));
    sent.and(received).map(|_| back)
}

async fn ended(socket: &mut TcpStream) -> io::Result<usize> {
    soon(socket.read(&mut [0; 16])).await
}

fn was_reset(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

mod streams_through_tunnels {
    use super::*;

    #[test]
    fn a_mebibyte_comes_back_byte_for_byte_and_both_ends_end_in_order() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            let bytes = random(1024 * 1024);
            let lanes = (0..4).map(|_| async {
                let socket = TcpStream::connect(tunnel.at).await.unwrap();
                assert!(soon(exchange(socket, &bytes)).await.unwrap() == bytes);
            });
            futures_util::future::join_all(lanes).await;
            handle.stop().await;
        });
    }

    #[test]
    fn a_reset_passes_from_one_end_to_the_other() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The agent's probe is a connection too.
            let tunnel = hub.working_tunnel(&agent, listener.local_addr().unwrap()).await;
            drop(listener.accept().await.unwrap());

            let mut client = TcpStream::connect(tunnel.at).await.unwrap();
            let (mut target, _) = soon(listener.accept()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            soon(target.read_u8()).await.unwrap();
            relay::reset(target);
            assert!(was_reset(&ended(&mut client).await));

            let mut client = TcpStream::connect(tunnel.at).await.unwrap();
            let (mut target, _) = soon(listener.accept()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            soon(target.read_u8()).await.unwrap();
            relay::reset(client);
            assert!(was_reset(&ended(&mut target).await));
            handle.stop().await;
        });
    }

    #[test]
    fn a_burst_wider_than_the_warm_connections_is_served() {
        with_hub(GatewaySettings { warm_connections: 2, ..GatewaySettings::default() }, async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            let mut sockets = vec![];
            for _ in 0..100 {
                sockets.push(TcpStream::connect(tunnel.at).await.unwrap());
            }
            // All are open at once.
            let all = sockets.iter_mut().map(async |socket| assert!(echoes(socket).await));
            futures_util::future::join_all(all).await;
            handle.stop().await;
        });
    }

    #[test]
    fn deleting_a_tunnel_ends_its_streams_and_closes_its_port() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            let mut client = TcpStream::connect(tunnel.at).await.unwrap();
            assert!(echoes(&mut client).await);
            hub.tell(&agent, tunnel.id, tunnel::Command::Delete { reason: DeleteReason::Requested }).await;
            hub.ports.sync(tunnel.id);
            hub.running.end(Under::Tunnel(tunnel.id));
            assert!(was_reset(&ended(&mut client).await));
            let again = TcpStream::connect(tunnel.at).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::ConnectionRefused);
            handle.stop().await;
        });
    }

    #[test]
    fn a_paused_tunnels_port_refuses_and_a_resumed_ones_works_again() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            for _ in 0..3 {
                hub.tell(&agent, tunnel.id, tunnel::Command::Pause).await;
                hub.ports.sync(tunnel.id);
                let paused = TcpStream::connect(tunnel.at).await.unwrap_err();
                assert_eq!(paused.kind(), io::ErrorKind::ConnectionRefused);
                hub.tell(&agent, tunnel.id, tunnel::Command::Resume).await;
                hub.ports.sync(tunnel.id);
                assert!(echoes(&mut TcpStream::connect(tunnel.at).await.unwrap()).await);
            }
            handle.stop().await;
        });
    }

    #[test]
    fn a_port_that_somebody_else_has_is_reported() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let tunnel = hub.tunnel(&agent, SocketAddr::from(([127, 0, 0, 1], 9))).await;
            let _somebody = std::net::TcpListener::bind(tunnel.at).unwrap();
            assert_eq!(hub.ports.probe(tunnel.at.port()).unwrap_err().port, tunnel.at.port());
            assert_eq!(hub.ports.try_sync(tunnel.id).unwrap_err().port, tunnel.at.port());
        });
    }
}

mod an_agents_tunnels {
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
            assert!(
                matches!(condition, Some(Condition::Failed(Outage::TargetUnreachable(_)))),
                "{condition:?}"
            );
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
            assert!(was_reset(&ended(&mut TcpStream::connect(tunnel.at).await.unwrap()).await));
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
}

mod reach {
    use super::*;

    #[test]
    fn a_local_port_leads_to_a_teammates_tunnel_across_a_reconnect() {
        with_hub(GatewaySettings::default(), async |hub| {
            let workspace = hub.workspace().await;
            let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
            let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            let port = other.reach(tunnel.id.uuid().as_u128(), 0).await.unwrap();
            let local = ("127.0.0.1", port.port());
            let bytes = random(1024 * 1024);
            let socket = TcpStream::connect(local).await.unwrap();
            assert!(soon(exchange(socket, &bytes)).await.unwrap() == bytes);

            hub.gateway.sessions().of(reacher.id).unwrap().shut();
            let mut again = TcpStream::connect(local).await.unwrap();
            assert!(echoes(&mut again).await);
            drop(port);
            assert!(was_reset(&ended(&mut again).await));
            handle.stop().await;
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
        frame_io::write(&mut socket, &Frame::StreamOpen(open)).await.unwrap();
        soon(frame_io::read(&mut socket)).await.unwrap()
    }
}

fn key_of(welcome: &Welcome) -> ring::hmac::Key {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let key = URL_SAFE_NO_PAD.decode(&welcome.data_key).unwrap();
    ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key)
}

/// A data connection with its preface sent.
async fn data_connection(hub: &Rig, welcome: &Welcome, counter: u64, purpose: Purpose) -> TcpStream {
    let session = &welcome.session_id;
    let tag = ring::hmac::sign(&key_of(welcome), proof_text(session, counter, purpose).as_bytes());
    preface_sent(hub, session, counter, purpose, &crate::secrets::hex(tag.as_ref())).await
}

async fn preface_sent(hub: &Rig, session: &str, counter: u64, purpose: Purpose, proof: &str) -> TcpStream {
    let mut socket = TcpStream::connect(hub.api).await.unwrap();
    let preface = format!(
        "GET {STREAM_PATH} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: pconnect/1\r\n\
         pconnect-session: {session}\r\npconnect-counter: {counter}\r\npconnect-purpose: {}\r\n\
         pconnect-proof: {proof}\r\n\r\n",
        purpose.name()
    );
    // Two pieces, cut within the path: the hub waits for the rest.
    let (first, rest) = preface.split_at(12);
    socket.set_nodelay(true).unwrap();
    socket.write_all(first.as_bytes()).await.unwrap();
    tokio::task::yield_now().await;
    socket.write_all(rest.as_bytes()).await.unwrap();
    socket
}

async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

mod data_connections {
    use super::*;

    #[test]
    fn a_proof_is_good_once_and_only_for_what_it_was_made_for() {
        with_hub(GatewaySettings::default(), async |hub| {
            let agent = hub.lone_agent().await;
            let (_raw, welcome) = Raw::session(hub, &agent).await;
            let answer = async |counter, purpose| {
                head(&mut data_connection(hub, &welcome, counter, purpose).await).await
            };
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
                session.pool.offer(near);
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
}

mod sessions_of_agents {
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
            raw.send(&Frame::Hello(schemas::frames::Hello {
                protocol_min: 2,
                protocol_max: 9,
                ..hello(&agent)
            }))
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
}

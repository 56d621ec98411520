//! Datagrams through a tunnel's port and through a local port: whole, to whoever asked, and over when they must be.

use tokio::net::UdpSocket;
use wire::peers::PeerLimits;

use super::*;
use crate::tunnel_ports::{TunnelPortSettings, TunnelPorts};

/// A UDP server that sends back what it gets.
async fn udp_echo_at(address: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind(address).await.unwrap();
    let at = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        // What was refused to an earlier answer is no end.
        loop {
            if let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], peer).await;
            }
        }
    });
    (at, serving)
}

async fn udp_echo() -> (SocketAddr, tokio::task::JoinHandle<()>) {
    udp_echo_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

async fn udp_tunnel(hub: &Rig, agent: &Known, to: SocketAddr) -> Opened {
    let opened = hub.tunnel_of(agent, Protocol::Udp, to.ip().to_string(), to.port()).await;
    hub.working(opened).await
}

async fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((to.ip(), 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

async fn answer(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let length = soon(socket.recv(&mut buffer)).await?;
    buffer.truncate(length);
    Ok(buffer)
}

async fn asked(socket: &UdpSocket, datagram: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(datagram).await?;
    answer(socket).await
}

/// The same for a way that may lose the first words, as UDP may.
async fn asked_until_answered(socket: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    let asking = async {
        let mut buffer = vec![0; 65_535];
        loop {
            let _ = socket.send(datagram).await;
            let again = Duration::from_millis(50);
            if let Ok(Ok(length)) = tokio::time::timeout(again, socket.recv(&mut buffer)).await {
                return buffer[..length].to_vec();
            }
        }
    };
    soon(asking).await
}

async fn is_refused(socket: &UdpSocket) -> bool {
    asked(socket, b"x").await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn borders_are_kept_both_ways_from_the_smallest_datagram_to_the_largest() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, _echo) = udp_echo().await;
        let tunnel = udp_tunnel(hub, &agent, target).await;
        let port = other.reach(tunnel.id.uuid().as_u128(), "dns", Carries::Datagrams, 0).await.unwrap();
        let localhost = |port| [([127, 0, 0, 1], port).into(), ([0, 0, 0, 0, 0, 0, 0, 1], port).into()];
        for at in [localhost(tunnel.at.port()), localhost(port.port())].concat() {
            let socket = client(at).await;
            for size in [0, 1, 1_472, 65_507] {
                let sent = random(size);
                assert!(asked(&socket, &sent).await.unwrap() == sent, "{size} bytes through {at}");
            }
        }
        handle.stop().await;
        other.stop().await;
    });
}

#[test]
fn a_hundred_peers_have_a_session_each_and_hear_their_own_answers() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = udp_echo().await;
        let tunnel = udp_tunnel(hub, &agent, target).await;
        let talks = (0..100_u8).map(|number| async move {
            let socket = client(tunnel.at).await;
            for word in 0..10 {
                assert_eq!(asked(&socket, &[number, word]).await.unwrap(), [number, word]);
            }
        });
        futures_util::future::join_all(talks).await;
        let sessions = &hub.ports.udp().counts().sessions;
        assert_eq!(sessions.load(std::sync::atomic::Ordering::Relaxed), 100);
        handle.stop().await;
    });
}

#[test]
fn the_family_that_nobody_listens_in_is_passed_over_and_loses_nothing() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        for family in [[127, 0, 0, 1].into(), std::net::IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])] {
            let (target, _echo) = udp_echo_at((family, 0).into()).await;
            let opened = hub.tunnel_of(&agent, Protocol::Udp, "localhost".to_owned(), target.port()).await;
            let tunnel = hub.working(opened).await;
            for _ in 0..2 {
                let socket = client(tunnel.at).await;
                for word in 0..3 {
                    socket.send(&[word]).await.unwrap();
                }
                for word in 0..3 {
                    assert_eq!(answer(&socket).await.unwrap(), [word], "{family}");
                }
            }
        }
        handle.stop().await;
    });
}

#[test]
fn a_target_that_is_not_there_ends_the_session_and_serves_when_it_comes() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, echoing) = udp_echo().await;
        echoing.abort();
        let _ = echoing.await;
        let tunnel = udp_tunnel(hub, &agent, target).await;
        let socket = client(tunnel.at).await;
        socket.send(b"x").await.unwrap();
        let mut states = handle.tunnel_states();
        let is_dead = |view: &TunnelView| matches!(view.servable, Some(Servable::Unreachable(_)));
        soon(states.wait_for(|views| views.values().any(is_dead))).await.unwrap();
        // The agent's owner is told; the hub is not asked to write down every refused datagram.
        assert_eq!(hub.facts_of(tunnel.id).await, ["tunnel.created", "tunnel.connected"]);
        let (_, _echo) = udp_echo_at(target).await;
        assert_eq!(asked_until_answered(&socket, b"again").await, b"again");
        let is_alive = |view: &TunnelView| view.servable == Some(Servable::Yes);
        soon(states.wait_for(|views| views.values().any(is_alive))).await.unwrap();
        handle.stop().await;
    });
}

#[test]
fn a_silent_session_ends_and_the_next_datagram_begins_another() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let idle = Duration::from_millis(100);
        let hasty = TunnelPortSettings {
            peers: PeerLimits { idle, ..PeerLimits::default() },
            ..TunnelPortSettings::default()
        };
        hub.ports.close();
        let ports = TunnelPorts::new(hub.gateway.clone(), hasty);
        let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let opened = hub.tunnel_of(&agent, Protocol::Udp, to.ip().to_string(), to.port()).await;
        hub.gateway.wait_state(opened.id, SOON).await;
        ports.try_sync(opened.id).unwrap();
        let socket = client(opened.at).await;
        let mut froms = vec![];
        for _ in 0..2 {
            socket.send(b"x").await.unwrap();
            let began = Instant::now();
            froms.push(soon(listener.recv_from(&mut [0; 1])).await.unwrap().1);
            // The agent's socket goes with the session.
            is_free(*froms.last().unwrap()).await;
            assert!(began.elapsed() >= idle, "after {:?}", began.elapsed());
        }
        assert_ne!(froms[0], froms[1]);
        ports.close();
        handle.stop().await;
    });
}

/// Waits until nobody has an address any more.
async fn is_free(address: SocketAddr) {
    eventually("a socket is closed", || std::net::UdpSocket::bind(address).is_ok()).await;
}

#[test]
fn a_paused_tunnels_port_refuses_datagrams_and_a_deleted_ones_sessions_end_at_the_target() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tunnel = udp_tunnel(hub, &agent, listener.local_addr().unwrap()).await;
        for _ in 0..3 {
            hub.tell(&agent, tunnel.id, tunnel::Command::Pause).await;
            hub.ports.sync(tunnel.id);
            assert!(is_refused(&client(tunnel.at).await).await);
            hub.tell(&agent, tunnel.id, tunnel::Command::Resume).await;
            hub.ports.sync(tunnel.id);
            client(tunnel.at).await.send(b"x").await.unwrap();
            soon(listener.recv_from(&mut [0; 1])).await.unwrap();
        }
        let socket = client(tunnel.at).await;
        socket.send(b"x").await.unwrap();
        let (_, from) = soon(listener.recv_from(&mut [0; 1])).await.unwrap();
        hub.tell(&agent, tunnel.id, tunnel::Command::Delete { reason: DeleteReason::Requested }).await;
        let began = Instant::now();
        hub.ports.sync(tunnel.id);
        hub.running.end(Under::Tunnel(tunnel.id));
        assert!(is_refused(&socket).await);
        is_free(from).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        handle.stop().await;
    });
}

#[test]
fn a_tunnel_that_comes_to_carry_datagrams_changes_its_port_and_back() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = echo().await;
        let (_, _udp_echo) = udp_echo_at(target).await;
        let tunnel = hub.working_tunnel(&agent, target).await;
        for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Udp] {
            let change =
                tunnel::TunnelUpdated { protocol: Some(protocol), ..tunnel::TunnelUpdated::default() };
            hub.tell(&agent, tunnel.id, tunnel::Command::Update(change)).await;
            hub.gateway.assign(tunnel.id);
            hub.ports.sync(tunnel.id);
            let socket = client(tunnel.at).await;
            let connected = TcpStream::connect(tunnel.at).await;
            if protocol == Protocol::Udp {
                assert_eq!(asked_until_answered(&socket, b"x").await, b"x");
                assert_eq!(connected.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            } else {
                assert!(is_refused(&socket).await);
                drop(connected.unwrap());
            }
        }
        handle.stop().await;
    });
}

#[test]
fn an_agent_gives_no_connection_for_datagrams_and_no_datagrams_for_a_connection() {
    with_hub(GatewaySettings::default(), async |hub| {
        let agent = hub.lone_agent().await;
        let handle = hub.run(&agent).await;
        let (target, _echo) = udp_echo().await;
        let datagrams = udp_tunnel(hub, &agent, target).await;
        let (target, _echo) = echo().await;
        let connections = hub.working_tunnel(&agent, target).await;
        for (tunnel, kind) in [
            (datagrams, StreamKind::Tcp),
            (datagrams, StreamKind::Http),
            (datagrams, StreamKind::Http2),
            (connections, StreamKind::Udp),
        ] {
            let opened = hub.gateway.open(agent.id, tunnel.id, kind, "").await;
            assert!(matches!(opened, Err(OpenError::TargetUnreachable(_))), "{kind:?}: {opened:?}");
        }
        handle.stop().await;
    });
}

#[test]
fn the_hub_has_a_local_udp_port_opened_and_closed() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, _echo) = udp_echo().await;
        let tunnel = udp_tunnel(hub, &agent, target).await;
        let open =
            |port| hub.gateway.open_port(reacher.id, tunnel.id, Protocol::Udp, "dns".into(), port, SOON);
        let Ok(PortOutcome::Listening(port)) = open(0).await else { panic!() };
        assert_eq!(open(port).await.unwrap(), PortOutcome::Listening(port));
        let socket = client(SocketAddr::from(([127, 0, 0, 1], port))).await;
        assert_eq!(asked(&socket, b"x").await.unwrap(), b"x");
        let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let taken = open(taken.local_addr().unwrap().port()).await.unwrap();
        assert_eq!(taken, PortOutcome::Taken);
        hub.gateway.close_port(reacher.id, tunnel.id);
        is_free(SocketAddr::from(([127, 0, 0, 1], port))).await;
        handle.stop().await;
        other.stop().await;
    });
}

#[test]
fn what_a_local_udp_port_cannot_lead_on_is_counted_by_its_reason() {
    with_hub(GatewaySettings::default(), async |hub| {
        let workspace = hub.workspace().await;
        let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
        let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
        let (target, _echo) = udp_echo().await;
        let tunnel = udp_tunnel(hub, &agent, target).await;
        let port = other.reach(tunnel.id.uuid().as_u128(), "dns", Carries::Datagrams, 0).await.unwrap();
        hub.tell(&agent, tunnel.id, tunnel::Command::Pause).await;
        let socket = client(SocketAddr::from(([127, 0, 0, 1], port.port()))).await;
        for _ in 0..20 {
            socket.send(b"x").await.unwrap();
        }
        let mut refusals = port.refusals();
        let refusals = soon(refusals.wait_for(|refusals| refusals.contains_key(&Reason::TunnelPaused))).await;
        assert_eq!(refusals.unwrap()[&Reason::TunnelPaused].count, 1, "once for a peer that goes on asking");
        handle.stop().await;
        other.stop().await;
    });
}

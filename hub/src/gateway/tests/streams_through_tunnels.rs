//! Bytes through a tunnel port: whole, ended, reset, refused.

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
        wire::side::reset(target);
        assert!(was_reset(&ended(&mut client).await));

        let mut client = TcpStream::connect(tunnel.at).await.unwrap();
        let (mut target, _) = soon(listener.accept()).await.unwrap();
        client.write_all(b"x").await.unwrap();
        soon(target.read_u8()).await.unwrap();
        wire::side::reset(client);
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

//! UDP through a hub: a real name server, borders of datagrams, many peers, silence, pauses.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Hub, Machine, eventually,
    ports::loopback,
    targets::{Dnsmasq, succeeds},
    wait::SOON,
};
use serde_json::{Value, json};

/// How long one word may take until it is said again: UDP may lose it.
const ANSWER: Duration = Duration::from_secs(2);

#[test]
fn dig_asks_a_name_server_through_its_tunnel_port_and_through_reach() {
    let dns = Dnsmasq::knowing(&[("answer.example", "192.0.2.7"), ("other.example", "192.0.2.8")]);
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(dns.address, "dns", &["--protocol", "udp"]);
    let reached = laptop.reach("dns");
    for port in [exposed.tunnel_port(), reached.local_port] {
        for at in [loopback(port), (Ipv6Addr::LOCALHOST, port).into()] {
            for (name, address) in [("answer.example", "192.0.2.7"), ("other.example", "192.0.2.8")] {
                assert_eq!(succeeds(&mut Dnsmasq::dig(at, name)).trim(), address, "{at}");
            }
        }
    }
    let says: Vec<Value> =
        reached.process.stdout_lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let reaching = says.iter().find(|line| line["event"] == "reaching").expect("it said so");
    assert_eq!(reaching["connectionString"], format!("udp://localhost:{}", reached.local_port));
}

#[test]
fn looking_at_a_udp_service_claims_no_connection() {
    let dns = Dnsmasq::knowing(&[("answer.example", "192.0.2.7")]);
    let hub = Hub::start();
    let server = Machine::new(&hub);
    let exposed = server.expose_with(dns.address, "dns", &["--protocol", "udp"]);
    let found =
        hub.api().post(&format!("/v1/services/{}/check", exposed.tunnel_id()), &json!({})).expect(200);
    assert_eq!((&found["reachable"], &found["dns"]["ok"]), (&json!(true), &json!(true)));
    assert!(found.get("tcp").is_none() && found["udp"]["ok"] == true, "{found}");
    let shown = server.run(&["reach", "dns", "--check"]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("UDP") && !text.contains("TCP"), "{text}");
}

#[test]
fn borders_of_datagrams_are_kept_from_the_smallest_to_the_largest() {
    let target = echo();
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(target, "echo", &["--protocol", "udp"]);
    let reached = laptop.reach("echo");
    for port in [exposed.tunnel_port(), reached.local_port] {
        let socket = client(loopback(port));
        for size in [0, 1, 1_472, 65_507] {
            let sent: Vec<u8> =
                (0..size).map(|n: usize| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            assert!(asked(&socket, &sent) == sent, "{size} bytes through port {port}");
        }
    }
}

#[test]
fn a_hundred_peers_at_once_hear_their_own_answers() {
    let target = echo();
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(target, "echo", &["--protocol", "udp"]);
    let reached = laptop.reach("echo");
    for port in [exposed.tunnel_port(), reached.local_port] {
        let peers: Vec<_> = (0..100_u8)
            .map(|number| {
                thread::spawn(move || {
                    let socket = client(loopback(port));
                    for word in 0..10_u8 {
                        assert_eq!(asked(&socket, &[number, word]), [number, word]);
                    }
                })
            })
            .collect();
        for peer in peers {
            peer.join().expect("each hears its own");
        }
    }
}

#[test]
fn a_session_ends_when_it_was_silent_and_the_next_word_begins_another() {
    let (target, heard) = listener();
    let hub = Hub::start_with(&[("HUB_UDP_IDLE_MS", "300")]);
    let server = Machine::new(&hub);
    let exposed = server.expose_with(target, "listener", &["--protocol", "udp"]);
    let socket = client(loopback(exposed.tunnel_port()));
    let mut from = Vec::new();
    for _ in 0..2 {
        socket.send(b"x").expect("the port takes it");
        let began = Instant::now();
        let source = heard.recv_timeout(SOON).expect("the target hears it");
        is_free(source);
        assert!(began.elapsed() >= Duration::from_millis(300), "ended after {:?}", began.elapsed());
        from.push(source);
    }
    assert_ne!(from[0], from[1]);
}

#[test]
fn a_paused_tunnel_refuses_datagrams_and_a_deleted_one_ends_its_sessions() {
    let (target, heard) = listener();
    let hub = Hub::start();
    let server = Machine::new(&hub);
    let exposed = server.expose_with(target, "listener", &["--protocol", "udp"]);
    let tunnel = format!("/v1/tunnels/{}", exposed.tunnel_id());
    let socket = client(loopback(exposed.tunnel_port()));
    let is_heard = || {
        eventually("a word to be heard", SOON, || {
            let _refused_before = socket.send(b"x");
            heard.recv_timeout(Duration::from_millis(100))
        })
    };
    is_heard();
    hub.api().patch(&tunnel, &json!({ "status": "paused" })).expect(200);
    is_refused(&socket);
    hub.api().patch(&tunnel, &json!({ "status": "active" })).expect(200);
    let source = is_heard();
    let began = Instant::now();
    hub.api().delete(&tunnel).expect(200);
    is_free(source);
    // A second is promised; the rest is for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(2), "ended after {:?}", began.elapsed());
    is_refused(&socket);
}

#[test]
fn a_public_udp_tunnel_is_on_every_interface_and_answers_from_the_address_that_was_asked() {
    let target = echo();
    let hub = Hub::start();
    let server = Machine::new(&hub);
    let elsewhere = |port| SocketAddr::from(([127, 0, 0, 2], port));
    let private = server.expose_with(target, "private", &["--protocol", "udp"]);
    is_refused(&client(elsewhere(private.tunnel_port())));
    let public = server.expose_with(target, "public", &["--protocol", "udp", "--public"]);
    assert_eq!(asked(&client(elsewhere(public.tunnel_port())), b"x"), b"x");
}

#[test]
fn a_udp_tunnel_survives_its_hub() {
    let target = echo();
    let mut hub = Hub::start();
    let server = Machine::new(&hub);
    let exposed = server.expose_with(target, "echo", &["--protocol", "udp"]);
    let socket = client(loopback(exposed.tunnel_port()));
    assert_eq!(asked(&socket, b"before"), b"before");
    hub.kill9();
    hub.restart();
    assert_eq!(asked(&socket, b"after"), b"after");
}

#[test]
fn the_hub_has_a_udp_port_opened_on_a_teammates_machine() {
    let target = echo();
    let hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let exposed = server.expose_with(target, "echo", &["--protocol", "udp"]);
    let up = laptop.up();
    let registered = up.line("`registered`", SOON, |line| {
        serde_json::from_str::<Value>(line).ok().filter(|line| line["event"] == "registered")
    });
    up.line("`connected`", SOON, |line| line.contains("\"connected\"").then_some(()));
    let body = json!({ "agentId": registered["agentId"], "localPort": e2e::ports::free_port() });
    let answer = hub.api().post(&format!("/v1/tunnels/{}/connect", exposed.tunnel_id()), &body).expect(200);
    let port = e2e::api::port(&answer["tunnel"], "localPort");
    assert_eq!(asked(&client(loopback(port)), b"x"), b"x");
}

/// A target that sends everything back.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has free ports");
    let address = socket.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        loop {
            // An answer that nobody took shows as an error of the next call.
            if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let _lost = socket.send_to(&buffer[..length], peer);
            }
        }
    });
    address
}

/// A target that says nothing, and who spoke to it.
fn listener() -> (SocketAddr, mpsc::Receiver<SocketAddr>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has free ports");
    let address = socket.local_addr().expect("a bound socket has an address");
    let (tell, heard) = mpsc::channel();
    thread::spawn(move || {
        loop {
            if let Ok((_, peer)) = socket.recv_from(&mut [0; 16])
                && tell.send(peer).is_err()
            {
                return;
            }
        }
    });
    (address, heard)
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("the loopback has free ports");
    socket.set_read_timeout(Some(ANSWER)).expect("a timeout can be set");
    socket.connect(to).expect("the loopback has a way");
    socket
}

/// Says something until it is answered.
#[track_caller]
fn asked(socket: &UdpSocket, word: &[u8]) -> Vec<u8> {
    eventually("an answer", SOON, || {
        socket.send(word)?;
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok::<_, std::io::Error>(buffer)
    })
}

#[track_caller]
fn is_refused(socket: &UdpSocket) {
    eventually("a refusal", SOON, || match socket.send(b"x").and_then(|_| socket.recv(&mut [0; 16])) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The agent's socket for a session is closed: somebody else may have its address.
#[track_caller]
fn is_free(address: SocketAddr) {
    eventually("the agent's socket to be closed", SOON, || UdpSocket::bind(address).map(drop));
}

//! The same gateway behind TLS: agents, slow and silent clients, plain ones, and an address that the edge shares.

use parking_lot::Mutex;
use rustls::{ClientConfig, pki_types::ServerName};
use wire::tls::{self, AGENT, Encrypted, HTTP_11};

use super::{
    acceptor::{AcceptorSettings, HandOver, Speech},
    *,
};
use crate::tls::{API_PROTOCOLS, hello::EdgeNames, testing::Authority};

const NAMES: &[&str] = &["hub.example", "*.link.example", "127.0.0.1"];

fn with_tls(
    acceptor: impl FnOnce(&mut AcceptorSettings),
    speech: impl FnOnce(Speech) -> Speech,
    test: impl AsyncFnOnce(&Rig),
) {
    actix_rt::System::new().block_on(async {
        let authority = Authority::new();
        let mut settings = AcceptorSettings { workers: 1, ..AcceptorSettings::default() };
        acceptor(&mut settings);
        let speech = speech(Speech::Tls(authority.speaker(NAMES, API_PROTOCOLS)));
        let mut rig = Rig::speaking(GatewaySettings::default(), settings, speech).await;
        rig.believing = authority.believer();
        tokio::time::timeout(SOON * 3, test(&rig)).await.expect("the test ends");
        rig.ports.close();
        assert!(rig.gateway.stop(SOON).await, "a task of the gateway did not end");
        rig.server.stop(false).await;
    });
}

/// A client that has shaken hands, offering these protocols.
async fn client(hub: &Rig, name: &str, protocols: &[&[u8]]) -> io::Result<Encrypted> {
    let socket = TcpStream::connect(hub.api).await?;
    let mut config: ClientConfig = hub.believing.clone();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(tls::connect(Arc::new(config), name, socket)).await
}

async fn peer_by(encrypted: &mut Encrypted, piece: usize) -> String {
    let request = b"GET /peer HTTP/1.1\r\nHost: hub.example\r\nConnection: close\r\n\r\n";
    for piece in request.chunks(piece) {
        encrypted.write_all(piece).await.unwrap();
        encrypted.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    soon(encrypted.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[test]
fn an_agents_streams_are_whole_and_pass_on_ends_and_resets() {
    with_tls(
        |_| {},
        |speech| speech,
        async |hub| {
            let workspace = hub.workspace().await;
            let (agent, reacher) = (hub.agent(workspace).await, hub.agent(workspace).await);
            let (handle, other) = (hub.run(&agent).await, hub.run(&reacher).await);
            let (target, _echo) = echo().await;
            let tunnel = hub.working_tunnel(&agent, target).await;
            let port = other.reach(tunnel.id.uuid().as_u128(), "db", Carries::Bytes, 0).await.unwrap();
            let bytes = random(1024 * 1024);
            let at = [tunnel.at, SocketAddr::from(([127, 0, 0, 1], port.port()))];
            let lanes = at.iter().cycle().take(12).map(async |at| {
                let socket = TcpStream::connect(at).await.unwrap();
                assert!(soon(exchange(socket, &bytes)).await.unwrap() == bytes);
            });
            futures_util::future::join_all(lanes).await;
            // Revoked is reset, through both encryptions.
            let mut socket = TcpStream::connect(at[1]).await.unwrap();
            assert!(echoes(&mut socket).await);
            hub.running.end(Under::Tunnel(tunnel.id));
            assert!(was_reset(&ended(&mut socket).await));
            handle.stop().await;
            other.stop().await;
        },
    );
}

#[test]
fn a_target_that_resets_is_a_reset_at_the_other_end() {
    with_tls(
        |_| {},
        |speech| speech,
        async |hub| {
            let agent = hub.lone_agent().await;
            let handle = hub.run(&agent).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tunnel = hub.working_tunnel(&agent, listener.local_addr().unwrap()).await;
            drop(listener.accept().await.unwrap());
            let mut client = TcpStream::connect(tunnel.at).await.unwrap();
            let (mut target, _) = soon(listener.accept()).await.unwrap();
            client.write_all(b"x").await.unwrap();
            soon(target.read_u8()).await.unwrap();
            wire::side::reset(target);
            assert!(was_reset(&ended(&mut client).await));

            // Half closed first: nobody reads there any more, and nobody writes.
            let mut client = TcpStream::connect(tunnel.at).await.unwrap();
            let (mut target, _) = soon(listener.accept()).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(ended(&mut target).await.unwrap(), 0);
            wire::side::reset(client);
            // Linux calls a reset after an end a broken pipe.
            let error = soon(broken(&mut target)).await.unwrap();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            handle.stop().await;
        },
    );
}

/// After the end was read, only an error of the socket tells of a reset.
async fn broken(socket: &mut TcpStream) -> Option<io::Error> {
    socket.ready(tokio::io::Interest::ERROR).await.unwrap();
    socket.take_error().unwrap()
}

#[test]
fn requests_are_answered_however_they_are_cut_and_agents_are_known_by_their_protocol() {
    with_tls(
        |_| {},
        |speech| speech,
        async |hub| {
            for piece in [1, 5, 1_000] {
                let mut https = client(hub, "hub.example", &[HTTP_11]).await.unwrap();
                let here = https.tcp().unwrap().local_addr().unwrap().to_string();
                let answer = peer_by(&mut https, piece).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&here), "{answer}");
            }
            let agents = client(hub, "hub.example", &[HTTP_11, AGENT]).await.unwrap();
            assert_eq!(agents.alpn(), Some(AGENT));
            assert_eq!(client(hub, "hub.example", &[]).await.unwrap().alpn(), None);
            let error = client(hub, "hub.example", &[b"smtp"]).await.unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
        },
    );
}

#[test]
fn plain_http_is_told_to_use_tls() {
    with_tls(
        |_| {},
        |speech| speech,
        async |hub| {
            for (request, answer) in [
                ("GET /peer HTTP/1.1\r\nHost: hub\r\n\r\n", "HTTP/1.1 400 "),
                ("GET /peer HTTP/1.1\r\nHost: hub\r\nAccept: text/html\r\n\r\n", "HTTP/1.1 308 "),
                (
                    "GET /v1/agents/stream HTTP/1.1\r\nHost: hub\r\nUpgrade: pconnect/1\r\n\r\n",
                    "HTTP/1.1 400 ",
                ),
            ] {
                let mut socket = TcpStream::connect(hub.api).await.unwrap();
                socket.write_all(request.as_bytes()).await.unwrap();
                let mut said = String::new();
                soon(socket.read_to_string(&mut said)).await.unwrap();
                assert!(said.starts_with(answer) && !said.contains("127.0.0.1"), "{said}");
            }
        },
    );
}

#[test]
fn who_shakes_hands_slowly_or_says_nothing_afterwards_is_cut_and_keeps_nobody_out() {
    let settings = |acceptor: &mut AcceptorSettings| {
        acceptor.first_bytes_ms_max = 300;
        acceptor.silent_max = 3;
    };
    with_tls(
        settings,
        |speech| speech,
        async |hub| {
            let (mut silent, mut half_hello, mut half_head) = (
                TcpStream::connect(hub.api).await.unwrap(),
                TcpStream::connect(hub.api).await.unwrap(),
                TcpStream::connect(hub.api).await.unwrap(),
            );
            half_hello.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
            half_head.write_all(b"GET / HTT").await.unwrap();
            let mut wordless = client(hub, "hub.example", &[HTTP_11]).await.unwrap();
            let mut speaks = client(hub, "hub.example", &[HTTP_11]).await.unwrap();
            assert!(peer_by(&mut speaks, 1_000).await.starts_with("HTTP/1.1 200 "));
            for socket in [&mut silent, &mut half_hello, &mut half_head] {
                soon(socket.read_to_end(&mut Vec::new())).await.unwrap_or(0);
            }
            soon(wordless.read(&mut [0; 8])).await.unwrap_err();
        },
    );
}

#[test]
fn on_a_shared_address_the_edges_names_go_to_the_edge_untouched_and_all_others_to_the_api() {
    let handed: Arc<Mutex<Vec<std::net::TcpStream>>> = Arc::default();
    let taking = Arc::clone(&handed);
    let shared = move |speech| {
        let Speech::Tls(speaker) = speech else { unreachable!() };
        let names = EdgeNames {
            api: Some("hub.link.example".to_owned()),
            links: None,
            base_domain: Some("link.example".to_owned()),
        };
        let hand_over: HandOver = Arc::new(move |socket| taking.lock().push(socket));
        Speech::Shared(speaker, names, hand_over)
    };
    with_tls(
        |_| {},
        shared,
        async |hub| {
            for name in ["hub.link.example", "hub.example", "127.0.0.1"] {
                let mut https = client(hub, name, &[HTTP_11]).await.unwrap();
                assert!(peer_by(&mut https, 1_000).await.starts_with("HTTP/1.1 200 "), "{name}");
            }
            let mut plain = TcpStream::connect(hub.api).await.unwrap();
            plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut said = String::new();
            soon(plain.read_to_string(&mut said)).await.unwrap();
            assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
            assert!(handed.lock().is_empty());

            let asking = tokio::task::spawn_local({
                let (believing, at) = (hub.believing.clone(), hub.api);
                async move {
                    let socket = TcpStream::connect(at).await.unwrap();
                    let name = ServerName::try_from("a-slug.link.example").unwrap();
                    tls::connect(Arc::new(believing), name, socket).await
                }
            });
            eventually("the edge's connection", || !handed.lock().is_empty()).await;
            let socket = handed.lock().pop().unwrap();
            let mut hello = [0; 1];
            assert_eq!(socket.peek(&mut hello).unwrap(), 1);
            assert_eq!(hello, [0x16], "from its first byte");
            drop(socket);
            asking.await.unwrap().unwrap_err();
        },
    );
}

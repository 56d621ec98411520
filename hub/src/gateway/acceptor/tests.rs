//! One port for requests, sessions and data connections, with silent and slow clients.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{
        GatewaySettings,
        rig::{Rig, SOON, soon},
    },
    *,
};

fn with_acceptor(settings: impl FnOnce(&mut AcceptorSettings), test: impl AsyncFnOnce(&Rig)) {
    actix_rt::System::new().block_on(async {
        let mut acceptor = AcceptorSettings { workers: 1, ..AcceptorSettings::default() };
        settings(&mut acceptor);
        let rig = Rig::start(GatewaySettings::default(), acceptor).await;
        test(&rig).await;
        assert!(rig.gateway.stop(SOON).await);
        rig.server.stop(false).await;
    });
}

async fn ask(socket: &mut TcpStream, piece: usize) -> String {
    let request = b"GET /peer HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
    for piece in request.chunks(piece) {
        socket.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[test]
fn a_handler_knows_its_peer_however_its_request_is_cut() {
    with_acceptor(
        |_| {},
        async |hub| {
            for piece in [1, 5, 1_000] {
                let mut socket = TcpStream::connect(hub.api).await.unwrap();
                socket.set_nodelay(true).unwrap();
                let here = socket.local_addr().unwrap().to_string();
                let answer = ask(&mut socket, piece).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&here), "{answer}");
            }
        },
    );
}

#[test]
fn connections_that_say_nothing_are_reset_and_never_keep_others_out() {
    let settings = |acceptor: &mut AcceptorSettings| {
        acceptor.first_bytes_ms_max = 200;
        acceptor.silent_max = 1;
    };
    with_acceptor(settings, async |hub| {
        let mut silent = TcpStream::connect(hub.api).await.unwrap();
        let mut second = TcpStream::connect(hub.api).await.unwrap();
        let mut speaks = TcpStream::connect(hub.api).await.unwrap();
        assert!(ask(&mut speaks, 1_000).await.starts_with("HTTP/1.1 200 "));
        // One makes room for the next, the last one meets its deadline.
        for socket in [&mut silent, &mut second] {
            let end = soon(socket.read(&mut [0; 8])).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_half_request_that_ends_is_no_data_connection() {
    with_acceptor(
        |_| {},
        async |hub| {
            let mut socket = TcpStream::connect(hub.api).await.unwrap();
            socket.write_all(b"GET /v1/agents/str").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = Vec::new();
            soon(socket.read_to_end(&mut answer)).await.unwrap();
        },
    );
}

#[test]
fn a_path_that_only_begins_like_the_data_path_is_http() {
    with_acceptor(
        |_| {},
        async |hub| {
            let mut socket = TcpStream::connect(hub.api).await.unwrap();
            let request = b"GET /v1/agents/streams HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n";
            socket.write_all(request).await.unwrap();
            let mut answer = String::new();
            soon(socket.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        },
    );
}

#[test]
fn a_slow_head_is_answered_408() {
    with_acceptor(
        |acceptor| acceptor.head_timeout_ms = 200,
        async |hub| {
            let mut socket = TcpStream::connect(hub.api).await.unwrap();
            socket.write_all(b"GET /peer HTTP/1.1\r\nHost:").await.unwrap();
            let mut answer = String::new();
            soon(socket.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        },
    );
}

#[test]
fn a_graceful_stop_ends_idle_connections() {
    with_acceptor(
        |_| {},
        async |hub| {
            let mut socket = TcpStream::connect(hub.api).await.unwrap();
            socket.write_all(b"GET /peer HTTP/1.1\r\nHost: hub\r\n\r\n").await.unwrap();
            soon(socket.read_u8()).await.unwrap();
            soon(hub.server.stop(true)).await;
            let mut rest = Vec::new();
            soon(socket.read_to_end(&mut rest)).await.unwrap();
        },
    );
}

//! What a look at a target shows, step by step.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::agent::target_tls::TargetTls;

const PATIENCE: Duration = Duration::from_secs(5);

fn judge() -> Arc<Judge> {
    TargetTls::default().judge(&Target { host: "localhost".to_owned(), port: 1 })
}

#[tokio::test]
async fn an_http_target_shows_its_status_and_a_dead_one_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = [0; 4];
        socket.read_exact(&mut request).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        request
    });
    let (found, _) = look(&judge(), &target, Protocol::Auto, PATIENCE).await;
    assert_eq!(&server.await.unwrap(), b"HEAD");
    assert!(found.reachable && found.latency_ms.is_some());
    assert_eq!(found.http.unwrap().detail, "HTTP/1.1 204 No Content");

    let (found, _) = look(&judge(), &target, Protocol::Http, PATIENCE).await;
    assert!(!found.reachable && found.http.is_none() && !found.tcp.unwrap().ok);
}

#[tokio::test]
async fn a_target_that_says_nothing_is_reachable_and_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let (found, _) = look(&judge(), &target, Protocol::Http, Duration::from_millis(100)).await;
    assert!(found.reachable && !found.http.unwrap().ok);
}

#[tokio::test]
async fn something_that_waits_to_be_spoken_to_does_not_use_up_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
    let began = Instant::now();
    let (found, _) = look(&judge(), &target, Protocol::Auto, PATIENCE * 2).await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(found.reachable && found.http.is_none());
}

#[tokio::test]
async fn what_a_target_was_found_to_speak_is_told_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    });
    let (found, speech) = look(&judge(), &target, Protocol::Auto, PATIENCE).await;
    assert_eq!(found.protocol.as_deref(), Some("tcp"));
    assert_eq!(speech, Some(Speech::plain(Protocol::Tcp)));
    assert!(found.http.is_none() && found.tls.is_none());
}

#[tokio::test]
async fn of_a_udp_target_nothing_is_claimed_but_a_way_to_it() {
    let target = Target { host: "localhost".to_owned(), port: 53 };
    let (found, _) = look(&judge(), &target, Protocol::Udp, PATIENCE).await;
    assert!(found.reachable && found.dns.unwrap().ok && found.udp.unwrap().ok);
    assert!(found.tcp.is_none() && found.latency_ms.is_none());
}

//! What is found out about targets of many kinds, and that some are never spoken to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::net::TcpListener;

use super::*;
use crate::agent::target_tls::{
    CertificateCheck, TargetTls,
    tests::{Manner, self_signed, serve},
};

/// A server that does this with each connection, and how many there were.
async fn server<F, T>(treat: F) -> (Target, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "localhost".to_owned(), port: listener.local_addr().unwrap().port() };
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(treat(socket));
        }
    });
    (target, connections)
}

/// Answers what comes with this, whatever it is.
async fn answering(answer: &'static [u8]) -> (Target, Arc<AtomicUsize>) {
    server(move |mut socket| async move {
        if let Ok(1..) = socket.read(&mut [0; 1_024]).await {
            let _ = socket.write_all(answer).await;
        }
    })
    .await
}

async fn looked(target: &Target) -> Seen {
    let began = Instant::now();
    let socket = dialer::dial(&target.host, target.port).await.unwrap();
    let seen = listen(&TargetTls::default().judge(target), target, socket).await;
    assert!(began.elapsed() < LOOK_PATIENCE + Duration::from_secs(3), "{:?}", began.elapsed());
    seen
}

#[tokio::test]
async fn a_web_server_is_known_by_one_question() {
    for answer in
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.0 404 Not Found\r\n\r\n", b"HTTP/1.1 501 No\r\n\r\n"]
    {
        let (target, connections) = answering(answer).await;
        let seen = looked(&target).await;
        assert_eq!(seen.speech, Speech::plain(Protocol::Http));
        assert!(seen.http.unwrap().ok && seen.tls.is_none());
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn who_finds_the_question_bad_or_sends_elsewhere_is_asked_for_tls_too() {
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n"]
    {
        let (target, connections) = answering(answer).await;
        assert_eq!(looked(&target).await.speech, Speech::plain(Protocol::Http));
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_target_that_greets_first_is_raw_and_gets_no_byte() {
    let heard = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&heard);
    let (target, connections) = server(move |mut socket| {
        let heard = Arc::clone(&counting);
        async move {
            socket.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
            heard.fetch_add(socket.read(&mut [0; 64]).await.unwrap_or(0), Ordering::Relaxed);
        }
    })
    .await;
    assert_eq!(looked(&target).await.speech, Speech::plain(Protocol::Tcp));
    assert_eq!((connections.load(Ordering::Relaxed), heard.load(Ordering::Relaxed)), (1, 0));
}

#[tokio::test]
async fn something_that_answers_in_its_own_way_is_raw() {
    let (target, _) = answering(b"-ERR unknown command\r\n").await;
    assert_eq!(looked(&target).await.speech, Speech::plain(Protocol::Tcp));
}

#[tokio::test]
async fn what_stays_silent_is_left_open_in_time() {
    let (target, connections) = server(|mut socket| async move {
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert_eq!(looked(&target).await.speech, Speech::plain(Protocol::Auto));
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn databases_and_printers_are_never_spoken_to() {
    for port in [5432, 3306, 6379, 27017, 9100, 515] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let target = Target { host: "localhost".to_owned(), port };
        let seen = listen(&TargetTls::default().judge(&target), &target, socket).await;
        assert_eq!(seen.speech, Speech::plain(Protocol::Tcp), "{port}");
        let (mut other, _) = listener.accept().await.unwrap();
        assert_eq!(other.read(&mut [0; 1]).await.unwrap(), 0, "{port}: nothing was sent");
    }
}

#[tokio::test]
async fn https_is_known_by_what_is_agreed_on_or_answered_and_its_certificate_is_judged() {
    for (alpn, manner) in [(&["h2"][..], Manner::Echo), (&[], Manner::HttpWithoutFarewell)] {
        let target = serve(self_signed(&["localhost", "127.0.0.1"]), alpn, manner).await;
        let seen = looked(&target).await;
        assert_eq!((seen.speech.protocol, seen.speech.is_tls), (Protocol::Https, true));
        assert!(seen.speech.distrust.unwrap().contains("--target-insecure"));
        let tls = seen.tls.unwrap();
        assert!(!tls.ok && tls.version.is_some());
        let facts = tls.certificate.unwrap();
        assert_eq!(facts.subject_alt_names, ["localhost", "127.0.0.1"]);
        assert_eq!((facts.subject.as_str(), facts.issuer.as_str()), ("CN=localhost", "CN=localhost"));
        assert!(!facts.is_trusted && facts.expires_at.ends_with(".000Z"), "{facts:?}");
        assert!(seen.http.unwrap().ok);
    }
}

#[tokio::test]
async fn tls_around_something_else_is_raw_but_known_as_tls() {
    let target = serve(self_signed(&["localhost"]), &[], Manner::Echo).await;
    let speech = looked(&target).await.speech;
    assert_eq!((speech.protocol, speech.is_tls), (Protocol::Tcp, true));
}

#[tokio::test]
async fn a_certificate_that_its_owner_does_not_want_checked_is_no_reason_for_distrust() {
    let target = serve(self_signed(&["localhost"]), &["http/1.1"], Manner::HttpWithoutFarewell).await;
    let tls = TargetTls::default();
    tls.decide(&target, &CertificateCheck::Unchecked).unwrap();
    let socket = dialer::dial(&target.host, target.port).await.unwrap();
    let seen = listen(&tls.judge(&target), &target, socket).await;
    assert_eq!(seen.speech.distrust, None);
    let tls = seen.tls.unwrap();
    assert!(tls.ok && tls.detail.contains("not checked"), "{}", tls.detail);
    assert!(!tls.certificate.unwrap().is_trusted);
}

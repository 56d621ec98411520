//! What one try makes of receivers that fail in every way, and who is never connected to.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_772_445_600_000);

fn outgoing(url: String) -> Outgoing {
    let headers = vec![("webhook-id", "evt_1".to_owned()), ("x-webhook-event", "tunnel.created".to_owned())];
    Outgoing { url, headers, body: Bytes::from_static(b"{\"a\":1}") }
}

fn reach(ranges: &[&str]) -> Reach {
    Reach { allowed: ranges.iter().map(|range| range.parse().unwrap()).collect(), own: Vec::new() }
}

fn loopback() -> Network {
    Network::new(reach(&["127.0.0.0/8"]), &Trust::System)
}

/// Answers these addresses, one after the other, and counts how often it was asked.
fn answering(answers: Vec<Vec<&'static str>>) -> (Resolver, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let resolve: Resolver = Arc::new(move |_| {
        let answer = answers[count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer.iter().map(|it| it.parse().unwrap()).collect()) })
    });
    (resolve, asked)
}

/// A receiver that reads a request and answers these bytes, then waits as long or closes.
async fn receiver(answer: &'static [u8], stays: bool) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?x=1", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"{\"a\":1}") {
            let mut part = [0; 1024];
            let read = socket.read(&mut part).await.unwrap();
            assert!(read > 0, "the request broke off");
            request.extend_from_slice(&part[..read]);
        }
        socket.write_all(answer).await.unwrap();
        if stays {
            // Until the hub goes.
            let _ = socket.read(&mut [0; 16]).await;
        }
        String::from_utf8(request).unwrap()
    });
    (url, task)
}

async fn said(answer: &'static [u8]) -> Reply {
    let (url, task) = receiver(answer, false).await;
    let reply = loopback().post(outgoing(url), NOW).await;
    task.abort();
    reply
}

#[tokio::test]
async fn a_message_is_a_post_with_its_headers_and_body() {
    let (url, task) = receiver(b"HTTP/1.1 204 No Content\r\n\r\n", false).await;
    let reply = loopback().post(outgoing(url.clone()), NOW).await;
    assert_eq!(reply, Reply { said: Said::Status(204), asked_ms: None });
    let request = task.await.unwrap();
    assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
    let authority = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    for line in [
        &format!("host: {authority}"),
        "content-type: application/json",
        "content-length: 7",
        "connection: close",
        "webhook-id: evt_1",
        "x-webhook-event: tunnel.created",
    ] {
        assert!(request.contains(&format!("{line}\r\n")), "{line} in {request}");
    }
    assert!(request.contains("user-agent: Private-Connect/"), "{request}");
}

#[tokio::test]
async fn every_way_to_fail_has_its_name() {
    for (answer, expected) in [
        (
            &b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"[..],
            Said::Status(302),
        ),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", Said::Status(410)),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", Said::Status(500)),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Said::Status(200)),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Said::Nothing(Problem::NotHttp)),
        (b"\x16\x03\x01\x02\x00", Said::Nothing(Problem::NotHttp)),
        (b"", Said::Nothing(Problem::BrokenOff)),
        (b"HTTP/1.1 200 OK\r\nX-Half: ", Said::Nothing(Problem::BrokenOff)),
    ] {
        let reply = said(answer).await;
        assert_eq!(reply.said, expected, "{:?}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn an_answers_body_is_nothing_to_wait_for() {
    // Endless, or shorter than it says: its status was said.
    let (url, task) = receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx", true).await;
    let since = Instant::now();
    let reply = loopback().post(outgoing(url), NOW).await;
    assert_eq!(reply.said, Said::Status(200));
    assert!(since.elapsed() < PATIENCE / 2, "it waited for the body: {:?}", since.elapsed());
    task.abort();
}

#[tokio::test]
async fn a_head_without_end_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let line = [b"X-Long: ", &[b'a'; 4096][..], b"\r\n"].concat();
        while socket.write_all(&line).await.is_ok() {}
    });
    let reply = loopback().post(outgoing(url), NOW).await;
    assert!(matches!(reply.said, Said::Nothing(Problem::NotHttp | Problem::BrokenOff)), "{reply:?}");
    task.abort();
}

#[tokio::test]
async fn a_receiver_that_says_nothing_or_drips_is_waited_for_a_while_and_no_longer() {
    assert_eq!(loopback().patience, Duration::from_secs(15));
    let mut network = loopback();
    network.patience = Duration::from_millis(400);
    for drips in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            if !drips {
                std::future::pending::<()>().await;
            }
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX-Slow: ").await;
            while socket.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let reply = network.post(outgoing(url), NOW).await;
        assert_eq!(reply.said, Said::Nothing(Problem::TimedOut), "drips: {drips}");
        task.abort();
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let reply = loopback().post(outgoing(format!("http://{address}/")), NOW).await;
    assert_eq!(reply.said, Said::Nothing(Problem::Unreachable));
}

#[tokio::test]
async fn a_receiver_without_tls_is_no_https() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let reply = loopback().post(outgoing(url), NOW).await;
    assert_eq!(reply.said, Said::Nothing(Problem::Tls));
    task.abort();
}

#[test]
fn retry_after_is_seconds_or_a_moment() {
    let asked = |status: u16, text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        asked_ms(StatusCode::from_u16(status).unwrap(), &headers, NOW)
    };
    assert_eq!(asked(429, "120"), Some(120_000));
    assert_eq!(asked(503, " 0 "), Some(0));
    assert_eq!(asked(503, "Mon, 02 Mar 2026 10:01:00 GMT"), Some(60_000));
    assert_eq!(asked(503, "Mon, 02 Mar 2020 10:01:00 GMT"), Some(0));
    assert_eq!(asked(429, "99999999999999999999999999"), Some(i64::MAX));
    for (status, text) in
        [(429, "soon"), (429, ""), (429, "-5"), (429, "1.5"), (500, "120"), (200, "120"), (301, "5")]
    {
        assert_eq!(asked(status, text), None, "{status} {text}");
    }
}

/// Counts who connects, on every address of this machine.
async fn watched() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").await.unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(socket);
        }
    });
    (port, came)
}

#[tokio::test]
async fn no_spelling_of_a_place_inside_is_connected_to() {
    let (port, came) = watched().await;
    let network = Network::new(reach(&[]), &Trust::System);
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "user@127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "100.64.0.1",
        "192.168.1.1",
    ] {
        for scheme in ["http", "https"] {
            let reply = network.post(outgoing(format!("{scheme}://{host}:{port}/")), NOW).await;
            let refused = matches!(reply.said, Said::Nothing(Problem::UrlRefused | Problem::AddressRefused));
            assert!(refused, "{scheme}://{host}: {reply:?}");
        }
    }
    for url in [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "ftp://example.com/",
        "https://example.com:22/",
        "https://example.com:6379/",
    ] {
        let reply = network.post(outgoing(url.to_owned()), NOW).await;
        assert_eq!(reply.said, Said::Nothing(Problem::UrlRefused), "{url}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "somebody was connected to");
}

#[tokio::test]
async fn a_name_is_asked_for_once_and_one_bad_address_among_good_ones_is_enough() {
    let (port, came) = watched().await;
    for answer in [
        vec!["127.0.0.1"],
        vec!["10.0.0.1"],
        vec!["::1"],
        vec!["::ffff:127.0.0.1"],
        vec!["64:ff9b::7f00:1"],
        vec!["169.254.169.254"],
        vec!["8.8.8.8", "127.0.0.1"],
        vec!["2606:4700::1111", "fd00::1"],
    ] {
        let (resolve, asked) = answering(vec![answer.clone()]);
        let network = Network::resolving(reach(&[]), &Trust::System, resolve);
        let reply = network.post(outgoing(format!("https://rebinding.example:{port}/")), NOW).await;
        assert_eq!(reply.said, Said::Nothing(Problem::AddressRefused), "{answer:?}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{answer:?}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0, "somebody was connected to");
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    // The first answer is allowed; a second question would lead elsewhere.
    let (url, task) = receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    let port = url.strip_prefix("http://127.0.0.1:").unwrap().split('/').next().unwrap().to_owned();
    let (resolve, asked) = answering(vec![vec!["127.0.0.1"], vec!["10.0.0.1"]]);
    let network = Network::resolving(reach(&["127.0.0.0/8"]), &Trust::System, resolve);
    let message = || outgoing(format!("http://inside.example:{port}/"));
    assert_eq!(network.post(message(), NOW).await.said, Said::Status(200));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    task.await.unwrap();
    // The next try asks again, and judges again.
    assert_eq!(network.post(message(), NOW).await.said, Said::Nothing(Problem::AddressRefused));
}

#[tokio::test]
async fn the_hub_is_not_reached_through_itself() {
    let (port, came) = watched().await;
    for own in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let mut reach = reach(&["127.0.0.0/8", "::1/128"]);
        reach.own = vec![own.parse().unwrap()];
        let network = Network::new(reach, &Trust::System);
        let reply = network.post(outgoing(format!("http://127.0.0.1:{port}/v1/api-keys")), NOW).await;
        assert_eq!(reply.said, Said::Nothing(Problem::AddressRefused), "{own}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn without_an_address_there_is_nobody_to_send_it_to() {
    let (resolve, _) = answering(vec![vec![]]);
    let network = Network::resolving(reach(&[]), &Trust::System, resolve);
    let reply = network.post(outgoing("https://nothing.example/".to_owned()), NOW).await;
    assert_eq!(reply.said, Said::Nothing(Problem::Unresolved));
}

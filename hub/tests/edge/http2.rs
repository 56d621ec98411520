//! Visitors who speak HTTP/2: what they ask arrives as HTTP/1.1, and each of their requests stands for itself.

use std::sync::mpsc;

use bytes::Bytes;

use crate::{
    h2_side::{
        ByHand, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PROTOCOL_ERROR, RST_STREAM, SETTINGS,
        Visitor, block, frame,
    },
    harness::*,
};

#[test]
fn requests_of_one_connection_are_answered_side_by_side_and_recorded_each() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut open = Vec::new();
        for n in 0..100 {
            open.push((n, visitor.start(visitor.request("GET", &format!("/{n}"))).await));
        }
        for (n, open) in open {
            let whole = open.whole().await;
            assert_eq!((whole.status.as_u16(), whole.text()), (200, format!("/{n}")));
            assert_eq!(whole.headers["content-type"], "text/plain");
            assert!(whole.headers.contains_key("date"));
        }
    });
    let mut paths: Vec<u32> =
        rig.records(100).iter().map(|(_, visitor)| visitor.path[1..].parse().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, (0..100).collect::<Vec<_>>());
    eventually("no stream is left", || rig.edge.metrics.streams_open.get() == 0);
}

#[test]
fn the_target_gets_an_ordinary_request() {
    let rig = Rig::new(answering(|head, _| ok(&format!("{}\n{:?}", head.first, head.lines))));
    let text = rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut request = visitor.request("GET", "/a%2Fb?c=d");
        let headers = request.headers_mut();
        headers.append("cookie", "a=1".parse().unwrap());
        headers.append("cookie", "b=2".parse().unwrap());
        headers.append("x-list", "1".parse().unwrap());
        headers.append("x-list", "2".parse().unwrap());
        headers.append("te", "trailers".parse().unwrap());
        headers.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
        visitor.start(request).await.whole().await.text()
    });
    let target = rig.routes.tunnel(tunnel_id()).unwrap().state.open().unwrap().created.target.to_string();
    assert!(text.starts_with("GET /a%2Fb?c=d HTTP/1.1\n"), "{text}");
    for line in [
        r#"("cookie", "a=1; b=2")"#,
        r#"("x-list", "1"), ("x-list", "2")"#,
        r#"("te", "trailers")"#,
        r#"("x-forwarded-for", "127.0.0.1")"#,
        &format!(r#"("x-forwarded-host", "{}")"#, rig.host()),
        &format!(r#"("host", "{target}")"#),
    ] {
        assert!(text.contains(line), "{line} is missing: {text}");
    }
    assert!(!text.contains("transfer-encoding"), "{text}");
}

#[test]
fn a_preface_that_comes_byte_by_byte_is_understood() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    let mut visitor = rig.visitor();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        visitor.send([*byte]);
        std::thread::yield_now();
    }
    visitor.send(frame(SETTINGS, 0, 0, &[]));
    let header = visitor.exactly(9);
    assert_eq!(header[3], SETTINGS);
    // What only begins like it is an HTTP/1.1 request with an odd method.
    let mut visitor = rig.visitor();
    visitor.send("PRI");
    visitor.send(format!("NT /x HTTP/1.1\r\nHost: {}\r\n\r\n", rig.host()));
    assert_eq!(visitor.head().status(), 200);
}

#[test]
fn bodies_of_every_size_arrive_byte_for_byte_in_both_directions() {
    const SIZES: [usize; 7] = [0, 1, 65_535, 65_536, 65_537, 200_000, 3 * 1024 * 1024];
    let rig = Rig::new(answering(|head, body| {
        let chunked = head.get("transfer-encoding").is_some();
        assert_ne!(chunked, head.get("content-length").is_some() || body.is_empty() && !chunked);
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    }));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for size in SIZES {
            for says_length in [false, true] {
                let body: Vec<u8> = (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
                let mut request = visitor.request("POST", "/");
                if says_length {
                    request.headers_mut().insert("content-length", size.into());
                }
                let (open, mut upload) = visitor.open(request).await;
                let sent = Bytes::from(body.clone());
                tokio::spawn(async move {
                    let mut left = sent;
                    while !left.is_empty() {
                        upload.reserve_capacity(left.len());
                        let room =
                            std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
                        upload.send_data(left.split_to(room), false).unwrap();
                    }
                    upload.send_data(Bytes::new(), true).unwrap();
                });
                let whole = open.whole().await;
                assert_eq!(whole.status, 200);
                assert!(whole.body == body, "{size} bytes, length said: {says_length}");
                assert_eq!(whole.headers["content-length"], size.to_string());
            }
        }
    });
    for (n, (access, _)) in rig.records(SIZES.len() * 2).iter().enumerate() {
        let size = SIZES[n / 2] as u64;
        assert_eq!((access.status_code, access.bytes_in, access.bytes_out), (200, size, size));
    }
}

#[test]
fn trailers_need_no_announcement_towards_the_visitor() {
    let (sent, seen) = mpsc::channel();
    let rig = Rig::new(target(move |mut conn| {
        let head = conn.head();
        let (chunks, trailers) = conn.chunked();
        sent.send((head.get("trailer").map(str::to_owned), chunks.concat(), trailers)).unwrap();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\n\r\n");
    }));
    let whole = rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut request = visitor.request("POST", "/");
        request.headers_mut().insert("trailer", "x-up".parse().unwrap());
        let (open, mut upload) = visitor.open(request).await;
        upload.send_data("abc".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-up", "9".parse().unwrap());
        upload.send_trailers(trailers).unwrap();
        open.whole().await
    });
    assert_eq!(whole.text(), "hi");
    let trailers = whole.trailers.unwrap();
    assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["7", "8"]);
    let (announced, body, trailers) = seen.recv().unwrap();
    assert_eq!((announced.as_deref(), body.as_slice()), (Some("x-up"), b"abc".as_slice()));
    assert_eq!(trailers, [("x-up".to_owned(), "9".to_owned())]);
}

#[test]
fn answers_without_a_body_keep_their_headers() {
    let rig = Rig::new(answering(|head, _| {
        match head.path() {
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-A: 1\r\n\r\n",
        }
        .into()
    }));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for (method, path, status, header) in [
            ("HEAD", "/", 200, ("content-length", "1234")),
            ("GET", "/304", 304, ("etag", "\"a\"")),
            ("GET", "/204", 204, ("x-a", "1")),
        ] {
            let whole = visitor.start(visitor.request(method, path)).await.whole().await;
            assert_eq!(whole.status, status);
            assert_eq!(whole.headers[header.0], header.1, "{method} {path}");
            assert!(whole.body.is_empty() && !whole.headers.contains_key("x-hop"));
        }
        rig.streams.is_connected.store(false, std::sync::atomic::Ordering::SeqCst);
        let refused = visitor.start(visitor.request("HEAD", "/")).await.whole().await;
        assert_eq!(refused.status, 503);
        assert!(refused.body.is_empty() && refused.headers.contains_key("content-length"));
    });
    rig.records(4);
}

#[test]
fn the_banner_goes_into_documents_over_http_2_too() {
    let rig = Rig::new(answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 32\r\n\r\n<!doctype html><body>hello</body>".to_vec()
    }));
    let whole = rig.block_on(async { Visitor::to(&rig).await.get("/").await });
    assert!(whole.text().contains("Shared with Private Connect"), "{}", whole.text());
    assert!(!whole.headers.contains_key("content-length"));
}

#[test]
fn a_host_that_differs_from_the_authority_is_refused() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for (host, status) in [
            ("elsewhere.example", 400),
            ("abcd2345efgh.localhost", 400),
            (visitor.request("GET", "/").uri().authority().unwrap().as_str(), 200),
        ] {
            let mut request = visitor.request("GET", "/");
            request.headers_mut().insert("host", host.parse().unwrap());
            let whole = visitor.start(request).await.whole().await;
            assert_eq!(whole.status, status, "{host}");
        }
    });
    rig.records(1);
}

/// Sends one request on a connection of its own; whether the stream or the connection was refused as malformed.
fn is_malformed(rig: &Rig, lines: impl Fn(&ByHand) -> Vec<u8>, body: Option<&str>) -> bool {
    let mut visitor = ByHand::to(rig);
    let block = lines(&visitor);
    let end = if body.is_none() { END_STREAM } else { 0 };
    visitor.send(frame(HEADERS, end | END_HEADERS, 1, &block));
    if let Some(body) = body {
        visitor.send(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    let told =
        std::iter::from_fn(|| visitor.next()).find(|frame| [RST_STREAM, GOAWAY, DATA].contains(&frame.kind));
    told.is_some_and(|frame| frame.kind != DATA && frame.reason() == PROTOCOL_ERROR)
}

#[test]
fn what_must_not_be_said_over_http_2_is_refused() {
    let (sent, seen) = mpsc::channel();
    let rig = Rig::new(target(move |mut conn| {
        sent.send(()).unwrap();
        conn.until_over();
    }));
    let cases: [&[(&str, &str)]; 13] = [
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "websocket")],
        &[("keep-alive", "timeout=5")],
        &[("proxy-connection", "close")],
        &[("te", "gzip")],
        &[("X-Upper", "1")],
        &[("x-crlf", "a\r\nx-smuggled: 1")],
        &[("x-lf", "a\nb")],
        &[("x-nul", "a\0b")],
        &[("x bad", "1")],
        &[("x-bad:", "1")],
        &[(":status", "200")],
    ];
    for more in cases {
        let lines = |visitor: &ByHand| block(&[&visitor.lines("GET", "/"), more].concat());
        assert!(is_malformed(&rig, lines, None), "{more:?}");
    }
    for path in ["", "nothing", "/a b", "/a\r\nx: y", "/\0"] {
        assert!(is_malformed(&rig, |visitor| block(&visitor.lines("GET", path)), None), "{path:?}");
    }
    for left_out in 0..3 {
        let lines = |visitor: &ByHand| {
            let mut lines = visitor.lines("GET", "/");
            lines.remove(left_out);
            block(&lines)
        };
        assert!(is_malformed(&rig, lines, None), "without the pseudo-header number {left_out}");
    }
    assert!(seen.try_recv().is_err(), "nothing of this reached the target");
    // A body that is not as long as it was said to be.
    for body in ["12", "1234"] {
        let lines =
            |visitor: &ByHand| block(&[visitor.lines("POST", "/"), vec![("content-length", "3")]].concat());
        assert!(is_malformed(&rig, lines, Some(body)), "{body:?}");
    }
}

#[test]
fn methods_of_a_share_hold_over_http_2() {
    use domain::policy::methods::Method;
    let rig = Rig::with(answering(|head, _| ok(head.path())), Setup::default().methods(&[Method::Get]));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for (method, status) in
            [("GET", 200), ("HEAD", 200), ("POST", 403), ("get", 403), ("PROPFIND", 403), ("TRACE", 403)]
        {
            let whole = visitor.start(visitor.request(method, "/")).await.whole().await;
            assert_eq!(whole.status, status, "{method}");
        }
        let mut connect = visitor.request("CONNECT", "/");
        *connect.uri_mut() = http::Uri::builder().authority(rig.host()).build().unwrap();
        assert_eq!(visitor.start(connect).await.whole().await.status, 403);
    });
    rig.records(7);
}

#[test]
fn the_bare_host_answers_over_http_2() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for (path, status, text) in [
            (format!("/shared/{TOKEN}/x?y"), 200, "/x?y".to_owned()),
            (format!("/v1/shared/{TOKEN}/info"), 200, format!("Info GET {TOKEN} 0")),
        ] {
            let mut request = visitor.request("GET", "/");
            *request.uri_mut() = format!("http://{}{path}", rig.edge.local_addr).parse().unwrap();
            let whole = visitor.start(request).await.whole().await;
            assert_eq!((whole.status.as_u16(), whole.text()), (status, text), "{path}");
        }
    });
}

#[test]
fn other_hosts_of_the_edge_share_a_connection_and_nothing_else() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut other = visitor.request("GET", "/");
        *other.uri_mut() = "http://unknown2345.localhost/".parse().unwrap();
        assert_eq!(visitor.start(other).await.whole().await.code(), "share_not_found");
        assert_eq!(visitor.get("/mine").await.text(), "/mine");
    });
    rig.records(1);
}

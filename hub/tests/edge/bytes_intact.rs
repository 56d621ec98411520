//! What goes through arrives byte for byte, in both directions, as it is sent.

use std::sync::mpsc;

use crate::harness::*;

const SIZES: [usize; 7] = [0, 1, 65_535, 65_536, 65_537, 200_000, 5 * 1024 * 1024];

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

fn chunked(body: &[u8], pieces: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(pieces) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[test]
fn bodies_of_every_size_arrive_byte_for_byte_in_both_directions() {
    let rig = Rig::new(answering(|head, body| {
        if head.get("transfer-encoding").is_some() {
            return [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
                &chunked(&body, 30_000),
            ]
            .concat();
        }
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    }));
    let mut visitor = rig.visitor();
    for size in SIZES {
        let body = pattern(size);
        for coding in ["chunked", "length"] {
            let line = if coding == "chunked" {
                "Transfer-Encoding: chunked\r\n".to_owned()
            } else {
                format!("Content-Length: {size}\r\n")
            };
            let request = rig.request("POST /echo", &line, "");
            let sent = if coding == "chunked" { chunked(&body, 10_000) } else { body.clone() };
            let mut writer = visitor.socket().try_clone().unwrap();
            let answer = std::thread::scope(|scope| {
                scope.spawn(move || {
                    use std::io::Write as _;
                    writer.write_all(request.as_bytes()).unwrap();
                    writer.write_all(&sent).unwrap();
                });
                visitor.ask("")
            });
            assert_eq!(answer.status(), 200);
            assert!(answer.body == body, "{size} bytes, {coding}");
            let is_chunked = answer.head.get("transfer-encoding").is_some();
            assert_eq!(is_chunked, coding == "chunked");
        }
    }
    let records = rig.records(SIZES.len() * 2);
    for (n, (access, _)) in records.iter().enumerate() {
        let size = SIZES[n / 2] as u64;
        assert_eq!((access.status_code, access.bytes_in, access.bytes_out), (200, size, size));
        assert_eq!(access.ended_by, None);
    }
    assert_eq!(
        rig.streams.opened.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "one kept connection was enough"
    );
}

#[test]
fn a_get_with_a_chunked_body_keeps_it() {
    let rig = Rig::new(answering(|_, body| ok(&String::from_utf8(body).unwrap())));
    let answer =
        rig.visitor().ask(rig.request("GET /", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"));
    assert_eq!(answer.text(), "abc");
}

#[test]
fn trailers_pass_in_both_directions_whether_anybody_announced_them_or_not() {
    for (request_head, answer_head) in
        [("TE: trailers\r\nTrailer: X-Up\r\n", "Trailer: X-Sum\r\n"), ("", ""), ("TE: trailers\r\n", "")]
    {
        let (sent, seen) = mpsc::channel();
        let rig = Rig::new(target(move |mut conn| {
            while let Some(head) = conn.try_head() {
                let (chunks, trailers) = conn.chunked();
                sent.send((head, chunks.concat(), trailers)).unwrap();
                conn.send(format!(
                    "HTTP/1.1 200 OK\r\n{answer_head}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
                     X-Sum: 7\r\nX-Sum: 8\r\nContent-Length: 3\r\n\r\n"
                ));
            }
        }));
        let mut visitor = rig.visitor();
        for _ in 0..3 {
            let more = format!("{request_head}Transfer-Encoding: chunked\r\n");
            visitor.send(rig.request("POST /", &more, "3\r\nabc\r\n0\r\nX-Up: 9\r\n\r\n"));
            let head = visitor.head();
            assert_eq!(head.get("trailer"), (!answer_head.is_empty()).then_some("X-Sum"));
            let sums = [("x-sum".to_owned(), "7".to_owned()), ("x-sum".to_owned(), "8".to_owned())];
            assert_eq!(visitor.chunked(), (vec![b"hi".to_vec()], sums.to_vec()));
            let (head, body, trailers) = seen.recv().unwrap();
            assert_eq!(head.get("te"), request_head.contains("TE").then_some("trailers"));
            let up = vec![("x-up".to_owned(), "9".to_owned())];
            assert_eq!((body.as_slice(), trailers), (b"abc".as_slice(), up));
        }
        assert_eq!(
            rig.streams.opened.load(std::sync::atomic::Ordering::SeqCst),
            1,
            "the connection was kept"
        );
    }
}

#[test]
fn trailers_stay_behind_their_own_answer_in_a_pipeline() {
    let rig = Rig::new(answering(|head, _| {
        let path = head.path();
        // A body that looks like an end of chunks.
        let body = format!("0\r\n\r\n{path}\r\n0\r\n\r\n");
        let trailer = if path.ends_with('0') { String::new() } else { format!("X-Path: {path}\r\n") };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n0\r\n{trailer}\r\n", body.len()).into_bytes()
    }));
    let mut visitor = rig.visitor();
    let requests: String = (0..50).map(|n| rig.request(&format!("GET /{n}"), "", "")).collect();
    visitor.send(requests);
    for n in 0..50 {
        assert_eq!(visitor.head().status(), 200);
        let (chunks, trailers) = visitor.chunked();
        assert_eq!(chunks.concat(), format!("0\r\n\r\n/{n}\r\n0\r\n\r\n").as_bytes());
        let expected = (n % 10 != 0).then(|| ("x-path".to_owned(), format!("/{n}")));
        assert_eq!(trailers, expected.into_iter().collect::<Vec<_>>());
    }
    // A visitor who does not know chunks gets none of this.
    let answer = rig.visitor().ask(format!("GET /shared/{TOKEN}/1 HTTP/1.0\r\n\r\n"));
    assert_eq!(answer.text(), "0\r\n\r\n/1\r\n0\r\n\r\n");
}

#[test]
fn answers_without_a_body_keep_their_headers() {
    let rig = Rig::new(answering(|head, _| {
        match head.path() {
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\n\r\n",
        }
        .into()
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("HEAD /", "", ""));
    let head = visitor.head();
    assert_eq!((head.status(), head.get("content-length"), head.get("x-a")), (200, Some("1234"), Some("1")));
    visitor.send(rig.request("HEAD /chunked", "", ""));
    assert_eq!(visitor.head().get("content-length"), None, "nobody said how long it is");
    visitor.send(rig.request("GET /304", "If-None-Match: \"a\"\r\n", ""));
    let head = visitor.head();
    assert_eq!((head.status(), head.get("etag")), (304, Some("\"a\"")));
    visitor.send(rig.request("GET /204", "", ""));
    assert_eq!(visitor.head().status(), 204);
    visitor.send(rig.request("HEAD /", "", ""));
    assert_eq!(visitor.head().status(), 200, "nothing of a body was left over");
    rig.records(5);
}

#[test]
fn ranges_compression_and_repeated_headers_stay_as_they_are() {
    let packed = b"\x1f\x8b\x08not really gzip\x00\xff";
    let rig = Rig::new(answering(move |head, _| {
        assert_eq!(head.get("range"), Some("bytes=2-4"));
        assert_eq!(head.get("accept-encoding"), Some("gzip, br"));
        assert_eq!(head.all("x-list"), ["1", "2"]);
        assert_eq!(head.get("traceparent"), Some("00-1-2-01"));
        let head = format!(
            "HTTP/1.1 206 Partial Things\r\nContent-Range: bytes 2-4/9\r\nContent-Encoding: gzip\r\nSet-Cookie: a=1\r\n\
             Set-Cookie: b=2; Domain=.evil.example\r\nContent-Type: text/html\r\nContent-Length: {}\r\nX-Odd: \x09a  b\r\n\r\n",
            packed.len()
        );
        [head.as_bytes(), packed].concat()
    }));
    let more = "Range: bytes=2-4\r\nAccept-Encoding: gzip, br\r\nX-List: 1\r\nX-List: 2\r\ntraceparent: 00-1-2-01\r\n";
    let answer = rig.get_with("/", more);
    assert_eq!(answer.head.first, "HTTP/1.1 206 Partial Things");
    assert_eq!(answer.body, packed);
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(answer.head.get("x-odd"), Some("a  b"));
    assert_eq!(answer.head.get("content-encoding"), Some("gzip"));
}

#[test]
fn the_target_receives_the_visitors_own_path_bytes() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    for path in ["/", "/a%2Fb//c/./d/../e;x=1?q=%20&r=/../", "/%e4%00%", "/a\\b|{}\"^?", "/a?b?c", "/*"] {
        assert_eq!(rig.get(path).text(), path);
        assert_eq!(rig.bare(&format!("GET /shared/{TOKEN}{path}"), "").text(), path);
    }
    assert_eq!(rig.bare(&format!("GET /shared/{TOKEN}"), "").text(), "/");
    assert_eq!(rig.bare(&format!("GET /shared/{TOKEN}?a=b"), "").text(), "/?a=b");
    let absolute = rig.visitor().ask(rig.request(&format!("GET http://{}/x?y", rig.host()), "", ""));
    assert_eq!(absolute.text(), "/x?y");
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for n in 0..3 {
            conn.send(format!("9\r\ndata: {n}\n\n\r\n"));
            wait.lock().recv().unwrap();
        }
        conn.send("0\r\n\r\n");
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /events", "Accept: text/event-stream\r\n", ""));
    assert_eq!(visitor.head().get("content-type"), Some("text/event-stream"));
    for n in 0..3 {
        // The target sends no more before this one has arrived.
        assert_eq!(visitor.chunk(), format!("data: {n}\n\n").as_bytes());
        go.send(()).unwrap();
    }
    assert_eq!(visitor.chunk(), b"");
}

#[test]
fn an_upload_streams_before_it_is_complete() {
    let (sent, seen) = mpsc::channel();
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        sent.send(conn.chunk()).unwrap();
        conn.chunked();
        conn.send(ok("done"));
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"));
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"abc");
    visitor.send("1\r\nd\r\n0\r\n\r\n");
    assert_eq!(visitor.head().status(), 200);
}

#[test]
fn a_websocket_is_carried_after_the_targets_101() {
    let rig = Rig::new(target(|mut conn| {
        let head = conn.head();
        assert_eq!((head.get("connection"), head.get("upgrade")), (Some("upgrade"), Some("websocket")));
        assert_eq!(head.get("sec-websocket-key"), Some("a2V5"));
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello");
        let echo = conn.exactly(4);
        conn.send(echo);
        conn.until_over();
    }));
    let mut visitor = rig.visitor();
    let more = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n";
    visitor.send(rig.request("GET /ws", more, ""));
    let head = visitor.head();
    assert_eq!((head.status(), head.get("sec-websocket-accept")), (101, Some("x")));
    assert_eq!(visitor.exactly(5), b"hello");
    visitor.send("ping");
    assert_eq!(visitor.exactly(4), b"ping");
    visitor.finish();
    assert!(visitor.is_over());
    let (access, _) = &rig.records(1)[0];
    assert_eq!((access.status_code, access.bytes_in, access.bytes_out), (101, 4, 9));
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer_and_the_connection_goes_on() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    let mut visitor = rig.visitor();
    let more = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    // What follows at once must be read as a request, never be carried as raw bytes.
    visitor.send(rig.request("GET /one", more, "") + &rig.request("GET /two", "", ""));
    for path in ["/one", "/two"] {
        let head = visitor.head();
        assert_eq!(String::from_utf8(visitor.response_body(&head)).unwrap(), path);
    }
    rig.records(2);
}

#[test]
fn other_upgrades_are_not_passed_on() {
    let rig = Rig::new(answering(|head, _| ok(&format!("{:?}", head.get("upgrade")))));
    let more = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    assert_eq!(rig.get_with("/", more).text(), "None");
}

#[test]
fn the_target_sees_who_the_visitor_really_is() {
    let rig = Rig::new(answering(|head, _| {
        let names = [
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "forwarded",
            "x_forwarded_for",
            "x-real-ip",
        ];
        let seen: Vec<_> = names.iter().map(|name| head.all(name).join("+")).collect();
        ok(&seen.join("|"))
    }));
    let more = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let host = rig.host();
    let target = rig.routes.tunnel(tunnel_id()).unwrap().state.open().unwrap().created.target.to_string();
    let expected = format!("{target}|127.0.0.1|{host}|http|for=127.0.0.1;host=\"{host}\";proto=http||");
    assert_eq!(rig.get_with("/", more).text(), expected);
    assert_eq!(rig.records(1)[0].1.ip, "127.0.0.1");
}

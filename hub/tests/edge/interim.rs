//! What a target says before its answer: 103 and its like, and 100 to whoever waits with his upload.

use std::{sync::mpsc, time::Instant};

use crate::{h2_side::Visitor, harness::*};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\
                     Connection: x-hop\r\nX-Hop: 1\r\n\r\n";

#[test]
fn early_hints_arrive_before_the_answer() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let rig = Rig::new(target(move |mut conn| {
        while conn.try_head().is_some() {
            conn.send(HINTS);
            wait.lock().recv().unwrap();
            conn.send("HTTP/1.1 102 Processing\r\n\r\n");
            conn.send(ok("done"));
        }
    }));
    let mut visitor = rig.visitor();
    for _ in 0..2 {
        visitor.send(rig.request("GET /", "", ""));
        let hints = visitor.head();
        assert_eq!(hints.first, "HTTP/1.1 103 Early Hints");
        assert_eq!(hints.all("link"), ["</a.css>; rel=preload", "</b.js>; rel=preload"]);
        assert_eq!((hints.get("x-hop"), hints.get("connection")), (None, None));
        go.send(()).unwrap();
        assert_eq!(visitor.head().status(), 102);
        let head = visitor.head();
        assert_eq!(head.status(), 200);
        assert_eq!(visitor.response_body(&head), b"done");
    }
    // HTTP/1.0 knows none of this.
    let mut visitor = rig.visitor();
    go.send(()).unwrap();
    let answer = visitor.ask(format!("GET /shared/{TOKEN}/ HTTP/1.0\r\n\r\n"));
    assert_eq!((answer.status(), answer.text().as_str()), (200, "done"));
    rig.records(3);
}

#[test]
fn informational_answers_and_the_final_one_keep_their_order_however_fast_they_come() {
    let rig = Rig::new(answering(|head, _| {
        let hints = "HTTP/1.1 103 Early Hints\r\nX-N: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-N: 2\r\n\r\n";
        [hints.as_bytes(), &ok(head.path())].concat()
    }));
    let mut visitor = rig.visitor();
    // Pipelined: the first answer may still be on its way when the second's hints come.
    let requests: String = (0..50).map(|n| rig.request(&format!("GET /{n}"), "", "")).collect();
    visitor.send(requests);
    for n in 0..50 {
        for hint in ["1", "2"] {
            let head = visitor.head();
            assert_eq!((head.status(), head.get("x-n")), (103, Some(hint)), "{n}");
        }
        let head = visitor.head();
        assert_eq!(visitor.response_body(&head), format!("/{n}").as_bytes());
    }
}

#[test]
fn informational_answers_arrive_over_http_2_in_front_of_the_answer() {
    let rig = Rig::new(answering(|_, _| [HINTS.as_bytes(), &ok("done")].concat()));
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut open = visitor.start(visitor.request("GET", "/")).await;
        let hints = std::future::poll_fn(|cx| open.0.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(hints.status(), 103);
        assert_eq!(hints.headers().get_all("link").iter().count(), 2);
        assert!(!hints.headers().contains_key("x-hop"));
        assert_eq!(open.whole().await.text(), "done");
    });
}

#[test]
fn an_upload_that_is_announced_waits_until_the_target_wants_it() {
    let (asked, has_asked) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let rig = Rig::new(target(move |mut conn| {
        while let Some(head) = conn.try_head() {
            asked.send(head.get("expect").map(str::to_owned)).unwrap();
            wait.lock().recv().unwrap();
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = conn.request_body(&head);
            conn.send(ok(&String::from_utf8(body).unwrap()));
        }
    }));
    let more = "Expect: 100-continue\r\nContent-Length: 5\r\n";
    let mut visitor = rig.visitor();
    for _ in 0..2 {
        visitor.send(rig.request("POST /", more, ""));
        assert_eq!(has_asked.recv_timeout(PATIENCE).unwrap().as_deref(), Some("100-continue"));
        go.send(()).unwrap();
        assert_eq!(visitor.head().status(), 100);
        visitor.send("hello");
        let head = visitor.head();
        assert_eq!((head.status(), visitor.response_body(&head).as_slice()), (200, b"hello".as_slice()));
    }
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut request = visitor.request("POST", "/");
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let (mut open, mut upload) = visitor.open(request).await;
        go.send(()).unwrap();
        let answer = std::future::poll_fn(|cx| open.0.poll_informational(cx)).await.unwrap().unwrap();
        has_asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer.status(), 100);
        upload.send_data("hello".into(), true).unwrap();
        assert_eq!(open.whole().await.text(), "hello");
    });
    rig.records(3);
}

#[test]
fn an_upload_that_the_target_does_not_want_is_never_asked_for() {
    let rig = Rig::new(target(|mut conn| {
        conn.head();
        conn.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        assert!(conn.is_over(), "no byte of the body came");
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Expect: 100-continue\r\nContent-Length: 1000000\r\n", ""));
    let head = visitor.head();
    assert_eq!((head.status(), visitor.response_body(&head).as_slice()), (413, b"no".as_slice()));
    let (access, _) = &rig.records(1)[0];
    assert_eq!((access.status_code, access.bytes_in), (413, 0));
    // The same for a share that is closed to the request: nothing is uploaded to be refused.
    rig.streams.is_connected.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Expect: 100-continue\r\nContent-Length: 1000000\r\n", ""));
    assert_eq!(visitor.head().status(), 503);
}

#[test]
fn a_target_that_says_nothing_gets_the_upload_after_a_while() {
    let rig = Rig::new(answering(|_, body| ok(&body.len().to_string())));
    let begun = Instant::now();
    let mut visitor = rig.visitor();
    visitor.send(rig.request("POST /", "Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
    assert_eq!(visitor.head().status(), 100);
    visitor.send("hello");
    let head = visitor.head();
    assert_eq!(visitor.response_body(&head), b"5");
    assert!((500..5_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[test]
fn a_100_that_nobody_waits_for_is_not_passed_on() {
    let rig = Rig::new(answering(|_, _| [b"HTTP/1.1 100 Continue\r\n\r\n".as_slice(), &ok("done")].concat()));
    assert_eq!(rig.get("/").text(), "done");
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut open = visitor.start(visitor.request("GET", "/")).await;
        let informed = std::future::poll_fn(|cx| match open.0.poll_informational(cx) {
            std::task::Poll::Ready(informed) => std::task::Poll::Ready(informed.is_some()),
            std::task::Poll::Pending => std::pin::Pin::new(&mut open.0).poll(cx).map(|_| false),
        });
        assert!(!informed.await);
    });
}

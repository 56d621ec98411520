//! Links in path form, slug origins, and the banner.

use std::io::{Read as _, Write as _};

use hub::edge::EdgeOptions;

use crate::harness::*;

const PAGE: &str = "<!doctype html><html><head><title>t</title></head><body class=x><p>hi</p></body></html>";
const NAME: &str = "Shop &#60;b&#62;preview&#60;/b&#62;";

fn html(more: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_link_in_path_form_prefixes_locations_and_cookies() {
    let rig = Rig::new(answering(|head, _| {
        let host = head.get("host").unwrap();
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{host}/login?a\r\nSet-Cookie: a=1; Path=/\r\n\
             Set-Cookie: b=2; Domain={host}\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }));
    let answer = rig.bare(&format!("GET /shared/{TOKEN}/x"), "");
    assert_eq!(answer.head.get("location").unwrap(), format!("/shared/{TOKEN}/login?a"));
    assert_eq!(
        answer.head.all("set-cookie"),
        [format!("a=1; Path=/shared/{TOKEN}/"), format!("b=2; Path=/shared/{TOKEN}/")]
    );
    assert_eq!(answer.head.get("referrer-policy"), Some("no-referrer"));
    let answer = rig.get("/x");
    assert_eq!(answer.head.get("location"), Some("/login?a"));
    assert_eq!(answer.head.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(answer.head.get("referrer-policy"), None);
}

#[test]
fn a_browser_on_a_link_is_sent_to_the_slugs_origin() {
    let rig = Rig::new(answering(|_, _| html("", PAGE.as_bytes())));
    let origin = format!("http://{}", rig.host());
    for more in ["Sec-Fetch-Mode: navigate\r\n", "Accept: text/html,*/*\r\n"] {
        let answer = rig.bare(&format!("GET /shared/{TOKEN}/a%2Fb?c=d"), more);
        assert_eq!(
            (answer.status(), answer.head.get("location")),
            (302, Some(format!("{origin}/a%2Fb?c=d").as_str()))
        );
    }
    let answer = rig.bare(&format!("GET /shared/{TOKEN}"), "Sec-Fetch-Mode: navigate\r\n");
    assert_eq!(answer.head.get("location").unwrap(), format!("{origin}/"));
    // What is no navigation is answered on the spot.
    let fetched =
        rig.bare(&format!("GET /shared/{TOKEN}/"), "Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n");
    assert_eq!((fetched.status(), fetched.text().as_str()), (200, PAGE));
    assert_eq!(rig.bare(&format!("GET /shared/{TOKEN}/"), "Accept: */*\r\n").status(), 200);
    rig.records(5);
}

#[test]
fn where_no_slug_origin_works_a_page_is_sandboxed() {
    let rig =
        Rig::new(answering(|_, _| html("Content-Security-Policy: default-src 'self'\r\n", PAGE.as_bytes())));
    let request =
        format!("GET /shared/{TOKEN}/ HTTP/1.1\r\nHost: hub.lan:7080\r\nSec-Fetch-Mode: navigate\r\n\r\n");
    let answer = rig.visitor().ask(request);
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.head.all("content-security-policy"),
        ["default-src 'self'", "sandbox allow-scripts allow-forms allow-popups"]
    );
    assert_eq!(rig.get("/").head.all("content-security-policy"), ["default-src 'self'"]);
}

#[test]
fn with_a_base_domain_shares_answer_below_it() {
    let setup = Setup::default();
    let edge = EdgeOptions {
        base_domain: Some("share.example".to_owned()),
        scheme: "https".to_owned(),
        ..setup.edge.clone()
    };
    let rig = Rig::with(answering(|head, _| ok(head.path())), Setup { edge, ..setup });
    let ask = |host: &str, path: &str, more: &str| {
        rig.visitor().ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"))
    };
    assert_eq!(ask(&format!("{SLUG}.share.example"), "/x", "").text(), "/x");
    assert_eq!(ask(&format!("{}.SHARE.example.:443", SLUG.to_uppercase()), "/x", "").text(), "/x");
    let sent = ask("share.example", &format!("/shared/{TOKEN}/x"), "Sec-Fetch-Mode: navigate\r\n");
    assert_eq!(sent.head.get("location").unwrap(), format!("https://{SLUG}.share.example/x"));
}

#[test]
fn the_api_paths_of_a_link_are_answered_on_the_bare_host_only() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    assert_eq!(rig.bare(&format!("GET /v1/shared/{TOKEN}/info"), "").text(), format!("Info GET {TOKEN} 0"));
    let query = format!(
        "POST /api/shared/{TOKEN}/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"
    );
    assert_eq!(rig.visitor().ask(query).text(), format!("Query POST {TOKEN} 4"));
    let path = format!("/v1/shared/{TOKEN}/info");
    assert_eq!(rig.get(&path).text(), path);
    rig.records(1);
}

#[test]
fn a_whole_document_gets_the_banner_and_honest_headers() {
    let rig = Rig::new(answering(|head, _| {
        assert_eq!(head.get("accept-encoding"), Some("identity"));
        html("ETag: \"v1\"\r\nAccept-Ranges: bytes\r\nContent-MD5: x\r\nX-Keep: 1\r\n", PAGE.as_bytes())
    }));
    let answer = rig.get_with("/", "Accept: text/html\r\nAccept-Encoding: gzip, br\r\n");
    let text = answer.text();
    let (before, after) = text.split_once("<body class=x>").unwrap();
    assert!(before.ends_with("</head>") && after.ends_with("<p>hi</p></body></html>"));
    assert!(after.starts_with("<table") && after.contains(NAME), "{after}");
    let head = &answer.head;
    assert_eq!(head.get("etag"), Some("\"v1-pconnect\""));
    assert_eq!(
        (head.get("accept-ranges"), head.get("content-md5"), head.get("x-keep")),
        (None, None, Some("1"))
    );
    let (access, _) = &rig.records(1)[0];
    assert_eq!(access.bytes_out, text.len() as u64);
}

#[test]
fn a_document_that_the_visitor_still_has_is_recognised() {
    let rig = Rig::new(answering(|head, _| {
        assert_eq!(head.get("if-none-match"), Some("\"v1\""));
        b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec()
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "If-None-Match: \"v1-pconnect\"\r\n", ""));
    assert_eq!(visitor.head().get("etag"), Some("\"v1-pconnect\""));
}

#[test]
fn a_packed_document_gets_the_banner_inside() {
    let rig = Rig::new(answering(|_, _| html("Content-Encoding: gzip\r\n", &gzip(PAGE))));
    let answer = rig.get_with("/", "Accept-Encoding: gzip\r\n");
    assert_eq!(answer.head.get("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text).unwrap();
    assert!(text.contains(&format!("<b>{NAME}</b>")), "{text}");
    assert!(text.ends_with("<p>hi</p></body></html>"));
}

#[test]
fn everything_that_is_no_whole_document_stays_as_it_is() {
    let fragment = "<div>a fragment</div>";
    for (more, answer) in [
        ("", html("", fragment.as_bytes())),
        ("", html("", b"")),
        ("", html("Content-Encoding: gzip\r\n", b"broken gzip <!doctype html><body>")),
        ("", html("Content-Encoding: gzip\r\n", &gzip(fragment))),
        ("", html("Content-Disposition: attachment\r\n", PAGE.as_bytes())),
        ("", html("Cache-Control: no-transform\r\n", PAGE.as_bytes())),
        ("HX-Request: true\r\n", html("", PAGE.as_bytes())),
        ("X-Requested-With: XMLHttpRequest\r\n", html("", PAGE.as_bytes())),
        ("Sec-Fetch-Dest: iframe\r\n", html("", PAGE.as_bytes())),
        ("", ok(PAGE)),
        (
            "",
            format!(
                "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}",
                PAGE.len()
            )
            .into_bytes(),
        ),
    ] {
        let body_at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let expected = answer[body_at..].to_vec();
        let rig = Rig::new(answering(move |_, _| answer.clone()));
        let got = rig.get_with("/", more);
        assert_eq!(String::from_utf8_lossy(&got.body), String::from_utf8_lossy(&expected), "{more}");
        assert_eq!(got.head.get("content-length").unwrap(), expected.len().to_string());
    }
}

#[test]
fn the_banner_can_be_switched_off() {
    let setup = Setup::default();
    let edge = EdgeOptions { banner: false, ..setup.edge.clone() };
    let rig = Rig::with(
        answering(|head, _| {
            assert_eq!(head.get("accept-encoding"), Some("br"));
            html("", PAGE.as_bytes())
        }),
        Setup { edge, ..setup },
    );
    assert_eq!(rig.get_with("/", "Accept: text/html\r\nAccept-Encoding: br\r\n").text(), PAGE);
}

#[test]
fn a_document_that_streams_keeps_streaming() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let rig = Rig::new(target(move |mut conn| {
        conn.head();
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<!doc\r\n",
        );
        conn.send("10\r\ntype html><body>\r\n");
        wait.lock().recv().unwrap();
        conn.send("3\r\nend\r\n0\r\n\r\n");
    }));
    let mut visitor = rig.visitor();
    visitor.send(rig.request("GET /", "", ""));
    visitor.head();
    let mut start = String::new();
    while !start.ends_with("</table>") {
        start += &String::from_utf8(visitor.chunk()).unwrap();
    }
    assert!(start.starts_with("<!doctype html><body><table"));
    go.send(()).unwrap();
    assert_eq!(visitor.chunk(), b"end");
    assert_eq!(visitor.chunk(), b"");
}

//! Header tables: what the target and the visitor get to see.

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    lines.sort();
    lines
}

fn expect(headers: &HeaderMap, expected: &[(&str, &str)]) {
    assert_eq!(lines(headers), lines(&map(expected)));
}

#[test]
fn hop_by_hop_headers_and_those_that_connection_lists_are_dropped() {
    let mut headers = map(&[
        ("connection", "close, X-Secret-Hop"),
        ("connection", "x-other"),
        ("x-secret-hop", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "gzip, trailers;q=1"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x-sum"),
        ("traceparent", "00-1-2-00"),
        ("accept", "a"),
        ("accept", "b"),
    ]);
    drop_hop_by_hop(&mut headers);
    expect(&headers, &[("accept", "a"), ("accept", "b"), ("traceparent", "00-1-2-00"), ("trailer", "x-sum")]);
}

#[test]
fn te_keeps_trailers_only() {
    let mut headers = map(&[("te", "gzip;q=0.5, Trailers")]);
    drop_hop_by_hop(&mut headers);
    expect(&headers, &[("te", "trailers")]);
}

#[test]
fn a_visitor_cannot_choose_his_own_address() {
    let claims = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X_Forwarded_For",
        "x-forwarded_for",
        "X-Real-IP",
        "x_real_ip",
        "Forwarded",
        "True-Client-IP",
        "X-Client-IP",
    ];
    let mut headers = HeaderMap::new();
    for claim in claims {
        headers
            .append(HeaderName::from_bytes(claim.as_bytes()).unwrap(), HeaderValue::from_static("6.6.6.6"));
    }
    headers.insert("x-forwarded-looking", HeaderValue::from_static("1"));
    headers.insert("x-frame", HeaderValue::from_static("stays"));
    let host = HeaderValue::from_static("s.localhost:7080");
    let visitor = ForwardedFor::new("::ffff:192.0.2.1".parse().unwrap(), "http", &headers, &[]);
    assert_eq!(visitor.visitor, "192.0.2.1".parse::<IpAddr>().unwrap());
    visitor.set(&mut headers, Some(&host));
    expect(
        &headers,
        &[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "s.localhost:7080"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.1;host=\"s.localhost:7080\";proto=http"),
            ("x-frame", "stays"),
        ],
    );
}

#[test]
fn an_ipv6_visitor_is_quoted_in_forwarded() {
    let mut headers = HeaderMap::new();
    ForwardedFor::new("2001:db8::1".parse().unwrap(), "http", &headers.clone(), &[]).set(&mut headers, None);
    assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=http");
    assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
}

#[test]
fn behind_a_trusted_proxy_the_last_untrusted_address_is_the_visitor() {
    let proxies = ["10.0.0.0/8".parse().unwrap()];
    let of = |peer: &str, named: &str| {
        let headers = map(&[("x-forwarded-for", named)]);
        ForwardedFor::new(peer.parse().unwrap(), "http", &headers, &proxies).visitor.to_string()
    };
    assert_eq!(of("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.2"), "192.0.2.7");
    assert_eq!(of("10.0.0.1", "nonsense"), "10.0.0.1");
    assert_eq!(of("192.0.2.9", "6.6.6.6"), "192.0.2.9", "the peer itself is no proxy of ours");

    let mut headers = map(&[
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x_forwarded_for", "6.6.6.6"),
    ]);
    let visitor = ForwardedFor::new("10.0.0.1".parse().unwrap(), "http", &headers, &proxies);
    visitor.set(&mut headers, None);
    expect(
        &headers,
        &[
            ("x-forwarded-for", "192.0.2.7, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=10.0.0.1;proto=http"),
        ],
    );
}

#[test]
fn method_overrides_are_removed_in_every_spelling() {
    let mut headers = map(&[
        ("X-HTTP-Method-Override", "DELETE"),
        ("x_http_method_override", "DELETE"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "DELETE"),
        ("x-method", "stays"),
    ]);
    drop_method_overrides(&mut headers);
    expect(&headers, &[("x-method", "stays")]);
}

#[test]
fn only_a_websocket_may_upgrade() {
    for (upgrade, connection, expected) in [
        ("websocket", "Upgrade", true),
        ("WebSocket", "keep-alive, upgrade", true),
        ("h2c", "upgrade", false),
        ("websocket, h2c", "upgrade", false),
        ("websocket", "close", false),
    ] {
        let headers = map(&[("upgrade", upgrade), ("connection", connection)]);
        assert_eq!(wants_websocket(&headers), expected, "{upgrade} / {connection}");
    }
}

#[test]
fn locations_and_cookies_are_seen_from_the_link() {
    let target = Origin { scheme: "http", host: "localhost".to_owned(), port: 3000 };
    let link = Seen { prefix: "/shared/tok", target: &target };
    let slug = Seen { prefix: "", target: &target };
    for (location, by_link, by_slug) in [
        ("/login", "/shared/tok/login", "/login"),
        ("http://localhost:3000/login?a", "/shared/tok/login?a", "/login?a"),
        ("https://localhost:3000", "/shared/tok/", "/"),
        ("http://localhost:30001/x", "http://localhost:30001/x", "http://localhost:30001/x"),
        ("HTTP://127.0.0.1:3000/", "/shared/tok/", "/"),
        ("//[::1]:3000?x", "/shared/tok/?x", "/?x"),
        ("http://evil@localhost:3000/", "http://evil@localhost:3000/", "http://evil@localhost:3000/"),
        ("http://localhost/", "http://localhost/", "http://localhost/"),
        ("//cdn.example/x", "//cdn.example/x", "//cdn.example/x"),
        ("https://other.example/x", "https://other.example/x", "https://other.example/x"),
        ("next", "next", "next"),
    ] {
        for (seen, expected) in [(link, by_link), (slug, by_slug)] {
            let mut headers = map(&[("location", location)]);
            seen.rewrite(&mut headers);
            assert_eq!(headers["location"], expected, "{location}");
        }
    }
    for (cookie, by_link, by_slug) in [
        ("a=1; Path=/; HttpOnly", "a=1; Path=/shared/tok/; HttpOnly", "a=1; Path=/; HttpOnly"),
        ("a=1;path=/x;Domain=.example", "a=1; Path=/shared/tok/x", "a=1;path=/x"),
        ("a=\"b=c\"; DOMAIN = x ; Secure", "a=\"b=c\"; Secure; Path=/shared/tok/", "a=\"b=c\"; Secure"),
        ("a=1", "a=1; Path=/shared/tok/", "a=1"),
        ("domain=1", "domain=1; Path=/shared/tok/", "domain=1"),
    ] {
        for (seen, expected) in [(link, by_link), (slug, by_slug)] {
            let mut headers = map(&[("set-cookie", cookie), ("set-cookie", "z=9; Path=/z")]);
            seen.rewrite(&mut headers);
            let values: Vec<_> = headers.get_all("set-cookie").iter().collect();
            assert_eq!(values[0], expected);
            assert_eq!(values.len(), 2, "cookies stay separate");
        }
    }
}

#[test]
fn a_port_that_the_scheme_implies_is_left_out_and_understood() {
    let origin = |scheme, host: &str, port| Origin { scheme, host: host.to_owned(), port };
    assert_eq!(origin("https", "shop.example", 443).authority(), "shop.example");
    assert_eq!(origin("http", "shop.example", 443).authority(), "shop.example:443");
    assert_eq!(origin("http", "::1", 80).authority(), "[::1]");
    let target = origin("https", "shop.example", 443);
    let seen = Seen { prefix: "", target: &target };
    for (location, expected) in [
        ("https://shop.example/a", "/a"),
        ("https://Shop.Example:443", "/"),
        ("//shop.example/a", "/a"),
        ("http://shop.example/a", "http://shop.example/a"),
        ("https://shop.example.evil/a", "https://shop.example.evil/a"),
    ] {
        let mut headers = map(&[("location", location)]);
        seen.rewrite(&mut headers);
        assert_eq!(headers["location"], expected, "{location}");
    }
}

#[test]
fn cookies_of_http_2_become_one_line() {
    let mut headers = map(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3")]);
    join_cookies(&mut headers);
    expect(&headers, &[("cookie", "a=1; b=2; c=3"), ("x", "y")]);
}

#[test]
fn only_one_plain_chunked_says_how_a_body_is_coded() {
    for (codings, is_odd) in [
        (&[][..], false),
        (&["chunked"], false),
        (&["Chunked"], false),
        (&["gzip, chunked"], true),
        (&["chunked, chunked"], true),
        (&["identity", "chunked"], true),
    ] {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append("transfer-encoding", HeaderValue::from_static(coding));
        }
        assert_eq!(has_odd_coding(&headers), is_odd, "{codings:?}");
    }
}

#[test]
fn path_overrides_are_removed_in_every_spelling() {
    let mut headers = map(&[("X-Original-URL", "/admin"), ("x_rewrite_url", "/admin"), ("x-url", "stays")]);
    drop_path_overrides(&mut headers);
    expect(&headers, &[("x-url", "stays")]);
}

#[test]
fn the_banners_etag_is_taken_back_when_it_is_shown() {
    for (etag, expected) in
        [("\"abc\"", Some("\"abc-pconnect\"")), ("W/\"a\"", Some("W/\"a-pconnect\"")), ("abc", None)]
    {
        let suffixed = etag_with_banner(&HeaderValue::from_static(etag));
        assert_eq!(suffixed.as_ref().and_then(|value| value.to_str().ok()), expected);
    }
    let mut headers =
        map(&[("if-none-match", "\"abc-pconnect\", W/\"d-pconnect\", \"e\""), ("accept-encoding", "br")]);
    assert!(ask_for_document(&mut headers, true));
    expect(&headers, &[("if-none-match", "\"abc\", W/\"d\", \"e\""), ("accept-encoding", "identity")]);
    assert!(!ask_for_document(&mut map(&[("if-none-match", "\"e\"")]), true));
}

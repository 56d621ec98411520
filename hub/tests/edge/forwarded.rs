//! What a target is told about its visitor comes from the hub alone, or from a proxy that the operator trusts.

use std::net::SocketAddr;

use hub::edge::EdgeOptions;

use crate::{h2_side::Visitor, harness::*};

/// Names by which somebody might take a request's word for who, where or how it is.
const CLAIMS: [&str; 24] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Forwarded",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X_Forwarded-Host",
    "Forwarded",
    "Forwarded-For",
    "X-Real-IP",
    "X_Real_IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Original-Forwarded-For",
    "X-Original-Host",
    "True-Client-IP",
    "Fastly-Client-IP",
    "CF-Connecting-IP",
];

/// A target that answers with its request's header lines.
fn telling() -> SocketAddr {
    answering(|head, _| {
        let lines: Vec<String> = head.lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        ok(&lines.join("\n"))
    })
}

fn lines_with(text: &str, evil: &str) -> Vec<String> {
    text.lines().filter(|line| line.contains(evil)).map(str::to_owned).collect()
}

#[test]
fn a_visitors_own_claims_never_arrive() {
    let rig = Rig::new(telling());
    let claims: String =
        CLAIMS.iter().map(|name| format!("{name}: 6.6.6.6\r\n{name}: 6.6.6.6, 7.7.7.7\r\n")).collect();
    // Nor do they arrive because a request calls the hub's own words hop-by-hop.
    let hops = "Connection: close, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded, Host\r\n";
    for more in [claims.clone(), format!("{claims}{hops}"), hops.to_owned()] {
        let text = rig.get_with("/", &more).text();
        assert_eq!(lines_with(&text, "6.6.6.6"), Vec::<String>::new(), "{more}");
        let host = rig.host();
        for line in [
            "x-forwarded-for: 127.0.0.1".to_owned(),
            "x-forwarded-proto: http".to_owned(),
            format!("x-forwarded-host: {host}"),
            format!("forwarded: for=127.0.0.1;host=\"{host}\";proto=http"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing in {text}");
        }
    }
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        let mut request = visitor.request("GET", "/");
        for name in CLAIMS {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().append(name, "6.6.6.6".parse().unwrap());
        }
        let text = visitor.start(request).await.whole().await.text();
        assert_eq!(lines_with(&text, "6.6.6.6"), Vec::<String>::new());
    });
    assert!(rig.records(4).iter().all(|(_, visitor)| visitor.ip == "127.0.0.1"));
}

#[test]
fn behind_a_trusted_proxy_every_line_is_read_and_the_last_stranger_is_the_visitor() {
    let setup = Setup::default();
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let edge = EdgeOptions { trusted_proxies, ..setup.edge.clone() };
    let rig = Rig::with(telling(), Setup { edge, ..setup });
    let cases = [
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7", "192.0.2.7, 127.0.0.1"),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n",
            "192.0.2.7",
            "6.6.6.6, 192.0.2.7, 127.0.0.1",
        ),
        ("X-Forwarded-For: 192.0.2.7, 10.1.2.3\r\n", "192.0.2.7", "192.0.2.7, 10.1.2.3, 127.0.0.1"),
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.1.2.3\r\n",
            "192.0.2.7",
            "192.0.2.7, 10.1.2.3, 127.0.0.1",
        ),
        ("X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7", "::ffff:192.0.2.7, 127.0.0.1"),
        ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7", "2001:db8::7, 127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.7, nonsense\r\n", "127.0.0.1", "192.0.2.7, nonsense, 127.0.0.1"),
        ("", "127.0.0.1", "127.0.0.1"),
    ];
    for (n, (more, ip, chain)) in cases.into_iter().enumerate() {
        let text = rig.get_with("/", &format!("{more}X_Forwarded_For: 6.6.6.7\r\n")).text();
        assert!(text.lines().any(|line| line == format!("x-forwarded-for: {chain}")), "{more}: {text}");
        assert_eq!(lines_with(&text, "6.6.6.7"), Vec::<String>::new(), "an alias is nobody's word");
        assert_eq!(rig.records(n + 1)[n].1.ip, ip, "{more}");
    }
}

#[test]
fn an_ipv4_visitor_of_an_ipv6_listener_is_an_ipv4_visitor() {
    let setup = Setup::default();
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let listen = "[::]:0".parse().unwrap();
    let edge = EdgeOptions { listen, trusted_proxies, ..setup.edge.clone() };
    let rig = Rig::with(telling(), Setup { edge, ..setup });
    let address = SocketAddr::from(([127, 0, 0, 1], rig.edge.local_addr.port()));
    let request = rig.request("GET /", "X-Forwarded-For: 192.0.2.7\r\n", "");
    let text = Conn::to(address).ask(request).text();
    assert!(text.lines().any(|line| line == "x-forwarded-for: 192.0.2.7, 127.0.0.1"), "{text}");
    assert_eq!(rig.records(1)[0].1.ip, "192.0.2.7");
}

#[test]
fn a_share_with_rules_takes_no_other_word_for_path_or_method() {
    use domain::policy::methods::Method;
    let rig = Rig::with(telling(), Setup::default().paths(&["/ok"]).methods(&[Method::Get]));
    let names = [
        "X-Original-URL",
        "X_Original_URL",
        "X-Original-URI",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X_HTTP_Method_Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ];
    let more: String = names.iter().map(|name| format!("{name}: EVIL\r\n")).collect();
    let answer = rig.get_with("/ok", &more);
    assert_eq!(answer.status(), 200);
    assert_eq!(lines_with(&answer.text(), "EVIL"), Vec::<String>::new());
    for line in ["get /ok", "Get /ok", "GETX /ok", "PROPFIND /ok", "TRACE /ok", "POST /ok", "DELETE /ok"] {
        assert_eq!(rig.visitor().ask(rig.request(line, "", "")).status(), 403, "{line}");
    }
}

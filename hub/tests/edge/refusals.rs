//! The checks in their order, and what a refusal says.

use std::sync::atomic::Ordering;

use domain::{
    access::Denied,
    policy::methods::Method,
    share::{self, RevokeReason, ShareExpired, ShareRevoked},
    target::Protocol,
    tunnel::{self, DeleteReason, TunnelDeleted, TunnelPaused},
};
use hub::edge::EdgeOptions;

use crate::harness::*;

fn strict() -> Setup {
    let mut setup = Setup::default().paths(&["/api/*"]).methods(&[Method::Get]);
    setup.share.rate_limit_per_min = Some(1);
    setup
}

#[test]
fn the_checks_come_in_the_order_of_the_contract() {
    let rig = Rig::with(answering(|_, _| ok("in")), strict());
    let wrong = |line: &str| rig.visitor().ask(rig.request(line, "Content-Length: 0\r\n", ""));
    let mut expected = Vec::new();
    let mut expect = |answer: Answer, status, code: &str, denied| {
        assert_eq!((answer.status(), answer.code().as_str()), (status, code));
        expected.push(Some(denied));
    };
    // Everything is wrong at once; the first check that is not satisfied speaks.
    assert_eq!(wrong("GET /api/one").status(), 200);
    expect(wrong("GET /api/one"), 429, "rate_limited", Denied::RateLimited);
    expect(wrong("GET /other"), 403, "path_not_allowed", Denied::PathNotAllowed);
    expect(wrong("GET /api//one"), 400, "ambiguous_path", Denied::AmbiguousPath);
    expect(wrong("POST /other"), 403, "method_not_allowed", Denied::MethodNotAllowed);
    rig.streams.is_connected.store(false, Ordering::SeqCst);
    expect(wrong("POST /other"), 503, "agent_offline", Denied::AgentOffline);
    rig.apply_to_tunnel(tunnel::Event::Paused(TunnelPaused {}));
    expect(wrong("POST /other"), 503, "tunnel_paused", Denied::TunnelPaused);
    rig.apply_to_share(share::Event::Expired(ShareExpired {}));
    expect(wrong("POST /other"), 403, "share_expired", Denied::ShareExpired);
    let reason = RevokeReason::Requested;
    rig.apply(
        domain::recorded::StreamName::share(share_id()),
        3,
        &domain::event::Event::Share(share::Event::Revoked(ShareRevoked { reason })),
    );
    expect(wrong("POST /other"), 403, "share_revoked", Denied::ShareRevoked);
    assert_eq!(rig.bare("GET /shared/unknown/x", "").code(), "share_not_found");
    let records = rig.records(expected.len() + 1);
    let denied: Vec<_> = records[1..].iter().map(|(access, _)| access.denied).collect();
    assert_eq!(denied, expected);
    let metrics = &rig.edge.metrics;
    assert_eq!(metrics.unknown_shares.get(), 1);
    // Each reason once, and for the operator by the name that the record has.
    let mut told: Vec<(String, u64)> = vec![("share_not_found".to_owned(), 1)];
    told.extend(expected.iter().flatten().map(|denied| (recorded(*denied), 1)));
    let refused = metrics.refused.all().filter(|(_, count)| *count > 0);
    let mut refused: Vec<(String, u64)> = refused.map(|(name, count)| (name.to_owned(), count)).collect();
    told.sort_unstable();
    refused.sort_unstable();
    assert_eq!(refused, told);
    assert_eq!(metrics.unrecorded.each_ref().map(|count| count.get()), [0, 0, 0, 1, 0]);
    eventually("none is under way", || metrics.in_flight.now() == 0);
}

fn recorded(denied: Denied) -> String {
    serde_json::to_value(denied).unwrap().as_str().unwrap().to_owned()
}

#[test]
fn a_share_that_ended_so_long_ago_that_memory_has_forgotten_it_says_why_it_refuses() {
    let rig = Rig::new(answering(|_, _| ok("in")));
    let answer = rig.bare("GET /shared/former/page?x=1", "");
    assert_eq!((answer.status(), answer.code().as_str()), (403, "share_expired"));
    let records = rig.records(1);
    assert_eq!(records[0].0.denied, Some(Denied::ShareExpired));
    assert_eq!(rig.edge.metrics.unknown_shares.get(), 0);
    assert_eq!(rig.bare("GET /shared/unknown/page", "").status(), 404);
    assert_eq!(rig.edge.metrics.unknown_shares.get(), 1);
}

#[test]
fn who_tries_too_many_unknown_tokens_is_stopped_before_anybody_looks_for_them() {
    let mut setup = Setup::default();
    setup.edge.limit_public_per_min = 3;
    let rig = Rig::with(answering(|_, _| ok("in")), setup);
    for n in 0..3 {
        assert_eq!(rig.bare(&format!("GET /shared/guess-{n}/"), "").status(), 404);
    }
    assert_eq!(rig.bare("GET /shared/former/", "").status(), 429, "also for one that was");
    assert_eq!(rig.visitor().ask(rig.request("GET /", "", "")).status(), 200, "what lives is not concerned");
}

#[test]
fn a_share_of_a_deleted_tunnel_refuses() {
    let rig = Rig::new(answering(|_, _| ok("in")));
    rig.apply_to_tunnel(tunnel::Event::Deleted(TunnelDeleted { reason: DeleteReason::Requested }));
    let answer = rig.get("/");
    assert_eq!((answer.status(), answer.code().as_str()), (403, "tunnel_gone"));
}

#[test]
fn a_share_that_serves_no_http_gives_no_byte() {
    let setup = Setup { protocol: Protocol::Tcp, ..Setup::default() };
    let rig = Rig::with(answering(|_, _| ok("in")), setup);
    assert_eq!(rig.get("/").code(), "not_served");
    assert_eq!(rig.streams.opened.load(Ordering::SeqCst), 0);
}

#[test]
fn methods_follow_the_list() {
    let rig = Rig::with(
        answering(|head, _| {
            assert_eq!(head.get("x-http-method-override"), None);
            assert_eq!(head.get("x_method_override"), None);
            let first = head.first.split(' ').next().unwrap();
            if first == "HEAD" { b"HTTP/1.1 200 OK\r\n\r\n".to_vec() } else { ok(first) }
        }),
        Setup::default().methods(&[Method::Get, Method::Put]),
    );
    let overrides = "X-HTTP-Method-Override: DELETE\r\nX_Method_Override: DELETE\r\n";
    assert_eq!(rig.get_with("/", overrides).text(), "GET");
    let mut visitor = rig.visitor();
    let mut status = |line: &str, more: &str| {
        visitor.send(rig.request(line, more, ""));
        let head = visitor.head();
        if !line.starts_with("HEAD") && head.status() != 204 {
            visitor.response_body(&head);
        }
        (head.status(), head.get("allow").map(str::to_owned))
    };
    assert_eq!(status("HEAD /", "").0, 200);
    assert_eq!(status("DELETE /", "").0, 403);
    assert_eq!(status("get /", "").0, 403);
    assert_eq!(status("PROPFIND /", "").0, 403);
    assert_eq!(status("OPTIONS /", ""), (204, Some("GET, HEAD, PUT, OPTIONS".to_owned())));
    let preflight = "Origin: http://a.test\r\nAccess-Control-Request-Method: PUT\r\n";
    assert_eq!(status("OPTIONS /", preflight), (200, None));
    let other = "Origin: http://a.test\r\nAccess-Control-Request-Method: DELETE\r\n";
    assert_eq!(status("OPTIONS /", other).0, 204);
    rig.records(8);
}

#[test]
fn without_a_list_only_connect_and_trace_are_refused() {
    let rig = Rig::new(answering(|head, _| ok(&head.first)));
    for (line, expected) in [("PROPFIND /", 200), ("TRACE /", 403), ("DELETE /", 200)] {
        assert_eq!(rig.visitor().ask(rig.request(line, "", "")).status(), expected, "{line}");
    }
    let host = rig.host();
    let answer = rig.visitor().ask(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!((answer.status(), answer.code().as_str()), (403, "method_not_allowed"));
}

#[test]
fn a_share_never_lets_more_pass_than_its_limit() {
    let mut setup = Setup::default();
    setup.share.rate_limit_per_min = Some(3);
    let rig = Rig::with(answering(|_, _| ok("in")), setup);
    let answers: Vec<_> = (0..6).map(|_| rig.get("/")).collect();
    let statuses: Vec<_> = answers.iter().map(Answer::status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    let refused = &answers[3].head;
    let retry: u64 = refused.get("retry-after").unwrap().parse().unwrap();
    assert!((1..=65).contains(&retry));
    assert_eq!(refused.get("x-ratelimit-limit"), Some("3"));
    assert_eq!(refused.get("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.get("ratelimit-policy"), Some("\"default\";q=3;w=60"));
    let problem: serde_json::Value = serde_json::from_slice(&answers[3].body).unwrap();
    assert_eq!(problem["retryAfter"], retry);
    assert_eq!(answers[0].head.get("x-ratelimit-limit"), None, "never over a target's answer");
}

#[test]
fn guessing_tokens_and_slugs_is_limited_per_address() {
    let setup = Setup::default();
    let edge = EdgeOptions { limit_public_per_min: 4, ..setup.edge.clone() };
    let rig = Rig::with(answering(|_, _| ok("in")), Setup { edge, ..setup });
    let port = rig.edge.local_addr.port();
    for n in 0..6 {
        let answer = if n % 2 == 0 {
            rig.bare(&format!("GET /shared/share_tok_guess{n}/"), "")
        } else {
            rig.visitor().ask(format!("GET / HTTP/1.1\r\nHost: guess{n}.localhost:{port}\r\n\r\n"))
        };
        assert_eq!(answer.status(), if n < 4 { 404 } else { 429 });
    }
    assert_eq!(rig.get("/").status(), 200, "whoever knows a link is no guesser");
    rig.records(1);
}

#[test]
fn a_target_that_cannot_be_reached_is_a_bad_gateway() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::new(nobody);
    let answer = rig.get("/");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_failed"));
    let rig = Rig::new(answering(|_, _| b"no HTTP at all\r\n\r\n".to_vec()));
    assert_eq!(rig.get("/").code(), "upstream_failed");
    assert_eq!(rig.records(1)[0].0.denied, Some(Denied::UpstreamFailed));
}

#[test]
fn a_body_longer_than_the_cap_is_refused_and_never_arrives_whole() {
    let setup = Setup::default();
    let edge = EdgeOptions { body_bytes_max: 10, ..setup.edge.clone() };
    let rig = Rig::with(answering(|_, body| ok(&body.len().to_string())), Setup { edge, ..setup });
    let post = |more: &str, body: &str| rig.visitor().ask(rig.request("POST /", more, body));
    assert_eq!(post("Content-Length: 10\r\n", "0123456789").text(), "10");
    assert_eq!(post("Content-Length: 11\r\n", "0123456789a").code(), "body_too_large");
    assert_eq!(post("Transfer-Encoding: chunked\r\n", "b\r\n0123456789a\r\n0\r\n\r\n").status(), 413);
}

#[test]
fn a_browser_gets_a_page_and_a_program_a_problem() {
    let rig = Rig::new(answering(|_, _| ok("in")));
    let page = rig.bare("GET /shared/unknown", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!((page.status(), page.head.get("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(page.head.get("content-security-policy").unwrap().contains("default-src 'none'"));
    assert_eq!(page.head.get("referrer-policy"), Some("no-referrer"));
    let text = page.text();
    assert!(text.starts_with("<!doctype html>") && text.contains("share_not_found"));
    assert!(!text.contains("<script") && !text.contains("unknown"), "{text}");
    assert_eq!(rig.bare("GET /nothing", "").code(), "not_found");
    let rfc9457 = rig.bare("GET /nothing", "Accept: application/problem+json\r\n");
    assert_eq!(rfc9457.head.get("content-type"), Some("application/problem+json"));
    assert!(rfc9457.text().contains("urn:private-connect:problem:not_found"));
}

//! One host, one share: however many there are, and however a request names the host (product.md section 3; the class of
//! bug is Caddy's, which compared differently above a hundred hosts).

use domain::{
    event::Event,
    ids::ShareId,
    names::Name,
    recorded::StreamName,
    share::{self, ShareCreated},
};
use uuid::Uuid;

use crate::{h2_side::Visitor, harness::*};

/// Shares beside the rig's own one, each with a slug and a number of its own.
fn add_shares(rig: &Rig, count: u32) {
    let own = Setup::default().share;
    for n in 1..count {
        let share_id = ShareId::new(Uuid::from_u128(1_000_000 + u128::from(n)));
        let created = ShareCreated {
            share_id,
            name: Name::parse(&format!("share {n}")).unwrap(),
            slug: slug(n),
            token_hash: hub::secrets::hex(&hub::secrets::sha256(slug(n).as_bytes())),
            // Where the request was led to shows in what this share allows.
            allowed_paths: Some(vec![domain::policy::paths::PathRule::parse(&format!("/only-{n}")).unwrap()]),
            ..own.clone()
        };
        rig.apply(StreamName::share(share_id), 1, &Event::Share(share::Event::Created(created)));
    }
}

fn slug(n: u32) -> String {
    format!("slug{n:05}")
}

/// The status of a request with these lines in its head.
fn ask(rig: &Rig, lines: &str) -> u16 {
    rig.visitor().ask(format!("{lines}Connection: close\r\n\r\n")).status()
}

#[test]
fn a_request_goes_to_the_one_share_that_its_host_names_however_many_there_are() {
    for count in [1, 99, 100, 101, 10_000] {
        let rig = Rig::new(answering(|head, _| ok(head.path())));
        add_shares(&rig, count);
        let port = rig.edge.local_addr.port();
        for n in [1, 2, count / 2, count.saturating_sub(2), count - 1] {
            if n == 0 || n >= count {
                continue;
            }
            let (own, other) = (slug(n), slug(if n + 1 < count { n + 1 } else { 1 }));
            // Whoever is let in at `/only-<n>` was led to share n: every other one refuses that path.
            let line = format!("GET /only-{n} HTTP/1.1\r\n");
            for host in [
                format!("{own}.localhost:{port}"),
                format!("{own}.localhost"),
                format!("{}.LOCALHOST:{port}", own.to_uppercase()),
                format!("{own}.localhost.:{port}"),
            ] {
                assert_eq!(ask(&rig, &format!("{line}Host: {host}\r\n")), 200, "{count} shares: {host}");
            }
            // Another word for it has no say.
            let host = format!("Host: {own}.localhost:{port}\r\n");
            for more in [
                format!("X-Forwarded-Host: {other}.localhost\r\n"),
                format!("X-Forwarded-Server: {other}.localhost\r\n"),
                format!("Forwarded: host={other}.localhost\r\n"),
                format!("X-Host: {other}.localhost\r\n"),
                format!("X-Original-Host: {other}.localhost\r\n"),
                format!("X_Forwarded_Host: {other}.localhost\r\n"),
                format!("Endpoint: {other}\r\nX-Endpoint: {other}\r\n"),
                "Connection: Host\r\n".to_owned(),
            ] {
                assert_eq!(ask(&rig, &format!("{line}{host}{more}")), 200, "{count} shares: {more}");
            }
            for lines in [
                format!("{line}Host: {own}.localhost\r\nHost: {other}.localhost\r\n"),
                format!("{line}Host: {own}.localhost, {other}.localhost\r\n"),
                format!("{line}Host: {other}.localhost:80@{own}.localhost\r\n"),
                format!("{line}Host: {own}.localhost:80:80\r\n"),
                format!("{line}Host: {own}.localhost:port\r\n"),
                format!("{line}Host: {own}.localhost/x\r\n"),
                format!("{line}Host: {own}.localhost\\{other}.localhost\r\n"),
                format!("{line}Host: {own}.localhost..\r\n"),
                format!("{line}Host: http://{own}.localhost\r\n"),
                format!("{line}Host: \"{own}.localhost\"\r\n"),
                format!("{line}Host: [{own}.localhost]\r\n"),
                format!("{line}Host: {own}.localhost %20\r\n"),
                format!("{line}Host: ｓlug.localhost\r\n"),
                format!("GET http://{other}.localhost/only-{n} HTTP/1.1\r\nHost: {own}.localhost\r\n"),
                format!("GET http://x@{own}.localhost/only-{n} HTTP/1.1\r\nHost: {own}.localhost\r\n"),
            ] {
                assert_eq!(ask(&rig, &lines), 400, "{count} shares: {lines}");
            }
            for host in [
                format!("x.{own}.localhost"),
                format!("{own}x.localhost"),
                format!("{own}.localhost.evil.example"),
                format!("{own}.evil.example"),
                "xn--slug-0x5a.localhost".to_owned(),
            ] {
                assert_eq!(ask(&rig, &format!("{line}Host: {host}\r\n")), 404, "{count} shares: {host}");
            }
        }
    }
}

#[test]
fn requests_of_one_http_2_connection_go_each_to_the_share_that_it_names() {
    let rig = Rig::new(answering(|head, _| ok(head.path())));
    add_shares(&rig, 101);
    rig.block_on(async {
        let visitor = Visitor::to(&rig).await;
        for n in 1..101 {
            for asked in [n, n % 100 + 1] {
                let mut request = visitor.request("GET", "/");
                *request.uri_mut() = format!("http://{}.localhost/only-{asked}", slug(n)).parse().unwrap();
                let status = visitor.start(request).await.whole().await.status;
                assert_eq!(status, if asked == n { 200 } else { 403 }, "share {n}, path of {asked}");
            }
        }
    });
}

//! The client against a stand-in hub that answers what a test says.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

use super::*;
use crate::failure::Exit;

mod description;

/// A request as the stand-in saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

struct Hub {
    url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Answers the n-th request with the n-th text; an empty one closes the connection instead. Further requests get the
/// last one again.
async fn hub(path: &str, answers: Vec<String>) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}{path}", listener.local_addr().unwrap())).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let Some(request) = read(&mut stream).await else { continue };
            let answer = {
                let mut seen = kept.lock();
                seen.push(request);
                answers[(seen.len() - 1).min(answers.len() - 1)].clone()
            };
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    Hub { url, seen }
}

async fn read(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" if lines.is_empty() => return None,
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { line: lines[0].clone(), headers, body: String::from_utf8(body).unwrap() })
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn api(hub: &Hub) -> Api {
    Api::new(hub.url.clone(), Some(Secret::new("pc_test")), wire::tls::trust::nobody()).unwrap()
}

fn problem(status: u16, code: &str, more: &str) -> String {
    let body = format!(
        r#"{{"statusCode":{status},"error":"X","code":"{code}","message":"It is so.","requestId":"req_7"{more}}}"#
    );
    answer(status, "", &body)
}

const WHO: &str = r#"{"workspaceId":"ws_1","workspaceName":"default","keyId":null,"keyName":null,"agentId":null,"scopes":[]}"#;

fn tunnel(name: &str) -> String {
    format!(
        r#"{{"id":"tun_1","name":"{name}","agentId":"a","targetHost":"localhost","targetPort":1,"tunnelPort":2,"protocol":"tcp","status":"active","isPublic":false,"publicUrl":null,"metadata":{{}},"createdAt":"x","expiresAt":null,"lastActivityAt":null,"fieldOfANewerHub":1}}"#
    )
}

#[tokio::test]
async fn the_base_path_of_the_hub_is_kept_and_ids_cannot_leave_their_segment() {
    let hub = hub("/private/", vec![answer(200, "", WHO)]).await;
    api(&hub).who_am_i().await.unwrap();
    let _ = api(&hub).get_service("../../v1/keys?x=1").await;
    let seen = hub.seen.lock().clone();
    assert_eq!(seen[0].line, "GET /private/v1/whoami HTTP/1.1");
    assert_eq!(seen[1].line, "GET /private/v1/services/..%2F..%2Fv1%2Fkeys%3Fx=1 HTTP/1.1");
}

#[tokio::test]
async fn the_key_goes_along_but_not_where_none_is_needed() {
    let hub = hub(
        "/",
        vec![
            answer(200, "", r#"{"status":"ok","database":"connected","version":"1","uptime":1}"#),
            answer(200, "", WHO),
        ],
    )
    .await;
    api(&hub).get_health().await.unwrap();
    api(&hub).who_am_i().await.unwrap();
    let seen = hub.seen.lock().clone();
    assert_eq!(
        (seen[0].header("authorization"), seen[1].header("authorization")),
        (None, Some("Bearer pc_test"))
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_asked() {
    let hub = hub("/", vec![answer(200, "", WHO)]).await;
    let failure = Failure::from(
        Api::new(hub.url.clone(), None, wire::tls::trust::nobody()).unwrap().who_am_i().await.unwrap_err(),
    );
    assert_eq!((failure.code.as_ref(), failure.exit), ("no_api_key", Exit::Failure));
    assert!(failure.hint.unwrap().contains("connect up --api-key"));
    assert!(hub.seen.lock().is_empty());
}

#[tokio::test]
async fn lists_follow_their_pages_and_use_only_the_query_of_the_link() {
    let link = "link: <http://evil.example/v1/other?cursor=two&limit=1>; rel=\"next\"\r\n";
    let pages = vec![
        answer(200, link, &format!("[{}]", tunnel("one"))),
        answer(200, "", &format!("[{}]", tunnel("two"))),
    ];
    let hub = hub("/base/", pages).await;
    let names: Vec<String> =
        api(&hub).list_services().await.unwrap().into_iter().map(|service| service.name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(hub.seen.lock()[1].line, "GET /base/v1/services?cursor=two&limit=1 HTTP/1.1");
}

#[tokio::test]
async fn only_what_is_asked_for_goes_into_the_query() {
    let hub = hub("/", vec![answer(200, "", r#"{"shares":[]}"#)]).await;
    assert!(api(&hub).list_shares(None, None).await.unwrap().is_empty());
    assert!(api(&hub).list_shares(Some("tun_1&active=true"), Some(false)).await.unwrap().is_empty());
    let seen = hub.seen.lock().clone();
    assert_eq!(seen[0].line, "GET /v1/shares HTTP/1.1");
    assert_eq!(seen[1].line, "GET /v1/shares?tunnelId=tun_1%26active%3Dtrue&active=false HTTP/1.1");
}

#[tokio::test]
async fn what_the_hub_cannot_repeat_is_not_sent_again() {
    let hub = hub("/", vec![String::new()]).await;
    let failure =
        Failure::from(api(&hub).start_device_login(&rest::StartDeviceLogin::default()).await.unwrap_err());
    assert_eq!(failure.code, "hub_unreachable");
    assert_eq!(hub.seen.lock().len(), 1);
}

#[tokio::test]
async fn a_list_that_turns_in_circles_ends() {
    let link = "link: <?cursor=same>; rel=next\r\n";
    let hub = hub("/", vec![answer(200, link, &format!("[{}]", tunnel("one")))]).await;
    assert_eq!(api(&hub).list_services().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_post_whose_connection_broke_is_sent_again_under_the_same_idempotency_key() {
    let body = r#"{"agentId":"a","token":"t","expiresAt":"e","workspaceId":"w"}"#;
    let hub = hub("/", vec![String::new(), answer(201, "", body)]).await;
    api(&hub).register_agent(&rest::RegisterAgent::default()).await.unwrap();
    let seen = hub.seen.lock().clone();
    assert_eq!(seen.len(), 2);
    let key = seen[0].header("idempotency-key").unwrap();
    assert_eq!(Some(key), seen[1].header("idempotency-key"));
    key.parse::<Uuid>().unwrap();
    assert_eq!((seen[1].body.as_str(), seen[1].header("content-type")), ("{}", Some("application/json")));
}

#[tokio::test]
async fn after_the_second_broken_connection_the_hub_counts_as_unreachable() {
    let hub = hub("/", vec![String::new()]).await;
    let failure = Failure::from(api(&hub).who_am_i().await.unwrap_err());
    assert_eq!(failure.code, "hub_unreachable");
    assert_eq!(hub.seen.lock().len(), 2);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let hub = hub("/", vec![answer(302, "location: http://127.0.0.1:1/\r\n", "")]).await;
    let failure = Failure::from(api(&hub).who_am_i().await.unwrap_err());
    assert_eq!(failure.code, "not_a_hub");
    assert_eq!(hub.seen.lock().len(), 1);
}

#[tokio::test]
async fn the_hubs_refusals_become_messages_exit_codes_and_hints() {
    for (status, more, exit, hint) in [
        (400, r#","details":[{"field":"name","message":"must be 1-100 characters"}]"#, Exit::Usage, None),
        (401, "", Exit::Failure, Some("connect up --api-key")),
        (404, "", Exit::Failure, None),
        (429, r#","retryAfter":7"#, Exit::Failure, Some("try again in 7 s")),
        (500, "", Exit::Failure, Some("req_7")),
    ] {
        let hub = hub("/", vec![problem(status, "some_code", more)]).await;
        let failure = Failure::from(api(&hub).who_am_i().await.unwrap_err());
        assert_eq!((failure.exit, failure.code.as_ref()), (exit, "some_code"), "{status}");
        assert!(failure.message.starts_with("It is so."), "{status}");
        assert_eq!(failure.message.contains("name: must be 1-100"), status == 400);
        assert_eq!(hint.is_some(), failure.hint.is_some(), "{status}");
        assert!(failure.hint.unwrap_or_default().contains(hint.unwrap_or_default()), "{status}");
    }
}

#[tokio::test]
async fn what_is_no_hub_is_said_without_repeating_its_answer() {
    for body in ["<html>canary</html>", "", r#"{"token":"canary"}"#] {
        let hub = hub("/", vec![answer(200, "", body)]).await;
        let failure = Failure::from(api(&hub).who_am_i().await.unwrap_err());
        assert_eq!(failure.code, "not_a_hub");
        assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let body = "x".repeat(ANSWER_BYTES_MAX + 1);
    let hub = hub("/", vec![answer(200, "", &body)]).await;
    assert!(matches!(api(&hub).who_am_i().await.unwrap_err(), ApiError::Strange { .. }));
}

#[tokio::test]
async fn walking_back_through_accesses_ends_at_the_one_that_was_seen() {
    let entry = |id: &str| {
        format!(
            r#"{{"id":"{id}","shareId":"s","accessedAt":"x","ipAddress":null,"userAgent":null,"path":"/","method":"GET","statusCode":200,"latencyMs":1,"bytesIn":0,"bytesOut":0}}"#
        )
    };
    let link = "link: <?limit=100&cursor=c>; rel=\"next\"\r\n";
    let pages = vec![
        answer(200, link, &format!(r#"{{"logs":[{},{}]}}"#, entry("4"), entry("3"))),
        answer(200, link, &format!(r#"{{"logs":[{},{}]}}"#, entry("2"), entry("1"))),
    ];
    let hub = hub("/", pages).await;
    let new = api(&hub).list_accesses_until("share_1", |entry| entry.id == "1").await.unwrap();
    let ids: Vec<&str> = new.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["4", "3", "2"]);
    assert_eq!(hub.seen.lock()[0].line, "GET /v1/shares/share_1/logs?limit=100 HTTP/1.1");
}

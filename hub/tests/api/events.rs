//! The feed of events: pages, exports and streams, which together pass over nothing and repeat nothing.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN, Running, client, eventually};

async fn page(hub: &Running, query: &str) -> Value {
    let answer = hub.get(&format!("/v1/events{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}: {answer:?}");
    answer.body
}

fn positions(events: &Value) -> Vec<u64> {
    let events = events.as_array().unwrap().iter();
    events.map(|event| event["position"].as_u64().unwrap()).collect()
}

/// All pages of so many, by what each says comes next.
async fn paged(hub: &Running, types: &str, limit: usize) -> Vec<Value> {
    let (mut events, mut query) = (Vec::new(), format!("?limit={limit}{types}"));
    loop {
        let page = page(hub, &query).await;
        let found = page["events"].as_array().unwrap();
        if found.is_empty() {
            return events;
        }
        events.extend(found.iter().cloned());
        query = format!("?limit={limit}{types}&fromPosition={}", page["nextPosition"].as_str().unwrap());
    }
}

async fn text(hub: &Running, path: &str, accept: &str) -> (String, String) {
    let url = format!("{}{path}", hub.hub.api_url());
    let answer = client().get(url).header("x-api-key", ADMIN).header("accept", accept).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, answer.text().await.unwrap())
}

/// A stream that is being read.
struct Listener {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>>>>,
    text: String,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    id: String,
    name: String,
    data: Value,
}

impl Listener {
    async fn at(hub: &Running, query: &str, last: Option<&str>) -> Self {
        let url = format!("{}/v1/events/stream{query}", hub.hub.api_url());
        let mut request = client().get(url).header("x-api-key", ADMIN);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { bytes: Box::pin(answer.bytes_stream()), text: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Heard> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    let lines = block.lines();
                    lines.filter_map(|line| line.strip_prefix(name)).next().map(str::to_owned)
                };
                if let Some(data) = field("data: ") {
                    let (id, name) = (field("id: ").unwrap(), field("event: ").unwrap());
                    return Some(Heard { id, name, data: serde_json::from_str(&data).unwrap() });
                }
            }
            let chunk =
                tokio::time::timeout_at(deadline, self.bytes.next()).await.expect("nothing in ten seconds");
            self.text.push_str(std::str::from_utf8(&chunk?.ok()?).unwrap());
        }
    }

    async fn rest(mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some(event) = self.next().await {
            heard.push(event);
        }
        heard
    }
}

#[actix::test]
async fn pages_follow_the_order_of_the_log_and_go_on_where_the_last_one_ended() {
    let hub = Running::start().await;
    for name in ["a", "b", "c"] {
        hub.tunnel(name).await;
    }
    let all = page(&hub, "?limit=1000").await;
    let numbers = positions(&all["events"]);
    assert!(numbers.len() >= 8 && numbers.is_sorted(), "{numbers:?}");
    for limit in [1, 2, 7] {
        assert_eq!(json!(paged(&hub, "", limit).await), all["events"], "{limit}");
    }
    let created = paged(&hub, "&types=tunnel.created", 2).await;
    assert_eq!(created.len(), 3);
    assert!(created.iter().all(|event| event["type"] == "tunnel.created"));
    // The end: nothing there, and where to go on. (What nobody is shown may be recorded meanwhile.)
    let next = |page: &Value| page["nextPosition"].as_str().unwrap().parse::<u64>().unwrap();
    let end = page(&hub, &format!("?fromPosition={}", next(&all))).await;
    assert_eq!(end["events"], json!([]));
    assert!(next(&end) >= next(&all) && next(&all) > *numbers.last().unwrap(), "{end}");
    let linked = hub.get("/v1/events?limit=1").await;
    assert!(linked.link.unwrap().contains("fromPosition=2"), "where there is more, a link says so");
    hub.stop().await;
}

#[actix::test]
async fn an_event_has_its_place_author_and_payload() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("a").await.text("id");
    let events = page(&hub, "?types=tunnel.created").await["events"].clone();
    let event = &events[0];
    assert_eq!(event["stream"], format!("tunnel-{tunnel}"));
    assert_eq!(
        (&event["revision"], &event["version"], &event["family"]),
        (&json!(1), &json!(1), &json!("facts"))
    );
    assert_eq!(event["actor"]["kind"], "key");
    assert_eq!(event["data"]["tunnelId"], tunnel);
    assert!(event["correlationId"].as_str().unwrap().starts_with("req_"));
    assert!(event.get("personal").is_none() && event["causationId"].is_null());
    let text = page(&hub, "?limit=1000").await.to_string();
    assert!(!text.contains("Hash") && !text.contains("claim."), "{text}");
    hub.stop().await;
}

#[actix::test]
async fn the_same_events_come_as_lines_and_as_cloud_events() {
    let hub = Running::start().await;
    hub.tunnel("a").await;
    let all = page(&hub, "?limit=1000").await["events"].as_array().unwrap().clone();
    let lines =
        |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    for (path, accept) in [
        ("/v1/events?limit=1000&format=ndjson", "*/*"),
        ("/v1/events?limit=1000", "text/html, application/x-ndjson"),
        ("/v1/events/export", "*/*"),
    ] {
        let (kind, text) = text(&hub, path, accept).await;
        assert_eq!((kind.as_str(), lines(&text)), ("application/x-ndjson", all.clone()), "{path}");
    }
    let (kind, batch) = text(&hub, "/v1/events?limit=1000&format=cloudevents", "*/*").await;
    assert_eq!(kind, "application/cloudevents-batch+json");
    let batch: Vec<Value> = serde_json::from_str(&batch).unwrap();
    assert_eq!(batch.len(), all.len());
    for (cloud, event) in batch.iter().zip(&all) {
        assert_eq!(
            (&cloud["id"], &cloud["type"], &cloud["data"]),
            (&event["id"], &event["type"], &event["data"])
        );
        assert_eq!(cloud["specversion"], "1.0");
    }
    assert_eq!(lines(&text(&hub, "/v1/events/export?format=cloudevents", "*/*").await.1), batch);
    let since = all[2]["recordedAt"].as_str().unwrap();
    let (_, late) = text(&hub, &format!("/v1/events/export?since={since}"), "*/*").await;
    assert!(lines(&late).contains(&all[2]) && lines(&late).len() <= all.len());
    let (_, none) = text(&hub, "/v1/events/export?until=2020-01-01T00:00:00Z", "*/*").await;
    assert_eq!(none, "");
    hub.stop().await;
}

#[actix::test]
async fn accesses_come_when_they_are_named_and_between_facts_where_they_happened() {
    let hub = Running::start_with(&["--agent-wait-ms", "0"]).await;
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub.post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link" })).await;
    let visit = async |path: &str| {
        let url = format!("http://{}/shared/{}{path}", hub.hub.edge_addr, share.text("token"));
        client().get(url).header("user-agent", "me").send().await.unwrap();
        hub.hub.ports.recorder.flushed().await;
    };
    visit("/one").await;
    hub.patch(&format!("/v1/tunnels/{tunnel}"), json!({ "status": "paused" })).await;
    visit("/two").await;
    let types = "&types=share.created,share.accessed,tunnel.paused";
    for limit in [1, 2, 100] {
        let events = paged(&hub, types, limit).await;
        let seen: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(seen, ["share.created", "share.accessed", "tunnel.paused", "share.accessed"], "{limit}");
        assert_eq!(events[1]["personal"][0], json!({ "ip": "127.0.0.1", "userAgent": "me", "path": "/one" }));
        assert_eq!((&events[1]["family"], &events[1]["position"]), (&json!("accesses"), &json!(1)));
    }
    let facts = page(&hub, "?limit=1000").await.to_string();
    assert!(!facts.contains("share.accessed"));
    let refused = hub.get(&format!("/v1/events?fromPosition=1{types}")).await;
    assert_eq!(refused.body["details"][0]["field"], "fromPosition", "two families have two numbers");
    hub.stop().await;
}

#[actix::test]
async fn a_place_that_is_none_is_refused() {
    let hub = Running::start().await;
    for (query, field) in [
        ("fromPosition=0", "fromPosition"),
        ("fromPosition=-1", "fromPosition"),
        ("fromPosition=1-1", "fromPosition"),
        ("fromPosition=999999", "fromPosition"),
        ("types=", "types"),
        ("types=tunnel.created,", "types"),
        ("format=xml", "format"),
        ("limit=0", "limit"),
    ] {
        let refused = hub.get(&format!("/v1/events?{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}: {refused:?}");
        assert_eq!(refused.body["details"][0]["field"], field, "{query}");
    }
    for (last, status) in [("x", 400), ("999999", 400), ("0", 200)] {
        let headers = [("x-api-key", ADMIN), ("last-event-id", last)];
        let answer = hub.send(Method::GET, "/v1/events/stream?maxSeconds=0", &headers, None).await;
        assert_eq!(answer.status.as_u16(), status, "{last}: {answer:?}");
    }
    hub.stop().await;
}

#[actix::test]
async fn a_stream_goes_on_where_a_page_ended_and_a_stream_where_a_stream_did() {
    let hub = Running::start().await;
    hub.tunnel("before").await;
    let seen = page(&hub, "?limit=1000").await;
    let next = seen["nextPosition"].as_str().unwrap();
    hub.tunnel("between").await;
    let mut listener = Listener::at(&hub, &format!("?fromPosition={next}"), None).await;
    hub.tunnel("after").await;
    let expected: Vec<Value> =
        page(&hub, &format!("?fromPosition={next}&limit=1000")).await["events"].as_array().unwrap().clone();
    let (mut heard, mut last) = (Vec::new(), String::new());
    for _ in 0..expected.len() / 2 {
        let event = listener.next().await.unwrap();
        assert_eq!(
            (&event.id, &event.name),
            (&event.data["position"].to_string(), &event.data["type"].as_str().unwrap().to_owned())
        );
        last = event.id;
        heard.push(event.data);
    }
    drop(listener);
    // What its URL says no longer matters.
    let again = Listener::at(&hub, "?fromPosition=1&maxSeconds=0", Some(&last)).await;
    heard.extend(again.rest().await.into_iter().map(|event| event.data));
    assert_eq!(heard, expected);
    hub.stop().await;
}

#[actix::test]
async fn a_stream_tells_what_happens_within_a_second_and_only_its_own_workspace() {
    let hub = Running::start().await;
    let mut listener = Listener::at(&hub, "?types=tunnel.created,tunnel.deleted", None).await;
    let core = &hub.hub.core;
    let other = core.create_workspace("other").await.unwrap();
    let scopes = vec![domain::workspace::Scope::Admin];
    let (_, key) = core.create_key(other, "all", scopes, None, None).await.unwrap();
    let foreign = [("x-api-key", key.reveal())];
    let agent = hub.send(Method::POST, "/v1/agents/register", &foreign, Some(json!({ "label": "x" }))).await;
    let body = json!({ "target": "localhost:3000", "agentId": agent.text("agentId"), "name": "theirs" });
    let theirs = hub.send(Method::POST, "/v1/tunnels", &foreign, Some(body)).await;
    assert_eq!(theirs.status, StatusCode::CREATED, "{theirs:?}");
    for name in ["one", "two"] {
        let made = hub.tunnel(name).await;
        let began = Instant::now();
        let heard = listener.next().await.unwrap();
        assert_eq!((heard.name.as_str(), &heard.data["data"]["name"]), ("tunnel.created", &json!(name)));
        assert_eq!(heard.data["data"]["tunnelId"], made.text("id"));
        // Generous, for a machine that is busy: a tick of half a second would already be the bad case.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    hub.stop().await;
}

#[actix::test]
async fn a_stream_ends_with_its_key_and_with_the_hub() {
    let hub = Running::start().await;
    let made = hub.post("/v1/api-keys", json!({ "name": "r", "scopes": ["read"] })).await;
    let url = format!("{}/v1/events/stream", hub.hub.api_url());
    let open = async |key: &str| {
        let answer = client().get(&url).header("x-api-key", key).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer
    };
    let (of_key, of_hub) = (open(&made.text("key")).await, open(ADMIN).await);
    assert_eq!(hub.delete(&format!("/v1/api-keys/{}", made.text("id"))).await.status, StatusCode::OK);
    let ended = tokio::time::timeout(Duration::from_secs(10), of_key.text()).await;
    ended.expect("the stream of a revoked key goes on").unwrap();
    let began = Instant::now();
    let (rest, _) = tokio::join!(of_hub.text(), hub.stop());
    rest.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "a stop does not wait for streams: {:?}",
        began.elapsed()
    );
}

#[actix::test]
async fn a_workspace_has_so_many_streams_and_no_more() {
    let hub = Running::start().await;
    let url = format!("{}/v1/events/stream", hub.hub.api_url());
    let client = client();
    let open = async || client.get(&url).header("x-api-key", ADMIN).send().await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..hub::api::events::streaming::STREAMS_OF_WORKSPACE_MAX {
        let stream = open().await;
        assert_eq!(stream.status(), StatusCode::OK);
        streams.push(stream);
    }
    let refused = open().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_streams");
    drop(streams.pop());
    eventually("the place is free again", || async { open().await.status() == StatusCode::OK }).await;
    drop(streams);
    hub.stop().await;
}

#[actix::test]
async fn a_stream_that_nobody_reads_is_cut_and_holds_up_no_other() {
    let hub = Running::start_with(&["--visitor-stall-ms", "500"]).await;
    let tunnel = format!("/v1/tunnels/{}", hub.tunnel("web").await.text("id"));
    // More than sockets and buffers on the way take up.
    for number in 0..700 {
        let metadata = json!({ "number": number, "text": "x".repeat(16_000) });
        assert_eq!(hub.patch(&tunnel, json!({ "metadata": metadata })).await.status, StatusCode::OK);
    }
    let lazy = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    lazy.set_recv_buffer_size(4_096).unwrap();
    lazy.connect(&hub.hub.api_addr.into()).unwrap();
    let request =
        format!("GET /v1/events/stream?fromPosition=1 HTTP/1.1\r\nhost: hub\r\nx-api-key: {ADMIN}\r\n\r\n");
    std::io::Write::write_all(&mut &lazy, request.as_bytes()).unwrap();
    let streams = &hub.hub.ports.event_streams;
    eventually("the stream is open", || async { streams.open() == 1 }).await;
    let mut other = Listener::at(&hub, "", None).await;
    hub.tunnel("another").await;
    assert!(other.next().await.is_some());
    drop(other);
    eventually("it is cut", || async { streams.open() == 0 }).await;
    hub.stop().await;
}

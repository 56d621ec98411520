//! The access log of a share over HTTP: filters, pages, statistics and exports of what visitors really did.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN, Running, client};

/// A share with some accesses: two GETs and a POST that met no agent, and one GET after the share was revoked.
struct Visited {
    hub: Running,
    share: String,
}

impl Visited {
    async fn new() -> Self {
        let hub = Running::start_with(&["--agent-wait-ms", "0"]).await;
        let tunnel = hub.tunnel("web").await;
        let path = format!("/v1/tunnels/{}/share", tunnel.text("id"));
        let share = hub.post(&path, json!({ "name": "visited" })).await;
        assert_eq!(share.status, StatusCode::CREATED, "{share:?}");
        let (id, token) = (share.text("id"), share.text("token"));
        let visit = async |method: Method, path: &str, agent: &str| {
            let url = format!("http://{}/shared/{token}{path}", hub.hub.edge_addr);
            let request = client().request(method, url).header("user-agent", agent);
            request.send().await.unwrap().status()
        };
        for (method, path, agent) in [
            (Method::GET, "/a?secret=1", "curl/8"),
            (Method::GET, "/a", "=HYPERLINK(\"http://evil\")"),
            (Method::POST, "/b/c", "one, \"two\""),
        ] {
            assert_eq!(visit(method, path, agent).await, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(hub.delete(&format!("/v1/shares/{id}")).await.status, StatusCode::OK);
        assert_eq!(visit(Method::GET, "/late", "curl/8").await, StatusCode::FORBIDDEN);
        Self { hub, share: id }
    }

    async fn logs(&self, query: &str) -> Vec<Value> {
        let answer = self.hub.get(&format!("/v1/shares/{}/logs{query}", self.share)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body["logs"].as_array().unwrap().clone()
    }

    async fn paths(&self, query: &str) -> Vec<String> {
        self.logs(query).await.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    }

    async fn export(&self, query: &str) -> (String, String) {
        let url = format!("{}/v1/shares/{}/logs/export{query}", self.hub.hub.api_url(), self.share);
        let answer = client().get(url).header("x-api-key", ADMIN).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, answer.text().await.unwrap())
    }
}

#[actix::test]
async fn every_filter_selects_and_what_was_answered_before_the_question_is_shown() {
    let visited = Visited::new().await;
    assert_eq!(visited.paths("").await, ["/late", "/b/c", "/a", "/a"]);
    for (query, expected) in [
        ("?status=403", &["/late"][..]),
        ("?status=5xx", &["/b/c", "/a", "/a"]),
        ("?method=POST", &["/b/c"]),
        ("?method=post", &[]),
        ("?path=/a", &["/a", "/a"]),
        ("?path=/b/*", &["/b/c"]),
        ("?ip=127.0.0.1&status=403", &["/late"]),
        ("?ip=::ffff:127.0.0.1&limit=1", &["/late"]),
        ("?ip=192.0.2.1", &[]),
        ("?until=2020-01-01T00:00:00.000Z", &[]),
        ("?since=2020-01-01T00:00:00.000Z&until=2100-01-01T00:00:00Z&method=POST", &["/b/c"]),
    ] {
        assert_eq!(visited.paths(query).await, expected, "{query}");
    }
    let moment = visited.logs("?method=POST").await[0]["accessedAt"].as_str().unwrap().to_owned();
    let since = visited.paths(&format!("?since={moment}")).await;
    assert_eq!(since[..2], ["/late", "/b/c"], "the moment itself is included");
    visited.hub.stop().await;
}

#[actix::test]
async fn pages_go_on_where_they_ended() {
    let visited = Visited::new().await;
    let mut path = format!("/v1/shares/{}/logs?limit=3&ip=127.0.0.1", visited.share);
    let mut seen = Vec::new();
    loop {
        let page = visited.hub.get(&path).await;
        seen.extend(page.body["logs"].as_array().unwrap().iter().map(|entry| entry["id"].clone()));
        let Some(link) = page.link else { break };
        path = link.split(['<', '>']).nth(1).unwrap().to_owned();
        assert!(path.contains("ip=127.0.0.1"), "{path}");
    }
    assert_eq!(seen.len(), 4);
    seen.dedup();
    assert_eq!(seen.len(), 4);
    visited.hub.stop().await;
}

#[actix::test]
async fn a_filter_that_is_none_is_named() {
    let visited = Visited::new().await;
    for (place, query, field) in [
        ("logs", "status=abc", "status"),
        ("logs", "status=999", "status"),
        ("logs", "since=yesterday", "since"),
        ("logs", "ip=nowhere", "ip"),
        ("logs", "method=G%20T", "method"),
        ("logs", "path=", "path"),
        ("logs", "colour=red", "colour"),
        ("logs", "cursor=x", "cursor"),
        ("logs/stats", "limit=1", "limit"),
        ("logs/export", "format=xml", "format"),
        ("logs/export", "cursor=x", "cursor"),
    ] {
        let answer = visited.hub.get(&format!("/v1/shares/{}/{place}?{query}", visited.share)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{place}?{query}: {answer:?}");
        assert_eq!(answer.body["details"][0]["field"], field, "{place}?{query}");
    }
    visited.hub.stop().await;
}

#[actix::test]
async fn statistics_count_by_status_path_address_and_hour() {
    let visited = Visited::new().await;
    let path = format!("/v1/shares/{}/logs/stats", visited.share);
    let stats = visited.hub.get(&path).await;
    assert_eq!(stats.status, StatusCode::OK, "{stats:?}");
    assert_eq!((&stats.body["accesses"], &stats.body["denied"]), (&json!(4), &json!(4)));
    assert_eq!(stats.body["complete"], true);
    assert_eq!(stats.body["byStatus"], json!({ "403": 1, "503": 3 }));
    assert_eq!(stats.body["byPath"][0], json!({ "path": "/a", "count": 2 }));
    assert_eq!(stats.body["byIp"], json!([{ "ipAddress": "127.0.0.1", "count": 4 }]));
    let hours = stats.body["byHour"].as_array().unwrap();
    assert_eq!(hours.iter().map(|hour| hour["count"].as_u64().unwrap()).sum::<u64>(), 4);
    assert!(hours[0]["hour"].as_str().unwrap().ends_with(":00:00.000Z"));
    let latency = &stats.body["latencyMs"];
    assert!(latency["p50"].as_u64().unwrap() <= latency["p99"].as_u64().unwrap(), "{latency}");
    let some = visited.hub.get(&format!("{path}?method=POST")).await;
    assert_eq!(some.body["byStatus"], json!({ "503": 1 }));
    let none = visited.hub.get(&format!("{path}?ip=192.0.2.1")).await;
    assert_eq!((&none.body["accesses"], &none.body["latencyMs"]["p50"]), (&json!(0), &Value::Null));
    visited.hub.stop().await;
}

#[actix::test]
async fn an_export_has_every_access_as_the_list_shows_it() {
    let visited = Visited::new().await;
    let (kind, text) = visited.export("").await;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, visited.logs("").await);
    let (kind, csv) = visited.export("?format=csv&status=503").await;
    assert!(kind.starts_with("text/csv"), "{kind}");
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 5, "a head, three accesses, and the last line's end: {csv}");
    assert!(lines[0].starts_with("id,shareId,accessedAt,"));
    assert!(csv.contains(r#""one, ""two""""#), "{csv}");
    assert!(csv.contains(r#""'=HYPERLINK(""http://evil"")""#), "{csv}");
    assert!(!csv.contains("secret"), "a path is kept without its query: {csv}");
    visited.hub.stop().await;
}

#[actix::test]
async fn an_export_of_many_pages_is_whole_and_in_order() {
    let visited = Visited::new().await;
    // Beyond 600 refusals a minute several become one record; this stays below, in several packed events.
    let tunnel = visited.hub.tunnel("busy").await;
    let path = format!("/v1/tunnels/{}/share", tunnel.text("id"));
    let share = visited.hub.post(&path, json!({ "name": "busy" })).await;
    let url = format!("http://{}/shared/{}/", visited.hub.hub.edge_addr, share.text("token"));
    let client = client();
    for n in 0..500 {
        client.get(format!("{url}{n}")).send().await.unwrap();
    }
    let busy = Visited { share: share.text("id"), hub: visited.hub };
    let (_, text) = busy.export("").await;
    let paths: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = (0..500).rev().map(|n| format!("/{n}")).collect();
    assert_eq!(paths, expected);
    busy.hub.stop().await;
}

#[actix::test]
async fn anothers_share_has_no_log() {
    let visited = Visited::new().await;
    let other = visited.hub.hub.core.create_workspace("other").await.unwrap();
    let scopes = vec![domain::workspace::Scope::Admin];
    let (_, key) = visited.hub.hub.core.create_key(other, "other", scopes, None, None).await.unwrap();
    for place in ["logs", "logs/stats", "logs/export"] {
        let path = |id: &str| format!("/v1/shares/{id}/{place}");
        let ask = async |id: &str| {
            let headers = [("x-api-key", key.reveal())];
            let answer = visited.hub.send(Method::GET, &path(id), &headers, None).await;
            (answer.status, answer.code().to_owned())
        };
        let unknown = "share_00000000000070008000000000000000";
        let expected = (StatusCode::NOT_FOUND, "share_not_found".to_owned());
        assert_eq!(ask(&visited.share).await, expected);
        assert_eq!(ask(unknown).await, expected);
    }
    visited.hub.stop().await;
}

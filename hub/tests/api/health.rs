//! What orchestrators and dashboards ask, without credentials.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::Running;

#[actix::test]
async fn a_healthy_hub_says_so_without_credentials() {
    let hub = Running::start().await;
    let health = hub.send(Method::GET, "/health", &[], None).await;
    assert_eq!(health.status, StatusCode::OK);
    assert_eq!(health.body["status"], "ok");
    assert_eq!(health.body["database"], "connected");
    assert_eq!(hub.send(Method::GET, "/v1/health", &[], None).await.body["status"], "ok");
    assert_eq!(hub.send(Method::GET, "/livez", &[], None).await.body, json!({ "status": "ok" }));
    assert_eq!(hub.send(Method::GET, "/readyz", &[], None).await.body, json!({ "status": "ready" }));
    hub.stop().await;
}

#[actix::test]
async fn metrics_count_what_happened_and_never_twice() {
    let hub = Running::start().await;
    hub.tunnel("web").await;
    let value = async |name: &str| -> u64 {
        let page = hub.send(Method::GET, "/metrics", &[], None).await;
        let text = page.body.as_str().unwrap().to_owned();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let events = value("pconnect_log_events_total").await;
    assert!(events >= 7, "workspace, key, node, agent, two claims, tunnel: {events}");
    let head = value("pconnect_log_head_position").await;
    assert!(head >= events);
    assert_eq!(value("pconnect_edge_connections_total").await, 0);
    assert!(value("pconnect_api_responses_total{class=\"2xx\"}").await >= 2);
    hub.stop().await;
}

#[actix::test]
async fn an_unknown_url_is_a_404_of_the_one_shape() {
    let hub = Running::start().await;
    let answer = hub.send(Method::GET, "/v1/nothing", &[("accept", "application/problem+json")], None).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "no_such_url"));
    assert_eq!(answer.body["status"], 404, "and, when asked for, of RFC 9457");
    assert_eq!(answer.body["instance"], answer.body["requestId"]);
    hub.stop().await;
}

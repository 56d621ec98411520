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
async fn a_hub_whose_log_is_damaged_says_so_and_serves_what_is_intact() {
    let hub = Running::start().await;
    let facts = hub.data.path().join("log").join("facts");
    let segment = std::fs::read_dir(&facts)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    // Behind the hub's back, in the first event.
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[150] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let value = async || {
        let page = hub.send(Method::GET, "/metrics", &[], None).await;
        let text = page.body.as_str().unwrap().to_owned();
        text.lines().find(|line| line.starts_with("pconnect_log_damaged ")).unwrap().to_owned()
    };
    assert_eq!(value().await, "pconnect_log_damaged 0");
    hub.hub.core.log.read_all(0, domain::recorded::Families::ALL, 10).await.unwrap_err();
    let health = hub.send(Method::GET, "/health", &[], None).await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&health.body["status"], &health.body["reason"]), (&json!("degraded"), &json!("log_damaged")));
    assert_eq!(health.body["database"], "connected");
    assert_eq!(value().await, "pconnect_log_damaged 1");
    assert_eq!(hub.send(Method::GET, "/readyz", &[], None).await.status, StatusCode::OK);
    hub.tunnel("web").await;
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

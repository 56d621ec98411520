//! What orchestrators and dashboards ask, without credentials.

use std::collections::BTreeSet;

use hub::metrics::families::GROUPS;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{ADMIN, Running};

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
    let created = "pconnect_api_requests_total{route=\"/v1/tunnels\",method=\"POST\",class=\"2xx\"}";
    assert_eq!(value(created).await, 1);
    assert_eq!(value("pconnect_api_requests_in_flight").await, 1, "the one that asks");
    assert_eq!(value("pconnect_log_writable").await, 1);
    hub.stop().await;
}

#[actix::test]
async fn every_metric_of_the_list_is_on_the_page_and_no_other() {
    let hub = Running::start().await;
    hub.tunnel("name-of-a-tenant").await;
    let page = hub.send(Method::GET, "/metrics", &[], None).await;
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = page.body.as_str().unwrap();
    let shown: BTreeSet<(&str, &str)> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let listed = GROUPS.iter().flat_map(|(_, families)| families.iter());
    // This hub speaks no TLS.
    let listed = listed.filter(|family| !family.name.starts_with("pconnect_tls_"));
    let listed: BTreeSet<(&str, &str)> = listed.map(|family| (family.name, family.kind.name())).collect();
    assert_eq!(shown, listed);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let is_tenants = ["name-of-a-tenant", "tun_"].iter().any(|it| labels.contains(it));
        assert!(!is_tenants, "a label from a tenant: {line}");
    }
    hub.stop().await;
}

#[actix::test]
async fn metrics_want_the_operators_token_where_there_is_one_and_no_other_credentials() {
    let token = "a-token-that-only-prometheus-has";
    let hub = Running::start_with(&["--metrics-token", token, "--limit-public-per-min", "3"]).await;
    let ask = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() { &headers[..0] } else { &headers[..] };
        hub.send(Method::GET, "/metrics", headers, None).await
    };
    for _ in 0..10 {
        assert_eq!(ask(&format!("Bearer {token}")).await.status, StatusCode::OK, "it is not counted");
    }
    let none = ask("").await;
    assert_eq!((none.status, none.code()), (StatusCode::UNAUTHORIZED, "credentials_missing"));
    let key = ask(&format!("Bearer {ADMIN}")).await;
    assert_eq!((key.status, key.code()), (StatusCode::UNAUTHORIZED, "credentials_invalid"));
    let elsewhere = format!("Bearer {token}");
    let elsewhere = [("authorization", elsewhere.as_str())];
    let refused = hub.send(Method::GET, "/v1/whoami", &elsewhere, None).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "it opens nothing else");
    assert_eq!(ask("Bearer guess").await.status, StatusCode::TOO_MANY_REQUESTS, "guesses are counted");
    let page = ask(&format!("Bearer {token}")).await;
    let text = page.body.as_str().unwrap();
    let refusals = "pconnect_rate_limited_total{scope=\"public\"} 1";
    assert!(text.lines().any(|line| line == refusals), "{text}");
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

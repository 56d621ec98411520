//! Services over HTTP: their subdomains, how they look from elsewhere, and watching them.

use std::sync::Arc;

use domain::{ids::TunnelId, time::Timestamp};
use hub::{clock::SetClock, diagnostics::Kept, health_monitor::HealthMonitor};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    machines::{Machine, get, web_server},
    support::{ADMIN, Answer, Running, client, eventually},
};

/// A public service of an agent that is away.
async fn public_service(hub: &Running, name: &str) -> Answer {
    let agent = hub.agent().await;
    let body = json!({
        "agentId": agent, "name": name, "targetHost": "localhost", "targetPort": 3000, "protocol": "http",
        "isPublic": true,
    });
    let made = hub.post("/v1/services/register", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made
}

fn subdomain_path(service: &Answer) -> String {
    format!("/v1/services/{}/subdomain", service.text("id"))
}

/// The status that a host of the edge answers with.
async fn edge_status(hub: &Running, subdomain: &str) -> StatusCode {
    let url = format!("http://{}/", hub.hub.edge_addr);
    let host = format!("{subdomain}.localhost:{}", hub.hub.edge_addr.port());
    client().get(url).header("host", host).send().await.unwrap().status()
}

#[actix::test]
async fn a_public_service_gets_a_subdomain_of_its_own_and_the_former_url_ends() {
    let hub = Running::start_with(&["--agent-wait-ms", "0"]).await;
    let service = public_service(&hub, "shop").await;
    let path = subdomain_path(&service);
    let set = hub.patch(&path, json!({ "subdomain": "acme-shop" })).await;
    assert_eq!(set.status, StatusCode::OK, "{set:?}");
    assert!(set.text("publicUrl").contains("acme-shop."), "{set:?}");
    assert!(set.text("notice").contains("guess"));
    let again = hub.patch(&path, json!({ "subdomain": "acme-shop" })).await;
    assert_eq!(again.text("publicUrl"), set.text("publicUrl"));
    let shown = hub.get(&format!("/v1/services/{}", service.text("id"))).await;
    assert_eq!(shown.text("publicUrl"), set.text("publicUrl"));
    assert_eq!(edge_status(&hub, "acme-shop").await, StatusCode::SERVICE_UNAVAILABLE, "its agent is away");
    let former = service.text("publicUrl");
    let former = former.trim_start_matches("http://").split('.').next().unwrap().to_owned();
    assert_eq!(edge_status(&hub, &former).await, StatusCode::FORBIDDEN, "it was revoked");

    // A random one again; the chosen one is out of use for 30 days.
    let random = hub.patch(&path, json!({ "subdomain": null })).await;
    assert_eq!(random.text("subdomain").len(), 16, "{random:?}");
    assert!(random.body.get("notice").is_none());
    let same = hub.patch(&path, json!({ "subdomain": null })).await;
    assert_eq!(same.text("subdomain"), random.text("subdomain"), "a random one stays");
    eventually("the chosen one is given back", || async {
        let refused = hub.patch(&path, json!({ "subdomain": "acme-shop" })).await;
        refused.code() == "subdomain_quarantined"
    })
    .await;
    hub.stop().await;
}

#[actix::test]
async fn a_subdomain_that_cannot_be_had_is_refused_with_the_reason() {
    let hub = Running::start().await;
    let (shop, blog) = (public_service(&hub, "shop").await, public_service(&hub, "journal").await);
    hub.patch(&subdomain_path(&shop), json!({ "subdomain": "acme-shop" })).await;
    let path = subdomain_path(&blog);
    for (body, status, code) in [
        (json!({ "subdomain": "acme-shop" }), StatusCode::CONFLICT, "subdomain_taken"),
        (json!({ "subdomain": "www" }), StatusCode::BAD_REQUEST, "validation_failed"),
        (json!({ "subdomain": "A" }), StatusCode::BAD_REQUEST, "validation_failed"),
        (json!({}), StatusCode::BAD_REQUEST, "validation_failed"),
    ] {
        let answer = hub.patch(&path, body.clone()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{body}");
    }
    let private = hub.tunnel("private").await;
    let answer = hub.patch(&subdomain_path(&private), json!({ "subdomain": "mine" })).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, "not_public"));
    let headers = [("x-api-key", ADMIN), ("if-match", "\"999\"")];
    let old = hub.send(Method::PATCH, &path, &headers, Some(json!({ "subdomain": "mine" }))).await;
    assert_eq!(old.status, StatusCode::PRECONDITION_FAILED);
    hub.stop().await;
}

#[actix::test]
async fn whether_a_subdomain_can_be_had_is_told_before() {
    let clock = SetClock::at(Timestamp::from_millis(1_772_445_600_000));
    let hub = Running::start_at(TempDir::new().unwrap(), &[], Arc::clone(&clock) as _).await;
    let (shop, blog) = (public_service(&hub, "shop").await, public_service(&hub, "journal").await);
    hub.patch(&subdomain_path(&shop), json!({ "subdomain": "acme-shop" })).await;
    let check = async |service: &Answer, subdomain: &str| {
        let answer = hub.get(&format!("{}/check?subdomain={subdomain}", subdomain_path(service))).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        (answer.body["available"].as_bool().unwrap(), answer.body["reason"].as_str().map(str::to_owned))
    };
    let reason = |text: &str| Some(text.to_owned());
    assert_eq!(check(&blog, "acme-journal").await, (true, None));
    assert_eq!(check(&blog, "acme-shop").await, (false, reason("taken")));
    assert_eq!(check(&shop, "acme-shop").await, (true, reason("current")));
    assert_eq!(check(&blog, "admin").await, (false, reason("reserved")));
    assert_eq!(check(&blog, "-").await, (false, reason("invalid")));
    hub.patch(&subdomain_path(&shop), json!({ "subdomain": null })).await;
    eventually("it is quarantined", || async {
        check(&blog, "acme-shop").await == (false, reason("quarantined"))
    })
    .await;
    let told = hub.get(&format!("{}/check?subdomain=acme-shop", subdomain_path(&blog))).await;
    assert_eq!(told.text("availableAt"), "2026-04-01T10:00:00.000Z", "30 days later");
    clock.advance_ms(30 * 86_400_000);
    assert_eq!(check(&blog, "acme-shop").await, (true, None));
    let had = hub.patch(&subdomain_path(&blog), json!({ "subdomain": "acme-shop" })).await;
    assert_eq!(had.status, StatusCode::OK, "{had:?}");
    let missing = hub.get(&format!("{}/check", subdomain_path(&blog))).await;
    assert_eq!(missing.body["details"][0]["field"], "subdomain");
    hub.stop().await;
}

#[actix::test]
async fn another_agent_sees_the_service_the_way_that_reach_goes() {
    let hub = Running::start().await;
    let (server, laptop) = (Machine::new(&hub, "server").await, Machine::new(&hub, "laptop").await);
    let service = server.expose(&hub, web_server().await, "web", "http").await;
    let reach =
        async |body: Value| hub.post(&format!("/v1/services/{}/reach", service.text("id")), body).await;
    let full = reach(json!({ "sourceAgentId": laptop.id })).await;
    assert_eq!(full.status, StatusCode::OK, "{full:?}");
    for step in ["dns", "tcp", "http"] {
        assert_eq!(full.body[step]["ok"], true, "{step}: {full:?}");
    }
    assert_eq!((&full.body["reachable"], &full.body["agentId"]), (&json!(true), &json!(laptop.id)));
    assert!(full.body["latencyMs"].as_f64().unwrap() > 0.0);
    assert_eq!(full.body["http"]["detail"], "HTTP/1.1 200 OK");
    let short = reach(json!({ "sourceAgentId": laptop.id, "mode": "tcp", "timeoutMs": 5_000 })).await;
    assert_eq!((&short.body["tcp"]["ok"], short.body.get("http")), (&json!(true), None));
    let tls = reach(json!({ "sourceAgentId": laptop.id, "mode": "tls" })).await;
    assert_eq!(tls.body["tls"]["ok"], false, "it speaks none: {tls:?}");

    let last = hub.get(&format!("/v1/services/{}/diagnostics", service.text("id"))).await;
    assert_eq!(last.body["reach"]["agentId"], laptop.id.as_str());
    assert_eq!(last.body["reach"]["checkedAt"], tls.body["checkedAt"]);
    assert_eq!(last.body["check"], Value::Null);
    hub.post(&format!("/v1/services/{}/check", service.text("id")), json!({})).await;
    let last = hub.get(&format!("/v1/services/{}/diagnostics", service.text("id"))).await;
    assert_eq!(last.body["check"]["reachable"], true, "{last:?}");

    // Its agent is gone: the sealed way ends at the hub.
    server.stop().await;
    let gone = reach(json!({ "sourceAgentId": laptop.id })).await;
    assert_eq!(
        (&gone.body["reachable"], &gone.body["tcp"]["ok"]),
        (&json!(false), &json!(false)),
        "{gone:?}"
    );
    for (body, status) in [
        (json!({ "sourceAgentId": laptop.id, "mode": "smtp" }), StatusCode::BAD_REQUEST),
        (json!({ "sourceAgentId": laptop.id, "timeoutMs": 99 }), StatusCode::BAD_REQUEST),
        (json!({}), StatusCode::BAD_REQUEST),
        (json!({ "sourceAgentId": server.id }), StatusCode::SERVICE_UNAVAILABLE),
        (json!({ "sourceAgentId": "x" }), StatusCode::NOT_FOUND),
    ] {
        assert_eq!(reach(body.clone()).await.status, status, "{body}");
    }
    laptop.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_service_that_is_watched_is_found_healthy_also_after_a_restart() {
    let hub = Running::start().await;
    let server = Machine::new(&hub, "server").await;
    let service = server.expose(&hub, web_server().await, "web", "http").await;
    let path = format!("/v1/services/{}/health-config", service.text("id"));
    for body in [json!({ "enabled": true, "intervalSeconds": 9 }), json!({ "intervalSeconds": 3_601 })] {
        let refused = hub.patch(&path, body).await;
        assert_eq!(refused.body["details"][0]["field"], "intervalSeconds");
    }
    let set = hub.patch(&path, json!({ "enabled": true, "intervalSeconds": 10 })).await;
    let expected = json!({ "enabled": true, "intervalSeconds": 10, "status": "unknown" });
    assert_eq!((set.status, &set.body), (StatusCode::OK, &expected));
    let diagnostics = format!("/v1/services/{}/diagnostics", service.text("id"));
    eventually("it is found healthy", || async {
        hub.get(&diagnostics).await.body["healthStatus"]["status"] == "healthy"
    })
    .await;
    assert_eq!(hub.get(&diagnostics).await.body["health"]["reachable"], true);
    assert_eq!(hub.facts().await.iter().filter(|it| *it == "service.healthy").count(), 1);

    server.stop().await;
    let hub = hub.restart().await;
    let kept = hub.get(&diagnostics).await;
    assert_eq!(kept.body["healthStatus"]["status"], "healthy");
    assert_eq!(kept.body["health"], Value::Null, "a look is no fact");
    let server = server.again(&hub).await;
    eventually("it is looked at again", || async {
        hub.get(&diagnostics).await.body["health"]["reachable"] == true
    })
    .await;
    let off = hub.patch(&path, json!({ "enabled": false })).await;
    assert_eq!((&off.body["enabled"], &off.body["status"]), (&json!(false), &json!("unknown")));
    assert_eq!(hub.facts().await.iter().filter(|it| *it == "service.healthy").count(), 1, "no change");
    server.stop().await;
    hub.stop().await;
}

#[actix::test]
async fn a_watched_service_is_unhealthy_after_three_looks_that_fail_and_no_sooner() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await;
    let id: TunnelId = tunnel.text("id").parse().unwrap();
    let path = format!("/v1/services/{id}/health-config");
    hub.patch(&path, json!({ "enabled": true, "intervalSeconds": 3_600 })).await;
    // A monitor of the test's own: the hub's looks once an hour.
    let (core, ports) = (&hub.hub.core, &hub.hub.ports);
    let kept = Arc::new(Kept::new(Arc::clone(&core.routes), core.clock.clone()));
    let monitor =
        HealthMonitor::new(Arc::clone(&core.routes), core.executor.clone(), ports.gateway.clone(), kept);
    let unhealthy = async || hub.facts().await.iter().filter(|it| *it == "service.unhealthy").count();
    for looks in 1..=6 {
        monitor.look(id).await;
        assert_eq!(unhealthy().await, usize::from(looks >= 3), "after {looks} looks");
    }
    let shown = hub.get(&format!("/v1/services/{id}/diagnostics")).await;
    let status = &shown.body["healthStatus"];
    assert_eq!(
        (&status["status"], &status["step"], &status["reason"]),
        (&json!("unhealthy"), &json!("agent"), &json!("the agent is not connected"))
    );
    hub.patch(&path, json!({ "enabled": false })).await;
    monitor.look(id).await;
    assert_eq!(unhealthy().await, 1);
    hub.stop().await;
}

#[actix::test]
async fn what_ports_and_reach_carry_shows_on_the_tunnel_in_one_event_for_many_connections() {
    let hub = Running::start().await;
    let (server, laptop) = (Machine::new(&hub, "server").await, Machine::new(&hub, "laptop").await);
    let tunnel = server.expose(&hub, web_server().await, "web", "http").await;
    let path = format!("/v1/tunnels/{}", tunnel.text("id"));
    assert_eq!(hub.get(&path).await.body["lastActivityAt"], Value::Null);
    let port = u16::try_from(tunnel.body["tunnelPort"].as_u64().unwrap()).unwrap();
    for _ in 0..20 {
        assert!(get(port).await.unwrap().ends_with("ok"));
    }
    let counted = async |count: u64| {
        eventually("the connections are counted", || async {
            hub.get(&path).await.body["connectionCount"] == count
        })
        .await;
        hub.get(&path).await
    };
    let shown = counted(20).await;
    assert!(shown.body["lastActivityAt"].is_string(), "{shown:?}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let connect = json!({ "agentId": laptop.id, "localPort": free });
    let connected = hub.post(&format!("{path}/connect"), connect).await;
    assert_eq!(connected.status, StatusCode::OK, "{connected:?}");
    assert!(get(free).await.unwrap().ends_with("ok"));
    counted(21).await;
    eventually("the bytes of ended connections are counted", || async {
        let shown = hub.get(&path).await;
        let bytes = |field: &str| shown.body[field].as_u64().unwrap();
        bytes("bytesIn") >= 21 * 30 && bytes("bytesOut") >= 21 * 40
    })
    .await;
    let families = domain::recorded::Families::only(domain::recorded::Family::Accesses);
    let events = hub.hub.core.log.read_all(0, families, 1_000).await.unwrap();
    assert!(events.len() <= 6, "{} events for 21 connections", events.len());
    server.stop().await;
    laptop.stop().await;
    let hub = hub.restart().await;
    assert_eq!(hub.get(&path).await.body["connectionCount"], 21, "also after a restart");
    hub.stop().await;
}

//! The audit: what was recorded, by what it concerns, who caused it and when; and what is erased from it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN, Running, client};

/// A hub with an agent, a tunnel, a share that was revoked, and a tunnel that was deleted.
struct Audited {
    hub: Running,
    agent: String,
    tunnel: String,
    share: String,
    deleted: String,
}

impl Audited {
    async fn new() -> Self {
        let hub = Running::start().await;
        let agent = hub.agent().await;
        let tunnel = async |name: &str| {
            let body = json!({ "target": "localhost:3000", "agentId": agent, "name": name });
            hub.post("/v1/tunnels", body).await.text("id")
        };
        let (kept, deleted) = (tunnel("kept").await, tunnel("deleted").await);
        let share =
            hub.post(&format!("/v1/tunnels/{kept}/share"), json!({ "name": "link" })).await.text("id");
        for path in [format!("/v1/shares/{share}"), format!("/v1/tunnels/{deleted}")] {
            assert_eq!(hub.delete(&path).await.status, StatusCode::OK);
        }
        Self { hub, agent, tunnel: kept, share, deleted }
    }

    async fn entries(&self, path: &str) -> Vec<Value> {
        let answer = self.hub.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        answer.body["logs"].as_array().unwrap().clone()
    }

    /// The types, oldest first.
    async fn types(&self, path: &str) -> Vec<String> {
        let text = |entry: &Value| entry["type"].as_str().unwrap().to_owned();
        self.entries(path).await.iter().rev().map(text).collect()
    }
}

#[actix::test]
async fn what_concerns_a_thing_is_listed_also_when_the_thing_is_gone() {
    let audited = Audited::new().await;
    let (tunnel, share, deleted) = (&audited.tunnel, &audited.share, &audited.deleted);
    let of_share = ["share.created", "share.revoked"];
    let of_tunnel = ["tunnel.created", "share.created", "share.revoked"];
    for (one, all) in [
        (format!("/v1/audit/shares/{share}"), format!("/v1/audit?shareId={share}")),
        (
            format!("/v1/audit/shares/{share}?limit=1000"),
            format!("/v1/audit?shareId={share}&tunnelId={tunnel}"),
        ),
    ] {
        assert_eq!(audited.types(&one).await, of_share);
        assert_eq!(audited.types(&all).await, of_share);
    }
    assert_eq!(audited.types(&format!("/v1/audit/tunnels/{tunnel}")).await, of_tunnel);
    assert_eq!(
        audited.types(&format!("/v1/audit/tunnels/{deleted}")).await,
        ["tunnel.created", "tunnel.deleted"]
    );
    let of_agent = audited.types(&format!("/v1/audit/agents/{}", audited.agent)).await;
    assert_eq!(of_agent.first().unwrap(), "agent.registered");
    assert_eq!(of_agent.len(), 1 + 3 + 2, "{of_agent:?}");
    assert_eq!(
        audited.types(&format!("/v1/audit?tunnelId={tunnel}&shareId={share}&type=share.revoked")).await,
        ["share.revoked"]
    );
    audited.hub.stop().await;
}

#[actix::test]
async fn an_entry_says_who_when_what_and_in_which_place_and_shows_no_hash_and_no_slug() {
    let audited = Audited::new().await;
    let entries = audited.entries("/v1/audit?type=share.created").await;
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry["actor"]["kind"], "key");
    assert_eq!(entry["stream"], format!("share-{}", audited.share));
    assert_eq!((&entry["revision"], &entry["version"]), (&json!(1), &json!(1)));
    assert_eq!(entry["data"]["tunnelId"], audited.tunnel);
    assert!(entry["requestId"].as_str().unwrap().starts_with("req_"));
    let text = json!(audited.entries("/v1/audit").await).to_string();
    assert!(!text.contains("Hash") && !text.contains("claim.") && !text.contains("\"slug\""), "{text}");
    let key = entry["actor"]["id"].as_str().unwrap();
    assert!(audited.types(&format!("/v1/audit?actor={key}")).await.contains(&"share.revoked".to_owned()));
    assert_eq!(audited.types("/v1/audit?actor=operator&type=tunnel.created").await, Vec::<String>::new());
    assert!(audited.types("/v1/audit?actor=operator").await.contains(&"workspace.created".to_owned()));
    // What was erased by a revocation can still be asked for by time.
    let at = entry["recordedAt"].as_str().unwrap();
    let since = audited.types(&format!("/v1/audit?since={at}")).await;
    let until = audited.types(&format!("/v1/audit?until={at}")).await;
    assert!(since.contains(&"share.created".to_owned()) && until.contains(&"share.created".to_owned()));
    assert_eq!(audited.types("/v1/audit?until=2020-01-01T00:00:00Z").await, Vec::<String>::new());
    audited.hub.stop().await;
}

#[actix::test]
async fn pages_hold_every_entry_once_while_more_is_recorded() {
    let audited = Audited::new().await;
    let all = audited.entries("/v1/audit").await;
    let (mut paged, mut path) = (Vec::new(), "/v1/audit?limit=2".to_owned());
    loop {
        let page = audited.hub.get(&path).await;
        let logs = page.body["logs"].as_array().unwrap();
        assert!(logs.len() <= 2, "{page:?}");
        paged.extend(logs.iter().cloned());
        let Some(link) = page.link else { break };
        path = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
        audited.hub.agent().await;
    }
    assert_eq!(paged, all);
    audited.hub.stop().await;
}

#[actix::test]
async fn facts_are_counted() {
    let audited = Audited::new().await;
    let stats = audited.hub.get("/v1/audit/stats").await;
    assert_eq!(stats.status, StatusCode::OK, "{stats:?}");
    let count = |kind: &str| {
        let by_type = stats.body["byType"].as_array().unwrap();
        by_type.iter().find(|it| it["type"] == kind).map_or(0, |it| it["count"].as_u64().unwrap())
    };
    assert_eq!((count("tunnel.created"), count("share.revoked"), count("claim.taken")), (2, 1, 0));
    assert_eq!(stats.body["complete"], true);
    let all = audited.entries("/v1/audit?limit=1000").await.len() as u64;
    assert_eq!(stats.body["events"], all);
    let of_share = audited.hub.get(&format!("/v1/audit/stats?shareId={}", audited.share)).await;
    assert_eq!(of_share.body["events"], 2);
    audited.hub.stop().await;
}

#[actix::test]
async fn a_filter_that_is_none_is_refused_and_a_foreign_thing_is_not_there() {
    let audited = Audited::new().await;
    for (query, field) in [
        ("type=tunnel", "type"),
        ("type=Tunnel.created", "type"),
        ("since=yesterday", "since"),
        ("until=", "until"),
        ("actor=a%20b", "actor"),
        ("cursor=0", "cursor"),
        ("cursor=x", "cursor"),
    ] {
        let refused = audited.hub.get(&format!("/v1/audit?{query}")).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{query}: {refused:?}");
        assert_eq!(refused.body["details"][0]["field"], field, "{query}");
    }
    let core = &audited.hub.hub.core;
    let other = core.create_workspace("other").await.unwrap();
    let scopes = vec![domain::workspace::Scope::Admin];
    let (_, key) = core.create_key(other, "all", scopes, None, None).await.unwrap();
    let foreign = [("x-api-key", key.reveal())];
    for path in [
        format!("/v1/audit/shares/{}", audited.share),
        format!("/v1/audit?tunnelId={}", audited.tunnel),
        format!("/v1/audit/stats?agentId={}", audited.agent),
    ] {
        let answer = audited.hub.send(Method::GET, &path, &foreign, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
    }
    let all = audited.hub.send(Method::GET, "/v1/audit", &foreign, None).await.body.to_string();
    assert!(!all.contains(&audited.agent) && all.contains("workspace.created"), "{all}");
    audited.hub.stop().await;
}

/// A share of a hub whose agent is away, visited once with each of these paths.
async fn visited(hub: &Running, paths: &[&str]) -> String {
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub.post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link" })).await;
    for path in paths {
        let url = format!("http://{}/shared/{}{path}", hub.hub.edge_addr, share.text("token"));
        assert_eq!(client().get(url).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    share.text("id")
}

#[actix::test]
async fn what_is_personal_is_erased_for_ever_and_the_log_stays_verifiable() {
    let hub = Running::start_with(&["--agent-wait-ms", "0"]).await;
    let share = visited(&hub, &["/who", "/was"]).await;
    let logs = format!("/v1/shares/{share}/logs");
    let feed = "/v1/events?types=share.accessed";
    let before = hub.get(&logs).await.body["logs"].clone();
    assert_eq!(before[0]["ipAddress"], "127.0.0.1");
    assert_eq!(hub.get(feed).await.body["events"][0]["personal"][0]["path"], "/who");

    let today = &before[0]["accessedAt"].as_str().unwrap()[..10];
    // The day may have changed since.
    let body = json!({ "from": today, "until": &hub.hub.core.clock.now().to_string()[..10] });
    let erased = hub.post(&format!("{logs}/erase"), body.clone()).await;
    assert_eq!(erased.status, StatusCode::OK, "{erased:?}");
    assert!(erased.body["keysDestroyed"].as_u64().unwrap() >= 1, "{erased:?}");
    let again = hub.post(&format!("{logs}/erase"), body).await;
    assert_eq!(again.body["keysDestroyed"], 0);

    let after = hub.get(&logs).await.body["logs"].clone();
    assert_eq!(after.as_array().unwrap().len(), 2, "that somebody came stays known");
    for entry in after.as_array().unwrap() {
        assert_eq!(
            (&entry["ipAddress"], &entry["path"], &entry["statusCode"]),
            (&Value::Null, &Value::Null, &json!(503))
        );
    }
    assert_eq!(hub.get(feed).await.body["events"][0]["personal"], "erased");
    let noted = hub.get("/v1/audit?type=workspace.personal_erased").await;
    assert_eq!(noted.body["logs"].as_array().unwrap().len(), 2, "{noted:?}");
    assert_eq!(noted.body["logs"][0]["data"]["shareId"], share);

    // Who comes afterwards is known again; a restart brings nothing back.
    let hub = hub.restart().await;
    assert_eq!(hub.get(&logs).await.body["logs"], after);
    let data = hub.stop().await;
    hub::event_log::verify::verify(data.path(), None).unwrap();
}

#[actix::test]
async fn only_an_admin_erases_and_only_days() {
    let hub = Running::start().await;
    let share = visited(&hub, &[]).await;
    let paths = ["/v1/audit/erase".to_owned(), format!("/v1/shares/{share}/logs/erase")];
    let write = hub.post("/v1/api-keys", json!({ "name": "w", "scopes": ["write"] })).await.text("key");
    for path in &paths {
        let body = json!({ "from": "2026-03-01" });
        let refused = hub.send(Method::POST, path, &[("x-api-key", &write)], Some(body.clone())).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "scope_missing"));
        for (body, field) in [
            (json!({ "from": "yesterday" }), "from"),
            (json!({ "from": "2026-02-30" }), "from"),
            (json!({ "from": "2026-03-02", "until": "2026-03-01" }), "until"),
        ] {
            let refused = hub.post(path, body).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
            assert_eq!(refused.body["details"][0]["field"], field);
        }
        let key = [("x-api-key", ADMIN), ("idempotency-key", path.as_str())];
        for _ in 0..2 {
            let done = hub.send(Method::POST, path, &key, Some(body.clone())).await;
            assert_eq!((done.status, &done.body["keysDestroyed"]), (StatusCode::OK, &json!(0)), "{done:?}");
        }
    }
    hub.stop().await;
}

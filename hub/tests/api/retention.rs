//! Old accesses go and their sums stay, while the hub runs and in the next one.

use std::sync::Arc;

use hub::{
    event_log::{SharedLog, segments::Segments, verify::verify},
    readers::rebuild,
    retention::{Keep, Retention},
};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    agent_upkeep::hub_at,
    support::{Running, client},
};

const DAY_MS: i64 = 86_400_000;

fn retention(hub: &Running, days: u32) -> Retention {
    let core = &hub.hub.core;
    Retention {
        log: core.log.clone(),
        segments: core.segments.clone().unwrap(),
        views: Arc::clone(&hub.hub.ports.views),
        webhooks: Arc::clone(&hub.hub.ports.webhooks),
        clock: core.clock.clone(),
        keep: Keep { days, bytes: 0 },
    }
}

async fn paths(hub: &Running, share: &str) -> Vec<String> {
    let logs = hub.get(&format!("/v1/shares/{share}/logs")).await;
    let logs = logs.body["logs"].as_array().unwrap().iter();
    logs.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

#[actix::test]
async fn accesses_go_after_some_days_and_their_count_stays() {
    let (hub, clock) = hub_at().await;
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub
        .post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link", "expiresIn": "never" }))
        .await;
    hub.patch(&format!("/v1/tunnels/{tunnel}"), json!({ "status": "paused" })).await;
    let (id, token) = (share.text("id"), share.text("token"));
    let visit = async |path: &str| {
        let url = format!("http://{}/shared/{token}{path}", hub.hub.edge_addr);
        assert_eq!(client().get(url).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        hub.hub.ports.recorder.flushed().await;
    };
    for day in 0..4 {
        visit(&format!("/day/{day}")).await;
        clock.advance_ms(DAY_MS);
    }
    visit("/today").await;
    assert_eq!(
        retention(&hub, 0).look().await.unwrap(),
        None,
        "everything is kept unless one says otherwise"
    );
    assert_eq!(retention(&hub, 9).look().await.unwrap(), None, "nothing is as old as that");
    let head = head_of(&hub);
    assert!(retention(&hub, 2).look().await.unwrap().is_some());
    assert_eq!(retention(&hub, 2).look().await.unwrap(), None, "once");
    let left = ["/today", "/day/3", "/day/2"];
    assert_eq!(paths(&hub, &id).await, left);
    let shown = hub.get(&format!("/v1/shares/{id}")).await;
    assert_eq!(shown.body["accessCount"], 5, "{shown:?}");
    let gone = hub.get("/v1/events?types=share.accessed&fromPosition=1").await;
    assert_eq!((gone.status, gone.code()), (StatusCode::GONE, "history_retired"));
    let kept = hub.get("/v1/events?types=share.accessed").await;
    assert_eq!(kept.body["events"][0]["personal"][0]["path"], "/day/2");
    assert_ne!(head_of(&hub), head);

    // A second time, from where the first one ended.
    assert!(retention(&hub, 1).look().await.unwrap().is_some());
    assert_eq!(paths(&hub, &id).await, left[..2]);
    let data = hub.stop().await;
    verify(data.path(), None).unwrap();
    let core = hub::core::Core::open(data.path()).await.unwrap();
    let log: SharedLog = core.log.clone();
    let checked = rebuild::check(data.path(), &log, &mut |_| {}).await.unwrap();
    assert!(checked.iter().all(|view| view.equal), "{checked:?}");
    rebuild::rebuild(data.path(), &log, &mut |_| {}).await.unwrap();
    core.close().await;
    drop((log, core));
    let hub = Running::start_at(data, &[], clock).await;
    assert_eq!(paths(&hub, &id).await, left[..2]);
    assert_eq!(hub.get(&format!("/v1/shares/{id}")).await.body["accessCount"], 5);
    let facts = hub.get("/v1/events?limit=1").await;
    assert_eq!(facts.body["events"][0]["position"], 1, "facts are never retired");
    hub.stop().await;
}

#[actix::test]
async fn what_a_webhook_was_not_told_is_waited_for_a_week_and_then_said() {
    let (hub, clock) = hub_at().await;
    let tunnel = hub.tunnel("web").await.text("id");
    let share = hub
        .post(&format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link", "expiresIn": "never" }))
        .await;
    hub.patch(&format!("/v1/tunnels/{tunnel}"), json!({ "status": "paused" })).await;
    let subscribe = async |events: Value| {
        let body = json!({ "url": "https://hooks.example.com/", "events": events, "isActive": false });
        let made = hub.post("/v1/webhooks", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        made.text("id")
    };
    let (waits, other) =
        (subscribe(json!(["share.accessed"])).await, subscribe(json!(["tunnel.created"])).await);
    let (id, token) = (share.text("id"), share.text("token"));
    let visit = async |page: &str| {
        let url = format!("http://{}/shared/{token}/page/{page}", hub.hub.edge_addr);
        assert_eq!(client().get(url).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        hub.hub.ports.recorder.flushed().await;
    };
    for page in ["1", "2", "3"] {
        visit(page).await;
    }
    clock.advance_ms(3 * DAY_MS);
    // What is being written stays in any case: the first day has to be over in the log too.
    visit("later").await;
    let now = hub.hub.core.clock.now();
    assert_eq!(retention(&hub, 1).look().await.unwrap(), None, "the webhook has not been told at {now}");
    assert_eq!(paths(&hub, &id).await.len(), 4);
    let said = async || hub.facts().await.into_iter().filter(|it| it == "webhook.skipped").count();
    assert_eq!(said().await, 0);

    clock.advance_ms(6 * DAY_MS);
    visit("today").await;
    for _ in 0..2 {
        // The second time there is nothing left to go.
        retention(&hub, 1).look().await.unwrap();
    }
    // What is younger than a week is waited for still.
    assert_eq!((paths(&hub, &id).await.len(), said().await), (2, 1));
    let told = hub.get("/v1/events?types=webhook.skipped").await;
    let told = &told.body["events"][0];
    assert_eq!(
        (&told["data"]["webhookId"], &told["data"]["count"]),
        (&json!(waits), &json!(3)),
        "and not {other}"
    );
    let data = hub.stop().await;
    verify(data.path(), None).unwrap();
}

/// The head of the log now.
fn head_of(hub: &Running) -> String {
    let segments: &Segments = hub.hub.core.segments.as_ref().unwrap();
    let extent: Value = serde_json::to_value(segments.extent()).unwrap();
    extent["head"].as_str().unwrap().to_owned()
}

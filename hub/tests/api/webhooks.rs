//! Webhooks by the API: what is refused, what is shown, what repetitions answer.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{ADMIN, Answer, Running, eventually};

const ALLOWED: [&str; 2] = ["--webhook-allow", "127.0.0.0/8"];
/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:18/hook";

async fn created(hub: &Running) -> Answer {
    let made = hub.post("/v1/webhooks", json!({ "url": NOBODY, "events": ["agent.registered"] })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made
}

fn named(answer: &Answer) -> (&str, &str) {
    (answer.code(), answer.body["details"][0]["field"].as_str().unwrap_or_default())
}

#[actix::test]
async fn a_url_that_leads_inside_is_refused_unless_the_operator_allows_it() {
    let hub = Running::start().await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user@example.com/",
        "https://example.com:22/",
        "ftp://example.com/",
        "example.com",
        "",
    ] {
        let refused = hub.post("/v1/webhooks", json!({ "url": url, "events": ["*"] })).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{url}: {refused:?}");
        assert_eq!(named(&refused), ("validation_failed", "url"), "{url}");
    }
    for events in [json!([]), json!(["tunnel.*"]), json!(["*", "*"]), json!(["key.created"])] {
        let refused =
            hub.post("/v1/webhooks", json!({ "url": "https://a.example/", "events": events })).await;
        assert_eq!(named(&refused), ("validation_failed", "events"), "{events}");
    }
    hub.stop().await;
    let hub = Running::start_with(&ALLOWED).await;
    created(&hub).await;
    let metadata = json!({ "url": "http://169.254.169.254/", "events": ["*"] });
    assert_eq!(named(&hub.post("/v1/webhooks", metadata).await), ("validation_failed", "url"));
    hub.stop().await;
}

#[actix::test]
async fn a_secret_is_shown_once_and_a_repetition_shows_the_same() {
    let hub = Running::start_with(&ALLOWED).await;
    let once = [("x-api-key", ADMIN), ("idempotency-key", "make-it-once")];
    let body = json!({ "url": NOBODY, "events": ["*"], "description": "pager" });
    let first = hub.send(Method::POST, "/v1/webhooks", &once, Some(body.clone())).await;
    let again = hub.send(Method::POST, "/v1/webhooks", &once, Some(body)).await;
    assert_eq!(first.body, again.body);
    let (id, secret) = (first.text("id"), first.text("secret"));
    assert!(id.starts_with("wh_") && secret.starts_with("whsec_") && secret.len() == 6 + 44, "{first:?}");
    let path = format!("/v1/webhooks/{id}");
    let rotation = format!("{path}/rotate-secret");
    let once = [("x-api-key", ADMIN), ("idempotency-key", "rotate-it-once")];
    let rotated = hub.send(Method::POST, &rotation, &once, Some(json!({}))).await;
    let again = hub.send(Method::POST, &rotation, &once, Some(json!({}))).await;
    assert_eq!((rotated.status, &rotated.body), (StatusCode::OK, &again.body));
    assert_ne!(rotated.text("secret"), secret);
    let shown = hub.get(&path).await;
    assert_eq!(shown.body["previousSecretUntil"], rotated.body["previousSecretUntil"]);
    let everything = [
        shown.body.to_string(),
        hub.get("/v1/webhooks").await.body.to_string(),
        hub.get(&format!("{path}/deliveries")).await.body.to_string(),
    ];
    let secrets = [secret.as_str(), &rotated.text("secret")].map(|it| it[6..].to_owned());
    for text in &everything {
        assert!(secrets.iter().all(|it| !text.contains(it.as_str())), "{text}");
    }
    // Nor is it in the log.
    let all = hub.hub.core.log.read_all(0, domain::recorded::Families::ALL, 10_000).await.unwrap();
    for recorded in all {
        assert!(secrets.iter().all(|it| !recorded.data.contains(it.as_str())), "{}", recorded.event_type);
    }
    hub.stop().await;
}

#[actix::test]
async fn a_webhook_is_changed_switched_off_and_deleted() {
    let hub = Running::start_with(&ALLOWED).await;
    let made = created(&hub).await;
    let path = format!("/v1/webhooks/{}", made.text("id"));
    let changed = hub
        .send(
            Method::PATCH,
            &path,
            &[("x-api-key", ADMIN), ("if-match", made.etag.as_deref().unwrap())],
            Some(json!({ "events": ["*"], "description": "all of it", "isActive": false })),
        )
        .await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(
        (&changed.body["events"], &changed.body["isActive"], &changed.body["disabledReason"]),
        (&json!(["*"]), &json!(false), &json!("requested"))
    );
    let late = hub
        .send(
            Method::PATCH,
            &path,
            &[("x-api-key", ADMIN), ("if-match", made.etag.as_deref().unwrap())],
            Some(json!({ "isActive": true })),
        )
        .await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let nothing = hub.patch(&path, json!({ "description": "" })).await;
    assert_eq!(nothing.body["description"], Value::Null);
    assert_eq!(hub.delete(&path).await.status, StatusCode::OK);
    assert_eq!(hub.get(&path).await.code(), "webhook_not_found");
    assert_eq!(hub.get("/v1/webhooks").await.body, json!([]));
    hub.stop().await;
}

#[actix::test]
async fn deliveries_are_listed_with_their_attempts_and_sent_again_once() {
    let hub = Running::start_with(&ALLOWED).await;
    let made = created(&hub).await;
    let path = format!("/v1/webhooks/{}/deliveries", made.text("id"));
    for n in 0..3 {
        hub.post("/v1/agents/register", json!({ "label": format!("agent-{n}") })).await;
    }
    eventually("the first was tried", || async {
        let list = hub.get(&path).await;
        list.body.as_array().is_some_and(|all| all.len() == 3 && all[2]["attemptCount"].as_u64() >= Some(1))
    })
    .await;
    let list = hub.get(&path).await;
    let numbers: Vec<_> = list.body.as_array().unwrap().iter().map(|it| it["sequence"].clone()).collect();
    assert_eq!(numbers, [3, 2, 1], "newest first");
    let first = &list.body[2];
    assert_eq!((&first["status"], &first["eventType"]), (&json!("retrying"), &json!("agent.registered")));
    assert_eq!(first["attempts"][0]["error"], "unreachable");
    assert!(first["nextAttemptAt"].is_string());
    assert_eq!(list.body[0]["status"], "pending", "it waits for the first one");

    let page = hub.get(&format!("{path}?limit=2")).await;
    assert!(page.link.as_deref().unwrap().contains("cursor=2"), "{page:?}");
    let rest = hub.get(&format!("{path}?limit=2&cursor=2")).await;
    assert_eq!((rest.body.as_array().unwrap().len(), rest.link), (1, None));
    assert_eq!(hub.get(&format!("{path}?status=retrying")).await.body.as_array().unwrap().len(), 1);
    assert_eq!(named(&hub.get(&format!("{path}?status=lost")).await), ("validation_failed", "status"));
    assert_eq!(named(&hub.get(&format!("{path}?cursor=x")).await), ("validation_failed", "cursor"));

    let again = format!("{path}/{}/redeliver", list.body[0]["id"].as_str().unwrap());
    let once = [("x-api-key", ADMIN), ("idempotency-key", "again-once")];
    let sent = hub.send(Method::POST, &again, &once, Some(json!({}))).await;
    let repeated = hub.send(Method::POST, &again, &once, Some(json!({}))).await;
    assert_eq!((sent.status, &sent.body), (StatusCode::CREATED, &repeated.body));
    assert_eq!(sent.body["messageId"], list.body[0]["messageId"]);
    eventually("it is tried at once", || async {
        let one = hub.get(&format!("{path}/{}", sent.text("id"))).await;
        one.body["attemptCount"].as_u64() >= Some(1)
    })
    .await;
    assert_eq!(hub.get(&path).await.body.as_array().unwrap().len(), 4, "two orders, one delivery");
    hub.stop().await;
}

#[actix::test]
async fn a_replay_plans_what_happened_from_a_place_on() {
    let hub = Running::start_with(&ALLOWED).await;
    for n in 0..2 {
        hub.post("/v1/agents/register", json!({ "label": format!("agent-{n}") })).await;
    }
    let made = created(&hub).await;
    let path = format!("/v1/webhooks/{}", made.text("id"));
    for body in
        [json!({}), json!({ "fromPosition": 1, "since": "2026-03-02T10:00:00Z" }), json!({ "since": "soon" })]
    {
        let refused = hub.post(&format!("{path}/replay"), body.clone()).await;
        assert_eq!(refused.code(), "validation_failed", "{body}");
    }
    let count = async |expected: usize| {
        eventually("the deliveries are planned", || async {
            let list = hub.get(&format!("{path}/deliveries")).await;
            list.body.as_array().is_some_and(|all| all.len() == expected)
        })
        .await;
    };
    let replayed = hub.post(&format!("{path}/replay"), json!({ "fromPosition": 1 })).await;
    assert_eq!(replayed.status, StatusCode::OK, "{replayed:?}");
    count(2).await;
    let since = json!({ "since": "2020-01-01T00:00:00+01:00" });
    assert_eq!(hub.post(&format!("{path}/replay"), since).await.status, StatusCode::OK);
    count(4).await;
    hub.stop().await;
}

#[actix::test]
async fn a_test_says_what_came_of_it() {
    let hub = Running::start_with(&ALLOWED).await;
    let made = created(&hub).await;
    let tested = hub.post(&format!("/v1/webhooks/{}/test", made.text("id")), json!({})).await;
    assert_eq!(
        (&tested.body["delivered"], &tested.body["statusCode"], &tested.body["error"]),
        (&json!(false), &Value::Null, &json!("unreachable"))
    );
    hub.stop().await;
}

#[actix::test]
async fn a_workspace_has_so_many_webhooks_and_no_more() {
    let hub = Running::start_with(&ALLOWED).await;
    let body = || json!({ "url": NOBODY, "events": ["tunnel.expired"] });
    for _ in 0..hub::webhooks::WEBHOOKS_MAX {
        assert_eq!(hub.post("/v1/webhooks", body()).await.status, StatusCode::CREATED);
    }
    assert_eq!(hub.post("/v1/webhooks", body()).await.code(), "webhooks_exhausted");
    hub.stop().await;
}

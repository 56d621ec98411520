//! Messages between agents: sent, broadcast, read, bounded, and sealed in the log.

use futures_util::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    agent_upkeep::{hub_at, register},
    support::{ADMIN, Answer, Running},
};

async fn send(hub: &Running, secret: &str, from: &str, body: Value) -> Answer {
    let path = format!("/v1/agents/{from}/messages/send");
    hub.send(Method::POST, &path, &[("x-api-key", secret)], Some(body)).await
}

async fn box_of(hub: &Running, secret: &str, agent: &str, query: &str) -> Answer {
    let path = format!("/v1/agents/{agent}/messages{query}");
    hub.send(Method::GET, &path, &[("x-api-key", secret)], None).await
}

fn payloads(answer: &Answer) -> Vec<Value> {
    answer.body["messages"].as_array().unwrap().iter().map(|message| message["payload"].clone()).collect()
}

#[actix::test]
async fn a_message_is_read_by_the_agent_it_is_for_and_marked() {
    let hub = Running::start().await;
    let ((alice, alices), (bob, bobs)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    for number in 1..=3 {
        let body = json!({ "toAgentId": bob, "payload": { "number": number }, "topic": "build" });
        let sent = send(&hub, &alices, &alice, body).await;
        assert_eq!(sent.status, StatusCode::CREATED, "{sent:?}");
    }
    let all = box_of(&hub, &bobs, &bob, "").await;
    assert_eq!(payloads(&all), [3, 2, 1].map(|number| json!({ "number": number })), "newest first");
    let newest = &all.body["messages"][0];
    assert_eq!(
        (&newest["fromAgentId"], &newest["topic"], &newest["read"]),
        (&json!(alice), &json!("build"), &json!(false))
    );
    let page = box_of(&hub, &bobs, &bob, "?limit=2").await;
    assert_eq!(payloads(&page).len(), 2);
    let next = page.link.unwrap();
    let query = &next[next.find('?').unwrap()..next.find('>').unwrap()];
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, query).await), [json!({ "number": 1 })]);
    let read = async |body: Value| {
        let path = format!("/v1/agents/{bob}/messages/read");
        hub.send(Method::POST, &path, &[("x-api-key", &bobs)], Some(body)).await
    };
    let one = read(json!({ "messageIds": [newest["id"]] })).await;
    assert_eq!((&one.body["marked"], &one.body["unread"]), (&json!(1), &json!(2)), "{one:?}");
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, "?unread=true").await).len(), 2);
    let rest = read(json!({})).await;
    assert_eq!((&rest.body["marked"], &rest.body["unread"]), (&json!(2), &json!(0)));
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, "").await).len(), 3, "they are kept");
    assert_eq!(payloads(&box_of(&hub, &alices, &alice, "").await).len(), 0);
    let hub = hub.restart().await;
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, "").await).len(), 3, "also across a restart");
    hub.stop().await;
}

#[actix::test]
async fn nobody_speaks_for_another_agent_or_reads_its_box() {
    let hub = Running::start().await;
    let ((alice, alices), (bob, bobs)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    let body = json!({ "toAgentId": bob, "payload": "hello" });
    assert_eq!(send(&hub, &bobs, &alice, body.clone()).await.code(), "agent_not_yours");
    assert_eq!(box_of(&hub, &alices, &bob, "").await.code(), "agent_not_yours");
    assert_eq!(
        send(&hub, ADMIN, &alice, body).await.status,
        StatusCode::CREATED,
        "a key speaks for its agents"
    );
    let id = box_of(&hub, &bobs, &bob, "").await.body["messages"][0]["id"].clone();
    let path = format!("/v1/agents/{alice}/messages/read");
    let others =
        hub.send(Method::POST, &path, &[("x-api-key", &alices)], Some(json!({ "messageIds": [id] }))).await;
    assert_eq!((others.status, others.code()), (StatusCode::NOT_FOUND, "message_not_found"));
    let nobody = json!({ "toAgentId": "00000000-0000-7000-8000-000000000000", "payload": 1 });
    assert_eq!(send(&hub, &alices, &alice, nobody).await.code(), "agent_not_found");
    hub.stop().await;
}

#[actix::test]
async fn what_a_message_says_is_sealed_in_the_log() {
    let hub = Running::start().await;
    let ((alice, alices), (bob, _)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    send(&hub, &alices, &alice, json!({ "toAgentId": bob, "payload": "the-secret-plan" })).await;
    let events = hub.hub.core.log.read_all(0, domain::recorded::Families::ALL, 10_000).await.unwrap();
    let sent = events.iter().find(|event| &*event.event_type == "message.sent").unwrap();
    let domain::recorded::Personal::Sealed(sealed) = &sent.personal else { panic!("{:?}", sent.personal) };
    assert!(!sealed.windows(15).any(|bytes| bytes == b"the-secret-plan"));
    assert!(events.iter().all(|event| !event.data.contains("the-secret-plan")));
    hub.stop().await;
}

#[actix::test]
async fn a_broadcast_reaches_every_agent_that_can_still_connect() {
    let hub = Running::start().await;
    let (alice, alices) = register(&hub, ADMIN).await;
    let ((bob, bobs), (carol, carols)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    let (gone, _) = register(&hub, ADMIN).await;
    hub.delete(&format!("/v1/agents/{gone}")).await;
    let path = format!("/v1/agents/{alice}/messages/broadcast");
    let headers = [("x-api-key", alices.as_str()), ("idempotency-key", "b1")];
    let body = json!({ "payload": ["deploy", 7] });
    let sent = hub.send(Method::POST, &path, &headers, Some(body.clone())).await;
    assert_eq!(sent.status, StatusCode::CREATED, "{sent:?}");
    assert_eq!((&sent.body["delivered"], &sent.body["skipped"]), (&json!(2), &json!([])));
    let again = hub.send(Method::POST, &path, &headers, Some(body)).await;
    assert_eq!(again.body["messageIds"], sent.body["messageIds"], "said twice is said once");
    for (agent, token) in [(&bob, &bobs), (&carol, &carols)] {
        let found = box_of(&hub, token, agent, "").await;
        assert_eq!(payloads(&found), [json!(["deploy", 7])]);
        assert_eq!(found.body["messages"][0]["broadcast"], true);
    }
    assert_eq!(payloads(&box_of(&hub, &alices, &alice, "").await).len(), 0, "not to whoever sends it");
    hub.stop().await;
}

#[actix::test]
async fn a_box_is_bounded_and_what_was_read_makes_room() {
    let hub = Running::start().await;
    let ((alice, alices), (bob, _)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    let most = domain::message::MAILBOX_MAX;
    let body = json!({ "toAgentId": bob, "payload": 1 });
    stream::iter(0..most)
        .for_each_concurrent(32, |_| async {
            assert_eq!(send(&hub, &alices, &alice, body.clone()).await.status, StatusCode::CREATED);
        })
        .await;
    let full = send(&hub, &alices, &alice, body.clone()).await;
    assert_eq!((full.status, full.code()), (StatusCode::CONFLICT, "mailbox_full"));
    let path = format!("/v1/agents/{alice}/messages/broadcast");
    let headers = [("x-api-key", alices.as_str())];
    let cast = hub.send(Method::POST, &path, &headers, Some(json!({ "payload": 2 }))).await;
    assert_eq!((&cast.body["delivered"], &cast.body["skipped"]), (&json!(0), &json!([bob])));
    let marked = hub.post(&format!("/v1/agents/{bob}/messages/read"), json!({})).await;
    assert_eq!(marked.body["marked"], most);
    assert_eq!(send(&hub, &alices, &alice, body).await.status, StatusCode::CREATED);
    let kept = hub.get(&format!("/v1/agents/{bob}/messages?limit=1000")).await;
    assert_eq!(payloads(&kept).len(), most, "the oldest one that was read has gone");
    hub.stop().await;
}

#[actix::test]
async fn a_message_ends_with_its_time_and_is_bounded_itself() {
    let (hub, clock) = hub_at().await;
    let ((alice, alices), (bob, bobs)) = (register(&hub, ADMIN).await, register(&hub, ADMIN).await);
    let body = json!({ "toAgentId": bob, "payload": 1, "ttlSeconds": 60 });
    send(&hub, &alices, &alice, body).await;
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, "").await).len(), 1);
    clock.advance_ms(60_000);
    assert_eq!(payloads(&box_of(&hub, &bobs, &bob, "").await).len(), 0, "by the clock");
    for (body, field) in [
        (json!({ "toAgentId": bob, "payload": "x".repeat(16 * 1024) }), "payload"),
        (json!({ "toAgentId": bob, "payload": 1, "ttlSeconds": 59 }), "ttlSeconds"),
        (json!({ "toAgentId": bob, "payload": 1, "topic": "" }), "topic"),
        (json!({ "toAgentId": bob }), "payload"),
    ] {
        let refused = send(&hub, &alices, &alice, body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}");
        assert_eq!(refused.body["details"][0]["field"], field);
    }
    hub.stop().await;
}

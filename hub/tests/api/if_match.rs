//! `If-Match` is judged where the fact is written: of two changes of what both saw, one wins.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{ADMIN, Running};

#[actix::test]
async fn of_two_changes_with_the_same_etag_exactly_one_wins() {
    let hub = Running::start().await;
    let id = hub.tunnel("web").await.text("id");
    let path = format!("/v1/tunnels/{id}");
    for round in 0..30 {
        let etag = hub.get(&path).await.etag.unwrap();
        let headers = [("x-api-key", ADMIN), ("if-match", etag.as_str())];
        let change = |who: usize| {
            // By name, by metadata, by status: whatever way the change goes.
            let body = match round % 3 {
                0 => json!({ "name": format!("web-{round}-{who}") }),
                1 => json!({ "metadata": { "round": round, "who": who } }),
                _ => {
                    json!({ "name": format!("web-{round}-{who}"), "status": if round % 2 == 0 { "paused" } else { "active" } })
                }
            };
            hub.send(Method::PATCH, &path, &headers, Some(body))
        };
        let answers = join_all((0..4).map(change)).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::OK).collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
            assert_eq!((answer.status, answer.code()), (StatusCode::PRECONDITION_FAILED, "etag_mismatch"));
        }
        let kept = hub.get(&path).await;
        assert_eq!(kept.etag, won[0].etag, "the winner's ETag is the tunnel's");
        assert_eq!(
            (&kept.body["name"], &kept.body["metadata"]),
            (&won[0].body["name"], &won[0].body["metadata"])
        );
    }
    hub.stop().await;
}

#[actix::test]
async fn a_lost_change_changes_nothing_and_leaves_its_name_to_others() {
    let hub = Running::start().await;
    let id = hub.tunnel("web").await.text("id");
    let path = format!("/v1/tunnels/{id}");
    let old = hub.get(&path).await.etag.unwrap();
    assert_eq!(hub.patch(&path, json!({ "metadata": { "a": 1 } })).await.status, StatusCode::OK);
    let headers = [("x-api-key", ADMIN), ("if-match", old.as_str())];
    let change = json!({ "name": "wanted", "status": "paused", "metadata": {} });
    let lost = hub.send(Method::PATCH, &path, &headers, Some(change)).await;
    assert_eq!(lost.status, StatusCode::PRECONDITION_FAILED);
    let kept = hub.get(&path).await;
    assert_eq!((kept.text("name"), kept.text("status")), ("web".to_owned(), "connecting".to_owned()));
    assert_eq!(kept.body["metadata"], json!({ "a": 1 }));
    let other = hub.tunnel("wanted").await;
    assert_eq!(other.text("name"), "wanted");
    hub.stop().await;
}

#[actix::test]
async fn a_change_that_one_part_of_is_refused_changes_nothing() {
    let hub = Running::start().await;
    let path = format!("/v1/tunnels/{}", hub.tunnel("web").await.text("id"));
    let before = hub.get(&path).await;
    hub.tunnel("taken").await;
    let large = "x".repeat(20_000);
    for (change, code) in [
        (json!({ "name": "taken", "status": "paused" }), "tunnel_name_taken"),
        (json!({ "name": "new", "metadata": { "a": large }, "status": "paused" }), "validation_failed"),
        (json!({ "name": "new", "status": "asleep" }), "validation_failed"),
    ] {
        let refused = hub.patch(&path, change).await;
        assert_eq!(refused.code(), code, "{refused:?}");
        let kept = hub.get(&path).await;
        assert_eq!((&kept.body, &kept.etag), (&before.body, &before.etag), "after {code}");
    }
    assert_eq!(hub.tunnel("new").await.text("name"), "new", "a name that was claimed for it is free again");
    hub.stop().await;
}

#[actix::test]
async fn of_two_deletions_with_the_same_etag_exactly_one_wins() {
    let hub = Running::start().await;
    let tunnel = hub.tunnel("web").await;
    let share = hub.post(&format!("/v1/tunnels/{}/share", tunnel.text("id")), json!({ "name": "s" })).await;
    for path in [
        format!("/v1/shares/{}", share.text("id")),
        format!("/v1/tunnels/{}", tunnel.text("id")),
        format!("/v1/agents/{}", tunnel.text("agentId")),
    ] {
        let etag = hub.get(&path).await.etag.unwrap();
        let headers = [("x-api-key", ADMIN), ("if-match", etag.as_str())];
        let answers = join_all((0..4).map(|_| hub.send(Method::DELETE, &path, &headers, None))).await;
        let won = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        assert_eq!(won, 1, "{path}: {answers:?}");
        for answer in answers.iter().filter(|answer| answer.status != StatusCode::OK) {
            let is_late = [StatusCode::PRECONDITION_FAILED, StatusCode::NOT_FOUND].contains(&answer.status);
            assert!(is_late, "{path}: {answer:?}");
        }
    }
    hub.stop().await;
}

#[actix::test]
async fn any_revision_of_a_list_and_a_star_are_accepted() {
    let hub = Running::start().await;
    let path = format!("/v1/tunnels/{}", hub.tunnel("web").await.text("id"));
    for form in ["*", "\"0\", TAG", "TAG,\"x\"", "W/\"1\", TAG"] {
        let tag = hub.get(&path).await.etag.unwrap();
        let wanted = form.replace("TAG", &tag);
        let headers = [("x-api-key", ADMIN), ("if-match", wanted.as_str())];
        let changed =
            hub.send(Method::PATCH, &path, &headers, Some(json!({ "metadata": { "f": form } }))).await;
        assert_eq!(changed.status, StatusCode::OK, "{wanted}: {changed:?}");
    }
    hub.stop().await;
}

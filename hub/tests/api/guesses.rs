//! Guessing the codes of environment shares through the API, at full speed: what is let through, for how long the others
//! wait, and who is not kept from joining meanwhile.

use std::{sync::Arc, time::Instant};

use domain::{policy::lockout::Budget, time::Timestamp};
use futures_util::{StreamExt as _, future::join, future::join_all, stream};
use hub::clock::SetClock;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    environments::{Shared, ask, key},
    support::{Answer, Running},
};

/// A code that nobody has; another one for each number.
fn wrong(n: usize) -> String {
    let letter = |n: usize| char::from(b"abcdefgh"[n % 8]);
    format!("/v1/env-shares/zz{}{}{}{}", letter(n / 512), letter(n / 64), letter(n / 8), letter(n))
}

#[actix::test]
async fn wrong_codes_at_full_speed_lock_out_those_who_try_them_and_nobody_else() {
    let clock = SetClock::at(Timestamp::from_millis(1_772_445_600_000));
    let hub = Running::start_at(TempDir::new().unwrap(), &[], Arc::clone(&clock) as _).await;
    let shared = Shared::on(hub, json!({})).await;
    let hub = &shared.hub;
    let mut keys = Vec::new();
    for _ in 0..8 {
        keys.push(key(hub, "write").await);
    }
    let legitimate = key(hub, "write").await;
    // 400 tries, 50 of each key, as many at once as the connections carry.
    let tries = (0..400).map(|n| {
        let (key, path) = (&keys[n % keys.len()], wrong(n));
        async move { ask(hub, key, Method::GET, &path, None).await }
    });
    let answers = join_all(tries).await;
    let looked_at = answers.iter().filter(|it| it.status == StatusCode::NOT_FOUND).count();
    let refused: Vec<&Answer> = answers.iter().filter(|it| it.code() == "too_many_wrong_codes").collect();
    assert_eq!(looked_at + refused.len(), 400);
    // Thirty for the one address that all of this comes from, and one more for a key that had none before.
    assert!(looked_at <= 30 + keys.len(), "{looked_at} were looked at");
    assert_eq!(refused[0].body["retryAfter"], 900, "{:?}", refused[0]);

    // A teammate with the code joins meanwhile, from the same address.
    let body = Some(json!({ "agentId": shared.bob.id }));
    let joined = ask(hub, &legitimate, Method::POST, &shared.path("/join"), body).await;
    assert_eq!(joined.status, StatusCode::OK, "{joined:?}");
    // A guesser does not get in even with the right code, until its time is over.
    let right = async || ask(hub, &keys[0], Method::GET, &shared.path(""), None).await.status;
    assert_eq!(right().await, StatusCode::TOO_MANY_REQUESTS);
    clock.advance_ms(899_000);
    assert_eq!(right().await, StatusCode::TOO_MANY_REQUESTS);
    clock.advance_ms(1_000);
    assert_eq!(right().await, StatusCode::OK);
    shared.stop().await;
}

#[actix::test]
async fn what_can_be_no_code_is_unknown_and_does_not_count() {
    let shared = Shared::new(json!({})).await;
    for n in 0..40 {
        let path = format!("/v1/env-shares/no-code-{n}");
        assert_eq!(shared.hub.get(&path).await.code(), "environment_not_found");
    }
    assert_eq!(shared.hub.get(&shared.path("")).await.status, StatusCode::OK);
    shared.stop().await;
}

/// Looks at a path as somebody behind a proxy that says where they are.
async fn look(hub: &Running, key: &str, address: &str, path: &str) -> Answer {
    hub.send(Method::GET, path, &[("x-api-key", key), ("x-forwarded-for", address)], None).await
}

#[actix::test]
async fn many_keys_at_many_addresses_get_the_workspaces_budget_and_are_in_again_when_their_time_is_over() {
    const KEYS: usize = 40;
    const ADDRESSES: usize = 200;
    const TRIES: usize = 2_000;
    const AT_ONCE: usize = 100;
    let clock = SetClock::at(Timestamp::from_millis(1_772_445_600_000));
    let proxied = ["--trusted-proxies", "127.0.0.0/8"];
    let hub = Running::start_at(TempDir::new().unwrap(), &proxied, Arc::clone(&clock) as _).await;
    let shared = Shared::on(hub, json!({})).await;
    let hub = &shared.hub;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        keys.push(key(hub, "write").await);
    }
    let legitimate = key(hub, "write").await;
    let address = |n: usize| format!("198.51.100.{}", n % ADDRESSES);

    let began = Instant::now();
    let guesses = stream::iter(0..TRIES)
        .map(|n| {
            let (key, address, path) = (&keys[n % KEYS], address(n / KEYS), wrong(n));
            async move { look(hub, key, &address, &path).await }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<Answer>>();
    let joining = async {
        let body = Some(json!({ "agentId": shared.bob.id }));
        let headers = [("x-api-key", legitimate.as_str()), ("x-forwarded-for", "198.51.100.7")];
        (hub.send(Method::POST, &shared.path("/join"), &headers, body).await, began.elapsed())
    };
    let (answers, (joined, joined_after)) = join(guesses, joining).await;
    let took = began.elapsed();
    assert_eq!(joined.status, StatusCode::OK, "a teammate at a guesser's address: {joined:?}");
    let looked_at = answers.iter().filter(|it| it.status == StatusCode::NOT_FOUND).count();
    let refused: Vec<&Answer> = answers.iter().filter(|it| it.code() == "too_many_wrong_codes").collect();
    assert_eq!(looked_at + refused.len(), TRIES);
    let Budget { workspace, .. } = Budget::default();
    assert!((workspace..=workspace + KEYS).contains(&looked_at), "{looked_at} were looked at");
    let wait = refused.iter().filter_map(|it| it.body["retryAfter"].as_i64()).max().unwrap();
    assert_eq!(wait, 900);

    // With the right code, too, until their time is over; then every one of them.
    let mut waited = 0;
    while look(hub, &keys[0], &address(0), &shared.path("")).await.status != StatusCode::OK {
        assert!(waited < 2 * wait, "a guesser is never let in again");
        clock.advance_ms(10_000);
        waited += 10;
    }
    assert_eq!(waited, wait, "as long as it was said");
    let again = keys.iter().map(|key| look(hub, key, "203.0.113.1", "/v1/env-shares/zzzzzz"));
    let again = join_all(again).await;
    assert!(again.iter().all(|it| it.status == StatusCode::NOT_FOUND), "everybody is in again");
    println!(
        "{TRIES} wrong codes by {KEYS} keys from {ADDRESSES} addresses in {took:.1?}: {looked_at} were looked at, \
         the others locked out for {wait} s and in again after {waited} s; a teammate joined after {joined_after:.1?}"
    );
    shared.stop().await;
}

#[actix::test]
async fn an_operator_may_switch_the_lock_outs_off() {
    let off = [
        "--limit-wrong-codes-per-key=0",
        "--limit-wrong-codes-per-address=0",
        "--limit-wrong-codes-per-workspace=0",
    ];
    let hub = Running::start_with(&off).await;
    for n in 0..150 {
        assert_eq!(hub.get(&wrong(n)).await.code(), "environment_not_found");
    }
    hub.stop().await;
}

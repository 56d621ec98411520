//! What every route owes its callers, asked of every route of the table: methods, ids of requests, forms of errors,
//! parameters, caches, origins.

use std::collections::{BTreeMap, HashSet};

use hub::api::{self, describe::Access};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::{
    support::{ADMIN, Answer},
    world::{World, filled},
};

/// A guarded answer is the caller's alone, and nobody on the way may keep it; the parts of the page are everybody's.
fn is_kept_by_nobody(path: &str, answer: &Answer) -> bool {
    path.starts_with("/docs/") || answer.header("cache-control") == "no-store"
}

/// Every answer has an id that no other has, and an error repeats it in its body.
fn check_request_id(path: &str, answer: &Answer, seen: &mut HashSet<String>) {
    let id = answer.header("x-request-id").to_owned();
    assert!(id.starts_with("req_") && id.len() == 36, "{path}: {answer:?}");
    if !answer.status.is_success() && answer.body.is_object() && answer.body.get("code").is_some() {
        assert_eq!(answer.text("requestId"), id, "{path}: {answer:?}");
        assert_eq!(answer.body["statusCode"], answer.status.as_u16(), "{path}: {answer:?}");
        assert_eq!(answer.body["error"], answer.status.canonical_reason().unwrap(), "{path}: {answer:?}");
    }
    assert!(seen.insert(id), "{path}: an id twice: {answer:?}");
}

#[actix::test]
async fn every_url_answers_exactly_the_methods_that_are_described() {
    let world = World::start().await;
    let mut described = BTreeMap::<_, Vec<&str>>::new();
    for route in api::table() {
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        let methods = described.entry(path).or_default();
        methods.push(route.method);
        if route.method == "GET" {
            methods.push("HEAD");
        }
    }
    assert!(described.len() > 20, "{described:?}");
    for (path, methods) in described {
        let allow = [methods.as_slice(), &["OPTIONS"]].concat().join(", ");
        let options = world.hub.send(Method::OPTIONS, &path, &[], None).await;
        assert_eq!(options.status, StatusCode::NO_CONTENT, "{path}: {options:?}");
        assert_eq!(options.allow.as_deref(), Some(&*allow), "{path}");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if methods.contains(&method) {
                continue;
            }
            let other = world.hub.send(method.parse().unwrap(), &path, &[("x-api-key", ADMIN)], None).await;
            assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}: {other:?}");
            assert_eq!(other.allow.as_deref(), Some(&*allow), "{method} {path}");
            if method != "HEAD" {
                assert_eq!(other.code(), "method_not_allowed", "{method} {path}");
            }
        }
    }
    world.hub.stop().await;
}

#[actix::test]
async fn head_answers_what_get_does_without_the_body() {
    let world = World::start().await;
    // What differs between any two answers.
    let passing = ["date", "x-request-id", "content-length", "transfer-encoding"];
    for route in api::table().into_iter().filter(|route| route.method == "GET") {
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        for key in [&[("x-api-key", ADMIN)][..], &[]] {
            let get = world.ask("GET", &path, &route.operation, key).await;
            let head = world.ask("HEAD", &path, &route.operation, key).await;
            assert_eq!(head.status, get.status, "{path}: {get:?}");
            assert_eq!(head.body, Value::String(String::new()), "{path}");
            let rest = |answer: &Answer| {
                let mut headers = answer.headers.clone();
                passing.iter().for_each(|name| {
                    headers.remove(*name);
                });
                headers
            };
            assert_eq!(rest(&head), rest(&get), "{path}");
        }
    }
    world.hub.stop().await;
}

#[actix::test]
async fn every_answer_has_an_id_of_its_own_and_is_kept_by_nobody() {
    let world = World::start().await;
    let mut seen = HashSet::new();
    for route in api::table() {
        // Things that are there and things that are not, so that successes and refusals are seen; nothing is deleted.
        let path = filled(route.path, &route.operation, |place| match route.method {
            "DELETE" | "PATCH" => crate::world::unknown(place),
            _ => world.own[&place].clone(),
        });
        for headers in [&[("x-api-key", ADMIN), ("x-request-id", "mine")][..], &[]] {
            let answer = world.ask(route.method, &path, &route.operation, headers).await;
            check_request_id(&path, &answer, &mut seen);
            assert!(is_kept_by_nobody(&path, &answer), "{path}: {answer:?}");
        }
        let options = world.hub.send(Method::OPTIONS, &path, &[], None).await;
        check_request_id(&path, &options, &mut seen);
    }
    world.hub.stop().await;
}

#[actix::test]
async fn every_error_is_a_problem_as_rfc_9457_has_it_for_who_asks_for_that() {
    let world = World::start().await;
    let table = api::table();
    for route in &table {
        let path = filled(route.path, &route.operation, crate::world::unknown);
        // The two refusals that every URL has: of a stranger, or of a method.
        let method = if route.operation.access.is_guarded() { route.method } else { "PUT" };
        for (accept, is_asked) in [
            ("application/problem+json", true),
            ("text/html, application/problem+json;q=0.5, */*;q=0.1", true),
            ("Application/Problem+JSON", true),
            ("application/json", false),
            ("application/problem+json;q=0, */*", false),
            ("application/problem+jsonx", false),
            ("*/*", false),
        ] {
            let answer = world.ask(method, &path, &route.operation, &[("accept", accept)]).await;
            assert!(answer.status.is_client_error(), "{path}: {answer:?}");
            let media_type = if is_asked { "application/problem+json" } else { "application/json" };
            assert_eq!(answer.header("content-type"), media_type, "{path} {accept}");
            for member in ["type", "title", "status", "detail", "instance"] {
                assert_eq!(answer.body.get(member).is_some(), is_asked, "{path} {accept}: {answer:?}");
            }
            for member in ["statusCode", "error", "code", "message", "requestId"] {
                assert!(answer.body.get(member).is_some(), "{path} {accept}: {answer:?}");
            }
        }
    }
    let nowhere = world.hub.send(Method::GET, "/v2", &[("accept", "application/problem+json")], None).await;
    assert_eq!(nowhere.header("content-type"), "application/problem+json");
    assert_eq!(nowhere.code(), "no_such_url");
    world.hub.stop().await;
}

#[actix::test]
async fn an_unknown_query_parameter_is_refused_wherever_somebody_is_counted() {
    let world = World::start().await;
    for route in api::table() {
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        for query in ["colour=red", "limi=1", "limit=1&limit=2", "%00=1"] {
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}{query}");
            let answer = world.ask(route.method, &path, &route.operation, &[("x-api-key", ADMIN)]).await;
            if route.operation.access == Access::Unlimited {
                // A probe of an orchestrator is answered whatever it appends.
                assert!(answer.status.is_success(), "{path}: {answer:?}");
            } else {
                assert_eq!(
                    (answer.status, answer.code()),
                    (StatusCode::BAD_REQUEST, "validation_failed"),
                    "{} {path}",
                    route.method
                );
                let named = answer.body["details"][0]["field"].as_str().unwrap();
                assert!(query.starts_with(named) || named == "\0", "{path}: {answer:?}");
            }
        }
    }
    world.hub.stop().await;
}

#[actix::test]
async fn no_other_origin_is_let_in() {
    let world = World::start().await;
    let origin = ("origin", "https://elsewhere.example");
    for route in api::table() {
        let path = filled(route.path, &route.operation, crate::world::unknown);
        let asked = [origin, ("access-control-request-method", route.method)];
        let preflight = world.hub.send(Method::OPTIONS, &path, &asked, None).await;
        let answer = world.ask(route.method, &path, &route.operation, &[origin, ("x-api-key", ADMIN)]).await;
        for answer in [preflight, answer] {
            let opened = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
            assert_eq!(opened, None, "{path}: {answer:?}");
        }
    }
    world.hub.stop().await;
}

//! Every route × {no key, another workspace's key, a key that only reads, an agent's key, an agent's token, a revoked
//! key}: who is refused, and how. Generated from the table: a new route is in it by having a description.

use domain::workspace::Scope;
use hub::api::{
    self,
    describe::{Access, Operation, places::Place},
    url::Described,
};
use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    support::Answer,
    world::{World, filled, unknown},
};

/// What is the same in two answers that say the same of two things: status, code, members, and words but for the id.
fn without(answer: &Answer, id: &str) -> (StatusCode, Value) {
    let mut body = answer.body.clone();
    if let Some(object) = body.as_object_mut() {
        object.insert("requestId".to_owned(), Value::Null);
        if let Some(message) = object.get_mut("message") {
            *message = message.as_str().unwrap().replace(id, "THE-ID").into();
        }
    }
    (answer.status, body)
}

fn described() -> Vec<Described> {
    let table = api::table();
    assert!(table.iter().filter(|route| route.operation.access.is_guarded()).count() > 20);
    table
}

/// The place whose thing belongs to somebody. A token is its own credential, a file of the page everybody's.
fn owned(operation: &Operation) -> Option<Place> {
    let places = operation.path.iter().map(|parameter| parameter.place);
    places.into_iter().find(|place| match place {
        Place::Agent
        | Place::Command
        | Place::Delivery
        | Place::Environment
        | Place::Key
        | Place::Share
        | Place::Tunnel
        | Place::Webhook => true,
        Place::Capability | Place::DocsFile | Place::ShareToken => false,
    })
}

/// Whether the body of its example names the examples' agent, which is the caller's own. (Where the body is the
/// credential it is the agent's own word, from wherever.)
fn names_the_agent(operation: &Operation) -> bool {
    operation.access != Access::InBody
        && operation
            .takes
            .as_ref()
            .is_some_and(|takes| takes.example.to_string().contains(Place::Agent.example()))
}

#[actix::test]
async fn without_valid_credentials_every_guarded_route_answers_401() {
    let world = World::start().await;
    let (revoked, id) = world.key("admin").await;
    assert_eq!(world.hub.delete(&format!("/v1/api-keys/{id}")).await.status, StatusCode::OK);
    let bearer = format!("Bearer {revoked}");
    for route in described() {
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        let asked = format!("{} {path}", route.method);
        for (headers, code) in [
            (vec![], "credentials_missing"),
            (vec![("x-api-key", revoked.as_str())], "credentials_invalid"),
            (vec![("authorization", bearer.as_str())], "credentials_invalid"),
            (vec![("x-api-key", "pc_nobody")], "credentials_invalid"),
            (vec![("x-api-key", "")], "credentials_invalid"),
            (vec![("authorization", "Basic YTpi")], "credentials_invalid"),
        ] {
            let answer = world.ask(route.method, &path, &route.operation, &headers).await;
            if route.operation.access.is_guarded() {
                assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, code), "{asked}");
                assert!(answer.header("www-authenticate").starts_with("Bearer "), "{asked}: {answer:?}");
            } else {
                assert!(answer.status.is_success(), "{asked}: {answer:?}");
            }
        }
    }
    world.hub.stop().await;
}

#[actix::test]
async fn a_key_without_the_scope_is_refused_with_the_scope_s_name() {
    let world = World::start().await;
    let (read, agent, write) =
        (world.key("read").await.0, world.key("agent").await.0, world.key("write").await.0);
    let callers = [
        (read.as_str(), Some(Scope::Read)),
        (agent.as_str(), Some(Scope::Agent)),
        (write.as_str(), Some(Scope::Write)),
        (world.agent_token.as_str(), None),
    ];
    for route in described() {
        let Some(needed) = route.operation.access.scope() else { continue };
        for (secret, scope) in callers {
            let is_granted = match scope {
                Some(scope) => route.operation.access.lets_key(scope),
                // An agent's own token.
                None => route.operation.access.lets_agent(),
            };
            // Who may goes on to a thing that is not there, so that nothing is lost for the next.
            let path = filled(route.path, &route.operation, |place| match is_granted {
                true => unknown(place),
                false => world.own[&place].clone(),
            });
            let asked = format!("{} {path} by {scope:?}", route.method);
            let answer = world.ask(route.method, &path, &route.operation, &[("x-api-key", secret)]).await;
            if !is_granted {
                assert_eq!(
                    (answer.status, answer.code()),
                    (StatusCode::FORBIDDEN, "scope_missing"),
                    "{asked}"
                );
                assert!(answer.text("message").contains(&format!("`{}`", needed.name())), "{asked}");
            } else if let Some(place) = owned(&route.operation) {
                assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, place.code()), "{asked}");
            } else if names_the_agent(&route.operation) && scope.is_none_or(|scope| scope == Scope::Agent) {
                // The example's agent came with another key.
                let seen = (answer.status, answer.code());
                assert_eq!(seen, (StatusCode::FORBIDDEN, "agent_not_yours"), "{asked}: {answer:?}");
            } else if route.operation.id == "shareEnvironment" {
                // The example's agent is away.
                let seen = (answer.status, answer.code());
                assert_eq!(seen, (StatusCode::BAD_REQUEST, "nothing_to_share"), "{asked}: {answer:?}");
            } else {
                assert!(answer.status.is_success(), "{asked}: {answer:?}");
            }
        }
    }
    world.hub.stop().await;
}

#[actix::test]
async fn another_workspace_s_thing_is_one_that_is_not_there() {
    let world = World::start().await;
    for route in described() {
        let operation = &route.operation;
        let key = match owned(operation) {
            // One that has no wrong codes behind it: after ten it would only hear that these were too many.
            Some(Place::Environment) => world.new_foreign_key().await,
            Some(_) | None => world.foreign_key.clone(),
        };
        let key = [("x-api-key", key.as_str())];
        let path = filled(route.path, operation, |place| world.own[&place].clone());
        let asked = format!("{} {path}", route.method);
        let foreign = world.ask(route.method, &path, operation, &key).await;
        if let Some(place) = owned(operation) {
            assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, place.code()), "{asked}");
            let nowhere = filled(route.path, operation, unknown);
            let nothing = world.ask(route.method, &nowhere, operation, &key).await;
            let (own, none) = (world.own[&place].as_str(), unknown(place));
            assert_eq!(without(&foreign, own), without(&nothing, &none), "{asked}");
        } else if names_the_agent(operation) {
            assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{asked}: {foreign:?}");
        } else {
            assert!(foreign.status.is_success(), "{asked}: {foreign:?}");
        }
        // Nothing of the caller's workspace is in any answer to the other one.
        if operation.access.is_guarded() && foreign.status.is_success() {
            for (place, own) in
                world.own.iter().filter(|(place, _)| !matches!(place, Place::Capability | Place::DocsFile))
            {
                assert!(!foreign.body.to_string().contains(own), "{asked} shows {place:?}: {foreign:?}");
            }
        }
    }
    // And all of that has changed nothing.
    for (path, place) in [("/v1/tunnels", Place::Tunnel), ("/v1/agents", Place::Agent)] {
        let kept = world.hub.get(&format!("{path}/{}", world.own[&place])).await;
        assert_eq!(kept.status, StatusCode::OK, "{kept:?}");
    }
    world.hub.stop().await;
}

#[actix::test]
async fn a_foreign_id_in_a_body_or_a_query_is_one_that_is_not_there() {
    let world = World::start().await;
    let (tunnel, agent) = (&world.own[&Place::Tunnel], &world.foreign[&Place::Agent]);
    let nobody = unknown(Place::Agent);
    for route in described().iter().filter(|route| names_the_agent(&route.operation)) {
        // Registering is how an id becomes known.
        if route.operation.id == "registerAgent" {
            continue;
        }
        let path = filled(route.path, &route.operation, |place| world.own[&place].clone());
        let example = &route.operation.takes.as_ref().unwrap().example;
        let ask = async |id: &str| {
            let body = example.to_string().replace(Place::Agent.example(), id);
            let body: Value = serde_json::from_str(&body).unwrap();
            world
                .hub
                .send(
                    route.method.parse().unwrap(),
                    &path,
                    &[("x-api-key", crate::support::ADMIN)],
                    Some(body),
                )
                .await
        };
        let (foreign, nothing) = (ask(agent).await, ask(&nobody).await);
        assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "agent_not_found"), "{path}");
        assert_eq!(without(&foreign, agent), without(&nothing, &nobody), "{path}");
    }
    let (foreign, none) = (&world.foreign[&Place::Tunnel], unknown(Place::Tunnel));
    let ask = async |id: &str| world.hub.get(&format!("/v1/shares?tunnelId={id}")).await;
    assert_eq!(ask(tunnel).await.status, StatusCode::OK);
    let (foreign, nothing) = ((ask(foreign).await, foreign), (ask(&none).await, &none));
    assert_eq!(foreign.0.status, StatusCode::NOT_FOUND);
    assert_eq!(without(&foreign.0, foreign.1), without(&nothing.0, nothing.1));
    world.hub.stop().await;
}

#[actix::test]
async fn another_workspace_s_thing_is_not_there_below_one_s_own_either() {
    let world = World::start().await;
    let mut asked = 0;
    for route in described().iter().filter(|route| route.operation.path.len() > 1) {
        let last = route.operation.path.last().unwrap().place;
        let ask = async |id: &str| {
            let path = filled(route.path, &route.operation, |place| match place == last {
                true => id.to_owned(),
                false => world.own[&place].clone(),
            });
            let key = [("x-api-key", crate::support::ADMIN)];
            world.ask(route.method, &path, &route.operation, &key).await
        };
        assert!(ask(&world.own[&last]).await.status.is_success(), "{}", route.path);
        let (foreign, none) = (&world.foreign[&last], unknown(last));
        let (there, nowhere) = (ask(foreign).await, ask(&none).await);
        assert_eq!((there.status, there.code()), (StatusCode::NOT_FOUND, last.code()), "{}", route.path);
        assert_eq!(without(&there, foreign), without(&nowhere, &none), "{}", route.path);
        asked += 1;
    }
    assert!(asked > 0, "no path has two ids");
    world.hub.stop().await;
}

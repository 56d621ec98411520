//! An environment handed to a teammate: what is joined stays, through a kill of the hub and of the joined agent.

use std::time::Duration;

use e2e::{Hub, Machine, api, eventually, http, targets::Nginx, wait::SOON};
use serde_json::{Value, json};

/// How soon everything is there again after a hub or an agent was killed.
const BACK: Duration = Duration::from_secs(20);

fn answers(port: u16) -> Result<(), String> {
    let mut connection =
        http::Connection::open(e2e::ports::loopback(port)).map_err(|error| error.to_string())?;
    connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").map_err(|error| error.to_string())?;
    let answer = connection.answer("GET").map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
}

/// The id of the only agent that is online and is not `known`.
fn agent_beside(hub: &Hub, known: &Value) -> Result<String, String> {
    let online = hub.api().get("/v1/agents/online").expect(200);
    let agents = online.as_array().cloned().unwrap_or_default();
    let other = agents.iter().find(|agent| agent["id"] != *known);
    other.map(|agent| api::text(agent, "id")).ok_or_else(|| online.to_string())
}

#[test]
fn a_joined_environment_is_there_again_after_kills_of_hub_and_agent_and_gone_when_it_is_revoked() {
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let _exposed = server.expose(nginx.address, "site");
    let tunnel = hub.api().active_tunnel("site").expect("it was confirmed");
    let mut up = laptop.up();
    let joiner = eventually("the laptop to be online", SOON, || agent_beside(&hub, &tunnel["agentId"]));

    let body = json!({ "agentId": tunnel["agentId"], "name": "site for all" });
    let code = api::text(&hub.api().post("/v1/env-shares", &body).expect(201), "code");
    let path = format!("/v1/env-shares/{code}");
    let joined = hub.api().post(&format!("{path}/join"), &json!({ "agentId": joiner })).expect(200);
    let port = api::port(&joined["routes"][0], "localPort");
    answers(port).expect("the route is open");

    hub.kill9();
    hub.restart();
    eventually("the route to work after a kill of the hub", BACK, || answers(port));
    up.kill9();
    let _up = laptop.up();
    eventually("the route to work after a kill of the agent", BACK, || answers(port));

    hub.api().delete(&path).expect(200);
    eventually("the route to be closed", SOON, || match answers(port) {
        Ok(()) => Err("it still answers".to_owned()),
        Err(_) => Ok(()),
    });
    hub.api().get(&path).expect(404);
}

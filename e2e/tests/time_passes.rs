//! What expires does so by the hub's clock: the hub is restarted a day and an hour later, by libfaketime.

use e2e::{Hub, Machine, api, eventually, faketime, http, targets::Nginx, wait::SOON};
use schemas::frames::{SESSION_PATH, SUBPROTOCOL};
use serde_json::json;

#[test]
fn a_day_later_links_keys_and_tokens_of_a_day_are_refused_and_the_others_work() {
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let link = |name: &str, expires: &str| {
        let body = json!({ "name": name, "expiresIn": expires });
        let share = hub.api().create_share(&exposed.tunnel_id(), &body);
        http::split_link(&api::text(&share, "shareUrl"))
    };
    let (edge, _, day) = link("a day", "24h");
    let (_, _, week) = link("a week", "7d");
    let (_, _, always) = link("for ever", "never");
    let key = |name: &str, expires: &str| {
        let body = json!({ "name": name, "expiresIn": expires });
        api::text(&hub.api().post("/v1/api-keys", &body).expect(201), "key")
    };
    let (day_key, week_key) = (key("a day", "24h"), key("a week", "7d"));
    let provision = json!({ "clientType": "cli", "ttlSeconds": 7_200 });
    let token = api::text(&hub.api().post("/v1/agents/provision", &provision).expect(201), "token");
    assert_eq!(http::get(edge, &day).status, 200);

    assert!(hub.terminate().success());
    hub.restart_with(&[
        ("LD_PRELOAD", &faketime::library()),
        ("FAKETIME", "+25h"),
        // Waits go on as they do; only the date changes.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    eventually("the agent to be back", SOON, || hub.api().active_tunnel("site"));

    let expired = http::get(edge, &day);
    assert_eq!(expired.status, 403, "{}", expired.text());
    assert_eq!(expired.json()["code"], "share_expired");
    assert_eq!(http::get(edge, &week).status, 200);
    assert_eq!(http::get(edge, &always).status, 200);
    assert_eq!(hub.api().with_key(&day_key).get("/v1/tunnels").status, 401);
    assert_eq!(hub.api().with_key(&week_key).get("/v1/tunnels").status, 200);
    let session = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "bm90IHJhbmRvbSBhdCBhbA=="),
        ("sec-websocket-protocol", SUBPROTOCOL),
        ("authorization", &format!("Bearer {token}")),
    ];
    let mut connection = http::Connection::open(hub.api_address).expect("the hub listens");
    let refused = connection.request("GET", SESSION_PATH, &session, None).expect("an answer");
    assert_eq!(refused.status, 401, "an expired agent token: {}", refused.text());
    // Expiry becomes a fact as well: the share is listed as no longer active.
    eventually("the expiry in the list", SOON, || {
        let shares = hub.api().shares(&exposed.tunnel_id());
        let active =
            |name: &str| shares.iter().any(|share| share["name"] == name && share["isActive"] == true);
        if !active("a day") && active("a week") { Ok(()) } else { Err(format!("{shares:?}")) }
    });
}

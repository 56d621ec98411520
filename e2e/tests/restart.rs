//! The hub ends, gently or not, and comes back: what was there is there.

use std::time::{Duration, Instant};

use e2e::{
    Hub, Machine, api, eventually, http,
    targets::{Nginx, Postgres, succeeds},
    wait::SOON,
};
use serde_json::json;

/// How soon an agent is back after the hub is (product.md: by itself; issue 1: 5 s).
const AGENT_BACK: Duration = Duration::from_secs(5);

#[test]
fn after_a_kill_the_agent_is_back_with_its_port_its_name_and_its_link() {
    let (postgres, nginx) = (Postgres::start(), Nginx::answering_everything());
    let mut hub = Hub::start();
    let (server, laptop) = (Machine::new(&hub), Machine::new(&hub));
    let database = server.expose(postgres.address, "db");
    let site = Machine::new(&hub);
    let site_exposed = site.expose(nginx.address, "site");
    let share = hub.api().create_share(&site_exposed.tunnel_id(), &json!({ "name": "kept" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    let reached = laptop.reach("db");
    let before = hub.api().tunnel_named("db").expect("the tunnel is listed");
    assert_eq!(http::get(edge, &path).status, 200);

    hub.kill9();
    hub.restart();
    let back = Instant::now();
    let after = eventually("the agent of `db` to be back", AGENT_BACK, || hub.api().active_tunnel("db"));
    eventually("the agent of `site` to be back", AGENT_BACK.saturating_sub(back.elapsed()), || {
        hub.api().active_tunnel("site")
    });
    for kept in ["id", "name", "tunnelPort", "targetPort", "agentId"] {
        assert_eq!(before[kept], after[kept], "{kept} changed");
    }
    assert_eq!(before["tunnelPort"], database.tunnel_port());
    assert_eq!(http::get(edge, &path).status, 200, "the link still works");
    // A psql opened afterwards, through the tunnel port and through the reach that was open all the time.
    assert_eq!(one(database.tunnel_port()), "1");
    eventually("the open reach to work again", AGENT_BACK, || {
        let output = Postgres::client("psql", reached.local_port).args(["-Atc", "select 1"]).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(e2e::hub::shown(&output)) }
    });
}

fn one(port: u16) -> String {
    succeeds(Postgres::client("psql", port).args(["-Atc", "select 1"])).trim().to_owned()
}

#[test]
fn connect_up_brings_back_what_the_machine_exposed_before() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let port = exposed.tunnel_port();
    drop(exposed);
    eventually("the tunnel to lose its agent", SOON, || {
        let tunnel = hub.api().tunnel_named("site")?;
        if tunnel["status"] == "connecting" { Ok(()) } else { Err(tunnel.to_string()) }
    });
    let _up = machine.up();
    let tunnel = eventually("the tunnel to be back", SOON, || hub.api().active_tunnel("site"));
    assert_eq!(tunnel["tunnelPort"], port);
    assert_eq!(http::get(e2e::ports::loopback(port), "/").status, 200);
}

#[test]
fn sigterm_drains_and_exits_0() {
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start();
    let machine = Machine::new(&hub);
    let _exposed = machine.expose(nginx.address, "site");
    let status = hub.terminate();
    assert_eq!(status.code(), Some(0), "{}", hub.stderr());
    hub.verify_clean();
    hub.views_equal_rebuilt_ones();
}

#[test]
fn whoever_says_listening_takes_a_sigterm_from_then_on() {
    for attempt in 1..=5 {
        let mut hub = Hub::start();
        let status = hub.terminate();
        assert_eq!(status.code(), Some(0), "attempt {attempt}: {status}\n{}", hub.stderr());
    }
}

#[test]
fn a_second_hub_on_the_same_data_refuses_and_the_first_goes_on() {
    let hub = Hub::start();
    let (status, message) = hub.second();
    assert!(!status.success(), "the second hub started");
    assert!(message.contains(&hub.data().display().to_string()), "it names the directory: {message}");
    let verified = hub.run(&["verify"]);
    assert_eq!(
        verified.status.code(),
        Some(2),
        "a log in use cannot be judged: {}",
        e2e::hub::shown(&verified)
    );
    hub.api().get("/health").expect(200);
}

#[test]
fn verify_cannot_judge_what_is_not_there_and_creates_nothing() {
    let mut hub = Hub::start();
    assert!(hub.terminate().success());
    let elsewhere = hub.data().join("no-such-folder");
    let mut command = e2e::hub::hub_command(&[]);
    let verified =
        command.arg("verify").arg("--data").arg(&elsewhere).output().expect("the hub can be started");
    assert_eq!(verified.status.code(), Some(2), "{}", e2e::hub::shown(&verified));
    assert!(!elsewhere.exists());
}

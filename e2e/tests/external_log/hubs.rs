//! Whole hubs on a log in PostgreSQL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use e2e::{
    Api, Hub, Machine, api, eventually, http,
    hub::{ADMIN_KEY, hub_command, shown},
    targets::{Nginx, Postgres},
    wait::SOON,
};
use serde_json::json;

const PASSWORD: &str = "correct-horse";

fn server() -> (Postgres, String) {
    let server = Postgres::start();
    server.sql("postgres", &format!("CREATE ROLE hub LOGIN PASSWORD '{PASSWORD}'"));
    server.sql("postgres", "CREATE DATABASE pc OWNER hub");
    let url = format!("postgres://hub:{PASSWORD}@{}/pc", server.address);
    (server, url)
}

fn ready(hub: &Hub, status: u16) {
    eventually(&format!("/readyz to answer {status}"), SOON, || {
        let answer = hub.api().get("/readyz");
        if answer.status == status { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
    });
}

fn names(api: &Api, tunnel: &str) -> Vec<String> {
    let mut names: Vec<String> = api.shares(tunnel).iter().map(|share| api::text(share, "name")).collect();
    names.sort();
    names
}

#[test]
fn a_hub_keeps_serving_while_the_server_is_away_and_goes_on_when_it_is_back() {
    let (mut server, url) = server();
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start_with(&[("HUB_LOG", &url)]);
    let machine = Machine::new(&hub);
    let exposed = machine.expose(nginx.address, "site");
    let tunnel = exposed.tunnel_id();
    let share = hub.api().create_share(&tunnel, &json!({ "name": "before" }));
    let (edge, _, path) = http::split_link(&api::text(&share, "shareUrl"));
    assert_eq!(http::get(edge, &path).status, 200);
    ready(&hub, 200);

    for round in 0..3 {
        server.kill9();
        ready(&hub, 503);
        let answer = hub.api().get("/readyz");
        assert!(answer.text().contains("log_unavailable"), "{}", answer.text());
        let name = format!("during-{round}");
        let shares = format!("/v1/tunnels/{tunnel}/share");
        assert_eq!(hub.api().post(&shares, &json!({ "name": name })).status, 503);
        // What is known is shown.
        assert_eq!(hub.api().get(&format!("/v1/tunnels/{tunnel}")).status, 200);
        server.start_again();
        ready(&hub, 200);
        hub.api().create_share(&tunnel, &json!({ "name": format!("after-{round}") }));
        eventually("visitors to be let in again", SOON, || {
            let status = http::get(edge, &path).status;
            if status == 200 { Ok(()) } else { Err(status) }
        });
    }
    let listed = |hub: &Hub| {
        eventually("all shares to be listed", SOON, || {
            let names = names(&hub.api(), &tunnel);
            if names == ["after-0", "after-1", "after-2", "before"] {
                Ok(())
            } else {
                Err(format!("{names:?}"))
            }
        });
    };
    listed(&hub);
    hub.kill9();
    hub.restart();
    listed(&hub);
    eventually("the agent to be back", SOON, || hub.api().active_tunnel("site"));
    assert!(!hub.stderr().contains(PASSWORD), "the password in telemetry");
    assert!(hub.terminate().success());
    hub.verify_clean();
    hub.views_equal_rebuilt_ones();
}

#[test]
fn what_was_acknowledged_while_server_and_hub_were_killed_is_there_once() {
    let (mut server, url) = server();
    let mut hub = Hub::start_with(&[("HUB_LOG", &url)]);
    let (agent, _) = hub.api().register_agent("idle");
    let tunnel = api::text(&hub.api().create_tunnel(&agent, "localhost:9", "written"), "id");
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let stop = Arc::<AtomicBool>::default();
        let writer = thread::spawn({
            let (api, tunnel, stop) = (hub.api(), tunnel.clone(), Arc::clone(&stop));
            move || {
                let (mut done, mut n) = (Vec::new(), 0);
                while !stop.load(Ordering::SeqCst) {
                    let name = format!("share-{round}-{n}");
                    let body = json!({ "name": name });
                    let answer = api.call("POST", &format!("/v1/tunnels/{tunnel}/share"), &[], Some(&body));
                    match answer {
                        Ok(answer) if answer.status == 201 => done.push(name),
                        Ok(_) | Err(_) => thread::sleep(Duration::from_millis(20)),
                    }
                    n += 1;
                }
                done
            }
        });
        thread::sleep(Duration::from_millis(300 + 150 * round));
        if round % 2 == 0 {
            server.kill9();
            thread::sleep(Duration::from_millis(200));
            server.start_again();
        } else {
            hub.kill9();
            hub.restart();
        }
        ready(&hub, 200);
        stop.store(true, Ordering::SeqCst);
        acknowledged.extend(writer.join().unwrap());
    }
    assert!(!acknowledged.is_empty(), "nothing was acknowledged");
    let listed = eventually("everything acknowledged to be listed", SOON, || {
        let listed = names(&hub.api(), &tunnel);
        let lost: Vec<_> = acknowledged.iter().filter(|name| !listed.contains(name)).collect();
        if lost.is_empty() { Ok(listed) } else { Err(format!("lost: {lost:?}")) }
    });
    assert!(listed.windows(2).all(|pair| pair[0] != pair[1]), "done twice: {listed:?}");
    assert!(hub.terminate().success());
    hub.verify_clean();
}

#[test]
fn the_operators_commands_know_where_the_log_is_or_say_what_they_need() {
    let (server, url) = server();
    let mut hub = Hub::start_with(&[("HUB_LOG", &url)]);
    let listed = hub.run(&["key", "list"]);
    assert!(listed.status.success(), "{}", shown(&listed));
    // A running hub is asked, so the address is not even needed.
    let data = hub.data().display().to_string();
    let without =
        |arguments: &[&str]| hub_command(&[]).args(arguments).args(["--data", &data]).output().unwrap();
    let asked = without(&["key", "list"]);
    assert_eq!((asked.status.code(), &asked.stdout), (Some(0), &listed.stdout), "{}", shown(&asked));
    hub.verify_clean();
    let shows = hub.run(&["events", "tail", "--json", "-n", "3"]);
    assert!(shows.status.success() && shows.stdout.split(|b| *b == b'\n').count() > 2, "{}", shown(&shows));
    let replayed = hub.run(&["replay"]);
    assert!(replayed.status.success(), "{}", shown(&replayed));

    let (status, words) = Hub::refused("127.0.0.1:0", "127.0.0.1:0", &[("HUB_LOG", &url)]);
    assert_eq!(status.code(), Some(1));
    assert!(words.contains("in use by another hub, node `hub`"), "{words}");

    let backup = tempfile::tempdir().unwrap();
    let copy = backup.path().join("copy").display().to_string();
    for arguments in [&["backup", copy.as_str()][..], &["restore", copy.as_str()]] {
        for refused in [hub.run(arguments), without(arguments)] {
            assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
            assert!(shown(&refused).contains("pg_dump"), "{}", shown(&refused));
        }
    }
    assert!(hub.terminate().success());

    // Nothing begins a new log where one is known to be elsewhere.
    for command in ["key list", "verify", "rebuild", "serve --listen 127.0.0.1:0 --edge-listen 127.0.0.1:0"] {
        let refused = without(&command.split(' ').collect::<Vec<_>>());
        assert!(!refused.status.success(), "{command}: {}", shown(&refused));
        assert!(shown(&refused).contains("HUB_LOG"), "{command}: {}", shown(&refused));
    }
    let settings = [("HUB_LOG", url.as_str()), ("HUB_ACCESS_RETENTION_DAYS", "30")];
    let (status, words) = Hub::refused("127.0.0.1:0", "127.0.0.1:0", &settings);
    assert_eq!(status.code(), Some(1));
    assert!(words.contains("access_retention_days"), "{words}");
    let wrong = url.replace("/pc", "/pc?sslmode=prefer");
    let (_, words) = Hub::refused("127.0.0.1:0", "127.0.0.1:0", &[("HUB_LOG", &wrong)]);
    assert!(words.contains("sslmode") && !words.contains(PASSWORD), "{words}");

    // Another database is another log.
    server.sql("postgres", "CREATE DATABASE other OWNER hub");
    let other = url.replace("/pc", "/other");
    let settings = [("HUB_LOG".to_owned(), other), ("HUB_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned())];
    let refused = hub_command(&settings).args(["key", "list", "--data", &data]).output().unwrap();
    assert!(shown(&refused).contains("belongs to the event log"), "{}", shown(&refused));
    assert!(!shown(&refused).contains(PASSWORD), "{}", shown(&refused));
    hub.restart();
    hub.verify_clean();
}

//! `hub workspace` and `hub key` while the hub runs, as an operator types them.

use std::process::Output;

use e2e::{Hub, hub::shown, process::Process, wait::SOON};

#[test]
fn a_workspace_and_a_key_made_while_the_hub_runs_are_good_at_once() {
    let mut hub = Hub::start();
    let made = words(&hub.run(&["workspace", "create", "acme"]));
    let admin = made.lines().find_map(|line| line.strip_prefix("admin key ")).expect("the key is shown");
    let whoami = hub.api().with_key(admin).get("/v1/whoami").expect(200);
    assert_eq!(whoami["workspaceName"], "acme");

    let made = words(&hub.run(&["key", "create", "ci", "--workspace", "acme", "--scopes", "read,write"]));
    let (id, secret) = made.split_once('\n').expect("id and key, a line each");
    let ci = hub.api().with_key(secret.trim());
    assert_eq!(ci.get("/v1/whoami").expect(200)["keyId"], id);
    ci.get("/v1/api-keys").expect(403);

    let listed = words(&hub.run(&["key", "list", "--workspace", "acme"]));
    assert!(listed.lines().any(|line| line.starts_with(id) && line.contains("active")), "{listed}");
    words(&hub.run(&["key", "revoke", id, "--workspace", "acme"]));
    ci.get("/v1/whoami").expect(401);
    assert!(!hub.stderr().contains(secret.trim()), "a key in telemetry");

    // Refusals are words and exit code 1, and the same when the hub is gone.
    let running = hub.run(&["workspace", "create", "acme"]);
    assert_eq!(running.status.code(), Some(1), "{}", shown(&running));
    let listed = words(&hub.run(&["workspace", "list"]));
    assert!(hub.terminate().success());
    let stopped = hub.run(&["workspace", "create", "acme"]);
    assert_eq!((stopped.status.code(), &stopped.stderr), (Some(1), &running.stderr), "{}", shown(&stopped));
    assert_eq!(words(&hub.run(&["workspace", "list"])), listed);
    hub.verify_clean();
}

#[test]
fn a_hub_that_was_killed_leaves_nothing_in_the_operators_way() {
    let mut hub = Hub::start();
    hub.kill9();
    assert!(hub.data().join("operator.sock").exists(), "nobody was there to remove it");
    words(&hub.run(&["key", "list"]));
    hub.restart();
    words(&hub.run(&["key", "list"]));
}

#[test]
fn a_first_start_that_cannot_bind_a_port_says_which_and_does_not_lose_the_admin_key() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let free = "127.0.0.1:0";
    let folder = tempfile::Builder::new().prefix("pc-first-").tempdir().expect("a temporary folder");
    for (api, edge) in [(address.as_str(), free), (free, address.as_str())] {
        let mut serve = e2e::hub::hub_command(&[]);
        serve.args(["serve", "--listen", api, "--edge-listen", edge, "--data"]).arg(folder.path());
        let mut hub = Process::spawn("hub on a port that is taken", &mut serve);
        assert_eq!(hub.wait(SOON).code(), Some(1), "{}", hub.output());
        assert!(hub.output().contains(&address), "{}", hub.output());
    }
    let key = std::fs::read_to_string(folder.path().join("admin.key")).expect("the key is kept");
    let hub = Hub::start_on(folder.path());
    let whoami = hub.api().with_key(key.trim()).get("/v1/whoami").expect(200);
    assert_eq!(whoami["workspaceName"], "default");
}

#[track_caller]
fn words(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

//! The built `connect` where things go wrong: exit codes, stderr, JSON. What works is tested end to end in `e2e`.

use std::{net::TcpListener, process::Child};

use serde_json::Value;

use crate::support::{Machine, PATIENCE, Said, WHO, hub, problem};

#[test]
fn help_and_version_are_results() {
    let machine = Machine::new();
    let help = machine.run(&["--help"]);
    assert_eq!((help.exit, help.err.as_str()), (Some(0), ""));
    for word in [
        "up",
        "expose",
        "reach",
        "link",
        "status",
        "whoami",
        "logs",
        "logout",
        "CONNECT_HUB_URL",
        "PRIVATECONNECT_TOKEN",
    ] {
        assert!(help.out.contains(word), "{word}");
    }
    assert!(help.out.lines().all(|line| line.chars().count() <= 100), "{}", help.out);
    assert_eq!(machine.run(&["--version"]).out, format!("connect {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let machine = Machine::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = Said::of(machine.command(&["--help"]).stdout(writer).output().unwrap());
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
}

#[test]
fn wrong_arguments_end_with_2_and_a_suggestion() {
    let machine = Machine::new();
    for arguments in [
        &["expose"][..],
        &["--wrong"],
        &["reach", "x", "--port", "70000"],
        &["link", "x", "--rate-limit", "0"],
        &["link", "x", "--paths", "api"],
        &["link", "x", "--methods", "GET,FOO"],
        &["link", "x", "--expires", "soon"],
        &["link"],
        &["expose", "nowhere"],
        &["expose", ":3000", "--link-expires", "1h"],
        &["prod-db", "up"],
        &["-q", "-v", "status"],
        &["status", "--hub", "ftp://x"],
        &["status", "--api-key", "wrong"],
    ] {
        let said = machine.run(arguments);
        assert_eq!((said.exit, said.out.as_str()), (Some(2), ""), "{arguments:?}: {said:?}");
        let json = machine.run(&[arguments, &["--json"]].concat());
        assert_eq!(json.exit, Some(2));
        assert_eq!(json.json_error()["code"], "invalid_arguments", "{arguments:?}");
    }
}

#[test]
fn databases_are_never_published_and_the_hub_is_not_even_asked() {
    let (machine, hub) = (Machine::new(), hub(|_| Some((200, WHO.to_owned()))));
    for flag in ["--public", "--link"] {
        let said = machine.run(&["expose", "localhost:5432", flag, "--hub", &hub.url, "--api-key", "pc_x"]);
        assert_eq!(said.exit, Some(2));
        assert_eq!(
            said.err,
            format!(
                "[!] {flag} creates a public HTTP URL, which doesn't work for database/TCP services (port 5432).\n\
                 To access this service remotely, use: connect reach postgres\n"
            )
        );
        let json = machine.run(&["expose", ":6379", flag, "--hub", &hub.url, "--json"]);
        assert_eq!((json.exit, &json.json_error()["code"]), (Some(2), &Value::from("protected_port")));
    }
    assert!(hub.requests.try_recv().is_err());
}

#[test]
fn without_a_hub_the_error_says_where_it_looked() {
    let machine = Machine::new();
    // A port that was free a moment ago, and nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let said = machine.run(&["status", "-H", &url]);
    assert_eq!((said.exit, said.out.as_str()), (Some(1), ""));
    assert!(
        said.err.starts_with(&format!("[x] The hub at {url}/ cannot be reached\n  caused by: ")),
        "{}",
        said.err
    );
    assert!(said.err.contains("\n\nhint: "), "{}", said.err);
    let json = machine.run(&["--json", "status", "-H", &url]);
    assert_eq!((json.exit, &json.json_error()["code"]), (Some(1), &Value::from("hub_unreachable")));
}

#[test]
fn without_a_key_every_command_says_how_to_get_one() {
    let (machine, hub) = (Machine::new(), hub(|_| problem(500, "never_asked")));
    for arguments in [
        &["expose", ":3000"][..],
        &["reach", "x"],
        &["link", "x"],
        &["link", "list"],
        &["logs", "x"],
        &["whoami"],
    ] {
        let said = machine.run(&[arguments, &["-H", &hub.url]].concat());
        assert_eq!(said.exit, Some(1), "{arguments:?}: {said:?}");
        assert!(said.err.contains("hint: connect up --api-key"), "{arguments:?}: {said:?}");
    }
    assert!(hub.requests.try_recv().is_err());
}

#[test]
fn up_without_a_key_shows_a_code_and_ends_when_it_is_denied() {
    let machine = Machine::new();
    let hub = hub(|request| {
        if request.starts_with("POST /v1/device/code") {
            let code = serde_json::json!({
                "deviceCode": "pcd_secret",
                "userCode": "BCDF-GHJK",
                "verificationUrl": "http://hub.example/device",
                "expiresIn": 900,
                "interval": 1,
            });
            return Some((200, code.to_string()));
        }
        problem(400, "access_denied")
    });
    let said = machine.run(&["up", "-H", &hub.url]);
    assert_eq!(said.exit, Some(1), "{said:?}");
    assert!(said.out.contains("BCDF-GHJK") && said.out.contains("http://hub.example/device"), "{said:?}");
    assert!(said.err.starts_with("[x] The login was denied"), "{said:?}");
    assert!(!said.out.contains("pcd_secret") && !said.err.contains("pcd_secret"));
    assert!(!machine.config().exists(), "nothing is saved");
}

#[test]
fn a_hub_that_knows_no_codes_wants_a_key() {
    let (machine, hub) = (Machine::new(), hub(|_| problem(404, "no_such_url")));
    let said = machine.run(&["up", "-H", &hub.url]);
    assert_eq!(said.exit, Some(1), "{said:?}");
    assert!(said.err.contains("hint: connect up --api-key"), "{said:?}");
}

#[test]
fn hub_and_key_come_from_the_documented_variables() {
    let (machine, hub) = (Machine::new(), hub(|_| Some((200, WHO.to_owned()))));
    let mut command = machine.command(&["whoami", "--json"]);
    let said = Said::of(
        command.env("CONNECT_HUB_URL", &hub.url).env("PRIVATECONNECT_TOKEN", "pc_variable").output().unwrap(),
    );
    assert_eq!((said.exit, said.err.as_str()), (Some(0), ""));
    assert!(hub.requests.recv_timeout(PATIENCE).unwrap().ends_with("[bearer pc_variable]"));
    let document: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(document["identity"]["workspaceName"], "default");
    assert_eq!(document["agentId"], Value::Null);
}

#[test]
fn a_refused_key_ends_with_1_and_the_way_to_another() {
    let (machine, hub) = (Machine::new(), hub(|_| problem(401, "unauthorized")));
    let said = machine.run(&["up", "-H", &hub.url, "--api-key", "pc_canary"]);
    assert_eq!(said.exit, Some(1));
    assert!(said.err.starts_with("[x] It is so.\n\nhint: connect up --api-key"), "{}", said.err);
    assert!(!said.err.contains("canary"));
    assert!(!machine.config().exists(), "a key that does not work is not saved");
}

#[test]
fn what_answers_nonsense_is_no_hub() {
    for body in ["<html>", "{", "[]"] {
        let (machine, hub) = (Machine::new(), hub(move |_| Some((200, body.to_owned()))));
        let said = machine.run(&["whoami", "-H", &hub.url, "--api-key", "pc_x", "--json"]);
        assert_eq!((said.exit, &said.json_error()["code"]), (Some(1), &Value::from("not_a_hub")), "{body}");
    }
}

#[test]
fn a_service_that_does_not_exist_ends_with_1_and_a_suggestion() {
    let (machine, hub) = (Machine::new(), hub(|_| Some((200, "[]".to_owned()))));
    for arguments in [&["reach", "statuss"][..], &["statuss"], &["link", "statuss"]] {
        let said = machine.run(&[arguments, &["-H", &hub.url, "--api-key", "pc_x"]].concat());
        assert_eq!(said.exit, Some(1), "{said:?}");
        assert!(said.err.contains("hint: did you mean the command: connect status"), "{}", said.err);
    }
}

#[test]
fn a_broken_config_is_named_with_its_line_and_left_alone() {
    let machine = Machine::new();
    let broken = "hub = \"http://127.0.0.1:1\"\nwhat is this\n";
    machine.write_config(broken);
    for command in ["status", "up", "logout"] {
        let said = machine.run(&[command]);
        assert_eq!(said.exit, Some(1));
        assert!(said.err.contains("config.toml, line 2: "), "{}", said.err);
        assert_eq!(std::fs::read_to_string(machine.config()).unwrap(), broken);
    }
}

#[test]
fn logging_out_forgets_the_credentials_of_this_hub_and_keeps_the_ports() {
    let machine = Machine::new();
    machine.write_config(
        "hub = \"http://127.0.0.1:1\"\n[hubs.\"http://127.0.0.1:1/\"]\napi_key = \"pc_canary\"\n\
         [hubs.\"http://127.0.0.1:1/\".ports]\nprod-db = 5432\n[hubs.\"http://other/\"]\napi_key = \"pc_other\"\n",
    );
    let said = machine.run(&["logout"]);
    assert_eq!((said.exit, said.out.as_str()), (Some(0), "[ok] Logged out of http://127.0.0.1:1/\n"));
    let config = std::fs::read_to_string(machine.config()).unwrap();
    assert!(
        !config.contains("canary") && config.contains("prod-db = 5432") && config.contains("pc_other"),
        "{config}"
    );
    assert_eq!(
        machine.run(&["logout", "--json"]).out,
        "{\"hub\":\"http://127.0.0.1:1/\",\"loggedOut\":false}\n"
    );
}

#[test]
fn a_home_that_cannot_be_written_is_said_and_no_obstacle() {
    let machine = Machine::new();
    let hub = hub(|line| {
        if line.starts_with("GET /v1/whoami") {
            Some((200, WHO.to_owned()))
        } else {
            problem(503, "draining")
        }
    });
    let mut command = machine.command(&["up", "-H", &hub.url, "--api-key", "pc_x"]);
    let said = Said::of(command.env("HOME", "/dev/null").output().unwrap());
    assert!(
        said.err
            .starts_with("[!] Not saved: /dev/null/.config/private-connect/config.toml cannot be written: "),
        "{}",
        said.err
    );
    assert!(said.err.contains("[x] It is so."), "it went on to register: {}", said.err);
    assert_eq!(said.exit, Some(1));
}

#[test]
fn ctrl_c_ends_with_130_and_sigterm_with_0() {
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 0)] {
        let (machine, hub) = (Machine::new(), hub(|_| None));
        let child: Child = machine.command(&["status", "-H", &hub.url]).spawn().unwrap();
        // It waits for an answer now, so its handlers are in place.
        hub.requests.recv_timeout(PATIENCE).unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let said = Said::of(child.wait_with_output().unwrap());
        assert_eq!((said.exit, said.err.as_str()), (Some(code), ""));
    }
}

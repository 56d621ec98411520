//! What is done to agents from afar, with real processes: commands, rotation of tokens, login by a code.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, time::Duration};

use e2e::{Hub, Machine, api, eventually, process::Process, targets::Nginx, wait::SOON};
use serde_json::{Value, json};

fn agents(hub: &Hub) -> Vec<Value> {
    hub.api().get("/v1/agents/online").expect(200).as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn only_agent(hub: &Hub) -> String {
    eventually("one agent to be online", SOON, || match &agents(hub)[..] {
        [agent] => Ok(api::text(agent, "id")),
        other => Err(format!("{} agents", other.len())),
    })
}

#[track_caller]
fn order(hub: &Hub, agent: &str, body: &Value) -> String {
    let sent = hub.api().post(&format!("/v1/agents/{agent}/command"), body).expect(201);
    api::text(&sent, "commandId")
}

#[track_caller]
fn ended(hub: &Hub, agent: &str, command: &str) -> Value {
    let path = format!("/v1/agents/{agent}/commands/{command}");
    eventually("the command to end", SOON, || {
        let answer = hub.api().call("GET", &path, &[], None).map_err(|error| error.to_string())?;
        let found = answer.json();
        let status = found["status"].as_str().unwrap_or_default().to_owned();
        if ["done", "failed", "expired"].contains(&status.as_str()) { Ok(found) } else { Err(status) }
    })
}

/// `connect` on a machine without any key of ours in its environment.
fn without_key(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = machine.connect(arguments);
    command.env_remove("PRIVATECONNECT_TOKEN");
    command
}

/// Where the machine's config is: its environment says so.
fn config_file(machine: &Machine) -> PathBuf {
    let command = machine.connect(&[]);
    let found = command.get_envs().find(|(name, _)| *name == "XDG_CONFIG_HOME").and_then(|(_, value)| value);
    PathBuf::from(found.expect("a machine has a config folder")).join("private-connect").join("config.toml")
}

fn saved(machine: &Machine, line: &str) -> String {
    let text = fs::read_to_string(config_file(machine)).expect("the config is saved");
    let found = text.lines().find_map(|it| it.strip_prefix(&format!("{line} = ")));
    found.unwrap_or_else(|| panic!("no `{line}` in the config")).trim_matches('"').to_owned()
}

#[test]
fn a_stop_ends_every_connect_process_of_the_agent_in_order() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let mut holder = machine.up();
    let agent = only_agent(&hub);
    let mut attached = machine.expose(nginx.address, "site");
    let command = order(&hub, &agent, &json!({ "action": "stop" }));
    assert_eq!(ended(&hub, &agent, &command)["status"], "done");
    assert_eq!(holder.wait(SOON).code(), Some(0), "{}", holder.output());
    assert_eq!(attached.process.wait(SOON).code(), Some(0), "{}", attached.process.output());
    assert_eq!(agents(&hub), [] as [Value; 0], "nobody took over");
    // The next start is the same agent, and does not stop again.
    let again = machine.up();
    assert_eq!(only_agent(&hub), agent);
    let status = order(&hub, &agent, &json!({ "action": "status" }));
    assert_eq!(ended(&hub, &agent, &status)["status"], "done");
    drop(again);
}

#[test]
fn a_restart_keeps_the_process_and_brings_the_tunnels_back() {
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let mut exposed = machine.expose(nginx.address, "site");
    let agent = only_agent(&hub);
    let before = agents(&hub)[0]["connectedAt"].clone();
    let command = order(&hub, &agent, &json!({ "action": "restart" }));
    let done = ended(&hub, &agent, &command);
    assert_eq!(done["status"], "done", "{done}");
    eventually("the tunnel to be active", SOON, || hub.api().active_tunnel("site").map(drop));
    assert_ne!(agents(&hub)[0]["connectedAt"], before, "a session of its own");
    assert!(exposed.process.ended().is_none(), "the process goes on");
}

#[test]
fn a_command_survives_the_hub_and_waits_for_the_agent() {
    let nginx = Nginx::answering_everything();
    let mut hub = Hub::start();
    let machine = Machine::new(&hub);
    let up = machine.up();
    let agent = only_agent(&hub);
    drop(up);
    eventually("the agent to be gone", SOON, || if agents(&hub).is_empty() { Ok(()) } else { Err("online") });
    let params = json!({ "target": nginx.address.to_string(), "name": "remote" });
    let command = order(&hub, &agent, &json!({ "action": "expose", "params": params }));
    hub.kill9();
    hub.restart();
    let _up = machine.up();
    let done = ended(&hub, &agent, &command);
    assert_eq!(done["status"], "done", "{done}");
    eventually("the tunnel to be active", SOON, || hub.api().active_tunnel("remote").map(drop));
}

#[test]
fn a_token_that_ends_soon_is_exchanged_by_the_running_agent_and_saved() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let up = machine.up();
    let agent = only_agent(&hub);
    drop(up);
    let (former, ends) = (saved(&machine, "token"), saved(&machine, "expires_at"));
    // As if it had been registered weeks ago: to this machine the token seems to end in five days.
    let soon = Command::new("date").args(["-u", "-d", "+5 days", "+%Y-%m-%dT%H:%M:%S.000Z"]).output();
    let soon = String::from_utf8(soon.expect("there is a `date`").stdout).expect("a date is text");
    let file = config_file(&machine);
    let text = fs::read_to_string(&file).expect("the config is saved").replace(&ends, soon.trim());
    fs::write(&file, text).expect("the home is ours");
    let _up = machine.up();
    assert_eq!(only_agent(&hub), agent);
    let token = eventually("a new token to be saved", SOON, || {
        let now = saved(&machine, "token");
        if now == former { Err("the former one") } else { Ok(now) }
    });
    assert!(saved(&machine, "expires_at").as_str() > soon.trim(), "it is good for long");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    let whoami = hub.api().with_key(&token).get("/v1/whoami").expect(200);
    assert_eq!(whoami["agentId"], agent.as_str());
    assert_eq!(only_agent(&hub), agent, "still online");
}

#[test]
fn a_machine_without_a_key_logs_in_by_a_code_and_keeps_its_key() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let up = Process::spawn("connect up", &mut without_key(&machine, &["--json", "up", "--label", "new"]));
    let shown = up.line("the code", SOON, |line| {
        serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == "device_code")
    });
    let code = api::text(&shown, "userCode");
    assert_eq!(api::text(&shown, "verificationUrl"), format!("{}/device", hub.url()));
    let approved = hub.api().post("/v1/device/approve", &json!({ "userCode": code })).expect(200);
    assert_eq!(approved["label"], "new");
    up.line("`connected`", Duration::from_secs(30), |line| line.contains("\"connected\"").then_some(()));
    let agent = only_agent(&hub);
    let key = saved(&machine, "api_key");
    let file = config_file(&machine);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(!up.stdout_lines().concat().contains(&key) && !hub.stderr().contains(&key), "a key in telemetry");
    drop(up);
    let again = Process::spawn("connect up", &mut without_key(&machine, &["--json", "up"]));
    again.line("`registered`", SOON, |line| line.contains("\"registered\"").then_some(()));
    assert_eq!(only_agent(&hub), agent);
}

#[test]
fn a_login_that_is_denied_ends_the_command() {
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let mut up = Process::spawn("connect up", &mut without_key(&machine, &["--json", "up"]));
    let shown = up.line("the code", SOON, |line| {
        serde_json::from_str::<Value>(line).ok().filter(|value| value["event"] == "device_code")
    });
    let body = json!({ "userCode": api::text(&shown, "userCode") });
    hub.api().post("/v1/device/deny", &body).expect(200);
    assert_eq!(up.wait(SOON).code(), Some(1), "{}", up.output());
}

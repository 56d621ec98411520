//! The operator looks back: events, replay, backup and erasure on a hub at work, as an operator types them.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use e2e::{
    Hub,
    hub::{hub_command, shown},
    process::Process,
    wait::{SOON, eventually},
};
use serde_json::{Value, json};

/// How long a backup is taken of a hub that is written to, over and over.
const UNDER_LOAD: Duration = Duration::from_secs(6);

#[track_caller]
fn words(output: &Output) -> String {
    assert!(output.status.success(), "{}", shown(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn lines(output: &Output) -> Vec<Value> {
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    words(output).lines().map(line).collect()
}

/// The facts of the workspace as the API tells them.
#[track_caller]
fn feed(hub: &Hub) -> Vec<Value> {
    let page = hub.api().get("/v1/events?limit=1000").expect(200);
    page["events"].as_array().expect("events").clone()
}

/// `hub ARGUMENTS...` without a data directory of a hub.
#[track_caller]
fn run(arguments: &[&str]) -> Output {
    hub_command(&[]).args(arguments).output().expect("the hub can be started")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn an_export_of_a_hub_at_work_or_at_rest_has_what_the_api_tells() {
    let mut hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = hub.api().create_tunnel(&agent, "localhost:3000", "web");
    hub.api()
        .patch(
            &format!("/v1/tunnels/{}", tunnel["id"].as_str().expect("an id")),
            &json!({ "status": "paused" }),
        )
        .expect(200);
    let told = feed(&hub);
    let of_workspace = ["events", "export", "--workspace", "default"];
    // The API keeps claims to itself; the operator sees them.
    let outside = |events: Vec<Value>| -> Vec<Value> {
        events.into_iter().filter(|it| !it["type"].as_str().expect("a type").starts_with("claim.")).collect()
    };
    let exported = outside(lines(&hub.run(&of_workspace)));
    assert_eq!(exported, told);
    assert_eq!(words(&hub.run(&["events", "tail", "-n", "1"])).lines().count(), 1);
    // Claims are confirmed at leisure, and may come behind.
    let last = words(&hub.run(&["events", "tail", "-n", "10"]));
    assert!(last.contains("tunnel.paused"), "{last}");
    let paused = lines(&hub.run(&["events", "tail", "--json", "--types", "tunnel.paused"]));
    assert_eq!(paused, [told.last().expect("an event").clone()]);
    let cloud =
        lines(&hub.run(&["events", "export", "--format", "cloudevents", "--types", "tunnel.created"]));
    assert_eq!((cloud.len(), &cloud[0]["specversion"]), (1, &json!("1.0")));

    let nobody = hub.run(&["events", "export", "--workspace", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", shown(&nobody));
    assert!(hub.terminate().success());
    assert_eq!(outside(lines(&hub.run(&of_workspace))), told);
    let file = hub.data().join("out.ndjson");
    for code in [0, 1] {
        // A file that is there already is not written over.
        let written = hub.run(&["events", "export", "--output", path(&file)]);
        assert_eq!(written.status.code(), Some(code), "{}", shown(&written));
    }
    assert!(std::fs::read_to_string(&file).expect("the file").lines().count() >= told.len());
    hub.verify_clean();
}

#[test]
fn a_tail_that_is_followed_shows_what_is_recorded() {
    let hub = Hub::start();
    // It may begin after the first event: what is there already is shown as well, once.
    let mut command = hub_command(&[]);
    let mut command: &mut Command =
        command.args(["events", "tail", "--follow", "-n", "100", "--data"]).arg(hub.data());
    command = command.args(["--types", "tunnel.created,tunnel.deleted"]);
    let mut tail = Process::spawn("hub events tail", command);
    let (agent, _) = hub.api().register_agent("machine");
    for number in 0..5 {
        let tunnel = hub.api().create_tunnel(&agent, "localhost:3000", &format!("web-{number}"));
        let id = tunnel["id"].as_str().expect("an id").to_owned();
        tail.line("the tunnel is shown", SOON, |line| {
            (line.contains("tunnel.created") && line.contains(&id)).then_some(())
        });
        hub.api().delete(&format!("/v1/tunnels/{id}")).expect(200);
        tail.line("its end is shown", SOON, |line| {
            (line.contains("tunnel.deleted") && line.contains(&id)).then_some(())
        });
    }
    let (shown, sorted) = (tail.stdout_lines(), {
        let mut lines = tail.stdout_lines();
        lines.sort();
        lines.dedup();
        lines
    });
    assert_eq!(shown.len(), sorted.len(), "nothing twice");
    tail.kill9();
}

#[test]
fn a_replay_shows_what_there_was() {
    let hub = Hub::start();
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = hub.api().create_tunnel(&agent, "localhost:3000", "web");
    let id = tunnel["id"].as_str().expect("an id");
    let share = hub.api().create_share(id, &json!({ "name": "link" }));
    let then = feed(&hub).last().expect("an event")["position"].as_u64().expect("a number").to_string();
    hub.api().delete(&format!("/v1/tunnels/{id}")).expect(200);
    let ids = |picture: &Value, part: &str| -> Vec<String> {
        let items = picture[part].as_array().expect("a list").iter();
        items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    let picture = lines(&hub.run(&["replay", "--at", &then, "--json"])).remove(0);
    assert_eq!((ids(&picture, "tunnels"), ids(&picture, "agents")), (vec![id.to_owned()], vec![agent]));
    assert_eq!(picture["shares"][0]["id"], share["id"]);
    assert_eq!(picture["shares"][0]["status"], "active");
    let now = lines(&hub.run(&["replay", "--json"])).remove(0);
    assert_eq!((ids(&now, "tunnels").len(), &now["shares"][0]["status"]), (0, &json!("share_revoked")));
    let told = words(&hub.run(&["replay", "--at", &then]));
    assert!(told.contains("1 tunnels") && told.contains(id), "{told}");
    for at in ["999999", "1970-01-01T00:00:00Z"] {
        let refused = hub.run(&["replay", "--at", at]);
        assert_eq!(refused.status.code(), Some(1), "{at}: {}", shown(&refused));
    }
    let wrong = hub.run(&["replay", "--at", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", shown(&wrong));
}

#[test]
fn a_backup_of_a_hub_under_load_is_the_log_of_one_moment_and_comes_back_whole() {
    let mut hub = Hub::start_with(&[("HUB_AGENT_WAIT_MS", "0")]);
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = hub.api().create_tunnel(&agent, "localhost:3000", "web");
    let share = hub.api().create_share(tunnel["id"].as_str().expect("an id"), &json!({ "name": "link" }));
    let (host, _, link) = e2e::http::split_link(share["shareUrl"].as_str().expect("a link"));
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let (api, stop, made, link) = (hub.api(), Arc::clone(&stop), Arc::clone(&made), link.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if number % 2 == 0 {
                        api.post("/v1/agents/register", &json!({ "label": "load" })).expect(201);
                    } else {
                        e2e::http::get(host, &link);
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backup = folder.path().join("backup");
    let (begun, mut heads) = (std::time::Instant::now(), Vec::new());
    // Again and again into the same folder: only what is new is copied.
    while begun.elapsed() < UNDER_LOAD {
        let before = made.load(Ordering::SeqCst);
        let done = lines(&hub.run(&["backup", path(&backup), "--json"])).remove(0);
        assert!(done["events"].as_u64().expect("a number") > 0);
        heads.push(done["head"].as_str().expect("a head").to_owned());
        // Bytes, not moments: each backup is of a log that went on.
        eventually("the load goes on", SOON, || {
            if made.load(Ordering::SeqCst) > before { Ok(()) } else { Err("not yet") }
        });
    }
    assert!(heads.len() > 2, "{heads:?}");
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.join().expect("a writer");
    }
    let verified = run(&["verify", "--data", path(&backup), "--head", heads.last().expect("a head")]);
    assert_eq!(verified.status.code(), Some(0), "{}", shown(&verified));
    // Every earlier backup was of a moment of this very log.
    assert!(hub.terminate().success());
    for head in &heads {
        let seen = hub.run(&["verify", "--head", head]);
        assert_eq!(seen.status.code(), Some(0), "{}", shown(&seen));
    }

    let restored = folder.path().join("restored");
    let done = run(&["restore", path(&backup), "--data", path(&restored)]);
    assert!(words(&done).contains(heads.last().expect("a head")), "{}", shown(&done));
    let again = run(&["restore", path(&backup), "--data", path(&restored)]);
    assert_eq!(again.status.code(), Some(1), "a log is never written over: {}", shown(&again));
    let second = Hub::start_on(&restored);
    let kept =
        second.api().get(&format!("/v1/tunnels/{}", tunnel["id"].as_str().expect("an id"))).expect(200);
    assert_eq!(kept["name"], "web");
    // Views are made anew from the log, and may take a moment.
    let id = share["id"].as_str().expect("an id");
    eventually("who came is known: the keyring came along", SOON, || {
        let logs = second.api().accesses(id);
        let is_known = logs.iter().all(|entry| entry["ipAddress"] == "127.0.0.1") && !logs.is_empty();
        if is_known { Ok(()) } else { Err(format!("{:?}", logs.first())) }
    });
    second.api().register_agent("it goes on");
}

#[test]
fn a_backup_that_was_not_finished_or_was_changed_is_not_restored() {
    let hub = Hub::start();
    hub.api().register_agent("machine");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    words(&hub.run(&["backup", path(&backup)]));
    let restore = || run(&["restore", path(&backup), "--data", path(&restored)]);
    let manifest = backup.join("backup.json");
    let text = std::fs::read(&manifest).expect("the manifest");
    std::fs::remove_file(&manifest).expect("the copy is ours");
    let refused = restore();
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    std::fs::write(&manifest, &text).expect("the copy is ours");
    let segment = std::fs::read_dir(backup.join("log").join("facts")).expect("segments");
    let segment = segment.map(|entry| entry.expect("an entry").path()).next().expect("a segment");
    let whole = std::fs::read(&segment).expect("a segment");
    let mut changed = whole.clone();
    let place = changed.len() / 2;
    changed[place] ^= 1;
    std::fs::write(&segment, &changed).expect("the copy is ours");
    let refused = restore();
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert!(!restored.join("log").exists());
    std::fs::write(&segment, &whole).expect("the copy is ours");
    assert!(restore().status.success());
    // Something else's folder is left alone.
    let other = folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("notes.txt"), "mine").expect("a file");
    let refused = hub.run(&["backup", path(&other)]);
    assert_eq!(refused.status.code(), Some(1), "{}", shown(&refused));
    assert_eq!(std::fs::read_dir(&other).expect("the folder").count(), 1);
}

#[test]
fn what_an_operator_erases_is_erased_in_what_a_backup_brings_back_too() {
    let mut hub = Hub::start_with(&[("HUB_AGENT_WAIT_MS", "0")]);
    let (agent, _) = hub.api().register_agent("machine");
    let tunnel = hub.api().create_tunnel(&agent, "localhost:3000", "web");
    let share = hub.api().create_share(tunnel["id"].as_str().expect("an id"), &json!({ "name": "link" }));
    let (host, _, link) = e2e::http::split_link(share["shareUrl"].as_str().expect("a link"));
    e2e::http::get(host, &link);
    let id = share["id"].as_str().expect("an id");
    let before = hub.api().accesses(id);
    assert_eq!(before[0]["ipAddress"], "127.0.0.1");
    let opened = || lines(&hub.run(&["events", "export", "--types", "share.accessed", "--personal"]));
    assert_eq!(opened()[0]["personal"][0]["ip"], "127.0.0.1");
    assert!(!words(&hub.run(&["events", "export", "--types", "share.accessed"])).contains("127.0.0.1"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backup = folder.path().join("backup");
    words(&hub.run(&["backup", path(&backup)]));

    let day = &before[0]["accessedAt"].as_str().expect("a moment")[..10];
    let told = words(&hub.run(&["erase", "--share", id, "--from", day]));
    assert!(told.contains("1 keys destroyed"), "{told}");
    assert_eq!(hub.api().accesses(id)[0]["ipAddress"], Value::Null);
    assert_eq!(opened()[0]["personal"], "erased");
    let unknown = hub.run(&["erase", "--workspace", "nobody", "--from", day]);
    assert_eq!(unknown.status.code(), Some(1), "{}", shown(&unknown));
    hub.kill9();
    hub.verify_clean();

    // The backup has the key; the list of destroyed ones beside it has the last word.
    let restored = folder.path().join("restored");
    std::fs::create_dir(&restored).expect("a folder");
    std::fs::copy(hub.data().join("keyring.destroyed"), restored.join("keyring.destroyed"))
        .expect("the list");
    words(&run(&["restore", path(&backup), "--data", path(&restored)]));
    let second = Hub::start_on(&restored);
    let entry = eventually("the access log is made anew", SOON, || {
        second.api().accesses(id).pop().ok_or("nothing is there yet")
    });
    assert_eq!((&entry["ipAddress"], &entry["statusCode"]), (&Value::Null, &json!(503)));
}

//! Webhooks end to end: a hub that is killed again and again, receivers that fail in every way, a backlog that drains, and
//! signatures that a public library verifies.
//!
//! Few rounds and messages here; `ops/soak-webhooks` runs as many as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use e2e::{
    Api, Hub, api, eventually,
    wait::SOON,
    webhook_receiver::{Behaviour, Came, Receiver},
};
use serde_json::{Value, json};

const ROUNDS_VARIABLE: &str = "E2E_WEBHOOK_KILLS";
const ROUNDS: u32 = 6;
const BACKLOG_VARIABLE: &str = "E2E_WEBHOOK_BACKLOG";
const BACKLOG: u64 = 300;
/// The public library, as `ops/test` and everybody else gets it.
const LIBRARY: &str = "standardwebhooks==1.0.1";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// A hub that may deliver to this machine, with pauses between tries that a test can wait for.
fn hub(schedule: &str) -> Hub {
    Hub::start_with(&[("HUB_WEBHOOK_ALLOW", "127.0.0.0/8"), ("HUB_WEBHOOK_RETRY_SCHEDULE", schedule)])
}

fn webhook(api: &Api, url: &str, events: &[&str]) -> Value {
    api.post("/v1/webhooks", &json!({ "url": url, "events": events })).expect(201)
}

/// A tunnel that nobody serves: it is paused and resumed, each an event.
fn tunnel(api: &Api) -> String {
    let (agent, _) = api.register_agent("nobody");
    api::text(&api.create_tunnel(&agent, "localhost:9", "switched"), "id")
}

/// Pauses or resumes; `None` when the hub is gone.
fn switch(api: &Api, tunnel: &str, pause: bool) -> Option<u16> {
    let body = json!({ "status": if pause { "paused" } else { "active" } });
    api.call("PATCH", &format!("/v1/tunnels/{tunnel}"), &[], Some(&body)).ok().map(|answer| answer.status)
}

/// How many events a tunnel has had: its revision.
fn events_of(api: &Api, tunnel: &str) -> u64 {
    let answer = api.get(&format!("/v1/tunnels/{tunnel}"));
    answer.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok()).expect("an ETag")
}

/// The first time that each message came, in the order in which they came.
fn firsts(came: &[Came]) -> Vec<&Came> {
    let mut seen = BTreeSet::new();
    came.iter().filter(|it| seen.insert(it.id().to_owned())).collect()
}

/// Every way to fail, and every other one a success.
fn in_every_way() -> impl FnMut(&str) -> Behaviour + Send {
    let ways = [
        Behaviour::Says(500),
        Behaviour::Redirects,
        Behaviour::AsksFor(1),
        Behaviour::Resets,
        Behaviour::Babbles,
        Behaviour::Says(404),
        Behaviour::TalksALot,
    ];
    let mut count = 0;
    move |_| {
        count += 1;
        if count % 2 == 0 { ways[count / 2 % ways.len()] } else { Behaviour::Says(204) }
    }
}

#[test]
fn nothing_is_lost_when_the_hub_is_killed_while_the_receiver_fails_in_every_way() {
    let rounds = number(ROUNDS_VARIABLE).and_then(|rounds| u32::try_from(rounds).ok()).unwrap_or(ROUNDS);
    let receiver = Receiver::start();
    receiver.behaves(in_every_way());
    let mut hub = hub("200ms,400ms,800ms,1s,1s,1s,1s,1s,1s,1s,1s,1s");
    let api = hub.api();
    let tunnel = tunnel(&api);
    let created = webhook(&api, &receiver.url("/hook"), &["tunnel.paused", "tunnel.resumed"]);
    let before = events_of(&api, &tunnel);

    let mut pause = true;
    for round in 0..rounds {
        // Acknowledged or not: the log knows, and the receiver has to hear what it knows.
        for _ in 0..10 {
            if switch(&api, &tunnel, pause) == Some(200) {
                pause = !pause;
            }
        }
        thread::sleep(Duration::from_millis(u64::from(400 + round * 97 % 700)));
        hub.kill9();
        hub.restart();
    }
    let happened = events_of(&api, &tunnel) - before;
    receiver.behaves(|_| Behaviour::Says(200));
    let limit = SOON * 3 + Duration::from_secs(happened / 20);
    eventually("everything is delivered", limit, || {
        let came = receiver.came("/hook");
        let taken: BTreeSet<&str> = came.iter().filter(|it| it.was_taken()).map(Came::id).collect();
        let count = u64::try_from(taken.len()).expect("a count");
        if count == happened { Ok(()) } else { Err(format!("{count} of {happened} taken")) }
    });

    let came = receiver.came("/hook");
    let firsts = firsts(&came);
    let numbers: Vec<u64> = firsts.iter().map(|it| it.sequence()).collect();
    assert_eq!(numbers, (1..=happened).collect::<Vec<_>>(), "in order, none skipped");
    for (place, it) in firsts.iter().enumerate() {
        let expected = if place % 2 == 0 { "tunnel.paused" } else { "tunnel.resumed" };
        assert_eq!(it.body["type"], expected, "message {} of the log's order", place + 1);
    }
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    for it in &came {
        assert_eq!(*bodies.entry(it.id()).or_insert(&it.raw), it.raw, "one message, two contents");
    }
    println!(
        "{rounds} kills: {happened} events, {} requests, {} of them failed on purpose",
        came.len(),
        came.iter().filter(|it| !it.was_taken()).count()
    );

    // The delivery log says the same.
    let id = api::text(&created, "id");
    eventually("the delivery log shows it", SOON, || {
        let shown = api.get(&format!("/v1/webhooks/{id}")).expect(200);
        let counts = &shown["deliveries"];
        let (delivered, waiting) = (&counts["delivered"], &counts["waiting"]);
        if *delivered == happened && *waiting == 0 { Ok(()) } else { Err(counts.to_string()) }
    });
    // A stop in peace leaves nothing to be sent again.
    assert!(hub.terminate().success());
    let sent = receiver.came("/hook").len();
    hub.restart();
    switch(&api, &tunnel, pause);
    eventually("the next one comes", SOON, || {
        let now = receiver.came("/hook").len();
        if now > sent { Ok(()) } else { Err(format!("{now} requests")) }
    });
    assert_eq!(receiver.came("/hook").len(), sent + 1);
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more_and_can_be_asked_again() {
    let receiver = Receiver::start();
    receiver.behaves(|path| Behaviour::Says(if path == "/gone" { 410 } else { 200 }));
    let mut hub = hub("100ms,100ms");
    let api = hub.api();
    let tunnel = tunnel(&api);
    let created = webhook(&api, &receiver.url("/gone"), &["tunnel.paused", "tunnel.resumed"]);
    let told = webhook(&api, &receiver.url("/told"), &["webhook.disabled"]);
    let path = format!("/v1/webhooks/{}", api::text(&created, "id"));
    switch(&api, &tunnel, true);
    eventually("it is disabled", SOON, || {
        let shown = api.get(&path).expect(200);
        if shown["disabledReason"] == "gone" { Ok(()) } else { Err(shown.to_string()) }
    });
    switch(&api, &tunnel, false);
    hub.kill9();
    hub.restart();
    receiver.behaves(|_| Behaviour::Says(200));
    eventually("the other one is told", SOON, || {
        let came = receiver.came("/told");
        match came.iter().find(|it| it.was_taken() && it.body["data"]["reason"] == "gone") {
            Some(_) => Ok(()),
            None => Err(format!("{} messages for {told}", came.len())),
        }
    });
    assert_eq!(receiver.came("/gone").len(), 1, "never after 410");
    // By hand it is sent all the same, once and the same message.
    let list = api.get(&format!("{path}/deliveries")).expect(200);
    let dead = list.as_array().into_iter().flatten().find(|it| it["gaveUp"] == "gone").expect("it is shown");
    let again = format!("{path}/deliveries/{}/redeliver", api::text(dead, "id"));
    api.post(&again, &json!({})).expect(201);
    eventually("it comes again", SOON, || {
        let came = receiver.came("/gone");
        if came.len() == 2 && came[0].id() == came[1].id() {
            Ok(())
        } else {
            Err(format!("{} requests", came.len()))
        }
    });
    // Enabled again it is sent what waited.
    api.patch(&path, &json!({ "isActive": true })).expect(200);
    eventually("the rest comes", SOON, || {
        let came = receiver.came("/gone");
        let last = came.last().map(|it| it.body["type"].clone()).unwrap_or_default();
        if last == "tunnel.resumed" { Ok(()) } else { Err(format!("{last} after {} requests", came.len())) }
    });
}

#[test]
fn a_backlog_drains_in_order_without_a_flood_and_a_dead_endpoint_delays_no_other() {
    let backlog = number(BACKLOG_VARIABLE).unwrap_or(BACKLOG);
    let receiver = Receiver::start();
    receiver.behaves(|path| match path {
        "/down" => Behaviour::Says(503),
        "/dead" => Behaviour::Drips,
        _ => Behaviour::Says(200),
    });
    let hub = hub("1s,1s,2s,2s,5s,5s,10s,10s,30s,30s,30s,30s,30s,30s,30s,30s,30s,30s,30s,30s");
    let api = hub.api();
    let tunnel = tunnel(&api);
    let types = ["tunnel.paused", "tunnel.resumed"];
    for path in ["/down", "/live", "/dead"] {
        webhook(&api, &receiver.url(path), &types);
    }
    let before = events_of(&api, &tunnel);
    let begun = Instant::now();
    for n in 0..backlog {
        assert_eq!(switch(&api, &tunnel, n % 2 == 0), Some(200));
    }
    let happened = events_of(&api, &tunnel) - before;
    assert_eq!(happened, backlog);
    let made = begun.elapsed();
    let limit = SOON * 3 + Duration::from_millis(backlog * 30);
    let count = |path: &str| u64::try_from(receiver.came(path).iter().filter(|it| it.was_taken()).count());
    eventually("the live one has everything", limit, || match count("/live") {
        Ok(taken) if taken == backlog => Ok(()),
        taken => Err(format!("{taken:?} of {backlog}")),
    });
    let live = begun.elapsed();
    println!(
        "{backlog} events in {:.1} s; beside a dead and a failing endpoint the live one had the last after {:.1} s",
        made.as_secs_f64(),
        live.as_secs_f64()
    );
    // Until three different messages have failed the endpoint counts as up, and one that was set aside may be overtaken.
    eventually("three messages have failed", limit, || {
        let failed: BTreeSet<u64> = receiver.came("/down").iter().map(Came::sequence).collect();
        if failed.len() >= 3 { Ok(()) } else { Err(format!("{failed:?}")) }
    });
    let tries = receiver.came("/down").len();
    let tries_max = usize::try_from(begun.elapsed().as_secs() * 2 + 10).expect("a count");
    assert!(tries <= tries_max, "{tries} tries at an endpoint that is down for {live:?}");

    receiver.behaves(|path| if path == "/dead" { Behaviour::Drips } else { Behaviour::Says(200) });
    let up = Instant::now();
    eventually("the backlog drains", limit, || match count("/down") {
        Ok(taken) if taken == backlog => Ok(()),
        taken => Err(format!("{taken:?} of {backlog}")),
    });
    let came = receiver.came("/down");
    let taken: Vec<&Came> = came.iter().filter(|it| it.was_taken()).collect();
    let numbers: Vec<u64> = taken.iter().map(|it| it.sequence()).collect();
    assert_eq!(numbers, (1..=backlog).collect::<Vec<_>>());
    let fastest = taken.windows(101).map(|window| window[100].at - window[0].at).min();
    if let Some(fastest) = fastest {
        assert!(fastest >= Duration::from_millis(800), "a hundred messages in {fastest:?}");
    }
    println!(
        "{tries} tries while it was down; {backlog} pending messages drained in {:.1} s, in order, at most 100 in {:.2} s",
        up.elapsed().as_secs_f64(),
        fastest.unwrap_or_default().as_secs_f64()
    );
}

/// Reads messages as the test wrote them, and verifies each with the public library, with each secret; prints the count.
const VERIFY: &str = r#"
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
verified = 0
for message in json.load(open(sys.argv[1])):
    for secret in message["secrets"]:
        Webhook(secret).verify(message["raw"], message["headers"])
        verified += 1
    try:
        Webhook(message["wrong"]).verify(message["raw"], message["headers"])
        sys.exit("a wrong secret verified")
    except WebhookVerificationError:
        pass
    try:
        Webhook(message["secrets"][0]).verify(message["raw"].replace("workspaceId", "workspaceID"), message["headers"])
        sys.exit("a changed body verified")
    except WebhookVerificationError:
        pass
print(verified)
"#;

/// A Python that has the library; `None`, said aloud, where it cannot be had.
fn python() -> Option<PathBuf> {
    let folder = std::env::temp_dir().join("pc-standardwebhooks-1.0.1");
    let python = folder.join("bin/python");
    let has = |python: &PathBuf| {
        let asked = Command::new(python).args(["-c", "import standardwebhooks"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    if has(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).output();
    let pip = Command::new(folder.join("bin/pip")).args(["install", "--quiet", LIBRARY]).output();
    if made.is_ok_and(|it| it.status.success()) && pip.is_ok_and(|it| it.status.success()) && has(&python) {
        return Some(python);
    }
    eprintln!(
        "SKIPPED: the public library ({LIBRARY}) cannot be installed here, so it verified no signature"
    );
    None
}

#[test]
fn the_public_library_verifies_every_signature_during_a_rotation_too() {
    let Some(python) = python() else { return };
    let receiver = Receiver::start();
    let hub = hub("100ms,100ms");
    let api = hub.api();
    let tunnel = tunnel(&api);
    let created = webhook(&api, &receiver.url("/signed"), &["*"]);
    let first = api::text(&created, "secret");
    let path = format!("/v1/webhooks/{}", api::text(&created, "id"));
    for n in 0..3 {
        switch(&api, &tunnel, n % 2 == 0);
    }
    let arrived = |count: usize| {
        eventually("the messages come", SOON, || {
            let came = receiver.came("/signed").len();
            if came >= count { Ok(()) } else { Err(format!("{came} of {count}")) }
        });
    };
    arrived(3);
    let before = receiver.came("/signed").len();
    let rotated = api.post(&format!("{path}/rotate-secret"), &json!({})).expect(200);
    let second = api::text(&rotated, "secret");
    switch(&api, &tunnel, false);
    assert_eq!(api.post(&format!("{path}/test"), &json!({})).expect(200)["delivered"], true);
    arrived(before + 2);
    let messages: Vec<Value> = receiver
        .came("/signed")
        .iter()
        .enumerate()
        .map(|(place, it)| {
            let secrets = if place < before { vec![&first] } else { vec![&second, &first] };
            let headers: BTreeMap<&str, &str> =
                it.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let wrong = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
            json!({ "raw": it.raw, "headers": headers, "secrets": secrets, "wrong": wrong })
        })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("messages.json");
    std::fs::write(&file, Value::from(messages).to_string()).expect("a file");
    let output = Command::new(python).args(["-c", VERIFY]).arg(&file).output().expect("python runs");
    assert!(output.status.success(), "{}", e2e::hub::shown(&output));
    let verified: u32 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("a count");
    println!("{verified} signatures verified by {LIBRARY}");
    assert!(verified >= 7, "{verified}");
}

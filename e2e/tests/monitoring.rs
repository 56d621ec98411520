//! What an operator is given to watch a hub works: a real Prometheus scrapes a hub that is really used, every panel of
//! every dashboard has an answer, and every alert fires at its fault and clears after it.
//!
//! The rules are the shipped ones with shorter durations. Four alerts have faults that take hours or a log of the future;
//! these are proven by `promtool test rules` alone (ops/prometheus/alerts_test.yml), as all others are too.
#![expect(clippy::print_stdout, reason = "what panels and alerts answered is what it shows")]

mod monitoring {
    pub(crate) mod board;
    pub(crate) mod faults;
    pub(crate) mod load;
}

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Instant,
};

use e2e::{
    Hub, eventually,
    prometheus::{Prometheus, Questions, shipped},
    wait::SOON,
};
use monitoring::{
    board::Board,
    faults::{EdgeCertificate, FlippedBit, ScarceDescriptors, SlowCalls, hold_view},
    load::{Load, WATCHED, World},
};
use serde_json::Value;

/// The shipped durations and what stands in their place. The thresholds of two alerts are durations as well.
const QUICKER: [(&str, &str); 14] = [
    ("[5m]", "[4s]"),
    ("[15m]", "[6s]"),
    ("[30m]", "[15s]"),
    ("[1h]", "[6s]"),
    ("for: 30s", "for: 1s"),
    ("for: 1m", "for: 1s"),
    ("for: 2m", "for: 1s"),
    ("for: 5m", "for: 1s"),
    ("for: 10m", "for: 1s"),
    ("for: 15m", "for: 1s"),
    ("for: 30m", "for: 1s"),
    ("for: 1h", "for: 1s"),
    ("pconnect_view_lag_seconds > 30", "pconnect_view_lag_seconds > 2"),
    ("pconnect_webhook_oldest_waiting_seconds > 24 * 3600", "pconnect_webhook_oldest_waiting_seconds > 2"),
];

/// A disk that fills up in days or is nine tenths full, events of a newer hub, and 10,000 positions that a webhook has not
/// read: not within seconds.
const BY_PROMTOOL_ALONE: [&str; 4] = ["DiskAlmostFull", "DiskFillsUp", "EventsSkipped", "WebhooksBehind"];
/// Those of them that tell of the machine, whose disk may really be almost full.
const OF_THE_MACHINE: [&str; 2] = ["DiskAlmostFull", "DiskFillsUp"];

/// Three within the window are an alert; a busy machine may take longer for them.
const RESTARTS_MAX: u32 = 8;

#[test]
fn every_panel_has_an_answer_and_every_alert_fires_and_clears() {
    let begun = Instant::now();
    let mut world = World::start();
    let certificate = EdgeCertificate::new(90);
    let encrypted = Hub::start_with(&certificate.settings());
    let prometheus = Prometheus::scraping(&[world.hub.api_address, encrypted.api_address], &QUICKER);
    let board = Board::watch(prometheus.api, &OF_THE_MACHINE);
    let load = Load::begin(&world);

    names_and_forms_are_as_prometheus_wants_them(&world.hub);
    every_panel_has_an_answer(prometheus.api);
    board.is_calm();
    println!("\nafter {:.0} s: every panel has an answer, no alert fires", begun.elapsed().as_secs_f64());

    let faults = board.now();
    let descriptors = ScarceDescriptors::of(&world.hub);
    board.fire(faults, &["HubDescriptorsScarce"]);
    descriptors.restore();

    // Each in its own place, so all at once.
    let faults = board.now();
    world.break_target();
    world.receivers_fail();
    world.strangers_guess();
    world.two_agents_are_killed();
    certificate.replace_by(1);
    let view = hold_view(&world.hub);
    board.fire(faults, &["CertificateEndsSoon", "CertificateEnds"]);
    certificate.spoil();
    let all = [
        "EdgeTargetsFailing",
        "WebhooksFailing",
        "WebhookMessagesOld",
        "WebhookDeadLetters",
        "WebhooksDisabled",
        "RateLimitRefusals",
        "AgentsLost",
        "StreamsFailing",
        "ViewBehind",
        "ViewFailing",
        "CertificateNotRenewed",
    ];
    board.fire(faults, &all);
    drop(view);
    world.mend();
    certificate.replace_by(90);

    let faults = board.now();
    if let Some(slow) = SlowCalls::of(&world.hub, "fdatasync", "delay_enter=800000") {
        board.fire(faults, &["LogSlow", "ApiSlow"]);
        slow.stop();
        let full = SlowCalls::of(&world.hub, "pwrite64", "error=ENOSPC").expect("it worked before");
        board.fire(faults, &["LogNotWritable", "LogAppendsFailing", "EdgeCannotLog", "ApiErrors"]);
        full.stop();
    } else {
        board.excuse(&[
            "LogSlow",
            "ApiSlow",
            "LogNotWritable",
            "LogAppendsFailing",
            "EdgeCannotLog",
            "ApiErrors",
        ]);
    }

    let faults = board.now();
    let damage = FlippedBit::in_the_log(&world.hub, &format!("\"name\":\"{WATCHED}\""));
    // Whoever reads it notices.
    let said = world.hub.api().get("/v1/events?limit=1000");
    assert!(said.status >= 500, "{} for a page with a damaged event", said.status);
    board.fire(faults, &["LogDamaged"]);
    world.hub.kill9();
    board.fire(faults, &["HubDown"]);
    damage.mend();
    world.hub.restart();
    for _ in 0..RESTARTS_MAX {
        board.is_scraped(world.hub.api_address, true);
        if board.is_firing("HubRestarts") {
            break;
        }
        world.hub.kill9();
        board.is_scraped(world.hub.api_address, false);
        world.hub.restart();
    }
    board.fire(faults, &["HubRestarts"]);
    board.is_calm();
    board.every_alert_was_seen(&BY_PROMTOOL_ALONE);
    load.end();
    println!("{:.0} s in all", begun.elapsed().as_secs_f64());
}

/// `promtool check metrics` has nothing to say.
fn names_and_forms_are_as_prometheus_wants_them(hub: &Hub) {
    let page = hub.api().get("/metrics");
    assert_eq!(page.status, 200);
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool is of the package prometheus");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(&page.body).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = e2e::hub::shown(&output);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{said}");
    let series = page.text().lines().filter(|line| !line.starts_with('#')).count();
    println!("promtool check metrics: clean, {series} series");
}

/// A question of a panel.
struct Asked {
    panel: String,
    expression: String,
}

fn panels() -> Vec<Asked> {
    let mut all = Vec::new();
    let mut files: Vec<_> =
        fs::read_dir(shipped("grafana")).expect("it is there").flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).expect("a dashboard can be read");
        let dashboard: Value = serde_json::from_str(&text).expect("a dashboard is JSON");
        let title = dashboard["title"].as_str().unwrap_or_default();
        let title = title.rsplit('/').next().unwrap_or_default().trim().to_owned();
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().expect("a target has an expression");
                // As Grafana fills them in.
                let expression = expression
                    .replace("$__rate_interval", "4s")
                    .replace("$job", "pconnect")
                    .replace("$instance", ".*");
                assert!(!expression.contains('$'), "a variable that nobody fills in: {expression}");
                let panel = format!("{title}: {}", panel["title"].as_str().unwrap_or_default());
                all.push(Asked { panel, expression });
            }
        }
    }
    all
}

fn every_panel_has_an_answer(prometheus: Questions) {
    let asked = panels();
    assert!(asked.len() > 80, "{} questions", asked.len());
    let mut answers: Vec<Option<(usize, f64)>> = vec![None; asked.len()];
    eventually("every panel has an answer", SOON * 2, || {
        for (answer, asked) in answers.iter_mut().zip(&asked).filter(|(answer, _)| answer.is_none()) {
            let samples = prometheus.query(&asked.expression)?;
            // 0 / 0 is no answer.
            let finite = samples.iter().map(|sample| sample.value).filter(|value| value.is_finite());
            *answer = finite.reduce(f64::max).map(|most| (samples.len(), most));
        }
        let without = answers.iter().zip(&asked).filter(|(answer, _)| answer.is_none());
        let without: BTreeSet<String> =
            without.map(|(_, asked)| format!("{} ({})", asked.panel, asked.expression)).collect();
        if without.is_empty() { Ok(()) } else { Err(format!("none for {without:#?}")) }
    });
    println!("\n{:<58} {:>6} {:>14}", "panel", "series", "largest");
    for (asked, answer) in asked.iter().zip(answers) {
        let (series, most) = answer.expect("every panel has one");
        println!("{:<58} {series:>6} {most:>14.4}", asked.panel);
    }
}

/// What a sentence about the durations rests on: each of them is in the shipped rules, and none is left out.
#[test]
fn all_durations_of_the_rules_are_made_shorter() {
    let rules = ["recording.yml", "alerts.yml"]
        .map(|file| {
            fs::read_to_string(shipped("prometheus").join(file)).expect("it is part of the repository")
        })
        .concat();
    for (from, _) in QUICKER {
        assert!(rules.contains(from), "{from} is in no rule");
    }
    let quick = QUICKER.iter().fold(rules, |rules, (from, to)| rules.replace(from, to));
    for line in quick.lines().filter(|line| line.trim().starts_with("for:")) {
        assert!(["for: 1s", "for: 0m"].contains(&line.trim()), "{line}");
    }
    let windows = quick.match_indices('[').map(|(at, _)| quick[at..].split(']').next().unwrap_or_default());
    let long: Vec<&str> = windows.filter(|window| window.ends_with('m') || window.ends_with('h')).collect();
    assert_eq!(long, ["[6h"], "the window of a disk that fills up");
}

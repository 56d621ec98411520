//! Names are as Prometheus wants them, and what the operator is given (list, rules, dashboards, runbooks) asks for metrics
//! that there are and leads to pages that there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::Value;

use super::families::{Family, GROUPS, Kind, tables};

const BEGIN: &str = "<!-- The list: UPDATE_GOLDENS=1 cargo test -p hub metrics -->\n";
const END: &str = "<!-- End of the list -->\n";

fn place(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(place(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(place(folder)).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter(|path| path.extension().is_some_and(|it| it == extension));
    named.map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

fn all() -> impl Iterator<Item = &'static Family> {
    GROUPS.iter().flat_map(|(_, families)| families.iter().copied())
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut seen = BTreeSet::new();
    for Family { name, kind, labels, help } in all() {
        assert!(seen.insert(*name), "{name} is there twice");
        let is_plain =
            |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(
            is_plain(name) && labels.iter().all(|label| is_plain(label) && *label != "le"),
            "{name} {labels:?}"
        );
        let ours = name.starts_with("pconnect_") || name.starts_with("process_");
        assert!(ours, "{name} does not say whose it is");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name} is a {}", kind.name());
        for unit in
            ["_ms", "_us", "_milliseconds", "_minutes", "_hours", "_days", "_kilobytes", "_mb", "_percent"]
        {
            assert!(!name.contains(unit), "{name} is in no base unit");
        }
        assert!(help.len() > 5 && !help.ends_with('.') && !help.contains('|'), "{name}: {help}");
    }
}

#[test]
fn the_page_for_operators_lists_every_metric() {
    let path = "docs/how-to/monitor.md";
    let page = text(path);
    let (before, rest) = page.split_once(BEGIN).expect("the list begins there");
    let (_, after) = rest.split_once(END).expect("the list ends there");
    let fresh = format!("{before}{BEGIN}\n{}{END}{after}", tables());
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(place(path), &fresh).unwrap();
    }
    assert_eq!(text(path), fresh, "run with UPDATE_GOLDENS=1 and look at the diff");
}

/// Every name in an expression that looks like one of ours, without what a histogram adds to its own.
fn asked(text: &str) -> BTreeSet<String> {
    let known: BTreeMap<&str, Kind> = all().map(|family| (family.name, family.kind)).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("pconnect_") || word.starts_with("process_"))
        .map(|word| {
            let ends = ["_bucket", "_sum", "_count"];
            let base = ends.iter().find_map(|end| word.strip_suffix(end));
            let base = base.filter(|base| known.get(base) == Some(&Kind::Histogram));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn rules_and_dashboards_ask_for_metrics_that_there_are() {
    let known: BTreeSet<&str> = all().map(|family| family.name).collect();
    let recording = text("ops/prometheus/recording.yml");
    let recorded: BTreeSet<&str> =
        recording.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect();
    let mut used = BTreeSet::new();
    let mut of_dashboards = BTreeSet::new();
    let rules = files("ops/prometheus", "yml");
    let dashboards = files("ops/grafana", "json");
    assert!(rules.len() >= 4 && dashboards.len() >= 4, "{} {}", rules.len(), dashboards.len());
    for (path, content) in rules.iter().chain(&dashboards) {
        for name in asked(content) {
            assert!(known.contains(&*name), "{path} asks for {name}, which is no metric");
            if path.ends_with("json") {
                of_dashboards.insert(name);
            }
        }
        for line in content.lines().filter(|line| !line.contains("record:")) {
            let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            used.extend(words.filter(|word| word.starts_with("pconnect:")).map(str::to_owned));
        }
    }
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(used, recorded, "what is recorded, and what is asked for");
    let unseen: Vec<&&str> = known.iter().filter(|name| !of_dashboards.contains(**name)).collect();
    assert!(unseen.is_empty(), "on no dashboard: {unseen:?}");
}

#[test]
fn every_panel_says_what_it_shows_and_takes_its_source_from_a_variable() {
    for (path, content) in files("ops/grafana", "json") {
        let dashboard: Value = serde_json::from_str(&content).unwrap();
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let named = |name: &str| variables.iter().find(|it| it["name"] == name);
        assert_eq!(named("datasource").unwrap()["type"], "datasource", "{path}");
        assert!(named("job").is_some() && named("instance").is_some(), "{path}");
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{path}: {title} has another one's id");
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().unwrap().ends_with('.'), "{path}: {title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{path}: {title} has no unit");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{path}: {title} asks for nothing");
            for source in targets.iter().chain([panel]).map(|it| &it["datasource"]) {
                assert_eq!(source["uid"], "${datasource}", "{path}: {title}");
            }
            for target in targets {
                let asked = target["expr"].as_str().unwrap();
                assert!(asked.contains("job=\"$job\",instance=~\"$instance\""), "{path}: {title}: {asked}");
            }
        }
    }
}

/// Each alert of the rules, with its lines.
fn alerts(rules: &str) -> BTreeMap<&str, &str> {
    let parts = rules.split("- alert: ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).collect()
}

#[test]
fn every_alert_has_words_a_test_and_a_section_of_a_runbook() {
    let (rules, tests) = (text("ops/prometheus/alerts.yml"), text("ops/prometheus/alerts_test.yml"));
    let alerts = alerts(&rules);
    assert!(alerts.len() > 20, "{alerts:?}");
    let mut sections = BTreeSet::new();
    for (name, lines) in &alerts {
        let after = |field: &str| {
            let line = lines.lines().find_map(|line| line.trim().strip_prefix(field)).map(str::trim);
            line.unwrap_or_else(|| panic!("{name} has no {field}"))
        };
        assert!(["critical", "warning", "info"].contains(&after("severity:")), "{name}");
        assert!(after("summary:").len() > 10 && after("description:").len() > 10, "{name}");
        let (page, section) = after("runbook_url:").split_once('#').unwrap();
        assert_eq!(section, name.to_lowercase(), "{name}");
        let heading = format!("\n## {name}\n");
        let runbook = text(page);
        let (_, rest) =
            runbook.split_once(&heading).unwrap_or_else(|| panic!("{page} says nothing of {name}"));
        let said = rest.split("\n## ").next().unwrap();
        for part in ["**Means:**", "**Look at:**", "**Do:**"] {
            assert!(said.contains(part), "{page}: {name} has no {part}");
        }
        sections.insert((place(page).display().to_string(), (*name).to_owned()));
        for seen in ["exp_alerts: []", ""] {
            let tested =
                tests.lines().any(|line| line.contains(&format!("alertname: {name}")) && line.contains(seen));
            assert!(tested, "alerts_test.yml has no test of {name}");
        }
    }
    for (path, runbook) in files("docs/runbooks", "md") {
        for heading in runbook.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(
                sections.contains(&(path.clone(), heading.to_owned())),
                "{path}: no alert is named {heading}"
            );
        }
    }
}

//! A Prometheus of the Debian package with the shipped configuration and rules, made quicker, and what it answers.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    http, ports::loopback, process::Process, targets::start_on_free_port, wait::SOON, wait::eventually,
};

/// Where the repository has what operators copy.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops").join(path)
}

/// Texts and what stands in their place.
pub type Quicker<'a> = &'a [(&'a str, &'a str)];

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    pub api: Questions,
    // Before the folder: it ends before its files go.
    _process: Process,
    _folder: TempDir,
}

/// Where it answers.
#[derive(Debug, Clone, Copy)]
pub struct Questions(SocketAddr);

/// A line of an answer: its labels, and its value.
#[derive(Debug, Clone)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Prometheus {
    /// Scrapes these hubs twice a second, by the shipped files with each of `quicker` put in its place.
    #[track_caller]
    pub fn scraping(hubs: &[SocketAddr], quicker: Quicker<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("pc-prometheus-").tempdir().expect("a temporary folder");
        let targets: Vec<String> = hubs.iter().map(|hub| format!("'{hub}'")).collect();
        let targets = format!("targets: [{}]", targets.join(", "));
        let config = [("15s", "500ms"), ("targets: ['127.0.0.1:7070']", &targets)];
        let copied = |file: &str, changes: Quicker<'_>| {
            let text =
                fs::read_to_string(shipped("prometheus").join(file)).expect("it is part of the repository");
            let text = changes.iter().fold(text, |text, (from, to)| text.replace(from, to));
            fs::write(folder.path().join(file), text).expect("the folder is ours");
        };
        copied("prometheus.yml", &config);
        for file in ["recording.yml", "alerts.yml"] {
            copied(file, quicker);
        }
        let (process, port) = start_on_free_port("prometheus", &|port| {
            let mut command = Command::new("prometheus");
            command
                .current_dir(folder.path())
                .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
            command.args([&*format!("--web.listen-address=127.0.0.1:{port}"), "--log.level=warn"]);
            command
        });
        let address = loopback(port);
        eventually("Prometheus is ready", SOON, || match http::get(address, "/-/ready").status {
            200 => Ok(()),
            other => Err(other.to_string()),
        });
        Self { api: Questions(address), _process: process, _folder: folder }
    }
}

impl Questions {
    /// The answer to an expression at this moment.
    ///
    /// # Errors
    /// What Prometheus says of the expression.
    pub fn query(self, expression: &str) -> Result<Vec<Sample>, String> {
        let body = format!("query={}", encoded(expression));
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::request(self.0, "POST", "/api/v1/query", &headers, Some(body.as_bytes()));
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.text());
        }
        let lines = answer.json()["data"]["result"].as_array().cloned().unwrap_or_default();
        Ok(lines.iter().filter_map(sample).collect())
    }

    /// How each alert stands: `inactive`, `pending` or `firing`.
    ///
    /// # Errors
    /// There is no answer.
    pub fn alerts(self) -> Result<BTreeMap<String, String>, String> {
        let answer = http::request(self.0, "GET", "/api/v1/rules?type=alert", &[], None);
        let answer = answer.map_err(|error| error.to_string())?.json();
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(rules.filter_map(|rule| Some((text(&rule["name"])?, text(&rule["state"])?))).collect())
    }
}

fn sample(line: &Value) -> Option<Sample> {
    let labels = line["metric"].as_object()?.iter();
    let labels = labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let value = line["value"][1].as_str()?.parse().ok()?;
    Some(Sample { labels: labels.collect(), value })
}

/// As forms write it.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

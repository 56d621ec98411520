//! A whole hub in the test's process, on free ports and a directory of its own, and a client that talks to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser as _;
use hub::{
    clock::{SharedClock, SystemClock},
    settings::{Cli, Command},
    startup::Hub,
};
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use tempfile::TempDir;

/// The key that every test hub accepts.
pub(crate) const ADMIN: &str = "pc_test0test0test0test0test0test0test0test0test0";

pub(crate) struct Running {
    pub(crate) hub: Hub,
    pub(crate) data: TempDir,
    client: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) etag: Option<String>,
    pub(crate) link: Option<String>,
    pub(crate) allow: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A client of our own making: with TLS in the build, reqwest's default one asks for a provider of the process.
pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().tls_backend_preconfigured(wire::tls::trust::nobody()).build().unwrap()
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        Self::start_on(TempDir::new().unwrap(), flags).await
    }

    pub(crate) async fn start_on(data: TempDir, flags: &[&str]) -> Self {
        Self::start_at(data, flags, Arc::new(SystemClock)).await
    }

    pub(crate) async fn start_at(data: TempDir, flags: &[&str], clock: SharedClock) -> Self {
        let path = data.path().to_str().unwrap().to_owned();
        let fixed =
            ["hub", "serve", "--data", &path, "--listen", "127.0.0.1:0", "--edge-listen", "127.0.0.1:0"];
        let limits = ["--limit-key-per-min", "0", "--limit-public-per-min", "0", "--admin-key", ADMIN];
        let cli = Cli::parse_from([fixed.as_slice(), &limits, flags].concat());
        let Command::Serve(serve) = cli.command else { unreachable!("these are serve's flags") };
        let hub = Hub::start_at(serve.settings, false, clock).await.unwrap();
        Self { hub, data, client: client() }
    }

    /// Stops the hub and starts another on the same data.
    pub(crate) async fn restart(self) -> Self {
        let data = self.stop().await;
        Self::start_on(data, &[]).await
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.hub.stop().await;
        self.data
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.hub.api_url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.unwrap()).await
    }

    /// A page's form.
    pub(crate) async fn send_form(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        fields: &Value,
    ) -> Answer {
        let fields: std::collections::BTreeMap<String, String> =
            serde_json::from_value(fields.clone()).unwrap();
        // A form's body is written as a query is.
        let form = reqwest::Url::parse_with_params("http://form", fields).unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.hub.api_url()));
        request = request.header("content-type", hub::api::describe::FORM);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.body(form.query().unwrap_or_default().to_owned()).send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("x-api-key", ADMIN)], None).await
    }
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[("x-api-key", ADMIN)], Some(body)).await
    }
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, &[("x-api-key", ADMIN)], Some(body)).await
    }
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[("x-api-key", ADMIN)], None).await
    }

    /// A registered agent's id.
    pub(crate) async fn agent(&self) -> String {
        let answer = self.post("/v1/agents/register", serde_json::json!({ "label": "test" })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.text("agentId")
    }

    /// A tunnel of a new agent.
    pub(crate) async fn tunnel(&self, name: &str) -> Answer {
        let agent = self.agent().await;
        let body = serde_json::json!({ "target": "localhost:3000", "agentId": agent, "name": name });
        let answer = self.post("/v1/tunnels", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer
    }

    /// The types of all facts recorded so far.
    pub(crate) async fn facts(&self) -> Vec<String> {
        let families = domain::recorded::Families::only(domain::recorded::Family::Facts);
        let events = self.hub.core.log.read_all(0, families, 100_000).await.unwrap();
        events.iter().map(|event| event.event_type.to_string()).collect()
    }
}

async fn read(response: Response) -> Answer {
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, etag, link) = (response.status(), header("etag"), header("link"));
    let (allow, headers) = (header("allow"), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer {
        status,
        etag,
        link,
        allow,
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    }
}

impl Answer {
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("no text `{field}` in {self:?}")).to_owned()
    }
    /// A header's value; empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

/// Waits until `holds` says yes; panics with `what` after ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! The Control API as a test uses it: one method per thing that several tests do.

use std::{io, net::SocketAddr};

use serde_json::{Value, json};

use crate::http::{self, Response};

/// A caller with a key.
#[derive(Debug, Clone)]
pub struct Api {
    pub address: SocketAddr,
    pub key: String,
}

impl Api {
    /// The same API with another key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { address: self.address, key: key.to_owned() }
    }

    /// Any request, which may fail: the hub may be down.
    ///
    /// # Errors
    /// Those of the system, or an answer that is no HTTP.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> io::Result<Response> {
        let body = body.map(Value::to_string);
        let mut all = vec![("x-api-key", self.key.as_str())];
        if body.is_some() {
            all.push(("content-type", "application/json"));
        }
        all.extend_from_slice(headers);
        http::request(self.address, method, path, &all, body.as_deref().map(str::as_bytes))
    }

    #[track_caller]
    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.call(method, path, &[], body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.must("GET", path, None)
    }
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.must("POST", path, Some(body))
    }
    #[track_caller]
    pub fn patch(&self, path: &str, body: &Value) -> Response {
        self.must("PATCH", path, Some(body))
    }
    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        self.must("DELETE", path, None)
    }

    /// Registers an agent that nobody runs; answers its id and token.
    #[track_caller]
    pub fn register_agent(&self, label: &str) -> (String, String) {
        let agent = self.post("/v1/agents/register", &json!({ "label": label })).expect(201);
        (text(&agent, "agentId"), text(&agent, "token"))
    }

    /// Creates a tunnel and answers it whole.
    #[track_caller]
    pub fn create_tunnel(&self, agent_id: &str, target: &str, name: &str) -> Value {
        let body = json!({ "target": target, "agentId": agent_id, "name": name });
        self.post("/v1/tunnels", &body).expect(201)
    }

    /// All tunnels of the workspace, by pages.
    #[track_caller]
    pub fn tunnels(&self) -> Vec<Value> {
        self.pages("/v1/tunnels?limit=1000", "tunnels")
    }

    /// The tunnel of that name.
    ///
    /// # Errors
    /// Says what there is instead.
    pub fn tunnel_named(&self, name: &str) -> Result<Value, String> {
        let answer = self.call("GET", "/v1/tunnels?limit=1000", &[], None).map_err(|e| e.to_string())?;
        if answer.status != 200 {
            return Err(format!("status {}: {}", answer.status, answer.text()));
        }
        let all = answer.json();
        let found = all.as_array().into_iter().flatten().find(|tunnel| tunnel["name"] == name);
        found.cloned().ok_or_else(|| format!("no tunnel `{name}` in {all}"))
    }

    /// The tunnel of that name, once it is active.
    ///
    /// # Errors
    /// Says what it is instead.
    pub fn active_tunnel(&self, name: &str) -> Result<Value, String> {
        let tunnel = self.tunnel_named(name)?;
        if tunnel["status"] == "active" { Ok(tunnel) } else { Err(format!("not active: {tunnel}")) }
    }

    /// Creates a share of a tunnel and answers it whole.
    #[track_caller]
    pub fn create_share(&self, tunnel_id: &str, body: &Value) -> Value {
        self.post(&format!("/v1/tunnels/{tunnel_id}/share"), body).expect(201)
    }

    /// All shares of a tunnel, by pages.
    #[track_caller]
    pub fn shares(&self, tunnel_id: &str) -> Vec<Value> {
        self.pages(&format!("/v1/services/{tunnel_id}/shares?limit=1000"), "shares")
    }

    /// The whole access log of a share, newest first, by pages.
    #[track_caller]
    pub fn accesses(&self, share_id: &str) -> Vec<Value> {
        self.pages(&format!("/v1/shares/{share_id}/logs?limit=1000"), "logs")
    }

    /// Walks the pages of a list: a bare array, or the array in `member`.
    #[track_caller]
    fn pages(&self, first: &str, member: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut next = Some(first.to_owned());
        while let Some(path) = next {
            let answer = self.get(&path);
            let mut page = answer.expect(200);
            let items = if page.is_array() { page.take() } else { page[member].take() };
            let Value::Array(items) = items else { panic!("{path} is no list: {}", answer.text()) };
            all.extend(items);
            next = answer.header("link").and_then(next_page);
        }
        all
    }
}

/// The path of the page that a `Link` header calls the next.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\"") || part.contains("rel=next"))?;
    let target = next.split_once('<')?.1.split_once('>')?.0;
    let path = match target.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => target,
    };
    Some(path.to_owned())
}

/// A text member of a JSON object.
#[track_caller]
pub fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("no text `{member}` in {value}")).to_owned()
}

/// A number member of a JSON object that is a port.
#[track_caller]
pub fn port(value: &Value, member: &str) -> u16 {
    let number = value[member].as_u64().and_then(|port| u16::try_from(port).ok());
    number.unwrap_or_else(|| panic!("no port `{member}` in {value}"))
}

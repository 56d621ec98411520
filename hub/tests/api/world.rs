//! Two workspaces with one thing of every kind each, for tests that walk over all routes.

use std::collections::BTreeMap;

use domain::{ids::WorkspaceId, workspace::Scope};
use hub::api::describe::{FORM, Operation, places::Place};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    machines::{Machine, web_server},
    support::{ADMIN, Answer, Running, eventually},
};

/// Things of one workspace, by what stands for them in a path.
pub(crate) type Things = BTreeMap<Place, String>;

pub(crate) struct World {
    pub(crate) hub: Running,
    /// The caller's own things; the agent is the one of the examples.
    pub(crate) own: Things,
    /// Those of another workspace, and a key for everything there.
    pub(crate) foreign: Things,
    pub(crate) foreign_key: String,
    other: WorkspaceId,
    /// The token of another agent of the caller's workspace, which no example gives a new one.
    pub(crate) agent_token: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        let hub = Running::start_with(&["--webhook-allow", "127.0.0.0/8"]).await;
        let other = hub.hub.core.create_workspace("other").await.unwrap();
        let (_, key) = hub.hub.core.create_key(other, "all", vec![Scope::Admin], None, None).await.unwrap();
        let foreign_key = key.reveal().to_owned();
        let own = things(&hub, ADMIN, Some(Place::Agent.example())).await;
        let foreign = things(&hub, &foreign_key, None).await;
        let agent = hub.post("/v1/agents/register", json!({ "label": "another" })).await;
        let agent_token = agent.text("token");
        Self { hub, own, foreign, foreign_key, other, agent_token }
    }

    /// A request of the operation's method, with the body of its example.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        operation: &Operation,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut path = path.to_owned();
        let mut body = operation.takes.as_ref().map(|takes| takes.example.clone());
        self.bring_secrets(method, operation, headers, &mut path, body.as_mut()).await;
        let method = method.parse::<Method>().unwrap();
        match (body, operation.takes.as_ref().map(|takes| takes.media_type)) {
            (Some(fields), Some(FORM)) => self.hub.send_form(method, &path, headers, &fields).await,
            (body, _) => self.hub.send(method, &path, headers, body).await,
        }
    }

    /// Codes and tokens are good once, and no example holds one: each request gets its own, made for it.
    async fn bring_secrets(
        &self,
        method: &str,
        operation: &Operation,
        headers: &[(&str, &str)],
        path: &mut String,
        body: Option<&mut Value>,
    ) {
        let keys = [ADMIN, self.foreign_key.as_str()];
        let may_decide = headers.iter().any(|(name, value)| *name == "x-api-key" && keys.contains(value));
        match (operation.id, method, body) {
            ("rotateAgentToken", "POST", Some(body)) => {
                let agent = json!({ "agentId": Place::Agent.example() });
                let registered = self.hub.post("/v1/agents/register", agent).await;
                body["currentToken"] = registered.text("token").into();
            }
            ("approveDeviceLogin" | "denyDeviceLogin", "POST", Some(body)) if may_decide => {
                body["userCode"] = self.device_login().await.text("userCode").into();
            }
            ("sendDevicePage", "POST", Some(body)) => {
                body["user_code"] = self.device_login().await.text("userCode").into();
                body["api_key"] = ADMIN.into();
            }
            // A stream would stay for an hour.
            ("streamEvents", "GET" | "HEAD", None) => {
                let join = if path.contains('?') { '&' } else { '?' };
                path.push_str(&format!("{join}maxSeconds=0"));
            }
            ("getDeviceToken", "GET" | "HEAD", None) => {
                let begun = self.device_login().await;
                let code = json!({ "userCode": begun.text("userCode") });
                let approved = self.hub.post("/v1/device/approve", code).await;
                assert_eq!(approved.status, StatusCode::OK, "{approved:?}");
                let join = if path.contains('?') { '&' } else { '?' };
                path.push_str(&format!("{join}device_code={}", begun.text("deviceCode")));
            }
            _ => {}
        }
    }

    /// A machine without a key that has just begun.
    async fn device_login(&self) -> Answer {
        let begun = self.hub.post("/v1/device/code", json!({ "label": "machine" })).await;
        assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
        begun
    }

    /// Another key for everything in the other workspace: one that has not tried a wrong code yet.
    pub(crate) async fn new_foreign_key(&self) -> String {
        let made = self.hub.hub.core.create_key(self.other, "another", vec![Scope::Admin], None, None).await;
        made.unwrap().1.reveal().to_owned()
    }

    /// A key of the caller's workspace with one scope, and its id.
    pub(crate) async fn key(&self, scope: &str) -> (String, String) {
        let made = self.hub.post("/v1/api-keys", json!({ "name": scope, "scopes": [scope] })).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        (made.text("key"), made.text("id"))
    }
}

/// Makes one thing of every kind.
async fn things(hub: &Running, key: &str, agent: Option<&str>) -> Things {
    let headers = [("x-api-key", key)];
    let make = async |path: String, body: Value| {
        let made = hub.send(Method::POST, &path, &headers, Some(body)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {made:?}");
        made
    };
    // First of all: what follows is what it is sent. Nobody listens there.
    let webhook = json!({ "url": "http://127.0.0.1:18/hook", "events": ["*"] });
    let webhook = make("/v1/webhooks".to_owned(), webhook).await.text("id");
    let mut body = json!({ "label": "machine" });
    if let Some(id) = agent {
        body["agentId"] = id.into();
    }
    let agent = make("/v1/agents/register".to_owned(), body).await.text("agentId");
    let body = json!({ "target": "localhost:3000", "agentId": agent, "name": "site", "protocol": "http", "isPublic": true });
    let tunnel = make("/v1/tunnels".to_owned(), body).await.text("id");
    let share = make(format!("/v1/tunnels/{tunnel}/share"), json!({ "name": "link" })).await;
    let command = make(format!("/v1/agents/{agent}/command"), json!({ "action": "status" })).await;
    let spare = make("/v1/api-keys".to_owned(), json!({ "name": "spare" })).await.text("id");
    let environment = environment(hub, key).await;
    let delivery = delivery(hub, key, &webhook).await;
    Things::from([
        (Place::Agent, agent),
        (Place::Capability, Place::Capability.example().to_owned()),
        (Place::Command, command.text("commandId")),
        (Place::Delivery, delivery),
        (Place::DocsFile, Place::DocsFile.example().to_owned()),
        (Place::Environment, environment),
        (Place::Key, spare),
        (Place::Share, share.text("id")),
        (Place::ShareToken, share.text("token")),
        (Place::Tunnel, tunnel),
        (Place::Webhook, webhook),
    ])
}

/// The first delivery of a webhook.
async fn delivery(hub: &Running, key: &str, webhook: &str) -> String {
    let path = format!("/v1/webhooks/{webhook}/deliveries");
    let headers = [("x-api-key", key)];
    let first = async || {
        let page = hub.send(Method::GET, &path, &headers, None).await;
        page.body[0]["id"].as_str().map(str::to_owned)
    };
    eventually("something is to be delivered", || async { first().await.is_some() }).await;
    first().await.unwrap()
}

/// The code of an environment share. Only a connected agent has something to share; it goes again, so that everybody is
/// away alike.
async fn environment(hub: &Running, key: &str) -> String {
    let headers = [("x-api-key", key)];
    let post = async |path: &str, body| hub.send(Method::POST, path, &headers, Some(body)).await;
    let agent = post("/v1/agents/register", json!({ "label": "sharing" })).await;
    let machine = Machine::connected(hub, agent.text("agentId"), agent.text("token")).await;
    let target = web_server().await.to_string();
    let body = json!({ "target": target, "agentId": machine.id, "name": "web", "protocol": "http" });
    let tunnel = format!("/v1/tunnels/{}", post("/v1/tunnels", body).await.text("id"));
    eventually("the tunnel is active", || async {
        hub.send(Method::GET, &tunnel, &headers, None).await.text("status") == "active"
    })
    .await;
    let made = post("/v1/env-shares", json!({ "agentId": machine.id })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    machine.stop().await;
    made.text("code")
}

/// What every path of that kind can have and nothing has: well-formed, so that nobody can say that it was the form.
pub(crate) fn unknown(place: Place) -> String {
    match place {
        Place::Agent => "01890000-0000-7000-8000-000000000000".to_owned(),
        Place::Capability => "nothing".to_owned(),
        Place::Command => format!("cmd_{:0>32}", "7"),
        Place::Delivery => format!("dlv_{:0>32}", "7"),
        Place::DocsFile => "none.css".to_owned(),
        Place::Environment => "999999".to_owned(),
        Place::Key => format!("key_{:0>32}", "7"),
        Place::Share => format!("share_{:0>32}", "7"),
        Place::ShareToken => format!("share_tok_{:0>43}", "7"),
        Place::Tunnel => format!("tun_{:0>32}", "7"),
        Place::Webhook => format!("wh_{:0>32}", "7"),
    }
}

/// The path with things in the place of its parameters, and the query without which there is no answer.
pub(crate) fn filled(path: &str, operation: &Operation, thing: impl Fn(Place) -> String) -> String {
    let required = operation.query.iter().filter(|parameter| parameter.required);
    let needed = required.filter_map(|it| Some(format!("{}={}", it.name, it.schema["example"].as_str()?)));
    let query = needed.collect::<Vec<_>>().join("&");
    let path = operation.path.iter().fold(path.to_owned(), |path, parameter| {
        path.replace(&format!("{{{}}}", parameter.name), &thing(parameter.place))
    });
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

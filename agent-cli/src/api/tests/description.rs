//! The client against the hub's description: every operation is as `schemas/openapi.json` has it, every call is the
//! operation of its name, and what the hub can be asked and the client cannot is named here.

use std::collections::{BTreeMap, BTreeSet};

use schemas::rest::{environments as env, services};
use serde_json::json;
use utoipa::ToSchema;

use super::*;
use crate::api::operations::{self as op, Nothing, Verb};

/// Operations that are not for `connect`, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("getHealthOfHub", "the same as getHealth"),
    ("getLiveness", "for orchestrators"),
    ("getReadiness", "for orchestrators"),
    ("getMetrics", "for Prometheus"),
    ("getOpenApi", "for generators"),
    ("getDocs", "for browsers"),
    ("getDocsFile", "for browsers"),
    ("getDevicePage", "for browsers"),
    ("sendDevicePage", "for browsers"),
    ("exportAccesses", "a file as long as the log, which nothing here could hold"),
    ("listAudit", "for auditors"),
    ("listAuditOfAgent", "for auditors"),
    ("eraseData", "for administrators"),
    ("listAuditOfShare", "for auditors"),
    ("getAuditStats", "for auditors"),
    ("listAuditOfTunnel", "for auditors"),
    ("listEvents", "for auditors"),
    ("exportEvents", "a file as long as the log, or a stream without an end"),
    ("streamEvents", "a file as long as the log, or a stream without an end"),
    ("eraseAccesses", "for administrators"),
    ("listWebhooks", "for whoever runs a receiver"),
    ("createWebhook", "for whoever runs a receiver"),
    ("listEventTypes", "for whoever runs a receiver"),
    ("deleteWebhook", "for whoever runs a receiver"),
    ("getWebhook", "for whoever runs a receiver"),
    ("updateWebhook", "for whoever runs a receiver"),
    ("listDeliveries", "for whoever runs a receiver"),
    ("getDelivery", "for whoever runs a receiver"),
    ("redeliver", "for whoever runs a receiver"),
    ("replayWebhook", "for whoever runs a receiver"),
    ("rotateWebhookSecret", "for whoever runs a receiver"),
    ("testWebhook", "for whoever runs a receiver"),
];

/// An operation as the hub describes it.
struct Described {
    path: String,
    verb: String,
    operation: Value,
}

impl Described {
    fn parameters(&self) -> impl Iterator<Item = &Value> {
        self.operation["parameters"].as_array().into_iter().flatten()
    }
    fn asks(&self) -> impl Iterator<Item = &str> {
        self.parameters().filter(|it| it["in"] == "query").filter_map(|it| it["name"].as_str())
    }
    fn takes_header(&self, name: &str) -> bool {
        let reference = format!("#/components/parameters/{name}");
        self.parameters().any(|it| it["$ref"] == reference.as_str())
    }
    /// What its answers of success are, by status.
    fn successes(&self) -> impl Iterator<Item = (&String, &Value)> {
        let answers = self.operation["responses"].as_object().into_iter().flatten();
        let good = answers.filter(|(status, _)| status.starts_with('2'));
        good.map(|(status, answer)| (status, &answer["content"]["application/json"]["schema"]))
    }
}

fn description() -> Value {
    serde_json::from_str(include_str!("../../../../schemas/openapi.json")).unwrap()
}

fn described(description: &Value) -> BTreeMap<String, Described> {
    let mut found = BTreeMap::new();
    for (path, verbs) in description["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let (path, verb, operation) = (path.clone(), verb.to_uppercase(), operation.clone());
            found.insert(id, Described { path, verb, operation });
        }
    }
    found
}

fn reference<T: ToSchema>() -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
}

/// Compares operations with the description, and remembers which it has seen.
struct Checked {
    known: BTreeMap<String, Described>,
    seen: BTreeSet<&'static str>,
}

impl Checked {
    fn asks<Got: ToSchema>(&mut self, operation: &Operation<(), Got>) {
        self.check(operation, None, &reference::<Got>());
    }
    fn lists<Item: ToSchema>(&mut self, operation: &Operation<(), Vec<Item>>) {
        self.check(operation, None, &json!({ "type": "array", "items": reference::<Item>() }));
    }
    fn sends<Sent: ToSchema, Got: ToSchema>(&mut self, operation: &Operation<Sent, Got>) {
        self.check(operation, Some(&reference::<Sent>()), &reference::<Got>());
    }
    fn sends_nothing<Got: ToSchema>(&mut self, operation: &Operation<Nothing, Got>) {
        let nothing = json!({ "type": "object", "additionalProperties": false });
        self.check(operation, Some(&nothing), &reference::<Got>());
    }

    fn check<Sent, Got>(&mut self, operation: &Operation<Sent, Got>, sent: Option<&Value>, got: &Value) {
        let id = operation.id;
        assert!(self.seen.insert(id), "{id} is there twice");
        let described = self.known.get(id).unwrap_or_else(|| panic!("the hub has no {id}"));
        assert_eq!(operation.path, described.path, "{id}");
        assert_eq!(operation.verb.method().as_str(), described.verb, "{id}");
        let body = described.operation.get("requestBody");
        let body = body.map(|body| &body["content"]["application/json"]["schema"]);
        assert_eq!(body, sent, "{id}: what is sent");
        assert!(described.successes().count() > 0, "{id}");
        for (status, schema) in described.successes() {
            assert_eq!(schema, got, "{id}: what {status} answers");
        }
        let asked: BTreeSet<&str> = operation.query.iter().copied().collect();
        assert_eq!(asked, described.asks().collect(), "{id}: the query");
        let needs_key = !described.operation["security"].as_array().unwrap().is_empty();
        assert_eq!(operation.with_key, needs_key, "{id}: whether it needs a key");
        if operation.verb == Verb::Post && operation.may_repeat {
            // A heartbeat records nothing.
            let is_safe = described.takes_header("IdempotencyKey") || id == "sendHeartbeat";
            assert!(is_safe, "{id}: the hub cannot repeat it");
        }
    }
}

#[test]
fn every_operation_is_as_the_hub_describes_it_and_none_is_missing() {
    let known = described(&description());
    let ids: BTreeSet<String> = known.keys().cloned().collect();
    let mut all = Checked { known, seen: BTreeSet::new() };
    all.asks(&op::GET_HEALTH);
    all.asks(&op::WHO_AM_I);
    all.asks(&op::GET_WORKSPACE);
    all.asks(&op::GET_STATUS);
    all.lists(&op::LIST_KEYS);
    all.sends(&op::CREATE_KEY);
    all.asks(&op::REVOKE_KEY);
    all.sends(&op::START_DEVICE_LOGIN);
    all.asks(&op::GET_DEVICE_TOKEN);
    all.sends(&op::APPROVE_DEVICE_LOGIN);
    all.sends(&op::DENY_DEVICE_LOGIN);
    all.sends(&op::REGISTER_AGENT);
    all.sends(&op::PROVISION_AGENT);
    all.sends(&op::ROTATE_AGENT_TOKEN);
    all.sends(&op::SEND_HEARTBEAT);
    all.lists(&op::LIST_AGENTS);
    all.lists(&op::LIST_ONLINE_AGENTS);
    all.lists(&op::LIST_AGENTS_BY_CAPABILITY);
    all.asks(&op::GET_AGENT);
    all.asks(&op::DELETE_AGENT);
    all.sends(&op::SET_CAPABILITIES);
    all.asks(&op::LIST_AUDIT_LOGS);
    all.sends(&op::SEND_COMMAND);
    all.asks(&op::LIST_COMMANDS);
    all.asks(&op::GET_COMMAND);
    all.sends(&op::SEND_MESSAGE);
    all.sends(&op::BROADCAST_MESSAGE);
    all.asks(&op::LIST_MESSAGES);
    all.sends(&op::MARK_MESSAGES_READ);
    all.lists(&op::LIST_TUNNELS);
    all.sends(&op::CREATE_TUNNEL);
    all.asks(&op::GET_TUNNEL);
    all.sends(&op::UPDATE_TUNNEL);
    all.asks(&op::DELETE_TUNNEL);
    all.sends(&op::CONNECT_TUNNEL);
    all.sends(&op::SHARE_TUNNEL);
    all.sends(&op::REGISTER_SERVICE);
    all.lists(&op::LIST_SERVICES);
    all.asks(&op::GET_SERVICE);
    all.sends(&op::UPDATE_SERVICE);
    all.asks(&op::DELETE_SERVICE);
    all.sends(&op::SHARE_SERVICE);
    all.asks(&op::LIST_SHARES_OF_SERVICE);
    all.sends_nothing(&op::CHECK_SERVICE);
    all.sends(&op::REACH_SERVICE);
    all.asks(&op::GET_DIAGNOSTICS);
    all.sends(&op::CONFIGURE_HEALTH);
    all.sends(&op::SET_SUBDOMAIN);
    all.asks(&op::CHECK_SUBDOMAIN);
    all.asks(&op::LIST_SHARES);
    all.asks(&op::GET_SHARE);
    all.asks(&op::REVOKE_SHARE);
    all.asks(&op::LIST_ACCESSES);
    all.asks(&op::GET_ACCESS_STATS);
    all.asks(&op::GET_SHARE_INFO);
    all.sends(&op::SHARE_ENVIRONMENT);
    all.lists(&op::LIST_ENVIRONMENTS);
    all.asks(&op::GET_ENVIRONMENT);
    all.asks(&op::REVOKE_ENVIRONMENT);
    all.sends(&op::JOIN_ENVIRONMENT);
    all.lists(&op::LIST_PENDING_JOINERS);
    all.sends(&op::APPROVE_JOINER);
    all.sends(&op::DENY_JOINER);
    all.lists(&op::LIST_TEAMMATES);
    let covered = all.seen.iter().copied().chain(NOT_HERE.iter().map(|(id, _)| *id));
    assert_eq!(covered.map(str::to_owned).collect::<BTreeSet<_>>(), ids);
    assert_eq!(all.seen.len() + NOT_HERE.len(), ids.len(), "what is not here is not there, too");
}

/// A value that a schema describes, with everything that may be there.
fn sample(description: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let place = reference.strip_prefix('#').unwrap();
        return sample(description, description.pointer(place).unwrap());
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().flat_map(|part| sample(description, part).as_object().unwrap().clone());
        return Value::Object(parts.collect());
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[word].as_array() {
            let choice = choices.iter().find(|choice| choice["type"] != "null").unwrap();
            return sample(description, choice);
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    let kinds = || schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
    let kind = schema["type"].as_str().or_else(kinds);
    match kind {
        Some("string") => schema.get("example").cloned().unwrap_or_else(|| "x".into()),
        Some("integer") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("number") => 0.5.into(),
        Some("boolean") => true.into(),
        Some("array") => json!([sample(description, &schema["items"])]),
        Some("object") | None => {
            let members = schema["properties"].as_object().into_iter().flatten();
            members.map(|(name, member)| (name.clone(), sample(description, member))).collect()
        }
        Some(other) => panic!("no type of JSON Schema: {other}"),
    }
}

/// A value of a described type.
fn example<T: DeserializeOwned + ToSchema>(description: &Value) -> T {
    serde_json::from_value(sample(description, &reference::<T>())).unwrap()
}

/// The operation that a request asks for, and its answer. The query has to be described, and a body to be there where one is.
fn answered(description: &Value, seen: &Seen) -> (String, Value) {
    let mut words = seen.line.split(' ');
    let (verb, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let fits = |template: &str| {
        let (parts, given) = (template.split('/'), path.split('/'));
        parts.clone().count() == given.clone().count()
            && parts.zip(given).all(|(part, word)| part == word || part.starts_with('{'))
    };
    let known = described(description);
    let found = known.iter().filter(|(_, it)| it.verb == verb && fits(&it.path));
    // Where a word of the path could stand in braces as well, the word is meant.
    let (id, operation) = found.min_by_key(|(_, it)| it.path.matches('{').count()).unwrap();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap();
        assert!(operation.asks().any(|known| known == name), "{id}: {pair}");
    }
    assert_eq!(operation.operation.get("requestBody").is_some(), !seen.body.is_empty(), "{id}: {seen:?}");
    let (_, schema) = operation.successes().next().unwrap();
    (id.clone(), sample(description, schema))
}

/// Answers every request as it is described, and remembers which operations they were.
async fn describing_hub() -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        let description = description();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let Some(request) = read(&mut stream).await else { continue };
            let (id, body) = answered(&description, &request);
            kept.lock().push(id);
            stream.write_all(answer(200, "", &body.to_string()).as_bytes()).await.ok();
        }
    });
    (url, asked)
}

/// `createTunnel` as a function is called.
fn in_snake_case(id: &str) -> String {
    let mut name = String::new();
    for c in id.chars() {
        if c.is_uppercase() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// Notes that a call was answered with its own type.
struct Calls {
    asked: Arc<Mutex<Vec<String>>>,
    made: BTreeSet<&'static str>,
}

impl Calls {
    async fn made<T>(&mut self, name: &'static str, call: impl Future<Output = Result<T, ApiError>>) {
        call.await.map(drop).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let id = self.asked.lock().last().cloned().unwrap();
        assert_eq!(in_snake_case(&id), name, "a call is called as the operation that it asks for");
        self.made.insert(name);
    }
}

#[tokio::test]
async fn every_call_asks_for_the_operation_of_its_name_and_understands_the_described_answer() {
    let d = description();
    let (url, asked) = describing_hub().await;
    let api = Api::new(url, Some(Secret::new("pc_test")), wire::tls::trust::nobody()).unwrap();
    let mut calls = Calls { asked, made: BTreeSet::new() };
    let id = "x";
    calls.made("get_health", api.get_health()).await;
    calls.made("who_am_i", api.who_am_i()).await;
    calls.made("get_workspace", api.get_workspace()).await;
    calls.made("get_status", api.get_status()).await;
    calls.made("list_keys", api.list_keys()).await;
    calls.made("create_key", api.create_key(&example(&d))).await;
    calls.made("revoke_key", api.revoke_key(id)).await;
    calls.made("start_device_login", api.start_device_login(&example(&d))).await;
    calls.made("get_device_token", api.get_device_token(id)).await;
    calls.made("approve_device_login", api.approve_device_login(&example(&d))).await;
    calls.made("deny_device_login", api.deny_device_login(&example(&d))).await;
    calls.made("register_agent", api.register_agent(&example(&d))).await;
    calls.made("provision_agent", api.provision_agent(&example(&d))).await;
    calls.made("rotate_agent_token", api.rotate_agent_token(&example(&d), "once")).await;
    calls.made("send_heartbeat", api.send_heartbeat(&example(&d))).await;
    calls.made("list_agents", api.list_agents()).await;
    calls.made("list_online_agents", api.list_online_agents()).await;
    calls.made("list_agents_by_capability", api.list_agents_by_capability(id, Some(true))).await;
    calls.made("get_agent", api.get_agent(id)).await;
    calls.made("delete_agent", api.delete_agent(id)).await;
    calls.made("set_capabilities", api.set_capabilities(id, &example(&d))).await;
    calls.made("list_audit_logs", api.list_audit_logs(id)).await;
    // Three shapes are described, and the client's type holds each.
    for shape in [
        reference::<rest::PlainCommand>(),
        reference::<rest::ExposeCommand>(),
        reference::<rest::ReachCommand>(),
    ] {
        let body = serde_json::from_value(sample(&d, &shape)).unwrap();
        calls.made("send_command", api.send_command(id, &body)).await;
    }
    calls.made("list_commands", api.list_commands(id)).await;
    calls.made("get_command", api.get_command(id, id)).await;
    calls.made("send_message", api.send_message(id, &example(&d))).await;
    calls.made("broadcast_message", api.broadcast_message(id, &example(&d))).await;
    calls.made("list_messages", api.list_messages(id, Some(true))).await;
    calls.made("mark_messages_read", api.mark_messages_read(id, &example(&d))).await;
    calls.made("list_tunnels", api.list_tunnels()).await;
    calls.made("create_tunnel", api.create_tunnel(&example(&d))).await;
    calls.made("get_tunnel", api.get_tunnel(id)).await;
    calls.made("update_tunnel", api.update_tunnel(id, &example(&d))).await;
    calls.made("delete_tunnel", api.delete_tunnel(id)).await;
    calls.made("connect_tunnel", api.connect_tunnel(id, &example(&d))).await;
    calls.made("share_tunnel", api.share_tunnel(id, &example(&d))).await;
    calls.made("register_service", api.register_service(&example(&d))).await;
    calls.made("list_services", api.list_services()).await;
    calls.made("get_service", api.get_service(id)).await;
    calls.made("update_service", api.update_service(id, &example(&d))).await;
    calls.made("delete_service", api.delete_service(id)).await;
    calls.made("share_service", api.share_service(id, &example(&d))).await;
    calls.made("list_shares_of_service", api.list_shares_of_service(id)).await;
    calls.made("check_service", api.check_service(id, ANSWER_TIMEOUT)).await;
    calls.made("reach_service", api.reach_service(id, &example::<services::ReachService>(&d))).await;
    calls.made("get_diagnostics", api.get_diagnostics(id)).await;
    calls.made("configure_health", api.configure_health(id, &example(&d))).await;
    calls.made("set_subdomain", api.set_subdomain(id, &example(&d))).await;
    calls.made("check_subdomain", api.check_subdomain(id, id)).await;
    calls.made("list_shares", api.list_shares(Some(id), Some(true))).await;
    calls.made("get_share", api.get_share(id)).await;
    calls.made("revoke_share", api.revoke_share(id)).await;
    let some = || Some(id.to_owned());
    let all = AccessFilter {
        since: some(),
        until: some(),
        status: some(),
        method: some(),
        ip: some(),
        path: some(),
    };
    calls.made("list_accesses", api.list_accesses(id, &all, 7)).await;
    calls.made("list_accesses", api.list_accesses_until(id, |_| false)).await;
    calls.made("get_access_stats", api.get_access_stats(id, &all)).await;
    calls.made("get_share_info", api.get_share_info(id)).await;
    calls.made("share_environment", api.share_environment(&example(&d))).await;
    calls.made("list_environments", api.list_environments()).await;
    calls.made("get_environment", api.get_environment(id)).await;
    calls.made("revoke_environment", api.revoke_environment(id)).await;
    calls.made("join_environment", api.join_environment(id, &example::<env::Joiner>(&d))).await;
    calls.made("list_pending_joiners", api.list_pending_joiners(id)).await;
    calls.made("approve_joiner", api.approve_joiner(id, &example(&d))).await;
    calls.made("deny_joiner", api.deny_joiner(id, &example(&d))).await;
    calls.made("list_teammates", api.list_teammates()).await;

    let source = include_str!("../calls.rs").lines();
    let mut written: BTreeSet<&str> =
        source.filter_map(|line| line.trim().strip_prefix("pub async fn ")?.split('(').next()).collect();
    // The same operation, as far as it is news.
    assert!(written.remove("list_accesses_until"));
    assert_eq!(calls.made, written, "each call is made here");
}

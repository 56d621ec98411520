//! The table of URLs → OpenAPI 3.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use domain::workspace::Scope;
use schemas::problem::Problem;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::{Access, Answer, Operation};
use crate::api::url::Described;

/// What stands before everything else on the page.
const INTRODUCTION: &str = include_str!("introduction.md");

/// The groups, in the order of the page.
const GROUPS: &[(&str, &str)] = &[
    ("Agents", "Running `connect`s: register, look, delete."),
    ("Agent commands", "What agents are told to do: restart, stop, expose, reach, status."),
    ("Agent messages", "What agents of one workspace tell each other."),
    ("Services", "The same things as tunnels, registered by name; diagnostics."),
    ("Tunnels", "Named `host:port`s that agents expose, and connecting to them."),
    ("Shares", "Public, restricted, expiring links, and who used them."),
    ("Environment shares", "A snapshot of routes, handed to a teammate by a code."),
    ("Audit", "Who did what, and when: facts by what they concern, newest first."),
    ("Events", "What was recorded, in the order of the log: pages, files, a stream."),
    ("Webhooks", "Events by signed POST, and what became of each."),
    ("Authentication", "API keys, and who one is."),
    ("Device login", "A machine without a key shows a code, and somebody with a key lets it in."),
    ("Documentation", "This description, for programs and people."),
    ("Health", "For orchestrators, dashboards and Prometheus; without credentials."),
];

/// The document, made once.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = serde_json::to_string_pretty(&document(&crate::api::table()))
            .expect("the document has string keys only");
        text.push('\n');
        text
    });
    &TEXT
}

/// Describes these routes.
pub fn document(table: &[Described]) -> Value {
    let mut paths = BTreeMap::<&str, Map<String, Value>>::new();
    let mut schemas = BTreeMap::new();
    let mut problem = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut problem);
    for (name, schema) in problem {
        schemas.insert(name, serde_json::to_value(schema).expect("a schema has string keys only"));
    }
    for route in table {
        let described = operation(&route.operation);
        paths.entry(route.path).or_default().insert(route.method.to_ascii_lowercase(), described);
        schemas.extend(route.operation.schemas.clone());
    }
    let used: BTreeSet<_> = table.iter().map(|route| route.operation.group).collect();
    let groups = GROUPS.iter().filter(|(name, _)| used.contains(name));
    let tags: Vec<Value> =
        groups.map(|(name, words)| json!({ "name": name, "description": words })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Private Connect Control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        // The hub that the page came from, wherever it is.
        "servers": [{ "url": "/", "description": "This hub" }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": headers(),
            "parameters": parameters(),
            "securitySchemes": {
                "apiKey": { "type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key, `pc_…`." },
                "bearer": { "type": "http", "scheme": "bearer", "description": "An API key, or an agent's own token." },
            },
        },
    })
}

fn operation(operation: &Operation) -> Value {
    let mut described = json!({
        "tags": [operation.group],
        "operationId": operation.id,
        "summary": operation.summary,
        "description": words(operation),
        "security": security(operation.access),
        "responses": responses(operation),
    });
    let parameters: Vec<Value> = parameters_of(operation);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(takes) = &operation.takes {
        described["requestBody"] = json!({
            "required": !takes.optional,
            "content": { takes.media_type: { "schema": takes.schema, "example": takes.example } },
        });
    }
    described
}

fn words(operation: &Operation) -> String {
    let who = match operation.access {
        Access::Unlimited => "Without credentials and without limit.".to_owned(),
        Access::Public => "Without credentials; limited per address.".to_owned(),
        Access::Known => "Any valid credentials.".to_owned(),
        Access::InBody => "The credentials stand in the body; wrong ones are limited per address.".to_owned(),
        Access::ReadOrAgent => {
            "Needs a key with the scope `read`, or with the scope `agent` for agents that were registered with it, or the \
             agent's own token."
                .to_owned()
        }
        Access::Scope(Scope::Agent) => "Needs the agent's own token, or a key: with the scope `agent` for agents that were registered with it, \
             with `write` for all."
            .to_owned(),
        Access::Scope(scope) => format!("Needs the scope `{}`.", scope.name()),
        Access::KeyOnly(scope) => {
            format!("Needs a key with the scope `{}`; an agent's own token is not enough.", scope.name())
        }
    };
    [operation.words, &who].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
}

fn security(access: Access) -> Value {
    let scopes: Vec<&str> = access.scope().iter().map(|scope| scope.name()).collect();
    if access == Access::ReadOrAgent {
        return json!([{ "apiKey": ["read"] }, { "bearer": ["read"] }, { "apiKey": ["agent"] }, { "bearer": ["agent"] }]);
    }
    if access.is_guarded() { json!([{ "apiKey": scopes }, { "bearer": scopes }]) } else { json!([]) }
}

fn parameters_of(operation: &Operation) -> Vec<Value> {
    let path = operation.path.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "path",
            "required": true,
            "description": parameter.place.words(),
            "schema": parameter.place.schema(),
            "example": parameter.place.example(),
        })
    });
    let query = operation.query.iter().map(|parameter| {
        let mut described = json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.words,
            "schema": parameter.schema,
        });
        if parameter.required {
            described["required"] = true.into();
        }
        described
    });
    let headers = operation.headers.iter();
    let headers = headers.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    path.chain(query).chain(headers).collect()
}

/// Headers that a request may carry.
fn parameters() -> Value {
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Makes the request repeatable: the same key with the same request gives the first one's ids and secrets, also after a crash.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$" },
        },
        "IfMatch": {
            "name": "If-Match",
            "in": "header",
            "description": "Go on only if the thing is still at this `ETag`.",
            "schema": { "type": "string", "pattern": "^(\\*|(W/)?\"[!#-+\\--~]*\"(, ?(W/)?\"[!#-+\\--~]*\")*)$" },
        },
        "LastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The `id` of the last event that was seen: the stream goes on behind it, whatever `fromPosition` says.",
            "schema": { "type": "string", "pattern": "^([0-9]{1,18}(-[0-9]{1,18})?)?$" },
        },
        "PConnectPosition": {
            "name": "PConnect-Position",
            "in": "header",
            "description": "From the answer to a write: the list waits, at most a second, until it shows that write. What the same key wrote is waited for without it.",
            "schema": { "type": "string" },
        },
    })
}

/// Headers that an answer carries.
fn headers() -> Value {
    let text = |words: &str| json!({ "description": words, "schema": { "type": "string" } });
    let number = |words: &str| json!({ "description": words, "schema": { "type": "integer", "minimum": 0 } });
    json!({
        "ETag": { "required": true, "description": "The thing's revision, for `If-Match`.", "schema": { "type": "string", "pattern": "^\"[0-9]+\"$" } },
        "Link": text("The next page, as `rel=\"next\"`; absent on the last one."),
        "PConnect-Position": text("Where the write went: lists that are sent it wait for it. Absent where nothing had to be written."),
        "Retry-After": { "required": true, "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 1 } },
        "WWW-Authenticate": { "required": true, "description": "How to send credentials.", "schema": { "type": "string" } },
        "X-Request-Id": { "required": true, "description": "The request's id, as in the hub's telemetry.", "schema": { "$ref": "#/components/schemas/RequestId" } },
        "X-RateLimit-Limit": number("Requests per minute; absent where the operator switched the limit off."),
        "X-RateLimit-Remaining": number("What is left of them."),
        "X-RateLimit-Reset": number("Seconds until some come back."),
        "RateLimit": text("The same as the IETF draft has it."),
        "RateLimit-Policy": text("The same as the IETF draft has it."),
    })
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for answer in &operation.answers {
        let described = success(operation, answer);
        match responses.get_mut(&answer.status.to_string()) {
            // The same in another media type.
            Some(known) => {
                known["content"][answer.media_type] = described["content"][answer.media_type].clone();
            }
            None => {
                responses.insert(answer.status.to_string(), described);
            }
        }
    }
    for (status, codes) in &operation.refusals {
        let refusal = refusal(operation, *status, codes);
        match responses.get_mut(&status.to_string()) {
            None => {
                responses.insert(status.to_string(), refusal);
            }
            // A status that has a body of its own (health) is described by it.
            Some(own) if own["content"].get(super::JSON).is_some() => {}
            // A page, or a problem: whatever went wrong before the page was asked.
            Some(own) => {
                let words =
                    [&own["description"], &refusal["description"]].map(|it| it.as_str().unwrap_or_default());
                own["description"] = words.join(" ").into();
                for media_type in [super::JSON, "application/problem+json"] {
                    own["content"][media_type] = refusal["content"][media_type].clone();
                }
            }
        }
    }
    responses.into()
}

fn success(operation: &Operation, answer: &Answer) -> Value {
    let headers = common_headers(operation).chain(answer.headers.iter().copied());
    let mut response = json!({ "description": answer.words, "headers": header_references(headers) });
    if let Some(schema) = &answer.schema {
        response["content"] = json!({ answer.media_type: { "schema": schema } });
    }
    response
}

fn refusal(operation: &Operation, status: u16, codes: &BTreeSet<&'static str>) -> Value {
    let own = match status {
        401 => Some("WWW-Authenticate"),
        429 => Some("Retry-After"),
        _ => None,
    };
    let codes: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let schema = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
    json!({
        "description": codes.join(", "),
        "headers": header_references(common_headers(operation).chain(own)),
        "content": { "application/json": schema, "application/problem+json": schema },
    })
}

fn common_headers(operation: &Operation) -> impl Iterator<Item = &'static str> {
    let limits =
        ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy"];
    let is_limited = operation.access != Access::Unlimited;
    ["X-Request-Id"].into_iter().chain(limits.into_iter().filter(move |_| is_limited))
}

fn header_references(names: impl Iterator<Item = &'static str>) -> Value {
    let references =
        names.map(|name| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })));
    Value::Object(references.collect())
}

#[cfg(test)]
mod tests;

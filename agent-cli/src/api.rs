//! The hub's REST API as typed calls: timeouts, one retry, paging, and errors in people's words.
//!
//! Invariants: the key goes to the hub's own URL only (no redirects are followed, page links give their query and
//! nothing else); no answer is held that is longer than [`ANSWER_BYTES_MAX`]; a POST carries an idempotency key, so
//! that its retry does nothing twice.

use std::{future::Future, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{
    Method, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, LINK, USER_AGENT},
};
use rustls::ClientConfig;
use schemas::{problem::Problem, rest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{failure::Failure, settings::Secret};

mod problems;

/// The longest answer that is read, in bytes: a page of 1,000 entries is far below.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Pages that one list may have; ends a hub that never stops.
pub const PAGES_MAX: usize = 1_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one hub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    hub: Url,
    key: Option<Secret>,
    believing: ClientConfig,
}

/// Why a call gave no answer that can be used.
#[derive(Debug)]
pub enum ApiError {
    /// No connection, or it broke, or took too long.
    Unreachable { hub: String, error: reqwest::Error },
    /// The hub refused, and said why.
    Refused(Box<Problem>),
    /// Whatever answered is no Private Connect hub.
    Strange { hub: String, status: StatusCode, why: String },
    /// No key is known.
    NoKey,
}

impl ApiError {
    /// The hub's code for the refusal.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            Self::Unreachable { .. } | Self::Strange { .. } | Self::NoKey => None,
        }
    }
    /// The status of the refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status_code),
            Self::Unreachable { .. } | Self::Strange { .. } | Self::NoKey => None,
        }
    }
}

/// One page of a list, and the query of the next.
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Vec<(&'a str, String)>,
    raw_query: Option<String>,
    body: Option<Value>,
    /// Where a later process must be able to repeat it; else one of its own.
    idempotency_key: Option<String>,
    with_key: bool,
    timeout: Duration,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a [&'a str]) -> Self {
        Self {
            method,
            path,
            query: Vec::new(),
            raw_query: None,
            body: None,
            idempotency_key: None,
            with_key: true,
            timeout: ANSWER_TIMEOUT,
        }
    }
    fn get(path: &'a [&'a str]) -> Self {
        Self::new(Method::GET, path)
    }
    fn post(path: &'a [&'a str], body: &impl Serialize) -> Self {
        let body = serde_json::to_value(body).expect("request bodies have string keys only");
        Self { body: Some(body), ..Self::new(Method::POST, path) }
    }
    fn limit(mut self, limit: u16) -> Self {
        self.query.push(("limit", limit.to_string()));
        self
    }
}

impl Api {
    /// A client for a hub, with or without a key; `believing` says whom the hub must be vouched for by.
    ///
    /// # Errors
    /// The system has no resources for a client.
    pub fn new(hub: Url, key: Option<Secret>, believing: ClientConfig) -> Result<Self, Failure> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // The agent session uses no proxy either: both work or neither.
            .no_proxy()
            .tls_backend_preconfigured(believing.clone())
            .build()
            .map_err(|error| Failure::new("client", "no HTTP client can be made").because(&error))?;
        Ok(Self { client, hub, key, believing })
    }
    /// The same client with another key.
    #[must_use]
    pub fn with_key(&self, key: Secret) -> Self {
        Self { key: Some(key), ..self.clone() }
    }
    /// Whom connections to the hub believe.
    pub fn believing(&self) -> &ClientConfig {
        &self.believing
    }
    /// The hub's URL, with its path.
    pub fn hub(&self) -> &Url {
        &self.hub
    }
    /// Whether a key is known.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    // Calls ------------------------------------------------------------------------------------------------------

    /// `GET /health`, which needs no key. A degraded hub answers too.
    pub async fn health(&self) -> Result<rest::Health, ApiError> {
        let call = Call { with_key: false, ..Call::get(&["health"]) };
        let (status, _, bytes) = self.exchange(&call).await?;
        if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE {
            return self.decode(status, &bytes);
        }
        Err(self.refusal(status, &bytes))
    }
    /// Whose key this is.
    pub async fn whoami(&self) -> Result<rest::WhoAmI, ApiError> {
        self.one(Call::get(&["v1", "whoami"])).await
    }
    /// Makes or refreshes an agent's identity.
    pub async fn register_agent(
        &self,
        body: &rest::RegisterAgent,
    ) -> Result<rest::AgentCredentials, ApiError> {
        self.one(Call::post(&["v1", "agents", "register"], body)).await
    }
    /// Exchanges an agent's token, which is the credential.
    pub async fn rotate_token(
        &self,
        body: &rest::RotateToken,
        idempotency_key: &str,
    ) -> Result<rest::AgentCredentials, ApiError> {
        let path = ["v1", "agents", "rotate-token"];
        let idempotency_key = Some(idempotency_key.to_owned());
        self.one(Call { with_key: false, idempotency_key, ..Call::post(&path, body) }).await
    }
    /// Begins a login of a machine without a key.
    pub async fn device_code(&self, body: &rest::StartDeviceLogin) -> Result<rest::DeviceCode, ApiError> {
        self.one(Call { with_key: false, ..Call::post(&["v1", "device", "code"], body) }).await
    }
    /// Asks for the key of such a login.
    pub async fn device_token(&self, device_code: &str) -> Result<rest::DeviceToken, ApiError> {
        let query = vec![("device_code", device_code.to_owned())];
        self.one(Call { with_key: false, query, ..Call::get(&["v1", "device", "token"]) }).await
    }
    pub async fn agent(&self, id: &str) -> Result<rest::Agent, ApiError> {
        self.one(Call::get(&["v1", "agents", id])).await
    }
    /// Exposes a target: makes the service of that name or updates it.
    pub async fn register_service(&self, body: &rest::RegisterService) -> Result<rest::Tunnel, ApiError> {
        self.one(Call::post(&["v1", "services", "register"], body)).await
    }
    /// All services of the workspace.
    pub async fn services(&self) -> Result<Vec<rest::Tunnel>, ApiError> {
        self.all(&["v1", "services"], "services").await
    }
    pub async fn service(&self, id: &str) -> Result<rest::Tunnel, ApiError> {
        self.one(Call::get(&["v1", "services", id])).await
    }
    /// Has the exposing agent look at its target now.
    pub async fn check_service(&self, id: &str, timeout: Duration) -> Result<rest::Diagnostics, ApiError> {
        let path = ["v1", "services", id, "check"];
        self.one(Call { timeout, ..Call::post(&path, &serde_json::json!({})) }).await
    }
    pub async fn create_share(
        &self,
        service: &str,
        body: &rest::CreateShare,
    ) -> Result<rest::ShareCreated, ApiError> {
        let answer: rest::ServiceShareCreated =
            self.one(Call::post(&["v1", "services", service, "shares"], body)).await?;
        Ok(answer.share)
    }
    /// All links of the workspace.
    pub async fn shares(&self) -> Result<Vec<rest::Share>, ApiError> {
        self.all(&["v1", "shares"], "shares").await
    }
    pub async fn share(&self, id: &str) -> Result<rest::Share, ApiError> {
        self.one(Call::get(&["v1", "shares", id])).await
    }
    pub async fn revoke_share(&self, id: &str) -> Result<rest::Success, ApiError> {
        self.one(Call::new(Method::DELETE, &["v1", "shares", id])).await
    }
    /// The latest accesses to a link, newest first, at most `limit` (1 to 1,000).
    pub async fn accesses(&self, share: &str, limit: u16) -> Result<Vec<rest::AccessEntry>, ApiError> {
        let path = ["v1", "shares", share, "logs"];
        let page: Page<rest::AccessEntry> = self.page(Call::get(&path).limit(limit), "logs").await?;
        Ok(page.items)
    }
    /// The accesses to a link that are newer than one that was seen, newest first. `is_seen` ends the walk back; a
    /// link that is busier than the walk is fast ends it at [`PAGES_MAX`].
    pub async fn accesses_until(
        &self,
        share: &str,
        is_seen: impl Fn(&rest::AccessEntry) -> bool,
    ) -> Result<Vec<rest::AccessEntry>, ApiError> {
        let path = ["v1", "shares", share, "logs"];
        let mut new = Vec::new();
        let mut raw_query = Some("limit=100".to_owned());
        for _ in 0..PAGES_MAX {
            let page: Page<rest::AccessEntry> =
                self.page(Call { raw_query: raw_query.take(), ..Call::get(&path) }, "logs").await?;
            for entry in page.items {
                if is_seen(&entry) {
                    return Ok(new);
                }
                new.push(entry);
            }
            match page.next {
                Some(next) => raw_query = Some(next),
                None => break,
            }
        }
        Ok(new)
    }

    // How a call is made -----------------------------------------------------------------------------------------

    async fn one<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        let (status, _, bytes) = self.exchange(&call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        self.decode(status, &bytes)
    }

    // A list is a bare array, or the named member where the seeds show one.
    async fn page<T: DeserializeOwned>(&self, call: Call<'_>, member: &str) -> Result<Page<T>, ApiError> {
        let (status, headers, bytes) = self.exchange(&call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        let mut value: Value = self.decode(status, &bytes)?;
        if let Some(inner) = value.get_mut(member) {
            value = inner.take();
        }
        let items =
            serde_json::from_value(value).map_err(|error| self.strange(status, &error.to_string()))?;
        Ok(Page { items, next: next_query(&headers, &self.hub) })
    }

    async fn all<T: DeserializeOwned>(&self, path: &[&str], member: &str) -> Result<Vec<T>, ApiError> {
        let mut all = Vec::new();
        let mut raw_query = None;
        for _ in 0..PAGES_MAX {
            let call = Call { raw_query: raw_query.clone(), ..Call::get(path) };
            let page: Page<T> = self.page(call, member).await?;
            all.extend(page.items);
            // The same cursor twice would go on for ever.
            if page.next.is_none() || page.next == raw_query {
                break;
            }
            raw_query = page.next;
        }
        Ok(all)
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<(StatusCode, HeaderMap, Vec<u8>), ApiError> {
        let idempotency_key = call.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let attempt = || self.attempt(call, &idempotency_key);
        retried_once(attempt).await
    }

    async fn attempt(
        &self,
        call: &Call<'_>,
        idempotency_key: &str,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), ApiError> {
        let mut request = self
            .client
            .request(call.method.clone(), self.url(call))
            .timeout(call.timeout)
            .header(USER_AGENT, concat!("connect/", env!("CARGO_PKG_VERSION")));
        if call.with_key {
            let key = self.key.as_ref().ok_or(ApiError::NoKey)?;
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", key.reveal())).map_err(|_| ApiError::NoKey)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if call.method == Method::POST {
            request = request.header("idempotency-key", idempotency_key);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let unreachable = |error| ApiError::Unreachable { hub: self.hub.to_string(), error };
        let answer = request.send().await.map_err(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut bytes = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            bytes.extend_from_slice(&chunk.map_err(unreachable)?);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(self.strange(status, "its answer has no end"));
            }
        }
        Ok((status, headers, bytes))
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.hub.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(call.path);
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        if let Some(query) = &call.raw_query {
            url.set_query(Some(query));
        }
        url
    }

    fn decode<T: DeserializeOwned>(&self, status: StatusCode, bytes: &[u8]) -> Result<T, ApiError> {
        // The reason names line, column and field: nothing of the answer, which may hold a token.
        serde_json::from_slice(bytes).map_err(|error| self.strange(status, &json_reason(&error)))
    }
    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> ApiError {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) => ApiError::Refused(Box::new(problem)),
            Err(_) => self.strange(status, "its error is none of Private Connect's"),
        }
    }
    fn strange(&self, status: StatusCode, why: &str) -> ApiError {
        ApiError::Strange { hub: self.hub.to_string(), status, why: why.to_owned() }
    }
}

fn json_reason(error: &serde_json::Error) -> String {
    match error.classify() {
        // Other data errors quote the value that was found.
        serde_json::error::Category::Data if error.to_string().starts_with("missing field") => {
            format!("its answer has a {error}")
        }
        serde_json::error::Category::Data => {
            format!("its answer has another form at line {} column {}", error.line(), error.column())
        }
        serde_json::error::Category::Io
        | serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof => "its answer is no JSON".to_owned(),
    }
}

// A connection that the hub closed while idle, or a restart: the second attempt goes over a fresh one. A timeout is
// not repeated: people have waited long enough.
async fn retried_once<T, F>(attempt: impl Fn() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    match attempt().await {
        Err(ApiError::Unreachable { error, .. }) if !error.is_timeout() => attempt().await,
        done => done,
    }
}

// Of the link only the query is used: a proxy in front may know the hub by another path, and the key must not leave.
fn next_query(headers: &HeaderMap, hub: &Url) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    for link in links.flat_map(|value| value.split(',')) {
        let Some((target, parameters)) = link.trim().strip_prefix('<').and_then(|link| link.split_once('>'))
        else {
            continue;
        };
        let is_next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim();
            parameter.eq_ignore_ascii_case("rel=next") || parameter.eq_ignore_ascii_case("rel=\"next\"")
        });
        if is_next {
            return hub.join(target).ok()?.query().map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests;

//! The hub's REST API for `connect`: the typed calls of `calls.rs` over the operations of `operations.rs`, and here how a
//! call is made: timeouts, one retry, paging, and errors in people's words.
//!
//! Invariants: the key goes to the hub's own URL only (no redirects are followed, page links give their query and
//! nothing else); no answer is held that is longer than [`ANSWER_BYTES_MAX`]; a POST carries an idempotency key, so
//! that its retry does nothing twice, and one that the hub cannot repeat is not tried again.

use std::{future::Future, marker::PhantomData, time::Duration};

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

use self::operations::Operation;
use crate::{failure::Failure, settings::Secret};

mod calls;
mod operations;
mod problems;

pub use calls::AccessFilter;

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

/// A list's answer: a bare array, or the named member where the seeds show one.
trait PageOf: DeserializeOwned {
    type Item;
    fn items(self) -> Vec<Self::Item>;
}

impl<T: DeserializeOwned> PageOf for Vec<T> {
    type Item = T;
    fn items(self) -> Vec<T> {
        self
    }
}
impl PageOf for rest::Shares {
    type Item = rest::Share;
    fn items(self) -> Vec<rest::Share> {
        self.shares
    }
}
impl PageOf for rest::AccessLog {
    type Item = rest::AccessEntry;
    fn items(self) -> Vec<rest::AccessEntry> {
        self.logs
    }
}
impl PageOf for rest::AuditLogs {
    type Item = rest::AuditEntry;
    fn items(self) -> Vec<rest::AuditEntry> {
        self.logs
    }
}
impl PageOf for rest::AgentCommands {
    type Item = rest::AgentCommand;
    fn items(self) -> Vec<rest::AgentCommand> {
        self.commands
    }
}
impl PageOf for rest::Messages {
    type Item = rest::ReceivedMessage;
    fn items(self) -> Vec<rest::ReceivedMessage> {
        self.messages
    }
}

/// An operation with what is sent, on its way to an answer of the type `Got`.
struct Call<Got> {
    id: &'static str,
    method: Method,
    segments: Vec<String>,
    /// What it may ask.
    known: &'static [&'static str],
    query: Vec<(&'static str, String)>,
    /// Instead of `query`, for the next page.
    raw_query: Option<String>,
    body: Option<Value>,
    /// Where a later process must be able to repeat it; else one of its own.
    idempotency_key: Option<String>,
    with_key: bool,
    may_repeat: bool,
    timeout: Duration,
    got: PhantomData<fn() -> Got>,
}

impl<Got> Operation<(), Got> {
    /// A call without a body; `places` stand in for the braces of the path, in their order.
    fn at(&self, places: &[&str]) -> Call<Got> {
        let mut places = places.iter();
        let segment = |part: &str| match part.starts_with('{') {
            true => (*places.next().expect("as many places as braces")).to_owned(),
            false => part.to_owned(),
        };
        let segments = self.path.split('/').skip(1).map(segment).collect();
        debug_assert!(places.next().is_none(), "{}: as many places as braces", self.id);
        Call {
            id: self.id,
            method: self.verb.method(),
            segments,
            known: self.query,
            query: Vec::new(),
            raw_query: None,
            body: None,
            idempotency_key: None,
            with_key: self.with_key,
            may_repeat: self.may_repeat,
            timeout: ANSWER_TIMEOUT,
            got: PhantomData,
        }
    }
}

impl<Sent: Serialize, Got> Operation<Sent, Got> {
    /// A call with its body.
    fn with(&self, places: &[&str], body: &Sent) -> Call<Got> {
        let body = serde_json::to_value(body).expect("request bodies have string keys only");
        Call { body: Some(body), ..self.bare().at(places) }
    }
}

impl<Got> Call<Got> {
    /// With the query parameters that have a value.
    fn asking(mut self, query: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Self {
        let given = query.into_iter().filter_map(|(name, value)| Some((name, value?)));
        self.query.extend(given);
        debug_assert!(self.query.iter().all(|(name, _)| self.known.contains(name)), "{}", self.id);
        self
    }
    fn under(self, idempotency_key: &str) -> Self {
        Self { idempotency_key: Some(idempotency_key.to_owned()), ..self }
    }
    fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
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

    // How a call is made -----------------------------------------------------------------------------------------

    async fn one<Got: DeserializeOwned>(&self, call: Call<Got>) -> Result<Got, ApiError> {
        let (status, _, bytes) = self.exchange(&call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        self.decode(status, &bytes)
    }

    /// The same where 503 is an answer of the same type.
    async fn one_even_if_unavailable<Got: DeserializeOwned>(&self, call: Call<Got>) -> Result<Got, ApiError> {
        let (status, _, bytes) = self.exchange(&call).await?;
        if status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE {
            return self.decode(status, &bytes);
        }
        Err(self.refusal(status, &bytes))
    }

    async fn page<Got: PageOf>(&self, call: Call<Got>) -> Result<Page<Got::Item>, ApiError> {
        self.page_of(&call).await
    }

    async fn page_of<Got: PageOf>(&self, call: &Call<Got>) -> Result<Page<Got::Item>, ApiError> {
        let (status, headers, bytes) = self.exchange(call).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        let page: Got = self.decode(status, &bytes)?;
        Ok(Page { items: page.items(), next: next_query(&headers, &self.hub) })
    }

    async fn all<Got: PageOf>(&self, call: Call<Got>) -> Result<Vec<Got::Item>, ApiError> {
        self.all_until(call, |_| false).await
    }

    /// The items before the first that is an end.
    async fn all_until<Got: PageOf>(
        &self,
        mut call: Call<Got>,
        is_end: impl Fn(&Got::Item) -> bool,
    ) -> Result<Vec<Got::Item>, ApiError> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.page_of(&call).await?;
            for item in page.items {
                if is_end(&item) {
                    return Ok(all);
                }
                all.push(item);
            }
            // The same cursor twice would go on for ever.
            if page.next.is_none() || page.next == call.raw_query {
                break;
            }
            call.raw_query = page.next;
        }
        Ok(all)
    }

    async fn exchange<Got>(&self, call: &Call<Got>) -> Result<(StatusCode, HeaderMap, Vec<u8>), ApiError> {
        let idempotency_key = call.idempotency_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        tracing::trace!(operation = call.id, "asks the hub");
        let attempt = || self.attempt(call, &idempotency_key);
        if call.may_repeat { retried_once(attempt).await } else { attempt().await }
    }

    async fn attempt<Got>(
        &self,
        call: &Call<Got>,
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

    fn url<Got>(&self, call: &Call<Got>) -> Url {
        let mut url = self.hub.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(&call.segments);
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

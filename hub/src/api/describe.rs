//! How a route says what it takes, what it answers and who may ask: an [`Operation`] beside each handler in the table of
//! URLs. The OpenAPI document, the query parameters that a URL knows, and the tests that walk over all routes come from
//! it; what all routes have in common (401 without credentials, 415 for another media type…) is said here once.

use std::collections::{BTreeMap, BTreeSet};

use domain::workspace::Scope;
use serde_json::{Value, json};
use utoipa::ToSchema;

pub mod document;
pub mod places;

/// What bodies are.
pub const JSON: &str = "application/json";
/// What a page's form sends.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, as often as they like.
    Unlimited,
    /// Anybody; counted by address.
    Public,
    /// Whoever has valid credentials.
    Known,
    /// A key with this scope; for [`Scope::Agent`] an agent's own token as well.
    Scope(Scope),
    /// A key with this scope, and no agent's own token.
    KeyOnly(Scope),
    /// A key that reads; or who runs agents, for its own.
    ReadOrAgent,
    /// Whoever has the credentials that stand in the body; who has not is counted by address.
    InBody,
}

impl Access {
    /// Whether it needs credentials.
    pub const fn is_guarded(self) -> bool {
        self.scope().is_some() || matches!(self, Self::Known)
    }
    /// The scope that a key needs.
    pub const fn scope(self) -> Option<Scope> {
        match self {
            Self::Scope(scope) | Self::KeyOnly(scope) => Some(scope),
            Self::ReadOrAgent => Some(Scope::Read),
            Self::Unlimited | Self::Public | Self::Known | Self::InBody => None,
        }
    }
    /// Whether a key with this scope may ask.
    pub fn lets_key(self, scope: Scope) -> bool {
        self.scope().is_none_or(|needed| scope.grants(needed))
            || (self == Self::ReadOrAgent && scope.grants(Scope::Agent))
    }
    /// Whether an agent's own token is enough.
    pub fn lets_agent(self) -> bool {
        self.scope().is_none() || matches!(self, Self::Scope(Scope::Agent) | Self::ReadOrAgent)
    }
}

/// What stands between braces in a path.
#[derive(Debug, Clone)]
pub struct PathParameter {
    pub name: &'static str,
    pub place: places::Place,
}

/// A query parameter.
#[derive(Debug, Clone)]
pub struct QueryParameter {
    pub name: &'static str,
    pub schema: Value,
    pub words: &'static str,
    pub required: bool,
}

/// The request's body.
#[derive(Debug, Clone)]
pub struct Takes {
    pub media_type: &'static str,
    pub schema: Value,
    pub example: Value,
    /// An absent body is one with nothing in it.
    pub optional: bool,
}

/// One way to succeed (or, for health, to answer at all).
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub words: &'static str,
    pub media_type: &'static str,
    pub schema: Option<Value>,
    pub headers: BTreeSet<&'static str>,
}

/// A route as it describes itself.
#[derive(Debug, Clone)]
pub struct Operation {
    pub group: &'static str,
    pub id: &'static str,
    pub summary: &'static str,
    pub words: &'static str,
    pub access: Access,
    pub path: Vec<PathParameter>,
    pub query: Vec<QueryParameter>,
    /// Names of the header parameters of [`document`].
    pub headers: BTreeSet<&'static str>,
    pub takes: Option<Takes>,
    pub answers: Vec<Answer>,
    /// The problem codes of each status.
    pub refusals: BTreeMap<u16, BTreeSet<&'static str>>,
    /// Schemas that it mentions, by name.
    pub schemas: BTreeMap<String, Value>,
}

impl Operation {
    /// `id` is the name of the call in generated clients: verb and thing.
    pub fn new(group: &'static str, id: &'static str, summary: &'static str, access: Access) -> Self {
        let operation = Self {
            group,
            id,
            summary,
            words: "",
            access,
            path: Vec::new(),
            query: Vec::new(),
            headers: BTreeSet::new(),
            takes: None,
            answers: Vec::new(),
            refusals: BTreeMap::new(),
            schemas: BTreeMap::new(),
        };
        let operation = match access {
            Access::Unlimited => operation,
            Access::Public => operation.refuses(429, &["rate_limited"]),
            Access::Known => operation.guarded(&["ip_not_allowed"]),
            Access::InBody => operation.refuses(429, &["rate_limited"]).refuses(400, &["validation_failed"]),
            Access::Scope(_) | Access::KeyOnly(_) | Access::ReadOrAgent => {
                operation.guarded(&["ip_not_allowed", "scope_missing"])
            }
        };
        operation.refuses(500, &["internal_error"])
    }

    fn guarded(self, forbidden: &[&'static str]) -> Self {
        self.refuses(401, &["credentials_missing", "credentials_invalid"])
            .refuses(403, forbidden)
            .refuses(429, &["rate_limited"])
            // An unknown query parameter.
            .refuses(400, &["validation_failed"])
    }

    /// What there is to know beyond the summary.
    #[must_use]
    pub fn says(self, words: &'static str) -> Self {
        Self { words, ..self }
    }

    /// A part of the path; what names nothing there is a 404 with the place's code.
    #[must_use]
    pub fn at(mut self, name: &'static str, place: places::Place) -> Self {
        self.path.push(PathParameter { name, place });
        if place.is_looked_up() { self.refuses(404, &[place.code()]) } else { self }
    }

    /// A query parameter that may be left out.
    #[must_use]
    pub fn asks(mut self, name: &'static str, schema: Value, words: &'static str) -> Self {
        self.query.push(QueryParameter { name, schema, words, required: false });
        self.refuses(400, &["validation_failed"])
    }

    /// A query parameter that must be there.
    #[must_use]
    pub fn needs(mut self, name: &'static str, schema: Value, words: &'static str) -> Self {
        self.query.push(QueryParameter { name, schema, words, required: true });
        self.refuses(400, &["validation_failed"])
    }

    /// `limit` and `cursor`; `cursor` is the form of the cursors that the list gives.
    #[must_use]
    pub fn paged(mut self, cursor: &'static str) -> Self {
        self.headers.insert("PConnectPosition");
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": super::lists::LIMIT_MAX, "default": super::lists::LIMIT_DEFAULT });
        self.asks("limit", limit, "The most items of one page.").asks(
            "cursor",
            json!({ "type": "string", "pattern": cursor }),
            "Where to go on: from the `Link` of an earlier page, not made by hand.",
        )
    }

    /// A body, and one that works.
    #[must_use]
    pub fn takes<T: ToSchema>(mut self, example: Value) -> Self {
        let schema = self.mention::<T>();
        self.takes = Some(Takes { media_type: JSON, schema, example, optional: false });
        self.with_body()
    }

    /// A page's form, field by field, and one that works.
    #[must_use]
    pub fn takes_form(mut self, schema: Value, example: Value) -> Self {
        self.takes = Some(Takes { media_type: FORM, schema, example, optional: false });
        self.refuses(415, &["unsupported_media_type"])
    }

    /// No body, or an empty object.
    #[must_use]
    pub fn takes_nothing(mut self) -> Self {
        let schema = json!({ "type": "object", "additionalProperties": false });
        self.takes = Some(Takes { media_type: JSON, schema, example: json!({}), optional: true });
        self.with_body()
    }

    fn with_body(self) -> Self {
        self.refuses(400, &["validation_failed", "invalid_json", "body_unreadable"])
            .refuses(413, &["body_too_large"])
            .refuses(415, &["unsupported_media_type"])
    }

    /// It may carry an `Idempotency-Key`.
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.headers.insert("IdempotencyKey");
        self.refuses(400, &["validation_failed"]).refuses(422, &["idempotency_key_reused"]).writes()
    }

    /// It may carry `Last-Event-ID`.
    #[must_use]
    pub fn resumable(mut self) -> Self {
        self.headers.insert("LastEventId");
        self.refuses(400, &["validation_failed"])
    }

    /// It may carry `If-Match`.
    #[must_use]
    pub fn conditional(mut self) -> Self {
        self.headers.insert("IfMatch");
        self.refuses(400, &["validation_failed"]).refuses(412, &["etag_mismatch"]).writes()
    }

    /// It appends to the log.
    #[must_use]
    pub fn writes(self) -> Self {
        self.refuses(503, &["busy", "in_doubt", "log_unavailable"])
    }

    /// Answers JSON of this type.
    #[must_use]
    pub fn answers<T: ToSchema>(mut self, status: u16, words: &'static str) -> Self {
        let schema = self.mention::<T>();
        self.answer(status, words, "application/json", Some(schema))
    }

    /// Answers a bare array of this type, by pages.
    #[must_use]
    pub fn lists<T: ToSchema>(mut self, words: &'static str) -> Self {
        let schema = json!({ "type": "array", "items": self.mention::<T>() });
        self.answer(200, words, "application/json", Some(schema)).shows("Link")
    }

    /// Answers a bare array of this type, all there are.
    #[must_use]
    pub fn lists_all<T: ToSchema>(mut self, words: &'static str) -> Self {
        let schema = json!({ "type": "array", "items": self.mention::<T>() });
        self.answer(200, words, "application/json", Some(schema))
    }

    /// Answers text of a media type.
    #[must_use]
    pub fn answers_text(self, words: &'static str, media_type: &'static str) -> Self {
        self.answer(200, words, media_type, Some(json!({ "type": "string" })))
    }

    /// Answers a page, also where something went wrong.
    #[must_use]
    pub fn answers_page(self, status: u16, words: &'static str) -> Self {
        self.answer(status, words, "text/html", Some(json!({ "type": "string" })))
    }

    fn answer(
        mut self,
        status: u16,
        words: &'static str,
        media_type: &'static str,
        schema: Option<Value>,
    ) -> Self {
        self.answers.push(Answer { status, words, media_type, schema, headers: BTreeSet::new() });
        self
    }

    /// The last answer carries this header of [`document`].
    #[must_use]
    pub fn shows(mut self, header: &'static str) -> Self {
        self.answers.last_mut().expect("an answer comes before its headers").headers.insert(header);
        self
    }

    /// The last answer is a write's: `ETag` and `PConnect-Position`.
    #[must_use]
    pub fn written(self) -> Self {
        self.shows("ETag").shows("PConnect-Position")
    }

    /// Refuses with these codes.
    #[must_use]
    pub fn refuses(mut self, status: u16, codes: &[&'static str]) -> Self {
        self.refusals.entry(status).or_default().extend(codes);
        self
    }

    /// A reference to a type, which is described once for the whole document.
    fn mention<T: ToSchema>(&mut self) -> Value {
        let mut found = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            let schema = serde_json::to_value(schema).expect("a schema has string keys only");
            self.schemas.insert(name, schema);
        }
        json!({ "$ref": format!("#/components/schemas/{}", T::name()) })
    }
}

//! Which HTTP methods a share lets through (product.md section 3).

use serde::{Deserialize, Serialize};

/// A method that a share's list can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Every method that a list can name, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The text names no method that a list can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one of GET, POST, PUT, PATCH, DELETE")]
pub struct InvalidMethod;

impl std::str::FromStr for Method {
    type Err = InvalidMethod;
    fn from_str(text: &str) -> Result<Self, InvalidMethod> {
        Self::ALL.into_iter().find(|method| method.name() == text).ok_or(InvalidMethod)
    }
}

/// What of a request's head the decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// As sent: methods are case-sensitive.
    pub method: &'a str,
    /// A WebSocket handshake that is no GET: the extended CONNECT of RFC 8441, `:protocol` being `websocket`. The
    /// handshake of HTTP/1.1 is a GET and needs nothing here.
    pub websocket_connect: bool,
    /// The value of `Access-Control-Request-Method` of a request that has an `Origin`, too.
    pub preflight_for: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// A request that is neither a preflight nor an extended CONNECT.
    pub const fn plain(method: &'a str) -> Self {
        Self { method, websocket_connect: false, preflight_for: None }
    }
}

/// What becomes of a request by its method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// To the target.
    Pass,
    /// Answered by the edge: 204 with this `Allow`.
    AnswerOptions { allow: String },
    /// 403 `method_not_allowed`.
    Refuse,
}

/// Judges a request's method by a share's list; without a list everything but CONNECT and TRACE passes.
pub fn decide(list: Option<&[Method]>, asked: &Asked<'_>) -> Decision {
    let method = if asked.websocket_connect && asked.method == "CONNECT" { "GET" } else { asked.method };
    let Some(list) = list else {
        // Also as `Trace`: some targets do not look at the case.
        let never = ["CONNECT", "TRACE"].iter().any(|name| method.eq_ignore_ascii_case(name));
        return if never { Decision::Refuse } else { Decision::Pass };
    };
    if allows(list, method) {
        return Decision::Pass;
    }
    if method != "OPTIONS" {
        return Decision::Refuse;
    }
    match asked.preflight_for {
        Some(wanted) if allows(list, wanted) => Decision::Pass,
        Some(_) | None => Decision::AnswerOptions { allow: allow(list) },
    }
}

fn allows(list: &[Method], method: &str) -> bool {
    let method = if method == "HEAD" { "GET" } else { method };
    list.iter().any(|allowed| allowed.name() == method)
}

/// The value of `Allow` for a share's list.
pub fn allow(list: &[Method]) -> String {
    let mut names = Vec::new();
    for method in Method::ALL.into_iter().filter(|method| list.contains(method)) {
        names.push(method.name());
        if method == Method::Get {
            names.push("HEAD");
        }
    }
    names.push("OPTIONS");
    names.join(", ")
}

#[cfg(test)]
mod tests;

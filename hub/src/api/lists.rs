//! What all lists and writes share: paging, `Link`, positions, ETags, reading one's own writes.

use std::{fmt::Display, str::FromStr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::header};
use projections::{catalog::PageRequest, view::ViewError};
use serde::Serialize;

use super::{Ports, caller::Caller, error::ApiError};
use crate::actors::Done;

/// How many items a list shows unless it is asked for fewer or more.
pub const LIMIT_DEFAULT: usize = 100;
/// The most items of one page.
pub const LIMIT_MAX: usize = 1_000;
/// How long a list waits for the views to show the caller's last write; then it answers with what they have.
pub const VIEWS_PATIENCE: Duration = Duration::from_secs(1);
/// Where a write went and what a reader wants to have seen.
pub const POSITION_HEADER: &str = "pconnect-position";

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: usize,
    pub cursor: Option<String>,
}

/// The query's parameters, refused when unknown or given twice: a misspelt filter must not answer with everything.
///
/// # Errors
/// 400 naming the parameter.
pub fn parameters(request: &HttpRequest, known: &[&str]) -> Result<Vec<(String, String)>, ApiError> {
    let pairs: Vec<(String, String)> = actix_web::web::Query::from_query(request.query_string())
        .map(actix_web::web::Query::into_inner)
        .map_err(|_| ApiError::field("query", "cannot be read"))?;
    for (index, (name, _)) in pairs.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            return Err(ApiError::field(name, "is no parameter of this URL"));
        }
        if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(ApiError::field(name, "is given twice"));
        }
    }
    Ok(pairs)
}

/// The value of a parameter.
pub fn parameter<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Which page is asked for.
///
/// # Errors
/// 400 for a limit out of range.
pub fn page(pairs: &[(String, String)]) -> Result<Page, ApiError> {
    let limit = match parameter(pairs, "limit") {
        None => LIMIT_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| ApiError::field("limit", "must be a number from 1 to 1000"))?,
    };
    Ok(Page { limit, cursor: parameter(pairs, "cursor").map(str::to_owned) })
}

impl Page {
    /// Cuts a page out of what is in memory, in the order of its ids; answers the cursor of the next one.
    ///
    /// # Errors
    /// 400 for a cursor that is no id.
    pub fn cut<I: Ord + Copy + FromStr + Display, T>(
        &self,
        items: impl Iterator<Item = (I, T)>,
    ) -> Result<(Vec<T>, Option<String>), ApiError> {
        let after = match &self.cursor {
            None => None,
            Some(text) => Some(
                text.parse::<I>()
                    .map_err(|_| ApiError::field("cursor", "must be one that an earlier page gave"))?,
            ),
        };
        let mut rest = items.filter(|(id, _)| after.is_none_or(|after| *id > after)).peekable();
        let (mut page, mut last) = (Vec::new(), None);
        while page.len() < self.limit
            && let Some((id, item)) = rest.next()
        {
            page.push(item);
            last = Some(id);
        }
        let next = last.filter(|_| rest.peek().is_some()).map(|id| id.to_string());
        Ok((page, next))
    }
    /// The same for the views.
    pub fn of_view(&self) -> PageRequest<'_> {
        PageRequest { limit: self.limit, cursor: self.cursor.as_deref() }
    }
}

/// A view's answer: a cursor that is none is the caller's mistake, everything else is ours.
///
/// # Errors
/// 400 for the cursor, 500 otherwise.
pub fn view<T>(found: Result<T, ViewError>) -> Result<T, ApiError> {
    found.map_err(|error| match error {
        ViewError::InvalidCursor => ApiError::field("cursor", "must be one that an earlier page gave"),
        other @ (ViewError::Sqlite(_) | ViewError::Files(_)) => ApiError::internal(other),
    })
}

/// A page as an answer, with `Link: <…>; rel="next"` when there is more.
pub fn answer(request: &HttpRequest, body: &impl Serialize, next: Option<&str>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    if let Some(cursor) = next {
        let kept =
            request.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query: Vec<String> = kept.map(str::to_owned).chain([format!("cursor={cursor}")]).collect();
        let link = format!("<{}?{}>; rel=\"next\"", request.path(), query.join("&"));
        response.insert_header((header::LINK, link));
    }
    response.json(body)
}

/// Notes where the caller wrote, for its next list, and says it.
pub fn written(ports: &Ports, caller: &Caller, done: Done, response: &mut HttpResponseBuilder) {
    if done.position > 0
        && let Some(key) = caller.key_id()
    {
        let mut last = ports.last_written.entry(key).or_default();
        *last = (*last).max(done.position);
    }
    // The log's own position never leaves the hub; the header carries it sealed against reading by its workspace only
    // in the sense that it is opaque: callers send it back as it came.
    if done.position > 0 {
        response.insert_header((POSITION_HEADER, opaque(done.position)));
    }
    response.insert_header((header::ETAG, etag(done.revision)));
}

/// A resource's ETag is its stream's revision.
pub fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The revision at which a change is wanted, if its caller says one: `*` is any. Refused here when it is another already,
/// and by the append when it becomes another until then.
///
/// # Errors
/// 412; 400 for what is no list of ETags.
pub fn if_match(request: &HttpRequest, revision: u64) -> Result<Option<u64>, ApiError> {
    let lines: Vec<_> = request.headers().get_all(header::IF_MATCH).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let texts: Option<Vec<&str>> = lines.iter().map(|value| value.to_str().ok()).collect();
    let texts = texts.ok_or_else(no_etag)?;
    if matches!(texts.as_slice(), [one] if one.trim() == "*") {
        return Ok(None);
    }
    let wanted = etag(revision);
    let mut is_wanted = false;
    for tag in texts.iter().flat_map(|line| line.split(',')).map(str::trim) {
        let strong = tag.strip_prefix("W/").unwrap_or(tag);
        let bare = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if bare.is_none_or(|bare| bare.bytes().any(|b| b == b'"' || !b.is_ascii_graphic())) {
            return Err(no_etag());
        }
        // A weak tag never matches here (RFC 9110, section 13.1.1).
        is_wanted |= tag == wanted;
    }
    if is_wanted { Ok(Some(revision)) } else { Err(ApiError::changed()) }
}

fn no_etag() -> ApiError {
    ApiError::field("If-Match", "must be `*` or ETags as answers show them, with their quotes")
}

/// Waits until the catalog shows what the caller wrote last, and what it says that it wants to have seen.
pub async fn see_own_writes(ports: &Ports, caller: &Caller, request: &HttpRequest) {
    let said = request.headers().get(POSITION_HEADER).and_then(|value| from_opaque(value.to_str().ok()?));
    let noted = caller.key_id().and_then(|key| ports.last_written.get(&key).map(|position| *position));
    // A position beyond the head is nobody's write; waiting for it would only be slow.
    let head = *ports.log.head().borrow();
    if let Some(position) = said.max(noted) {
        ports.views.wait_for_catalog(position.min(head), VIEWS_PATIENCE).await;
    }
}

// Positions of the whole log would tell one tenant how busy the others are, so they are mixed with a constant of this
// process; a caller can send one back but not compare two.
fn opaque(position: u64) -> String {
    format!("{:016x}", position.wrapping_mul(MIX).rotate_left(23) ^ *mask())
}

fn from_opaque(text: &str) -> Option<u64> {
    let mixed = u64::from_str_radix(text, 16).ok()? ^ *mask();
    Some(mixed.rotate_right(23).wrapping_mul(UNMIX))
}

const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// The inverse of `MIX` modulo 2^64.
const UNMIX: u64 = 0xF1DE_83E1_9937_733D;

fn mask() -> &'static u64 {
    static MASK: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    MASK.get_or_init(|| {
        u64::from_be_bytes(*crate::secrets::random_bytes().first_chunk().expect("32 bytes are more than 8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_as_it_went_out() {
        for position in [0, 1, 2, 77, u64::MAX] {
            assert_eq!(from_opaque(&opaque(position)), Some(position));
        }
        assert_eq!(from_opaque("x"), None);
    }
}

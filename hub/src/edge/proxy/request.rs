//! The request as the target gets it: the visitor's own method, path and body, and headers that are true.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use domain::{access::Denied, share::ShareCreated};
use http::{
    HeaderValue, Request, StatusCode, Uri, Version,
    header::{HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use http_body::Body as _;

use super::{Found, Own, Visitor};
use crate::edge::{
    banner,
    body::VisitorBody,
    exchange::Exchange,
    headers,
    page::Refusal,
    upload::{self, Gate, Upload},
};

impl Visitor {
    /// The request as the target gets it, and whether the visitor holds a document with a banner.
    pub(super) fn request(
        &mut self,
        found: &Found,
        created: &ShareCreated,
        exchange: &Rc<Exchange>,
        body: VisitorBody,
        is_upgrade: bool,
        wants_document: bool,
    ) -> Result<(Request<Upload>, bool), Own> {
        let limit = self.core.shared.options.body_bytes_max;
        if limit != 0 && body.size_hint().lower() > limit {
            return Err(too_large());
        }
        let lane = exchange.lane().ok_or(Denied::UpstreamFailed)?;
        let forwarded = self.forwarded();
        let mut headers = std::mem::take(&mut self.parts.headers);
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        headers::drop_hop_by_hop(&mut headers);
        let mut host = headers.remove(HOST);
        if self.parts.version == Version::HTTP_2 {
            headers::join_cookies(&mut headers);
            let authority = self.parts.uri.authority();
            host = authority.and_then(|named| HeaderValue::from_str(named.as_str()).ok()).or(host);
        }
        forwarded.set(&mut headers, host.as_ref());
        if created.allowed_methods.is_some() {
            headers::drop_method_overrides(&mut headers);
        }
        if created.allowed_paths.is_some() {
            headers::drop_path_overrides(&mut headers);
        }
        if is_upgrade {
            headers::set_websocket(&mut headers);
        }
        let identity = wants_document && banner::wants_identity(&headers);
        let shown_banner = wants_document && headers::ask_for_document(&mut headers, identity);
        let upload = if body.is_end_stream() {
            exchange.upload.done.set(true);
            Upload::Empty
        } else {
            if !self.is_call && (is_chunked || body.size_hint().exact().is_none()) {
                // Said in so many words: hyper would take a GET of unknown length for one without a body.
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let gate = (!self.is_call && headers::expects_continue(&headers)).then(Arc::<Gate>::default);
            exchange.upload.gate.replace(gate.clone());
            Upload::Stream(Box::new(upload::Stream {
                body,
                progress: Rc::clone(&exchange.upload),
                conn: Arc::clone(&exchange.conn),
                bytes_max: limit,
                gate,
                is_owed: !self.is_call,
                trailing: None,
            }))
        };
        let mut request = Request::new(upload);
        *request.method_mut() = self.parts.method.clone();
        if self.is_call {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = lane.absolute(self.uri(found)?).map_err(|_| Denied::BadRequest)?;
        } else {
            headers::set_host(&mut headers, lane.host.clone());
            *request.uri_mut() = Uri::from(self.uri(found)?);
        }
        *request.headers_mut() = headers;
        Ok((request, shown_banner))
    }

    /// The visitor's own bytes after the link prefix.
    fn uri(&self, found: &Found) -> Result<PathAndQuery, Own> {
        let whole = self.parts.uri.path_and_query();
        if found.prefix.is_empty()
            && let Some(whole) = whole
        {
            return Ok(whole.clone());
        }
        let text = match self.parts.uri.query() {
            Some(query) => format!("{}?{query}", found.path),
            None => found.path.clone(),
        };
        PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| Denied::BadRequest.into())
    }
}

pub(super) fn too_large() -> Own {
    let message = "The request's body is longer than this hub allows.";
    let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message);
    Own::Refused(Denied::BadRequest, Box::new(refusal))
}

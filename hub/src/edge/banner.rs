//! The banner with a share's name in whole HTML documents, and nothing else changed by a byte.
//!
//! The markup has presentational attributes only: no style, script or request, so that any Content-Security-Policy
//! keeps working. It is ASCII whatever the name is, so that any ASCII-compatible charset can hold it.

use std::{cell::RefCell, fmt::Write as _, io::Write as _, rc::Rc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{
        ACCEPT, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
        CONTENT_TYPE, ETAG, RANGE,
    },
};
use lol_html::{HtmlRewriter, MemorySettings, OutputSink, Settings, element, html_content::ContentType};

use super::headers::{etag_with_banner, tokens};

/// A document's first tag is looked for in this many bytes.
pub(super) const SNIFF_BYTES_MAX: usize = 4 * 1024;
/// A compressed document is taken apart only when it is no longer than this, packed.
pub(super) const PACKED_BYTES_MAX: usize = 1024 * 1024;
/// A compressed document is taken apart only when it is no longer than this, unpacked.
pub(super) const UNPACKED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a parser may hold of one tag (bytes).
const PARSER_BYTES_MAX: usize = 512 * 1024;

/// Charsets in which a byte below 128 is that ASCII character outside multi-byte sequences.
const CHARSETS: [&str; 14] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "iso8859-",
    "latin1",
    "windows-125",
    "koi8-",
    "macintosh",
    "shift_jis",
    "euc-",
    "gb",
    "big5",
];

/// The markup for a share.
pub(super) fn markup(share_name: &str) -> String {
    let mut html = String::from(
        "<table width=\"100%\" bgcolor=\"#1f2937\" cellpadding=\"6\" cellspacing=\"0\" border=\"0\"><tr>\
         <td align=\"center\"><font color=\"#ffffff\" size=\"2\" face=\"sans-serif\">Shared with Private Connect: <b>",
    );
    escape(share_name, &mut html);
    html.push_str("</b></font></td></tr></table>");
    html
}

/// Appends text so that no reader of HTML, in any ASCII-compatible charset, sees anything but text.
pub(super) fn escape(text: &str, html: &mut String) {
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | ',' | ':' | '/' | '(' | ')') {
            html.push(c);
        } else {
            write!(html, "&#{};", u32::from(c)).expect("a string takes everything");
        }
    }
}

/// The same as a text of its own, for pages of the API.
pub fn escape_html(text: &str) -> String {
    let mut html = String::new();
    escape(text, &mut html);
    html
}

/// Whether a request can be answered with a whole document: a GET, no fragment, no subresource, no part.
pub(super) fn asks_for_document(method: &Method, headers: &HeaderMap) -> bool {
    let is_absent = |name: &'static str| !headers.contains_key(name);
    method == Method::GET
        && headers.get("sec-fetch-dest").is_none_or(|dest| dest == "document")
        && is_absent("hx-request")
        && is_absent("x-requested-with")
        && !headers.contains_key(RANGE)
}

/// Whether such a request says that it wants HTML, so that the target can be asked for it uncompressed. Others (a
/// program that takes anything) keep their choice of compression.
pub(super) fn wants_identity(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-dest") || accepts_html(headers)
}

/// Whether `Accept` names HTML.
pub(super) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| accept.to_str().is_ok_and(names_html))
}

/// Whether a value of `Accept` names HTML.
pub(super) fn names_html(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let kind = range.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml")
    })
}

/// How a document is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
}

/// Whether a response's head allows for the banner, and how its body is packed.
pub(super) fn document_coding(status: StatusCode, headers: &HeaderMap) -> Option<Coding> {
    if status != StatusCode::OK || headers.contains_key(http::header::CONTENT_RANGE) {
        return None;
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let content_type = types.next()?.to_str().ok()?;
    if types.next().is_some() || !is_ascii_html(content_type) {
        return None;
    }
    let attached =
        tokens_of(headers, CONTENT_DISPOSITION, ';').any(|part| part.eq_ignore_ascii_case("attachment"));
    // A proxy must not transform what says so (RFC 9111, section 5.2.2.6).
    let sealed =
        tokens(headers, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case("no-transform"));
    if attached || sealed {
        return None;
    }
    let mut codings = tokens(headers, &CONTENT_ENCODING);
    let coding = match codings.next() {
        None => Coding::Identity,
        Some(name) if name.eq_ignore_ascii_case("identity") => Coding::Identity,
        Some(name) if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
            Coding::Gzip
        }
        Some(name) if name.eq_ignore_ascii_case("br") => Coding::Brotli,
        Some(_) => return None,
    };
    codings.next().is_none().then_some(coding)
}

fn tokens_of(headers: &HeaderMap, name: HeaderName, separator: char) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(move |value| value.split(separator))
        .map(str::trim)
}

fn is_ascii_html(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) {
        return false;
    }
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    charset.is_none_or(|charset| CHARSETS.iter().any(|known| charset.starts_with(known)))
}

/// Takes from a document's head what is no longer true with the banner in it.
pub(super) fn adjust_headers(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for digest in ["content-md5", "digest", "content-digest", "repr-digest"] {
        headers.remove(digest);
    }
    suffix_etag(headers);
}

/// Marks the ETag as that of the document with the banner.
pub(super) fn suffix_etag(headers: &mut HeaderMap) {
    if let Some(etag) = headers.get(ETAG).and_then(etag_with_banner) {
        headers.insert(ETAG, etag);
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sniffed {
    /// A whole document begins.
    Document,
    /// Something else.
    Other,
    /// More bytes are needed.
    Undecided,
}

/// Looks for the first tag: a doctype or `<html>` begins a document. White space, a byte order mark and comments may
/// come before it.
pub(super) fn sniff(start: &[u8]) -> Sniffed {
    let mut rest = start.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(start);
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        if rest.starts_with(b"<!--") {
            match memchr::memmem::find(&rest[4..], b"-->") {
                Some(end) => rest = &rest[4 + end + 3..],
                None => break,
            }
            continue;
        }
        let mut partial = b"<!--".starts_with(rest) || b"\xef\xbb\xbf".starts_with(rest);
        for tag in [b"<!doctype".as_slice(), b"<html"] {
            let shown = rest.len().min(tag.len());
            if !rest[..shown].eq_ignore_ascii_case(&tag[..shown]) {
                continue;
            }
            match rest.get(tag.len()) {
                Some(b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r' | 0x0c) => return Sniffed::Document,
                Some(_) => return Sniffed::Other,
                None => partial = true,
            }
        }
        if !partial {
            return Sniffed::Other;
        }
        break;
    }
    if start.len() >= SNIFF_BYTES_MAX { Sniffed::Other } else { Sniffed::Undecided }
}

/// What the rewriter writes to.
#[derive(Debug, Default, Clone)]
struct Output(Rc<RefCell<Vec<u8>>>);

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.borrow_mut().extend_from_slice(chunk);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Body,
    Frameset,
}

/// Puts the markup right after `<body …>` of a document that streams through; at its end when there is none, nowhere
/// when it has a frameset. Everything else leaves as it came.
pub(super) struct Injector {
    rewriter: Option<HtmlRewriter<'static, Output>>,
    output: Output,
    found: Rc<RefCell<Found>>,
    markup: Rc<str>,
    /// What came in and has not left yet: the way out when the parser gives up.
    inside: Vec<u8>,
    /// A parser that gave up will not be asked where the document ends.
    gave_up: bool,
}

impl std::fmt::Debug for Injector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injector").field("found", &*self.found.borrow()).finish_non_exhaustive()
    }
}

impl Injector {
    pub(super) fn new(markup: Rc<str>) -> Self {
        let output = Output::default();
        let found = Rc::new(RefCell::new(Found::Nothing));
        let (at_body, at_frameset) = (Rc::clone(&found), Rc::clone(&found));
        let html = Rc::clone(&markup);
        let on_body = element!("body", move |body| {
            let mut found = at_body.borrow_mut();
            if *found == Found::Nothing {
                *found = Found::Body;
                body.prepend(&html, ContentType::Html);
            }
            Ok(())
        });
        let on_frameset = element!("frameset", move |_| {
            let mut found = at_frameset.borrow_mut();
            if *found == Found::Nothing {
                *found = Found::Frameset;
            }
            Ok(())
        });
        let settings = Settings::new()
            .append_element_content_handler(on_body)
            .append_element_content_handler(on_frameset)
            .with_memory_settings(
                MemorySettings::new()
                    .with_preallocated_parsing_buffer_size(1024)
                    .with_max_allowed_memory_usage(PARSER_BYTES_MAX),
            )
            .with_strict(false);
        let rewriter = Some(HtmlRewriter::new(settings, output.clone()));
        Self { rewriter, output, found, markup, inside: Vec::new(), gave_up: false }
    }

    /// Takes a piece of the document in and gives out what can leave; may be empty.
    pub(super) fn push(&mut self, piece: Bytes) -> Bytes {
        let Some(rewriter) = self.rewriter.as_mut() else { return piece };
        self.inside.extend_from_slice(&piece);
        if rewriter.write(&piece).is_err() {
            return self.give_up();
        }
        if *self.found.borrow() != Found::Nothing {
            return self.leave();
        }
        let out = std::mem::take(&mut *self.output.0.borrow_mut());
        // Nothing was injected yet: what left is a prefix of what came.
        self.inside.drain(..out.len().min(self.inside.len()));
        out.into()
    }

    /// What is left at the end of the document; may be empty.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut out = if self.rewriter.is_some() { self.leave().to_vec() } else { Vec::new() };
        if *self.found.borrow() == Found::Nothing && !self.gave_up {
            *self.found.borrow_mut() = Found::Body;
            out.extend_from_slice(self.markup.as_bytes());
        }
        out.into()
    }

    /// Lets out what the parser holds back and needs the parser no more.
    fn leave(&mut self) -> Bytes {
        if self.rewriter.take().is_some_and(|rewriter| rewriter.end().is_err()) {
            return self.give_up();
        }
        self.inside = Vec::new();
        std::mem::take(&mut *self.output.0.borrow_mut()).into()
    }

    /// The parser failed: everything that has not left follows as it came.
    fn give_up(&mut self) -> Bytes {
        self.rewriter = None;
        self.gave_up = true;
        let mut out = std::mem::take(&mut *self.output.0.borrow_mut());
        let mut left = out.len();
        if *self.found.borrow() == Found::Body {
            left = left.saturating_sub(self.markup.len());
        }
        out.extend_from_slice(self.inside.get(left..).unwrap_or_default());
        self.inside = Vec::new();
        out.into()
    }
}

/// The whole packed document with the banner in it; `None` when it is no document, broken, or longer than the cap:
/// then it must pass as it is.
pub(super) fn repack(coding: Coding, packed: &[u8], markup: &Rc<str>) -> Option<Vec<u8>> {
    let document = unpack(coding, packed)?;
    if sniff(&document) != Sniffed::Document {
        return None;
    }
    let mut injector = Injector::new(Rc::clone(markup));
    let mut out = injector.push(document.into()).to_vec();
    out.extend_from_slice(&injector.finish());
    pack(coding, &out)
}

fn unpack(coding: Coding, packed: &[u8]) -> Option<Vec<u8>> {
    let mut document = Vec::new();
    let limit = u64::try_from(UNPACKED_BYTES_MAX).expect("a small constant") + 1;
    match coding {
        Coding::Identity => document.extend_from_slice(packed),
        Coding::Gzip => {
            let reader = flate2::read::MultiGzDecoder::new(packed);
            std::io::Read::read_to_end(&mut std::io::Read::take(reader, limit), &mut document).ok()?;
        }
        Coding::Brotli => {
            let reader = brotli::Decompressor::new(packed, 4096);
            std::io::Read::read_to_end(&mut std::io::Read::take(reader, limit), &mut document).ok()?;
        }
    }
    (document.len() <= UNPACKED_BYTES_MAX).then_some(document)
}

fn pack(coding: Coding, document: &[u8]) -> Option<Vec<u8>> {
    match coding {
        Coding::Identity => Some(document.to_vec()),
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(document).ok()?;
            encoder.finish().ok()
        }
        Coding::Brotli => {
            let mut packed = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut packed, 4096, 4, 20);
            encoder.write_all(document).ok()?;
            drop(encoder);
            Some(packed)
        }
    }
}

#[cfg(test)]
mod tests;

//! The banner goes into whole HTML documents and nowhere else; whatever it does not go into arrives as it left, head and
//! body, byte for byte.

use std::io::{Read as _, Write as _};

use crate::harness::*;

const PAGE: &str = "<!doctype html><html><head><title>t</title></head><body><p>hi</p></body></html>";
const BANNER: &str = "Shared with Private Connect";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::CompressorWriter::new(&mut out, 4096, 5, 22).write_all(bytes).unwrap();
    out
}

fn utf16(text: &str) -> Vec<u8> {
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

/// An answer: status, headers and body.
struct Sent {
    head: String,
    body: Vec<u8>,
}

fn sent(status: &str, headers: &[&str], body: &[u8]) -> Sent {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        head += header;
        head += "\r\n";
    }
    Sent { head: head + "\r\n", body: body.to_vec() }
}

fn html(headers: &[&str], body: &[u8]) -> Sent {
    sent("200 OK", &[&["Content-Type: text/html"], headers].concat(), body)
}

/// Head lines and body as a visitor gets them.
fn got(sent: &Sent, method: &str, more: &str) -> (Head, Vec<u8>) {
    let bytes = [sent.head.as_bytes(), if method == "HEAD" { b"" } else { &sent.body }].concat();
    let rig = Rig::new(answering(move |_, _| bytes.clone()));
    let mut visitor = rig.visitor();
    visitor.send(rig.request(&format!("{method} /"), more, ""));
    let head = visitor.head();
    let body = if method == "HEAD" { Vec::new() } else { visitor.response_body(&head) };
    (head, body)
}

#[test]
fn nothing_but_whole_documents_changes_by_a_byte() {
    let page = PAGE.as_bytes();
    let late = [&vec![b' '; 600_000], page].concat();
    let xhtml = ["<?xml version=\"1.0\"?>", PAGE].concat();
    let cases: Vec<(&str, &str, &str, Sent)> = vec![
        ("a HEAD", "HEAD", "", html(&["ETag: \"a\"", "Accept-Ranges: bytes"], page)),
        ("a POST", "POST", "Content-Length: 0\r\n", html(&["ETag: \"a\""], page)),
        ("a range", "GET", "Range: bytes=0-9\r\n", html(&["Content-Range: bytes 0-9/80"], page)),
        (
            "a part",
            "GET",
            "",
            sent("206 Partial Content", &["Content-Type: text/html", "Content-Range: bytes 0-9/80"], page),
        ),
        ("an error", "GET", "", sent("500 Oops", &["Content-Type: text/html"], page)),
        ("created", "GET", "", sent("201 Created", &["Content-Type: text/html"], page)),
        (
            "UTF-16 as it says",
            "GET",
            "",
            sent("200 OK", &["Content-Type: text/html; charset=utf-16le"], &utf16(PAGE)),
        ),
        ("UTF-16 without a word", "GET", "", html(&[], &utf16(PAGE))),
        ("UTF-7", "GET", "", sent("200 OK", &["Content-Type: text/html; charset=utf-7"], page)),
        ("EBCDIC", "GET", "", sent("200 OK", &["Content-Type: text/html; charset=ibm037"], page)),
        ("a doctype that comes late", "GET", "", html(&[], &late)),
        ("a fragment", "GET", "", html(&[], b"<div>a</div>")),
        ("text", "GET", "", html(&[], b"just words")),
        ("nothing", "GET", "", html(&[], b"")),
        ("PDF that says it is HTML", "GET", "", html(&[], b"%PDF-1.7\n<!doctype html><body>")),
        ("a picture that says it is HTML", "GET", "", html(&[], b"\x89PNG\r\n\x1a\n<html><body>")),
        ("JSON that says it is HTML", "GET", "", html(&[], b"{\"a\": \"<!doctype html><body>\"}")),
        ("XHTML", "GET", "", sent("200 OK", &["Content-Type: application/xhtml+xml"], xhtml.as_bytes())),
        ("XHTML that says it is HTML", "GET", "", html(&[], xhtml.as_bytes())),
        (
            "SVG",
            "GET",
            "",
            sent("200 OK", &["Content-Type: image/svg+xml"], b"<svg><html><body></body></html></svg>"),
        ),
        ("plain text", "GET", "", sent("200 OK", &["Content-Type: text/plain"], page)),
        ("no type", "GET", "", sent("200 OK", &[], page)),
        (
            "two types",
            "GET",
            "",
            sent("200 OK", &["Content-Type: text/html", "Content-Type: text/plain"], page),
        ),
        (
            "an event stream",
            "GET",
            "",
            sent("200 OK", &["Content-Type: text/event-stream"], b"data: <!doctype html><body>\n\n"),
        ),
        ("a download", "GET", "", html(&["Content-Disposition: attachment; filename=a.html"], page)),
        ("what says no-transform", "GET", "", html(&["Cache-Control: public, no-transform"], page)),
        ("zstd", "GET", "", html(&["Content-Encoding: zstd"], b"(\xb5/\xfd not looked into")),
        ("gzip twice", "GET", "", html(&["Content-Encoding: gzip, gzip"], &gzip(&gzip(page)))),
        ("broken gzip", "GET", "", html(&["Content-Encoding: gzip", "ETag: \"a\""], &gzip(page)[..30])),
        (
            "gzip of a fragment",
            "GET",
            "",
            html(&["Content-Encoding: gzip", "ETag: \"a\""], &gzip(b"<p>a</p>")),
        ),
        ("broken brotli", "GET", "", html(&["Content-Encoding: br"], b"\xff\xff not brotli")),
        ("a frame", "GET", "Sec-Fetch-Dest: iframe\r\n", html(&["ETag: \"a\""], page)),
        ("a fetch", "GET", "Sec-Fetch-Dest: empty\r\n", html(&["ETag: \"a\""], page)),
        ("htmx", "GET", "HX-Request: true\r\n", html(&["ETag: \"a\""], page)),
        ("XMLHttpRequest", "GET", "X-Requested-With: XMLHttpRequest\r\n", html(&["ETag: \"a\""], page)),
    ];
    for (what, method, more, sent) in cases {
        let (head, body) = got(&sent, method, more);
        if method != "HEAD" {
            assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&sent.body), "{what}");
        }
        let mut lines = sent.head.lines();
        assert_eq!(head.first, lines.next().unwrap(), "{what}");
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(
                head.all(&name.to_ascii_lowercase()).contains(&value),
                "{what}: {line} is not in {:?}",
                head.lines
            );
        }
    }
}

#[test]
fn whole_documents_get_it_however_they_are_sent_and_honest_headers_with_it() {
    let page = PAGE.as_bytes();
    let policy = "Content-Security-Policy: default-src 'none'; script-src 'sha256-x'; sandbox";
    let no_body_tag = b"<!DOCTYPE html>\n<title>t</title>\n<p>hi";
    type Unpack = fn(&[u8]) -> Vec<u8>;
    let plain: Unpack = <[u8]>::to_vec;
    let gunzip: Unpack = |bytes| {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    };
    let unbrotli: Unpack = |bytes| {
        let mut out = Vec::new();
        brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).unwrap();
        out
    };
    let with_bom = [b"\xef\xbb\xbf", page].concat();
    let behind_comments = ["<!-- a --> \n <!-- <html> -->", PAGE].concat();
    let cases: Vec<(&str, &[u8], Sent, Unpack)> = vec![
        ("plain", page, html(&[], page), plain),
        ("with a policy", page, html(&[policy], page), plain),
        ("UTF-8", page, sent("200 OK", &["Content-Type: text/HTML; Charset=\"UTF-8\""], page), plain),
        ("Latin-1", page, sent("200 OK", &["Content-Type: text/html;charset=iso-8859-1"], page), plain),
        ("with a byte order mark", &with_bom, html(&[], &with_bom), plain),
        ("behind comments", behind_comments.as_bytes(), html(&[], behind_comments.as_bytes()), plain),
        ("without a body tag", no_body_tag, html(&[], no_body_tag), plain),
        ("gzip", page, html(&["Content-Encoding: gzip"], &gzip(page)), gunzip),
        ("brotli", page, html(&["Content-Encoding: br"], &brotli(page)), unbrotli),
        ("not for download", page, html(&["Content-Disposition: inline"], page), plain),
    ];
    for (what, document, sent, unpack) in cases {
        let sent = Sent {
            head: sent.head.replace(
                "\r\n\r\n",
                "\r\nETag: W/\"a\"\r\nAccept-Ranges: bytes\r\nDigest: x\r\nX-Keep: 1\r\n\r\n",
            ),
            ..sent
        };
        let (head, body) = got(&sent, "GET", "");
        let body = unpack(&body);
        let at = memchr::memmem::find(&body, b"<table").unwrap_or_else(|| panic!("{what}: no banner"));
        let end = memchr::memmem::find(&body, b"</table>").unwrap() + b"</table>".len();
        assert!(String::from_utf8_lossy(&body[at..end]).contains(BANNER), "{what}");
        // Without it the document is what the target sent.
        assert_eq!([&body[..at], &body[end..]].concat(), document, "{what}");
        assert_eq!(head.get("etag"), Some("W/\"a-pconnect\""), "{what}");
        assert_eq!(
            (head.get("accept-ranges"), head.get("digest"), head.get("x-keep")),
            (None, None, Some("1")),
            "{what}"
        );
        let policies = head.all("content-security-policy");
        assert_eq!(policies.len(), usize::from(what == "with a policy"), "{what}: {policies:?}");
    }
}

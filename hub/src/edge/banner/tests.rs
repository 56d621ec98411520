//! What gets the banner, where it goes, and that nothing else changes.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const MARK: &str = "[banner]";

fn inject(pieces: &[&[u8]]) -> String {
    let mut injector = Injector::new(MARK.into());
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&injector.push(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&injector.finish());
    String::from_utf8_lossy(&out).into_owned()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

#[test]
fn the_banner_goes_right_behind_the_body_tag() {
    for (document, expected) in [
        (
            "<!doctype html><html><head></head><body class=\"a\">x</body></html>",
            "<!doctype html><html><head></head><body class=\"a\">[banner]x</body></html>",
        ),
        ("<HTML><BODY\n ID='b' >x", "<HTML><BODY\n ID='b' >[banner]x"),
        (
            "<!doctype html><script>if (a<body) '<body>'</script><!-- <body> --><body>x<body>",
            "<!doctype html><script>if (a<body) '<body>'</script><!-- <body> --><body>[banner]x<body>",
        ),
        (
            "<!doctype html><title><body></title><p>no body tag",
            "<!doctype html><title><body></title><p>no body tag[banner]",
        ),
        (
            "<html><frameset><frame src=a></frameset><noframes><body>x",
            "<html><frameset><frame src=a></frameset><noframes><body>x",
        ),
        ("<!doctype html><body", "<!doctype html><body[banner]"),
    ] {
        assert_eq!(inject(&[document.as_bytes()]), expected);
    }
}

proptest! {
    #[test]
    fn however_the_document_is_cut_everything_else_leaves_as_it_came(
        head in prop::collection::vec(any::<u8>().prop_filter("no tag of ours", |b| *b != b'<'), 0..200),
        rest in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let document = [b"<!doctype html><p a=\"<body>\">", head.as_slice(), b"<body x=1>", &rest].concat();
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(document.len())).collect();
        places.sort_unstable();
        let mut injector = Injector::new(MARK.into());
        let mut out = Vec::new();
        let mut from = 0;
        for to in places.into_iter().chain([document.len()]) {
            out.extend_from_slice(&injector.push(Bytes::copy_from_slice(&document[from..to])));
            from = to;
        }
        out.extend_from_slice(&injector.finish());
        let expected = [b"<!doctype html><p a=\"<body>\">", head.as_slice(), b"<body x=1>", MARK.as_bytes(), &rest].concat();
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn a_tag_too_long_for_the_parser_passes_untouched() {
    let long = vec![b'a'; 2 * PARSER_BYTES_MAX];
    let document = [b"<!doctype html><p>a<body title=\"", long.as_slice(), b"\">x"].concat();
    let pieces: Vec<&[u8]> = document.chunks(10_000).collect();
    let out = inject(&pieces);
    assert!(out.as_bytes() == document, "{} bytes became {}", document.len(), out.len());
}

#[test]
fn what_streams_leaves_without_waiting_for_the_end() {
    let mut injector = Injector::new(MARK.into());
    let first = injector.push(Bytes::from_static(b"<!doctype html><head><title>t</title>"));
    assert!(first.starts_with(b"<!doctype html>"));
    assert_eq!(injector.push(Bytes::from_static(b"<body>now")), "<body>[banner]now");
    assert_eq!(injector.push(Bytes::from_static(b"<p")), "<p");
    assert_eq!(injector.finish(), "");
}

#[test]
fn only_a_doctype_or_html_tag_begins_a_document() {
    for (start, expected) in [
        ("<!DOCTYPE html>", Sniffed::Document),
        ("\u{feff} \n<!-- c --><!-- d -->\t<html lang=en>", Sniffed::Document),
        ("<html>", Sniffed::Document),
        ("<html", Sniffed::Undecided),
        ("<!doc", Sniffed::Undecided),
        ("", Sniffed::Undecided),
        ("<!-- still", Sniffed::Undecided),
        ("<htmlx>", Sniffed::Other),
        ("<div>", Sniffed::Other),
        ("{\"a\":1}", Sniffed::Other),
        ("plain", Sniffed::Other),
    ] {
        assert_eq!(sniff(start.as_bytes()), expected, "{start:?}");
    }
    assert_eq!(sniff(&[b' '; SNIFF_BYTES_MAX]), Sniffed::Other);
    assert_eq!(sniff(b"\xff\xfe<\0h\0t\0m\0l\0>\0"), Sniffed::Other, "UTF-16");
}

#[test]
fn fragments_subresources_and_parts_ask_for_no_document() {
    assert!(asks_for_document(&Method::GET, &headers(&[])));
    assert!(asks_for_document(&Method::GET, &headers(&[("sec-fetch-dest", "document")])));
    assert!(!asks_for_document(&Method::HEAD, &headers(&[])));
    assert!(!asks_for_document(&Method::POST, &headers(&[])));
    for line in [
        ("sec-fetch-dest", "empty"),
        ("sec-fetch-dest", "iframe"),
        ("hx-request", "true"),
        ("x-requested-with", "XMLHttpRequest"),
        ("range", "bytes=0-1"),
    ] {
        assert!(!asks_for_document(&Method::GET, &headers(&[line])), "{line:?}");
    }
}

#[test]
fn only_whole_html_in_an_ascii_compatible_charset_is_a_document() {
    let coding = |lines: &[(&'static str, &'static str)]| document_coding(StatusCode::OK, &headers(lines));
    let html = ("content-type", "text/html; charset=utf-8");
    assert_eq!(coding(&[html]), Some(Coding::Identity));
    assert_eq!(coding(&[("content-type", "Text/HTML")]), Some(Coding::Identity));
    assert_eq!(coding(&[html, ("content-encoding", "gzip")]), Some(Coding::Gzip));
    assert_eq!(coding(&[html, ("content-encoding", "br")]), Some(Coding::Brotli));
    for lines in [
        &[("content-type", "text/html; charset=UTF-16LE")][..],
        &[("content-type", "text/html; charset=iso-2022-jp")],
        &[("content-type", "application/xhtml+xml")],
        &[("content-type", "text/event-stream")],
        &[],
        &[html, ("content-encoding", "zstd")],
        &[html, ("content-encoding", "gzip, br")],
        &[html, ("content-disposition", "attachment; filename=a.html")],
        &[html, ("cache-control", "public, no-transform")],
    ] {
        assert_eq!(coding(lines), None, "{lines:?}");
    }
    assert_eq!(document_coding(StatusCode::NOT_FOUND, &headers(&[html])), None);
}

#[test]
fn a_hostile_name_is_text_and_the_markup_is_ascii() {
    let html = markup("</b><script>alert(1)</script> \"Ünïcode\" & 'x' +ADw-");
    assert!(html.is_ascii());
    assert!(
        !html.contains("<script") && html.contains("&#60;script&#62;alert(1)&#60;/script&#62;"),
        "{html}"
    );
    for word in ["style", "http", "src", "href", "onerror"] {
        assert!(!markup("n").contains(word), "{word}");
    }
}

#[test]
fn packed_documents_come_out_packed_with_the_banner_in() {
    let markup: Rc<str> = MARK.into();
    for coding in [Coding::Gzip, Coding::Brotli] {
        let packed = pack(coding, b"<!doctype html><body>x").unwrap();
        let repacked = repack(coding, &packed, &markup).unwrap();
        assert_eq!(unpack(coding, &repacked).unwrap(), b"<!doctype html><body>[banner]x");
        assert_eq!(repack(coding, &pack(coding, b"<p>fragment").unwrap(), &markup), None);
        assert_eq!(repack(coding, &packed[..packed.len() - 3], &markup), None, "cut off");
        let bomb =
            pack(coding, &[b"<!doctype html>".as_slice(), &vec![b' '; UNPACKED_BYTES_MAX]].concat()).unwrap();
        assert_eq!(repack(coding, &bomb, &markup), None);
    }
    assert_eq!(repack(Coding::Gzip, b"no gzip", &markup), None);
}

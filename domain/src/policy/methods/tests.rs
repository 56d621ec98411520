//! Which methods a list lets through.

use super::*;

const READ: &[Method] = &[Method::Get];
const WRITE: &[Method] = &[Method::Post, Method::Delete];

fn preflight(wanted: &str) -> Asked<'_> {
    Asked { preflight_for: Some(wanted), ..Asked::plain("OPTIONS") }
}

#[test]
fn without_a_list_every_method_but_connect_and_trace_passes() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "X-OWN"] {
        assert_eq!(decide(None, &Asked::plain(method)), Decision::Pass, "{method}");
    }
    for method in ["CONNECT", "TRACE", "Trace", "connect"] {
        assert_eq!(decide(None, &Asked::plain(method)), Decision::Refuse, "{method}");
    }
    assert_eq!(decide(None, &preflight("DELETE")), Decision::Pass);
}

#[test]
fn a_list_allows_what_it_names_and_head_with_get() {
    for (list, method, decision) in [
        (READ, "GET", Decision::Pass),
        (READ, "HEAD", Decision::Pass),
        (READ, "POST", Decision::Refuse),
        (READ, "PROPFIND", Decision::Refuse),
        (READ, "TRACE", Decision::Refuse),
        (READ, "CONNECT", Decision::Refuse),
        (WRITE, "POST", Decision::Pass),
        (WRITE, "DELETE", Decision::Pass),
        (WRITE, "GET", Decision::Refuse),
        (WRITE, "HEAD", Decision::Refuse),
    ] {
        assert_eq!(decide(Some(list), &Asked::plain(method)), decision, "{method} with {list:?}");
    }
}

#[test]
fn methods_are_case_sensitive() {
    for method in ["get", "Get", "GET ", "head"] {
        assert_eq!(decide(Some(READ), &Asked::plain(method)), Decision::Refuse, "{method:?}");
    }
}

#[test]
fn a_websocket_counts_as_get() {
    let extended = Asked { websocket_connect: true, ..Asked::plain("CONNECT") };
    assert_eq!(decide(Some(READ), &extended), Decision::Pass);
    assert_eq!(decide(Some(WRITE), &extended), Decision::Refuse);
    assert_eq!(decide(None, &extended), Decision::Pass);
    // The mark makes no other method a GET.
    let post = Asked { websocket_connect: true, ..Asked::plain("POST") };
    assert_eq!(decide(Some(READ), &post), Decision::Refuse);
}

#[test]
fn a_preflight_for_an_allowed_method_is_proxied_and_any_other_options_answered() {
    assert_eq!(decide(Some(READ), &preflight("GET")), Decision::Pass);
    assert_eq!(decide(Some(READ), &preflight("HEAD")), Decision::Pass);
    let answered = |allow: &str| Decision::AnswerOptions { allow: allow.to_owned() };
    assert_eq!(decide(Some(READ), &preflight("DELETE")), answered("GET, HEAD, OPTIONS"));
    assert_eq!(decide(Some(READ), &preflight("get")), answered("GET, HEAD, OPTIONS"));
    assert_eq!(decide(Some(WRITE), &Asked::plain("OPTIONS")), answered("POST, DELETE, OPTIONS"));
    // A preflight's header on another method makes it no preflight.
    let disguised = Asked { preflight_for: Some("GET"), ..Asked::plain("DELETE") };
    assert_eq!(decide(Some(READ), &disguised), Decision::Refuse);
}

#[test]
fn a_list_names_five_methods_in_capitals() {
    for method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
        assert_eq!(serde_json::to_string(&method).unwrap(), format!("\"{}\"", method.name()));
    }
    for text in ["get", "HEAD", "OPTIONS", "TRACE", "", "*"] {
        assert_eq!(text.parse::<Method>(), Err(InvalidMethod), "{text:?}");
    }
}

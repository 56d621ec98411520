//! Which head leads where, as tables.

use super::*;

struct Case(http::request::Parts);

fn head(line: &str, hosts: &[&str]) -> Case {
    let mut words = line.split(' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let version = if words.next() == Some("1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = http::Request::builder().method(method).uri(uri).version(version);
    for host in hosts {
        request = request.header("host", *host);
    }
    Case(request.body(()).unwrap().into_parts().0)
}

fn routed(case: &Case) -> Result<Routed<'_>, BadHead> {
    let parts = &case.0;
    let head =
        Head { method: &parts.method, uri: &parts.uri, version: parts.version, headers: &parts.headers };
    route(&head, Some("share.example"))
}

#[test]
fn a_path_on_the_bare_host_leads_to_the_share_of_its_token() {
    for (path, expected) in [
        ("/shared/tok", Place::Link { token: "tok", rest: "" }),
        ("/shared/tok?q=1", Place::Link { token: "tok", rest: "" }),
        ("/shared/tok/", Place::Link { token: "tok", rest: "/" }),
        ("/shared/tok/a%2Fb//c/../d?q", Place::Link { token: "tok", rest: "/a%2Fb//c/../d" }),
        ("/shared/", Place::Link { token: "", rest: "" }),
        ("/shared//x", Place::Link { token: "", rest: "/x" }),
        ("/shared", Place::Nothing),
        ("/Shared/tok", Place::Nothing),
        ("/v1/shared/tok/info", Place::Info { token: "tok" }),
        ("/v1/shared/tok/info/", Place::Nothing),
        ("/v1/shared/a/b/info", Place::Nothing),
        ("/v1/shared//info", Place::Nothing),
        ("/api/shared/tok/query", Place::Query { token: "tok" }),
        ("/", Place::Nothing),
    ] {
        for host in ["127.0.0.1:7080", "localhost", "share.example", "192.0.2.9", "[::1]:80", "other.example"]
        {
            let case = head(&format!("GET {path}"), &[host]);
            assert_eq!(routed(&case).unwrap().place, expected, "{path} on {host}");
        }
    }
}

#[test]
fn a_name_below_the_base_domain_or_localhost_is_a_slug_in_any_spelling() {
    for host in [
        "ab3.localhost",
        "ab3.localhost:7080",
        "AB3.LOCALHOST.",
        "ab3.share.example",
        "Ab3.Share.Example.:443",
    ] {
        let case = head("GET /shared/tok/x", &[host]);
        let expected = Place::Slug { slug: "ab3".to_owned(), path: "/shared/tok/x" };
        assert_eq!(routed(&case).unwrap().place, expected, "{host}");
    }
    let case = head("GET /", &["a.b.localhost"]);
    assert_eq!(routed(&case).unwrap().place, Place::Slug { slug: "a.b".to_owned(), path: "/" });
    let case = head("GET /", &["xshare.example"]);
    assert_eq!(routed(&case).unwrap().place, Place::Nothing);
}

#[test]
fn a_head_with_two_meanings_is_refused() {
    for (line, hosts, expected) in [
        ("GET /", &[][..], BadHead::HostCount),
        ("GET /", &["a.localhost", "b.localhost"], BadHead::HostCount),
        ("GET /", &["a.localhost", "a.localhost"], BadHead::HostCount),
        ("GET /", &["a.localhost:80@b.localhost"], BadHead::HostForm),
        ("GET /", &["user@a.localhost"], BadHead::HostForm),
        ("GET /", &["a.localhost:x"], BadHead::HostForm),
        ("GET /", &["a.localhost:99999"], BadHead::HostForm),
        ("GET /", &["a.localhost/x"], BadHead::HostForm),
        ("GET /", &["a..localhost"], BadHead::HostForm),
        ("GET /", &[".localhost"], BadHead::HostForm),
        ("GET /", &["a b.localhost"], BadHead::HostForm),
        ("GET /", &[""], BadHead::HostForm),
        ("GET /", &["[::1"], BadHead::HostForm),
        ("GET /", &["[a.localhost]"], BadHead::HostForm),
        ("GET http://a.localhost/x", &["b.localhost"], BadHead::HostDiffers),
        ("GET http://a.localhost:81/x", &["a.localhost"], BadHead::HostDiffers),
        ("GET http://u@a.localhost/x", &["a.localhost"], BadHead::HostForm),
        ("GET ftp://a.localhost/x", &["a.localhost"], BadHead::HostForm),
        ("GET a.localhost", &["a.localhost"], BadHead::NoPath),
        ("GET *", &["a.localhost"], BadHead::NoPath),
    ] {
        assert_eq!(routed(&head(line, hosts)), Err(expected), "{line} {hosts:?}");
    }
}

#[test]
fn an_absolute_form_that_agrees_is_the_same_request() {
    for (line, host) in [
        ("GET http://a.localhost/x", "a.localhost"),
        ("GET http://A.localhost:80/x", "a.localhost."),
        ("GET https://a.localhost/x", "a.localhost:443"),
    ] {
        let case = head(line, &[host]);
        assert_eq!(routed(&case).unwrap().place, Place::Slug { slug: "a".to_owned(), path: "/x" }, "{line}");
    }
}

#[test]
fn http_1_0_may_leave_the_host_out() {
    let case = head("GET /shared/tok/x 1.0", &[]);
    assert_eq!(routed(&case).unwrap().place, Place::Link { token: "tok", rest: "/x" });
}

#[test]
fn a_browser_is_sent_to_the_slugs_origin_where_one_works() {
    let origin = |host: &str, base| slug_origin(&parse_host(host).unwrap(), "s", base, "https", false);
    assert_eq!(origin("127.0.0.1:7080", None).as_deref(), Some("http://s.localhost:7080"));
    assert_eq!(origin("localhost", None).as_deref(), Some("http://s.localhost"));
    assert_eq!(origin("[::1]:1", None).as_deref(), Some("http://s.localhost:1"));
    assert_eq!(origin("192.0.2.7:7080", None), None);
    assert_eq!(origin("share.example", Some("share.example")).as_deref(), Some("https://s.share.example"));
}

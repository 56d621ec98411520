//! The way of the README: one command, a link, a page through it, and its trace in the access log.

use std::process::Command;

use e2e::{
    Machine, api, eventually, http,
    hub::Quickstart,
    targets::{Nginx, succeeds},
    wait::SOON,
};

const PAGE: &str =
    "<!doctype html><html><head><title>t</title></head><body><p>the target's page</p></body></html>";

#[test]
fn the_first_command_of_the_readme_gives_a_link_that_shows_the_target_with_the_banner() {
    let nginx = Nginx::serving(&[("index.html", PAGE.as_bytes()), ("data.bin", b"\x00\x01bytes")]);
    let quickstart = Quickstart::start(Some(&nginx.address.to_string()));
    let share_id = api::text(&quickstart.says, "shareId");
    let name = share_name(&quickstart, &share_id);

    // As a person would: curl, both forms of the link. curl itself knows that names under localhost are the loopback.
    for form in ["shareUrl", "subdomainUrl"] {
        let link = api::text(&quickstart.says, form);
        let page = succeeds(Command::new("curl").args(["-sS", "--fail", "--location", &link]));
        assert!(page.contains("<p>the target's page</p>"), "{form}: {page}");
        assert_ne!(page, PAGE, "{form}: the banner is missing");
        assert!(page.contains(&name), "{form}: the banner names the share `{name}`: {page}");
    }

    // What is no page is not touched by a byte.
    let (edge, _, prefix) = http::split_link(&api::text(&quickstart.says, "shareUrl"));
    let data = http::get(edge, &format!("{}/data.bin", prefix.trim_end_matches('/')));
    assert_eq!((data.status, data.body.as_slice()), (200, &b"\x00\x01bytes"[..]));

    let machine =
        Machine::with(&api::text(&quickstart.says, "api"), &api::text(&quickstart.says, "adminKey"));
    let logs = machine.run(&["--json", "logs", &share_id]);
    let shown = String::from_utf8_lossy(&logs.stdout);
    assert!(logs.status.success() && shown.contains("/data.bin"), "{}", e2e::hub::shown(&logs));
}

#[test]
fn without_a_target_the_built_in_site_is_shown() {
    let quickstart = Quickstart::start(None);
    let (edge, _, path) = http::split_link(&api::text(&quickstart.says, "shareUrl"));
    let page = http::get(edge, &path);
    assert_eq!(page.status, 200, "{}", page.text());
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "content-type {kind}");
}

#[test]
fn a_link_tells_its_visitor_nothing_about_the_target() {
    let nginx = Nginx::answering_everything();
    let quickstart = Quickstart::start(Some(&nginx.address.to_string()));
    let (edge, _, path) = http::split_link(&api::text(&quickstart.says, "shareUrl"));
    let token = path.trim_end_matches('/').rsplit('/').next().expect("a link ends with its token");
    let info = http::get(edge, &format!("/v1/shared/{token}/info"));
    assert_eq!(info.status, 200, "{}", info.text());
    assert!(!info.text().contains(&nginx.address.port().to_string()), "{}", info.text());
}

#[test]
fn a_revoked_link_refuses_the_next_request() {
    let nginx = Nginx::answering_everything();
    let quickstart = Quickstart::start(Some(&nginx.address.to_string()));
    let (edge, _, path) = http::split_link(&api::text(&quickstart.says, "shareUrl"));
    assert_eq!(http::get(edge, &path).status, 200);
    let share_id = api::text(&quickstart.says, "shareId");
    quickstart.api().delete(&format!("/v1/shares/{share_id}")).expect(200);
    assert_eq!(http::get(edge, &path).status, 403);
    // The refusal is an access, too.
    eventually("the refusal in the access log", SOON, || {
        let accesses = quickstart.api().accesses(&share_id);
        let refused =
            accesses.iter().any(|access| access["statusCode"] == 403 && access["denied"].is_string());
        if refused { Ok(()) } else { Err(format!("{accesses:?}")) }
    });
}

fn share_name(quickstart: &Quickstart, share_id: &str) -> String {
    let tunnel_id = api::text(&quickstart.says, "tunnelId");
    // Somebody else's write: the list shows it when the view has seen it.
    let share = eventually("the share in the list", SOON, || {
        let shares = quickstart.api().shares(&tunnel_id);
        let found = shares.iter().find(|share| share["id"] == share_id).cloned();
        found.ok_or_else(|| format!("{shares:?}"))
    });
    api::text(&share, "name")
}

//! The blocks of the how-to pages work as they stand, from top to bottom.

use std::process::Command;

use e2e::{
    Hub, Machine,
    hub::ADMIN_KEY,
    targets::{Nginx, Postgres},
};

const PAGE: &str = include_str!("../../docs/how-to/use-the-api.md");
const WEBHOOKS: &str = include_str!("../../docs/how-to/webhooks.md");

/// The page's shell blocks, one script.
fn script(page: &str) -> String {
    let mut lines = vec!["set -euo pipefail"];
    let mut is_inside = false;
    for line in page.lines() {
        match line {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside => lines.push(line),
            _ => {}
        }
    }
    lines.join("\n")
}

#[test]
fn the_common_jobs_of_the_api_work_as_the_page_says() {
    let script = script(PAGE);
    assert!(script.lines().count() > 40, "the page has lost its blocks");
    let nginx = Nginx::answering_everything();
    let hub = Hub::start();
    let machine = Machine::new(&hub);
    let _online = machine.expose(nginx.address, "anything");
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("bash")
        .args(["-x", "-c", &script])
        .env("HUB", hub.url())
        .env("KEY", ADMIN_KEY)
        .env("TARGET", nginx.address.to_string())
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", e2e::hub::shown(&output));
}

const LOOKING_BACK: &str = include_str!("../../docs/how-to/look-back.md");

#[test]
fn looking_back_works_as_the_page_says() {
    let script = script(LOOKING_BACK);
    assert!(script.lines().count() > 30, "the page has lost its blocks");
    let hub = Hub::start();
    let folder = tempfile::tempdir().expect("a folder");
    let binary = e2e::binaries::binary("hub");
    let beside = binary.parent().expect("a binary lies in a folder");
    let search = format!("{}:{}", beside.display(), std::env::var("PATH").expect("there is a PATH"));
    let output = Command::new("bash")
        .args(["-x", "-c", &script])
        .env("PATH", search)
        .env("HUB", hub.url())
        .env("KEY", ADMIN_KEY)
        .env("DATA", hub.data())
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", e2e::hub::shown(&output));
}

#[test]
fn webhooks_work_as_the_page_says() {
    let script = script(WEBHOOKS);
    assert!(script.lines().count() > 60, "the page has lost its blocks");
    let hub = Hub::start_with(&[("HUB_WEBHOOK_ALLOW", "127.0.0.0/8")]);
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("bash")
        .args(["-x", "-c", &script])
        .env("HUB", hub.url())
        .env("KEY", ADMIN_KEY)
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", e2e::hub::shown(&output));
}

const EXTERNAL_LOG: &str = include_str!("../../docs/how-to/external-log.md");

#[test]
fn the_log_in_postgresql_works_as_the_page_says() {
    let script = script(EXTERNAL_LOG);
    assert!(script.lines().count() > 20, "the page has lost its blocks");
    let server = Postgres::start();
    let folder = tempfile::tempdir().expect("a folder");
    let binary = e2e::binaries::binary("hub");
    let beside = binary.parent().expect("a binary lies in a folder");
    let tools = Postgres::programs().display().to_string();
    let path = std::env::var("PATH").expect("there is a PATH");
    let mut bash = e2e::hub::without_settings("bash");
    let output = bash
        .args(["-x", "-c", &script])
        .env("PATH", format!("{}:{tools}:{path}", beside.display()))
        .env("PGHOST", server.address.ip().to_string())
        .env("PGPORT", server.address.port().to_string())
        .env("PGUSER", "postgres")
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", e2e::hub::shown(&output));
}

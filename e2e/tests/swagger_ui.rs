//! `/docs` in a real browser that has no network: the page is whole, its policy is kept, and a request is tried out.
//!
//! `PC_PICTURES=DIR` keeps pictures of what was seen.

use std::{env, path::PathBuf};

use e2e::{Hub, browser::Page, hub::ADMIN_KEY};
use serde_json::{Value, json};

fn picture(page: &mut Page, name: &str) {
    if let Some(folder) = env::var_os("PC_PICTURES") {
        page.picture(&PathBuf::from(folder).join(name));
    }
}

#[test]
fn the_page_works_without_a_network_and_a_request_can_be_tried_out_from_it() {
    let hub = Hub::start();
    let mut page = Page::open(&format!("{}/docs", hub.url()));
    let description = hub.api().get("/openapi.json").expect(200);
    let described: usize = description["paths"].as_object().expect("paths").values().map(operations).sum();
    page.wait_for("all operations", &format!("document.querySelectorAll('.opblock').length === {described}"));
    picture(&mut page, "docs.png");

    // As a person: credentials first, then the operation, then the button.
    page.click(".scheme-container .btn.authorize, .auth-wrapper .btn.authorize");
    page.click(".auth-container input[type=text], .auth-container input[type=password]");
    page.write(ADMIN_KEY);
    page.click(".auth-container .auth-btn-wrapper .authorize");
    page.click(".auth-container .auth-btn-wrapper .btn-done");
    page.click("#operations-Authentication-whoAmI .opblock-summary-control");
    page.click("#operations-Authentication-whoAmI .execute");
    let status = "#operations-Authentication-whoAmI .live-responses-table .response .response-col_status";
    page.wait_for(
        "the answer",
        &format!("(document.querySelector({status:?})?.textContent ?? '').startsWith('200')"),
    );
    let shown = page.value(
        "document.querySelector('#operations-Authentication-whoAmI .live-responses-table').textContent",
    );
    let shown = shown.as_str().expect("text");
    assert!(shown.contains("workspaceName") && shown.contains("admin"), "{shown}");
    picture(&mut page, "tried-out.png");

    // With a body from the description's own example.
    page.click("#operations-Agents-registerAgent .opblock-summary-control");
    page.click("#operations-Agents-registerAgent .execute");
    let status = "#operations-Agents-registerAgent .live-responses-table .response .response-col_status";
    page.wait_for(
        "the agent",
        &format!("(document.querySelector({status:?})?.textContent ?? '').startsWith('201')"),
    );
    let agents = hub.api().get("/v1/agents").expect(200);
    assert_eq!(agents[0]["label"], "alices-laptop", "{agents}");

    assert_eq!(page.value("window.refused"), json!([]), "the page's policy refused something");
    assert_eq!(page.value("window.failed"), json!([]), "the page's scripts failed");
    let origins = "[...new Set(performance.getEntriesByType('resource').map(e => new URL(e.name).origin))]";
    let origins = page.value(origins);
    assert_eq!(origins, json!([hub.url()]), "the page asked another host");
}

fn operations(path: &Value) -> usize {
    path.as_object().expect("operations").len()
}

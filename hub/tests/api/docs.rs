//! The description and its page, from the binary.

use hub::api::docs::{FILES, POLICY};
use reqwest::{Method, StatusCode};

use crate::support::Running;

#[actix::test]
async fn the_description_is_served_as_it_is_checked_in() {
    let hub = Running::start().await;
    let answer = hub.send(Method::GET, "/openapi.json", &[], None).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/openapi.json");
    let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(place).unwrap()).unwrap();
    // Not `assert_eq`: the whole of it twice would help nobody.
    assert!(answer.body == kept, "UPDATE_GOLDENS=1 cargo test -p hub openapi writes schemas/openapi.json");
    hub.stop().await;
}

#[actix::test]
async fn the_page_is_whole_and_asks_no_other_host() {
    let hub = Running::start_with(&["--limit-public-per-min", "1"]).await;
    let page = hub.send(Method::GET, "/docs", &[], None).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.header("content-security-policy"), POLICY);
    assert!(!POLICY.contains("unsafe") && POLICY.contains("default-src 'none'"));
    let html = page.body.as_str().unwrap();
    assert!(!html.contains("://"), "the page names another host: {html}");
    assert!(!html.contains("<script>") && !html.contains("style="), "the policy would refuse this: {html}");
    for file in FILES {
        assert!(html.contains(&format!("docs/{file}")), "{file} is of no use");
        let part = hub.send(Method::GET, &format!("/docs/{file}"), &[], None).await;
        assert_eq!(part.status, StatusCode::OK, "{file}: {:?}", part.headers);
        assert_eq!(part.header("x-content-type-options"), "nosniff", "{file}");
        let media_type = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript",
            "css" => "text/css",
            "png" => "image/png",
            other => panic!("a file of another kind: {other}"),
        };
        assert!(part.header("content-type").starts_with(media_type), "{file}: {:?}", part.headers);
    }
    for file in ["swagger-initializer.js", "..%2fadmin.key", "none"] {
        let none = hub.send(Method::GET, &format!("/docs/{file}"), &[], None).await;
        assert_eq!((none.status, none.code()), (StatusCode::NOT_FOUND, "no_such_url"), "{file}");
    }
    hub.stop().await;
}

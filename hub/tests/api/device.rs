//! Device login over HTTP, and the page for people.

use hub::device_login::{DeviceLimits, INTERVAL_S};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    agent_upkeep::hub_at,
    support::{ADMIN, Answer, Running, client},
};

async fn begin(hub: &Running) -> Answer {
    let body = json!({ "label": "laptop", "agentName": "alice" });
    let begun = hub.send(Method::POST, "/v1/device/code", &[], Some(body)).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    begun
}

async fn ask(hub: &Running, begun: &Answer) -> Answer {
    let path = format!("/v1/device/token?device_code={}", begun.text("deviceCode"));
    hub.send(Method::GET, &path, &[], None).await
}

async fn decide(hub: &Running, secret: &str, what: &str, code: &str) -> Answer {
    let body = json!({ "userCode": code });
    hub.send(Method::POST, &format!("/v1/device/{what}"), &[("x-api-key", secret)], Some(body)).await
}

fn wait_ms() -> i64 {
    i64::try_from(INTERVAL_S).unwrap() * 1_000
}

#[actix::test]
async fn a_machine_that_was_approved_gets_its_key_exactly_once() {
    let (hub, clock) = hub_at().await;
    let begun = begin(&hub).await;
    assert_eq!((&begun.body["expiresIn"], &begun.body["interval"]), (&json!(900), &json!(5)));
    assert_eq!(begun.text("verificationUrl"), format!("{}/device", hub.hub.api_url()));
    let pending = ask(&hub, &begun).await;
    assert_eq!((pending.status, pending.code()), (StatusCode::BAD_REQUEST, "authorization_pending"));
    assert_eq!(ask(&hub, &begun).await.code(), "slow_down");
    let before = hub.get("/v1/api-keys").await.body.as_array().unwrap().len();
    let approved = decide(&hub, ADMIN, "approve", &begun.text("userCode").to_lowercase()).await;
    assert_eq!((approved.status, approved.text("label")), (StatusCode::OK, "laptop".to_owned()));
    assert_eq!(
        hub.get("/v1/api-keys").await.body.as_array().unwrap().len(),
        before,
        "no key that nobody has"
    );
    clock.advance_ms(2 * wait_ms());
    let path = format!("/v1/device/token?device_code={}", begun.text("deviceCode"));
    assert_eq!(hub.send(Method::HEAD, &path, &[], None).await.status, StatusCode::OK, "it takes nothing");
    let token = ask(&hub, &begun).await;
    assert_eq!(token.status, StatusCode::OK, "{token:?}");
    assert_eq!((&token.body["workspaceName"], &token.body["scopes"]), (&json!("default"), &json!(["write"])));
    let whoami = hub.send(Method::GET, "/v1/whoami", &[("x-api-key", &token.text("apiKey"))], None).await;
    assert_eq!(whoami.text("keyName"), "device login: laptop");
    assert_eq!(ask(&hub, &begun).await.code(), "expired_token", "once");
    let events = hub.hub.core.log.read_all(0, domain::recorded::Families::ALL, 10_000).await.unwrap();
    let secrets = [token.text("apiKey"), begun.text("deviceCode"), begun.text("userCode")];
    assert!(events.iter().all(|event| secrets.iter().all(|secret| !event.data.contains(secret.as_str()))));
    hub.stop().await;
}

#[actix::test]
async fn a_machine_that_was_denied_forgotten_or_whose_approver_lost_his_key_gets_none() {
    let (hub, clock) = hub_at().await;
    let denied = begin(&hub).await;
    decide(&hub, ADMIN, "deny", &denied.text("userCode")).await;
    assert_eq!(ask(&hub, &denied).await.code(), "access_denied");
    let made = hub.post("/v1/api-keys", json!({ "name": "b", "scopes": ["admin"] })).await;
    let orphan = begin(&hub).await;
    assert_eq!(
        decide(&hub, &made.text("key"), "approve", &orphan.text("userCode")).await.status,
        StatusCode::OK
    );
    hub.delete(&format!("/v1/api-keys/{}", made.text("id"))).await;
    assert_eq!(ask(&hub, &orphan).await.code(), "access_denied", "the approver's key was revoked meanwhile");
    let late = begin(&hub).await;
    clock.advance_ms(900_000);
    assert_eq!(decide(&hub, ADMIN, "approve", &late.text("userCode")).await.code(), "device_code_not_found");
    assert_eq!(ask(&hub, &late).await.code(), "expired_token");
    let path = "/v1/device/token?device_code=pcd_nobody";
    assert_eq!(hub.send(Method::GET, path, &[], None).await.code(), "expired_token");
    hub.stop().await;
}

#[actix::test]
async fn only_who_may_make_keys_approves_and_one_decision_counts() {
    let hub = Running::start().await;
    let begun = begin(&hub).await;
    let code = begun.text("userCode");
    for scope in ["write", "read", "agent"] {
        let made = hub.post("/v1/api-keys", json!({ "name": scope, "scopes": [scope] })).await;
        let refused = decide(&hub, &made.text("key"), "approve", &code).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "scope_missing"));
    }
    assert_eq!(decide(&hub, ADMIN, "approve", &code).await.status, StatusCode::OK);
    assert_eq!(decide(&hub, ADMIN, "approve", &code).await.status, StatusCode::OK, "said twice");
    let late = decide(&hub, ADMIN, "deny", &code).await;
    assert_eq!((late.status, late.code()), (StatusCode::CONFLICT, "device_decided"));
    hub.stop().await;
}

#[actix::test]
async fn who_guesses_codes_is_locked_out_with_all_keys_of_the_workspace() {
    let (hub, clock) = hub_at().await;
    let begun = begin(&hub).await;
    let second = hub.post("/v1/api-keys", json!({ "name": "b", "scopes": ["admin"] })).await.text("key");
    for _ in 0..DeviceLimits::default().wrong_codes {
        assert_eq!(decide(&hub, ADMIN, "approve", "BBBB-BBBB").await.code(), "device_code_not_found");
    }
    let locked = decide(&hub, &second, "approve", &begun.text("userCode")).await;
    assert_eq!((locked.status, locked.code()), (StatusCode::TOO_MANY_REQUESTS, "device_locked_out"));
    assert!(locked.body["retryAfter"].as_u64().unwrap() <= 901);
    clock.advance_ms(900_000);
    let fresh = begin(&hub).await;
    assert_eq!(decide(&hub, ADMIN, "approve", &fresh.text("userCode")).await.status, StatusCode::OK);
    hub.stop().await;
}

#[actix::test]
async fn a_person_approves_on_a_page_without_scripts() {
    let hub = Running::start().await;
    let url = format!("{}/device", hub.hub.api_url());
    let page = client().get(&url).send().await.unwrap();
    let header = |name: &str, page: &reqwest::Response| page.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-type", &page).starts_with("text/html"));
    let csp = header("content-security-policy", &page);
    assert!(csp.contains("default-src 'none'") && !csp.contains("unsafe-inline"), "{csp}");
    let text = page.text().await.unwrap();
    assert!(text.contains("<form") && !text.contains("<script") && !text.contains("style"), "{text}");

    let begun = begin(&hub).await;
    let submit = async |key: &str, code: &str, decision: &str| {
        let form = format!("api_key={key}&user_code={code}&decision={decision}");
        let request =
            client().post(&url).header("content-type", "application/x-www-form-urlencoded").body(form);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let (status, text) = submit("pc_wrong", &begun.text("userCode"), "approve").await;
    assert!(
        status == StatusCode::UNAUTHORIZED && text.contains("role=\"alert\"") && !text.contains("pc_wrong"),
        "{text}"
    );
    assert_eq!(submit(ADMIN, "BBBB-BBBB", "approve").await.0, StatusCode::NOT_FOUND);
    assert_eq!(submit(ADMIN, &begun.text("userCode"), "dance").await.0, StatusCode::BAD_REQUEST);
    let (status, text) = submit(ADMIN, &begun.text("userCode"), "approve").await;
    assert!(status == StatusCode::OK && text.contains("laptop") && !text.contains(ADMIN), "{text}");
    assert_eq!(ask(&hub, &begun).await.status, StatusCode::OK);
    let json = hub.send(Method::POST, "/device", &[], Some(json!({}))).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    hub.stop().await;
}

#[actix::test]
async fn what_a_machine_calls_itself_is_shown_as_text() {
    let hub = Running::start().await;
    let body = json!({ "label": "<b>x</b>" });
    let begun = hub.send(Method::POST, "/v1/device/code", &[], Some(body)).await;
    let form = format!("api_key={ADMIN}&user_code={}&decision=approve", begun.text("userCode"));
    let url = format!("{}/device", hub.hub.api_url());
    let request = client().post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(!text.contains("<b>"), "{text}");
    hub.stop().await;
}

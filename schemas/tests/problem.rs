//! The one error body is what product and API reference show.

use schemas::problem::{FieldProblem, Problem};
use serde_json::json;

fn tunnel_not_found() -> Problem {
    Problem {
        status_code: 404,
        error: "Not Found".to_owned(),
        code: "tunnel_not_found".to_owned(),
        message: "No tunnel tun_123 in this workspace.".to_owned(),
        request_id: "req_1".to_owned(),
        details: vec![],
        retry_after: None,
    }
}

#[test]
fn a_problem_has_one_shape_and_nothing_that_does_not_apply() {
    let body = json!({
        "statusCode": 404,
        "error": "Not Found",
        "code": "tunnel_not_found",
        "message": "No tunnel tun_123 in this workspace.",
        "requestId": "req_1",
    });
    assert_eq!(serde_json::to_value(tunnel_not_found()).unwrap(), body);
    assert_eq!(serde_json::from_value::<Problem>(body).unwrap(), tunnel_not_found());
}

#[test]
fn a_validation_problem_names_its_fields_and_a_limit_its_wait() {
    let detail = FieldProblem { field: "name".to_owned(), message: "must be 1-100 characters".to_owned() };
    let problem = Problem { details: vec![detail], retry_after: Some(7), ..tunnel_not_found() };
    let body = serde_json::to_value(&problem).unwrap();
    assert_eq!(body["details"], json!([{ "field": "name", "message": "must be 1-100 characters" }]));
    assert_eq!(body["retryAfter"], 7);
    assert_eq!(serde_json::from_value::<Problem>(body).unwrap(), problem);
}

#[test]
fn rfc_9457_is_the_same_body_and_more() {
    let standard = tunnel_not_found().rfc9457();
    assert_eq!(standard["type"], "urn:private-connect:problem:tunnel_not_found");
    assert_eq!(standard["title"], "Not Found");
    assert_eq!(standard["status"], 404);
    assert_eq!(standard["detail"], "No tunnel tun_123 in this workspace.");
    assert_eq!(standard["instance"], "req_1");
    assert_eq!(serde_json::from_value::<Problem>(standard).unwrap(), tunnel_not_found());
}

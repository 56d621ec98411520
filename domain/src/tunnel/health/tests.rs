//! What is found in words of version 1 becomes a step and words, and goes back without a loss.

use serde_json::json;

use super::*;

fn read(old: &Value) -> Value {
    unhealthy_from_1(old.clone())
}

#[test]
fn the_step_comes_out_of_the_words_where_there_is_one() {
    for (words, step, reason) in [
        ("tcp: connection refused", Some("tcp"), "connection refused"),
        ("http: it answers 503", Some("http"), "it answers 503"),
        ("dns: no such host: db.internal", Some("dns"), "no such host: db.internal"),
        ("it does not answer", None, "it does not answer"),
        ("the agent is not connected", None, "the agent is not connected"),
        // No release wrote these as steps.
        ("agent: gone", None, "agent: gone"),
        ("quic: refused", None, "quic: refused"),
        ("tcp:refused", None, "tcp:refused"),
        ("", None, ""),
    ] {
        let mut expected = json!({ "reason": reason });
        if let Some(step) = step {
            expected["step"] = step.into();
        }
        assert_eq!(read(&json!({ "reason": words })), expected, "{words:?}");
    }
}

#[test]
fn every_value_that_could_be_there_passes_without_a_panic() {
    for odd in [json!(null), json!([]), json!("tcp: x"), json!(7), json!({}), json!({ "reason": 7 })] {
        assert_eq!(read(&odd), odd);
        assert_eq!(unhealthy_to_1(odd.clone()), odd);
    }
    assert_eq!(unhealthy_to_1(json!({ "step": 7, "reason": "x" })), json!({ "reason": "x" }));
}

#[test]
fn nothing_is_lost_on_the_way_to_version_1_and_back_but_that_nobody_could_be_asked() {
    let steps = Step::ALL.into_iter().map(Some).chain([None]);
    for step in steps {
        let found = ServiceUnhealthy { step, reason: "no answer: 5 s".to_owned() };
        let there = unhealthy_to_1(serde_json::to_value(&found).unwrap());
        assert!(there.get("step").is_none(), "{there}");
        let back: ServiceUnhealthy = serde_json::from_value(read(&there)).unwrap();
        let kept = step.filter(|step| *step != Step::Agent);
        assert_eq!(back, ServiceUnhealthy { step: kept, ..found });
    }
}

#[test]
fn a_step_is_spelled_as_it_is_stored() {
    for step in Step::ALL {
        assert_eq!(serde_json::to_value(step).unwrap(), step.name());
    }
}

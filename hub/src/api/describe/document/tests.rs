//! The checked-in document, and rules that any OpenAPI document of ours keeps.

use std::{collections::BTreeSet, fs, path::PathBuf};

use domain::policy::slug::{self, CHOSEN_CHARS_MIN};
use serde_json::Value;

use super::{GROUPS, document, text};
use crate::api::{
    describe::{Access, Operation},
    table,
};

fn made() -> Value {
    document(&table())
}

#[test]
fn openapi_is_checked_in_as_the_routes_describe_themselves() {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../schemas/openapi.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&place, text()).unwrap();
    }
    let kept = fs::read_to_string(&place).unwrap_or_default();
    assert!(kept == text(), "schemas/openapi.json: run with UPDATE_GOLDENS=1 and look at the diff");
}

/// Every value in the document with the words that lead to it.
fn walk(value: &Value, place: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(place, value);
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| walk(member, &format!("{place}/{name}"), visit));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, place, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_referred_to() {
    let document = made();
    let mut used = BTreeSet::new();
    walk(&document, "", &mut |place, value| {
        if let Some(reference) = value.as_object().and_then(|members| members.get("$ref")) {
            let reference = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(reference).is_some(), "{place}: {reference} leads nowhere");
            used.insert(reference.to_owned());
        }
    });
    for kind in ["schemas", "headers", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(used.contains(&format!("/components/{kind}/{name}")), "nobody refers to {kind}/{name}");
        }
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_a_group_words_and_a_success() {
    let mut ids = BTreeSet::new();
    for route in table() {
        let (id, operation) = (route.operation.id, &route.operation);
        assert!(ids.insert(id), "two operations are called {id}");
        assert!(id.chars().all(char::is_alphanumeric) && id.starts_with(char::is_lowercase), "{id}");
        assert!(
            GROUPS.iter().any(|(name, _)| *name == operation.group),
            "{id}: no group {}",
            operation.group
        );
        assert!(
            operation.summary.starts_with(char::is_uppercase) && !operation.summary.ends_with('.'),
            "{id}"
        );
        assert!(operation.words.is_empty() || operation.words.ends_with('.'), "{id}: {}", operation.words);
        assert!(operation.answers.iter().any(|answer| (200..300).contains(&answer.status)), "{id}");
    }
}

#[test]
fn every_part_of_a_path_is_described_and_no_other() {
    for route in table() {
        let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let described = route.operation.path.iter().map(|parameter| parameter.name);
        assert!(parts.eq(described), "{} {}", route.method, route.path);
    }
}

#[test]
fn what_all_routes_of_a_kind_have_in_common_is_described() {
    for route in table() {
        let (what, operation) = (format!("{} {}", route.method, route.path), &route.operation);
        let Operation { headers, refusals, takes, answers, .. } = operation;
        let is_guarded = operation.access.is_guarded();
        // What records nothing, gives another code each time, or is a page's form.
        let has_no_repetition =
            ["sendHeartbeat", "startDeviceLogin", "sendDevicePage"].contains(&operation.id);
        let is_repeatable = route.method == "POST" && !has_no_repetition;
        assert_eq!(headers.contains("IdempotencyKey"), is_repeatable, "{what}");
        assert_eq!(headers.contains("IfMatch"), matches!(route.method, "PATCH" | "DELETE"), "{what}");
        assert_eq!(takes.is_some(), matches!(route.method, "POST" | "PATCH" | "PUT"), "{what}");
        let answers_401 = refusals.contains_key(&401) || answers.iter().any(|answer| answer.status == 401);
        // Metrics are guarded where the operator set a token for them.
        let may_be_guarded = operation.access == Access::InBody || operation.id == "getMetrics";
        assert_eq!(answers_401, is_guarded || may_be_guarded, "{what}");
        let shows = |header: &str| answers.iter().any(|answer| answer.headers.contains(header));
        let is_list = operation.query.iter().any(|parameter| parameter.name == "cursor")
            // Its places are positions, which anybody may name.
            || operation.id == "listEvents";
        assert_eq!(shows("Link"), is_list, "{what}");
        if matches!(route.method, "PATCH" | "DELETE") {
            assert!(shows("ETag") && shows("PConnect-Position"), "{what}");
        }
    }
}

#[test]
fn every_code_is_in_the_list_of_codes() {
    let list = include_str!("../../../../../docs/status-codes.md");
    for route in table() {
        for (status, codes) in &route.operation.refusals {
            for code in codes {
                let line = list.lines().find(|line| {
                    line.contains(&format!("`{code}`")) && line.contains(&format!("| {status} |"))
                });
                assert!(line.is_some(), "{} {}: {status} {code}", route.method, route.path);
            }
        }
    }
}

#[test]
fn no_subdomain_that_is_reserved_fits_its_description() {
    let document = made();
    let pattern = document["components"]["schemas"]["Subdomain"]["pattern"].as_str().unwrap();
    let excluded = pattern.strip_prefix("^(?!(").unwrap().split_once(")$)").unwrap().0;
    let excluded: BTreeSet<&str> = excluded.split('|').collect();
    // Those that are too short or have an underscore fit no subdomain anyway.
    let could_be = |name: &&&str| name.len() >= CHOSEN_CHARS_MIN && !name.contains('_');
    let reserved: BTreeSet<&str> = slug::reserved().iter().filter(could_be).copied().collect();
    assert_eq!(excluded, reserved, "schemas/src/rest/texts.rs");
}

#[test]
fn no_secret_stands_in_the_document() {
    // Examples are read by everybody, and copied.
    for route in table() {
        let text = format!("{:?}", route.operation);
        assert!(!text.contains("pc_") && !text.contains("pca_"), "{}", route.operation.id);
    }
}

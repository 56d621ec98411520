//! Whether a value has the shape that the description says: the part of JSON Schema that the description uses. (Patterns
//! are left to `ops/api-fuzz`, which sends texts from both sides of each.)

use std::collections::BTreeSet;

use serde_json::Value;

/// What is wrong with a value, with its place; empty when nothing is.
pub(crate) fn wrong(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return wrong(document, resolved(document, reference), value, place);
    }
    let mut found = Vec::new();
    for word in ["oneOf", "anyOf"] {
        let Some(choices) = schema[word].as_array() else { continue };
        let fits = |choice: &&Value| wrong(document, choice, value, place).is_empty();
        let count = choices.iter().filter(fits).count();
        if count == 0 || (word == "oneOf" && count > 1) {
            found.push(format!("{place}: fits {count} of {word}: {value}"));
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        found.extend(wrong(document, &merged(document, parts), value, place));
    }
    if let Some(choices) = schema["enum"].as_array()
        && !choices.contains(value)
    {
        found.push(format!("{place}: {value} is none of {choices:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![],
    };
    if !types.is_empty() && !types.iter().any(|kind| is_of(kind, value)) {
        found.push(format!("{place}: {value} is no {types:?}"));
    }
    found.extend(limits(schema, value, place));
    if let Some(object) = value.as_object() {
        let known = schema["properties"].as_object();
        let names: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        found.extend(
            required.filter(|name| !names.contains(name)).map(|name| format!("{place}: no `{name}`")),
        );
        for (name, value) in object {
            match known.and_then(|known| known.get(name)) {
                Some(schema) => found.extend(wrong(document, schema, value, &format!("{place}.{name}"))),
                // Answers too must not say what is not described.
                None if known.is_some() => found.push(format!("{place}: `{name}` is not described")),
                None => {}
            }
        }
    }
    if schema.get("items").is_some() {
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(wrong(document, &schema["items"], item, &format!("{place}[{index}]")));
        }
    }
    found
}

/// One object with the members of all parts: each part alone knows nothing of the others'.
fn merged(document: &Value, parts: &[Value]) -> Value {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for part in parts {
        let part = part["$ref"].as_str().map_or(part, |reference| resolved(document, reference));
        properties.extend(part["properties"].as_object().unwrap().clone());
        required.extend(part["required"].as_array().into_iter().flatten().cloned());
    }
    serde_json::json!({ "type": "object", "properties": properties, "required": required })
}

fn resolved<'a>(document: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type of JSON Schema: {other}"),
    }
}

fn limits(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let length = value.as_str().map(|text| text.chars().count());
    let items = value.as_array().map(Vec::len);
    let as_number = |count: Option<usize>| count.map(|count| f64::from(u32::try_from(count).unwrap()));
    let rules = [
        ("minLength", as_number(length), false),
        ("maxLength", as_number(length), true),
        ("minItems", as_number(items), false),
        ("maxItems", as_number(items), true),
        ("minimum", value.as_f64(), false),
        ("maximum", value.as_f64(), true),
    ];
    let broken = rules.into_iter().filter(|(name, measured, is_upper)| {
        let (Some(limit), Some(measured)) = (schema[*name].as_f64(), *measured) else { return false };
        if *is_upper { measured > limit } else { measured < limit }
    });
    broken.map(|(name, ..)| format!("{place}: {name} is broken by {value}")).collect()
}

#[test]
fn a_value_of_another_shape_is_noticed() {
    let document = serde_json::json!({ "components": { "schemas": {
        "Name": { "type": "string", "minLength": 1, "maxLength": 3 },
        "Thing": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "$ref": "#/components/schemas/Name" },
                "ports": { "type": ["array", "null"], "items": { "type": "integer", "minimum": 1, "maximum": 9 } },
                "kind": { "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a", "b"] }] },
            },
        },
    } } });
    let thing = serde_json::json!({ "$ref": "#/components/schemas/Thing" });
    let more = serde_json::json!({ "allOf": [thing, { "properties": { "age": { "type": "integer" } }, "required": ["age"] }] });
    for (text, is_right) in [
        (r#"{ "name": "abc", "ports": [1, 9], "kind": "a" }"#, true),
        (r#"{ "name": "äöü", "ports": null, "kind": null }"#, true),
        (r#"{ "name": "abcd" }"#, false),
        (r#"{ "name": "" }"#, false),
        (r#"{ "name": null }"#, false),
        (r#"{ "ports": [] }"#, false),
        (r#"{ "name": "a", "ports": [0] }"#, false),
        (r#"{ "name": "a", "ports": [1.5] }"#, false),
        (r#"{ "name": "a", "kind": "c" }"#, false),
        (r#"{ "name": "a", "colour": "red" }"#, false),
        ("[]", false),
    ] {
        let value = serde_json::from_str(text).unwrap();
        let found = wrong(&document, &thing, &value, "thing");
        assert_eq!(found.is_empty(), is_right, "{text}: {found:?}");
    }
    for (text, is_right) in [
        (r#"{ "name": "abc", "age": 7 }"#, true),
        (r#"{ "name": "abc" }"#, false),
        (r#"{ "age": 7 }"#, false),
        (r#"{ "name": "abc", "age": 7, "colour": "red" }"#, false),
    ] {
        let found = wrong(&document, &more, &serde_json::from_str(text).unwrap(), "more");
        assert_eq!(found.is_empty(), is_right, "{text}: {found:?}");
    }
}

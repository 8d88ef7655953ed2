//! The schema accepts what the server accepts, and names every setting.

use serde_json::{Value, json};

use super::*;
use crate::config::schema;

/// What the schema does not accept in `value`. Supports only what our schema uses.
fn refused(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let schema = schema.as_object().expect("a schema");
    let mut found = Vec::new();
    for (rule, said) in schema {
        let fits = match &**rule {
            "$schema" | "title" | "description" | "default" | "items" | "properties" => true,
            "type" => {
                let types = said.as_array().map_or_else(|| vec![said.clone()], Clone::clone);
                types.iter().any(|name| name == type_of(value))
            }
            "enum" => said.as_array().expect("values").contains(value),
            "anyOf" => said
                .as_array()
                .expect("schemas")
                .iter()
                .any(|one| refused(one, value, path).is_empty()),
            "additionalProperties" => {
                let known = schema["properties"].as_object().expect("properties");
                value
                    .as_object()
                    .is_none_or(|table| table.keys().all(|key| known.contains_key(key)))
            }
            "required" => said
                .as_array()
                .expect("names")
                .iter()
                .all(|name| value.get(name.as_str().expect("a name")).is_some()),
            other => panic!("{path}: what is {other}?"),
        };
        if !fits {
            found.push(format!("{path}: {rule} {said}, not {value}"));
        }
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        if let Some(schema) = schema.get("properties").and_then(|all| all.get(name)) {
            found.extend(refused(schema, below, &format!("{path}.{name}")));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(schema) = schema.get("items") {
            found.extend(refused(schema, item, path));
        }
    }
    found
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn of_toml(text: &str) -> Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn the_example_fits_the_schema() {
    let schema = schema();
    for example in [EXAMPLE.to_owned(), whole_example()] {
        assert_eq!(refused(&schema, &of_toml(&example), ""), <[String; 0]>::default());
    }
    for wrong in [
        "lissten = 1",
        "workers = []",
        "auth.mode = \"alow-all\"",
        "[[assign]]\npublic_key = \"a\"",
        "paths = [\"/x\"]",
        "admin.token = 5",
    ] {
        assert!(!refused(&schema, &of_toml(wrong), "").is_empty(), "{wrong}");
    }
}

#[test]
fn words_are_those_that_are_read() {
    let schema = schema();
    let of = |path: [&str; 2]| schema["properties"][path[0]]["properties"][path[1]]["enum"].clone();
    for (path, reads) in [
        (["auth", "mode"], "auth.mode"),
        (["auth", "bind"], "auth.bind"),
        (["storage", "kind"], "storage.kind"),
    ] {
        for word in of(path).as_array().expect("words") {
            parse(&format!("{reads} = {word}"));
        }
    }
    assert_eq!(of(["auth", "mode"]), json!(["allow-all", "grants", "jwt", "http"]));
}

#[test]
fn the_schema_has_the_words_and_the_defaults_of_the_example() {
    let schema = schema();
    let limits = &schema["properties"]["limits"];
    assert!(
        limits["description"]
            .as_str()
            .is_some_and(|said| said.starts_with("What clients can make"))
    );
    let stall = &limits["properties"]["stall_timeout"];
    assert_eq!(stall["default"], "30s");
    assert!(stall["description"].as_str().is_some_and(|said| said.contains("stops reading")));
    let grant = &schema["properties"]["auth"]["properties"]["grant"]["items"];
    assert!(grant["properties"]["events"]["description"].is_string(), "{grant:#}");
    assert_eq!(grant["required"], json!(["public_key"]));
}

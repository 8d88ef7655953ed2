//! What a JSON schema does not accept in a value. Knows only the rules that the schemas of these tests use.

use serde_json::Value;

/// Each fault with its place; a rule that is unknown here is a fault of the schema.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(schema, schema, value, "$", &mut found);
    found
}

fn look(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    for (rule, said) in schema.as_object().expect("a schema") {
        let length = value.as_str().map(|text| text.chars().count() as u64);
        let at_least = |count: Option<u64>| count.is_none_or(|count| Some(count) >= said.as_u64());
        let at_most = |count: Option<u64>| count.is_none_or(|count| Some(count) <= said.as_u64());
        let fits = match &**rule {
            "$schema" | "$defs" | "title" | "properties" | "items" => true,
            "$ref" => {
                let name = said.as_str().and_then(|name| name.strip_prefix('#'));
                let other = name.and_then(|name| root.pointer(name)).expect("a definition");
                look(root, other, value, path, found);
                true
            }
            "type" => match said.as_str().expect("a type") {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("{path}: what is {other}?"),
            },
            "enum" => said.as_array().expect("values").contains(value),
            "minimum" => value.as_i64().is_none_or(|number| Some(number) >= said.as_i64()),
            "maximum" => value.as_i64().is_none_or(|number| Some(number) <= said.as_i64()),
            "minLength" => at_least(length),
            "maxLength" => at_most(length),
            "minItems" => at_least(value.as_array().map(|items| items.len() as u64)),
            "required" => {
                let names = said.as_array().expect("names").iter().filter_map(Value::as_str);
                value
                    .as_object()
                    .is_none_or(|it| names.into_iter().all(|name| it.contains_key(name)))
            }
            "additionalProperties" => {
                assert_eq!(said, false, "{path}: only false is known");
                let known = schema["properties"].as_object().expect("properties");
                value.as_object().is_none_or(|it| it.keys().all(|name| known.contains_key(name)))
            }
            other => panic!("{path}: what is {other}?"),
        };
        if !fits {
            found.push(format!("{path}: {rule} {said}, not {value}"));
        }
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        if let Some(schema) = schema.get("properties").and_then(|all| all.get(name)) {
            look(root, schema, below, &format!("{path}.{name}"), found);
        }
    }
    if let Some(schema) = schema.get("items") {
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            look(root, schema, item, &format!("{path}[{at}]"), found);
        }
    }
}

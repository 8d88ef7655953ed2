//! The configuration file as JSON Schema, for editors.
//!
//! Keeps: it is built from the types that the file is read into, and from `config.example.toml`, which has the
//! descriptions and the defaults. Leaves out: combinations that are wrong (`check`).

use std::path::PathBuf;

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::webhooks::Begin;
use serde_json::{Map, Value, json};

use super::layer::{Layer, below};
use super::{EXAMPLE, Settings};

/// What is allowed somewhere.
pub(super) trait Described {
    /// Whether it is required in an entry of a list of tables.
    const REQUIRED: bool = true;

    /// As JSON Schema.
    fn schema() -> Value;
}

impl<T: Described> Described for Option<T> {
    const REQUIRED: bool = false;

    fn schema() -> Value {
        T::schema()
    }
}

impl<T: Described> Described for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// A value that is written as a text.
macro_rules! text {
    ($($type:ty),*) => {$(
        impl Described for $type {
            fn schema() -> Value {
                json!({ "type": "string" })
            }
        }
    )*};
}
pub(super) use text;
text!(String, PathBuf, PublicKey, StoreId);

impl Described for Begin {
    fn schema() -> Value {
        json!({ "enum": ["start", "now"] })
    }
}

/// A text or a list of texts, or whatever else `item` allows.
pub(super) fn one_or_several(item: &Value) -> Value {
    json!({ "anyOf": [item, { "type": "array", "items": item }] })
}

/// A table with these settings, and whether each is required.
pub(super) fn table(fields: &[(&str, Value, bool)]) -> Value {
    let required: Vec<_> = fields.iter().filter(|field| field.2).map(|field| field.0).collect();
    let properties = fields.iter().map(|(name, schema, _)| ((*name).to_owned(), schema.clone()));
    let properties: Map<_, _> = properties.collect();
    let mut table =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        table["required"] = json!(required);
    }
    table
}

/// The whole file.
pub(crate) fn schema() -> Value {
    let mut schema = Settings::schema();
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Configuration of eventlog-server");
    for (path, said) in explained() {
        if let Some(setting) = at(&mut schema, &path) {
            setting.insert("description".to_owned(), said.into());
        }
    }
    let defaults = EXAMPLE.parse().unwrap_or_default();
    set_defaults(&mut schema, "", &defaults);
    schema
}

/// Whether there is a setting at `path` that has values of its own, and not further settings.
pub(super) fn takes_values(schema: &Value, path: &str) -> bool {
    let mut found = schema;
    for name in path.split('.') {
        let table = found.get("items").unwrap_or(found);
        let Some(next) = table.get("properties").and_then(|all| all.get(name)) else {
            return false;
        };
        found = next;
    }
    found.get("items").unwrap_or(found).get("properties").is_none()
}

/// The setting at `path`.
fn at<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut found = schema;
    for name in path.split('.') {
        let table = if found.get("items").is_some() { found.get_mut("items")? } else { found };
        found = table.get_mut("properties")?.get_mut(name)?;
    }
    found.as_object_mut()
}

fn set_defaults(schema: &mut Value, path: &str, table: &toml::Table) {
    for (name, value) in table {
        let path = below(path, name);
        match value {
            toml::Value::Table(table) => set_defaults(schema, &path, table),
            value => {
                if let (Some(setting), Ok(value)) = (at(schema, &path), serde_json::to_value(value))
                {
                    setting.insert("default".to_owned(), value);
                }
            }
        }
    }
}

/// What the example says above each setting, in the order in which it shows them. Settings that share a description all
/// get it.
fn explained() -> Vec<(String, String)> {
    let (mut table, mut words, mut all) = (String::new(), Vec::new(), Vec::new());
    // Whether the description above was already used: the next one belongs to another setting.
    let mut used = false;
    for line in EXAMPLE.lines() {
        let shown = line.strip_prefix('#').filter(|rest| is_shown(rest)).unwrap_or(line);
        if let Some(comment) = shown.strip_prefix("# ") {
            if std::mem::take(&mut used) {
                words.clear();
            }
            words.push(comment);
        } else if let Some(name) = shown.strip_prefix('[') {
            name.trim_matches(['[', ']']).clone_into(&mut table);
            all.push((table.clone(), words.join(" ")));
            words.clear();
        } else if let Some((key, _)) = shown.split_once(" = ") {
            all.push((below(&table, key), words.join(" ")));
            used = true;
        } else {
            words.clear();
        }
    }
    all.retain(|(_, words)| !words.is_empty());
    all
}

/// Whether this is a setting that is commented out, and not a comment.
pub(super) fn is_shown(rest: &str) -> bool {
    rest.starts_with(|first: char| first == '[' || first.is_ascii_lowercase())
}

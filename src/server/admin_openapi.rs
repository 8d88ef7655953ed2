//! The OpenAPI document of the admin API, generated from the table of operations.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use serde_json::{Map, Value, json};

use super::admin_operations::{OPERATIONS, Operation, Verb};
use super::admin_path::NAME;

const SCHEMAS: &str = include_str!("admin_schemas.json");
const PREFIX: &str = "/admin";

/// Serves it.
pub(super) async fn show() -> HttpResponse {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    HttpResponse::Ok().content_type("application/json").body(TEXT.as_str())
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = format!("{PREFIX}{}", operation.path.replace(":.+}", "}"));
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method(operation.verb)] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "eventlog-server, admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "docs/ADMIN-API.md has a line of curl for each operation.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            // A test reads it.
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
        },
    })
}

const fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::Put => "put",
        Verb::Post => "post",
        Verb::Delete => "delete",
    }
}

fn describe(operation: &Operation) -> Value {
    let named = operation.path.split('{').skip(1);
    let named = named.filter_map(|part| part.split([':', '}']).next());
    let in_path = named.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let in_query = operation.query.iter();
    let in_query =
        in_query.map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
    let instead = operation.path.contains(":.+}").then(|| {
        let what = "the last name of the path, which then has `-` in its place: for `.` and `..`";
        json!({ "name": NAME, "in": "query", "description": what, "schema": { "type": "string" } })
    });
    let mut described = json!({
        "summary": operation.summary,
        "description": format!("Needs the right `{}`.", operation.right.as_str()),
        "x-right": operation.right.as_str(),
        "parameters": in_path.chain(in_query).chain(instead).collect::<Vec<_>>(),
        "responses": {
            "200": { "description": "done", "content": content(operation.answer) },
            "default": {
                "description": "not done",
                "content": { "application/problem+json": { "schema": schema("Problem") } },
            },
        },
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(body) });
    }
    described
}

fn content(name: &str) -> Value {
    let media = match name {
        "Bytes" => "application/octet-stream",
        _ => "application/json",
    };
    // The same entries in other forms.
    if name == "Entries" {
        return json!({
            media: { "schema": schema(name) },
            "application/x-ndjson": { "schema": schema("Lines") },
            "text/event-stream": { "schema": schema("Events") },
        });
    }
    json!({ media: { "schema": schema(name) } })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_schema_that_is_named_is_there() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("the file is JSON");
        let text = document.to_string();
        let named: Vec<&str> = text.split("#/components/schemas/").skip(1).collect();
        assert!(named.len() > OPERATIONS.len());
        for name in named {
            let name = name.split('"').next().expect("an end");
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn the_docs_have_a_line_of_curl_for_each_operation() {
        let docs = include_str!("../../docs/ADMIN-API.md");
        let typed = docs.lines().map(|line| line.trim_start_matches("$ "));
        let lines: Vec<&str> = typed.filter(|line| line.starts_with("curl ")).collect();
        for Operation { verb, path, .. } in OPERATIONS {
            let says = |line: &&str| {
                let is_verb = match verb {
                    Verb::Get => !line.contains("-X "),
                    _ => line.contains(&format!("-X {} ", method(*verb).to_uppercase())),
                };
                let url = line.split("$URL/admin").nth(1).unwrap_or_default();
                let url = url.split(['?', '"', ' ']).next().unwrap_or_default();
                let segments: Vec<&str> = url.split('/').collect();
                let wanted: Vec<&str> = path.split('/').collect();
                let fits = |(one, other): (&&str, &&str)| one == other || other.starts_with('{');
                let same = segments.len() == wanted.len();
                is_verb && same && segments.iter().zip(&wanted).all(fits)
            };
            assert!(lines.iter().any(says), "{verb:?} {path}");
        }
    }

    #[test]
    fn no_operation_is_there_twice() {
        for (at, one) in OPERATIONS.iter().enumerate() {
            let twin = OPERATIONS[at + 1..]
                .iter()
                .find(|other| (other.verb, other.path) == (one.verb, one.path));
            assert!(twin.is_none(), "{one:?}");
        }
    }
}

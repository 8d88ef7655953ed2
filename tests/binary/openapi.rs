//! Compares the answers of the admin API with its OpenAPI document.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::logged::{ADMIN, Logged};
use crate::support::receiver::{Receiver, Reply};
use crate::support::socket::Socket;
use crate::support::{http, key};

/// The requests, with their bodies if they have any, in an order in which each can succeed.
const ASKED: &[(&str, &str, &str)] = &[
    ("PUT", "/keys/{key}", r#"{"storeId":"team"}"#),
    ("GET", "/keys/{key}", ""),
    ("GET", "/keys", ""),
    (
        "POST",
        "/stores/{store}/entries",
        r#"{"entries":[{"event":"Note","primaryKey":"n1","payload":"gaR0ZXh0omhp"},
            {"event":"Raw","primaryKey":"","payload":"wf8="},{"event":"Doomed","primaryKey":"","payload":""}]}"#,
    ),
    ("GET", "/stores/{store}/entries", ""),
    ("GET", "/stores", ""),
    ("GET", "/stores/{store}", ""),
    ("GET", "/overview", ""),
    ("GET", "/tokens", ""),
    ("POST", "/schema-binary", r#"{"json":{"text":"hi"}}"#),
    ("GET", "/keys/{key}/usage", ""),
    ("DELETE", "/keys/{key}/usage", ""),
    ("PUT", "/keys/{key}/signing-key", ""),
    ("GET", "/keys/{key}/signing-key", ""),
    ("DELETE", "/keys/{key}/signing-key", ""),
    ("PUT", "/grants/{key}", r#"{"read":true,"write":true,"events":["Note*"]}"#),
    ("GET", "/grants/{key}", ""),
    ("GET", "/grants", ""),
    ("DELETE", "/grants/{key}", ""),
    ("POST", "/revocations", r#"{"subject":"ann","until":4000000000,"reason":"left"}"#),
    ("GET", "/revocations", ""),
    ("DELETE", "/revocations/{id}", ""),
    ("GET", "/sessions", ""),
    ("DELETE", "/sessions/{id}/subscriptions/{key}", ""),
    ("DELETE", "/sessions/{id}", ""),
    ("GET", "/groups", ""),
    ("GET", "/groups/{group}/dead-letters", ""),
    ("DELETE", "/groups/{group}/dead-letters", ""),
    ("POST", "/groups/{group}/pause", ""),
    ("POST", "/groups/{group}/resume", ""),
    ("POST", "/rewind", r#"{"group":"mail","storeId":"team","from":1}"#),
    ("POST", "/stores/{store}/trim", r#"{"before":2,"force":true}"#),
    ("POST", "/stores/{store}/erase", r#"{"ids":["018bcfe5-6800-70e1-8101-010101010101"]}"#),
    ("POST", "/compact", ""),
    ("GET", "/compact", ""),
    ("POST", "/erased", r#"{"text":"never","ids":true}"#),
    ("GET", "/erased", ""),
    ("GET", "/quarantine", ""),
    ("POST", "/backup", ""),
    ("POST", "/reload", ""),
    ("POST", "/keys/{key}/move", r#"{"storeId":"den"}"#),
    ("DELETE", "/keys/{key}", ""),
    ("POST", "/keys/{key}/release", ""),
    ("GET", "/openapi.json", ""),
];

/// Operations that need a state which is hard to create: a group that the server no longer runs, an entry that is too
/// large, a dead letter that a handler accepts.
const NOT_ASKED: &[&str] = &[
    "DELETE /groups/{group}",
    "POST /groups/{group}/dead-letters/retry",
    "GET /quarantine/{number}",
    "DELETE /quarantine/{number}",
    "POST /quarantine/{number}/release",
];

/// Lists the parts of `value` that do not match `schema`, or are not in it.
fn differs(schemas: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        return differs(schemas, &schemas[name], value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => vec![kind],
    };
    let mut found = Vec::new();
    if !allowed.iter().any(|one| *one == kind || (*one == "number" && kind == "integer")) {
        found.push(format!("{at} is {kind}, and said to be {allowed:?}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        found.push(format!("{at} is {value}, and said to be one of {values:?}"));
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if value.get(required.as_str().expect("a name")).is_none() {
            found.push(format!("{at} has no {required}"));
        }
    }
    match (value, schema["properties"].as_object()) {
        (Value::Object(fields), Some(properties)) => {
            for (name, field) in fields {
                let at = format!("{at}.{name}");
                match properties.get(name) {
                    Some(schema) => found.extend(differs(schemas, schema, field, &at)),
                    None => found.push(format!("{at} is not described")),
                }
            }
        }
        (Value::Array(items), _) => {
            let each = items.iter().enumerate();
            found.extend(each.flat_map(|(n, item)| {
                differs(schemas, &schema["items"], item, &format!("{at}[{n}]"))
            }));
        }
        _ => {}
    }
    found
}

async fn ask(server: &Logged, method: &str, path: &str, body: &str) -> (bool, Value) {
    let to: SocketAddr = server.serve().address().parse().expect("an address");
    let headers = format!("authorization: Bearer {ADMIN}\r\n");
    let answer = http::request(to, &format!("{method} /admin{path}"), &headers, body).await;
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let json =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
    (answer.starts_with("HTTP/1.1 200 "), json)
}

#[test]
fn what_differs_is_found() {
    let schemas = json!({ "Name": { "type": "string" } });
    let schema = json!({
        "type": "object", "required": ["names"],
        "properties": {
            "names": { "type": "array", "items": { "$ref": "#/components/schemas/Name" } },
            "kind": { "enum": ["a", "b"] },
        },
    });
    let found = |value: Value| differs(&schemas, &schema, &value, "it").len();
    assert_eq!(found(json!({ "names": ["x"], "kind": "a" })), 0);
    for wrong in [
        json!({}),
        json!({ "names": [1] }),
        json!({ "names": ["x"], "kind": "c" }),
        json!({ "names": ["x"], "more": 1 }),
    ] {
        assert_eq!(found(wrong.clone()), 1, "{wrong}");
    }
}

#[tokio::test]
async fn each_answer_is_as_its_schema_says_and_says_nothing_else() {
    let receiver = Receiver::start(|_| Reply::Now("422 No")).await;
    let server = Logged::start(&format!(
        "admin.token = {ADMIN:?}\nquota.per_key.bytes_stored = 100000\n\
         [auth]\nmode = \"grants\"\nkeep_proof = false\n[[auth.grant]]\npublic_key = \"*\"\nread = true\nwrite = true\n\
         [[webhook]]\nname = \"mail\"\nurl = {:?}\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         events = [\"Doomed\"]\nfrom = \"start\"\n",
        receiver.url()
    ));
    let document = ask(&server, "GET", "/openapi.json", "").await.1;
    let schemas = &document["components"]["schemas"];
    let signing_key = json!({ "signingKey": "d7".repeat(32) }).to_string();
    let mut client = None;
    for (method, path, body) in ASKED {
        match (*method, *path) {
            ("GET", "/sessions") => {
                let mut alice = Socket::connect(server.url()).await;
                alice.subscribe(&key("alice"), 0).await;
                alice.next_entries(3).await;
                client = Some(alice);
            }
            ("GET", "/groups/{group}/dead-letters") => {
                let deadline = Instant::now() + Duration::from_secs(60);
                while ask(&server, "GET", "/groups", "").await.1["groups"][0]["deadLetters"] != 1 {
                    assert!(Instant::now() < deadline, "no dead letter");
                    sleep(Duration::from_millis(50)).await;
                }
            }
            _ => {}
        }
        let id = if path.starts_with("/sessions") {
            let sessions = ask(&server, "GET", "/sessions", "").await.1;
            sessions["sessions"][0]["id"].to_string()
        } else {
            "subject:ann".to_owned()
        };
        let mut named = path
            .replace("{key}", "alice")
            .replace("{store}", "team")
            .replace("{group}", "mail")
            .replace("{id}", &id);
        if (*method, *path) == ("DELETE", "/groups/{group}/dead-letters") {
            named.push_str("?all=true");
        }
        let body = if path.ends_with("signing-key") && *method == "PUT" {
            signing_key.as_str()
        } else {
            *body
        };
        let (is_done, answer) = ask(&server, method, &named, body).await;
        assert!(is_done, "{method} {named}: {answer}");
        let described = &document["paths"][format!("/admin{path}")][method.to_lowercase()];
        let content = &described["responses"]["200"]["content"]["application/json"];
        assert!(content["schema"].is_object(), "{method} {path} is not described");
        let differences = differs(schemas, &content["schema"], &answer, "it");
        assert_eq!(differences, [""; 0], "{method} {path}: {answer}");
        if *method != "GET" {
            continue;
        }
        let (is_done, problem) = ask(&server, "PATCH", &named, "").await;
        assert!(!is_done && problem["reason"] == "method", "{problem}");
        assert_eq!(differs(schemas, &schemas["Problem"], &problem, "it"), [""; 0], "{problem}");
    }
    drop(client);
    let asked: BTreeSet<String> =
        ASKED.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, described) in methods.as_object().expect("methods") {
            let path = path.trim_start_matches("/admin");
            let name = format!("{} {path}", method.to_uppercase());
            let is_json = described["responses"]["200"]["content"]["application/json"].is_object();
            let is_held = asked.contains(&name) || NOT_ASKED.contains(&&*name) || !is_json;
            assert!(is_held, "{name} is held against nothing");
        }
    }
}

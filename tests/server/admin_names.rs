//! Names that no browser sends in a path.

use serde_json::{Value, json};

use crate::support::http;
use crate::support::server::{TestServer, in_memory};

async fn ask(server: &TestServer, line: &str, body: &str) -> (u16, Value) {
    let header = "authorization: Bearer s3cret\r\n";
    let answer = http::request(server.addr, line, header, body).await;
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).expect("JSON"))
}

#[tokio::test]
async fn a_store_or_key_of_dots_is_named_in_the_query() {
    let server = TestServer::start(in_memory().admin_token("s3cret"), &[]).await;
    let written = r#"{"entries":[{"event":"E","primaryKey":"k","payload":""}]}"#;
    for name in [".", "..", "%25%2E%20a/b"] {
        let plain = name.replace("%25%2E%20", "%. ");
        let line = format!("POST /admin/stores/-/entries?name={name}");
        assert_eq!(ask(&server, &line, written).await.0, 200, "{name}");
        let (status, store) = ask(&server, &format!("GET /admin/stores/-?name={name}"), "").await;
        assert_eq!((status, &store["storeId"]), (200, &json!(plain)));
        let line = format!("GET /admin/stores/-/entries?name={name}&from=1&limit=5");
        let (_, page) = ask(&server, &line, "").await;
        assert_eq!(page["entries"].as_array().map(Vec::len), Some(1), "{page}");
        let body = format!("{{\"storeId\":{plain:?}}}");
        let key = format!("/admin/keys/-?name={name}");
        assert_eq!(ask(&server, &format!("PUT {key}"), &body).await.0, 200);
        assert_eq!(ask(&server, &format!("GET {key}"), "").await.1["storeId"], json!(plain));
        let usage = format!("GET /admin/keys/-/usage?name={name}");
        assert_eq!(ask(&server, &usage, "").await.0, 200);
        let line = format!("POST /admin/stores/-/erase?name={name}");
        let (status, erased) = ask(&server, &line, r#"{"primaryKey":"k"}"#).await;
        assert_eq!((status, &erased["erased"]), (200, &json!(1)));
    }
    // Without the query, it is a name like any other; with one, nothing else may stand in its place.
    assert_eq!(ask(&server, "GET /admin/stores/-", "").await.0, 404);
    assert_eq!(ask(&server, "POST /admin/stores/-/entries", written).await.0, 200);
    assert_eq!(ask(&server, "GET /admin/stores/-", "").await.1["storeId"], "-");
    let (status, problem) = ask(&server, "GET /admin/stores/team?name=.", "").await;
    assert_eq!((status, &problem["reason"]), (400, &json!("invalid")));
    let (status, _) = ask(&server, "DELETE /admin/sessions/1/subscriptions/-?name=..", "").await;
    assert_eq!(status, 404);
}

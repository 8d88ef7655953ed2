//! The console's page and its sessions on the wire; `tests/js/console.mjs` looks at it in a browser.

use std::time::Duration;

use eventlog_server::server::{AdminRight, AdminToken, Erase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::server::{TestServer, in_memory};
use crate::support::{entry, http, store};

const JSON: &str = "content-type: application/json\r\n";

async fn server() -> TestServer {
    TestServer::start(in_memory().admin_token("s3cret"), &[]).await
}

fn own(server: &TestServer) -> String {
    format!("origin: http://{}\r\n{JSON}", server.addr)
}

async fn sign_in(server: &TestServer, token: &str, headers: &str) -> String {
    let body = format!("{{\"token\":{token:?}}}");
    http::request(server.addr, "POST /console/session", headers, &body).await
}

/// The value of a header.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    let found = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
    found.unwrap_or_else(|| panic!("no {name}: {answer}"))
}

fn cookie(answer: &str) -> String {
    let pair = header(answer, "set-cookie").split(';').next().expect("a cookie");
    format!("cookie: other=1; {pair}\r\n")
}

async fn get(server: &TestServer, path: &str, headers: &str) -> String {
    http::request(server.addr, &format!("GET {path}"), headers, "").await
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_files_and_is_fetched_again_when_it_has_changed() {
    let server = server().await;
    let page = get(&server, "/console", "").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<!doctype html>"), "{page}");
    let policy = header(&page, "content-security-policy");
    assert!(policy.contains("default-src 'none'; script-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let known = format!("if-none-match: {}\r\n", header(&page, "etag"));
    let again = get(&server, "/console/app.js", &known).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    let other = get(&server, "/console/app.js", "if-none-match: \"old\"\r\n").await;
    assert!(header(&other, "content-type").starts_with("text/javascript"), "{other}");
    assert!(get(&server, "/console/../../Cargo.toml", "").await.starts_with("HTTP/1.1 404"));
    assert_eq!(header(&get(&server, "/console/", "").await, "location"), "../console");
    let without = TestServer::start(in_memory(), &[]).await;
    assert!(get(&without, "/console", "").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_cookie_stands_for_a_token_to_this_very_page_alone() {
    let server = server().await;
    let signed_in = sign_in(&server, "s3cret", &own(&server)).await;
    assert!(signed_in.contains("\"rights\":[\"admin\"]"), "{signed_in}");
    let set = header(&signed_in, "set-cookie");
    assert!(set.contains("; HttpOnly; SameSite=Strict") && !set.contains("Secure"), "{set}");
    let cookie = cookie(&signed_in);
    let ok = |answer: String| answer.starts_with("HTTP/1.1 200");
    assert!(ok(get(&server, "/admin/keys", &cookie).await));
    assert!(ok(get(&server, "/console/session", &cookie).await));
    for elsewhere in ["origin: http://localhost:5173\r\n", "sec-fetch-site: same-site\r\n"] {
        let answer = get(&server, "/admin/keys", &format!("{cookie}{elsewhere}")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{elsewhere}{answer}");
    }
    let put = async |headers: &str| {
        let line = "PUT /admin/keys/ann";
        http::request(server.addr, line, &format!("{cookie}{headers}"), "{\"storeId\":\"a\"}").await
    };
    for headers in ["", JSON, &format!("origin: http://evil.example\r\n{JSON}")] {
        assert!(put(headers).await.starts_with("HTTP/1.1 403"), "{headers}");
    }
    let origin = format!("origin: http://{}\r\n", server.addr);
    assert!(put(&origin).await.starts_with("HTTP/1.1 403"), "without JSON");
    assert!(ok(put(&own(&server)).await));
}

#[tokio::test]
async fn a_session_ends_at_the_sign_out_and_with_its_token() {
    let server = server().await;
    let mut cookies = Vec::new();
    for _ in 0..2 {
        cookies.push(cookie(&sign_in(&server, "s3cret", &own(&server)).await));
    }
    let headers = format!("{}{}", cookies[0], own(&server));
    let out = http::request(server.addr, "DELETE /console/session", &headers, "").await;
    assert!(header(&out, "set-cookie").contains("Max-Age=0"), "{out}");
    assert!(get(&server, "/admin/keys", &cookies[0]).await.starts_with("HTTP/1.1 401"));
    assert!(get(&server, "/admin/keys", &cookies[1]).await.starts_with("HTTP/1.1 200"));
    let other = AdminToken::new("admin", [AdminRight::Admin], "other").expect("a token");
    server.server.set_admin_tokens(vec![other]);
    assert!(get(&server, "/admin/keys", &cookies[1]).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn whoever_guesses_at_the_sign_in_is_slowed_down() {
    let server = server().await;
    for _ in 0..10 {
        let answer = sign_in(&server, "wrong", &own(&server)).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let answer = sign_in(&server, "s3cret", &own(&server)).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(sign_in(&server, "s3cret", JSON).await.starts_with("HTTP/1.1 403"), "no origin");
}

#[tokio::test]
async fn behind_a_proxy_with_tls_the_cookie_goes_nowhere_without() {
    let proxies = vec!["127.0.0.1".parse().expect("an address")];
    let builder = in_memory().admin_token("s3cret").trusted_proxies(proxies);
    let server = TestServer::start(builder, &[]).await;
    let headers = format!(
        "x-forwarded-host: logs.example\r\nx-forwarded-proto: https\r\norigin: https://logs.example\r\n{JSON}"
    );
    let set = sign_in(&server, "s3cret", &headers).await;
    assert!(header(&set, "set-cookie").ends_with("; Secure"), "{set}");
}

/// What can be watched.
const WATCHED: [&str; 3] = ["overview", "stores/team/entries", "stores/team/entries?newest=9"];

const TOKEN: &str = "authorization: Bearer s3cret\r\n";

async fn with_an_entry() -> TestServer {
    let server = server().await;
    server
        .server
        .write_to_store(store("team"), vec![entry("E", "", b"")], true)
        .await
        .expect("written");
    server
}

/// A stream of events, and the first bytes of the answer.
async fn watch(server: &TestServer, path: &str, headers: &str) -> (TcpStream, [u8; 12]) {
    let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
    let text = format!(
        "GET /admin/{path} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n{headers}\r\n",
        server.addr
    );
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    (stream, head)
}

/// Reads a stream of events to its end.
async fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "it goes on: {}", String::from_utf8_lossy(&rest));
}

/// A stream was authorized only once, when it began. After a token was removed, its user could still watch.
#[tokio::test]
async fn a_live_view_ends_with_the_token_or_the_session_that_opened_it() {
    let server = with_an_entry().await;
    let mut open = Vec::new();
    let mut signed_out = Vec::new();
    let one = cookie(&sign_in(&server, "s3cret", &own(&server)).await);
    let other = cookie(&sign_in(&server, "s3cret", &own(&server)).await);
    for path in WATCHED {
        for headers in [TOKEN, &one, &other] {
            let (stream, head) = watch(&server, path, headers).await;
            assert_eq!(&head, b"HTTP/1.1 200");
            if headers == one { signed_out.push(stream) } else { open.push(stream) }
        }
    }
    let headers = format!("{one}{}", own(&server));
    http::request(server.addr, "DELETE /console/session", &headers, "").await;
    futures_util::future::join_all(signed_out.into_iter().map(ends)).await;
    for stream in &open {
        let mut rest = vec![0; 1 << 20];
        let read = stream.try_read(&mut rest);
        assert!(!matches!(read, Ok(0)), "others go on");
    }
    let token = AdminToken::new("admin", [AdminRight::Admin], "other").expect("a token");
    server.server.set_admin_tokens(vec![token]);
    futures_util::future::join_all(open.into_iter().map(ends)).await;
}

#[tokio::test]
async fn a_page_says_which_entries_were_erased() {
    let server = server().await;
    let entries: Vec<_> = (0..6).map(|n| entry("E", &format!("{}", n % 2), b"")).collect();
    let ids = [entries[3].id];
    server.server.write_to_store(store("team"), entries, false).await.expect("written");
    for what in [Erase::PrimaryKey("0".to_owned()), Erase::Ids(ids.into())] {
        server.server.erase(&store("team"), what).await.expect("erased");
    }
    let answer = get(&server, "/admin/stores/team/entries?from=2&limit=2", TOKEN).await;
    assert!(answer.contains(r#""erased":[{"first":3,"last":5}]"#), "{answer}");
    assert!(answer.contains(r#""sequence":2"#) && answer.contains(r#""sequence":6"#), "{answer}");
    let answer = get(&server, "/admin/stores/team/entries?from=6", TOKEN).await;
    assert!(!answer.contains("erased"), "{answer}");
}

#[tokio::test]
async fn live_views_are_streams_and_so_many_at_most() {
    let server = with_an_entry().await;
    let mut open = Vec::new();
    loop {
        let (stream, head) = watch(&server, WATCHED[open.len() % WATCHED.len()], TOKEN).await;
        if &head == b"HTTP/1.1 503" {
            break;
        }
        assert_eq!(&head, b"HTTP/1.1 200");
        open.push(stream);
        assert!(open.len() <= 256);
    }
    assert_eq!(open.len(), 256);
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("\"notes\"") {
        let mut some = [0; 4_096];
        let count = open[0].read(&mut some).await.expect("it goes on");
        assert!(count > 0);
        told.extend_from_slice(&some[..count]);
    }
}

//! Which web pages the binary serves, and what its log says about the others.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::tempdir;

use super::process::{Serve, command, data, lines, logged};
use crate::support::http;
use crate::support::socket::Socket;

const WHAT_TO_WRITE: &str = "add it to the configuration, origins = [\"http://localhost:5173\"]";

fn refused(log: &Path, origin: &str) -> String {
    logged(log, &format!("a page of {origin:?} may not use"), 1).remove(0)
}

/// During development an application's pages come from a port of their own.
#[tokio::test]
async fn in_development_pages_of_this_machine_are_served_and_no_name_from_outside_is() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(&directory.path().join("d"))]);
    serve
        .env("EVENTLOG_ADMIN_TOKEN", "secret")
        .stderr(std::fs::File::create(&log).expect("a file"));
    let server = Serve::of(serve);
    let url = |path: &str| format!("ws://{}{path}", server.address());
    for path in ["/eventlog", "/rpc"] {
        for (origin, host) in [
            ("http://localhost:5173", server.address()),
            ("http://127.0.0.1:5173", "localhost:7420"),
            ("http://app.localhost:5173", "[::1]:7420"),
        ] {
            Socket::connect_with(&url(path), &[("origin", origin), ("host", host)]).await;
        }
        // A name that leads here because its owner says so.
        let rebound = [("origin", "http://evil.example:7420"), ("host", "evil.example:7420")];
        assert_eq!(Socket::refused_status(&url(path), &rebound).await, 403);
        let foreign = [("origin", "http://evil.example")];
        assert_eq!(Socket::refused_status(&url(path), &foreign).await, 403);
    }
    refused(&log, "http://evil.example:7420");
    for (origin, host, status) in [
        ("http://evil.example:7420", "evil.example:7420", "403"),
        ("http://localhost:5173", "localhost:7420", "200"),
    ] {
        let headers =
            format!("host: {host}\r\norigin: {origin}\r\nauthorization: Bearer secret\r\n");
        let answer = http::get_with(server.address(), "/admin/keys", &headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

/// Ends it with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn in_development_it_says_where_each_client_connects_and_which_address_opens_the_console() {
    let directory = tempdir().expect("a directory");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory.path())]).stderr(Stdio::null());
    let mut server = Started(serve.spawn().expect("it starts"));
    let (printed, mut said) = (lines(server.0.stdout.take().expect("a pipe")), Vec::new());
    let page = loop {
        let line = printed.recv_timeout(Duration::from_secs(60)).expect("it says where");
        match line.strip_prefix("console at ") {
            Some(page) => break page.to_owned(),
            None => said.push(line),
        }
    };
    let said = said.join("\n");
    for part in ["/eventlog\n", "/rpc\n  for Effect 4.1", "next, ", "  eventlog-server write"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (url, token) = page.split_once("/console#token=").expect("an address with a token");
    let address = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
    let headers = format!("origin: {url}\r\ncontent-type: application/json\r\n");
    let body = format!("{{\"token\":{token:?}}}");
    let answer = http::request(address, "POST /console/session", &headers, &body).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"admin\""), "{answer}");
}

#[tokio::test]
async fn a_page_that_is_refused_is_in_the_log_with_what_to_configure_and_then_served() {
    let directory = tempdir().expect("a directory");
    let log = directory.path().join("log");
    let page = [("origin", "http://localhost:5173")];
    let allowed = |origins: Option<&str>| {
        let mut serve = command(&["serve", "--listen", "127.0.0.1:0"]);
        serve.args(["--data-dir", data(&directory.path().join("d"))]);
        serve.env("EVENTLOG_AUTH_MODE", "allow-all");
        origins.map(|origins| serve.env("EVENTLOG_ORIGINS", origins));
        serve.stderr(std::fs::File::create(&log).expect("a file"));
        serve
    };
    let server = Serve::of(allowed(None));
    for _ in 0..20 {
        assert_eq!(Socket::refused_status(&server.url, &page).await, 403);
    }
    let line = refused(&log, "http://localhost:5173");
    assert!(line.contains(WHAT_TO_WRITE), "{line}");
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(text.matches(WHAT_TO_WRITE).count(), 1, "one line for many\n{text}");
    let forwarded = [("origin", "https://app.example"), ("x-forwarded-host", "app.example")];
    assert_eq!(Socket::refused_status(&server.url, &forwarded).await, 403);
    let line = refused(&log, "https://app.example");
    assert!(line.contains("add \"127.0.0.1\" to trusted_proxies"), "{line}");
    // What no setting allows is not advised.
    for impossible in ["", "app.example", "https://*.app.example"] {
        assert_eq!(Socket::refused_status(&server.url, &[("origin", impossible)]).await, 403);
        let line = refused(&log, impossible);
        assert!(
            line.contains("no browser sends this as Origin") && !line.contains("origins = ["),
            "{line}"
        );
    }
    drop(server);

    let server = Serve::of(allowed(Some("http://LOCALHOST:5173, https://app.example:443, null")));
    for origin in ["http://localhost:5173", "https://app.example", "null"] {
        Socket::connect_with(&server.url, &[("origin", origin)]).await;
    }
    drop(server);
    for impossible in ["https://*.app.example", "wss://app.example", "https://app.example/"] {
        let ended = allowed(Some(impossible)).output().expect("it runs");
        let log = std::fs::read_to_string(&log).expect("UTF-8");
        assert!(!ended.status.success() && log.contains("no page has the origin"), "{log}");
    }
}

/// What the proxy says counts if it is trusted.
#[tokio::test]
async fn a_trusted_proxy_says_which_host_a_page_asked_for() {
    let directory = tempdir().expect("a directory");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory.path())]).env("EVENTLOG_TRUSTED_PROXIES", "127.0.0.1");
    let server = Serve::of(serve);
    // With --dev no name from outside counts, not even behind a proxy.
    let page = [("origin", "https://app.example"), ("x-forwarded-host", "app.example")];
    assert_eq!(Socket::refused_status(&server.url, &page).await, 403);
    drop(server);
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.args(["--data-dir", data(directory.path())]).env("EVENTLOG_TRUSTED_PROXIES", "127.0.0.1");
    serve.env("EVENTLOG_AUTH_MODE", "allow-all");
    let log = directory.path().join("serve.log");
    serve.stderr(std::fs::File::create(&log).expect("a file"));
    let server = Serve::of(serve);
    Socket::connect_with(&server.url, &page).await;
    let insecure = [
        ("origin", "http://app.example"),
        ("x-forwarded-host", "app.example"),
        ("x-forwarded-proto", "https"),
    ];
    assert_eq!(Socket::refused_status(&server.url, &insecure).await, 403);
    let line = refused(&log, "http://app.example");
    assert!(
        line.contains("X-Forwarded-Proto is \"https\"") && line.contains("PROXIES.md"),
        "{line}"
    );
}

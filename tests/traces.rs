//! Traces of writes, as a collector receives them. A test binary of its own: nothing else is compiled with the feature `otel`.

#![allow(missing_docs, unreachable_pub, dead_code)] // a test binary has no public side
#![expect(clippy::disallowed_methods, reason = "tests time what they wait for, and break files")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_errors_doc)]

#[path = "binary/process.rs"]
mod process;
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::tempdir;

use process::{Ended, Serve, command, data, logged};
use support::socket::Socket;
use support::{batch, entry, key};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request: its first line with its headers, and its body.
type Asked = (String, Value);

/// A collector that accepts everything, and its address.
fn collector() -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            while let Some(asked) = request(&mut stream) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                stream.get_mut().write_all(answer).expect("answered");
                if sender.send(asked).is_err() {
                    return;
                }
            }
        }
    });
    (address, receiver)
}

fn request(stream: &mut impl BufRead) -> Option<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length?.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).expect("JSON")))
}

fn nanos(span: &Value, name: &str) -> u128 {
    span[name].as_str().expect("a time as text").parse().expect("a number")
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos()
}

#[tokio::test]
async fn a_collector_gets_each_part_of_a_write_within_the_write() {
    let (address, requests) = collector();
    let directory = tempdir().expect("a directory");
    let arguments = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"];
    let mut serve = command(&arguments);
    serve.arg(data(&directory.path().join("data")));
    serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
    serve.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20CANARY");
    serve.env("OTEL_TRACES_SAMPLER_ARG", "1").env("OTEL_SERVICE_NAME", "sync");
    let log = directory.path().join("log");
    serve.stderr(std::fs::File::create(&log).expect("a log"));
    let server = Serve::of(serve);
    let began = now();
    let mut client = Socket::connect(&server.url).await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"x"), entry("E", "", b"y")])).await;
    assert_eq!(client.next_ack().await.0, 1);
    let (head, body) = requests.recv_timeout(PATIENCE).expect("a request");
    let ended = now();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("authorization: bearer canary"), "{head}");
    let resource = &body["resourceSpans"][0];
    let named = &resource["resource"]["attributes"][0];
    assert_eq!(
        (&named["key"], &named["value"]["stringValue"]),
        (&"service.name".into(), &"sync".into())
    );
    let spans = resource["scopeSpans"][0]["spans"].as_array().expect("spans");
    let by_name: BTreeMap<&str, &Value> =
        spans.iter().map(|span| (span["name"].as_str().expect("a name"), span)).collect();
    let names: Vec<_> = by_name.keys().copied().collect();
    assert_eq!(names, ["ack", "authorize", "commit", "decode", "place", "sync", "write"]);
    assert_eq!(spans.len(), names.len(), "one write");
    let write = by_name["write"];
    assert!(write.get("parentSpanId").is_none() && write["status"].get("code").is_none());
    assert!(write.to_string().contains(r#"{"stringValue":"default"}"#), "{write}");
    assert!(write.to_string().contains(r#""key":"eventlog.entries","value":{"intValue":"2"}"#));
    assert_eq!(write["traceId"].as_str().map(str::len), Some(32));
    // The clock may be adjusted between two processes.
    let second = 1_000_000_000;
    assert!(began <= nanos(write, "startTimeUnixNano") + second);
    assert!(nanos(write, "endTimeUnixNano") <= ended + second);
    for (name, span) in &by_name {
        assert_eq!(span["traceId"], write["traceId"], "{name}");
        assert_eq!(span["spanId"].as_str().map(str::len), Some(16), "{name}");
        let same = spans.iter().filter(|other| other["spanId"] == span["spanId"]);
        assert_eq!(same.count(), 1, "{name}");
        if *name != "write" {
            let parent = by_name[if *name == "sync" { "commit" } else { "write" }];
            assert_eq!(span["parentSpanId"], parent["spanId"], "{name}");
            assert!(
                nanos(parent, "startTimeUnixNano") <= nanos(span, "startTimeUnixNano"),
                "{name}"
            );
            assert!(nanos(span, "endTimeUnixNano") <= nanos(parent, "endTimeUnixNano"), "{name}");
        }
    }
    for (before, after) in
        [("decode", "authorize"), ("authorize", "place"), ("place", "commit"), ("commit", "ack")]
    {
        let (before, after) = (by_name[before], by_name[after]);
        assert_eq!(before["endTimeUnixNano"], after["startTimeUnixNano"]);
    }
    assert!(
        nanos(by_name["sync"], "startTimeUnixNano") < nanos(by_name["sync"], "endTimeUnixNano")
    );
    // A trace in progress at the end is sent.
    client.write(&key("alice"), 2, &batch(&[entry("E", "", b"z")])).await;
    assert_eq!(client.next_ack().await.0, 2);
    assert_eq!(server.end(Signal::TERM), Some(0));
    requests.recv_timeout(PATIENCE).expect("a request");
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(log.contains("traces of writes go to") && !log.contains("CANARY"), "{log}");
}

#[test]
fn what_is_wrong_with_traces_is_said_at_the_start() {
    for (arg, word) in [("0", "above 0"), ("many", "no number")] {
        let directory = tempdir().expect("a directory");
        let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(data(&directory.path().join("data")));
        serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        serve.env("OTEL_TRACES_SAMPLER_ARG", arg);
        let said = Ended::of(serve.spawn().expect("it starts")).failed(1);
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn the_password_of_a_collector_is_in_no_line_of_the_log() {
    let directory = tempdir().expect("a directory");
    let mut serve = command(&["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]);
    serve.arg(data(&directory.path().join("data"))).env("EVENTLOG_LOG", "trace");
    // Nobody is there, so the log says that as well.
    let url = "http://CANARY-user:CANARY-password@127.0.0.1:9/v1/traces?key=CANARY-key";
    serve.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url).env("OTEL_TRACES_SAMPLER_ARG", "1");
    let log = directory.path().join("log");
    serve.stderr(std::fs::File::create(&log).expect("a log"));
    let server = Serve::of(serve);
    let mut client = Socket::connect(&server.url).await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"x")])).await;
    assert_eq!(client.next_ack().await.0, 1);
    logged(&log, "http://***@127.0.0.1:9/v1/traces does not take traces", 1);
    let text = std::fs::read_to_string(&log).expect("UTF-8");
    assert_eq!(text.lines().find(|line| line.contains("CANARY")), None);
}

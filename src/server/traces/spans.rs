//! A trace as the spans of OTLP, and these as JSON: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>.
//!
//! Keeps: spans of a trace are within their parent, and none ends before it begins.

use serde_json::{Value, json};

use crate::actors::trace::Finished;

/// The numbers of OTLP for a span that answers a request, and for a span within it.
const SERVER: u8 = 2;
const INTERNAL: u8 = 1;
/// OTLP's number of an error.
const FAILED: u8 = 2;

/// The body of a request with these traces.
pub(super) fn request(service: &str, traces: &[Finished]) -> Value {
    let spans: Vec<Value> = traces.iter().flat_map(spans).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ] },
        "scopeSpans": [{
            "scope": { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }] })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: usize) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// The write, and within it the steps that it reached.
fn spans(trace: &Finished) -> Vec<Value> {
    let [decoded, authorized, placed, committed, acked] = trace.steps;
    let [sync_began, sync_ended] = trace.synced;
    // A write that contains only duplicates is not committed.
    let durable = if committed > 0 { committed } else { placed };
    let (root, commit) = (0, 4);
    let parts = [
        (1, root, "decode", trace.received, decoded),
        (2, root, "authorize", decoded, authorized),
        (3, root, "place", authorized, placed),
        (commit, root, "commit", placed, committed),
        (5, commit, "sync", sync_began, sync_ended),
        (6, root, "ack", durable, acked),
    ];
    let mut spans = vec![write(trace, acked)];
    let known = parts.into_iter().filter(|(.., began, ended)| *began > 0 && *ended > 0);
    spans.extend(known.map(|(at, parent, name, began, ended)| {
        json!({
            "traceId": trace_id(trace),
            "spanId": span_id(trace, at),
            "parentSpanId": span_id(trace, parent),
            "name": name,
            "kind": INTERNAL,
            "startTimeUnixNano": began.to_string(),
            "endTimeUnixNano": ended.max(began).to_string(),
        })
    }));
    spans
}

fn write(trace: &Finished, acked: u64) -> Value {
    let ended = if acked > 0 { acked } else { trace.ended };
    let mut attributes = Vec::new();
    if let Some((store, (entries, bytes))) = &trace.about {
        attributes.push(text("eventlog.store", store.as_str()));
        attributes.push(number("eventlog.entries", *entries));
        attributes.push(number("eventlog.bytes", *bytes));
    }
    let status = if acked > 0 {
        json!({})
    } else {
        json!({ "code": FAILED, "message": "it was not acknowledged" })
    };
    json!({
        "traceId": trace_id(trace),
        "spanId": span_id(trace, 0),
        "name": "write",
        "kind": SERVER,
        "startTimeUnixNano": trace.received.to_string(),
        "endTimeUnixNano": ended.max(trace.received).to_string(),
        "attributes": attributes,
        "status": status,
    })
}

fn trace_id(trace: &Finished) -> String {
    trace.id.simple().to_string()
}

/// The id of a span. Spans of a trace have different ids, which are as random as the trace's id.
fn span_id(trace: &Finished, at: u64) -> String {
    let (high, low) = trace.id.as_u64_pair();
    format!("{:016x}", (high ^ low).wrapping_add(at).max(1))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn trace(steps: [u64; 5]) -> Finished {
        let id = Uuid::from_u128(7);
        Finished { id, received: 10, ended: 99, steps, synced: [0, 0], about: None }
    }

    fn names(spans: &[Value]) -> Vec<&str> {
        spans.iter().map(|span| span["name"].as_str().expect("a name")).collect()
    }

    #[test]
    fn a_write_that_was_not_acknowledged_ends_with_an_error_where_it_got() {
        let spans = spans(&trace([20, 0, 0, 0, 0]));
        assert_eq!(names(&spans), ["write", "decode"]);
        assert_eq!(spans[0]["status"]["code"], FAILED);
        assert_eq!(spans[0]["endTimeUnixNano"], "99");
    }

    #[test]
    fn a_write_of_nothing_new_has_no_commit_and_its_answer_follows_its_place() {
        let spans = spans(&trace([20, 30, 40, 0, 50]));
        assert_eq!(names(&spans), ["write", "decode", "authorize", "place", "ack"]);
        let ack = &spans[4];
        assert_eq!(
            (&ack["startTimeUnixNano"], &ack["endTimeUnixNano"]),
            (&"40".into(), &"50".into())
        );
        assert_eq!(spans[0]["endTimeUnixNano"], "50");
        assert!(spans[0]["status"].get("code").is_none());
    }
}

//! The example application, driven as its pages drive it: events over the WebSocket, the list and its changes over HTTP.

#[path = "../../examples/todo.rs"]
mod example;

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::support::key;

/// Serves until the process ends.
fn serve(remind_every: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let running = example::run(listener, remind_every);
        actix_web::rt::System::new().block_on(running).expect("the example runs");
    });
    addr
}

async fn get(addr: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

/// Reads until `stop` appears in the input, or to the end.
async fn read_until(stream: &mut TcpStream, stop: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4_096];
    while !text.contains(stop) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await;
        match read.expect("in time").expect("read") {
            0 => break,
            read => text += &String::from_utf8_lossy(&buffer[..read]),
        }
    }
    text
}

fn event(event: &str, payload: &impl Serialize) -> Entry {
    let payload = Msgpack::encode(payload).expect("encodes").into();
    Entry { event: event.to_owned(), payload, ..added("t1", "") }
}

#[derive(Serialize)]
struct ById {
    id: &'static str,
}

#[tokio::test]
async fn two_people_share_a_list_that_reminds_them() {
    let addr = serve(Duration::from_millis(200));
    let page = read_until(&mut get(addr, "/").await, "</script>").await;
    assert!(page.contains("EventSource(\"/changes\")"));

    let mut changes = get(addr, "/changes").await;
    let head = read_until(&mut changes, "\r\n\r\n").await;
    assert!(head.contains("text/event-stream"), "{head}");
    let url = format!("ws://{addr}/eventlog");
    let (mut alice, mut bob) = (Socket::connect(&url).await, Socket::connect(&url).await);
    bob.subscribe(&key("bob"), 0).await;

    let milk = TodoAdded { id: "t1".to_owned(), title: "buy milk".to_owned() };
    write(&mut alice, &key("alice"), &[event("Added", &milk)]).await;
    let mut fed = bob.next_changes().await;
    assert_eq!(fed[0].1.event, "Added");
    read_until(&mut changes, "data: todos\n\n").await;
    let list = read_until(&mut get(addr, "/todos").await, "}}").await;
    assert!(list.contains(r#"{"t1":{"title":"buy milk","done":false,"#), "{list}");

    while fed.len() < 2 {
        fed.extend(bob.next_changes().await);
    }
    let reminder = &fed[1].1;
    assert_eq!((&*reminder.event, &*reminder.primary_key), ("Reminded", "t1"));
    read_until(&mut changes, "data: todos\n\n").await;

    bob.write(&key("bob"), 1, &batch(&[event("Done", &ById { id: "t1" })])).await;
    let mut list = String::new();
    while !list.contains(r#""done":true"#) {
        read_until(&mut changes, "data: todos\n\n").await;
        list = read_until(&mut get(addr, "/todos").await, "}}").await;
    }
    assert!(!list.contains(r#""reminders":0"#), "{list}");
}

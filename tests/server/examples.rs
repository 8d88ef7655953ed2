//! The one-page examples at the beginning of the documentation.

#[path = "../../examples/browser/main.rs"]
pub(crate) mod browser;
#[path = "../../examples/first.rs"]
mod first;
#[path = "../../examples/in_process.rs"]
mod in_process;
#[path = "../../examples/retry.rs"]
mod retry;

use eventlog_server::processing::{PayloadCodec, SchemaBinary};
use eventlog_server::protocol::msgpack::ErrorCode;

use super::embedding::serve;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

#[test]
fn the_page_on_embedding_shows_the_first_example_as_it_is() {
    let page = include_str!("../../docs/EMBEDDING.md");
    let example = include_str!("../../examples/first.rs");
    assert!(page.contains(&format!("```rust\n{example}```\n")));
}

#[tokio::test]
async fn the_first_example_asks_its_password_and_its_users() {
    let data = tempfile::tempdir().expect("a folder");
    let (server, _database) = first::start(data.path()).expect("it starts");
    let address = serve(move |config| server.configure(config)).await;
    let url = format!("ws://{address}/eventlog");
    let mut client = Socket::connect_with(&format!("{url}?password=let-me-in"), &[]).await;
    client.next().await;
    client.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    client.write(&key("bob"), 2, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_ack().await, (2, vec![2]));
    client.write(&key("mallory"), 3, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(client.next_refusal().await.code, ErrorCode::InvalidRequest);
    let mut stranger = Socket::connect_with(&url, &[]).await;
    stranger.next().await;
    stranger.write(&key("alice"), 1, &batch(&[entry("E", "", b"")])).await;
    assert_eq!(stranger.next_refusal().await.code, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn the_backend_of_the_browser_example_adds_what_to_pack_for_a_trip() {
    let data = tempfile::tempdir().expect("a folder");
    let (server, _database) = browser::start(data.path()).expect("it starts");
    let address = serve(move |config| server.configure(config)).await;
    let mut client = Socket::connect(&format!("ws://{address}/eventlog")).await;
    client.subscribe(&key("ann"), 0).await;
    let trip = SchemaBinary::encode(&Todo { id: "t1", title: "Trip to Rome" }).expect("encodes");
    client.write(&key("ann"), 1, &batch(&[entry("TodoAdded", "t1", &trip)])).await;
    assert_eq!(client.next_ack().await, (1, vec![1]));
    let ids: Vec<_> =
        client.next_entries(3).await.into_iter().map(|(_, entry)| entry.primary_key).collect();
    assert_eq!(ids, ["t1/passport", "t1/tickets", "t1/toothbrush"]);
}

/// As the pages write it.
#[derive(serde::Serialize)]
struct Todo {
    id: &'static str,
    title: &'static str,
}

#[tokio::test]
async fn code_in_the_process_writes_for_a_client_and_reads_what_it_reads() {
    let said = in_process::run().await.expect("it runs");
    let expected = [
        "alice wrote [Sequence(1), Sequence(2)]",
        "the feed has 1 one",
        "the feed has 2 two",
        "the feed has 3 three",
        "a page from 2 on has 2 entries",
        "team has 3 entries",
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_stays_is_kept_until_it_is_dealt_with() {
    let said = retry::run().await.expect("it runs");
    let expected = [
        r#"sent to ["ann@example.org", "ben@example.org"]"#,
        "2 of team failed: the handler failed: nobody knows the address",
        r#"sent to ["ann@example.org", "ben@example.org", "cid@example.org"]"#,
    ];
    assert_eq!(said, expected);
}

//! The example does what it shows.

use crate::support::key;
use crate::support::server::TestServer;

#[path = "../../examples/client.rs"]
mod client;

#[tokio::test]
async fn the_example_writes_and_follows() {
    let server = TestServer::with_keys(&[("alice", "team")]).await;
    let lines = client::run(&server.url(), &key("alice")).await.expect("it runs");
    let expected =
        ["1 NoteAdded: buy milk", "2 NoteAdded: call Ada", "3 NoteAdded: water the plants"];
    assert_eq!(lines, expected);
}

//! A JavaScript client against a server.

use super::node;
use crate::support::server::TestServer;

#[tokio::test]
async fn a_javascript_client_writes_subscribes_and_reads_back() {
    let Some(mut command) = node::script("live.mjs") else { return };
    let server = TestServer::with_keys(&[("alice", "team"), ("bob", "team")]).await;
    command.args([&server.url(), "alice", "bob", "nobody"]);
    let done = tokio::task::spawn_blocking(move || command.output());
    let output = done.await.expect("it ends").expect("node starts");
    let (said, problem) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{problem}");
}

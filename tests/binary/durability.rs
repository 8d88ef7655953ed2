//! What the binary acknowledged before it was killed.

use crate::support::process::Process;
use crate::support::socket::Socket;
use crate::support::{batch, entry, key};

/// Whatever was acknowledged is there after a kill, at the same sequences.
#[tokio::test]
async fn what_was_acknowledged_survives_kill_nine() {
    let data = tempfile::tempdir().expect("a folder");
    let mut written = Vec::new();
    for round in 0..5 {
        let mut server = Process::serve_dev(data.path());
        let mut client = Socket::connect(&server.url).await;
        for id in 0..40 {
            let one = entry("E", &format!("{round}/{id}"), b"payload");
            client.write(&key("alice"), id, &batch(std::slice::from_ref(&one))).await;
            let (_, sequences) = client.next_ack().await;
            written.push((sequences[0], one));
        }
        server.signal("KILL");
        server.wait();
    }
    assert!(written.iter().map(|(sequence, _)| *sequence).eq(1..=200));
    let server = Process::serve_dev(data.path());
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&key("bob"), 0).await;
    assert_eq!(reader.next_entries(200).await, written);
}

//! Old history, compacted on its way to these clients.

use std::time::Duration;

use eventlog_server::model::{Entry, EntryId, Limits};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};

use crate::support::rpc::{DEFAULT, RpcSocket, framed_entry};
use crate::support::server::{TestServer, in_memory};
use crate::support::store;

/// Two clients that ask from the same place get the same entries, including the ids of compacted ones; a replacement
/// that is not a frame is withheld from them, and holds nothing up.
#[tokio::test]
async fn a_compacted_backlog_is_the_same_for_all_and_live_entries_follow() {
    let compaction = Compaction::new(&Limits::default());
    let strategy = Strategy::effect(|bucket, out| {
        let last = bucket.entries.last().expect("an entry");
        let payload = if last.primary_key == "unreadable" { b"junk" } else { &last.payload[..] };
        out.write("NoteJoined", payload.to_vec());
        Ok(())
    });
    let guard = compaction.register([EventPattern::glob("Note*")], Duration::ZERO, strategy);
    let guard = guard.expect("the first compactor");
    let server = TestServer::start(
        in_memory().compaction(compaction),
        &[("alice", "team"), ("bob", "team")],
    )
    .await;
    let old = |number: u8, primary_key: &str| Entry {
        id: EntryId::from_bytes([0, 0, 0, 0, 0, number, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number]),
        ..framed_entry("Note", primary_key, &[number])
    };
    let entries = vec![
        old(1, "n1"),
        old(2, "unreadable"),
        old(3, "n1"),
        Entry { event: "Other".to_owned(), ..old(4, "n1") },
    ];
    server.server.write_to_store(store("team"), entries.clone(), true).await.expect("a write");
    let mut feeds = Vec::new();
    for name in ["alice", "bob"] {
        let mut reader = RpcSocket::authenticated(&server.rpc_url(), &[name]).await;
        let feed = reader.subscribe(name, DEFAULT, 0).await;
        let got = reader.next_entries(&feed, 2).await;
        reader.nothing_comes().await;
        feeds.push((reader, feed, got));
    }
    assert_eq!(feeds[0].2, feeds[1].2);
    let [(_, joined), (4, other)] = &feeds[0].2[..] else { panic!("{:?}", feeds[0].2) };
    assert_eq!((&*joined.event, &joined.payload), ("NoteJoined", &entries[2].payload));
    assert_eq!(*other, entries[3]);
    let live = framed_entry("Note", "n1", b"live");
    server.server.write_to_store(store("team"), vec![live.clone()], true).await.expect("a write");
    for (mut reader, feed, _) in feeds {
        assert_eq!(reader.next_entries(&feed, 1).await, [(5, live.clone())]);
    }
    drop(guard);
}

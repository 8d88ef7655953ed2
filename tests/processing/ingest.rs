//! Many writers at once.

use std::collections::HashMap;

use super::*;
use crate::support::key;
use crate::support::server::in_memory;

const WRITERS: usize = 8;
const BATCHES: usize = 40;
const BATCH: usize = 10;

/// Eight clients write to two stores; three of every ten entries were written before, by any of them.
#[tokio::test]
async fn each_committed_entry_is_handled_once_under_eight_writers_with_duplicates() {
    let (server, handled) = start(in_memory(), &[("alice", "a"), ("bob", "b")]).await;
    let url = server.url();
    let written: Arc<Mutex<HashMap<&str, Vec<Entry>>>> = Arc::default();
    let writers = (0..WRITERS).map(|writer| {
        let (url, written) = (url.clone(), Arc::clone(&written));
        tokio::spawn(async move { write_some(writer, &url, &written).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
    for (public_key, store_id) in [("alice", "a"), ("bob", "b")] {
        // The feed, read as a client reads it, says what was committed.
        let expected = written.lock()[public_key].len();
        let mut socket = Socket::connect(&url).await;
        socket.subscribe(&key(public_key), 0).await;
        let committed = socket.next_entries(expected).await;
        processed(&server.server, store_id, expected as u64).await;
        let committed = committed.iter().map(|(sequence, entry)| {
            let todo: TodoAdded = Msgpack::decode(&entry.payload).expect("decodes");
            format!("{store_id} {sequence} {}", todo.title)
        });
        let handled = handled.lock();
        let of_store = handled.iter().filter(|line| line.starts_with(store_id));
        assert!(of_store.eq(committed.collect::<Vec<_>>().iter()), "once each, in feed order");
    }
}

async fn write_some(writer: usize, url: &str, written: &Mutex<HashMap<&'static str, Vec<Entry>>>) {
    let public_key = if writer.is_multiple_of(2) { "alice" } else { "bob" };
    let mut socket = Socket::connect(url).await;
    for batch in 0..BATCHES {
        let mut entries = Vec::new();
        for slot in 0..BATCH {
            let mut written = written.lock();
            let before = written.entry(public_key).or_default();
            let is_duplicate = slot % 10 < 3 && !before.is_empty();
            if is_duplicate {
                // Any of the earlier ones, including the newest: they may still be on their way.
                entries.push(before[(writer * 31 + batch * 17 + slot * 7) % before.len()].clone());
            } else {
                let fresh = added("todo", &format!("{writer}-{batch}-{slot}"));
                before.push(fresh.clone());
                entries.push(fresh);
            }
        }
        let sequences = write(&mut socket, &key(public_key), &entries).await;
        assert_eq!(sequences.len(), BATCH);
    }
}

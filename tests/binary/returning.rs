//! Clients that come back at once to a server that they do not know, as after a restore: each sends its whole history, which is the same
//! for all of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use eventlog_server::model::Entry;
use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::rpc::{Call, Part, encode_write_entries};
use tempfile::tempdir;
use tokio::task::JoinHandle;

use crate::support::batch;
use crate::support::process::{Process, binary};
use crate::support::rpc::{DEFAULT, Refused, RpcSocket, framed_entry};
use crate::support::socket::Socket;

/// How many clients there are; `EVENTLOG_TEST_RETURNING=200` makes them 200.
const CLIENTS: usize = 16;
/// Enough entries for a message of 18 MiB, which waits on disk.
const ENTRIES: usize = 1_150;
/// What they may take there together: only three of the messages at a time.
const DISK_MIB: u64 = 64;
/// What the server may take more than while idle.
const MEMORY_MIB: u64 = 300;
/// The pause of a client before it sends a refused message again.
const AGAIN: Duration = Duration::from_millis(500);

fn clients() -> usize {
    let given = std::env::var("EVENTLOG_TEST_RETURNING").ok();
    given.map_or(CLIENTS, |count| count.parse().expect("a number"))
}

/// Sends a message in parts, and returns how many entries are acknowledged.
async fn send(client: &mut RpcSocket, message: &[u8], id: i64) -> Result<usize, Refused> {
    let (total, mut acked) = (message.len().div_ceil(CHUNK_BYTES) as u64, 0);
    for (index, data) in (0..).zip(message.chunks(CHUNK_BYTES)) {
        let sent = client.call(&Call::WriteChunked(Part { id, index, total, data })).await;
        acked = client.acked(&sent).await?.len();
    }
    Ok(acked)
}

async fn come_back(url: String, number: usize, history: Arc<Vec<Entry>>) {
    let name = format!("client-{number}");
    let message = encode_write_entries(&name, DEFAULT, &batch(&history));
    let mut client = RpcSocket::authenticated(&url, &[&name]).await;
    for id in 0.. {
        match send(&mut client, &message, id).await {
            Ok(acked) => return assert_eq!(acked, ENTRIES),
            Err(refused) => assert!(refused.message.starts_with("busy: "), "{refused:?}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten();
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_back_at_once_are_stored_within_bounds_of_memory_and_disk() {
    let directory = tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut command = binary();
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    command.env("EVENTLOG_SPILL_BYTES_MAX", format!("{DISK_MIB}MiB"));
    let server = Process::start(command);
    let idle = server.memory_bytes().0;
    let entries = (0..ENTRIES).map(|n| framed_entry("Note", &n.to_string(), &[n as u8; 16 << 10]));
    let history: Arc<Vec<Entry>> = Arc::new(entries.collect());
    let (url, done) = (server.url.replace("/eventlog", "/rpc"), Arc::new(AtomicUsize::new(0)));
    let returning: Vec<_> = (0..clients())
        .map(|number| {
            let (back, done) = (come_back(url.clone(), number, history.clone()), done.clone());
            tokio::spawn(async move {
                back.await;
                done.fetch_add(1, SeqCst);
            })
        })
        .collect();
    let mut most_on_disk = 0;
    while done.load(SeqCst) < returning.len() && !returning.iter().all(JoinHandle::is_finished) {
        most_on_disk = most_on_disk.max(bytes_in(&data.join("spill")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for one in returning {
        one.await.expect("it came back");
    }
    let more = (server.memory_bytes().1 - idle) >> 20;
    println!("{} clients: {more} MiB more, {} MiB on disk", clients(), most_on_disk >> 20);
    assert!(more < MEMORY_MIB, "{more} MiB more");
    assert!(most_on_disk > 0 && most_on_disk <= DISK_MIB << 20, "{most_on_disk} bytes");
    let mut reader = Socket::connect(&server.url).await;
    reader.subscribe(&crate::support::key("reader"), 0).await;
    let read = reader.next_joined_entries(ENTRIES).await;
    assert!(read.iter().map(|(_, entry)| entry.id).eq(history.iter().map(|entry| entry.id)));
    reader.nothing_comes().await;
    // The last file is removed a moment after the answer.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while bytes_in(&data.join("spill")) > 0 {
        assert!(std::time::Instant::now() < deadline, "a file stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

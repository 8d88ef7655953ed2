//! Small input that would become large when decoded, on the binary: it is named and limited, and the connection
//! continues.

use std::time::Duration;

use eventlog_server::model::limits::CHUNK_BYTES;
use eventlog_server::protocol::rpc::{Call, Envelope, ErrorCode, Part, Request, RequestId};
use tempfile::tempdir;

use crate::support::expanding::{frame, write};
use crate::support::process::Process;
use crate::support::rpc::{RpcSocket, acks, framed_entry};

const MIB: usize = 1_024 * 1_024;

/// Sends every part, each but the last once the previous one is answered.
async fn send(client: &mut RpcSocket, set: i64, data: &[u8]) -> RequestId {
    let total = data.len().div_ceil(CHUNK_BYTES) as u64;
    let mut last = None;
    for (index, data) in (0..).zip(data.chunks(CHUNK_BYTES)) {
        if let Some(part) = last.take() {
            assert_eq!(in_time(client.acked(&part)).await, Ok(vec![]));
        }
        last = Some(client.call(&Call::WriteChunked(Part { id: set, index, total, data })).await);
    }
    last.expect("a part")
}

fn rpc_url(server: &Process) -> String {
    server.url.replace("/eventlog", "/rpc")
}

/// Nobody waits forever for something that does not come.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect("in time")
}

fn more_mib(server: &Process, idle: u64) -> u64 {
    (server.memory_bytes().1 - idle) >> 20
}

/// Half a million entries that share a key of a megabyte: 15 MiB on the wire, 500 GB in the store. In memory, in parts,
/// and in parts that are too many for memory.
#[tokio::test]
async fn a_write_is_not_much_more_than_what_came_of_it() {
    let directory = tempdir().expect("a directory");
    let server = Process::serve_dev(directory.path());
    let mut client = RpcSocket::authenticated(&rpc_url(&server), &["alice"]).await;
    let idle = server.memory_bytes().0;
    for (set, rows) in [(1, 560_000), (2, 760_000)] {
        let data = write(MIB, rows);
        assert_eq!(data.len() > 16 * MIB, set == 2, "{} bytes", data.len());
        let last = send(&mut client, set, &data).await;
        let refused = in_time(client.refused(&last)).await;
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        let said = &refused.message;
        assert!(said.starts_with("expansion: with entry "), "{said}");
        assert!(said.contains("write_expansion_max"), "what to do: {said}");
    }
    let one = [framed_entry("E", "k", b"")];
    assert_eq!(in_time(client.write("alice", &one)).await, Ok(acks(&one, &[1])));
    // The second set is on disk; of the first, what arrived is held, and a piece.
    assert!(more_mib(&server, idle) < 96, "{} MiB more", more_mib(&server, idle));
}

/// What clients have in normal use: a key of a kilobyte in 25,000 entries, 30 MiB out of 700 KB.
#[tokio::test]
async fn a_long_key_that_many_entries_share_is_taken() {
    let directory = tempdir().expect("a directory");
    let server = Process::serve_dev(directory.path());
    let mut client = RpcSocket::authenticated(&rpc_url(&server), &["alice"]).await;
    let data = write(1_200, 25_000);
    let last = send(&mut client, 1, &data).await;
    assert_eq!(in_time(client.acked(&last)).await.expect("stored").len(), 25_000);
}

/// A client that has not said who it is sends a frame of unknown fields, one byte each.
#[tokio::test]
async fn fields_that_nothing_knows_take_no_memory() {
    let directory = tempdir().expect("a directory");
    let server = Process::serve_dev(directory.path());
    let mut stranger = RpcSocket::connect(&rpc_url(&server)).await;
    let idle = server.memory_bytes().0;
    let (id, payload) = (RequestId::from_number(0), frame(&vec![0x0f; 15 * MIB]));
    let request = Request::new(id.as_ref(), "EventLog.Authenticate", &payload);
    stranger.send(&Envelope::Request(request).encode()).await;
    let ended = in_time(stranger.next()).await;
    assert!(format!("{ended:?}").contains("malformed: expected fewer fields"), "{ended:?}");
    // The message itself, and what it was joined from.
    assert!(more_mib(&server, idle) < 64, "{} MiB more", more_mib(&server, idle));
}

//! Whatever parts arrive, what unfinished sets hold stays within the limits, and so do the joined messages.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use eventlog_server::model::Limits;
use eventlog_server::protocol::chunk::ChunkJoiner;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Part {
    id: u8,
    index: u64,
    total: u64,
    small: bool,
    pause_millis: u16,
    data: Vec<u8>,
}

fuzz_target!(|parts: Vec<Part>| {
    let limits = Limits {
        message_bytes_max: 64,
        chunk_sets_max: 3,
        chunk_set_bytes_max: 256,
        chunk_set_age_max: Duration::from_secs(10),
        ..Limits::default()
    };
    let mut joiner = ChunkJoiner::new(&limits);
    let mut now = 0;
    for part in parts {
        now += u64::from(part.pause_millis);
        let _ = joiner.expire(now, 0);
        // Most numbers are absurd, so some are made plausible.
        let (index, total) =
            if part.small { (part.index % 5, part.total % 5) } else { (part.index, part.total) };
        let id = u64::from(part.id % 6);
        if let Ok(Some(message)) = joiner.push(id, index, total, Bytes::from(part.data)) {
            assert!(message.len() <= limits.message_bytes_max);
        }
        assert!(joiner.bytes() <= limits.chunk_set_bytes_max);
    }
});

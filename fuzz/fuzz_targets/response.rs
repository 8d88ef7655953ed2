//! Any bytes give a response or an error, and every entry that a response counts can be read.

#![no_main]

use bytes::Bytes;
use eventlog_server::protocol::msgpack::{Response, decode_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Response::Changes(changes)) = decode_response(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(changes.iter().count(), changes.len());
    }
});

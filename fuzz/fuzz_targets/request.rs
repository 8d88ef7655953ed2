//! Any bytes give a request or an error, and a request that is written again reads back as itself.

#![no_main]

use bytes::{Bytes, BytesMut};
use eventlog_server::model::Limits;
use eventlog_server::protocol::msgpack::{
    Request, WriteRequest, decode_request, encode_chunk, encode_ping, encode_request_changes,
    encode_stop_changes, encode_write,
};
use libfuzzer_sys::fuzz_target;

fn encode(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    match request {
        Request::Write(WriteRequest { public_key, id, batch }) => {
            encode_write(&mut out, public_key, *id, batch);
        }
        Request::RequestChanges { public_key, start } => {
            encode_request_changes(&mut out, public_key, *start);
        }
        Request::StopChanges { public_key } => encode_stop_changes(&mut out, public_key),
        Request::Chunk { id, index, total, data } => {
            encode_chunk(&mut out, *id, *index, *total, data);
        }
        Request::Ping { id } => encode_ping(&mut out, *id),
    }
    out.freeze()
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    if let Ok(request) = decode_request(&Bytes::copy_from_slice(bytes), &limits) {
        assert_eq!(decode_request(&encode(&request), &limits), Ok(request));
    }
});

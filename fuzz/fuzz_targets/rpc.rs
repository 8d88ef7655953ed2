//! The RPC protocol, both ways: any stream ends in frames or an error, and whatever is read from one and can be written
//! reads back as itself.

#![no_main]

use bytes::Bytes;
use eventlog_server::model::Limits;
use eventlog_server::protocol::rpc::{
    Acks, Call, ChangesValue, ChangesValues, Envelope, Exit, FrameReader, HelloResponse,
    RemoteEntries, Request, RequestId, WriteEntries, decode_defect, encode_write_entries,
    payload_is_complete_frame,
};
use libfuzzer_sys::fuzz_target;

const BODY_BYTES_MAX: usize = 1 << 20;

/// The only body in `frame`.
fn body(frame: &Bytes) -> Bytes {
    let mut rest = frame.clone();
    let body = FrameReader::new(usize::MAX).next_body(&mut rest);
    assert!(rest.is_empty());
    body.expect("a frame of ours").expect("all of it")
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    assert_eq!(Envelope::decode(&body(&envelope.encode())), Ok(envelope));
    match envelope {
        Envelope::Request(request) => call(&request),
        Envelope::Exit { exit, .. } => self::exit(exit),
        Envelope::Chunk { values, .. } => changes(values),
        Envelope::Defect(defect) => drop(decode_defect(defect)),
        Envelope::Ack(_)
        | Envelope::Interrupt(_)
        | Envelope::Ping
        | Envelope::Pong
        | Envelope::Eof => {}
    }
}

fn call(request: &Request<'_>) {
    let Ok(call) = Call::decode(request.tag, request.payload) else { return };
    let again = body(&call.encode(&RequestId::from_ref(request.id)));
    match Envelope::decode(&again) {
        Ok(Envelope::Request(again)) => {
            assert_eq!(Call::decode(again.tag, again.payload), Ok(call));
        }
        other => panic!("{other:?}"),
    }
    match call {
        Call::WriteSingle { data } => write(data),
        Call::WriteChunked(part) => write(part.data),
        Call::Hello | Call::Authenticate(_) | Call::Changes(_) => {}
    }
}

fn write(data: &[u8]) {
    let Ok(write) = WriteEntries::decode(data) else { return };
    let Ok(batch) = write.batch(&Limits::default()) else { return };
    for entry in batch.iter() {
        assert!(payload_is_complete_frame(entry.payload));
    }
    let data = encode_write_entries(write.public_key, write.store_id, &batch);
    let again = WriteEntries::decode(&data).expect("a write of ours");
    assert_eq!((again.public_key, again.store_id), (write.public_key, write.store_id));
    assert_eq!(again.batch(&Limits::default()), Ok(batch));
}

fn exit(exit: &[u8]) {
    match Exit::decode(exit) {
        Ok(Exit::Success(value)) => {
            let _ = HelloResponse::decode(value);
            if let Ok(mut acks) = Acks::decode(value) {
                while let Ok(Some(_)) = acks.next_ack() {}
            }
        }
        Ok(Exit::Failure(cause)) => drop(cause.reasons().count()),
        Err(_) => {}
    }
}

fn changes(values: &[u8]) {
    let Ok(mut values) = ChangesValues::decode(values) else { return };
    while let Ok(Some(value)) = values.next_value() {
        match value {
            ChangesValue::Single(data) => entries(data),
            ChangesValue::Chunked(part) => entries(part.data),
        }
    }
}

fn entries(data: &[u8]) {
    if let Ok(mut entries) = RemoteEntries::decode(data) {
        while let Ok(Some(_)) = entries.next_entry() {}
    }
}

/// The bodies of a stream that arrives in two pieces, up to its error.
fn bodies(pieces: [&[u8]; 2]) -> Vec<Bytes> {
    let mut reader = FrameReader::new(BODY_BYTES_MAX);
    let mut found = Vec::new();
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Ok(Some(body)) = reader.next_body(&mut piece) {
            found.push(body);
        }
    }
    assert!(reader.pending_bytes() <= pieces[0].len() + pieces[1].len());
    found
}

// The first byte says where the stream is cut, and which reader gets it first: most changes to an envelope leave
// nothing of its contents.
fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let cut = usize::from(*cut) % (stream.len() + 1);
    let (head, tail) = stream.split_at(cut);
    let found = bodies([head, tail]);
    assert_eq!(found, bodies([stream, &[]]));
    found.iter().for_each(|body| envelope(body));
    envelope(stream);
    write(stream);
    exit(stream);
    changes(stream);
    entries(stream);
});

//! The RPC protocol, as the generator needs it: messages that are read in place, writes with places to patch.
//!
//! All keys have the same signing key, which a server binds to each when it is first used. A message is assumed to be
//! one whole frame, as all servers of this protocol send them.

use std::io;

use bytes::Bytes;
use eventlog_server::model::{Batch, EntryId, PublicKey, Sequence};
use eventlog_server::protocol::rpc::{
    Acks, Call, Cause, Changes, Envelope, Exit, HelloResponse, Identity, Reason, RequestId,
    RequestIdRef, encode_write_entries,
};

use super::socket::Socket;

/// The name by which a client means its own store.
const STORE: &str = "default";

/// Requests are numbered from here on, so that all their ids have the same width.
const NUMBER_MIN: u64 = 1 << 27;

/// What precedes the arbitrary bytes of a payload: a length, as long as it may be, and the mark of a frame.
pub(super) const PAYLOAD_HEADER_BYTES: usize = 4;

/// The id of request `request`.
pub(super) fn request_id(request: u32) -> RequestId {
    RequestId::from_number(NUMBER_MIN + u64::from(request))
}

/// The request or subscription with this id, if it is one of ours.
pub(super) fn request_of(id: RequestIdRef<'_>) -> Option<u64> {
    id.number()?.checked_sub(NUMBER_MIN)
}

/// A payload of `bytes` bytes: a frame around bytes that do not compress.
pub(super) fn payload(random: &[u8]) -> Vec<u8> {
    let value = random.get(PAYLOAD_HEADER_BYTES..).unwrap_or_default();
    let len = value.len() + 1;
    let length = [len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8 & 0x7f];
    [&length[..], &[0x20], value].concat()
}

/// A write of these entries.
pub(super) fn encode_write(key: &PublicKey, request: u32, batch: &Batch) -> Bytes {
    let data = encode_write_entries(key.as_str(), STORE, batch);
    Call::WriteSingle { data: &data }.encode(&request_id(request))
}

/// A subscription of `key`, identified by its number.
pub(super) fn encode_subscription(key: &PublicKey, number: usize, start: Sequence) -> Bytes {
    let changes = Changes { public_key: key.as_str(), store_id: STORE, start_sequence: start };
    Call::Changes(changes).encode(&request_id(number as u32))
}

/// Proves every one of `keys` on a connection that was just opened.
pub(super) async fn prove<'a>(
    socket: &mut Socket,
    keys: impl IntoIterator<Item = &'a PublicKey>,
) -> io::Result<()> {
    for (number, key) in (0..).step_by(2).zip(keys) {
        let identity = Identity::from_signing_key(key.clone(), &[7; 32]);
        let hello = ask(socket, &Call::Hello, number).await?;
        let hello = HelloResponse::decode(success(&hello)?).map_err(io::Error::other)?;
        let signature = identity.sign(hello.remote_id, hello.challenge);
        let claim = Call::Authenticate(identity.claim(&signature));
        success(&ask(socket, &claim, number + 1).await?)?;
    }
    Ok(())
}

/// Sends a request and waits for the next message.
async fn ask(socket: &mut Socket, call: &Call<'_>, number: u64) -> io::Result<Vec<u8>> {
    let request = call.encode(&RequestId::from_number(number));
    socket.push(&request);
    socket.flush().await?;
    loop {
        if let Some(message) = socket.next_message()? {
            return Ok(message.to_vec());
        }
        socket.receive().await?;
    }
}

/// The value in a message that ends a request successfully.
fn success(message: &[u8]) -> io::Result<&[u8]> {
    let Envelope::Exit { exit, .. } = envelope(message)? else {
        return Err(io::Error::other("another message instead of an answer"));
    };
    match Exit::decode(exit).map_err(io::Error::other)? {
        Exit::Success(value) => Ok(value),
        Exit::Failure(cause) => Err(io::Error::other(reason(&cause))),
    }
}

/// What a message says.
#[inline]
pub(super) fn envelope(message: &[u8]) -> io::Result<Envelope<'_>> {
    Envelope::decode_frame(message).map_err(io::Error::other)
}

/// Reads the acks of a write into `sequences`, in slot order; returns the sum of the ids in them.
#[inline]
pub(super) fn read_acks(value: &[u8], sequences: &mut Vec<u64>) -> io::Result<u128> {
    let mut acks = Acks::decode(value).map_err(io::Error::other)?;
    let mut id_sum = 0_u128;
    sequences.clear();
    while let Some((id, sequence)) = acks.next_ack().map_err(io::Error::other)? {
        sequences.push(sequence.get());
        id_sum = id_sum.wrapping_add(id_number(id));
    }
    Ok(id_sum)
}

/// An id as a number, for sums of them.
pub(super) fn id_number(id: EntryId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

pub(super) fn reason(cause: &Cause<'_>) -> String {
    let reasons = cause.reasons().map(|reason| match reason {
        Reason::Fail(error) => format!("{}: {}", error.code, error.message),
        Reason::Die(text) => text.to_owned(),
        Reason::Interrupt(_) => "interrupted".to_owned(),
    });
    reasons.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use eventlog_server::protocol::rpc::{encode_acks, payload_is_complete_frame};

    use super::super::reader::{Answer, MessageReader};
    use super::*;
    use crate::cli::peer::Protocol;

    #[test]
    fn every_request_number_has_one_width_and_comes_back() {
        for request in [0, 1, 0x1_0000, u32::MAX] {
            let id = request_id(request);
            assert_eq!(id.as_ref().as_bytes().len(), 6);
            assert_eq!(request_of(id.as_ref()), Some(request.into()));
        }
        assert_eq!(request_of(RequestId::from_number(7).as_ref()), None);
    }

    #[test]
    fn payloads_of_any_size_are_frames() {
        for size in [5, 100, 131, 20_000, 300_000] {
            let payload = payload(&vec![0xff; size]);
            assert_eq!(payload.len(), size);
            assert!(payload_is_complete_frame(&payload), "{size}");
        }
    }

    #[test]
    fn an_answer_names_its_write_and_the_entries() {
        let ids = [1, 2].map(|n: u128| EntryId::from_bytes(n.to_be_bytes()));
        let at = |n| Sequence::new(n).expect("a sequence");
        let message = encode_acks(&request_id(70_000), [(ids[0], at(5)), (ids[1], at(300))]);
        let mut reader = MessageReader::new(Protocol::Rpc);
        let Ok(Answer::Ack(ack)) = reader.read(&message, &mut |_| ()) else { panic!("no ack") };
        assert_eq!((ack.request, ack.sequences, ack.id_sum), (70_000, &[5, 300][..], Some(3)));
        assert!(reader.read(&message[1..], &mut |_| ()).is_err());
    }
}

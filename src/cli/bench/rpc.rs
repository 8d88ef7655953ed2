//! The RPC protocol, as the generator needs it: messages that are read where they lie, writes with places to patch.
//!
//! Every key has one and the same signing key, which a server binds to it when it is first used. A message is taken to be
//! one whole frame, as all servers of this protocol send them.

use std::io;

use bytes::Bytes;
use eventlog_server::model::{Batch, EntryId, PublicKey, Sequence};
use eventlog_server::protocol::rpc::{
    Acks, Call, Cause, Changes, Envelope, Exit, HelloResponse, Identity, Malformed, Reason,
    RequestId, RequestIdRef, encode_write_entries,
};

use super::message::{Message, Sequences};
use super::socket::Socket;

/// The name by which a client means its own store.
const STORE: &str = "default";

/// Requests are numbered from here on, so that all their ids have one width.
const NUMBER_MIN: u64 = 1 << 27;

/// So many bytes have these numbers in an id.
pub(super) const NUMBER_BYTES: usize = 5;

/// What stands in a payload before the bytes that are anybody's: a length, as long as it may be, and the mark of a frame.
pub(super) const PAYLOAD_HEADER_BYTES: usize = 4;

pub(super) fn malformed(malformed: Malformed) -> io::Error {
    io::Error::other(malformed)
}

/// The id of request `request`.
fn request_id(request: u32) -> RequestId {
    RequestId::from_number(NUMBER_MIN + u64::from(request))
}

/// The number of `request` as it stands in its id.
pub(super) fn request_number(request: u32) -> [u8; NUMBER_BYTES] {
    let mut code = (NUMBER_MIN + u64::from(request)) * 2;
    let mut bytes = [0; NUMBER_BYTES];
    for byte in &mut bytes {
        *byte = code as u8 | 0x80;
        code >>= 7;
    }
    bytes[NUMBER_BYTES - 1] &= 0x7f;
    bytes
}

/// Which request this is the id of, if it is one of ours.
fn request_of(id: RequestIdRef<'_>) -> Option<u32> {
    let number: &[u8; NUMBER_BYTES] = id.as_bytes().strip_prefix(&[0])?.try_into().ok()?;
    let code = number.iter().rev().fold(0, |code, byte| code << 7 | u64::from(byte & 0x7f));
    u32::try_from((code / 2).checked_sub(NUMBER_MIN)?).ok()
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

/// A subscription of `key`, which is told from others by its number.
pub(super) fn encode_subscription(key: &PublicKey, number: usize, start: Sequence) -> Bytes {
    let changes = Changes { public_key: key.as_str(), store_id: STORE, start_sequence: start };
    Call::Changes(changes).encode(&request_id(number as u32))
}

/// Says that a message of subscription `number` was taken in.
pub(super) fn encode_taken(number: usize) -> Bytes {
    Envelope::Ack(request_id(number as u32).as_ref()).encode()
}

/// Proves every one of `keys` on a connection that was just opened.
pub(super) async fn prove(socket: &mut Socket, keys: &[&PublicKey]) -> io::Result<()> {
    for (number, key) in (0..).step_by(2).zip(keys) {
        let identity = Identity::from_signing_key((*key).clone(), &[7; 32]);
        let hello = ask(socket, &Call::Hello, number).await?;
        let hello = HelloResponse::decode(success(&hello)?).map_err(malformed)?;
        let signature = identity.sign(hello.remote_id, hello.challenge);
        let claim = Call::Authenticate(identity.claim(&signature));
        success(&ask(socket, &claim, number + 1).await?)?;
    }
    Ok(())
}

/// Sends a request and waits for the message that comes next.
async fn ask(socket: &mut Socket, call: &Call<'_>, number: u64) -> io::Result<Vec<u8>> {
    let request = call.encode(&RequestId::from_number(number));
    socket.push(request.len(), |out| out.extend_from_slice(&request));
    std::future::poll_fn(|cx| socket.poll_write(cx)).await?;
    loop {
        if let Some(message) = socket.next_message()? {
            return Ok(message.to_vec());
        }
        std::future::poll_fn(|cx| socket.poll_read(cx)).await?;
    }
}

/// The value in a message that ends a request well.
fn success(message: &[u8]) -> io::Result<&[u8]> {
    let Envelope::Exit { exit, .. } = envelope(message)? else {
        return Err(io::Error::other("another message instead of an answer"));
    };
    match Exit::decode(exit).map_err(malformed)? {
        Exit::Success(value) => Ok(value),
        Exit::Failure(cause) => Err(io::Error::other(reason(&cause))),
    }
}

/// What a message says.
pub(super) fn envelope(message: &[u8]) -> io::Result<Envelope<'_>> {
    let (mut length, mut rest) = (0_u64, message);
    for shift in (0..35).step_by(7) {
        let Some((byte, behind)) = rest.split_first() else { break };
        length |= u64::from(byte & 0x7f) << shift;
        rest = behind;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if length != rest.len() as u64 {
        return Err(io::Error::other("a message that is not one frame"));
    }
    Envelope::decode(rest).map_err(malformed)
}

/// Which subscription this is the id of.
pub(super) fn subscription_of(id: RequestIdRef<'_>) -> Option<usize> {
    request_of(id).map(|number| number as usize)
}

/// Reads an answer to a write.
pub(super) fn read(message: &[u8]) -> io::Result<Message<'static>> {
    let Envelope::Exit { id, exit } = envelope(message)? else { return Ok(Message::Nothing) };
    let Some(request) = request_of(id) else { return Ok(Message::Nothing) };
    match Exit::decode(exit).map_err(malformed)? {
        Exit::Success(value) => Ok(Message::Ack(request.into(), acks(value)?)),
        Exit::Failure(cause) => Ok(Message::Refused(request.into(), reason(&cause))),
    }
}

fn acks(value: &[u8]) -> io::Result<Sequences<'static>> {
    let mut acks = Acks::decode(value).map_err(malformed)?;
    let (mut sequences, mut id_sum) = (Vec::new(), 0_u128);
    while let Some((id, sequence)) = acks.next_ack().map_err(malformed)? {
        sequences.push(sequence.get());
        id_sum = id_sum.wrapping_add(id_number(id));
    }
    Ok(Sequences::Taken { sequences: sequences.into_iter(), id_sum })
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

    use super::*;

    #[test]
    fn every_request_number_has_one_width_and_comes_back() {
        for request in [0, 1, 0x1_0000, u32::MAX] {
            let id = request_id(request);
            assert_eq!(id.as_ref().as_bytes(), [&[0][..], &request_number(request)].concat());
            assert_eq!(request_of(id.as_ref()), Some(request));
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
        let Ok(Message::Ack(70_000, sequences)) = read(&message) else { panic!("no ack") };
        assert_eq!(sequences.id_sum(), Some(3));
        assert!(sequences.eq([5, 300]));
        assert!(read(&message[1..]).is_err());
    }
}

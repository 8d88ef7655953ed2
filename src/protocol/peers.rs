//! Which protocol a client speaks if it speaks the wrong one, determined from its first message.
//!
//! Keeps: looks only at the beginning of a message. It is asked only about messages that could not be read, so it never
//! mistakes a message of the right protocol. Leaves out: what such a client is told (`actors::session`).

/// How many bytes of a message are checked.
pub(crate) const LOOKED_AT_BYTES: usize = 1_024;

/// The first byte of what Effect's RPC sends as `SchemaBinary`, after its length.
const SCHEMA_BINARY: u8 = 0x21;

/// A client, recognized by its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// RPC of Effect, serialized as `SchemaBinary`.
    RpcSchemaBinary,
    /// RPC of Effect, serialized as JSON, in one of its forms.
    RpcJson,
    /// RPC of Effect, serialized as msgpack.
    RpcMsgpack,
    /// The msgpack protocol of event logs.
    Msgpack,
}

impl Peer {
    /// Who sends this; `None` if it looks like nothing known.
    pub(crate) fn of(message: &[u8]) -> Option<Self> {
        let beginning = &message[..message.len().min(LOOKED_AT_BYTES)];
        let has = |text: &str| beginning.windows(text.len()).any(|some| some == text.as_bytes());
        let first = *beginning.iter().find(|byte| !byte.is_ascii_whitespace())?;
        match first {
            b'{' | b'[' if has("\"_tag\"") || has("\"jsonrpc\"") => Some(Self::RpcJson),
            _ if is_schema_binary(beginning, message.len()) => Some(Self::RpcSchemaBinary),
            // A map, an array, or the extension with which msgpackr begins a record.
            0x80..=0x9f | 0xdc..=0xdf | 0xd4 if has("_tag") => {
                let is_rpc = has("headers") || has("requestId") || has("Eof");
                Some(if is_rpc { Self::RpcMsgpack } else { Self::Msgpack })
            }
            _ => None,
        }
    }
}

/// Whether it is one whole frame: these clients put each frame into a message of its own.
fn is_schema_binary(beginning: &[u8], message_bytes: usize) -> bool {
    let Some(last) = beginning.iter().take(10).position(|byte| *byte < 0x80) else { return false };
    let length = beginning[..=last].iter().rev().fold(0_u128, |length, byte| {
        // At most ten bytes of seven bits.
        (length << 7) | u128::from(byte & 0x7f)
    });
    beginning.get(last + 1) == Some(&SCHEMA_BINARY) && length == (message_bytes - last - 1) as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rpc::{Call, RequestId};

    /// A map of texts, as JavaScript's msgpack packs it.
    fn map(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = vec![0x80 | pairs.len() as u8];
        for text in pairs.iter().flat_map(|(key, value)| [key, value]) {
            bytes.push(0xa0 | text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn a_first_message_says_who_sends_it() {
        let hello = Call::Hello.encode(&RequestId::from_number(1));
        assert_eq!(Peer::of(&hello), Some(Peer::RpcSchemaBinary));
        for json in [
            r#"{"_tag":"Request","id":1,"tag":"EventLog.Hello","payload":null,"headers":[]}"#,
            r#" [{"_tag":"Ping"}]"#,
            "{\"jsonrpc\":\"2.0\",\"method\":\"EventLog.Hello\",\"params\":null,\"id\":3}\n",
        ] {
            assert_eq!(Peer::of(json.as_bytes()), Some(Peer::RpcJson), "{json}");
        }
        let request = map(&[("_tag", "Request"), ("tag", "EventLog.Hello"), ("headers", "")]);
        assert_eq!(Peer::of(&request), Some(Peer::RpcMsgpack));
        let record = b"\xd4\x72\x40\x95\xa4_tag\xa2id\xa3tag\xa7payload\xa7headers\xa7Request\x01";
        assert_eq!(Peer::of(record), Some(Peer::RpcMsgpack));
        let changes = map(&[("_tag", "RequestChanges"), ("publicKey", "alice")]);
        assert_eq!(Peer::of(&changes), Some(Peer::Msgpack));
        assert_eq!(Peer::of(&map(&[("_tag", "Ping"), ("id", "1")])), Some(Peer::Msgpack));
    }

    #[test]
    fn what_is_nothing_known_is_nobody() {
        let cut = &Call::Hello.encode(&RequestId::from_number(1))[..20];
        for bytes in [&b""[..], b" ", b"\x80", b"{}", b"hello", b"\x82\xa1a\x01", cut, &[0xff; 40]]
        {
            assert_eq!(Peer::of(bytes), None, "{bytes:?}");
        }
    }
}

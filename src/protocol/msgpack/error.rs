//! What can be wrong with a message.

/// A request that cannot be carried out as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message can be read, but a value in it is wrong: the client is told, the connection stays.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The message cannot be read: the connection is closed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A well-formed request with a bad value: what the client needs to find its mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {request_tag}: {message}")]
pub struct InvalidRequest {
    /// The `_tag` of the request; both spellings of a write are called `WriteEntries`.
    pub request_tag: &'static str,
    /// Its id, if it has one that can be read.
    pub id: Option<u64>,
    /// Its public key, if it has one that can be read and is not too long.
    pub public_key: Option<String>,
    /// Which value is wrong and how, such as `entry 3: the id is missing`. Entries count from 0.
    pub message: String,
}

/// Bytes that are not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The bytes end within a value, or a length claims more than there are.
    #[error("not msgpack: the bytes end within a value")]
    Truncated,
    /// Byte `c1`, which msgpack does not use.
    #[error("not msgpack: no value begins with the byte c1")]
    ReservedByte,
    /// More bytes than the one value that a message is.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
    /// The message is not a map.
    #[error("the message is {0} instead of a map")]
    NotAMap(&'static str),
    /// A map without the key `_tag`, or with one that is not text.
    #[error("the message has no _tag")]
    NoTag,
    /// No message has this tag; at most its first 64 characters are kept.
    #[error("unknown _tag {0:?}")]
    UnknownTag(Box<str>),
}

impl Malformed {
    pub(super) fn unknown_tag(tag: &[u8]) -> Self {
        // A character has at most four bytes.
        let start = &tag[..tag.len().min(256)];
        Self::UnknownTag(String::from_utf8_lossy(start).chars().take(64).collect())
    }
}

/// What a server sent cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// It cannot be read at all.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It can be read, but a value in it is wrong.
    #[error("invalid {response_tag}: {message}")]
    Invalid {
        /// The `_tag` of the response.
        response_tag: &'static str,
        /// Which value is wrong and how.
        message: String,
    },
}

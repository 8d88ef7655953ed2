//! What the clients of Effect's own event log write.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CodecError, PayloadCodec};
use crate::protocol::rpc::payload;

/// Effect's `SchemaBinary`, the payload codec of the clients that connect under `/rpc`.
///
/// [`payload`] says which Rust type stands for which schema.
#[derive(Clone, Copy, Debug, Default)]
pub struct SchemaBinary;

impl PayloadCodec for SchemaBinary {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        payload::to_vec(value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        payload::from_slice(bytes).map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        key: String,
        value: String,
    }

    /// As a stock client writes `{key: "k1", value: "AA"}`.
    const RENAMED: &[u8] = b"\x11\x20\xd0\xbc\xda\x97\x21\x02AA\xe0\x86\xb9\x85\x34\x02k1";

    #[test]
    fn a_stock_payload_decodes_and_ours_is_a_complete_frame() {
        let renamed = Renamed { key: "k1".to_owned(), value: "AA".to_owned() };
        assert_eq!(SchemaBinary::decode::<Renamed>(RENAMED).as_ref(), Ok(&renamed));
        let ours = SchemaBinary::encode(&renamed).expect("a payload");
        assert!(crate::protocol::rpc::payload_is_complete_frame(&ours));
        assert_eq!(SchemaBinary::decode(&ours), Ok(renamed));
        assert!(SchemaBinary::decode::<Renamed>(&RENAMED[1..]).is_err());
    }
}

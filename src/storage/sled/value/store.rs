//! The record of a store: `version 1 (1) | ordinal (4, big-endian)`.

use super::Malformed;
use crate::storage::sled::key::Ordinal;

const VERSION: u8 = 1;

pub(crate) fn encode(ordinal: Ordinal) -> [u8; 5] {
    let [a, b, c, d] = ordinal.to_be_bytes();
    [VERSION, a, b, c, d]
}

pub(crate) fn decode(value: &[u8]) -> Result<Ordinal, Malformed> {
    match value {
        [VERSION, ordinal @ ..] => ordinal.try_into().map(Ordinal::from_be_bytes).ok(),
        _ => None,
    }
    .ok_or(Malformed("store record"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_change() {
        assert_eq!(encode(0x0102_0304), [1, 1, 2, 3, 4]);
        assert_eq!(decode(&[1, 1, 2, 3, 4]), Ok(0x0102_0304));
        for malformed in [&[][..], &[1, 1, 2, 3], &[2, 1, 2, 3, 4], &[1, 1, 2, 3, 4, 5]] {
            assert!(decode(malformed).is_err());
        }
    }
}

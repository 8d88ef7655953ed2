//! Integers in as few bytes as they need: little-endian base 128, seven bits a byte, the high bit says that more
//! follow.
//!
//! Keeps: what is written has one form; what is read may be padded, up to ten bytes. The records and values on disk and
//! the RPC protocol use the same encoding. It is persisted: if the wire ever needs another encoding, it gets its own.

/// Longest form of any number.
pub(crate) const UVARINT_BYTES_MAX: usize = 10;

/// How many bytes `value` takes.
pub(crate) const fn uvarint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends `value`, in as few bytes as possible.
#[inline]
pub(crate) fn write_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front of `rest`; `None` if it is cut short or above 64 bits.
#[inline]
pub(crate) fn read_uvarint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, &byte) in rest.iter().enumerate().take(UVARINT_BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        if at == UVARINT_BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn uvarints_round_trip(value: u64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            write_uvarint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), uvarint_len(value));
            bytes.extend_from_slice(&tail);
            let mut rest = &bytes[..];
            prop_assert_eq!(read_uvarint(&mut rest), Some(value));
            prop_assert_eq!(rest, &tail[..]);
        }
    }

    #[test]
    fn a_uvarint_above_64_bits_is_refused() {
        assert_eq!(read_uvarint(&mut &[0xff; 10][..]), None);
        assert_eq!(read_uvarint(&mut &[0x80, 0x80][..]), None);
    }
}

//! Integers on the wire.
//!
//! Lengths, counts and ids are written directly ([`uvarint`](crate::model::varint)). Signed integers are written as
//! twice their magnitude, plus one when negative (*int*); that is sign and magnitude, not zigzag, and it has a second
//! zero. No magnitude is above [`INTEGER_MAX`](crate::model::limits::INTEGER_MAX).

pub(super) use crate::model::varint::{uvarint_len, write_uvarint};

/// How many bytes `len` bytes take together with their length.
pub(super) const fn sized_len(len: usize) -> usize {
    uvarint_len(len as u64) + len
}

/// Appends `bytes`, preceded by their length.
pub(super) fn write_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    write_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The uvarint that is written for the int `value`, whose magnitude is at most 2^53-1.
pub(super) const fn int_code(value: i64) -> u64 {
    value.unsigned_abs() * 2 + value.is_negative() as u64
}

/// How many bytes `value` takes as an int.
pub(super) const fn natural_len(value: u64) -> usize {
    uvarint_len(value * 2)
}

/// Appends `value`, which is at most 2^53-1, as an int.
pub(super) fn write_natural(out: &mut Vec<u8>, value: u64) {
    write_uvarint(out, value * 2);
}

/// Appends `value` as an int.
pub(super) fn write_int(out: &mut Vec<u8>, value: i64) {
    write_uvarint(out, int_code(value));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::window::Window;
    use super::*;
    use crate::model::limits::INTEGER_MAX;

    fn int_bytes(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        write_int(&mut out, value);
        out
    }

    #[test]
    fn ints_are_sign_and_magnitude() {
        let max = INTEGER_MAX.cast_signed();
        let known: [(i64, &[u8]); 9] = [
            (0, &[0]),
            (1, &[2]),
            (-1, &[3]),
            (63, &[0x7e]),
            (64, &[0x80, 1]),
            (300, &[0xd8, 4]),
            (8_192, &[0x80, 0x80, 1]),
            (1 << 32, &[0x80, 0x80, 0x80, 0x80, 0x20]),
            (max, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f]),
        ];
        for (value, bytes) in known {
            assert_eq!(int_bytes(value), bytes, "{value}");
            assert_eq!(Window::new(bytes).int(), Ok(value));
        }
        assert_eq!(Window::new(&[1]).int(), Ok(0), "minus zero reads as zero");
        assert_eq!(Window::new(&int_bytes(-max)).int(), Ok(-max));
        assert!(Window::new(&int_bytes(max + 1)).int().is_err());
        assert!(Window::new(&int_bytes(-max - 1)).int().is_err());
    }

    #[test]
    fn padding_is_read_up_to_ten_bytes() {
        assert_eq!(Window::new(&[0x81, 0x80, 0]).uvarint(), Ok(1));
        let mut ten = [0x80; 10];
        ten[9] = 0;
        assert_eq!(Window::new(&ten).uvarint(), Ok(0));
        ten[9] = 2;
        assert!(Window::new(&ten).uvarint().is_err(), "above 64 bits");
        assert!(Window::new(&[0x80; 11]).uvarint().is_err());
        assert!(Window::new(&[0x80]).uvarint().is_err());
    }

    proptest! {
        #[test]
        fn uvarints_above_the_greatest_integer_are_refused(value in INTEGER_MAX + 1..) {
            let mut out = Vec::new();
            write_uvarint(&mut out, value);
            prop_assert!(Window::new(&out).uvarint().is_err());
        }

        #[test]
        fn ints_round_trip(value in -(INTEGER_MAX.cast_signed())..=INTEGER_MAX.cast_signed()) {
            let bytes = int_bytes(value);
            prop_assert_eq!(Window::new(&bytes).int(), Ok(value));
            if let Ok(natural) = u64::try_from(value) {
                let mut out = Vec::new();
                write_natural(&mut out, natural);
                prop_assert_eq!(natural_len(natural), out.len());
                prop_assert_eq!(out, bytes);
            }
        }
    }
}

//! Writes msgpack values, in their shortest forms.
//!
//! Integers above 2^32-1 are written as float64: a JavaScript decoder turns a 64-bit integer into a `BigInt`, and the
//! clients' schemas then refuse it.

use bytes::BufMut;

/// A natural number up to 2^53-1.
#[inline]
pub(super) fn put_natural(out: &mut impl BufMut, value: u64) {
    match value {
        0..=0x7f => out.put_u8(value as u8),
        0x80..=0xff => out.put_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.put_u8(0xcd);
            out.put_u16(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(0xce);
            out.put_u32(value as u32);
        }
        _ => {
            out.put_u8(0xcb);
            out.put_f64(value as f64);
        }
    }
}

#[inline]
pub(super) fn put_text(out: &mut impl BufMut, text: &str) {
    match text.len() {
        len @ 0..=31 => out.put_u8(0xa0 | len as u8),
        len => put_len(out, [0xd9, 0xda, 0xdb], len),
    }
    out.put_slice(text.as_bytes());
}

#[inline]
pub(super) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_len(out, [0xc4, 0xc5, 0xc6], bytes.len());
    out.put_slice(bytes);
}

pub(super) fn put_array_len(out: &mut impl BufMut, len: usize) {
    match len {
        0..=15 => out.put_u8(0x90 | len as u8),
        // There is no array form with one length byte.
        16..=0xff => out.put_slice(&[0xdc, 0, len as u8]),
        _ => put_len(out, [0xdc, 0xdc, 0xdd], len),
    }
}

/// A length after the head byte for one, two or four length bytes. No message comes near 4 GiB.
#[inline]
fn put_len(out: &mut impl BufMut, [one, two, four]: [u8; 3], len: usize) {
    match len {
        0..=0xff => out.put_slice(&[one, len as u8]),
        0x100..=0xffff => {
            out.put_u8(two);
            out.put_u16(len as u16);
        }
        _ => {
            out.put_u8(four);
            out.put_u32(len as u32);
        }
    }
}

//! Where the values of JavaScript's msgpack encoder and of Rust differ.
//!
//! That encoder writes integers outside 32 bits as float64 and `undefined` as an extension of type 0; when reading, it
//! turns a 64-bit integer into a `BigInt`, which no `number` schema accepts. Serde's integer fields accept no float,
//! and `Option` accepts no extension. So payloads are adapted in both directions, marker by marker: a msgpack value is
//! a flat sequence of markers, each with its own data, so there is no recursion and one pass.

use std::borrow::Cow;

use crate::model::limits::INTEGER_MAX;
use crate::protocol::msgpack::Reader;

const NIL: u8 = 0xc0;
const FLOAT64: u8 = 0xcb;
const UINT64: u8 = 0xcf;
const INT64: u8 = 0xd3;
const UNDEFINED: &[u8] = &[0xd4, 0, 0];

/// `bytes` as serde expects them: integral float64 outside 32 bits as integers, `undefined` as nil. Malformed bytes are
/// passed on unchanged, for the decoder to refuse.
pub(super) fn from_javascript(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut adapted: Vec<u8> = Vec::new();
    let mut copied = 0;
    for (start, token) in tokens(bytes) {
        let replacement = match token[0] {
            FLOAT64 => integer_of_float(token),
            _ if token == UNDEFINED => Some(vec![NIL]),
            _ => None,
        };
        if let Some(replacement) = replacement {
            adapted.extend_from_slice(&bytes[copied..start]);
            adapted.extend_from_slice(&replacement);
            copied = start + token.len();
        }
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    adapted.extend_from_slice(&bytes[copied..]);
    Cow::Owned(adapted)
}

/// Rewrites 64-bit integers that a JavaScript number can hold exactly as float64, in place.
pub(super) fn to_javascript(bytes: &mut [u8]) {
    let starts: Vec<usize> = tokens(bytes)
        .filter(|(_, token)| matches!(token[0], UINT64 | INT64))
        .map(|(start, _)| start)
        .collect();
    for start in starts {
        if let Some(float) = float_of_integer(&bytes[start..start + 9]) {
            bytes[start] = FLOAT64;
            bytes[start + 1..start + 9].copy_from_slice(&float.to_be_bytes());
        }
    }
}

fn integer_of_float(token: &[u8]) -> Option<Vec<u8>> {
    let value = f64::from_be_bytes(token.get(1..9)?.try_into().ok()?);
    let exact = value.fract() == 0.0 && value.abs() <= INTEGER_MAX as f64;
    let within_32_bits = value >= f64::from(i32::MIN) && value <= f64::from(u32::MAX);
    if !exact || within_32_bits {
        return None;
    }
    let (marker, bytes) = if value > 0.0 {
        #[expect(clippy::cast_sign_loss, reason = "positive, integral and below 2^53")]
        (UINT64, (value as u64).to_be_bytes())
    } else {
        (INT64, (value as i64).to_be_bytes())
    };
    Some(std::iter::once(marker).chain(bytes).collect())
}

fn float_of_integer(token: &[u8]) -> Option<f64> {
    let bytes: [u8; 8] = token.get(1..9)?.try_into().ok()?;
    let (magnitude, negative) = match token[0] {
        UINT64 => (u64::from_be_bytes(bytes), false),
        _ => (i64::from_be_bytes(bytes).unsigned_abs(), i64::from_be_bytes(bytes) < 0),
    };
    let float = magnitude as f64;
    (magnitude <= INTEGER_MAX).then_some(if negative { -float } else { float })
}

/// The markers of a msgpack value, each with its position and its own data, but without the items that it announces.
/// Ends at the first one that is cut short or reserved.
fn tokens(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || {
        let before = reader.rest();
        reader.value().ok()?;
        Some((bytes.len() - before.len(), &before[..before.len() - reader.rest().len()]))
    })
}

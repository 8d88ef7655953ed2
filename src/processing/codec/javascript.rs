//! Where the values of JavaScript's msgpack encoder and Rust's part ways.
//!
//! That encoder writes integers outside 32 bits as float64 and `undefined` as an extension of type 0; reading, it
//! makes a `BigInt` of a 64-bit integer, which no `number` schema takes. Serde fields of integer type take no float,
//! and `Option` no extension. So payloads are adapted on the way in and on the way out, marker by marker: a msgpack
//! value is a flat run of markers, each with its own data, hence no recursion and one pass.

use std::borrow::Cow;

use crate::model::limits::INTEGER_MAX;

const NIL: u8 = 0xc0;
const FLOAT64: u8 = 0xcb;
const UINT64: u8 = 0xcf;
const INT64: u8 = 0xd3;
const UNDEFINED: &[u8] = &[0xd4, 0, 0];

/// `bytes` as serde expects them: integral float64 outside 32 bits as integers, `undefined` as nil. Malformed bytes
/// are passed on as they are, for the decoder to refuse.
pub(super) fn from_javascript(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut adapted: Vec<u8> = Vec::new();
    let mut copied = 0;
    for (start, token) in Tokens::new(bytes) {
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

/// Rewrites 64-bit integers that a JavaScript number holds exactly as float64, in place.
pub(super) fn to_javascript(bytes: &mut [u8]) {
    let starts: Vec<usize> = Tokens::new(bytes)
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

/// The markers of a msgpack value, each with its own data but without the items it announces. Ends at the first
/// marker that is cut short or reserved.
struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Length of the token at the front of `rest`.
    fn len(rest: &[u8]) -> Option<usize> {
        let sized = |width: usize, extra: usize| {
            let field = rest.get(1..=width)?;
            let len = field.iter().fold(0_usize, |len, byte| (len << 8) | usize::from(*byte));
            len.checked_add(1 + width + extra)
        };
        match *rest.first()? {
            0xc1 => None,
            marker @ 0xa0..=0xbf => Some(1 + usize::from(marker & 0x1f)),
            0xc4 | 0xd9 => sized(1, 0),
            0xc5 | 0xda => sized(2, 0),
            0xc6 | 0xdb => sized(4, 0),
            0xc7 => sized(1, 1),
            0xc8 => sized(2, 1),
            0xc9 => sized(4, 1),
            0xcc | 0xd0 => Some(2),
            0xcd | 0xd1 | 0xd4 | 0xdc | 0xde => Some(3),
            0xd5 => Some(4),
            0xca | 0xce | 0xd2 | 0xdd | 0xdf => Some(5),
            0xd6 => Some(6),
            FLOAT64 | UINT64 | INT64 => Some(9),
            0xd7 => Some(10),
            0xd8 => Some(18),
            0x00..=0x9f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Some(1),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        let token = Self::len(rest).and_then(|len| rest.get(..len))?;
        let start = self.at;
        self.at += token.len();
        Some((start, token))
    }
}

//! Numbers that may have fractions: a varint, a varint and a decimal scale, or a double.

use super::super::varint::write_uvarint;
use super::super::window::{Malformed, Window, whole_int};

/// Whole numbers below this are written as varints, which then take at most seven bytes; a number of eight bytes is a
/// double.
const VARINT_END: f64 = (1_u64 << 48) as f64;

/// The uvarint that is written for `value`, if it is a whole number that may be written so. Minus zero has a code of
/// its own.
pub(super) fn varint_code(value: f64) -> Option<u64> {
    let magnitude = value.abs();
    if magnitude.fract() != 0.0 || magnitude >= VARINT_END {
        return None;
    }
    #[expect(clippy::cast_sign_loss, reason = "an absolute value, below 2^48")]
    let code = magnitude as u64 * 2;
    Some(code + u64::from(value.is_sign_negative()))
}

/// Appends a number that fills its window.
pub(super) fn write_number(out: &mut Vec<u8>, value: f64) {
    match varint_code(value) {
        Some(code) => write_uvarint(out, code),
        None => out.extend_from_slice(&value.to_le_bytes()),
    }
}

/// The number that fills `bytes`.
pub(super) fn read_number(bytes: &[u8]) -> Result<f64, Malformed> {
    if let Ok(double) = bytes.try_into() {
        return Ok(f64::from_le_bytes(double));
    }
    if bytes.len() > 7 {
        return Err(Malformed::new("a number"));
    }
    let mut window = Window::new(bytes);
    let mantissa = read_varint(&mut window)?;
    if window.is_empty() {
        return Ok(mantissa);
    }
    let scale = window.byte()?;
    window.end()?;
    scaled(mantissa, u64::from(scale))
}

/// The integer that fills `bytes`, written as an integer or as a number.
pub(super) fn read_integer(bytes: &[u8]) -> Result<i64, Malformed> {
    whole_int(bytes).or_else(|_| integer(read_number(bytes)?))
}

/// `value`, if it is whole and a JavaScript number can hold it exactly.
pub(super) fn integer(value: f64) -> Result<i64, Malformed> {
    if value.fract() == 0.0 && value.abs() < (1_u64 << 53) as f64 {
        Ok(value as i64)
    } else {
        Err(Malformed::new("an integer"))
    }
}

/// A varint; minus zero keeps its sign.
pub(super) fn read_varint(window: &mut Window<'_>) -> Result<f64, Malformed> {
    let is_negative = window.peek().is_some_and(|byte| byte & 1 == 1);
    let magnitude = window.int()?.unsigned_abs() as f64;
    Ok(if is_negative { -magnitude } else { magnitude })
}

/// `mantissa` divided by the power of ten in `scale`.
pub(super) fn scaled(mantissa: f64, scale: u64) -> Result<f64, Malformed> {
    match scale {
        // A power of ten up to 10^8 is exact, so this division rounds as JavaScript's does.
        1..=8 => Ok(mantissa / 10_f64.powi(scale as i32)),
        _ => Err(Malformed::new("a decimal scale from 1 to 8")),
    }
}

//! Payloads as people write and read them.
//!
//! Clients keep payloads as msgpack with named fields, so JSON becomes that on the way in, and on the way out whatever
//! is msgpack as a whole becomes JSON again. Leaves out: what other codecs write; it is shown as bytes.

mod decode;
mod encode;

pub(super) use decode::to_json;
pub(super) use encode::from_json;

/// The greatest integer up to which a float holds every one.
const FLOAT_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Whether JavaScript clients write `integer` as a float: they have no other number, and read a 64-bit integer as a
/// `BigInt`, which their schemas refuse.
const fn travels_as_float(integer: i64) -> bool {
    let fits_in_32_bits = integer >= i32::MIN as i64 && integer <= u32::MAX as i64;
    !fits_in_32_bits && integer.unsigned_abs() <= FLOAT_INTEGER_MAX
}

//! How much texts may grow that are in a payload once and that many rows refer to.
//!
//! Keeps: a payload of a megabyte does not become gigabytes in the memory of whoever decodes it. Leaves out: what a
//! type makes of its elements; that is up to the type.

use std::cell::Cell;

use super::super::window::Malformed;

/// The limit is this many times the bytes of the payload…
const TIMES_MAX: u64 = 16;
/// … plus this many bytes.
const MORE_BYTES: u64 = 4 * 1_024 * 1_024;

thread_local! {
    /// What the payload that is decoded on this thread may still refer to. Serde reads values one within another on one
    /// thread, and there is no place that all of its readers share.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// What was left before; it is restored when this is dropped.
struct Before(u64);

impl Drop for Before {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Decodes a payload of this size.
pub(super) fn within<T>(payload_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let left = (payload_bytes as u64).saturating_mul(TIMES_MAX).saturating_add(MORE_BYTES);
    let _before = Before(LEFT.replace(left));
    decode()
}

/// Another row refers to `text`.
pub(super) fn take(text: &str) -> Result<&str, Malformed> {
    let left = LEFT.get().checked_sub(text.len() as u64);
    LEFT.set(left.ok_or(Malformed::new("texts that are not referred to so often"))?);
    Ok(text)
}

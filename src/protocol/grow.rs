//! Buffers for data that arrives in pieces.

/// Appends, doubling the capacity when it is used up, but reserving none beyond `length`.
pub(crate) fn append_within(begun: &mut Vec<u8>, bytes: &[u8], length: usize) {
    let needed = begun.len() + bytes.len();
    if needed > begun.capacity() {
        let room = (begun.len() * 2).min(length).max(needed);
        begun.reserve_exact(room - begun.len());
    }
    begun.extend_from_slice(bytes);
}

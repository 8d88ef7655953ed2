//! Which changes of keys and rights a server had heard of at some time.

/// The changes of keys and rights that a server has applied, as a number that only its storage understands. Two of them are the
/// same if no change was applied in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard(pub u64);

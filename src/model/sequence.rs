//! Positions in a feed.

use std::fmt;

use super::limits::INTEGER_MAX;

/// A position in one store's feed: 1, 2, 3, …, without gaps except those after a restore. Zero is before the first.
///
/// Never above 2^53-1, the greatest integer that JavaScript clients can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

/// The number given for a sequence is above 2^53-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is above 2^53-1, the greatest sequence")]
pub struct SequenceOutOfRange(pub u64);

impl Sequence {
    /// Before the first entry: the head of an empty store.
    pub const ZERO: Self = Self(0);
    /// The sequence of a store's first entry.
    pub const FIRST: Self = Self(1);
    /// The greatest sequence, 2^53-1.
    pub const MAX: Self = Self(INTEGER_MAX);

    /// The sequence `value`; an error above [`Sequence::MAX`].
    pub const fn new(value: u64) -> Result<Self, SequenceOutOfRange> {
        if value > Self::MAX.0 { Err(SequenceOutOfRange(value)) } else { Ok(Self(value)) }
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next position. Saturates at [`Sequence::MAX`], which no store reaches: at a million entries a second it
    /// takes 285 years.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The position `count` further on. Saturates like [`Sequence::next`].
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        let sum = self.0.saturating_add(count);
        if sum > Self::MAX.0 { Self::MAX } else { Self(sum) }
    }

    /// The position before; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many positions lie from `earlier` to here; zero if `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

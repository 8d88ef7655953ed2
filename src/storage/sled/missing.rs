//! Sequences of a store that frames should have and do not have.

use std::fmt;

use crate::model::Sequence;

/// Sequences that are missing, in one piece or in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    first: Sequence,
    last: Sequence,
    /// How many are missing between these two, both included.
    count: u64,
}

impl Missing {
    /// Everything from `first` to `last`.
    pub(super) const fn new(first: Sequence, last: Sequence) -> Self {
        Self { first, last, count: last.next().since(first) }
    }

    /// Adds what is missing further on.
    pub(super) const fn add(&mut self, more: Self) {
        self.last = more.last;
        self.count += more.count;
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, count } = self;
        match last.next().since(*first) {
            1 => write!(f, "entry {first}"),
            span if span == *count => write!(f, "entries {first} to {last}, which are {count}"),
            _ => write!(f, "{count} of the entries {first} to {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stretch_is_named_and_of_several_the_ends() {
        let missing =
            |first, last| Missing::new(Sequence::ZERO.plus(first), Sequence::ZERO.plus(last));
        assert_eq!(missing(3, 3).to_string(), "entry 3");
        let mut several = missing(3, 5);
        assert_eq!(several.to_string(), "entries 3 to 5, which are 3");
        several.add(missing(9, 9));
        assert_eq!(several.to_string(), "4 of the entries 3 to 9");
    }
}

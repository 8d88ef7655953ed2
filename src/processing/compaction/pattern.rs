//! Which events a compactor applies to.

use std::fmt;

use crate::model::glob::glob_matches;

/// One event tag, or all tags that match a text with `*` in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPattern {
    text: Box<str>,
    /// Whether `*` stands for any text.
    glob: bool,
}

impl EventPattern {
    /// Only this event tag; a `*` in it is a plain character.
    pub fn exact(event: impl Into<Box<str>>) -> Self {
        Self { text: event.into(), glob: false }
    }

    /// Every event tag that matches, where each `*` stands for any text, including none: `Todo*`, `*Deleted`.
    pub fn glob(pattern: impl Into<Box<str>>) -> Self {
        let text = pattern.into();
        let glob = text.contains('*');
        Self { text, glob }
    }

    /// Its text, as given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The event tag, if there is only one.
    pub(super) fn only_event(&self) -> Option<&str> {
        (!self.glob).then_some(&self.text)
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &str) -> bool {
        if self.glob { glob_matches(&self.text, event) } else { &*self.text == event }
    }

    /// Whether there is an event tag that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.only_event(), other.only_event()) {
            (Some(event), _) => other.matches(event),
            (_, Some(event)) => self.matches(event),
            (None, None) => globs_overlap(self.text.as_bytes(), other.text.as_bytes()),
        }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Steps through both patterns at once; `row[j]` says whether, after the bytes of `a` taken so far, the first `j` bytes
/// of `b` can stand for the same text. Takes time in the product of the lengths.
fn globs_overlap(a: &[u8], b: &[u8]) -> bool {
    let mut row = vec![false; b.len() + 1];
    row[0] = true;
    pass_stars(&mut row, b);
    for &byte in a {
        if byte == b'*' {
            // It stands for whatever the bytes of `b` from here on are.
            let from = row.iter().position(|reached| *reached).unwrap_or(row.len());
            row[from..].fill(true);
            continue;
        }
        let mut next = vec![false; b.len() + 1];
        for (at, &other) in b.iter().enumerate().filter(|(at, _)| row[*at]) {
            // A star of `b` stands for this byte and stays for more.
            let to = if other == b'*' { at } else { at + 1 };
            next[to] |= other == b'*' || other == byte;
        }
        row = next;
        pass_stars(&mut row, b);
    }
    row[b.len()]
}

/// A star may stand for nothing.
fn pass_stars(row: &mut [bool], b: &[u8]) {
    for (at, &byte) in b.iter().enumerate() {
        row[at + 1] |= row[at] && byte == b'*';
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All texts of up to five letters over a small alphabet.
    fn texts() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..5 {
            let to = all.len();
            for at in from..to {
                all.extend(["a", "b"].map(|letter| format!("{}{letter}", all[at])));
            }
            from = to;
        }
        all
    }

    /// The rules restated: a star is nothing, or any letter and a star.
    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', pattern_rest)), rest) => {
                matches(pattern_rest, text) || rest.is_some_and(|(_, rest)| matches(pattern, rest))
            }
            (Some((byte, pattern)), Some((letter, text))) => {
                byte == letter && matches(pattern, text)
            }
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_text(pattern in "[ab*]{0,5}", text in "[ab]{0,6}") {
            let expected = matches(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(EventPattern::glob(pattern).matches(&text), expected);
        }

        #[test]
        fn patterns_overlap_if_some_text_matches_both(a in "[ab*]{0,3}", b in "[ab*]{0,3}") {
            let (a, b) = (EventPattern::glob(a), EventPattern::glob(b));
            // Two patterns of three characters that overlap have a common text of at most four letters.
            let common = texts().iter().any(|text| a.matches(text) && b.matches(text));
            prop_assert_eq!(a.overlaps(&b), common);
            prop_assert_eq!(b.overlaps(&a), common);
        }
    }

    #[test]
    fn a_star_in_an_exact_tag_is_a_star() {
        let (exact, glob) = (EventPattern::exact("Todo*"), EventPattern::glob("Todo*"));
        assert!(exact.matches("Todo*") && !exact.matches("TodoMade"));
        assert!(glob.matches("TodoMade") && glob.matches("Todo") && !glob.matches("todo"));
        assert!(exact.overlaps(&glob) && glob.overlaps(&exact));
        assert!(!EventPattern::exact("Note*").overlaps(&glob));
    }

    #[test]
    fn matching_takes_whole_characters() {
        assert!(EventPattern::glob("*ä").matches("öä"));
        assert!(!EventPattern::glob("*ä*ä").matches("ä"));
    }
}

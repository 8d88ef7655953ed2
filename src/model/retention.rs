//! How much of its stores a server keeps.

use std::time::Duration;

use super::glob::glob_matches;

/// What is kept of the stores whose names match a pattern. What exceeds any of the bounds is trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRule {
    /// Which stores; `*` stands for any text.
    pub stores: String,
    /// The greatest age, counted from the commit.
    pub age_max: Option<Duration>,
    /// Most bytes.
    pub bytes_max: Option<u64>,
    /// Most entries.
    pub entries_max: Option<u64>,
}

/// What is kept of each store. By default, everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The first rule that matches a store's name counts.
    pub rules: Vec<RetentionRule>,
}

impl Retention {
    /// What is kept of `store`; `None` means everything.
    pub fn of_store(&self, store: &str) -> Option<&RetentionRule> {
        self.rules.iter().find(|rule| glob_matches(&rule.stores, store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_with_that_name_counts() {
        let rule = |stores: &str, entries| RetentionRule {
            stores: stores.to_owned(),
            entries_max: Some(entries),
            ..RetentionRule::default()
        };
        let retention =
            Retention { rules: vec![rule("log-*", 1), rule("log-all", 2), rule("b", 3)] };
        let of = |store| retention.of_store(store).and_then(|rule| rule.entries_max);
        assert_eq!([of("log-all"), of("b"), of("bb")], [Some(1), Some(3), None]);
    }
}

//! Which entries of a store are wanted.

use std::fmt;

use crate::model::{EntryRef, Sequence};
use crate::processing::compaction::EventPattern;

/// Which entries of a store are wanted: those that match every field. By default, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The first sequence; zero and one both mean the beginning.
    pub from: Sequence,
    /// Any of these event tags; all if empty.
    pub events: Vec<EventPattern>,
    /// Any of these primary keys; all if empty.
    pub primary_keys: Vec<EventPattern>,
    /// Created at this time or later, according to their ids: milliseconds since 1970.
    pub created_from: Option<u64>,
    /// Created before this time, according to their ids: milliseconds since 1970.
    pub created_before: Option<u64>,
    /// Committed by the server at this time or later, or up to ten minutes before: milliseconds since 1970. Only for
    /// [`Server::export`](super::Server::export).
    pub committed_from: Option<u64>,
    /// Committed by the server before this time: milliseconds since 1970. What was committed in the ten minutes before
    /// it may be left out; then the same time as `committed_from` selects it. Only for
    /// [`Server::export`](super::Server::export).
    pub committed_before: Option<u64>,
}

impl Default for Selection {
    fn default() -> Self {
        let (events, primary_keys) = (Vec::new(), Vec::new());
        Self {
            from: Sequence::ZERO,
            events,
            primary_keys,
            created_from: None,
            created_before: None,
            committed_from: None,
            committed_before: None,
        }
    }
}

impl Selection {
    /// Sets the field that a name and value of a query describe. `Err` says what is wrong.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number =
            || value.parse::<u64>().map_err(|_| format!("{name}: {value:?} is not a whole number"));
        match name {
            "from" => self.from = Sequence::new(number()?).map_err(|error| error.to_string())?,
            "event" => self.events.push(EventPattern::glob(value)),
            "primaryKey" => self.primary_keys.push(EventPattern::glob(value)),
            "createdFrom" => self.created_from = Some(number()?),
            "createdBefore" => self.created_before = Some(number()?),
            "committedFrom" => self.committed_from = Some(number()?),
            "committedBefore" => self.committed_before = Some(number()?),
            name => return Err(format!("{name:?} is unknown")),
        }
        Ok(())
    }

    /// Whether `entry` is wanted, whatever its sequence.
    pub fn has(&self, entry: &EntryRef<'_>) -> bool {
        let one_of = |patterns: &[EventPattern], text| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
        };
        let created = entry.id.created_at_millis();
        one_of(&self.events, entry.event)
            && one_of(&self.primary_keys, entry.primary_key)
            && self.created_from.is_none_or(|from| created >= from)
            && self.created_before.is_none_or(|before| created < before)
    }

    /// Whether it depends on when entries were committed.
    pub const fn asks_for_commits(&self) -> bool {
        self.committed_from.is_some() || self.committed_before.is_some()
    }

    /// Whether entries committed by then are wanted.
    pub fn has_committed(&self, by: u64) -> bool {
        self.committed_from.is_none_or(|from| by >= from)
            && self.committed_before.is_none_or(|before| by < before)
    }

    /// Everything except where it begins, as names and values that [`Selection::set`] takes.
    pub fn filter(&self) -> impl Iterator<Item = (&'static str, String)> {
        let texts = |name, patterns: &[EventPattern]| {
            let texts = patterns.iter().map(|pattern| (name, pattern.as_str().to_owned()));
            texts.collect::<Vec<_>>()
        };
        let number = |name, at: Option<u64>| at.map(|at| (name, at.to_string()));
        texts("event", &self.events)
            .into_iter()
            .chain(texts("primaryKey", &self.primary_keys))
            .chain(number("createdFrom", self.created_from))
            .chain(number("createdBefore", self.created_before))
            .chain(number("committedFrom", self.committed_from))
            .chain(number("committedBefore", self.committed_before))
    }
}

/// The selection, for people and for comparison; empty for everything.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.filter().map(|(name, value)| format!("{name}={value:?}"));
        f.write_str(&each.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;

    #[test]
    fn an_entry_has_to_have_one_of_each() {
        let mut wanted = Selection::default();
        let id: EntryId = "018bcfe5-6800-70e1-8101-010101010101".parse().expect("a UUID");
        let entry = EntryRef { id, event: "TodoAdded", primary_key: "t1", payload: b"" };
        assert!(wanted.has(&entry) && wanted.to_string().is_empty());
        for (name, value, has) in [
            ("event", "Note", false),
            ("event", "Todo*", true),
            ("primaryKey", "t1", true),
            ("createdFrom", "1700000000000", true),
            ("createdBefore", "1700000000001", true),
            ("createdBefore", "1700000000000", false),
        ] {
            wanted.set(name, value).expect(name);
            assert_eq!(wanted.has(&entry), has, "{name} {value}");
        }
        wanted.set("createdBefore", "1800000000000").expect("a number");
        wanted.set("createdFrom", "1700000000001").expect("a number");
        assert!(!wanted.has(&entry));
        assert!(wanted.set("from", "x").is_err());
        assert!(wanted.set("form", "1").is_err());
    }

    #[test]
    fn it_is_said_as_it_was_given() {
        let given = [
            ("event", "A*"),
            ("event", "B"),
            ("primaryKey", "k"),
            ("createdFrom", "1"),
            ("committedFrom", "2"),
            ("committedBefore", "4"),
        ];
        let mut wanted = Selection::default();
        given.iter().for_each(|(name, value)| wanted.set(name, value).expect(name));
        let said: Vec<_> = wanted.filter().collect();
        assert!(said.iter().map(|(name, value)| (*name, &**value)).eq(given));
        assert_eq!(
            wanted.to_string(),
            r#"event="A*" event="B" primaryKey="k" createdFrom="1" committedFrom="2" committedBefore="4""#
        );
        assert!(wanted.asks_for_commits());
        assert!([1, 2, 3, 4].map(|by| wanted.has_committed(by)) == [false, true, true, false]);
    }
}

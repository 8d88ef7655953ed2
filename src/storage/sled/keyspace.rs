//! The trees of the database, by their persisted names.

/// A tree of the database. One module owns each; ops on two of them are never atomic together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Keyspace {
    /// Facts about the data directory itself, such as the remote id.
    Meta,
    /// The logs of all stores.
    Log,
    /// Which store a public key has.
    Registry,
    /// What handlers have been run on.
    Journal,
    /// Identities that clients have proved.
    Identities,
    /// Which store a public key was used with.
    UsedKeys,
    /// What administrators set while the server runs.
    Records,
    /// Entries that are too large to be stored.
    Quarantine,
}

impl Keyspace {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Log,
        Self::Registry,
        Self::Journal,
        Self::Identities,
        Self::UsedKeys,
        Self::Records,
        Self::Quarantine,
    ];

    /// Those that other modules commit to.
    pub(crate) const TABLES: [Self; 6] = [
        Self::Registry,
        Self::Journal,
        Self::Identities,
        Self::UsedKeys,
        Self::Records,
        Self::Quarantine,
    ];

    /// The name of the tree in sled. Persisted: a name is never changed and never reused. Older directories also have
    /// an empty tree `journal-index`, which nobody opens.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Registry => "registry",
            Self::Journal => "journal",
            Self::Identities => "identities",
            Self::UsedKeys => "used-keys",
            Self::Records => "records",
            Self::Quarantine => "quarantine",
        }
    }

    /// Its number in the commit log. Persisted, like the name.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Meta => 0,
            Self::Log => 1,
            Self::Registry => 2,
            Self::Journal => 3,
            Self::Identities => 4,
            Self::UsedKeys => 5,
            Self::Records => 6,
            Self::Quarantine => 7,
        }
    }

    /// The table with this number in the commit log.
    pub(crate) fn table(number: u8) -> Option<Self> {
        Self::TABLES.into_iter().find(|table| table.number() == number)
    }

    /// Its position in [`Keyspace::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sled::{Database, DatabaseOptions};

    #[test]
    fn names_and_numbers_on_disk_do_not_change() {
        let names = Keyspace::ALL.map(|keyspace| (keyspace.name(), keyspace.number()));
        let kept = [("meta", 0), ("log", 1), ("registry", 2), ("journal", 3), ("identities", 4)];
        assert_eq!(names[..5], kept);
        assert_eq!(names[5..], [("used-keys", 5), ("records", 6), ("quarantine", 7)]);
        assert!(Keyspace::ALL.iter().enumerate().all(|(at, keyspace)| keyspace.index() == at));
        assert!(Keyspace::TABLES.iter().all(|one| Keyspace::table(one.number()) == Some(*one)));
        assert_eq!([0, 1, 8].map(Keyspace::table), [None; 3]);
    }

    /// Sled, once the threads of the database have released it.
    fn sled_below(directory: &std::path::Path) -> sled::Db {
        let config = sled::Config::new().path(directory.join("sled")).segment_size(4 << 20);
        for _ in 0..2_000 {
            if let Ok(db) = config.open() {
                return db;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        config.open().expect("nobody has it open")
    }

    #[test]
    fn a_directory_with_a_tree_of_an_earlier_version_opens() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || Database::open(directory.path(), DatabaseOptions::default());
        open().expect("new").close().expect("closed");
        let db = sled_below(directory.path());
        db.open_tree("journal-index").expect("made").insert("key", "value").expect("written");
        db.flush().expect("flushed");
        drop(db);
        open().expect("opens").close().expect("closed");
        assert!(sled_below(directory.path()).tree_names().contains(&"journal-index".into()));
    }
}

//! The trees of the database, by their persisted names.

/// A tree of the database. One room owns each; ops on two of them are never atomic together.
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
    /// What is looked up in the journal by other things than its order.
    JournalIndex,
    /// Identities that clients have proved.
    Identities,
}

impl Keyspace {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 6] = [
        Self::Meta,
        Self::Log,
        Self::Registry,
        Self::Journal,
        Self::JournalIndex,
        Self::Identities,
    ];

    /// The name of the tree on disk. Persisted: a name is never changed and never used for something else.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Registry => "registry",
            Self::Journal => "journal",
            Self::JournalIndex => "journal-index",
            Self::Identities => "identities",
        }
    }

    /// Its position in [`Keyspace::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_disk_do_not_change() {
        let names = Keyspace::ALL.map(Keyspace::name);
        let kept = ["meta", "log", "registry", "journal", "journal-index", "identities"];
        assert_eq!(names, kept);
        assert!(Keyspace::ALL.iter().enumerate().all(|(at, keyspace)| keyspace.index() == at));
    }
}

//! The result of checking whether the files of a storage have content of erased entries.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::model::EntryId;

/// The places that are checked, in this order.
pub const PLACES: [&str; 7] =
    ["commit log", "database", "archive", "spill", "shipping", "kept aside", "other files"];

/// What was found. As JSON, the admin API and `erase --verify --json` show it like this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ErasedReport {
    /// The number of known erased entries.
    pub entries: u64,
    /// The ids of these entries.
    #[serde(skip)]
    pub ids: HashSet<EntryId>,
    /// What the erasure ledger cannot tell, because all copies of a record are damaged or a later version wrote it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Whether the ledger names erasures that the database may lack: it makes them when it is opened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_behind: bool,
    /// Whether erased content must still be removed from files.
    pub is_due: bool,
    /// The time of the first erasure whose content is not removed yet, or of the first one of the last removal: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_millis: Option<u64>,
    /// When the last removal was complete: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_millis: Option<u64>,
    /// The places that were checked: each of [`PLACES`], or none if the storage is a database.
    pub places: Vec<ErasedPlace>,
    /// The tables that were checked, if the storage is a database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<ErasedTable>,
    /// What cannot be checked from here and may still have content of erased entries, each in a sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

/// A table of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ErasedTable {
    /// The name.
    pub name: String,
    /// Its size in bytes, with indexes and values that are stored apart.
    pub bytes: u64,
    /// The number of rows with content of erased entries.
    pub rows: u64,
    /// The number of rows with the requested text.
    pub texts: u64,
    /// When it was vacuumed last: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vacuumed_millis: Option<u64>,
    /// Whether old versions of rows may be in it that have content of erased entries: until it is vacuumed.
    pub needs_vacuum: bool,
}

impl ErasedTable {
    /// Whether it has no such content.
    pub const fn is_clean(&self) -> bool {
        self.rows == 0 && self.texts == 0 && !self.needs_vacuum
    }
}

/// A kind of files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErasedPlace {
    /// One of [`PLACES`].
    pub name: &'static str,
    /// The number of files.
    pub files: u64,
    /// Their size in bytes, decompressed.
    pub bytes: u64,
    /// The number of files with content of erased entries.
    pub held: u64,
    /// The first 100 of these.
    pub named: Vec<ErasedFile>,
}

/// A file with content of erased entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErasedFile {
    /// The path of the file.
    #[serde(serialize_with = "shown")]
    pub path: PathBuf,
    /// The number of records with content of erased entries.
    pub records: u64,
    /// How often it contains the requested text.
    pub texts: u64,
    /// When it will be removed, if that is known: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// A path that is not Unicode is shown as far as it is.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl ErasedReport {
    /// Whether no file and no table has any such content.
    pub fn is_clean(&self) -> bool {
        self.places.iter().all(|place| place.held == 0)
            && self.tables.iter().all(ErasedTable::is_clean)
    }
}

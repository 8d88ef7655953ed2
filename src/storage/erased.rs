//! What is found when a storage looks whether its files have content of erased entries.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::model::EntryId;

/// The places that are looked at, in this order.
pub const PLACES: [&str; 7] =
    ["commit log", "database", "archive", "spill", "shipping", "kept aside", "other files"];

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedReport {
    /// How many erased entries are known.
    pub entries: u64,
    /// Which ones.
    pub ids: HashSet<EntryId>,
    /// Whether files are still to be made rid of an erasure.
    pub is_due: bool,
    /// When the first erasure was that is not done, or the first of those that were done last: milliseconds since 1970.
    pub erased_millis: Option<u64>,
    /// When files were rid of all of it.
    pub clean_millis: Option<u64>,
    /// What was looked at: each of [`PLACES`].
    pub places: Vec<ErasedPlace>,
}

/// A kind of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedPlace {
    /// One of [`PLACES`].
    pub name: &'static str,
    /// How many files there are.
    pub files: u64,
    /// How much they have, decompressed, in bytes.
    pub bytes: u64,
    /// How many of them have some of it.
    pub held: u64,
    /// The first 100 of these.
    pub named: Vec<ErasedFile>,
}

/// A file with content of erased entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedFile {
    /// Where it is.
    pub path: PathBuf,
    /// How many records it has of erased entries.
    pub records: u64,
    /// How often it has the text that was asked for.
    pub texts: u64,
    /// When it will be removed, if that is known: milliseconds since 1970.
    pub until: Option<u64>,
}

impl ErasedReport {
    /// Whether no file has any of it.
    pub fn is_clean(&self) -> bool {
        self.places.iter().all(|place| place.held == 0)
    }
}

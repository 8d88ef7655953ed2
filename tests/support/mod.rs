//! What the tests stand on. It shares the codecs with the server, and nothing that decides anything.

pub mod auth;
pub mod fake;
pub mod history;
pub mod http;
pub mod panicking;
pub mod process;
pub mod proxy;
pub mod random;
pub mod server;
pub mod socket;

use eventlog_server::model::{Batch, Entry, EntryId, PublicKey, StoreId};

pub fn key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a public key")
}

pub fn store(name: &str) -> StoreId {
    StoreId::new(name).expect("a store id")
}

/// A fresh entry.
pub fn entry(event: &str, primary_key: &str, payload: &[u8]) -> Entry {
    Entry {
        id: EntryId::now(),
        event: event.to_owned(),
        primary_key: primary_key.to_owned(),
        payload: payload.to_vec().into(),
    }
}

pub fn batch(entries: &[Entry]) -> Batch {
    Batch::from_entries(entries.iter().map(Entry::as_ref))
}

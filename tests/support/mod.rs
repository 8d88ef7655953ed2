//! The basis of the tests. It shares the codecs with the server, and nothing that decides anything.

pub mod auth;
pub mod between;
pub mod certificates;
pub mod expanding;
pub mod fake;
pub mod history;
pub mod http;
pub mod json_schema;
pub mod jwt;
pub mod panicking;
pub mod process;
pub mod proxy;
pub mod random;
pub mod receiver;
pub mod rpc;
pub mod s3;
pub mod server;
pub mod socket;
pub mod watched;

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

/// `value` in a frame, as required for payloads of RPC clients.
pub fn framed(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 6);
    let mut len = value.len() + 1;
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.extend_from_slice(&[len as u8, 0x20]);
    out.extend_from_slice(value);
    out
}

pub fn batch(entries: &[Entry]) -> Batch {
    Batch::from_entries(entries.iter().map(Entry::as_ref))
}

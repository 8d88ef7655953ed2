//! Writes batches into a store, of a running server or a stopped one.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eventlog_server::model::{Entry, StoreId};
use serde::Deserialize;
use serde_json::Value;

use crate::cli::admin::{Admin, AdminError, percent_encode};
use crate::cli::place::{Opened, Place};

/// A batch is not stored, or may not be.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum NotWritten {
    /// The running server says so.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The server in this process says so.
    #[error(transparent)]
    Write(#[from] eventlog_server::processing::WriteError),
}

/// Appends `entries` and returns how many of them were new.
pub(super) fn write(
    place: &Place,
    store: &StoreId,
    entries: Vec<Entry>,
    run_handlers: bool,
) -> Result<u64, NotWritten> {
    match place {
        Place::Running(admin) => to_running(admin, store, &entries, run_handlers),
        Place::Stopped(opened) => to_stopped(opened, store, entries, run_handlers),
    }
}

#[derive(Deserialize)]
struct Written {
    new: u64,
}

fn to_running(
    admin: &Admin,
    store: &StoreId,
    entries: &[Entry],
    run_handlers: bool,
) -> Result<u64, NotWritten> {
    let path = format!("/admin/stores/{}/entries", percent_encode(store.as_str()));
    let Written { new } = admin.post(&path, body(entries, run_handlers))?;
    Ok(new)
}

/// The body for the admin API.
fn body(entries: &[Entry], run_handlers: bool) -> String {
    let mut body = format!("{{\"runHandlers\":{run_handlers},\"entries\":[");
    for (at, Entry { id, event, primary_key, payload }) in entries.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let (event, key) = (Value::from(event.as_str()), Value::from(primary_key.as_str()));
        // Writing to a `String` does not fail.
        let _ = write!(
            body,
            "{comma}{{\"id\":\"{id}\",\"event\":{event},\"primaryKey\":{key},\"payload\":\""
        );
        BASE64.encode_string(payload, &mut body);
        body.push_str("\"}");
    }
    body.push_str("]}");
    body
}

fn to_stopped(
    opened: &Opened,
    store: &StoreId,
    entries: Vec<Entry>,
    run_handlers: bool,
) -> Result<u64, NotWritten> {
    let written = opened.server().write_to_store(store.clone(), entries, run_handlers);
    Ok(opened.block_on(written)?.committed.len() as u64)
}

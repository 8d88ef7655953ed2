//! Documentation pages whose figures depend on defaults.

use eventlog_server::model::limits::{Limits, PUBLIC_KEY_BYTES_MAX, STORE_ID_BYTES_MAX};
use eventlog_server::storage::sled::DatabaseOptions;

#[test]
fn the_readme_shows_the_limits_as_they_are() {
    let readme = include_str!("../../../README.md");
    let limits = Limits::default();
    let mib = |bytes: usize| bytes / (1 << 20);
    assert_eq!(limits.event_bytes_max, limits.primary_key_bytes_max);
    let thousands = |count: usize| format!("{},{:03}", count / 1_000, count % 1_000);
    for row in [
        format!(
            "| a message, and so a batch | {} MiB, {} entries |",
            mib(limits.message_bytes_max),
            thousands(limits.batch_entries_max)
        ),
        format!("| a WebSocket frame | {} MiB;", mib(limits.frame_bytes_max)),
        format!("| event tag, primary key | {} MiB:", mib(limits.primary_key_bytes_max)),
        format!(
            "| public key, store id | {} bytes, {} bytes (fixed) |",
            thousands(PUBLIC_KEY_BYTES_MAX),
            STORE_ID_BYTES_MAX
        ),
        format!(
            "| connections | {}, with {} subscriptions each |",
            thousands(limits.connections_max),
            limits.subscriptions_max
        ),
        format!("| closed after {} s |", limits.stall_timeout.as_secs()),
    ] {
        assert!(readme.contains(&row), "the README has no {row}");
    }
}

/// The required memory follows from the settings.
#[test]
fn the_operators_page_adds_up_memory_from_the_limits_as_they_are() {
    let page = include_str!("../../../docs/OPERATIONS.md");
    let limits = Limits::default();
    let database = DatabaseOptions::default();
    let mut sum = 0;
    let parts = [
        ("the program and its threads", 100 << 20),
        ("pages of the database", database.cache_bytes),
        ("where the ids of entries are", 32 << 20),
        ("entries that are in the commit log", database.unapplied_bytes_max),
        ("writes that are not answered yet", limits.write_bytes_in_flight_total_max as u64),
        ("messages that are not complete yet", limits.unfinished_bytes_total_max as u64),
        ("large writes", 96 << 20),
        ("old history", limits.compaction_bytes_max as u64),
    ];
    for (part, bytes) in parts {
        let row = page.lines().find(|line| line.starts_with(&format!("| {part}")));
        let shown = format!("| {} MiB |", bytes >> 20);
        assert!(row.is_some_and(|row| row.ends_with(&shown)), "{part}: {row:?} and not {shown}");
        sum += bytes >> 20;
    }
    for row in [
        format!("| **{},{:03} MiB** |", sum / 1_000, sum % 1_000),
        format!("`[limits] recent_bytes_max` | {} MiB |", limits.recent_bytes_max >> 20),
    ] {
        assert!(page.contains(&row), "the page has no {row}");
    }
}

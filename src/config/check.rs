//! What cannot work, found before anything starts.

use eventlog_server::model::Limits;
use eventlog_server::model::limits::CHUNK_BYTES;

use super::{CompactionRule, Config, ConfigError};

/// A client's chunk, with the message around it, has to fit into a frame.
const FRAME_BYTES_LEAST: usize = CHUNK_BYTES + 1_024;
/// A batch counts its bytes in 32 bits.
const MESSAGE_BYTES_MOST: usize = 1 << 30;

/// Refuses the first value that cannot work.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    const ONE: &str = "at least one is needed";
    at_least("workers", config.workers, 1, ONE)?;
    at_least("store_threads", config.store_threads, 1, ONE)?;
    let cache_bytes = usize::try_from(config.database.cache_bytes).unwrap_or(usize::MAX);
    at_least("cache_bytes", cache_bytes, 1 << 20, "at least 1MiB is needed")?;
    config.compaction.iter().try_for_each(check_compaction)?;
    check_limits(&config.limits)
}

fn check_compaction(rule: &CompactionRule) -> Result<(), ConfigError> {
    let CompactionRule { events, older_than: _, strategy: _ } = rule;
    let key = "[[compaction]] events";
    if events.is_empty() {
        return Err(impossible(key, "an empty list", "name the events, or \"*\" for all"));
    }
    if events.iter().any(String::is_empty) {
        return Err(impossible(key, "an empty text", "no event has an empty tag"));
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    const POSITIVE: &str = "with nothing allowed nobody could do anything";
    let Limits {
        frame_bytes_max,
        message_bytes_max,
        batch_entries_max,
        event_bytes_max,
        primary_key_bytes_max,
        chunk_sets_max,
        chunk_set_bytes_max,
        chunk_set_age_max,
        connections_max,
        subscriptions_max,
        writes_in_flight_max,
        write_bytes_in_flight_max,
        write_bytes_in_flight_total_max,
        stall_timeout,
        store_idle_timeout: _,
        recent_bytes_max: _,
        compaction_bytes_max: _,
        compaction_bucket_bytes_max: _,
    } = limits;
    let one = |key, value: &usize| at_least(key, *value, 1, POSITIVE);
    one("[limits] batch_entries_max", batch_entries_max)?;
    one("[limits] event_bytes_max", event_bytes_max)?;
    one("[limits] primary_key_bytes_max", primary_key_bytes_max)?;
    one("[limits] chunk_sets_max", chunk_sets_max)?;
    one("[limits] connections_max", connections_max)?;
    one("[limits] subscriptions_max", subscriptions_max)?;
    one("[limits] writes_in_flight_max", writes_in_flight_max)?;
    one("[limits] write_bytes_in_flight_max", write_bytes_in_flight_max)?;
    one("[limits] write_bytes_in_flight_total_max", write_bytes_in_flight_total_max)?;
    for (key, span) in [
        ("[limits] chunk_set_age_max", chunk_set_age_max),
        ("[limits] stall_timeout", stall_timeout),
    ] {
        if span.is_zero() {
            return Err(impossible(key, "0", "everything would be too late at once"));
        }
    }
    at_least(
        "[limits] frame_bytes_max",
        *frame_bytes_max,
        FRAME_BYTES_LEAST,
        "clients send chunks of 512000 bytes, which would not fit; 513024 is the least",
    )?;
    at_least(
        "[limits] message_bytes_max",
        *message_bytes_max,
        FRAME_BYTES_LEAST,
        "a single chunk would be too large; 513024 is the least",
    )?;
    if *message_bytes_max > MESSAGE_BYTES_MOST {
        let reason = "1GiB is the most";
        return Err(impossible("[limits] message_bytes_max", message_bytes_max, reason));
    }
    at_least(
        "[limits] chunk_set_bytes_max",
        *chunk_set_bytes_max,
        *message_bytes_max,
        "the largest message has to fit, see `message_bytes_max`",
    )
}

fn at_least(
    key: &'static str,
    value: usize,
    least: usize,
    reason: &'static str,
) -> Result<(), ConfigError> {
    if value < least { Err(impossible(key, value, reason)) } else { Ok(()) }
}

pub(super) fn impossible(
    key: &'static str,
    value: impl std::fmt::Display,
    reason: &'static str,
) -> ConfigError {
    ConfigError::Impossible { key, value: value.to_string(), reason }
}

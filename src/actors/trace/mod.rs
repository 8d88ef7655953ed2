//! How long each part of a write takes, for some of the writes: the data for traces.
//!
//! Keeps: without the feature `otel`, a [`Trace`] has no size and nothing is measured. With it, a write that is not
//! traced costs one count. Leaves out: where traces are sent (`server::traces`).

#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod on;

#[cfg(not(feature = "otel"))]
pub(crate) use off::{Moment, Trace, committed};
#[cfg(feature = "otel")]
pub(crate) use on::{Finished, Moment, Sink, Trace, committed, send_to};

/// How far a write has come. Each step ends where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its message is decoded.
    Decoded,
    /// It is allowed, and on its way to its store.
    Authorized,
    /// Its entries have their sequences, and are on their way to the storage.
    Placed,
    /// They are durable, and the store knows it.
    #[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "traces that exist get there"))]
    Committed,
    /// Its answer is encoded for the socket.
    Acked,
}

//! What code that is not ours does to whoever asks it: nothing, even if it panics.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Somebody who was asked panicked.
#[derive(Debug, thiserror::Error)]
#[error("{0} failed unexpectedly")]
pub(crate) struct Panicked(&'static str);

/// The answer of `what`, unless it panics, be it when it is asked or on the way to its answer.
pub(crate) async fn guarded<T>(
    what: &'static str,
    answer: impl Future<Output = T>,
) -> Result<T, Panicked> {
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.map_err(|_| {
        log::error!("{what} panicked");
        Panicked(what)
    })
}

//! Contains panics in code that is not ours: they do not harm the caller.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// The code that was called panicked.
#[derive(Debug, thiserror::Error)]
#[error("{0} failed unexpectedly")]
pub(crate) struct Panicked(&'static str);

/// The result of `what`, unless it panics, either when it is called or while it runs.
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

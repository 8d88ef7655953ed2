//! How a handler reports that it did not do its work, and whether to try again.

use std::fmt::Display;
use std::time::Duration;

/// The first pause before a handler is tried again; each further one is twice as long.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A handler failed: for good, or for now.
///
/// Anything that implements `Display` becomes a permanent failure with `?`. A temporary failure, such as a database
/// that does not answer, is retried; until then the group waits in that store, and nowhere else.
///
/// ```
/// # use eventlog_server::processing::Failure;
/// # struct Database; impl Database { async fn insert(&self, _: &str) -> Result<(), String> { Ok(()) } }
/// async fn insert(database: &Database, title: &str) -> Result<(), Failure> {
///     let () = database.insert(title).await.map_err(Failure::retry)?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Failure {
    pub(super) message: String,
    pub(super) then: Then,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// The entry has failed for good.
    Pass,
    /// It is retried.
    Again(Retry),
    /// It is retried once somebody has resumed the group.
    Pause,
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Retry {
    /// After growing pauses.
    Growing,
    After(Duration),
}

impl Failure {
    /// Permanent: the entry goes to the dead letters, and the next one runs.
    pub fn failed(error: impl Display) -> Self {
        Self { message: error.to_string(), then: Then::Pass }
    }

    /// Temporary: retried after 100 ms, and then after pauses that double up to a minute.
    pub fn retry(error: impl Display) -> Self {
        Self { message: error.to_string(), then: Then::Again(Retry::Growing) }
    }

    /// Temporary: retried after `delay`.
    pub fn retry_after(delay: Duration, error: impl Display) -> Self {
        Self { message: error.to_string(), then: Then::Again(Retry::After(delay)) }
    }

    /// Nothing more may be handled: the group pauses in all stores, as if [`Processor::pause`](super::Processor::pause)
    /// had been called. Once it is resumed, it continues with this entry.
    pub fn pause(error: impl Display) -> Self {
        Self { message: error.to_string(), then: Then::Pause }
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::failed(error)
    }
}

impl Retry {
    /// How long to wait after this many tries, at least one.
    pub(super) fn delay(self, tries: u32) -> Duration {
        match self {
            Self::After(delay) => delay,
            Self::Growing => {
                let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
                RETRY_MIN.saturating_mul(doubled).min(RETRY_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let millis = |tries| Retry::Growing.delay(tries).as_millis();
        assert_eq!(
            [1, 2, 3, 10, 11, u32::MAX].map(millis),
            [100, 200, 400, 51_200, 60_000, 60_000]
        );
    }
}

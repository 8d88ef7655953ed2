//! Errors of the database, and what they mean for the request.

use tokio_postgres::error::{Severity, SqlState};

use super::super::StorageError;

/// A statement, or a connection, failed.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    told: String,
    code: Option<SqlState>,
    constraint: Option<String>,
    /// The server refused the statement and continues: nothing of it happened.
    is_refusal: bool,
}

impl Failed {
    /// For a reason that the driver does not know.
    pub(crate) fn new(told: impl Into<String>) -> Self {
        Self { told: told.into(), code: None, constraint: None, is_refusal: false }
    }

    /// Nothing happened: there was no connection.
    pub(crate) fn before_anything(told: impl Into<String>) -> Self {
        Self { is_refusal: true, ..Self::new(told) }
    }

    /// There is no connection to the database at `address`: nothing happened.
    pub(super) fn not_connected(address: &str, error: &tokio_postgres::Error) -> Self {
        let code = error.code();
        let told = match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()),
            // The driver's own text says only that there is none.
            None => causes_of(error).unwrap_or_else(|| error.to_string()),
        };
        let has_no_password =
            told.contains("password missing") || code == Some(&SqlState::INVALID_PASSWORD);
        let hint = if has_no_password {
            "; a password belongs in the URL, and the URL then in EVENTLOG_STORAGE_URL or `url_file`"
        } else if told.contains("does not support TLS") {
            "; with sslmode=disable the URL asks for no TLS, if the network between is trusted"
        } else {
            ""
        };
        Self::before_anything(format!("no connection to the database at {address}: {told}{hint}"))
    }

    /// Whether it is certain that nothing of the statement happened.
    pub(crate) const fn is_definite(&self) -> bool {
        self.is_refusal
    }

    /// The constraint that the statement violated.
    pub(crate) fn broken_constraint(&self) -> Option<&str> {
        let is_unique = self.code.as_ref() == Some(&SqlState::UNIQUE_VIOLATION);
        is_unique.then_some(self.constraint.as_deref().unwrap_or_default())
    }

    /// Whether others were in the way, so that the same statement may succeed a moment later. Nothing of it happened.
    pub(crate) fn is_worth_repeating(&self) -> bool {
        let worth = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        self.is_refusal && self.code.as_ref().is_some_and(|code| worth.contains(code))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.told)
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::new(format!("the connection to the database failed: {}", causes(&error)));
        };
        // An error that ends the connection says nothing about the request.
        let goes_on = matches!(db.parsed_severity(), Some(Severity::Error));
        Self {
            told: format!("the database says: {} ({})", db.message(), db.code().code()),
            code: Some(db.code().clone()),
            constraint: db.constraint().map(ToOwned::to_owned),
            is_refusal: goes_on && !db.code().code().starts_with("08"),
        }
    }
}

fn causes(error: &tokio_postgres::Error) -> String {
    match causes_of(error) {
        Some(causes) => format!("{error}: {causes}"),
        None => error.to_string(),
    }
}

/// What is below `error`, if anything is.
fn causes_of(error: &tokio_postgres::Error) -> Option<String> {
    let mut told = None::<String>;
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        told = match told {
            Some(told) if told.contains(&text) => Some(told),
            Some(told) => Some(format!("{told}: {text}")),
            None => Some(text),
        };
        cause = next.source();
    }
    told
}

impl From<Failed> for StorageError {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed)
    }
}

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
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = next.source();
    }
    told
}

impl From<Failed> for StorageError {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed)
    }
}

//! Failures of an import that are no fault of the input's commands.

use std::error::Error;
use std::fmt::Display;

/// Result of the steps of an import.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A failure, and the file or directory that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Failure {
    /// The file or directory.
    pub what: String,
    /// The failure itself.
    pub source: Box<dyn Error>,
}

/// Wraps a failure; the message begins with `what`.
pub(crate) fn about<E: Error + 'static>(what: impl Display) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| Failure { what: what.to_string(), source: error.into() }.into()
}

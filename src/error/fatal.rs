//! What ends an engine at an entry.

use crate::error::{Corrupt, ReadError, SnapshotError};

/// Error of a state machine that cannot continue. It poisons the engine with the current index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    message: String,
    damage: Option<Corrupt>,
}

impl Fatal {
    /// Makes the error with a message for the operator. Do not put a key or a value into the
    /// message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), damage: None }
    }

    /// The error for a value that cannot be read. It keeps the place of a damaged chunk of a
    /// snapshot.
    pub(crate) fn of_read(error: &ReadError) -> Self {
        let damage = match error {
            ReadError::Snapshot(error) => match &**error {
                SnapshotError::Corrupt { file, offset, what } => {
                    Some(Corrupt { file: file.clone(), offset: *offset, index: None, what })
                }
                _ => None,
            },
            _ => None,
        };
        Self { message: error.to_string(), damage }
    }

    /// The damaged place of a file, if that is the cause.
    pub(crate) fn into_damage(self) -> Option<Corrupt> {
        self.damage
    }
}

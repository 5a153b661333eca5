//! The log: frames in segments, one appender, one log writer.
pub(crate) mod image;
pub(crate) mod slots;
pub(crate) mod table;

/// What the apply manager encodes entries into: our log, or memory only.
#[derive(Debug)]
pub struct Journal {}
impl Journal {
    /// Memory only.
    #[must_use]
    pub fn memory() -> Self {
        Self {}
    }
}

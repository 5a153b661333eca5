//! The log: frames in segments, one appender, one log writer.
pub(crate) mod format;
pub(crate) mod hard;
pub(crate) mod image;
pub(crate) mod meta;
pub(crate) mod recovery;
pub(crate) mod slots;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod test_disk;
pub(crate) mod two_slot;

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

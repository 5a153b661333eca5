//! sprag
pub mod codec;
pub mod disk;
pub mod entry;
pub mod error;
pub mod log;
pub mod machine;

//! Parts of the engine for its own benches and fuzz targets. They may change in any version.

pub use crate::machine::storage::cache::{CacheLimits, ReadCache};

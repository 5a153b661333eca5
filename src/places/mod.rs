//! The bytes of each segment, in memory or in a file: [`table`]; a segment that is not mapped is
//! read from its file ([`unmapped`]). What held an image in memory holds another one later
//! ([`spare`]).

pub(crate) mod spare;
pub(crate) mod table;
pub(crate) mod unmapped;

//! The bytes of each segment, in memory or in a file: [`table`]; a segment that is not mapped is
//! read from its file ([`unmapped`]).

pub(crate) mod table;
pub(crate) mod unmapped;

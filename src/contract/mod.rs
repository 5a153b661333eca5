//! The contract between the engine and a state machine.
//!
//! [`machine`] is what a machine does; [`staging`] and [`view`] are what it may do besides.
//! [`value`] is what a read returns, and [`buffer`] is where a store in memory keeps it. [`run`]
//! calls a machine and turns its failures into a poison.

pub(crate) mod buffer;
pub(crate) mod machine;
pub(crate) mod run;
pub(crate) mod staging;
pub(crate) mod value;
pub(crate) mod view;

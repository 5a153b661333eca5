//! Reading of a Redis command stream, and its import into a sprag directory: the stream's commands
//! become entries.
//!
//! A stream is an append-only file, what `redis-cli --pipe` would take, or a command a line. A
//! command passes these modules in order. `stream` frames it, and `command` parses it. `group`
//! decides what it does and gathers it with others. `engine` submits a group as one atomic batch,
//! with the note (`position`) of how far the group reaches.
//!
//! [`Source`] opens an input, [`Engine`] is the directory, and an [`Importer`] carries the commands
//! from one to the other. The crate serves the command `sprag import`; its interface follows the
//! needs of that command.

mod command;
mod decisive;
mod engine;
mod error;
mod group;
mod importer;
mod inline;
mod kind;
mod manifest;
#[cfg(any(feature = "testing", test))]
mod map;
#[cfg(test)]
mod meaning_tests;
mod position;
mod set;
mod source;
mod stop;
mod stream;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Open, Target};
pub use error::{Failure, Outcome};
pub use group::{Group, Keys, Refused, State, Visit};
pub use importer::{Importer, Shown, Skipped, Summary};
#[cfg(any(feature = "testing", test))]
pub use map::Map;
pub use position::name as note_name;
pub use source::{Part, Source};
pub use stop::{Name, Stop, What};
pub use stream::{Position, Stream};

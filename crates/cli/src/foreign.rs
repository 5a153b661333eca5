//! Printing of files in a directory that are not the engine's.

use std::io::Write;

use sprag::ForeignFiles;

use crate::error::Outcome;

/// Prints one line for each name, quoted, because a name may hold any bytes.
pub(crate) fn print_foreign(foreign: &ForeignFiles, out: &mut dyn Write) -> Outcome {
    for name in &foreign.taken {
        writeln!(
            out,
            "NAME TAKEN: {name:?} has the name of a file of sprag and is none; move it out of the directory"
        )?;
    }
    for name in &foreign.names {
        writeln!(out, "passed over: {name:?} is not a file of sprag")?;
    }
    let shown = foreign.names.len() as u64;
    if foreign.count > shown {
        writeln!(out, "passed over: {} more", foreign.count - shown)?;
    }
    Ok(())
}

//! Notes on stderr about what opening for writing found and mended, one line each, in the words of
//! `verify`.

use std::io::{self, Write};
use std::path::Path;

use sprag::RecoveryReport;

use crate::text::torn;

/// Prints what was wrong with the directory, if anything was.
pub(crate) fn say_recovered(dir: &Path, report: &RecoveryReport) {
    let mut said = Vec::new();
    if report.meta_slot_damaged {
        said.push("a slot of META did not read back; it was stored anew from the other".to_owned());
    }
    if let Some(cut) = &report.cut {
        said.push(format!("the log had a torn end, which was cut: {}", torn(Some(cut))));
    }
    for file in &report.damaged_snapshots {
        said.push(format!("{file} is damaged; the state was read without it"));
    }
    for what in said {
        // The command continues even if standard error is closed.
        let _unread = writeln!(io::stderr(), "sprag: {}: {what}", dir.display());
    }
}

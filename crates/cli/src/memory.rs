//! A check, before any memory is taken, that the data of the options fits into memory.

use std::fs;

use crate::error::{Failure, Outcome};
use crate::text::size;

/// Approximate bytes that a key takes beside its value, in the tables of the machine and in the
/// lists of the command.
pub(crate) const KEY_BYTES: u64 = 96;

/// Refuses options that need more memory than the system has available. `options` names the options
/// to make smaller.
pub(crate) fn check(bytes: u64, options: &str) -> Outcome {
    match available_bytes() {
        Some(available) if bytes > available => Err(Failure::usage(format!(
            "{options} take {} of memory, and {} are available; make them smaller",
            size(bytes),
            size(available)
        ))),
        _ => Ok(()),
    }
}

/// Bytes that the system can give without swapping; `None` where the system does not say.
fn available_bytes() -> Option<u64> {
    // A system without this file does not say.
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

//! Whether what the options ask for fits into memory, said before it is taken.

use std::fs;

use crate::error::{Failure, Outcome};
use crate::text::size;

/// About what a key takes beside its value: in the tables of the machine, and in the lists of the command.
pub(crate) const KEY_BYTES: u64 = 96;

/// Refuses what takes more memory than the system has to give; `options` name what to make smaller.
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

/// What the system says it can give without swapping; `None` where it does not say.
fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

//! The `watch` command: the entries of a directory as they are applied, beside its writer.
//!
//! The times of the files tell whether something has changed; only then the command reads the log.
//! It reads the log from its start each time, which suits logs of some hundred MiB between two
//! compactions.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use sprag::error::OpenError;

use crate::args::Watch;
use crate::dump::{EntryJson, json_line};
use crate::error::{Outcome, about, opening};
use crate::look::whole;
use crate::text::line;

/// Interval at which the command checks the files.
const EVERY: Duration = Duration::from_millis(50);

pub(crate) fn watch(watch: &Watch, out: &mut dyn Write) -> Outcome {
    let dir = &watch.of.dir;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let stop = Arc::clone(&stop);
        signal_hook::flag::register(signal, stop).map_err(about("taking a signal"))?;
    }
    let next = match watch.from {
        Some(from) => from,
        None => {
            let nothing = &mut |_: &sprag::inspect::LiveEntry<'_>| Ok(());
            let seen = sprag::inspect::dump(dir, u64::MAX.., nothing).map_err(opening(dir))?;
            // No entry has the index u64::MAX.
            seen.committed.map_or(0, |index| index.saturating_add(1))
        }
    };
    let mut watcher = Watcher { dir, next, left: watch.count, seen: None };
    while !stop.load(Ordering::Acquire) {
        watcher.look(out)?;
        out.flush()?;
        if watcher.left == Some(0) {
            break;
        }
        thread::sleep(EVERY);
    }
    Ok(())
}

struct Watcher<'a> {
    dir: &'a Path,
    /// The lowest index that has not been printed.
    next: u64,
    /// Number of entries that are still to be printed; `None` for no limit.
    left: Option<u64>,
    /// State of the files when the log was read last.
    seen: Option<Vec<Seen>>,
}

/// Attributes of a file that change when it is written.
type Seen = (std::ffi::OsString, u64, i64, i64);

impl Watcher<'_> {
    /// Prints the entries that were applied since the last look.
    fn look(&mut self, out: &mut dyn Write) -> Outcome {
        let found = files(self.dir).map_err(about(self.dir.display()))?;
        if self.seen.as_ref() == Some(&found) {
            return Ok(());
        }
        self.say_what_is_gone(out)?;
        let (mut next, mut left) = (self.next, self.left);
        let mut is_committed = true;
        let read = sprag::inspect::dump(self.dir, self.next.., &mut |entry| {
            is_committed &= entry.committed;
            if is_committed && left != Some(0) {
                json_line(out, &EntryJson::new(entry))?;
                left = left.map(|left| left - 1);
                next = entry.log_id.next().index;
            }
            Ok(())
        });
        (self.next, self.left) = (next, left);
        match read {
            // A writer is opening or closing the directory; the next look succeeds.
            Err(OpenError::Locked { .. }) => Ok(()),
            Err(error) => Err(opening(self.dir)(error)),
            Ok(read) => {
                whole(self.dir, read.unreadable.as_ref())?;
                // A change by the writer during this look changes the times again.
                self.seen = Some(found);
                Ok(())
            }
        }
    }

    /// Reports entries that were given up before they were read, by a compaction or an installed
    /// snapshot.
    fn say_what_is_gone(&mut self, out: &mut dyn Write) -> Outcome {
        let meta = match sprag::inspect::meta(self.dir) {
            Err(OpenError::Locked { .. }) => return Ok(()),
            meta => meta.map_err(opening(self.dir))?,
        };
        let last = meta.and_then(|meta| meta.base.last).map(|last| last.index);
        if let Some(last) = last.filter(|last| *last >= self.next) {
            line(out, &GoneJson { kind: "compacted", from: self.next, to: last })?;
            // No entry has the index u64::MAX.
            self.next = last.saturating_add(1);
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct GoneJson {
    kind: &'static str,
    from: u64,
    to: u64,
}

fn files(dir: &Path) -> io::Result<Vec<Seen>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A file that was removed meanwhile is missing in the next look.
        if let Ok(found) = entry.metadata() {
            files.push((entry.file_name(), found.len(), found.mtime(), found.mtime_nsec()));
        }
    }
    files.sort();
    Ok(files)
}

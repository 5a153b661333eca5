//! The file that follows the acknowledged index, for an observer outside of the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::output::{Content, Output, OutputError};

/// Interval at which the follower reads the index.
const EVERY: Duration = Duration::from_millis(1);

/// One more than the last index that the submitter has submitted. The submitter stores it after the
/// engine has taken the submission.
pub(crate) type SubmittedMark = AtomicU64;

/// Number of bytes that are read to recognise a file of acknowledged indexes.
const LOOKED_AT_BYTES: usize = 4096;

const ACKS: Content = Content { name: "acknowledged indexes", is_same: is_ack_file };

/// Whether a file holds numbers, one a line.
fn is_ack_file(file: &mut File) -> io::Result<bool> {
    let mut start = vec![0; LOOKED_AT_BYTES];
    let mut read = 0;
    while read < start.len() {
        match file.read(&mut start[read..])? {
            0 => break,
            more => read += more,
        }
    }
    let is_whole_line = |line: &[u8]| (1..=20).contains(&line.len());
    let mut lines = start[..read].split(|byte| *byte == b'\n');
    let digits = start[..read].iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n');
    // The last line may continue after the bytes read, or be the rest of an interrupted write.
    Ok(digits && lines.next().is_some_and(is_whole_line))
}

/// Decides whether the acknowledged indexes may go to `path`, before any file is made. `own` is the
/// directory of the run.
pub(crate) fn decide(path: &Path, own: Option<&Path>, force: bool) -> Result<Output, OutputError> {
    Output::decide(path, ACKS, own, force)
}

/// Appends the acknowledged index to `file`, one a line, whenever it has moved, until `stop`, and
/// then once more. `known` is one more than the index acknowledged before, which is not written
/// again.
///
/// `pending` returns the number of entries submitted and not acknowledged. The written index is
/// never ahead of the acknowledged one. Entries submitted after `submitted` was read are among the
/// pending ones, and so make the written index smaller. The loop allocates nothing.
pub(crate) fn follow(
    mut file: File,
    mut known: u64,
    submitted: &SubmittedMark,
    pending: impl Fn() -> u64,
    stop: &AtomicBool,
) -> io::Result<()> {
    loop {
        let last_round = stop.load(Ordering::Acquire);
        // Another thread submits between the two loads; then the mark is lower than it could be.
        let mark = submitted.load(Ordering::Acquire).saturating_sub(pending());
        if mark > known {
            known = mark;
            // Each line is one write(2), so a reader sees whole lines only.
            let mut line = Line::default();
            line.index(mark - 1);
            file.write_all(line.bytes())?;
        }
        if last_round {
            return Ok(());
        }
        thread::sleep(EVERY);
    }
}

/// A number and a newline, on the stack.
#[derive(Default)]
struct Line {
    bytes: [u8; 21],
    start: usize,
}

impl Line {
    fn index(&mut self, mut index: u64) {
        let mut start = self.bytes.len() - 1;
        self.bytes[start] = b'\n';
        loop {
            start -= 1;
            // A digit fits a byte.
            self.bytes[start] = b'0' + u8::try_from(index % 10).unwrap_or(0);
            index /= 10;
            if index == 0 {
                break;
            }
        }
        self.start = start;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_line_is_the_number_and_a_newline() {
        for index in [0, 7, 10, 4_294_967_296, u64::MAX] {
            let mut line = Line::default();
            line.index(index);
            assert_eq!(line.bytes(), format!("{index}\n").as_bytes());
        }
    }

    #[test]
    fn a_line_is_appended_when_the_index_moves_and_only_then() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), "3\n").unwrap();
        let (submitted, pending) = (AtomicU64::new(12), AtomicU64::new(2));
        let stop = AtomicBool::new(false);
        let text = || std::fs::read_to_string(path.path()).unwrap();
        let until = |wanted: &str| {
            while text() != wanted {
                thread::yield_now();
            }
        };
        thread::scope(|scope| {
            let file = decide(path.path(), None, false).unwrap().append().unwrap();
            scope.spawn(|| {
                follow(file, 10, &submitted, || pending.load(Ordering::Acquire), &stop).unwrap()
            });
            thread::sleep(Duration::from_millis(10));
            assert_eq!(text(), "3\n");
            pending.store(4, Ordering::Release);
            submitted.store(20, Ordering::Release);
            until("3\n15\n");
            thread::sleep(Duration::from_millis(10));
            assert_eq!(text(), "3\n15\n");
            pending.store(0, Ordering::Release);
            until("3\n15\n19\n");
            submitted.store(21, Ordering::Release);
            stop.store(true, Ordering::Release);
        });
        assert!(text().ends_with("19\n20\n"));
    }
}

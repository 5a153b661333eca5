//! One import into a map, and the comparisons of its result.

use std::collections::BTreeMap;
use std::io::Read;

use sprag_import::{Importer, Map, Outcome, Shown, Stop, Stream, Summary, What};

use super::reading::{self, Stopped, Why};

/// Result of an import.
pub(super) struct Run {
    pub(super) outcome: Outcome<Option<Stop>>,
    pub(super) summary: Summary,
    pub(super) map: Map,
}

pub(super) fn run(map: Map, source: impl Read, skips: bool) -> Run {
    let mut importer = Importer::new(map, Stream::new(source), skips);
    let mut shown = 0;
    let progress = |offset| {
        assert!(offset > shown, "what is shown only rises");
        shown = offset;
    };
    let resumed = importer.resume(&Shown { name: "input", has_position: true });
    let outcome = resumed.and_then(|()| importer.run(progress));
    let (summary, map) = importer.finish();
    Run { outcome, summary, map }
}

impl Run {
    /// Returns why the import ended early. Panics if the import was refused or failed.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        let stop = self.outcome.as_ref().unwrap().as_ref()?;
        Some(Stopped { offset: stop.offset, multi: stop.multi, why: why(&stop.what) })
    }

    pub(super) fn is_what_a_plain_reading_makes_of(&self, stream: &[u8], skips: bool) {
        let stopped = self.took_what_a_plain_reading_takes(stream, skips);
        assert_eq!(self.stopped(), stopped);
    }

    /// Checks that the source failed where `stream` ends, instead of ending there.
    pub(super) fn is_a_plain_reading_that_fails_after(&self, stream: &[u8], skips: bool) {
        let found = self.stopped().unwrap();
        match self.took_what_a_plain_reading_takes(stream, skips) {
            Some(cut_off) if cut_off.why == Why::CutOff => {
                assert_eq!(found.why, Why::Read);
                assert_eq!(found.multi.unwrap_or(found.offset), cut_off.offset);
            }
            // Only the end of the source says whether there are more zeros.
            Some(zeros) if zeros.why == Why::Zeros => {
                assert_eq!(found, Stopped { why: Why::Read, ..zeros });
            }
            Some(stopped) => assert_eq!(found, stopped),
            None => {
                assert_eq!((found.why, found.multi), (Why::Read, None));
                assert!(found.offset >= self.summary.offset);
            }
        }
    }

    fn took_what_a_plain_reading_takes(&self, stream: &[u8], skips: bool) -> Option<Stopped> {
        let mut reading = reading::Reading::new(stream, skips);
        let mut entries = self.map.taken.iter().copied().peekable();
        let stopped = loop {
            match reading.next_unit() {
                Ok(true) => drop(entries.next_if_eq(&reading.reached)),
                Ok(false) => break None,
                Err(stopped) => break Some(stopped),
            }
        };
        assert_eq!(entries.next(), None, "an entry ends where no unit does");
        assert_eq!(self.summary.offset, reading.reached);
        assert_eq!(self.map.note.map_or(0, |note| note.offset), reading.reached);
        assert_eq!(self.map.keys, reading.keys);
        assert_eq!(self.summary.commands, reading.commands);
        assert_eq!(self.skipped(), reading.skipped);
        assert_eq!(self.summary.entries, self.map.taken.len() as u64);
        stopped
    }

    fn skipped(&self) -> BTreeMap<String, u64> {
        let skipped = self.summary.skipped.iter();
        skipped.map(|(name, count)| (name.as_str().to_owned(), *count)).collect()
    }

    /// Checks that several imports in a row did the same as this one, and nothing twice.
    pub(super) fn is_the_sum_of(&self, runs: &[&Run]) {
        let Some(last) = runs.last() else { return };
        assert_eq!(last.stopped(), self.stopped());
        assert_eq!(last.map.keys, self.map.keys);
        assert_eq!(last.map.note, self.map.note);
        assert_eq!(last.summary.offset, self.summary.offset);
        let commands: u64 = runs.iter().map(|run| run.summary.commands).sum();
        assert_eq!(commands, self.summary.commands, "commands are counted once");
        let mut skipped = BTreeMap::new();
        for (name, count) in runs.iter().flat_map(|run| run.skipped()) {
            *skipped.entry(name).or_default() += count;
        }
        assert_eq!(skipped, self.skipped(), "what is passed over is counted once");
    }
}

fn why(what: &What) -> Why {
    match what {
        What::Unsupported(_) => Why::Unsupported,
        What::Decisive { .. } => Why::Decisive,
        What::Expiry(_) | What::Replaces(_) => Why::InPart,
        What::UnsupportedOptions(_) => Why::Options,
        What::Database => Why::Database,
        What::Arguments(_) => Why::Arguments,
        What::Rejected { .. } => Why::Rejected,
        What::Misplaced(_) => Why::Misplaced,
        What::EmptyKey { .. } => Why::EmptyKey,
        What::KeyTooLong { .. } => Why::LongKey,
        What::ValueTooLong { .. } => Why::LongValue,
        What::ArgumentTooLong { .. } => Why::LongArgument,
        What::TooLarge { .. } => Why::TooLarge,
        What::Malformed(_) => Why::Malformed,
        What::Zeros { .. } => Why::Zeros,
        What::CutOff => Why::CutOff,
        What::Read(_) => Why::Read,
    }
}

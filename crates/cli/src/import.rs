//! The `import` command: a Redis command stream becomes entries.
//!
//! A command passes these modules in order. [`stream`] frames it, and [`command`] parses it.
//! [`group`] decides what it does and gathers it with others. [`engine`] submits a group as one
//! atomic batch, with the note ([`position`]) of how far the group reaches.

mod command;
mod decisive;
mod engine;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod group;
mod inline;
mod kind;
mod manifest;
#[cfg(any(fuzzing, test))]
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

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::time::Instant;

use serde::Serialize;

use crate::args::Import;
use crate::error::{Failure, Outcome, about};
use crate::progress::Progress;
use crate::text::{line, size};
use command::{Action, Parsed, Request};
use engine::{Engine, Target};
use group::{ENTRY_BYTES_MAX, Group, Refused};
use source::Source;
use stop::{Stop, What};
use stream::{Position, Stream};

pub(crate) fn import(import: &Import, json: bool, out: &mut dyn Write) -> Outcome {
    // Open the input first: without an input, no directory is made.
    let Source { shown, path, parts, bytes } = Source::open(&import.file)?;
    let note = position::name(import.name.as_deref(), path.as_deref());
    let has_position = import.name.is_some() || path.is_some();
    let (names, readers): (Vec<_>, Vec<_>) =
        parts.into_iter().map(|part| (part.name, part.reader)).unzip();
    let mut bar = Progress::new(json).bytes("importing", bytes);
    let engine = Engine::open(&import.of.dir, note)?;
    let started = Instant::now();
    let mut importer = Importer::new(engine, Stream::of_parts(readers), import.skip_unknown);
    importer.resume(&Shown { name: &shown, has_position })?;
    let stopped = importer.run(|offset| bar.at(offset))?;
    drop(bar);
    // A stop names its part of the input, and the offset in that part.
    let stopped = stopped.map(|stop| {
        let (part, start) = importer.stream.part_of(stop.offset);
        (names.get(part).cloned().unwrap_or(shown), stop.after(start))
    });
    let (summary, engine) = importer.finish();
    engine.close(stopped.is_none())?;
    summary.print(started, stopped.as_ref(), json, out)?;
    match stopped {
        None => Ok(()),
        Some((name, stop)) => {
            let message = format!("{name}: stopped at: {stop}");
            Err(Failure::input(message, &name, stop.offset).into())
        }
    }
}

/// Name of an input in messages.
struct Shown<'a> {
    name: &'a str,
    /// Whether the position of the input has its own name. All input by pipes shares one name
    /// otherwise.
    has_position: bool,
}

/// Number of commands of each name that were passed over.
type Skipped = BTreeMap<stop::Name, u64>;

/// Result of an import.
#[derive(Debug, Default)]
struct Summary {
    commands: u64,
    entries: u64,
    skipped: Skipped,
    resumed_at: u64,
    offset: u64,
}

/// A MULTI that has not been executed yet.
struct Multi {
    offset: u64,
    bytes: usize,
    unit: Vec<(u64, Request)>,
    /// Commands of the MULTI that were passed over. The import counts them when the MULTI ends,
    /// because a MULTI that is cut off is read again as a whole.
    skipped: Skipped,
}

/// An import in progress.
struct Importer<R, T> {
    engine: T,
    stream: Stream<R>,
    skips_unknown: bool,
    multi: Option<Multi>,
    group: Group,
    /// End of the last command (or MULTI) that is in an entry, in the group, or passed over.
    reached: Position,
    /// Offset in the note that was submitted last.
    noted: u64,
    summary: Summary,
}

/// Reason that ends an import early.
type Halt = Refused<Box<dyn Error>>;

impl<R: Read, T: Target> Importer<R, T> {
    fn new(engine: T, stream: Stream<R>, skips_unknown: bool) -> Self {
        let (reached, summary) = (stream.position(), Summary::default());
        let group = Group::default();
        Self { engine, stream, skips_unknown, multi: None, group, reached, noted: 0, summary }
    }

    /// Skips what was imported before, if the input still starts with it.
    fn resume(&mut self, shown: &Shown<'_>) -> Outcome {
        let Some(before) = self.engine.reached()? else { return Ok(()) };
        let Shown { name, has_position } = shown;
        let found = self.stream.skip(before.offset).map_err(about(name))?;
        let offset = before.offset;
        if found == before {
            (self.reached, self.noted, self.summary.resumed_at) = (found, offset, offset);
            return Ok(());
        }
        let what = match has_position {
            true => format!("{offset} bytes of it were imported before"),
            false => format!("{offset} bytes were imported before by a pipe without a --name"),
        };
        let differs = match found.offset < offset {
            true => format!("it has only {} bytes", found.offset),
            false => "it begins with other ones".to_owned(),
        };
        Err(format!("{name}: {what}, and {differs}; give another input another --name").into())
    }

    /// Imports until the end, or until a command stops the import. Everything before that command
    /// is durable then. Calls `reached` with each offset.
    fn run(&mut self, reached: impl FnMut(u64)) -> Outcome<Option<Stop>> {
        let stop = match self.take_all(reached) {
            Ok(()) => None,
            Err(Refused::Input(stop)) => Some(stop),
            Err(Refused::State(error)) => return Err(error),
        };
        self.submit()?;
        self.engine.flush()?;
        Ok(stop)
    }

    fn finish(mut self) -> (Summary, T) {
        self.summary.offset = self.reached.offset;
        (self.summary, self.engine)
    }

    fn take_all(&mut self, mut reached: impl FnMut(u64)) -> Result<(), Halt> {
        loop {
            let next = self.stream.next().map_err(|stop| self.in_multi(stop))?;
            let Some(offset) = next else { break };
            let parsed = command::parse(self.stream.words());
            let parsed = parsed.map_err(|what| self.in_multi(what.at(offset)))?;
            self.take(offset, parsed)?;
            if self.multi.is_none() {
                self.reached = self.stream.position();
                reached(self.reached.offset);
            }
            if self.group.is_full() {
                self.submit().map_err(Refused::State)?;
            }
        }
        match &self.multi {
            Some(_) => Err(self.in_multi(What::CutOff.at(self.stream.offset())).into()),
            None => Ok(()),
        }
    }

    fn take(&mut self, offset: u64, parsed: Parsed) -> Result<(), Halt> {
        match (parsed, self.multi.take()) {
            (Parsed::Data(request), None) => self.add(vec![(offset, request)])?,
            (Parsed::Data(request), Some(mut multi)) => {
                multi.bytes += request.bytes();
                if multi.bytes > ENTRY_BYTES_MAX {
                    let what = What::TooLarge { what: "the MULTI", limit: ENTRY_BYTES_MAX };
                    return Err(what.at(multi.offset).into());
                }
                multi.unit.push((offset, request));
                self.multi = Some(multi);
            }
            (Parsed::Begin, None) => {
                self.multi =
                    Some(Multi { offset, bytes: 0, unit: Vec::new(), skipped: Skipped::new() });
            }
            (Parsed::Execute, Some(multi)) => self.execute(multi)?,
            (Parsed::Discard, Some(multi)) => self.passed_over(multi.skipped),
            (Parsed::Unknown { name, part, .. }, multi) if self.skips_unknown => {
                self.multi = multi;
                match &mut self.multi {
                    Some(multi) => *multi.skipped.entry(name).or_default() += 1,
                    None => self.passed_over([(name, 1)]),
                }
                // The part that is supported is still done.
                if let Some(request) = part {
                    self.take(offset, Parsed::Data(request))?;
                }
            }
            (Parsed::SelectZero, multi) => self.multi = multi,
            (parsed, multi) => {
                let what = match parsed {
                    Parsed::Unknown { why, .. } => why,
                    Parsed::Begin => What::Misplaced("MULTI in a MULTI"),
                    Parsed::Execute => What::Misplaced("EXEC without MULTI"),
                    _ => What::Misplaced("DISCARD without MULTI"),
                };
                self.multi = multi;
                return Err(self.in_multi(what.at(offset)).into());
            }
        }
        Ok(())
    }

    fn execute(&mut self, multi: Multi) -> Result<(), Halt> {
        self.add(multi.unit).map_err(|halt| match halt {
            Refused::Input(stop) => Stop { multi: Some(multi.offset), ..stop }.into(),
            state => state,
        })?;
        self.passed_over(multi.skipped);
        Ok(())
    }

    fn passed_over(&mut self, commands: impl IntoIterator<Item = (stop::Name, u64)>) {
        for (name, count) in commands {
            *self.summary.skipped.entry(name).or_default() += count;
        }
    }

    /// Adds requests that belong together to the group, or to a new group if this one has too
    /// little room.
    fn add(&mut self, unit: Vec<(u64, Request)>) -> Result<(), Halt> {
        if let [(_, Request { action: Action::DeleteAll, .. })] = unit.as_slice() {
            return self.delete_all();
        }
        if self.group.is_crowded_by(&unit) {
            self.submit().map_err(Refused::State)?;
        }
        let commands = unit.len() as u64;
        self.group.add(unit, &self.engine)?;
        self.summary.commands += commands;
        Ok(())
    }

    /// Deletes every key, in several entries if necessary.
    ///
    /// All entries but the last note the offset before the command. After a crash between them, the
    /// import does the command again and deletes the remaining keys.
    fn delete_all(&mut self) -> Result<(), Halt> {
        self.submit().map_err(Refused::State)?;
        let keys = self.engine.keys().map_err(Refused::State)?;
        let Self { engine, group, reached, summary, .. } = self;
        keys.visit(&mut |key| {
            if group.add_delete(key) {
                engine.submit(group, *reached).map_err(Refused::State)?;
                summary.entries += 1;
                group.clear();
            }
            Ok(())
        })?;
        summary.commands += 1;
        Ok(())
    }

    /// Submits the group as an entry, together with the note of the offset reached.
    fn submit(&mut self) -> Outcome {
        if self.reached.offset > self.noted {
            self.engine.submit(&self.group, self.reached)?;
            self.summary.entries += 1;
            self.noted = self.reached.offset;
        }
        self.group.clear();
        Ok(())
    }

    /// Adds the MULTI that the stop is in. A MULTI that is cut off stops at its own start.
    fn in_multi(&self, stop: Stop) -> Stop {
        match (&self.multi, &stop.what) {
            (Some(multi), What::CutOff) => What::CutOff.at(multi.offset),
            (multi, _) => Stop { multi: multi.as_ref().map(|multi| multi.offset), ..stop },
        }
    }
}

impl Summary {
    fn print(
        &self,
        started: Instant,
        stop: Option<&(String, Stop)>,
        json: bool,
        out: &mut dyn Write,
    ) -> Outcome {
        let seconds = started.elapsed().as_secs_f64();
        let bytes = self.offset - self.resumed_at;
        let skipped = self.skipped.values().sum();
        if json {
            let skipped_commands =
                self.skipped.iter().map(|(name, count)| (name.as_str(), *count)).collect();
            let stopped = stop.map(|(file, stop)| StoppedJson {
                file,
                offset: stop.offset,
                reason: stop.what.to_string(),
            });
            let Self { commands, entries, resumed_at, offset, .. } = *self;
            return line(
                out,
                &SummaryJson {
                    commands,
                    skipped,
                    skipped_commands,
                    bytes,
                    offset,
                    resumed_at,
                    entries,
                    seconds,
                    stopped,
                },
            );
        }
        if self.resumed_at > 0 {
            writeln!(out, "resumed at byte {}", self.resumed_at)?;
        }
        for (name, count) in &self.skipped {
            writeln!(out, "skipped {count} {}", name.as_str())?;
        }
        let Self { commands, entries, offset, .. } = self;
        let (rate, byte_rate) = (per_second(*commands, seconds), per_second(bytes, seconds));
        Ok(writeln!(
            out,
            "imported {commands} commands as {entries} entries, up to byte {offset}, in {seconds:.2} s ({rate} commands/s, {}/s)",
            size(byte_rate)
        )?)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rate for people"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(1e-6)) as u64
}

#[derive(Serialize)]
struct SummaryJson<'a> {
    commands: u64,
    skipped: u64,
    skipped_commands: BTreeMap<&'a str, u64>,
    bytes: u64,
    offset: u64,
    resumed_at: u64,
    entries: u64,
    seconds: f64,
    stopped: Option<StoppedJson<'a>>,
}

#[derive(Serialize)]
struct StoppedJson<'a> {
    file: &'a str,
    /// Offset in that file.
    offset: u64,
    reason: String,
}

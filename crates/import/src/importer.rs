//! The import of one input: commands are taken in order, gathered, and submitted as entries.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;

use super::command::{self, Action, Parsed, Request};
use super::engine::Target;
use super::error::{Outcome, about};
use super::group::{ENTRY_BYTES_MAX, Group, Refused};
use super::stop::{self, Stop, What};
use super::stream::{Position, Stream};

/// Name of an input in messages.
#[derive(Debug)]
pub struct Shown<'a> {
    /// The name.
    pub name: &'a str,
    /// Whether the position of the input has its own name. All input by pipes shares one name
    /// otherwise.
    pub has_position: bool,
}

/// Number of commands of each name that were passed over.
pub type Skipped = BTreeMap<stop::Name, u64>;

/// Result of an import.
#[derive(Debug, Default)]
pub struct Summary {
    /// Number of commands that were done.
    pub commands: u64,
    /// Number of entries that they became.
    pub entries: u64,
    /// Commands that were passed over.
    pub skipped: Skipped,
    /// Offset in the input at which this import began.
    pub resumed_at: u64,
    /// Offset in the input up to which it is imported.
    pub offset: u64,
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
pub struct Importer<R, T> {
    engine: T,
    pub(super) stream: Stream<R>,
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
    /// An import from `stream` into `engine`. With `skips_unknown`, the import passes over
    /// commands that are not supported.
    pub fn new(engine: T, stream: Stream<R>, skips_unknown: bool) -> Self {
        let (reached, summary) = (stream.position(), Summary::default());
        let group = Group::default();
        Self { engine, stream, skips_unknown, multi: None, group, reached, noted: 0, summary }
    }

    /// Skips what was imported before, if the input still starts with it.
    ///
    /// # Errors
    ///
    /// The input does not start with what was imported before, or a read fails.
    pub fn resume(&mut self, shown: &Shown<'_>) -> Outcome {
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
    ///
    /// # Errors
    ///
    /// The target fails. An error of the input is no failure: it is the [`Stop`] returned.
    pub fn run(&mut self, reached: impl FnMut(u64)) -> Outcome<Option<Stop>> {
        let stop = match self.take_all(reached) {
            Ok(()) => None,
            Err(Refused::Input(stop)) => Some(stop),
            Err(Refused::State(error)) => return Err(error),
        };
        self.submit()?;
        self.engine.flush()?;
        Ok(stop)
    }

    /// Number of the part of the input that a stop is in, and the stop with offsets in that part.
    #[must_use]
    pub fn in_part(&self, stop: Stop) -> (usize, Stop) {
        let (part, start) = self.stream.part_of(stop.offset);
        (part, stop.after(start))
    }

    /// Ends the import, and gives the target back.
    #[must_use]
    pub fn finish(mut self) -> (Summary, T) {
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

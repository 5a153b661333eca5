//! The directory's side of an import: groups become entries, each with the note of how far it
//! reaches.
//!
//! The first entry makes a missing directory, so an import without entries leaves none.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sprag::error::{ApplyError, SubmitError};
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, LogId, Note, Payload, PersistentStateMachine, Reply,
    Stage, View,
};

use super::group::{Group, Keys, Refused, State, Visit};
use super::position;
use super::stream::Position;
use crate::error::{Outcome, about};

/// Timeout for the engine, long enough for a slow disk.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Opens the machine of a directory for writing, and makes the directory if it is missing.
pub type Open = fn(&Path) -> Outcome<PersistentStateMachine>;

/// Destination of an import.
pub trait Target: State<Error = Box<dyn std::error::Error>> {
    /// Position up to which the input was imported before; `None` on the first import.
    fn reached(&self) -> Outcome<Option<Position>>;

    /// Submits a group as one entry, with the position that the group reaches.
    fn submit(&mut self, group: &Group, reached: Position) -> Outcome;

    /// Waits until everything submitted is on stable storage.
    fn flush(&self) -> Outcome;
}

/// Directory that receives an import.
pub struct Engine {
    dir: PathBuf,
    note_name: String,
    open: Open,
    /// The engine; `None` while the directory does not exist. Nothing is in it.
    opened: Option<Opened>,
}

/// The engine of an existing directory.
struct Opened {
    manager: ApplyManager<PersistentStateMachine>,
    last: Option<LogId>,
    what: String,
    /// Whether a submitted entry may not be in the state yet.
    pending: bool,
}

impl Engine {
    /// Opens the directory with `open` if it exists. Otherwise its parent must exist, and the first
    /// entry opens the directory. The position in the input is in the note of this name.
    ///
    /// # Errors
    ///
    /// `open` fails, or the parent of a missing directory is missing too.
    pub fn open(dir: &Path, note_name: String, open: Open) -> Outcome<Self> {
        let mut engine = Self { dir: dir.to_owned(), note_name, open, opened: None };
        match std::fs::metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => check_parent(dir)?,
            _ => drop(engine.opened()?),
        }
        Ok(engine)
    }

    /// Makes the directory, if it is missing, and opens it.
    fn opened(&mut self) -> Outcome<&mut Opened> {
        match &mut self.opened {
            Some(opened) => Ok(opened),
            closed => {
                let machine = (self.open)(&self.dir)?;
                let what = self.dir.display().to_string();
                Ok(closed.insert(Opened::new(machine, what)?))
            }
        }
    }

    /// Wraps an open engine, for tests.
    #[cfg(test)]
    pub(super) fn of(machine: PersistentStateMachine, note_name: String) -> Outcome<Self> {
        let opened = Some(Opened::new(machine, "dir".to_owned())?);
        let open: Open = |_| Err("it is open".into());
        Ok(Self { dir: PathBuf::new(), note_name, open, opened })
    }

    /// Closes the directory. A successful import makes the directory, even if the input was empty.
    ///
    /// # Errors
    ///
    /// The directory cannot be made, or the engine fails while it closes.
    pub fn close(mut self, succeeded: bool) -> Outcome {
        if succeeded {
            self.opened()?;
        }
        match self.opened {
            Some(Opened { manager, what, .. }) => manager.close(TIMEOUT).map_err(about(what)),
            None => Ok(()),
        }
    }
}

/// Checks, before the input is read, what would fail at the first entry.
fn check_parent(dir: &Path) -> Outcome {
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match std::fs::metadata(parent) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{}: not a directory", parent.display()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{}: no such directory", parent.display()).into())
        }
        Err(error) => Err(about(parent.display())(error)),
    }
}

impl Opened {
    fn new(machine: PersistentStateMachine, what: String) -> Outcome<Self> {
        let last = machine.recovery().last;
        let manager = ApplyManager::new(machine, ApplyConfig::new()).map_err(about(&what))?;
        Ok(Self { manager, last, what, pending: false })
    }

    /// Submits an entry. An entry that may be rejected is waited for, so that nothing is submitted
    /// after a rejected one.
    fn take(&self, entry: Entry<'_>, answered: bool) -> Outcome {
        if !answered {
            match self.manager.apply_entries(&[entry]) {
                Ok(_) => return Ok(()),
                Err(SubmitError::Full { .. }) => {}
                Err(error) => return Err(self.about()(error)),
            }
        }
        let mut reply = None;
        let applied =
            self.manager.apply_batch([entry], TIMEOUT, |_, replied| reply = Some(replied));
        applied.map_err(self.about::<ApplyError>())?;
        match reply {
            Some(Reply::Batch { .. }) => Ok(()),
            reply => Err(format!("{}: an unexpected reply: {reply:?}", self.what).into()),
        }
    }

    /// Waits until everything submitted is in the state.
    fn settle(&self) -> Outcome {
        match self.last {
            Some(last) if self.pending => {
                self.manager.wait_until(last.index, Stage::Applied, TIMEOUT).map_err(self.about())
            }
            _ => Ok(()),
        }
    }

    fn about<E: std::error::Error + 'static>(
        &self,
    ) -> impl FnOnce(E) -> Box<dyn std::error::Error> {
        about(self.what.clone())
    }
}

impl Target for Engine {
    fn reached(&self) -> Outcome<Option<Position>> {
        let Some(opened) = &self.opened else { return Ok(None) };
        let reader = opened.manager.reader();
        let note = reader.note(self.note_name.as_bytes()).map_err(opened.about())?;
        let Some(note) = note else { return Ok(None) };
        match position::decode(&note) {
            Some(position) => Ok(Some(position)),
            None => {
                let what = &opened.what;
                Err(format!("{what}: the note of this import is of an unknown form").into())
            }
        }
    }

    fn submit(&mut self, group: &Group, reached: Position) -> Outcome {
        self.opened()?;
        let Self { note_name, opened: Some(opened), .. } = self else { return Ok(()) };
        let log_id = match opened.last {
            Some(last) => last.next(),
            None => LogId::new(1, 1),
        };
        let (commands, value) = (group.commands(), position::encode(reached));
        let note = Note { name: note_name.as_bytes(), value: &value };
        let batch = Command::Batch { commands: &commands, note: Some(note) };
        opened.take(Entry::new(log_id, Payload::Command(batch)), group.counts())?;
        opened.last = Some(log_id);
        opened.pending = true;
        Ok(())
    }

    fn flush(&self) -> Outcome {
        let Some(opened) = &self.opened else { return Ok(()) };
        opened.manager.flush_pending(TIMEOUT).map_err(opened.about())
    }
}

impl State for Engine {
    type Error = Box<dyn std::error::Error>;

    fn value(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        let Some(opened) = &self.opened else { return Ok(None) };
        opened.settle()?;
        opened.manager.reader().get_with(key, <[u8]>::to_vec).map_err(opened.about())
    }

    fn contains(&self, key: &[u8]) -> Outcome<bool> {
        let Some(opened) = &self.opened else { return Ok(false) };
        opened.settle()?;
        opened.manager.reader().contains(key).map_err(opened.about())
    }

    fn keys(&self) -> Outcome<Box<dyn Keys<Self::Error>>> {
        let Some(opened) = &self.opened else { return Ok(Box::new(None)) };
        opened.settle()?;
        Ok(Box::new(Some(opened.manager.snapshots().view().map_err(opened.about())?)))
    }
}

type Failure = Box<dyn std::error::Error>;

impl Keys<Failure> for Option<View> {
    fn visit(&self, each: &mut Visit<'_, Failure>) -> Result<(), Refused<Failure>> {
        for entry in self.iter().flatten() {
            let (key, _) = entry.map_err(|error| Refused::State(error.into()))?;
            each(&key)?;
        }
        Ok(())
    }
}

//! The directory's side of an import: groups become entries, each with the note of how far it reaches.

use std::path::Path;
use std::time::Duration;

use sprag::error::{ApplyError, SubmitError};
use sprag::{
    ApplyConfig, ApplyManager, Command, Entry, LogId, Note, Payload, PersistentConfig,
    PersistentStateMachine, Reply, Stage,
};

use super::group::{Group, State};
use super::mark;
use super::stream::Position;
use crate::error::{Outcome, about, opening};

/// Long enough for a slow disk.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Room for few keys at first: the tables grow.
const EXPECTED_KEYS: usize = 64 << 10;

/// Where an import goes.
pub(super) trait Target: State<Error = Box<dyn std::error::Error>> {
    /// How far the input was imported before; `None` if it was not.
    fn reached(&self) -> Outcome<Option<Position>>;

    /// Submits a group as one entry that says how far it reaches.
    fn submit(&mut self, group: &Group, reached: Position) -> Outcome;

    /// Waits until all that was submitted is on stable storage.
    fn flush(&self) -> Outcome;
}

/// A directory that is imported into.
pub(super) struct Engine {
    manager: ApplyManager<PersistentStateMachine>,
    last: Option<LogId>,
    note_name: String,
    what: String,
    /// Whether anything was submitted that may not be in the state yet.
    pending: bool,
}

impl Engine {
    pub(super) fn open(dir: &Path, note_name: String) -> Outcome<Self> {
        let config = PersistentConfig::new(dir).expected_keys(EXPECTED_KEYS);
        let machine = PersistentStateMachine::open(config).map_err(opening(dir))?;
        Self::new(machine, note_name, dir.display().to_string())
    }

    pub(super) fn new(
        machine: PersistentStateMachine,
        note_name: String,
        what: String,
    ) -> Outcome<Self> {
        let last = machine.recovery().last;
        let manager = ApplyManager::new(machine, ApplyConfig::new()).map_err(about(&what))?;
        Ok(Self { manager, last, note_name, what, pending: false })
    }

    /// Submits an entry; one that might be rejected is waited for, so that nothing comes after it if it is.
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

    pub(super) fn close(self) -> Outcome {
        let what = self.what;
        self.manager.close(TIMEOUT).map_err(about(what))
    }

    /// Waits until all that was submitted is in the state.
    fn settle(&self) -> Outcome {
        match self.last {
            Some(last) if self.pending => {
                self.manager.wait_until(last.index, Stage::Applied, TIMEOUT).map_err(self.about())
            }
            _ => Ok(()),
        }
    }

    fn about<E: std::error::Error>(&self) -> impl FnOnce(E) -> Box<dyn std::error::Error> {
        about(self.what.clone())
    }
}

impl Target for Engine {
    fn reached(&self) -> Outcome<Option<Position>> {
        let note = self.manager.reader().note(self.note_name.as_bytes()).map_err(self.about())?;
        let Some(note) = note else { return Ok(None) };
        match mark::decode(&note) {
            Some(position) => Ok(Some(position)),
            None => {
                Err(format!("{}: the note of this import is of an unknown form", self.what).into())
            }
        }
    }

    fn submit(&mut self, group: &Group, reached: Position) -> Outcome {
        let log_id = match self.last {
            Some(last) => last.at(last.index.saturating_add(1)),
            None => LogId::new(1, 1),
        };
        let (commands, value) = (group.commands(), mark::encode(reached));
        let note = Note { name: self.note_name.as_bytes(), value: &value };
        let batch = Command::Batch { commands: &commands, note: Some(note) };
        self.take(Entry::new(log_id, Payload::Command(batch)), group.counts())?;
        self.last = Some(log_id);
        self.pending = true;
        Ok(())
    }

    fn flush(&self) -> Outcome {
        self.manager.flush_pending(TIMEOUT).map_err(self.about())
    }
}

impl State for Engine {
    type Error = Box<dyn std::error::Error>;

    fn value(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        self.settle()?;
        self.manager.reader().get_with(key, <[u8]>::to_vec).map_err(self.about())
    }

    fn contains(&self, key: &[u8]) -> Outcome<bool> {
        self.settle()?;
        self.manager.reader().contains(key).map_err(self.about())
    }
}

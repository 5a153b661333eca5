//! A readable state: of a directory, or in a snapshot file.

use std::path::{Path, PathBuf};

use sprag::error::Corrupt;
use sprag::snapshot::SnapshotKind;
use sprag::{PersistentStateMachine, Snapshot, View};

use crate::error::{Outcome, about, opening};
use crate::look::whole;
use crate::progress::Progress;
use crate::stored::{self, Stored};

/// A state that commands read.
pub(crate) struct State {
    path: PathBuf,
    from: From,
}

enum From {
    Directory(Box<PersistentStateMachine>),
    Stored(Box<dyn Stored>),
    File(Snapshot),
}

/// Callback for each key and value.
type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Outcome;

impl State {
    /// Opens a directory read-only, or a snapshot file of the key-value machine.
    pub(crate) fn open(path: &Path, json: bool) -> Outcome<Self> {
        let from = if path.is_file() {
            From::File(open_snapshot(path)?)
        } else if let Some(machine) = stored::open(path)? {
            From::Stored(machine)
        } else {
            From::Directory(Box::new(open_directory(path, json)?))
        };
        Ok(Self { path: path.to_owned(), from })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        match &self.from {
            From::Directory(machine) => {
                let value = machine.get(key).map_err(about(self.path.display()))?;
                Ok(value.map(|value| value.to_vec()))
            }
            From::Stored(machine) => machine.get(&self.path, key),
            // The error names the file.
            From::File(snapshot) => Ok(snapshot.get(key)?.map(<[u8]>::to_vec)),
        }
    }

    /// Calls `each` for the keys that begin with `prefix`, sorted.
    pub(crate) fn each(&self, prefix: &[u8], each: Each<'_>) -> Outcome {
        match &self.from {
            From::Directory(machine) => {
                let view = machine.view_read_only().map_err(about(self.path.display()))?;
                self.each_of(&view, prefix, each)?;
            }
            From::Stored(machine) => self.each_of(&machine.view(&self.path)?, prefix, each)?,
            From::File(snapshot) => {
                for entry in snapshot.prefix(prefix) {
                    let (key, value) = entry?;
                    each(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn each_of(&self, view: &View, prefix: &[u8], each: Each<'_>) -> Outcome {
        for entry in view.prefix(prefix) {
            let (key, value) = entry.map_err(about(self.path.display()))?;
            each(&key, &value)?;
        }
        Ok(())
    }

    /// The failure of a command that could read only what is before the damage.
    pub(crate) fn whole(&self) -> Outcome {
        whole(&self.path, self.unreadable())
    }

    fn unreadable(&self) -> Option<&Corrupt> {
        match &self.from {
            From::Directory(machine) => machine.recovery().unreadable.as_ref(),
            From::Stored(_) | From::File(_) => None,
        }
    }
}

/// Opens a directory read-only.
pub(crate) fn open_directory(dir: &Path, json: bool) -> Outcome<PersistentStateMachine> {
    let _spinner = Progress::new(json).spinner("reading the log");
    PersistentStateMachine::open_read_only(dir).map_err(opening(dir))
}

/// Opens a snapshot file of the key-value machine.
fn open_snapshot(file: &Path) -> Outcome<Snapshot> {
    let snapshot = Snapshot::open(file)?;
    if snapshot.kind() != SnapshotKind::KeyValue {
        let what = "a snapshot of another state machine than the key-value one: only its program can read it";
        return Err(format!("{}: {what}", file.display()).into());
    }
    Ok(snapshot)
}

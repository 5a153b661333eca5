//! State machines that observe, wait, and break, and one trait for reading the built-in ones.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use sprag::error::ReadError;
use sprag::testing::storage::MemoryStorage;
use sprag::{
    EntryRange, Fatal, Footprint, Journal, LogId, MemoryConfig, MemoryStateMachine, Partition,
    PayloadRef, PersistentStateMachine, Replies, StateMachine, StateMachineStats, StorageMachine,
    Value,
};

use super::model::Model;

/// Keys and values, sorted by key.
pub type Scanned = Vec<(Box<[u8]>, Value)>;

/// The reads that both built-in machines have.
pub trait KeyValueReads {
    fn scan(&self) -> Result<Scanned, ReadError>;
    fn count(&self) -> Result<usize, ReadError>;
    fn value_of(&self, key: &[u8]) -> Result<Option<Value>, ReadError>;
    fn note_of(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
    fn members(&self) -> Result<Option<(LogId, Vec<u8>)>, ReadError>;
}

macro_rules! key_value_reads {
    ($machine:ty) => {
        impl KeyValueReads for $machine {
            fn scan(&self) -> Result<Scanned, ReadError> {
                self.scan_sorted()
            }
            fn count(&self) -> Result<usize, ReadError> {
                self.len()
            }
            fn value_of(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
                self.get(key)
            }
            fn note_of(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
                self.note(name)
            }
            fn members(&self) -> Result<Option<(LogId, Vec<u8>)>, ReadError> {
                self.membership()
            }
        }
    };
}

key_value_reads!(MemoryStateMachine);
key_value_reads!(PersistentStateMachine);
key_value_reads!(StorageMachine<MemoryStorage>);

impl<M: KeyValueReads> KeyValueReads for Hooked<M> {
    fn scan(&self) -> Result<Scanned, ReadError> {
        self.inner.scan()
    }
    fn count(&self) -> Result<usize, ReadError> {
        self.inner.count()
    }
    fn value_of(&self, key: &[u8]) -> Result<Option<Value>, ReadError> {
        self.inner.value_of(key)
    }
    fn note_of(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.note_of(name)
    }
    fn members(&self) -> Result<Option<(LogId, Vec<u8>)>, ReadError> {
        self.inner.members()
    }
}

/// Compares a machine at rest with the model. The error names only the place of the first
/// difference, and no value.
pub fn compare(machine: &impl KeyValueReads, model: &Model) -> Result<(), String> {
    let found: BTreeMap<Vec<u8>, Vec<u8>> = machine
        .scan()
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|(key, value)| (key.into_vec(), value.to_vec()))
        .collect();
    if found != model.state {
        let keys: Vec<_> = found
            .keys()
            .chain(model.state.keys())
            .filter(|key| found.get(*key) != model.state.get(*key))
            .collect();
        return Err(format!("the states differ at keys {keys:?}"));
    }
    for (key, value) in &model.state {
        let got = machine.value_of(key).map_err(|error| error.to_string())?;
        if got.as_deref() != Some(&value[..]) {
            return Err(format!("get differs from the scan at key {key:?}"));
        }
    }
    for name in [&b"n"[..], b"a", b"unknown"] {
        let note = machine.note_of(name).map_err(|error| error.to_string())?;
        if note.as_ref() != model.notes.get(name) {
            return Err(format!("the note {name:?} differs"));
        }
    }
    let members = machine.members().map_err(|error| error.to_string())?;
    if members != model.membership {
        return Err(format!("the membership is {members:?}, not {:?}", model.membership));
    }
    let count = machine.count().map_err(|error| error.to_string())?;
    if count != model.state.len() {
        return Err(format!("len is {count}, not {}", model.state.len()));
    }
    Ok(())
}

pub fn memory() -> MemoryStateMachine {
    MemoryStateMachine::new(MemoryConfig::new()).unwrap()
}

type Hook = Box<dyn Fn(&EntryRange<'_>, Partition) -> Result<(), Fatal> + Send + Sync>;

/// A machine that calls a hook before each range that it applies.
pub struct Hooked<M> {
    inner: M,
    hook: Hook,
}

impl<M> Hooked<M> {
    pub fn new(
        inner: M,
        hook: impl Fn(&EntryRange<'_>, Partition) -> Result<(), Fatal> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, hook: Box::new(hook) }
    }
}

impl<M> Deref for Hooked<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.inner
    }
}

impl<M: StateMachine> StateMachine for Hooked<M> {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        self.inner.footprint(payload)
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        (self.hook)(range, partition)?;
        self.inner.apply(range, partition, replies)
    }

    fn applied(&self) -> Option<LogId> {
        self.inner.applied()
    }

    fn stats(&self) -> StateMachineStats {
        self.inner.stats()
    }

    fn journal(&self) -> Journal {
        self.inner.journal()
    }
}

/// Whether the entry of `index` is in `partition`; leaves the range's progress at that entry.
pub fn meets(range: &EntryRange<'_>, partition: Partition, index: u64) -> bool {
    range.entries(partition).any(|entry| entry.unwrap().log_id.index == index)
}

/// A gate that holds up threads while it is shut.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    shut: bool,
    waiting: usize,
}

impl Gate {
    pub fn shut() -> Arc<Self> {
        let gate = Arc::new(Self::default());
        gate.state.lock().unwrap().shut = true;
        gate
    }

    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        while state.shut {
            state = self.changed.wait(state).unwrap();
        }
        state.waiting -= 1;
    }

    pub fn close(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    /// Waits until a thread is held up.
    pub fn wait_for_somebody(&self) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(20), |state| state.waiting == 0)
            .unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "no thread came to the gate");
    }

    /// A guard that opens the gate when the test ends in any way; declare it after the manager.
    pub fn opener(self: &Arc<Self>) -> Opener {
        Opener(Arc::clone(self))
    }
}

#[derive(Debug)]
pub struct Opener(Arc<Gate>);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A machine that passes the gate before each range.
pub fn gated<M: StateMachine>(inner: M, gate: &Arc<Gate>) -> Hooked<M> {
    let gate = Arc::clone(gate);
    Hooked::new(inner, move |_, _| {
        gate.pass();
        Ok(())
    })
}

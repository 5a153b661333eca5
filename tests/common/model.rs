//! The serial oracle: one entry at a time, in index order, on one thread, in a `BTreeMap`.
//!
//! It is written from the documentation of the commands, as plainly as possible, and shares no code
//! with the engine.

use std::collections::BTreeMap;

use sprag::{BatchRejection, LogId, Rejection, Reply};

use super::ops::{Cmd, Logged, Op};

type Bytes = Vec<u8>;

/// State after a prefix of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub state: BTreeMap<Bytes, Bytes>,
    pub notes: BTreeMap<Bytes, Bytes>,
    pub membership: Option<(LogId, Bytes)>,
}

impl Model {
    pub fn after(log: &[Logged]) -> Self {
        let mut model = Self::default();
        model.apply_all(log);
        model
    }

    pub fn apply_all(&mut self, log: &[Logged]) -> Vec<Reply> {
        log.iter().map(|(log_id, op)| self.apply(*log_id, op)).collect()
    }

    pub fn apply(&mut self, log_id: LogId, op: &Op) -> Reply {
        match op {
            Op::Noop => Reply::Applied,
            Op::Membership(bytes) => {
                self.membership = Some((log_id, bytes.clone()));
                Reply::Applied
            }
            Op::Opaque(_) => Reply::Rejected(Rejection::Unsupported),
            Op::One(command) => {
                run(&mut self.state, command).unwrap_or_else(|why| Reply::Rejected(why.into()))
            }
            Op::Batch { commands, note } => self.batch(commands, note.as_ref()),
        }
    }

    /// Runs a batch on a copy of the state, which replaces the state only if nothing was rejected.
    fn batch(&mut self, commands: &[Cmd], note: Option<&(Bytes, Bytes)>) -> Reply {
        let mut state = self.state.clone();
        for (position, command) in commands.iter().enumerate() {
            if let Err(reason) = run(&mut state, command) {
                let position = u32::try_from(position).unwrap();
                return Reply::Rejected(Rejection::InBatch { position, reason });
            }
        }
        self.state = state;
        if let Some((name, value)) = note {
            self.notes.insert(name.clone(), value.clone());
        }
        Reply::Batch { commands: u32::try_from(commands.len()).unwrap() }
    }
}

fn run(state: &mut BTreeMap<Bytes, Bytes>, command: &Cmd) -> Result<Reply, BatchRejection> {
    match command {
        Cmd::Put { key, value } => {
            let replaced = state.insert(key.clone(), value.clone()).is_some();
            Ok(Reply::Put { replaced })
        }
        Cmd::Delete { key } => Ok(Reply::Deleted { existed: state.remove(key).is_some() }),
        Cmd::Increment { key, by } => {
            let number = match state.get(key) {
                None => 0,
                Some(value) => number(value).ok_or(BatchRejection::NotANumber)?,
            };
            let sum = number.checked_add(*by).ok_or(BatchRejection::Overflow)?;
            state.insert(key.clone(), sum.to_string().into_bytes());
            Ok(Reply::Counter(sum))
        }
        Cmd::CompareAndSet { key, expected, new } => {
            if state.get(key) != expected.as_ref() {
                return Err(BatchRejection::Mismatch);
            }
            match new {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
            Ok(Reply::Swapped)
        }
    }
}

/// Parses a number, which has one decimal form: the one that printing it gives.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

//! The plain model: the effect of each command on a sorted map, on one thread.

use std::collections::BTreeMap;

use sprag::entry::{Command, Note, Payload};
use sprag::testing::internals::codec::{CommandRef, PayloadRef};

pub(super) type State = BTreeMap<Vec<u8>, Vec<u8>>;
type Bytes = Vec<u8>;

/// A command that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
    Increment(Bytes, i64),
    Swap(Bytes, Option<Bytes>, Option<Bytes>),
    Batch(Vec<Op>, Option<(Bytes, Bytes)>),
    Noop,
    Membership(Bytes),
    Opaque(Bytes),
}

impl Op {
    /// The command in a decoded entry.
    pub(super) fn decoded(payload: &PayloadRef<'_>) -> Self {
        match payload {
            PayloadRef::Noop => Self::Noop,
            PayloadRef::Membership(bytes) => Self::Membership(bytes.to_vec()),
            PayloadRef::Opaque(bytes) => Self::Opaque(bytes.to_vec()),
            PayloadRef::Command(command) => Self::decoded_command(command),
        }
    }

    fn decoded_command(command: &CommandRef<'_>) -> Self {
        match *command {
            CommandRef::Put { key, value } => Self::Put(key.to_vec(), value.bytes.to_vec()),
            CommandRef::Delete { key } => Self::Delete(key.to_vec()),
            CommandRef::Increment { key, by } => Self::Increment(key.to_vec(), by),
            CommandRef::CompareAndSet { key, expected, new } => Self::Swap(
                key.to_vec(),
                expected.map(<[u8]>::to_vec),
                new.map(|new| new.bytes.to_vec()),
            ),
            CommandRef::Batch(batch) => {
                let commands: Vec<_> =
                    batch.commands().map(|command| Self::decoded_command(&command)).collect();
                assert_eq!(commands.len(), batch.len() as usize, "a batch that is cut short");
                let note = batch.note().map(|note| (note.name.to_vec(), note.value.to_vec()));
                Self::Batch(commands, note)
            }
        }
    }

    /// Lends the command as a caller would submit it.
    pub(super) fn with_payload<R>(&self, run: impl FnOnce(Payload<'_>) -> R) -> R {
        match self {
            Self::Noop => run(Payload::Noop),
            Self::Membership(bytes) => run(Payload::Membership(bytes)),
            Self::Opaque(bytes) => run(Payload::Opaque(bytes)),
            Self::Batch(ops, note) => {
                let commands: Vec<_> = ops.iter().map(Self::command).collect();
                let note = note.as_ref().map(|(name, value)| Note { name, value });
                run(Payload::Command(Command::Batch { commands: &commands, note }))
            }
            one => run(Payload::Command(one.command())),
        }
    }

    fn command(&self) -> Command<'_> {
        match self {
            Self::Put(key, value) => Command::Put { key, value },
            Self::Delete(key) => Command::Delete { key },
            Self::Increment(key, by) => Command::Increment { key, by: *by },
            Self::Swap(key, expected, new) => {
                Command::CompareAndSet { key, expected: expected.as_deref(), new: new.as_deref() }
            }
            _ => panic!("only commands of one key stand in a batch"),
        }
    }

    /// Applies the command; returns false if it is rejected, and nothing was changed.
    pub(super) fn apply(&self, state: &mut State) -> bool {
        match self {
            Self::Put(key, value) => {
                state.insert(key.clone(), value.clone());
            }
            Self::Delete(key) => {
                state.remove(key);
            }
            Self::Increment(key, by) => {
                let number = state.get(key).map_or(Some(0), |value| decimal(value));
                let Some(sum) = number.and_then(|number| number.checked_add(*by)) else {
                    return false;
                };
                state.insert(key.clone(), sum.to_string().into_bytes());
            }
            Self::Swap(key, expected, new) => {
                if state.get(key) != expected.as_ref() {
                    return false;
                }
                match new {
                    Some(new) => state.insert(key.clone(), new.clone()),
                    None => state.remove(key),
                };
            }
            Self::Batch(ops, _) => {
                let mut after = state.clone();
                if !ops.iter().all(|op| op.apply(&mut after)) {
                    return false;
                }
                *state = after;
            }
            Self::Noop | Self::Membership(_) => {}
            Self::Opaque(_) => return false,
        }
        true
    }
}

/// Parses a number with the standard library, and refuses forms that do not print as they were,
/// because Redis does.
fn decimal(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The state after these commands in order.
pub(super) fn state_after<'a>(ops: impl IntoIterator<Item = &'a Op>) -> State {
    let mut state = State::new();
    for op in ops {
        op.apply(&mut state);
    }
    state
}

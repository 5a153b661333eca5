//! Gathering of commands into one entry, and their effect on the keys they touch.
//!
//! This module decides what a command does, over the state and the commands gathered before it. So
//! an entry never holds a command that the engine would reject; a rejected batch would be rejected
//! whole.

use std::collections::HashMap;

use sprag::Command;

use super::command::{Action, OVERHEAD_BYTES, Request, VALUE_BYTES_MAX};
use super::stop::{Stop, What};
use super::stream::decimal;

/// Number of commands that makes a group an entry. With 512, a sync of 1 ms is 2 us a command.
const COMMANDS_MAX: usize = 512;
/// Number of bytes that makes a group an entry.
const BYTES_MAX: usize = 256 << 10;
/// The most bytes of one entry: the engine's limit, less the note and headers.
pub(super) const ENTRY_BYTES_MAX: usize = (32 << 20) - (8 << 10);

/// The state below a group.
pub trait State {
    /// Error of a read.
    type Error;

    /// The value of a key; `None` for an absent key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Whether the key has a value.
    fn contains(&self, key: &[u8]) -> Result<bool, Self::Error>;

    /// The keys of this moment, for a walk while the state changes.
    fn keys(&self) -> Result<Box<dyn Keys<Self::Error>>, Self::Error>;
}

/// Callback for each key.
pub type Visit<'a, E> = dyn FnMut(&[u8]) -> Result<(), Refused<E>> + 'a;

/// The keys of a state at one moment. It takes no more memory than a view of the state.
pub trait Keys<E> {
    /// Calls `each` for every key, until a call fails.
    fn visit(&self, each: &mut Visit<'_, E>) -> Result<(), Refused<E>>;
}

/// Reason why a unit was not taken.
#[derive(Debug)]
pub enum Refused<E> {
    /// The input is wrong.
    Input(Stop),
    /// The state could not be read.
    State(E),
}

impl<E> From<Stop> for Refused<E> {
    fn from(stop: Stop) -> Self {
        Self::Input(stop)
    }
}

/// A change of one key.
#[derive(Debug)]
enum Change {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
    Increment { key: Vec<u8>, by: i64 },
}

/// State of a key after the group's changes.
#[derive(Clone, Copy, Debug)]
enum Now {
    /// This change puts the value.
    Put(usize),
    Number(i64),
    Absent,
}

/// Changes that become one entry.
#[derive(Debug, Default)]
pub struct Group {
    changes: Vec<Change>,
    overlay: HashMap<Vec<u8>, Now>,
    bytes: usize,
    counts: bool,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the group has reached its limits.
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= COMMANDS_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether the unit should start a new group.
    pub(super) fn is_crowded_by(&self, unit: &[(u64, Request)]) -> bool {
        let bytes: usize = unit.iter().map(|(_, request)| request.bytes()).sum();
        // A MULTI may append to a long value or delete any number of keys, and all of it has to fit
        // into one entry.
        let grows =
            |request: &Request| matches!(request.action, Action::Append(..) | Action::DeleteAll);
        let grows = unit.len() > 1 && unit.iter().any(|(_, request)| grows(request));
        !self.is_empty() && (grows || self.bytes + bytes > BYTES_MAX)
    }

    /// Whether the engine could reject an entry of this group, as far as the engine knows.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// The changes as commands of one batch, in order.
    #[must_use]
    pub fn commands(&self) -> Vec<Command<'_>> {
        fn command(change: &Change) -> Command<'_> {
            match change {
                Change::Put { key, value } => Command::Put { key, value },
                Change::Delete { key } => Command::Delete { key },
                Change::Increment { key, by } => Command::Increment { key, by: *by },
            }
        }
        self.changes.iter().map(command).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self { changes: std::mem::take(&mut self.changes), ..Self::default() };
        self.changes.clear();
    }

    /// Takes requests (with their offsets) that belong together: all of them or, with an error,
    /// none. After an error the group may be submitted, but takes no more requests.
    pub(super) fn add<S: State>(
        &mut self,
        unit: Vec<(u64, Request)>,
        state: &S,
    ) -> Result<(), Refused<S::Error>> {
        let (first, start) = (unit.first().map_or(0, |(offset, _)| *offset), self.changes.len());
        // The unit may still be refused, so it must not extend a value of an earlier unit.
        let extends_from = if unit.len() > 1 { start } else { 0 };
        let mut taken = Ok(());
        for (offset, request) in unit {
            taken = self.request(offset, request, extends_from, state);
            if taken.is_ok() && self.bytes > ENTRY_BYTES_MAX {
                let too_large = What::TooLarge { what: "an atomic unit", limit: ENTRY_BYTES_MAX };
                taken = Err(too_large.at(first).into());
            }
            if taken.is_err() {
                self.changes.truncate(start);
                break;
            }
        }
        taken
    }

    fn request<S: State>(
        &mut self,
        offset: u64,
        request: Request,
        extends_from: usize,
        state: &S,
    ) -> Result<(), Refused<S::Error>> {
        let Request { name, action } = request;
        match action {
            Action::Set(pairs) => pairs.into_iter().for_each(|(key, value)| self.put(key, value)),
            Action::SetIf { pairs, present } => {
                for (key, _) in &pairs {
                    if self.contains(key, state)? != present {
                        return Ok(());
                    }
                }
                pairs.into_iter().for_each(|(key, value)| self.put(key, value));
            }
            Action::DeleteAll => self.delete_all(offset, state)?,
            Action::Delete(keys) => keys.into_iter().for_each(|key| self.delete(key)),
            Action::Increment(key, by) => {
                let found = self.value(&key, state)?;
                let number = found.map_or(Some(0), |found| decimal(&found));
                let rejected = |reason| What::Rejected { name: name.clone(), reason }.at(offset);
                let number = number
                    .ok_or_else(|| rejected("the value is not a decimal 64-bit number"))?
                    .checked_add(by)
                    .ok_or_else(|| rejected("the result does not fit a 64-bit number"))?;
                self.increment(key, by, number);
            }
            Action::Append(key, tail) => {
                if let Some(&Now::Put(at)) = self.overlay.get(&key)
                    && at >= extends_from
                    && let Some(Change::Put { value, .. }) = self.changes.get_mut(at)
                {
                    check_length(value.len(), tail.len(), offset)?;
                    value.extend_from_slice(&tail);
                    self.bytes += tail.len();
                } else {
                    let mut value = self.value(&key, state)?.unwrap_or_default();
                    check_length(value.len(), tail.len(), offset)?;
                    value.extend_from_slice(&tail);
                    self.put(key, value);
                }
            }
        }
        Ok(())
    }

    /// Deletes every key that exists after the group, in the same entry.
    fn delete_all<S: State>(&mut self, offset: u64, state: &S) -> Result<(), Refused<S::Error>> {
        let added = self.overlay.iter().filter(|(_, now)| !matches!(now, Now::Absent));
        let added: Vec<_> = added.map(|(key, _)| key.clone()).collect();
        added.into_iter().for_each(|key| self.delete(key));
        state.keys().map_err(Refused::State)?.visit(&mut |key| {
            if !self.overlay.contains_key(key) {
                self.delete(key.to_vec());
            }
            if self.bytes > ENTRY_BYTES_MAX {
                let what = "deleting every key in a MULTI";
                return Err(What::TooLarge { what, limit: ENTRY_BYTES_MAX }.at(offset).into());
            }
            Ok(())
        })
    }

    /// Adds a delete that belongs to no unit. Returns whether the group is then long enough to be
    /// an entry.
    pub(super) fn add_delete(&mut self, key: &[u8]) -> bool {
        self.delete(key.to_vec());
        self.bytes >= BYTES_MAX
    }

    /// Whether a key has a value after the group.
    fn contains<S: State>(&self, key: &[u8], state: &S) -> Result<bool, Refused<S::Error>> {
        match self.overlay.get(key) {
            Some(now) => Ok(!matches!(now, Now::Absent)),
            None => state.contains(key).map_err(Refused::State),
        }
    }

    /// The value of a key as it is after the group.
    fn value<S: State>(&self, key: &[u8], state: &S) -> Result<Option<Vec<u8>>, Refused<S::Error>> {
        match self.overlay.get(key) {
            Some(Now::Put(at)) => Ok(match self.changes.get(*at) {
                Some(Change::Put { value, .. }) => Some(value.clone()),
                _ => None,
            }),
            Some(Now::Number(number)) => Ok(Some(number.to_string().into_bytes())),
            Some(Now::Absent) => Ok(None),
            None => state.value(key).map_err(Refused::State),
        }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += OVERHEAD_BYTES + key.len() + value.len();
        self.overlay.insert(key.clone(), Now::Put(self.changes.len()));
        self.changes.push(Change::Put { key, value });
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.bytes += OVERHEAD_BYTES + key.len();
        self.overlay.insert(key.clone(), Now::Absent);
        self.changes.push(Change::Delete { key });
    }

    fn increment(&mut self, key: Vec<u8>, by: i64, number: i64) {
        self.bytes += OVERHEAD_BYTES + key.len();
        self.counts = true;
        self.overlay.insert(key.clone(), Now::Number(number));
        self.changes.push(Change::Increment { key, by });
    }
}

fn check_length(found: usize, more: usize, offset: u64) -> Result<(), Stop> {
    // A sum that saturates is over the limit.
    let bytes = found.saturating_add(more);
    if bytes > VALUE_BYTES_MAX {
        return Err(What::ValueTooLong { bytes, limit: VALUE_BYTES_MAX }.at(offset));
    }
    Ok(())
}

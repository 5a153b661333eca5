//! A target that is a map, and checks every entry as it arrives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "an oracle: what does not hold is a panic")]

use std::collections::BTreeMap;
use std::error::Error;

use sprag::Command;

use super::command::VALUE_BYTES_MAX;
use super::engine::Target;
use super::group::{self, ENTRY_BYTES_MAX, Group, Refused, State};
use super::stream::Position;
use crate::error::Outcome;

/// Keys and their values.
pub(crate) type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys and values, and the position reached in the input.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// The keys and their values.
    pub keys: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The position that the last entry noted.
    pub note: Option<Position>,
    /// Offsets of the entries that were taken.
    pub taken: Vec<u64>,
    /// Number of entries that are taken before a failure; `None` for no failure.
    pub fails_after: Option<usize>,
}

impl State for Map {
    type Error = Box<dyn Error>;

    fn value(&self, key: &[u8]) -> Outcome<Option<Vec<u8>>> {
        Ok(self.keys.get(key).cloned())
    }

    fn contains(&self, key: &[u8]) -> Outcome<bool> {
        Ok(self.keys.contains_key(key))
    }

    fn keys(&self) -> Outcome<Box<dyn group::Keys<Self::Error>>> {
        Ok(Box::new(self.keys.keys().cloned().collect::<Vec<_>>()))
    }
}

impl<E> group::Keys<E> for Vec<Vec<u8>> {
    fn visit(&self, each: &mut group::Visit<'_, E>) -> Result<(), Refused<E>> {
        self.iter().try_for_each(|key| each(key))
    }
}

impl Target for Map {
    fn reached(&self) -> Outcome<Option<Position>> {
        Ok(self.note)
    }

    fn submit(&mut self, group: &Group, reached: Position) -> Outcome {
        match &mut self.fails_after {
            Some(0) => return Err("the target fails".into()),
            Some(left) => *left -= 1,
            None => {}
        }
        let (mut bytes, mut counts) = (0, false);
        for command in group.commands() {
            let (key, value_bytes) = match command {
                Command::Put { key, value } => {
                    self.keys.insert(key.to_vec(), value.to_vec());
                    (key, value.len())
                }
                Command::Delete { key } => {
                    self.keys.remove(key);
                    (key, 0)
                }
                Command::Increment { key, by } => {
                    counts = true;
                    increment(&mut self.keys, key, by);
                    (key, 8)
                }
                other => panic!("no command of the stream becomes {other:?}"),
            };
            assert!((1..=64 << 10).contains(&key.len()) && value_bytes <= VALUE_BYTES_MAX);
            bytes += key.len() + value_bytes;
        }
        assert!(bytes <= ENTRY_BYTES_MAX, "an entry of {bytes} bytes");
        // After a refused increment, the import may wait for an entry without need.
        assert!(group.counts() || !counts, "an entry that counts is waited for");
        // An entry that is part of deleting every key notes the offset before the command, which is
        // then done again as a whole.
        let before = self.note.map_or(0, |before| before.offset);
        let deletes = group.commands().iter().all(|one| matches!(one, Command::Delete { .. }));
        assert!(before < reached.offset || before == reached.offset && deletes, "notes rise");
        self.note = Some(reached);
        self.taken.push(reached.offset);
        Ok(())
    }

    fn flush(&self) -> Outcome {
        Ok(())
    }
}

/// Increments as the engine does. Panics where the engine would reject the increment, and with it
/// the whole entry.
fn increment(keys: &mut Keys, key: &[u8], by: i64) {
    let found =
        keys.get(key).map_or("0".to_owned(), |text| String::from_utf8(text.clone()).unwrap());
    let number: i64 = found.parse().unwrap();
    assert_eq!(found, number.to_string(), "the one form of a number");
    keys.insert(key.to_vec(), number.checked_add(by).unwrap().to_string().into_bytes());
}

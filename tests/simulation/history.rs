//! The serial model: the log as it was submitted, and the state after each of its prefixes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use sprag::{Command, Entry, LogId, Payload};

use crate::simulation::random::Random;

type Bytes = Rc<[u8]>;

/// The state of a key-value machine.
pub(crate) type State = BTreeMap<Bytes, Bytes>;

/// A command of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
    Increment(Bytes, i64),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    One(Op),
    Batch(Vec<Op>),
    Noop,
}

impl Op {
    fn command(&self) -> Command<'_> {
        match self {
            Self::Put(key, value) => Command::Put { key, value },
            Self::Delete(key) => Command::Delete { key },
            Self::Increment(key, by) => Command::Increment { key, by: *by },
        }
    }

    /// Applies the command; returns false if it is rejected.
    fn apply(&self, state: &mut State) -> bool {
        match self {
            Self::Put(key, value) => {
                state.insert(Rc::clone(key), Rc::clone(value));
            }
            Self::Delete(key) => {
                state.remove(key);
            }
            Self::Increment(key, by) => {
                let Some(number) = number(state.get(key)) else { return false };
                let Some(sum) = number.checked_add(*by) else { return false };
                state.insert(Rc::clone(key), sum.to_string().into_bytes().into());
            }
        }
        true
    }
}

fn number(value: Option<&Bytes>) -> Option<i64> {
    let Some(value) = value else { return Some(0) };
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

impl Item {
    /// Draws one of a few keys; counters mostly have separate keys, so that they count.
    pub(crate) fn random(random: &mut Random, value_bytes_max: usize) -> Self {
        match random.below(12) {
            0 => Self::Noop,
            1 | 2 => {
                let count = 1 + random.below(4);
                Self::Batch((0..count).map(|_| Self::op(random, value_bytes_max)).collect())
            }
            _ => Self::One(Self::op(random, value_bytes_max)),
        }
    }

    fn op(random: &mut Random, value_bytes_max: usize) -> Op {
        let key = |prefix: u8, number: usize| -> Bytes { vec![prefix, b'0' + number as u8].into() };
        match random.below(10) {
            0 => Op::Delete(key(b'k', random.below(5))),
            1..=3 => Op::Increment(key(b'n', random.below(3)), random.below(2000) as i64 - 900),
            4 if random.one_in(4) => Op::Increment(key(b'k', random.below(5)), 1),
            5 if random.one_in(4) => Op::Delete(key(b'n', random.below(3))),
            _ => Op::Put(key(b'k', random.below(5)), Self::value(random, value_bytes_max)),
        }
    }

    fn value(random: &mut Random, bytes_max: usize) -> Bytes {
        let mut value = vec![0; 1 + random.below(bytes_max)];
        for chunk in value.chunks_mut(8) {
            let bytes = random.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        value.into()
    }

    fn commands(&self) -> Vec<Command<'_>> {
        match self {
            Self::One(op) => vec![op.command()],
            Self::Batch(ops) => ops.iter().map(Op::command).collect(),
            Self::Noop => Vec::new(),
        }
    }

    pub(crate) fn apply(&self, state: &mut State) {
        match self {
            Self::One(op) => {
                op.apply(state);
            }
            Self::Batch(ops) => {
                let mut after = state.clone();
                if ops.iter().all(|op| op.apply(&mut after)) {
                    *state = after;
                }
            }
            Self::Noop => {}
        }
    }
}

/// Lends `items` as entries from `first` on, with the terms given.
pub(crate) fn with_entries<R>(
    first: u64,
    items: &[(u64, Item)],
    run: impl FnOnce(&[Entry<'_>]) -> R,
) -> R {
    let commands: Vec<Vec<Command<'_>>> = items.iter().map(|(_, item)| item.commands()).collect();
    let payload = |item: &Item, at: usize| match (item, commands[at].as_slice()) {
        (Item::Batch(_), commands) => Payload::Command(Command::Batch { commands, note: None }),
        (_, [command]) => Payload::Command(*command),
        _ => Payload::Noop,
    };
    let entries: Vec<Entry<'_>> = items
        .iter()
        .enumerate()
        .map(|(at, (term, item))| {
            Entry::new(LogId::new(first + at as u64, *term), payload(item, at))
        })
        .collect();
    run(&entries)
}

/// The submitted entries in order, and the state after each prefix.
#[derive(Debug)]
pub(crate) struct History {
    /// Index of the first entry: 0 or 1.
    pub(crate) first: u64,
    items: Vec<(u64, Item)>,
    states: Vec<State>,
    /// Entries that the last crash took back, to be sent again.
    lost: Vec<(u64, Item)>,
}

impl History {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, items: Vec::new(), states: vec![State::new()], lost: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Number of entries up to `index`.
    pub(crate) fn count_to(&self, index: Option<u64>) -> usize {
        index.map_or(0, |index| (index + 1 - self.first) as usize)
    }

    /// A range of the entries, with their terms; counted from 0.
    pub(crate) fn items(&self, range: Range<usize>) -> &[(u64, Item)] {
        &self.items[range]
    }

    /// The state after the first `count` entries.
    pub(crate) fn state(&self, count: usize) -> &State {
        &self.states[count]
    }

    /// Up to `count` entries that may come next. Lost entries come first, with the same bytes and
    /// log ids. From where `differ` says so, other entries replace them.
    pub(crate) fn proposal(
        &mut self,
        random: &mut Random,
        count: usize,
        value_bytes_max: usize,
        differ: bool,
    ) -> Vec<(u64, Item)> {
        if differ {
            self.lost.clear();
        }
        if !self.lost.is_empty() {
            return self.lost[..count.min(self.lost.len())].to_vec();
        }
        let mut term = self.items.last().map_or(1, |(term, _)| *term);
        let mut proposal = Vec::with_capacity(count);
        for _ in 0..count {
            term += u64::from(random.one_in(20));
            proposal.push((term, Item::random(random, value_bytes_max)));
        }
        proposal
    }

    /// Adds entries that were taken.
    pub(crate) fn extend(&mut self, taken: Vec<(u64, Item)>) {
        let again = taken.len().min(self.lost.len());
        self.lost.drain(..again);
        for (term, item) in taken {
            let mut state = self.states.last().unwrap().clone();
            item.apply(&mut state);
            self.states.push(state);
            self.items.push((term, item));
        }
    }

    /// Removes everything after the first `count`, which a crash took back.
    pub(crate) fn cut(&mut self, count: usize) {
        let lost = self.items.split_off(count);
        if !lost.is_empty() {
            self.lost = lost;
        }
        self.states.truncate(count + 1);
    }
}

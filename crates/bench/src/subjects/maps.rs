//! Maps in memory, each with every key in it; and sprag's memory machine.

use std::collections::BTreeMap;

use anyhow::Result;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sprag::{ApplyConfig, ApplyManager, MemoryConfig, MemoryStateMachine};

use super::{submit_all, sum};
use crate::groups::VALUE_BYTES;
use crate::workload::{Key, pieces};

pub(crate) type Table = HashMap<Key, Box<[u8]>, RandomState>;
pub(crate) type Dash = DashMap<Key, Box<[u8]>, RandomState>;
pub(crate) type Papaya = papaya::HashMap<Key, Box<[u8]>, RandomState>;
pub(crate) type Scc = scc::HashMap<Key, Box<[u8]>, RandomState>;
pub(crate) type Tree = BTreeMap<Key, Box<[u8]>>;

/// A map as a user would write to it and read from it.
pub(crate) trait Map {
    fn with_capacity(keys: usize) -> Self;

    fn put(&mut self, key: &Key, value: &[u8]);

    /// Reads a value and adds up its bytes.
    fn sum(&self, key: &Key) -> Option<u64>;
}

impl Map for Table {
    fn with_capacity(keys: usize) -> Self {
        Self::with_capacity_and_hasher(keys, RandomState::default())
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        overwrite(self, key, value);
    }

    fn sum(&self, key: &Key) -> Option<u64> {
        self.get(key).map(|value| sum(value))
    }
}

impl Map for Dash {
    fn with_capacity(keys: usize) -> Self {
        Self::with_capacity_and_hasher(keys, RandomState::default())
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        self.insert(*key, Box::from(value));
    }

    fn sum(&self, key: &Key) -> Option<u64> {
        self.get(key).map(|value| sum(&value))
    }
}

impl Map for Papaya {
    fn with_capacity(keys: usize) -> Self {
        Self::with_capacity_and_hasher(keys, RandomState::default())
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        self.pin().insert(*key, Box::from(value));
    }

    fn sum(&self, key: &Key) -> Option<u64> {
        self.pin().get(key).map(|value| sum(value))
    }
}

impl Map for Scc {
    fn with_capacity(keys: usize) -> Self {
        Self::with_capacity_and_hasher(keys, RandomState::default())
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        self.upsert_sync(*key, Box::from(value));
    }

    fn sum(&self, key: &Key) -> Option<u64> {
        self.read_sync(key, |_, value| sum(value))
    }
}

impl Map for Tree {
    fn with_capacity(_: usize) -> Self {
        Self::new()
    }

    fn put(&mut self, key: &Key, value: &[u8]) {
        self.insert(*key, Box::from(value));
    }

    fn sum(&self, key: &Key) -> Option<u64> {
        self.get(key).map(|value| sum(value))
    }
}

/// A map with every key in it, made for so many keys.
pub(crate) fn filled<M: Map>(keys: usize) -> M {
    let mut map = M::with_capacity(keys);
    for piece in pieces(keys, VALUE_BYTES) {
        piece.pairs().for_each(|(key, value)| map.put(key, value));
    }
    map
}

/// Overwrites a value in its place if the length is the same.
#[inline]
pub(crate) fn overwrite(table: &mut Table, key: &Key, value: &[u8]) {
    match table.get_mut(key) {
        Some(place) if place.len() == value.len() => place.copy_from_slice(value),
        _ => drop(table.insert(*key, Box::from(value))),
    }
}

/// Does the same in a DashMap.
#[inline]
pub(crate) fn overwrite_dash(map: &Dash, key: &Key, value: &[u8]) {
    match map.get_mut(key) {
        Some(mut place) if place.len() == value.len() => place.copy_from_slice(value),
        found => {
            drop(found);
            map.insert(*key, Box::from(value));
        }
    }
}

/// A machine in memory that was made for so many keys.
pub(crate) fn machine_of(keys: usize) -> Result<MemoryStateMachine> {
    Ok(MemoryStateMachine::new(MemoryConfig::default().expected_keys(keys))?)
}

/// An engine in memory with every key in it, made for so many keys.
pub(crate) fn engine(keys: usize, config: ApplyConfig) -> Result<ApplyManager<MemoryStateMachine>> {
    let manager = ApplyManager::new(machine_of(keys)?, config)?;
    let mut next = 1;
    for piece in pieces(keys, VALUE_BYTES) {
        submit_all(&manager, &piece.entries(next))?;
        next += piece.len() as u64;
    }
    Ok(manager)
}

//! Random logs of key-value commands, for the suite of storages and for subjects that are key-value
//! machines.

use super::log::Log;
use super::reference::submit;
use super::{Check, OwnedPayload, Subject};
use crate::contract::machine::StateMachine;
use crate::entry::{Command, Note, Payload};
use crate::testing::{Random, Stepped};

/// Draws a payload for a key-value machine: colliding commands of every kind, rejected ones, notes
/// (named `n`) and memberships.
pub fn key_value_payload(random: &mut Random) -> OwnedPayload {
    const KEYS: [&[u8]; 6] = [b"a", b"b", b"counter", &[0xff; 40], &[0], b"c"];
    const VALUES: [&[u8]; 6] = [b"", b"1", b"-7", b"9223372036854775807", &[7; 200], b"x"];
    let pick = |random: &mut Random, from: &[&'static [u8]]| {
        from.get(random.below(from.len())).copied().unwrap_or_default()
    };
    let key = pick(random, &KEYS);
    let value = pick(random, &VALUES);
    let other = pick(random, &VALUES);
    let put = Command::Put { key, value };
    let increment = Command::Increment { key: b"counter", by: 3 };
    let swap = Command::CompareAndSet {
        key,
        expected: Some(other).filter(|_| random.coin()),
        new: Some(value).filter(|_| random.coin()),
    };
    let note = Some(Note { name: b"n", value }).filter(|_| random.coin());
    match random.below(16) {
        0..5 => Payload::Command(put).into(),
        5 | 6 => Payload::Command(Command::Delete { key }).into(),
        7..10 => Payload::Command(Command::Increment { key, by: 1 << random.below(62) }).into(),
        10 | 11 => Payload::Command(swap).into(),
        12 | 13 => {
            Payload::Command(Command::Batch { commands: &[put, swap, increment], note }).into()
        }
        14 => Payload::Membership(value).into(),
        _ => Payload::Opaque(value).into(),
    }
}

/// A random log.
pub(crate) struct RandomLog(Log);

impl RandomLog {
    pub(crate) fn draw<S: Subject>(subject: &S, seed: u64, entries: usize) -> Self {
        Self(Log::draw(subject, seed, entries))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The indexes of entries number `from` up to and without `to`, from 0.
    pub(crate) fn indexes(&self, from: usize, to: usize) -> impl Iterator<Item = u64> {
        self.0.part(from, to).iter().map(|logged| logged.log_id.index)
    }

    /// Submits these entries to an engine.
    pub(crate) fn submit<M: StateMachine>(
        &self,
        engine: &Stepped<M>,
        from: usize,
        to: usize,
    ) -> Result<(), String> {
        submit(Check::Determinism, engine, &self.0, from, to).map_err(|failure| failure.what)
    }
}

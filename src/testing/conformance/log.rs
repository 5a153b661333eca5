//! The log of a suite: payloads that own their bytes, and the entries they make.

use super::Subject;
use crate::codec::{self, CommandRef, Encoded, Limits, PayloadRef};
use crate::entry::{Command, Entry, LeaderTag, LogId, Payload};
use crate::error::EntryError;
use crate::testing::Random;

/// A payload that owns its bytes, as a [`Subject`] draws it. It is made from a [`Payload`].
#[derive(Clone, Debug)]
pub struct OwnedPayload(Result<Vec<u8>, EntryError>);

impl From<Payload<'_>> for OwnedPayload {
    /// Copies the payload. The suite reports a payload that no entry can have when it submits it.
    fn from(payload: Payload<'_>) -> Self {
        let entry = Entry::new(LogId::default(), payload);
        Self(codec::encoded_len(&entry, &Limits::new()).map(|len| {
            let mut bytes = vec![0; len];
            codec::encode(&entry, &mut bytes);
            bytes
        }))
    }
}

impl OwnedPayload {
    /// The payload as it is encoded in a frame.
    pub(super) fn encoded(&self) -> Result<&[u8], EntryError> {
        self.0.as_deref().map_err(|error| *error)
    }

    fn decoded(&self) -> Option<PayloadRef<'_>> {
        codec::decode(Encoded::elsewhere(self.0.as_deref().ok()?)).ok().map(|(payload, _)| payload)
    }

    /// The commands of a batch, for [`OwnedPayload::borrow`] to point to.
    fn commands(&self) -> Vec<Command<'_>> {
        match self.decoded() {
            Some(PayloadRef::Command(CommandRef::Batch(batch))) => {
                batch.commands().filter_map(|command| borrow(&command)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn borrow<'a>(&'a self, commands: &'a [Command<'a>]) -> Option<Payload<'a>> {
        Some(match self.decoded()? {
            PayloadRef::Noop => Payload::Noop,
            PayloadRef::Membership(bytes) => Payload::Membership(bytes),
            PayloadRef::Opaque(bytes) => Payload::Opaque(bytes),
            PayloadRef::Command(CommandRef::Batch(batch)) => {
                Payload::Command(Command::Batch { commands, note: batch.note() })
            }
            PayloadRef::Command(command) => Payload::Command(borrow(&command)?),
        })
    }
}

/// The command as a caller passes it; `None` for a batch.
fn borrow<'a>(command: &CommandRef<'a>) -> Option<Command<'a>> {
    Some(match *command {
        CommandRef::Put { key, value } => Command::Put { key, value: value.bytes },
        CommandRef::Delete { key } => Command::Delete { key },
        CommandRef::Increment { key, by } => Command::Increment { key, by },
        CommandRef::CompareAndSet { key, expected, new } => {
            Command::CompareAndSet { key, expected, new: new.map(|value| value.bytes) }
        }
        CommandRef::Batch(_) => return None,
    })
}

/// One entry of a log.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) log_id: LogId,
    pub(super) payload: OwnedPayload,
}

/// Entries 1 to `len()`, with rising terms and changing leaders.
#[derive(Clone, Debug)]
pub(super) struct Log(Vec<Logged>);

/// Number of entries of one term.
const TERM_ENTRIES: u64 = 23;
/// Length of a long membership: segments are sized for eight of them, which fill the shortest
/// segment.
const MEMBERSHIP_BYTES: usize = 7 << 10;

impl Log {
    pub(super) fn draw<S: Subject>(subject: &S, seed: u64, entries: usize) -> Self {
        let mut random = Random::new(seed);
        let entry = |index: u64| {
            let term = 1 + index / TERM_ENTRIES;
            // This is a new leader's first entry.
            let payload = match index % TERM_ENTRIES {
                0 => Payload::Noop.into(),
                _ => subject.payload(&mut random),
            };
            let leader = LeaderTag::new(&term.to_le_bytes()[..usize::from(term.is_multiple_of(2))]);
            Logged { log_id: LogId { index, term, leader: leader.unwrap_or_default() }, payload }
        };
        Self((1..=entries as u64).map(entry).collect())
    }

    /// Draws a log with long memberships in it: every machine takes them, and they fill segments.
    pub(super) fn draw_long<S: Subject>(subject: &S, seed: u64, entries: usize) -> Self {
        let mut log = Self::draw(subject, seed, entries);
        for logged in log.0.iter_mut().skip(1).step_by(4) {
            let bytes = vec![logged.log_id.index.to_le_bytes()[0]; MEMBERSHIP_BYTES];
            logged.payload = Payload::Membership(&bytes).into();
        }
        log
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of the largest entry.
    pub(super) fn entry_bytes_max(&self) -> usize {
        let bytes = self.0.iter().filter_map(|logged| logged.payload.encoded().ok());
        bytes.map(<[u8]>::len).max().unwrap_or(0)
    }

    pub(super) fn all(&self) -> &[Logged] {
        &self.0
    }

    /// Entries number `from` (from 0) up to and without `to`, or fewer if the log is shorter.
    pub(super) fn part(&self, from: usize, to: usize) -> &[Logged] {
        let to = to.min(self.0.len());
        self.0.get(from.min(to)..to).unwrap_or_default()
    }

    /// Log id of the last of the first `count` entries.
    pub(super) fn last_of(&self, count: usize) -> Option<LogId> {
        self.0.get(count.checked_sub(1)?).map(|logged| logged.log_id)
    }
}

/// Runs `take` over the entries of `logged`. The error belongs to the first payload that cannot be
/// an entry, with its index.
pub(super) fn with_entries<R>(
    logged: &[Logged],
    take: impl FnOnce(&[Entry<'_>]) -> R,
) -> Result<R, (u64, String)> {
    let commands: Vec<_> = logged.iter().map(|logged| logged.payload.commands()).collect();
    let mut entries = Vec::with_capacity(logged.len());
    for (Logged { log_id, payload }, commands) in logged.iter().zip(&commands) {
        payload.encoded().map_err(|error| (log_id.index, format!("not an entry: {error}")))?;
        let payload = payload.borrow(commands);
        let payload = payload.ok_or((log_id.index, "not an entry".to_owned()))?;
        entries.push(Entry::new(*log_id, payload));
    }
    Ok(take(&entries))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::entry::Note;

    #[test]
    fn a_payload_of_any_kind_is_owned_and_lent_again_as_it_was() {
        let commands = [
            Command::Put { key: b"k", value: b"" },
            Command::CompareAndSet { key: b"k", expected: Some(b"e"), new: None },
            Command::CompareAndSet { key: b"k", expected: None, new: Some(b"n") },
        ];
        let note = Some(Note { name: b"n", value: b"v" });
        let payloads = [
            Payload::Noop,
            Payload::Membership(b"m"),
            Payload::Opaque(b""),
            Payload::Command(Command::Delete { key: b"k" }),
            Payload::Command(Command::Increment { key: b"k", by: -1 }),
            Payload::Command(Command::Batch { commands: &commands, note }),
            Payload::Command(Command::Batch { commands: &[], note: None }),
        ];
        for payload in payloads {
            let owned = OwnedPayload::from(payload);
            let lent = [Logged { log_id: LogId::new(3, 1), payload: owned.clone() }];
            let again =
                with_entries(&lent, |entries| OwnedPayload::from(entries[0].payload)).unwrap();
            assert_eq!(again.encoded().unwrap(), owned.encoded().unwrap(), "{payload:?}");
        }
    }

    #[test]
    fn a_payload_that_no_entry_can_have_is_named_by_its_index() {
        let payload = Payload::Command(Command::Delete { key: b"" }).into();
        let log = [Logged { log_id: LogId::new(9, 1), payload }];
        let (index, what) = with_entries(&log, |entries| entries.len()).unwrap_err();
        assert_eq!((index, what.contains("the key is empty")), (9, true), "{what}");
    }
}

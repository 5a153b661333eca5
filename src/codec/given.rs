//! An entry that is not encoded, seen as a decoded one.

use super::{CommandRef, PayloadRef, Place, ValueRef};
use crate::entry::{Command, Payload};

impl<'a> PayloadRef<'a> {
    /// The payload as decoding its encoding gives it, but for the places of values. Returns `None`
    /// for a batch, which is read in its encoded form.
    #[inline]
    pub(crate) fn of_given(payload: &Payload<'a>) -> Option<Self> {
        Self::of_given_at(payload, |_| Place::NOWHERE)
    }

    /// The payload as decoding its encoding gives it. `place_of_last` is the place of the last
    /// bytes, so many, of its encoded form: a value ends its entry.
    #[inline]
    pub(crate) fn of_given_at(
        payload: &Payload<'a>,
        place_of_last: impl Fn(usize) -> Place,
    ) -> Option<Self> {
        let given = |bytes: &'a [u8]| ValueRef { bytes, place: place_of_last(bytes.len()) };
        Some(match *payload {
            Payload::Noop => Self::Noop,
            Payload::Membership(bytes) => Self::Membership(bytes),
            Payload::Opaque(bytes) => Self::Opaque(bytes),
            Payload::Command(command) => Self::Command(match command {
                Command::Put { key, value } => CommandRef::Put { key, value: given(value) },
                Command::Delete { key } => CommandRef::Delete { key },
                Command::Increment { key, by } => CommandRef::Increment { key, by },
                Command::CompareAndSet { key, expected, new } => {
                    CommandRef::CompareAndSet { key, expected, new: new.map(given) }
                }
                Command::Batch { .. } => return None,
            }),
        })
    }
}

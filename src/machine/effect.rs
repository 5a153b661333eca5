//! The effect of a command on its key, given the current value: the semantics of every command,
//! once, as a pure function.
//!
//! A batch runs over an [`Overlay`], so that the store has none of it before all of it is known to
//! be accepted.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use super::cell::Cell;
use super::number::{Decimal, parse};
use super::store::Change;
use crate::codec::{CommandRef, ValueRef};
use crate::entry::{BatchRejection, Reply};
use crate::error::Fatal;

/// The new state of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect<'a> {
    /// The key stays as it is.
    Keep,
    /// The key gets this value.
    Set(ValueRef<'a>),
    /// The key gets the decimal form of this number.
    SetNumber(i64),
    /// The key is removed.
    Remove,
}

/// The current value of a command's key.
pub(crate) trait Found {
    fn equals(&self, bytes: &[u8]) -> Result<bool, Fatal>;
    fn number(&self) -> Result<Option<i64>, Fatal>;
}

/// Effect and reply of a command, or the reason of its rejection.
pub(crate) type Outcome<'a> = Result<(Effect<'a>, Reply), BatchRejection>;

/// Runs one command, which is no batch, against the current value of its key.
///
/// It is always inlined: a caller that knows the kind of the command executes that arm only.
#[inline(always)]
pub(crate) fn evaluate<'a>(
    command: &CommandRef<'a>,
    found: Option<&impl Found>,
) -> Result<Outcome<'a>, Fatal> {
    Ok(match *command {
        CommandRef::Put { value, .. } => {
            Ok((Effect::Set(value), Reply::Put { replaced: found.is_some() }))
        }
        CommandRef::Delete { .. } => {
            let existed = found.is_some();
            Ok((if existed { Effect::Remove } else { Effect::Keep }, Reply::Deleted { existed }))
        }
        CommandRef::Increment { by, .. } => {
            let number = found.map_or(Ok(Some(0)), Found::number)?;
            match number.map(|number| number.checked_add(by)) {
                Some(Some(sum)) => Ok((Effect::SetNumber(sum), Reply::Counter(sum))),
                Some(None) => Err(BatchRejection::Overflow),
                None => Err(BatchRejection::NotANumber),
            }
        }
        CommandRef::CompareAndSet { expected, new, .. } => {
            let matches = match (found, expected) {
                (Some(found), Some(expected)) => found.equals(expected)?,
                (None, None) => true,
                _ => false,
            };
            match (matches, new) {
                (false, _) => Err(BatchRejection::Mismatch),
                (true, Some(value)) => Ok((Effect::Set(value), Reply::Swapped)),
                (true, None) if found.is_some() => Ok((Effect::Remove, Reply::Swapped)),
                (true, None) => Ok((Effect::Keep, Reply::Swapped)),
            }
        }
        CommandRef::Batch(_) => return Err(Fatal::new("a batch in a batch")),
    })
}

/// A value in the store.
pub(crate) struct InStore<'c, C: Cell> {
    pub(crate) cell: &'c C,
    pub(crate) context: &'c C::Context,
}

impl<C: Cell> Found for InStore<'_, C> {
    #[inline]
    fn equals(&self, bytes: &[u8]) -> Result<bool, Fatal> {
        if self.cell.len() != bytes.len() {
            return Ok(false);
        }
        let equal = self.cell.with(self.context, |stored| stored == bytes);
        equal.map_err(|error| Fatal::of_read(&error))
    }

    #[inline]
    fn number(&self) -> Result<Option<i64>, Fatal> {
        self.cell.number(self.context).map_err(|error| Fatal::of_read(&error))
    }
}

/// Applies an effect to a slot, in place where there is a cell.
#[inline(always)]
pub(crate) fn settle<C: Cell>(slot: Option<&mut C>, effect: Effect<'_>) -> Change<C> {
    match (effect, slot) {
        (Effect::Keep, _) => Change::Keep,
        (Effect::Remove, _) => Change::Remove,
        (Effect::Set(value), None) => Change::Set(C::new(value)),
        (Effect::SetNumber(number), None) => Change::Set(C::from_number(number)),
        (Effect::Set(value), Some(cell)) => {
            cell.set(value);
            Change::Keep
        }
        (Effect::SetNumber(number), Some(cell)) => {
            cell.set_number(number);
            Change::Keep
        }
    }
}

/// A key that a batch has changed, and its new state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending<'a> {
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
    pub(crate) effect: Effect<'a>,
    /// Whether the key had a value before the batch.
    pub(crate) existed: bool,
}

/// The bytes of a value.
pub(crate) struct InBytes<'b>(pub(crate) &'b [u8]);

impl Found for InBytes<'_> {
    fn equals(&self, bytes: &[u8]) -> Result<bool, Fatal> {
        Ok(self.0 == bytes)
    }

    fn number(&self) -> Result<Option<i64>, Fatal> {
        Ok(parse(self.0))
    }
}

/// A value that an earlier command of the batch has set.
struct InBatch<'a>(Effect<'a>);

impl Found for InBatch<'_> {
    fn equals(&self, bytes: &[u8]) -> Result<bool, Fatal> {
        Ok(match self.0 {
            Effect::Set(value) => value.bytes == bytes,
            Effect::SetNumber(number) => Decimal::new(number).as_bytes() == bytes,
            Effect::Keep | Effect::Remove => false,
        })
    }

    fn number(&self) -> Result<Option<i64>, Fatal> {
        Ok(match self.0 {
            Effect::Set(value) => parse(value.bytes),
            Effect::SetNumber(number) => Some(number),
            Effect::Keep | Effect::Remove => None,
        })
    }
}

/// Number of commands up to which a batch allocates nothing, and searches its keys one by one.
pub(crate) const SMALL_BATCH: usize = 8;

/// The changes of a batch so far, over the store.
pub(crate) struct Overlay<'a> {
    few: [Option<Pending<'a>>; SMALL_BATCH],
    few_len: usize,
    /// Replaces `few`, together with `by_key`, in a batch of more commands than `few` holds.
    many: Vec<Pending<'a>>,
    by_key: HashMap<&'a [u8], usize, RandomState>,
}

impl<'a> Overlay<'a> {
    /// Makes an overlay for `commands` commands, none of which is larger than the bytes it was
    /// decoded from.
    pub(crate) fn new(commands: usize) -> Self {
        let many = if commands <= SMALL_BATCH { 0 } else { commands };
        Self {
            few: [None; SMALL_BATCH],
            few_len: 0,
            many: Vec::with_capacity(many),
            by_key: HashMap::with_capacity_and_hasher(many, RandomState::default()),
        }
    }

    /// Runs `command` over the result of an earlier command for `key`; `None` if no earlier one has
    /// changed the key.
    pub(crate) fn evaluate(
        &mut self,
        hash: u64,
        key: &[u8],
        command: &CommandRef<'a>,
    ) -> Option<Result<Outcome<'a>, Fatal>> {
        let found = match self.find(hash, key)?.effect {
            Effect::Keep | Effect::Remove => None,
            set => Some(InBatch(set)),
        };
        Some(evaluate(command, found.as_ref()))
    }

    /// Records the new state of `key`. `existed` is kept from the key's first change.
    pub(crate) fn record(&mut self, pending: Pending<'a>) {
        if matches!(pending.effect, Effect::Keep) {
            return;
        }
        if let Some(known) = self.find(pending.hash, pending.key) {
            known.effect = pending.effect;
        } else if self.many.capacity() == 0
            && let Some(free) = self.few.get_mut(self.few_len)
        {
            *free = Some(pending);
            self.few_len += 1;
        } else {
            self.by_key.insert(pending.key, self.many.len());
            self.many.push(pending);
        }
    }

    /// Every changed key once, with its last effect.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Pending<'a>> {
        self.few.iter().flatten().chain(&self.many)
    }

    fn find(&mut self, hash: u64, key: &[u8]) -> Option<&mut Pending<'a>> {
        if self.few_len > 0 {
            let mut few = self.few.iter_mut().flatten();
            return few.find(|pending| pending.hash == hash && pending.key == key);
        }
        let at = *self.by_key.get(key)?;
        self.many.get_mut(at)
    }
}

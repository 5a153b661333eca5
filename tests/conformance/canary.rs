//! A machine that can be broken in many ways.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sprag::error::SnapshotError;
use sprag::{
    EntryRange, Fatal, Footprint, LogId, Partition, PayloadRef, Rejection, Replies, Reply,
    SnapshotSink, SnapshotSource, StateMachine,
};

/// Ways in which a machine is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Broken {
    Not,
    /// The machine keeps a list over all partitions.
    OrderInState,
    /// The machine replies with a count over all partitions.
    OrderInReply,
    /// The machine's footprint of a transfer has only the payer.
    NarrowFootprint,
    FootprintByTime,
    FootprintByAddress,
    FootprintByState,
    /// The machine replies with a count that outlives it.
    HiddenGlobal,
    /// The machine replies with a random number.
    RandomReply,
    /// The machine keeps a random number in its state.
    RandomState,
    /// The machine takes from the payer before it checks the balance.
    ChangesWhenRejected,
    /// The machine reports what it has applied, but not for every other entry.
    AppliedAtTimes,
    /// The machine counts only up to the range before the last.
    AppliedLate,
    /// The machine counts the calls.
    RangesInState,
    /// The machine counts the calls, in replies of bytes.
    RangesInBytes,
    /// The machine's replies of bytes end with a count over all partitions.
    OrderInBytes,
    RandomBytes,
    /// The machine replies with a byte more than it declares.
    TooManyBytes,
    /// The machine declares room for longer replies once it has state.
    RoomByState,
    /// The machine stops, or panics, at a valid entry.
    Fails,
    Panics,
    /// The machine remembers over a restart what the log brings again.
    StateOutlives,
    /// The machine leaves something out of the snapshot: a part of the state, or of what only later
    /// replies show.
    SnapshotForgets,
    SnapshotForgetsCounts,
    /// The machine writes something that differs between two machines.
    SnapshotByChance,
    SnapshotChangesState,
    SnapshotPanics,
    /// The machine adds the snapshot to its state.
    RestoreMerges,
    /// The machine takes each number as it comes, and then finds that one is missing.
    RestoreAsItReads,
    RestoreTakesLess,
    RestoreTakesMore,
    /// The machine accepts a source that fails.
    RestoreTakesFailing,
    RestorePanics,
    /// The machine writes a part that it then does not read.
    RestoreMissing,
}

/// Eight numbers, and the fault of the machine.
pub(crate) struct Machine {
    pub(crate) broken: Broken,
    pub(crate) state: Arc<Mutex<State>>,
    /// The applied entry, which only machines with a fault in it keep: the engine counts for the
    /// others.
    pub(crate) applied: Mutex<Option<LogId>>,
    pub(crate) calls: AtomicU64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) balances: [u64; 8],
    /// More state, in the digest too.
    pub(crate) more: Vec<u64>,
    /// Hidden state, not in the digest.
    pub(crate) hidden: u64,
    /// Number of transfers to each account; some machines reply with it.
    pub(crate) counts: [u64; 8],
}

static GLOBAL: AtomicU64 = AtomicU64::new(0);

/// The longest reply.
const BYTES_MAX: usize = 15;

impl Machine {
    fn run(&self, index: u64, [from, to, amount]: [u8; 3]) -> Reply {
        let mut state = self.state.lock().unwrap();
        let State { balances, more, hidden, counts } = &mut *state;
        *hidden += 1;
        let (from, to, amount) = (usize::from(from), usize::from(to), u64::from(amount));
        if from != to && from < balances.len() {
            if self.broken == Broken::ChangesWhenRejected {
                balances[from] = balances[from].saturating_sub(amount);
            }
            let Some(rest) = balances[from].checked_sub(amount) else {
                return Reply::Rejected(Rejection::Custom(1));
            };
            balances[from] = rest;
        }
        balances[to] += amount;
        counts[to] += 1;
        match self.broken {
            Broken::OrderInState => more.push(index),
            Broken::RandomState => more.push(RandomState::new().hash_one(0)),
            _ => {}
        }
        let tail = match self.broken {
            Broken::RangesInBytes => self.calls.load(Ordering::Relaxed),
            Broken::OrderInBytes => *hidden,
            Broken::RandomBytes => RandomState::new().hash_one(0),
            _ => 0,
        };
        if to % 2 == 1 {
            // The reply's length differs, and is no multiple of eight.
            let mut bytes = [balances[to].to_le_bytes(), tail.to_le_bytes()].concat();
            bytes.truncate(BYTES_MAX - to / 2);
            if self.broken == Broken::TooManyBytes {
                bytes.resize(BYTES_MAX + 1, 0);
            }
            return Reply::Bytes(bytes.into());
        }
        Reply::Custom(match self.broken {
            Broken::OrderInReply => *hidden,
            Broken::SnapshotForgetsCounts => counts[to],
            Broken::HiddenGlobal => GLOBAL.fetch_add(1, Ordering::Relaxed),
            Broken::RandomReply => RandomState::new().hash_one(0),
            _ => balances[to],
        })
    }
}

/// Decodes an order; the payer 255 stands for a deposit.
fn decode(payload: &PayloadRef<'_>) -> Option<[u8; 3]> {
    match payload {
        PayloadRef::Opaque(bytes) => <[u8; 3]>::try_from(*bytes).ok(),
        _ => None,
    }
}

impl StateMachine for Machine {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        let Some([from, to, _]) = decode(payload) else { return Footprint::key(b"") };
        let PayloadRef::Opaque(bytes) = payload else { return Footprint::key(b"") };
        match self.broken {
            Broken::FootprintByTime => {
                static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
                let nanos = START.get_or_init(Instant::now).elapsed().as_nanos();
                Footprint::key(&nanos.to_le_bytes())
            }
            Broken::FootprintByAddress => Footprint::key(&(bytes.as_ptr() as usize).to_le_bytes()),
            Broken::FootprintByState if self.state.lock().unwrap().hidden > 20 => Footprint::All,
            _ if from == 255 => Footprint::key(&[to]),
            Broken::NarrowFootprint => Footprint::key(&[from]),
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        for entry in range.entries(partition) {
            let entry = entry?;
            let Some(order) = decode(&entry.payload) else { continue };
            match self.broken {
                Broken::Fails if order[2] == 7 => return Err(Fatal::new("seven")),
                Broken::Panics if order[2] == 7 => panic!("seven"),
                _ => {}
            }
            match self.run(entry.log_id.index, order) {
                // There are two ways to set such a reply.
                Reply::Bytes(bytes) if order[1] == 3 => replies.set_bytes(&entry, &bytes),
                reply => replies.set(&entry, reply),
            }
        }
        if self.broken == Broken::RangesInState {
            self.state.lock().unwrap().more.push(0);
        }
        if partition.id() == 0 || range.is_barrier() {
            let late = self.broken == Broken::AppliedLate && range.first().index > 1;
            let index = if late { range.first().index - 1 } else { range.last().index };
            *self.applied.lock().unwrap() = Some(range.last().at(index));
        }
        Ok(())
    }

    fn applied(&self) -> Option<LogId> {
        let applied = *self.applied.lock().unwrap();
        match self.broken {
            Broken::AppliedLate => applied,
            Broken::AppliedAtTimes => applied.filter(|last| last.index % 2 == 0),
            _ => None,
        }
    }

    fn reply_bytes_max(&self) -> usize {
        let more = self.broken == Broken::RoomByState && self.state.lock().unwrap().hidden > 20;
        BYTES_MAX + usize::from(more)
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let mut state = self.state.lock().unwrap();
        let State { balances, counts, .. } = &mut *state;
        match self.broken {
            Broken::SnapshotForgets => out.write(&[0; 8]).map_err(io_error)?,
            Broken::SnapshotByChance => {
                let chance = RandomState::new().hash_one(0).to_le_bytes();
                out.write(&chance).map_err(io_error)?;
            }
            Broken::SnapshotChangesState => balances[3] += 1,
            Broken::SnapshotPanics => panic!("no snapshot"),
            _ => {}
        }
        let skip = usize::from(self.broken == Broken::SnapshotForgets);
        for number in balances.iter().skip(skip) {
            out.write(&number.to_le_bytes()).map_err(io_error)?;
        }
        if self.broken != Broken::SnapshotForgetsCounts {
            counts
                .iter()
                .try_for_each(|count| out.write(&count.to_le_bytes()))
                .map_err(io_error)?;
        }
        Ok(())
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let mut state = self.state.lock().unwrap();
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            match source.read(&mut byte) {
                Ok(0) => break,
                Ok(_) => bytes.push(byte[0]),
                Err(_) if self.broken == Broken::RestoreTakesFailing => break,
                Err(error) => return Err(io_error(error)),
            }
            if self.broken == Broken::RestoreAsItReads && bytes.len() == 8 {
                state.balances[0] = u64::from_le_bytes(bytes[..].try_into().unwrap());
            }
        }
        match self.broken {
            Broken::RestorePanics => panic!("no restore"),
            Broken::RestoreMissing => {
                return Err(SnapshotError::Unsupported { what: "restoring" });
            }
            Broken::SnapshotByChance => drop(bytes.drain(..8)),
            Broken::SnapshotForgetsCounts => bytes.resize(bytes.len() + 64, 0),
            Broken::RestoreTakesLess if bytes.len() < 128 => bytes.resize(128, 0),
            Broken::RestoreTakesFailing => bytes.resize(128, 0),
            Broken::RestoreTakesMore => bytes.truncate(128),
            _ => {}
        }
        if bytes.len() != 128 {
            let (file, offset) = ("the numbers".to_owned(), bytes.len() as u64);
            return Err(SnapshotError::Corrupt { file, offset, what: "it has another length" });
        }
        let mut numbers = bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
        for balance in &mut state.balances {
            let kept = if self.broken == Broken::RestoreMerges { *balance } else { 0 };
            *balance = kept + numbers.next().unwrap();
        }
        state.counts.iter_mut().zip(numbers).for_each(|(count, number)| *count = number);
        Ok(())
    }
}

fn io_error(source: std::io::Error) -> SnapshotError {
    SnapshotError::Io { action: "moving", file: "the numbers".to_owned(), source }
}

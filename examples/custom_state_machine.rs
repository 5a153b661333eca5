//! A state machine written by the embedder: a bank, on disk. Run it with `cargo run --example
//! custom_state_machine`, several times: it continues where it was, also after a kill.
//!
//! A deposit concerns one account, so deposits to different accounts are applied in parallel. A
//! transfer concerns two accounts, which may be of different partitions. So it is a barrier, and
//! runs alone at its place in the order.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sprag::error::SnapshotError;
use sprag::{
    ApplyConfig, ApplyManager, Entry, EntryRange, Fatal, Footprint, Journaled, LogId, Partition,
    Payload, PayloadRef, PersistentConfig, Rejection, Replies, Reply, SnapshotSink, SnapshotSource,
    StateMachine,
};

/// Number of accounts.
pub const ACCOUNTS: u64 = 100;
/// Sender of a deposit.
pub const NOWHERE: u64 = u64::MAX;

/// An order: `[from, to, amount]`.
pub type Order = [u64; 3];

/// The bytes of an order.
#[must_use]
pub fn encode(order: Order) -> Vec<u8> {
    order.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Decodes an order of the log; `None` for any other entry.
#[must_use]
pub fn decode(payload: &PayloadRef<'_>) -> Option<Order> {
    let PayloadRef::Opaque(bytes) = payload else { return None };
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    <[[u8; 8]; 3]>::try_from(words).ok().map(|words| words.map(u64::from_le_bytes))
}

/// The state: balances by account.
///
/// The balances are atomics, because different threads apply the partitions. They are relaxed,
/// because the manager orders entries that concern the same account.
pub struct Bank {
    balances: Vec<AtomicU64>,
}

impl Default for Bank {
    fn default() -> Self {
        Self { balances: (0..ACCOUNTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Bank {
    /// The balance of each account.
    pub fn balances(&self) -> impl Iterator<Item = u64> {
        self.balances.iter().map(|balance| balance.load(Ordering::Relaxed))
    }

    fn account(&self, number: u64) -> Result<&AtomicU64, Rejection> {
        let at = usize::try_from(number).ok();
        at.and_then(|at| self.balances.get(at)).ok_or(Rejection::Custom(404))
    }

    /// Runs an order, and returns the receiver's balance afterwards. A rejected order changes
    /// nothing.
    fn run(&self, [from, to, amount]: Order) -> Result<u64, Rejection> {
        let receiver = self.account(to)?;
        let sum =
            receiver.load(Ordering::Relaxed).checked_add(amount).ok_or(Rejection::Overflow)?;
        if from == to {
            return Err(Rejection::Custom(400));
        }
        if from != NOWHERE {
            let payer = self.account(from)?;
            let rest = payer.load(Ordering::Relaxed).checked_sub(amount);
            payer.store(rest.ok_or(Rejection::Custom(402))?, Ordering::Relaxed);
        }
        receiver.store(sum, Ordering::Relaxed);
        Ok(sum)
    }
}

impl StateMachine for Bank {
    /// The footprint depends on the payload alone, never on the balances, nor on which accounts
    /// there are.
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match decode(payload) {
            Some([NOWHERE, to, _]) => Footprint::key(&to.to_le_bytes()),
            Some(_) => Footprint::All,
            None => Footprint::key(b""),
        }
    }

    fn apply(
        &self,
        range: &EntryRange<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let reply = match (decode(&entry.payload), &entry.payload) {
                (Some(order), _) => self.run(order).map_or_else(Reply::Rejected, Reply::Custom),
                (None, PayloadRef::Noop | PayloadRef::Membership(_)) => Reply::Applied,
                (None, _) => Reply::Rejected(Rejection::Unsupported),
            };
            replies.set(&entry, reply);
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        let bytes: Vec<u8> = self.balances().flat_map(u64::to_le_bytes).collect();
        Ok(out.write(&bytes)?)
    }

    /// Restores the balances: reads and checks all bytes before it takes any of them.
    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let bytes = source.read_all(8 * self.balances.len())?;
        if bytes.len() != 8 * self.balances.len() {
            let (file, offset) = ("the bank's balances".to_owned(), bytes.len() as u64);
            let what = "it is not of this number of accounts";
            return Err(SnapshotError::Corrupt { file, offset, what });
        }
        for (balance, bytes) in self.balances.iter().zip(bytes.as_chunks::<8>().0) {
            balance.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// An order of a customer. Under a consensus engine, orders would come from the network.
#[must_use]
pub fn order(index: u64) -> Order {
    let random = |salt: u64| (index ^ salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let to = random(1) % ACCOUNTS;
    // Every seventh order is a transfer; some ask for more than there is.
    let from = if index.is_multiple_of(7) { random(2) % ACCOUNTS } else { NOWHERE };
    [from, to, random(3) % 50]
}

/// Options for a small bank, which needs no segments of 64 MiB, nor the memory for their images.
pub fn config(directory: &Path) -> PersistentConfig {
    PersistentConfig::new(directory).segment_bytes(64 << 10)
}

/// The example: opens the bank in `directory`, runs `orders` more orders, and closes it. Appends to
/// the file `acknowledged` the index of each order that the bank may confirm to the customer.
///
/// # Errors
///
/// Any failure of opening, applying or closing.
pub fn run(
    directory: PathBuf,
    orders: u64,
    acknowledged: Option<PathBuf>,
) -> Result<(), Box<dyn std::error::Error>> {
    let timeout = Duration::from_secs(60);
    let mut file = match acknowledged {
        Some(path) => Some(OpenOptions::new().create(true).append(true).open(path)?),
        None => None,
    };
    let bank = Journaled::open(config(&directory), Bank::default())?;
    let first = bank.applied().map_or(1, |last| last.index + 1);
    let sum: u64 = bank.balances().sum();
    println!("{}: {} orders done before, {sum} in all accounts", directory.display(), first - 1);

    let manager = ApplyManager::new(bank, ApplyConfig::new())?;
    let (mut next, mut rejected) = (first, 0);
    while next < first + orders {
        let payloads: Vec<_> =
            (0..50.min(first + orders - next)).map(|offset| encode(order(next + offset))).collect();
        let entries = (next..).zip(&payloads);
        let entries =
            entries.map(|(index, bytes)| Entry::new(LogId::new(index, 1), Payload::Opaque(bytes)));
        manager.apply_batch(entries, timeout, |_index, reply| {
            rejected += u64::from(matches!(reply, Reply::Rejected(_)));
        })?;
        next += payloads.len() as u64;
        if let Some(file) = &mut file {
            // Write the line in one call, so that a kill leaves all of it or nothing.
            file.write_all(format!("{}\n", next - 1).as_bytes())?;
        }
        // Take a snapshot now and then, so that earlier orders need not be kept.
        if next / 1000 > (next - payloads.len() as u64) / 1000 {
            manager.snapshots().compact()?;
        }
    }
    let sum: u64 = manager.machine().balances().sum();
    println!("{orders} more, {rejected} of them rejected: {sum} in all accounts");
    Ok(manager.close(timeout)?)
}

/// Runs `custom_state_machine [DIRECTORY [ORDERS [ACKNOWLEDGED_FILE]]]`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let directory = arguments.next().map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| std::env::temp_dir().join("sprag-bank"));
    let orders = arguments.next().and_then(|orders| orders.to_str()?.parse().ok()).unwrap_or(1000);
    run(directory, orders, arguments.next().map(PathBuf::from))
}

//! A state machine of one's own: a bank. Run it with `cargo run --example custom_state_machine`.
//!
//! A deposit concerns one account, so deposits to different accounts are applied in parallel. A transfer concerns two,
//! which may be of different partitions: it is a barrier, and runs alone at its place in the order.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sprag::{
    ApplyConfig, ApplyManager, Entry, Fatal, Footprint, LogId, Partition, Payload, PayloadRef,
    Range, Rejection, Replies, Reply, StateMachine,
};

/// Balances by account. Atomics, because partitions are applied by different threads; relaxed, because the manager
/// orders what concerns the same account.
struct Bank(Vec<AtomicU64>);

/// `[from, to, amount]`; a deposit comes from nowhere.
type Order = [u64; 3];
const NOWHERE: u64 = u64::MAX;

fn encode(order: Order) -> Vec<u8> {
    order.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn decode(payload: &PayloadRef<'_>) -> Option<Order> {
    let PayloadRef::Opaque(bytes) = payload else { return None };
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    <[[u8; 8]; 3]>::try_from(words).ok().map(|words| words.map(u64::from_le_bytes))
}

impl Bank {
    fn account(&self, number: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(number).ok()?)
    }

    /// The balance of the receiver afterwards; `None` if there is no such account, or not enough on it.
    fn run(&self, [from, to, amount]: Order) -> Option<u64> {
        let receiver = self.account(to)?;
        let sum = receiver.load(Ordering::Relaxed).checked_add(amount)?;
        if from == to {
            return None;
        }
        if from != NOWHERE {
            let payer = self.account(from)?;
            payer.store(payer.load(Ordering::Relaxed).checked_sub(amount)?, Ordering::Relaxed);
        }
        receiver.store(sum, Ordering::Relaxed);
        Some(sum)
    }
}

impl StateMachine for Bank {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match decode(payload) {
            // Any hash that spreads: equal accounts must have equal ones.
            Some([NOWHERE, to, _]) => Footprint::Key((to + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            _ => Footprint::All,
        }
    }

    fn apply(
        &self,
        range: &Range<'_>,
        partition: Partition,
        replies: &mut Replies<'_>,
    ) -> Result<(), Fatal> {
        for entry in range.entries(partition) {
            let entry = entry?;
            let balance = decode(&entry.payload).map(|order| self.run(order));
            replies.set(
                &entry,
                match balance {
                    Some(Some(balance)) => Reply::Custom(balance),
                    Some(None) => Reply::Rejected(Rejection::Overflow),
                    None => Reply::Rejected(Rejection::Unsupported),
                },
            );
        }
        Ok(())
    }

    /// A new bank has applied nothing. The manager keeps count from here on.
    fn applied(&self) -> Option<LogId> {
        None
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const ACCOUNTS: u64 = 100;
    let timeout = Duration::from_secs(10);
    let workers = NonZeroUsize::new(4).ok_or("four is not zero")?;
    let bank = Bank((0..ACCOUNTS).map(|_| AtomicU64::new(0)).collect());
    let manager = ApplyManager::new(bank, ApplyConfig::new().worker_count(workers))?;

    // Everybody gets 10, then everybody gives 3 to the next.
    let deposits = (0..ACCOUNTS).map(|account| [NOWHERE, account, 10]);
    let transfers = (0..ACCOUNTS).map(|account| [account, (account + 1) % ACCOUNTS, 3]);
    let payloads: Vec<_> = deposits.chain(transfers).map(encode).collect();
    let entries = (1..).zip(&payloads);
    let entries =
        entries.map(|(index, bytes)| Entry::new(LogId::new(index, 1), Payload::Opaque(bytes)));
    let mut rejected = 0;
    let applied = manager.apply_batch(entries, timeout, |_index, reply| {
        rejected += u64::from(matches!(reply, Reply::Rejected(_)));
    })?;
    assert_eq!((applied, rejected), (2 * ACCOUNTS, 0));

    let too_much = encode([0, 1, 11]);
    let entry = Entry::new(LogId::new(2 * ACCOUNTS + 1, 1), Payload::Opaque(&too_much));
    assert_eq!(manager.apply(&entry, timeout)?, Reply::Rejected(Rejection::Overflow));
    assert!(manager.machine().0.iter().all(|balance| balance.load(Ordering::Relaxed) == 10));
    manager.close(timeout)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_books_balance() {
        assert!(super::main().is_ok());
    }
}

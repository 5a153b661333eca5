//! The entries of a bench: every key once, and then overwrites at a pace.

use std::thread;
use std::time::{Duration, Instant};

use sprag::Entry;
use sprag::error::SubmitError;

use super::{Manager, TIMEOUT};
use crate::error::{Outcome, about};
use crate::run::workload::{KEY_BYTES, key_of};
use crate::run::zipf::{Random, below};

/// Number of entries in one submission.
const BATCH: usize = 128;

/// The speed at which entries are submitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// This many entries a second, if the engine takes them.
    PerSecond(u64),
    /// The pace at which the engine takes entries.
    FlatOut,
}

pub(super) struct Load {
    /// The key numbers, in the order of their first puts.
    numbers: Vec<u32>,
    value: Vec<u8>,
    random: Random,
    next: u64,
}

impl Load {
    pub(super) fn new(keys: u32, value_bytes: usize) -> Self {
        let mut random = Random::new(11);
        let mut numbers: Vec<u32> = (0..keys).collect();
        for at in (1..keys).rev() {
            numbers.swap(at as usize, below(&mut random, at + 1) as usize);
        }
        Self { numbers, value: vec![b'v'; value_bytes], random, next: 1 }
    }

    /// Puts every key, in a shuffled order.
    pub(super) fn every_key(&mut self, manager: &Manager) -> Outcome {
        let mut done = 0;
        while done < self.numbers.len() {
            let end = (done + BATCH).min(self.numbers.len());
            let keys: Vec<_> = self.numbers[done..end].iter().copied().map(key_of).collect();
            self.submit(manager, &keys)?;
            done = end;
        }
        Ok(())
    }

    /// Overwrites keys for as long as `going` says so. Returns the number of entries applied a
    /// second.
    pub(super) fn overwrite(
        &mut self,
        manager: &Manager,
        pace: Pace,
        going: &dyn Fn() -> bool,
    ) -> Outcome<f64> {
        let keys_len = u32::try_from(self.numbers.len())?;
        manager.flush_pending(TIMEOUT)?;
        let (began, before) = (Instant::now(), self.next);
        let mut keys = [[0; KEY_BYTES]; BATCH];
        while going() {
            if let Pace::PerSecond(rate) = pace {
                // A late submission catches up: the pace is a mean over the whole time.
                let due = Duration::from_nanos((self.next - before) * 1_000_000_000 / rate.max(1));
                if let Some(early) =
                    due.checked_sub(began.elapsed()).filter(|early| !early.is_zero())
                {
                    thread::sleep(early);
                    continue;
                }
            }
            keys.iter_mut().for_each(|key| *key = key_of(below(&mut self.random, keys_len)));
            self.submit(manager, &keys)?;
        }
        manager.wait_for_apply(self.next - 1, TIMEOUT)?;
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        Ok((self.next - before) as f64 / began.elapsed().as_secs_f64())
    }

    fn submit(&mut self, manager: &Manager, keys: &[[u8; KEY_BYTES]]) -> Outcome {
        let mut entries = Vec::with_capacity(keys.len());
        for (index, key) in (self.next..).zip(keys) {
            entries.push(Entry::put(index, 1, key, &self.value));
        }
        loop {
            match manager.apply_entries(&entries) {
                Ok(_) => break,
                Err(SubmitError::Full { pending }) => {
                    // Wait for half of the pipeline to become free; the other half keeps the engine
                    // busy meanwhile.
                    manager.wait_for_apply(self.next.saturating_sub(1 + pending / 2), TIMEOUT)?;
                }
                Err(other) => return Err(about("submitting")(other)),
            }
        }
        self.next += keys.len() as u64;
        Ok(())
    }
}

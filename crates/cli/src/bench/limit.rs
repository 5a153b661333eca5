//! The lower bound of a snapshot's cost: the same bytes, sorted, gathered, written and synced, and
//! nothing else.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Outcome, about};
use crate::run::workload::{KEY_BYTES, key_of};
use crate::run::zipf::{Random, below};

/// Number of bytes that one write takes.
const WRITE_BYTES: usize = 4 << 20;

/// Keys with the places of their values, both in random order.
pub(super) struct Limit {
    slots: Vec<([u8; KEY_BYTES], u32)>,
    values: Vec<u8>,
    value_bytes: usize,
}

impl Limit {
    pub(super) fn new(keys: u32, value_bytes: usize) -> Self {
        let mut random = Random::new(7);
        let mut slots: Vec<_> = (0..keys).map(|number| (key_of(number), 0)).collect();
        let mut shuffle = |slots: &mut Vec<_>| {
            for at in (1..keys).rev() {
                slots.swap(at as usize, below(&mut random, at + 1) as usize);
            }
        };
        // Shuffle the order of writing, and then the order of the table.
        shuffle(&mut slots);
        (0..keys).zip(&mut slots).for_each(|(place, slot)| slot.1 = place);
        shuffle(&mut slots);
        let values = (0..keys as usize * value_bytes).map(|at| at.to_le_bytes()[0]).collect();
        Self { slots, values, value_bytes }
    }

    /// Writes as many bytes as a snapshot has to a file, durably. Returns the total time.
    pub(super) fn run(&self, path: &Path, bytes: u64) -> Outcome<Duration> {
        let failed = |error| about::<std::io::Error>(path.display())(error);
        let slots = self.slots.clone();
        let began = Instant::now();
        let mut slots = slots;
        slots.sort_unstable();
        let mut file = File::create(path).map_err(failed)?;
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        let mut written = 0;
        for (key, place) in &slots {
            if buffer.len() + KEY_BYTES + self.value_bytes > WRITE_BYTES {
                file.write_all(&buffer).map_err(failed)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
            let start = *place as usize * self.value_bytes;
            buffer.extend_from_slice(key);
            buffer.extend_from_slice(&self.values[start..start + self.value_bytes]);
        }
        file.write_all(&buffer).map_err(failed)?;
        written += buffer.len() as u64;
        // A snapshot has records and an index beside keys and values.
        let rest = usize::try_from(bytes.saturating_sub(written))?;
        buffer.clear();
        buffer.resize(WRITE_BYTES, 1);
        for start in (0..rest).step_by(WRITE_BYTES) {
            file.write_all(&buffer[..WRITE_BYTES.min(rest - start)]).map_err(failed)?;
        }
        file.sync_data().map_err(failed)?;
        let took = began.elapsed();
        fs::remove_file(path).map_err(failed)?;
        Ok(took)
    }
}

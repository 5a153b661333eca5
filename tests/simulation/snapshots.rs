//! Snapshots and compactions of a world, taken at any moment, and compared with the model like
//! everything else.

use std::num::NonZeroUsize;

use sprag::error::SnapshotError;
use sprag::testing::Stepped;
use sprag::{ApplyConfig, LogId, MemoryConfig, MemoryStateMachine, PersistentStateMachine};

use crate::simulation::history::{History, with_entries};
use crate::simulation::random::Random;
use crate::simulation::world::{Node, Opened, Ran, World};

/// A call that writes a snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Take {
    Snapshot,
    Compaction,
}

impl Take {
    pub(crate) fn random(random: &mut Random) -> Self {
        if random.one_in(3) { Self::Snapshot } else { Self::Compaction }
    }
}

/// One step of a life that is the same each time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Submits this number of entries, and waits for their acknowledgement.
    Apply(usize),
    Take(Take),
    /// Kills and restarts the process.
    Restart,
    /// Closes and opens again.
    Close,
}

/// The snapshot of an engine without a disk that was fed the first `count` entries one at a time.
pub(crate) fn serial_snapshot(history: &History, count: usize) -> Vec<u8> {
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    let config = ApplyConfig::new().worker_count(NonZeroUsize::MIN).pipeline_depth(64);
    let engine = Stepped::new(machine, config).unwrap();
    for at in 0..count {
        let index = history.first + at as u64;
        let _ =
            with_entries(index, history.items(at..at + 1), |entries| engine.apply_entries(entries))
                .unwrap();
        engine.run_until_idle();
    }
    let mut bytes = Vec::new();
    engine.snapshots().write_to(&mut bytes).unwrap();
    bytes
}

impl World {
    /// Takes a snapshot or compacts. Returns whether that worked. Only a fault excuses a failure.
    /// The failure then costs no more than this call, unless the engine reports its own.
    pub(crate) fn take(&mut self, node: &Node, what: Take) -> Result<bool, String> {
        let struck_before = self.struck();
        let taken = match what {
            Take::Snapshot => node.snapshots().write(),
            Take::Compaction => node.snapshots().compact().map(|report| report.snapshot),
        };
        // The call has synced the log, even if it failed.
        self.note(node)?;
        let report = match taken {
            Ok(report) => report,
            Err(SnapshotError::Poisoned(_)) if node.poison().is_some() => return Ok(false),
            Err(_) if self.disk.is_power_off() || (self.struck() && !struck_before) => {
                return Ok(false);
            }
            Err(error) => return Err(format!("{what:?} failed by itself: {error}")),
        };
        let covered = self.history.count_to(report.log_id.map(|log_id| log_id.index));
        if covered > self.durable {
            let durable = self.durable;
            return Err(format!("a snapshot of {covered} entries, {durable} of them durable"));
        }
        Ok(true)
    }

    /// Checks that the values of all possible keys are those after the first `count` entries.
    pub(crate) fn compare_keys(
        &self,
        machine: &PersistentStateMachine,
        count: usize,
    ) -> Result<(), String> {
        let known = self.history.state(count);
        for key in (b'0'..=b'9').flat_map(|digit| [[b'k', digit], [b'n', digit]]) {
            let found = machine.get(&key).map_err(|error| format!("reading failed: {error}"))?;
            if found.as_deref() != known.get(&key[..]).map(|value| &**value) {
                return Err(format!("not the value of a key after {count} entries"));
            }
        }
        Ok(())
    }

    /// Checks an engine to which nothing happened since it was opened, whatever happened before.
    ///
    /// The log has everything that it does not report as purged. Another snapshot equals that of a
    /// serial engine, byte for byte, and replaces all others. The directory opens from it.
    pub(crate) fn check_snapshots(&mut self) -> Result<(), String> {
        let node = self.open_whole()?;
        let left = self.disk.file_names();
        if let Some(name) = left.iter().find(|name| name.ends_with(".tmp")) {
            return Err(format!("{name} was left over"));
        }
        self.check_log(&node)?;
        let report =
            node.snapshots().compact().map_err(|error| format!("compacting failed: {error}"))?;
        self.check_bytes(&node, report.snapshot.log_id)?;
        self.check_log(&node)?;
        self.compare_state(node.machine(), self.history.len())?;
        drop(node);
        self.disk.reset_operations();
        let node = self.open_whole()?;
        if node.stats().applied.map(|index| index + 1 - self.history.first).unwrap_or(0)
            != self.history.len() as u64
        {
            return Err("something was lost without a crash".to_owned());
        }
        self.check_log(&node)?;
        self.take(&node, Take::Snapshot)?;
        self.check_bytes(&node, report.snapshot.log_id)
    }

    fn check_bytes(&self, node: &Node, covered: Option<LogId>) -> Result<(), String> {
        let names = self.disk.file_names();
        let snapshots: Vec<&String> = names.iter().filter(|name| name.contains("snap")).collect();
        let count = self.history.len();
        let Some(log_id) = covered else {
            let none = count == 0 && snapshots.is_empty();
            return if none { Ok(()) } else { Err(format!("no snapshot of {count} entries")) };
        };
        let name = format!("{:016x}.snap", log_id.index);
        if self.history.count_to(Some(log_id.index)) != count || snapshots != [&name] {
            return Err(format!("{snapshots:?} are there after {count} entries"));
        }
        let mut bytes = Vec::new();
        node.snapshots().write_to(&mut bytes).map_err(|error| error.to_string())?;
        if bytes != serial_snapshot(&self.history, count) {
            return Err(format!("the snapshot of {count} entries is not that of a serial engine"));
        }
        Ok(())
    }

    /// Checks that the log can be read as far as it reports, has the submitted entries, and retains
    /// as many as configured.
    fn check_log(&self, node: &Node) -> Result<(), String> {
        let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
        let (first, last) = (self.history.first, state.last.map(|last| last.index));
        let gone = self.history.count_to(state.purged);
        let count = self.history.len();
        if self.history.count_to(last) != count {
            return Err(format!("the log ends at {last:?} after {count} entries"));
        }
        if gone > count.saturating_sub(self.shape.retain_entries as usize) {
            return Err(format!("{gone} of {count} entries are gone from the log"));
        }
        if gone == count {
            return Ok(());
        }
        let wanted = first + gone as u64..=first + count as u64 - 1;
        let entries = node.log().unwrap().entries(wanted.clone(), usize::MAX);
        let entries = entries.map_err(|error| format!("{wanted:?} does not read: {error}"))?;
        let known = self.history.items(gone..count);
        let terms: Vec<(u64, u64)> =
            entries.iter().map(|(log_id, _)| (log_id.index, log_id.term)).collect();
        let expected: Vec<(u64, u64)> = wanted.zip(known.iter().map(|(term, _)| *term)).collect();
        if terms == expected { Ok(()) } else { Err("the log is not what was submitted".to_owned()) }
    }

    /// Runs from opening to the end of `script`, or until the fault strikes and ends it.
    pub(crate) fn run_script(&mut self, script: &[Step]) -> Result<Ran, String> {
        let mut node = match self.open()? {
            Opened::Ready(node) => node,
            Opened::Failed(error) => return Ok(Ran::NotOpened(error)),
        };
        for step in script {
            match *step {
                Step::Apply(entries) => self.drive(&node, entries)?,
                Step::Take(what) => drop(self.take(&node, what)?),
                Step::Restart | Step::Close => {
                    if matches!(step, Step::Close) {
                        self.close(node)?;
                    } else {
                        drop(node);
                    }
                    if self.is_stopped() {
                        return Ok(Ran::Stopped);
                    }
                    node = match self.open()? {
                        Opened::Ready(node) => node,
                        Opened::Failed(error) => return Ok(Ran::NotOpened(error)),
                    };
                }
            }
            if let Some(poison) = node.poison() {
                if !self.struck() {
                    return Err(format!("the engine failed by itself: {poison}"));
                }
                self.check_poison_is_sticky(&node)?;
                return Ok(Ran::Poisoned(poison));
            }
            if self.is_stopped() {
                return Ok(Ran::Stopped);
            }
        }
        Ok(Ran::Through)
    }

    fn is_stopped(&self) -> bool {
        self.disk.is_power_off() || (self.dies_when_struck && self.struck())
    }

    fn close(&mut self, node: Node) -> Result<(), String> {
        let closed = node.close();
        if closed.is_ok() {
            let all = self.history.len();
            (self.durable, self.acknowledged) = (all, all);
        } else if !self.struck() {
            return Err(format!("closing failed by itself: {closed:?}"));
        }
        self.disk.crash_process();
        Ok(())
    }
}

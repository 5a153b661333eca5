//! The steps of such a life, one call each.

use std::fmt::{Display, Write as _};
use std::rc::Rc;
use std::time::Duration;

use sprag::error::{LogError, SnapshotError, SubmitError};
use sprag::testing::Stepped;
use sprag::{ApplyConfig, MemoryConfig, MemoryStateMachine};

use super::checks::check_view;
use super::{Change, STEPS, TICK, World, weights};
use crate::simulation::history::{Item, with_entries};
use crate::simulation::world::Node;

const LONG: Duration = Duration::from_secs(20);

/// Steps that need the turn of snapshots, or pause the workers.
const EXCLUSIVE: [&str; 7] =
    ["policy", "compact", "snapshot", "purge", "fill", "receive", "install"];

impl World {
    /// Takes steps until the engine ends, or `steps` were taken. In the middle of a call, only
    /// steps that its locks allow are taken.
    pub(super) fn drive(
        &mut self,
        node: &Node,
        steps: usize,
        is_beside: bool,
    ) -> Result<(), String> {
        for _ in 0..steps {
            if self.random.one_in(30) {
                self.weights = weights(&mut self.random);
            }
            let sum: usize = self.weights.iter().sum();
            let mut drawn = self.random.below(sum);
            let step = self.weights.iter().position(|weight| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            });
            let step = STEPS[step.unwrap_or(0)];
            if is_beside && EXCLUSIVE.contains(&step) {
                continue;
            }
            write!(self.told, " {step}").unwrap();
            let told = self.step(node, step)?;
            self.told.push_str(&told);
            if let Some(poison) = node.poison().filter(|_| !self.struck()) {
                return Err(format!("the engine failed by itself: {poison}"));
            }
            if node.poison().is_some() || self.disk.is_power_off() {
                self.note_marks(node);
                return Ok(());
            }
            // A look costs more than the step.
            if self.random.one_in(6) {
                self.note(node)?;
            }
        }
        self.note(node)
    }

    fn step(&mut self, node: &Node, step: &str) -> Result<String, String> {
        let mut told = String::new();
        match step {
            "append" => told = self.append(node)?,
            "commit" if self.by_commit && self.committed < self.log.len() => {
                let most = self.log.len() - self.committed;
                let all = self.random.one_in(3);
                let committed = if all { most } else { 1 + self.random.below(most) };
                let committed = self.committed + committed;
                told = format!("({committed})");
                let done = node.consensus().unwrap().commit(self.last(committed).unwrap());
                if self.ended(node, done)?.is_some() {
                    self.committed = committed;
                }
            }
            "truncate" if self.by_commit && self.committed < self.log.len() => {
                told = self.truncate(node)?;
            }
            "worker" => {
                let id = self.random.below(node.workers());
                node.step_worker(id);
            }
            "writer" => {
                node.step_log_writer();
            }
            "background" => drop(node.step_background()),
            "fill" => drop(node.step_fill()),
            "policy" => {
                let (done, version) = (node.stats().compaction, self.version());
                if self.beside(node, |node| node.step_compaction())? {
                    let stats = node.stats();
                    if stats.compaction.failed > done.failed && !self.struck() {
                        return Err(format!("a compaction failed: {:?}", stats.compaction));
                    }
                    if stats.compaction.done > done.done {
                        self.took(self.count(stats.snapshot), version);
                    }
                }
            }
            "compact" => {
                let version = self.version();
                let done = self.beside(node, |node| node.snapshots().compact())?;
                if let Some(report) = self.ended(node, done)? {
                    told = format!("({:?} {})", report.purged, report.segments);
                    let covered = report.snapshot.log_id.map(|log_id| log_id.index);
                    self.took(self.count(covered), version);
                }
            }
            "snapshot" => {
                let version = self.version();
                let done = self.beside(node, |node| node.snapshots().write())?;
                if let Some(report) = self.ended(node, done)? {
                    self.took(self.count(report.log_id.map(|log_id| log_id.index)), version);
                }
            }
            "purge" if self.covered > 0 => {
                self.note(node)?;
                let to = 1 + self.random.below(self.covered);
                told = format!("({to})");
                let (index, before) = (self.last(to).unwrap(), self.purged);
                let version = self.version();
                let done = self.beside(node, |node| node.log().unwrap().purge(index))?;
                if self.ended(node, done)?.is_some() {
                    let purged = self.count(node.stats().purged);
                    if purged > to.max(before) {
                        return Err(format!("{purged} are gone, and {to} were to go"));
                    }
                    if purged > before {
                        self.settle_to(version);
                    }
                }
            }
            "read" => {
                self.note(node)?;
                self.check_terms(node)?;
                if self.written > self.purged {
                    let from = self.purged + self.random.below(self.written - self.purged);
                    let to = from + 1 + self.random.below(self.written - from);
                    self.check_entries(node, &self.log, from, to)?;
                }
            }
            "view" => self.view(node)?,
            "get" => self.get(node)?,
            "vote" => {
                let mut vote = self.random.next().to_le_bytes().to_vec();
                vote.resize(1 + self.random.below([8, 400, 3000][self.random.clone().below(3)]), 7);
                self.votes[1] = Some(vote.clone());
                if self.ended(node, node.log().unwrap().save_hard_state(&vote))?.is_some() {
                    self.votes[0] = Some(vote);
                    self.settle();
                }
            }
            "receive" => told = self.receive(node)?,
            "install" => told = self.install(node)?,
            "tick" => {
                node.advance(TICK);
                if self.random.one_in(4) {
                    self.next_term();
                }
            }
            "sync" if self.ended(node, node.log().unwrap().sync(LONG))?.is_some() => self.settle(),
            _ => {}
        }
        Ok(told)
    }

    /// Accepts a failure only if a fault was set.
    fn ended<T, E: Display>(&self, node: &Node, done: Result<T, E>) -> Result<Option<T>, String> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(_) if self.struck() => Ok(None),
            Err(error) => Err(format!("{error}; {:?}", node.poison())),
        }
    }

    /// Notes that a snapshot is durable, and everything in the log before it.
    fn took(&mut self, covered: usize, version: usize) {
        if covered > 0 {
            self.covered = covered;
            self.settle_to(version);
        }
    }

    fn propose(&mut self, most: usize) -> Vec<(u64, Item)> {
        if self.random.one_in(8) {
            self.next_term();
        }
        let bytes_max = self.shape.value_bytes_max;
        let count = 1 + self.random.below(most);
        (0..count).map(|_| (self.term, Item::random(&mut self.random, bytes_max))).collect()
    }

    fn append(&mut self, node: &Node) -> Result<String, String> {
        let most = self.shape.submission_max;
        let proposal = self.propose(most);
        let first = self.first + self.log.len() as u64;
        let done = with_entries(first, &proposal, |entries| match self.by_commit {
            true => node.consensus().unwrap().append(entries),
            false => node.apply_entries(entries),
        });
        match done {
            Err(SubmitError::Full { .. }) => return Ok(" full".to_owned()),
            Err(SubmitError::TooLarge { .. }) => return Ok(" large".to_owned()),
            done => {
                if self.ended(node, done)?.is_none() {
                    return Ok(String::new());
                }
            }
        }
        for entry in proposal {
            self.change(Change::Append(Rc::new(entry)));
        }
        if !self.by_commit {
            self.committed = self.log.len();
        }
        Ok(format!("({})", self.log.len()))
    }

    /// Truncates some of the uncommitted entries; most often another leader's entries replace them.
    fn truncate(&mut self, node: &Node) -> Result<String, String> {
        let before = self.log.len();
        let most = before - self.committed;
        let most = if self.random.one_in(2) { most.min(4) } else { most };
        let keep = self.committed + self.random.below(most);
        match node.consensus().unwrap().truncate_after(self.last(keep)) {
            Err(LogError::Full) => return Ok(" full".to_owned()),
            done => {
                if self.ended(node, done)?.is_none() {
                    return Ok(String::new());
                }
            }
        }
        self.change(Change::Truncate(keep));
        self.written = self.written.min(keep);
        self.durable = self.durable.min(keep);
        self.next_term();
        let mut told = format!("({keep})");
        let length = if self.random.one_in(3) { 0 } else { before + 4 };
        while self.log.len() < length && !self.disk.is_power_off() {
            let appended = self.append(node)?;
            told.push_str(&appended);
            if appended.ends_with("full") {
                break;
            }
        }
        Ok(told)
    }

    fn check_terms(&self, node: &Node) -> Result<(), String> {
        let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
        let last = self.log.last().map(|entry| (self.log.len(), entry.0));
        let found = state.last.map(|last| (self.count(Some(last.index)), last.term));
        let first = (self.purged < self.log.len()).then(|| self.first + self.purged as u64);
        if found != last || state.first.unwrap_or(0) > first.unwrap_or(u64::MAX) {
            return Err(format!("{state:?}, expected {first:?} to {last:?}"));
        }
        for at in self.purged..self.log.len() {
            let log_id = node
                .log()
                .unwrap()
                .log_id(self.first + at as u64)
                .map_err(|error| error.to_string())?;
            if log_id.map(|log_id| log_id.term) != Some(self.log[at].0) {
                return Err(format!("{log_id:?} at {at}"));
            }
        }
        Ok(())
    }

    fn view(&mut self, node: &Node) -> Result<(), String> {
        if self.views.len() > self.random.below(3) {
            let (view, known) = self.views.remove(0);
            return check_view(&view, &known);
        }
        if let Some(view) = self.ended(node, node.snapshots().view())? {
            let count = self.count(view.log_id().map(|log_id| log_id.index));
            if count > self.committed || count < self.applied {
                return Err(format!("a view of {count} entries"));
            }
            let known = Self::state(&self.log[..count]);
            check_view(&view, &known)?;
            self.views.push((view, known));
        }
        Ok(())
    }

    /// Gets a value from between the applied and the committed mark, and checks the same later.
    fn get(&mut self, node: &Node) -> Result<(), String> {
        if self.values.len() > self.random.below(4) {
            let (value, known) = self.values.remove(0);
            return if *value == *known { Ok(()) } else { Err("a value changed".to_owned()) };
        }
        let key = [[b'k', b'n'][self.random.below(2)], b'0' + self.random.below(5) as u8];
        let Some(found) = self.ended(node, node.machine().get(&key))? else { return Ok(()) };
        let mut state = Self::state(&self.log[..self.applied]);
        let mut next = self.applied;
        while state.get(&key[..]).map(|value| &**value) != found.as_deref() {
            let entry = self.log[..self.committed].get(next);
            let entry = entry.ok_or_else(|| format!("a value there never was of {key:?}"))?;
            entry.1.apply(&mut state);
            next += 1;
        }
        if let Some(value) = found {
            let known = value.to_vec();
            self.values.push((value, known));
        }
        Ok(())
    }

    /// Receives another node's snapshot, whose log has the committed entries, and maybe some
    /// uncommitted ones.
    fn receive(&mut self, node: &Node) -> Result<String, String> {
        let shared = self.committed + self.random.below(self.log.len() - self.committed + 1);
        let mut log = self.log[..shared].to_vec();
        if log.len() == self.committed || self.random.one_in(2) {
            self.next_term();
            log.extend(self.propose(40).into_iter().map(Rc::new));
            self.next_term();
        }
        let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
        let other = Stepped::new(machine, ApplyConfig::new().pipeline_depth(64)).unwrap();
        for (at, entry) in log.iter().enumerate() {
            let one = std::slice::from_ref(&**entry);
            let _ =
                with_entries(self.first + at as u64, one, |entries| other.apply_entries(entries))
                    .unwrap();
            other.run_until_idle();
        }
        let mut bytes = Vec::new();
        other.snapshots().write_to(&mut bytes).unwrap();
        self.received = None;
        if let Some(mut receiver) = self.ended(node, node.snapshots().receive())?
            && self.ended(node, receiver.receive_bytes(0, &bytes))?.is_some()
        {
            self.received = Some((receiver, log));
        }
        Ok(format!("({shared} of {})", self.received.as_ref().map_or(0, |(_, log)| log.len())))
    }

    fn install(&mut self, node: &Node) -> Result<String, String> {
        let Some((receiver, log)) = self.received.take() else { return Ok(String::new()) };
        let common = self.committed.min(log.len());
        if log[..common] != self.log[..common] {
            // The snapshot is from a former leader.
            return Ok(" dropped".to_owned());
        }
        let known =
            self.log.len() >= log.len() && self.log[log.len() - 1].0 == log[log.len() - 1].0;
        let (count, stale) = (log.len(), log.len() <= self.committed);
        // The workers apply entries that the log has, and no thread steps them meanwhile.
        let timeout = if known && !stale { Duration::from_millis(1) } else { LONG };
        let done = node.snapshots().install(receiver, timeout);
        let told = format!("({count} {known} {})", done.is_ok());
        match done {
            Err(SnapshotError::Stale { .. }) if stale => {}
            Err(SnapshotError::Full) => {}
            done if known && !stale && node.poison().is_none() && !self.disk.is_power_off() => {
                let committed = self.count(node.stats().committed);
                if done.is_ok() || committed == count {
                    self.committed = count;
                }
            }
            Ok(_) if stale => return Err("a stale snapshot was installed".to_owned()),
            done => {
                if self.ended(node, done)?.is_some() {
                    self.start_from(log);
                    (self.committed, self.applied) = (count, count);
                    self.next_term();
                    (self.covered, self.purged) = (count, count);
                    (self.written, self.durable) = (count, count);
                } else if node.poison().is_some() || self.disk.is_power_off() {
                    self.changes.push(Change::Install(log));
                    // Later entries may be gone.
                    self.durable = self.durable.min(self.committed);
                    self.written = self.written.min(self.committed);
                }
            }
        }
        Ok(told)
    }
}

//! Checks of the promised content, at any moment and after a crash.

use std::rc::Rc;
use std::sync::Arc;

use sprag::error::OpenError;
use sprag::{CommandRef, PayloadRef, PersistentStateMachine, View};

use super::beside::Stopping;
use super::{Change, World, apply};
use crate::simulation::history::{Item, Op, State};
use crate::simulation::world::Node;

impl World {
    /// Opens; `None` if the fault struck meanwhile.
    pub(super) fn open(&mut self) -> Result<Option<Node>, String> {
        let disk = self.disk.open(true).map_err(|error| error.to_string())?;
        let disk = Arc::new(Stopping(disk));
        let machine = match PersistentStateMachine::open_on_disk(disk, self.config()) {
            Ok(machine) => machine,
            Err(OpenError::Io { .. }) if self.struck() => return Ok(None),
            Err(error) => return Err(format!("opening was refused: {error}")),
        };
        let node = Node::new(&self.disk, machine, &self.shape);
        self.compare(&node)?;
        Ok(Some(node))
    }

    /// Checks that the log is one that existed, no older than the durable one, and that the state
    /// is that of the committed entries.
    fn compare(&mut self, node: &Node) -> Result<(), String> {
        let state = node.log().unwrap().state().map_err(|error| error.to_string())?;
        let stats = node.stats();
        let (purged, last) = (self.count(state.purged), self.count(state.last.map(|l| l.index)));
        let mut found = None;
        let mut candidate = self.base.clone();
        let mut wrong = None;
        for at in 0..=self.changes.len() {
            if let Some(change) = at.checked_sub(1).and_then(|before| self.changes.get(before)) {
                apply(change, &mut candidate);
            }
            if candidate.len() == last && purged <= last {
                match self.check_log(node, &candidate, purged) {
                    Ok(()) => found = Some(candidate.clone()),
                    Err(error) => wrong = Some(error),
                }
            }
        }
        let found = found.ok_or_else(|| {
            let (base, log) = (self.base.len(), self.log.len());
            format!("a log there never was: {state:?}, of {base} to {log} entries; {wrong:?}")
        })?;
        let promised = self.promised;
        if found.len() < promised || found[..promised] != self.log[..promised] {
            return Err(format!("{} entries came back of {promised} promised", found.len()));
        }
        let committed = self.count(state.committed);
        if committed > self.committed || found[..committed] != self.log[..committed] {
            // An interrupted installation may have been completed.
            let installed = self.changes.iter().any(
                |change| matches!(change, Change::Install(log) if log.len() == committed && *log == found),
            );
            if !installed {
                return Err(format!("{committed} are committed by themselves: {state:?}"));
            }
        }
        if committed < self.covered || (!self.by_commit && committed < found.len()) {
            return Err(format!("{committed} committed of {}: {state:?}", self.covered));
        }
        if purged < self.purged {
            return Err(format!("what was gone up to {} came back: {state:?}", self.purged));
        }
        if self.count(stats.applied) != committed {
            return Err(format!("{committed} committed, and applied is {:?}", stats.applied));
        }
        let vote = node.log().unwrap().hard_state().map_err(|error| error.to_string())?;
        if !self.votes.contains(&vote) {
            return Err("a vote that was not saved last, nor tried".to_owned());
        }
        self.votes = [vote.clone(), vote];
        self.start_from(found);
        (self.committed, self.applied) = (committed, committed);
        (self.written, self.durable) = (self.log.len(), self.log.len());
        (self.covered, self.purged) = (self.count(stats.snapshot), purged);
        self.next_term();
        if self.random.one_in(2) {
            self.check_state(node)?;
        }
        self.note(node)
    }

    /// Checks that the log is that one from `purged` on.
    fn check_log(&self, node: &Node, log: &[Rc<(u64, Item)>], purged: usize) -> Result<(), String> {
        for (at, entry) in log.iter().enumerate().skip(purged.saturating_sub(1)) {
            let index = self.first + at as u64;
            let log_id = node.log().unwrap().log_id(index).map_err(|error| error.to_string())?;
            if log_id.map(|log_id| log_id.term) != Some(entry.0) {
                return Err(format!("{index} is {log_id:?}, not of term {}", entry.0));
            }
        }
        if purged == log.len() {
            return Ok(());
        }
        self.check_entries(node, log, purged, log.len())
    }

    /// Checks that the entries from `from` to `to` read correctly.
    pub(super) fn check_entries(
        &self,
        node: &Node,
        log: &[Rc<(u64, Item)>],
        from: usize,
        to: usize,
    ) -> Result<(), String> {
        let range = self.first + from as u64..=self.first + to as u64 - 1;
        let entries = node.log().unwrap().entries(range.clone(), usize::MAX);
        let entries = entries.map_err(|error| format!("{range:?} does not read: {error}"))?;
        if entries.len() != to - from {
            return Err(format!("{} entries of {range:?}", entries.len()));
        }
        for ((log_id, payload), at) in entries.iter().zip(from..) {
            let known = &log[at];
            if log_id.index != self.first + at as u64
                || log_id.term != known.0
                || !is_of(&payload, &known.1)
            {
                return Err(format!("{log_id:?} is not what was appended as {at}"));
            }
        }
        Ok(())
    }

    /// Checks the state, once all committed entries are applied.
    pub(super) fn check_state(&self, node: &Node) -> Result<(), String> {
        let found = node.machine().scan_sorted().map_err(|error| error.to_string())?;
        let known = Self::state(&self.log[..self.committed]);
        let found = found.iter().map(|(key, value)| (&**key, &**value));
        let same = found.eq(known.iter().map(|(key, value)| (&**key, &**value)));
        if same { Ok(()) } else { Err(format!("not the state of {} entries", self.committed)) }
    }

    pub(super) fn note(&mut self, node: &Node) -> Result<(), String> {
        let stats = node.stats();
        let low = [stats.purged, stats.snapshot, stats.applied, stats.committed, stats.submitted];
        let high = [stats.durable, stats.written, stats.submitted];
        let least = [stats.acknowledged, stats.applied];
        if !low.is_sorted() || !high.is_sorted() || !least.is_sorted() {
            return Err(format!("marks out of order: {stats:?}"));
        }
        let counts = [stats.submitted, stats.committed].map(|mark| self.count(mark));
        if counts != [self.log.len(), self.committed] {
            return Err(format!("{} and {} became {counts:?}", self.log.len(), self.committed));
        }
        let [applied, purged] = [stats.applied, stats.purged].map(|mark| self.count(mark));
        if applied < self.applied
            || purged < self.purged
            || self.count(stats.snapshot) < self.covered
        {
            return Err(format!("a mark went back: {stats:?}"));
        }
        (self.applied, self.purged) = (applied, purged);
        (self.written, self.durable) = (self.count(stats.written), self.count(stats.durable));
        Ok(())
    }

    /// Records the engine's promises, even after its end.
    pub(super) fn note_marks(&mut self, node: &Node) {
        if !matches!(self.changes.last(), Some(Change::Install(_))) {
            let stats = node.stats();
            (self.written, self.durable) = (self.count(stats.written), self.count(stats.durable));
        }
    }
}

pub(super) fn check_view(view: &View, known: &State) -> Result<(), String> {
    let mut known = known.iter();
    for found in view.iter() {
        let (key, value) = found.map_err(|error| error.to_string())?;
        if known.next().map(|(key, value)| (&**key, &**value)) != Some((&*key, &*value)) {
            return Err("a view is not of its entry".to_owned());
        }
    }
    if known.next().is_none() { Ok(()) } else { Err("a view lacks a key".to_owned()) }
}

fn is_of(payload: &PayloadRef<'_>, item: &Item) -> bool {
    match (payload, item) {
        (PayloadRef::Noop, Item::Noop) => true,
        (PayloadRef::Command(CommandRef::Batch(batch)), Item::Batch(ops)) => {
            let commands = batch.commands().map(|command| command.key().map(<[u8]>::to_vec));
            commands.eq(ops.iter().map(|op| Some(key_of(op).to_vec())))
        }
        (PayloadRef::Command(command), Item::One(op)) => match (command, op) {
            (CommandRef::Put { key, value }, Op::Put(known, bytes)) => {
                **key == **known && *value.bytes == **bytes
            }
            (CommandRef::Delete { key }, Op::Delete(known)) => **key == **known,
            (CommandRef::Increment { key, by }, Op::Increment(known, more)) => {
                **key == **known && by == more
            }
            _ => false,
        },
        _ => false,
    }
}

fn key_of(op: &Op) -> &[u8] {
    let (Op::Put(key, _) | Op::Delete(key) | Op::Increment(key, _)) = op;
    key
}

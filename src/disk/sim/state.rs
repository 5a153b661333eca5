//! The simulated disk under its lock: names, files, faults, and the content after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::fault::Fault;
use super::inode::Inode;
use super::random::Random;

/// A change of the directory that is not durable yet.
#[derive(Debug)]
enum NameChange {
    Create { name: String, inode: u64 },
    Remove { name: String },
    Rename { from: String, to: String, inode: u64 },
}

/// Place of an unsynced item.
#[derive(Clone, Copy, Debug)]
enum Item {
    Name { index: usize },
    Content { inode: u64, index: usize },
}

pub(super) struct State {
    pub(super) random: Random,
    /// Source of the random bytes that the engine draws. It is separate from the disk's own
    /// choices, which must not depend on whether the engine draws.
    pub(super) entropy: Random,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Directory changes that no sync of the directory has covered, each with its number.
    journal: Vec<(u64, NameChange)>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Counts changes, so that the unsynced ones can be ordered.
    clock: u64,
    /// Rises with every cut and crash: handles opened before are dead.
    pub(super) generation: u64,
    pub(super) writer: bool,
    pub(super) readers: usize,
    pub(super) power_off: bool,
    pub(super) operations: u64,
    pub(super) reads: u64,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) read_faults: BTreeMap<u64, Fault>,
    pub(super) trace: Vec<String>,
    pub(super) sync_disabled: bool,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) queue_depth: usize,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            entropy: Random::new(!seed),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            journal: Vec::new(),
            inodes: BTreeMap::new(),
            next_inode: 0,
            clock: 0,
            generation: 0,
            writer: false,
            readers: 0,
            power_off: false,
            operations: 0,
            reads: 0,
            faults: BTreeMap::new(),
            read_faults: BTreeMap::new(),
            trace: Vec::new(),
            sync_disabled: false,
            capacity_bytes: None,
            queue_depth: 1,
        }
    }

    /// Checks that a handle is alive; every call of a handle begins here.
    pub(super) fn check_alive(&self, generation: u64) -> io::Result<()> {
        if self.power_off {
            return Err(io::Error::other("the simulated power is off"));
        }
        if self.generation != generation {
            return Err(io::Error::other("opened before a simulated power cut or crash"));
        }
        Ok(())
    }

    /// Counts one operation. Returns the fault that the caller must carry out, if it is not a plain
    /// error.
    fn begin(&mut self, trace: String) -> io::Result<Option<Fault>> {
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        self.trace.push(trace);
        self.strike(fault)
    }

    fn begin_read(&mut self) -> io::Result<()> {
        let fault = self.read_faults.remove(&self.reads);
        self.reads += 1;
        match self.strike(fault)? {
            Some(Fault::ShortWriteThenError { .. } | Fault::SyncErrorThenClean) => {
                Err(Errno::IO.into())
            }
            _ => Ok(()),
        }
    }

    fn strike(&mut self, fault: Option<Fault>) -> io::Result<Option<Fault>> {
        match fault {
            Some(Fault::Error(error)) => Err(error.into()),
            Some(Fault::PowerCut) => {
                self.power_off = true;
                Err(io::Error::other("the simulated power went off"))
            }
            other => Ok(other),
        }
    }

    /// Begins an operation that is neither a write nor a sync of a file.
    fn begin_plain(&mut self, trace: String) -> io::Result<Option<Fault>> {
        match self.begin(trace)? {
            Some(Fault::ShortWriteThenError { .. } | Fault::SyncErrorThenClean) => {
                Err(Errno::IO.into())
            }
            other => Ok(other),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    pub(super) fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| Errno::NOENT.into())
    }

    /// The inode of a number. A file is not removed while it has a name or is open.
    pub(super) fn inode(&self, inode: u64) -> io::Result<&Inode> {
        self.inodes.get(&inode).ok_or_else(|| io::Error::other("no such simulated file"))
    }

    fn inode_mut(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| io::Error::other("no such simulated file"))
    }

    /// Notes that these bytes of a file are mapped.
    pub(super) fn mapped(&mut self, inode: u64, bytes: &Arc<[u8]>) -> io::Result<()> {
        self.inode_mut(inode)?.mapped(bytes);
        Ok(())
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Inode> {
        self.inodes.get_mut(self.names.get(name)?)
    }

    pub(super) fn opened(&mut self, inode: u64) -> io::Result<()> {
        self.inode_mut(inode)?.open += 1;
        Ok(())
    }

    pub(super) fn closed(&mut self, inode: u64) {
        if let Ok(file) = self.inode_mut(inode) {
            file.open = file.open.saturating_sub(1);
        }
        self.forget_unreachable();
    }
}

/// Directory operations.
impl State {
    pub(super) fn create(&mut self, name: &str) -> io::Result<u64> {
        if self.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        self.begin_plain(format!("create {name}"))?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::new(name));
        self.change_names(NameChange::Create { name: name.to_owned(), inode });
        Ok(inode)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from)?;
        self.begin_plain(format!("rename {from} {to}"))?;
        if from != to {
            self.inode_mut(inode)?.name = to.to_owned();
            self.change_names(NameChange::Rename {
                from: from.to_owned(),
                to: to.to_owned(),
                inode,
            });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.begin_plain(format!("remove {name}"))?;
        self.change_names(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self) -> io::Result<()> {
        let fault = self.begin_plain("sync_dir".to_owned())?;
        if fault != Some(Fault::LostSync) && !self.sync_disabled {
            self.durable_names.clone_from(&self.names);
            self.journal.clear();
            self.forget_unreachable();
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.journal.push((self.clock, change));
        self.clock += 1;
    }

    /// Inodes that have a name now, or may have one after a power cut.
    fn reachable(&self) -> BTreeSet<u64> {
        let journaled = self.journal.iter().filter_map(|(_, change)| change.inode());
        self.names.values().chain(self.durable_names.values()).copied().chain(journaled).collect()
    }

    fn forget_unreachable(&mut self) {
        let reachable = self.reachable();
        self.inodes.retain(|inode, file| file.open > 0 || reachable.contains(inode));
    }
}

impl NameChange {
    fn inode(&self) -> Option<u64> {
        match self {
            Self::Create { inode, .. } | Self::Rename { inode, .. } => Some(*inode),
            Self::Remove { .. } => None,
        }
    }

    /// Sets the targets of the change's names, whatever they were: after a cut earlier changes may
    /// be missing. A file has one name at most.
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some(inode) = self.inode() {
            names.retain(|_, known| *known != inode);
        }
        match self {
            Self::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// File operations.
impl State {
    pub(super) fn read(&mut self, inode: u64, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.begin_read()?;
        Ok(self.inode(inode)?.read(buffer, offset))
    }

    pub(super) fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let name = &self.inode(inode)?.name;
        let trace = format!("write {name} offset={offset} bytes={}", bytes.len());
        // On a real disk this is undefined behaviour, because bytes that were read may change.
        assert!(!self.inode(inode)?.is_mapped_from(offset), "{trace}, beneath a mapping");
        let fault = self.begin(trace)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        let (written, outcome) = match fault {
            Some(Fault::ShortWriteThenError { bytes: short }) => {
                (short.min(bytes.len()), Err(Errno::IO.into()))
            }
            Some(Fault::SyncErrorThenClean) => (0, Err(Errno::IO.into())),
            _ => {
                // As on a real disk, the part that fits is written before the error.
                let fitting = end.min(self.longest(inode)?).saturating_sub(offset);
                let fitting = usize::try_from(fitting).unwrap_or(usize::MAX).min(bytes.len());
                let full = fitting < bytes.len();
                (fitting, if full { Err(Errno::NOSPC.into()) } else { Ok(()) })
            }
        };
        self.inodes.get_mut(&inode).ok_or(Errno::NOENT)?.write(
            &bytes[..written],
            offset,
            &mut self.clock,
        );
        outcome
    }

    pub(super) fn allocate(&mut self, inode: u64, bytes: u64) -> io::Result<()> {
        let trace = format!("allocate {} bytes={bytes}", self.inode(inode)?.name);
        self.begin_plain(trace)?;
        if bytes > self.inode(inode)?.len().max(self.longest(inode)?) {
            return Err(Errno::NOSPC.into());
        }
        self.inodes.get_mut(&inode).ok_or(Errno::NOENT)?.extend(bytes, &mut self.clock);
        Ok(())
    }

    /// Length that the capacity allows for a file, given the other files.
    fn longest(&self, inode: u64) -> io::Result<u64> {
        let Some(capacity) = self.capacity_bytes else { return Ok(u64::MAX) };
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let used: u64 = self
            .inodes
            .iter()
            .filter(|(other, file)| file.open > 0 || named.contains(other))
            .map(|(_, file)| file.len())
            .sum();
        Ok(self.inode(inode)?.len().saturating_add(capacity.saturating_sub(used)))
    }

    pub(super) fn sync_file(&mut self, inode: u64) -> io::Result<()> {
        let trace = format!("sync {}", self.inode(inode)?.name);
        match self.begin(trace)? {
            Some(Fault::LostSync) => Ok(()),
            Some(Fault::SyncErrorThenClean) => {
                self.inode_mut(inode)?.abandon_unsynced();
                Err(Errno::IO.into())
            }
            Some(_) => Err(Errno::IO.into()),
            None => {
                if !self.sync_disabled {
                    self.inode_mut(inode)?.sync();
                }
                Ok(())
            }
        }
    }
}

/// Power cuts and crashes.
impl State {
    /// The unsynced changes in order. Changes of a file that can no longer have a name, whatever
    /// survives, are left out.
    fn unsynced_items(&self) -> Vec<Item> {
        let reachable = self.reachable();
        let names =
            self.journal.iter().enumerate().map(|(index, (time, _))| (*time, Item::Name { index }));
        let content = self.inodes.iter().filter(|(inode, _)| reachable.contains(inode)).flat_map(
            |(inode, file)| {
                file.unsynced()
                    .enumerate()
                    .map(|(index, time)| (time, Item::Content { inode: *inode, index }))
            },
        );
        let mut items: Vec<(u64, Item)> = names.chain(content).collect();
        items.sort_unstable_by_key(|(time, _)| *time);
        items.into_iter().map(|(_, item)| item).collect()
    }

    pub(super) fn unsynced(&self) -> usize {
        self.unsynced_items().len()
    }

    /// Keeps the unsynced items for which `survives` is true, and restarts from the medium's
    /// content.
    pub(super) fn power_cut(&mut self, survives: &[bool]) {
        let items = self.unsynced_items();
        for (item, _) in items.into_iter().zip(survives).filter(|(_, survives)| **survives) {
            match item {
                Item::Name { index } => self.journal[index].1.apply(&mut self.durable_names),
                Item::Content { inode, index } => {
                    if let Some(file) = self.inodes.get_mut(&inode) {
                        file.survive(index);
                    }
                }
            }
        }
        self.journal.clear();
        self.names.clone_from(&self.durable_names);
        self.inodes.values_mut().for_each(Inode::restart);
        self.forget_unreachable();
        for (name, inode) in &self.names {
            if let Some(file) = self.inodes.get_mut(inode) {
                file.name.clone_from(name);
            }
        }
        self.power_off = false;
        self.kill_handles();
    }

    pub(super) fn kill_handles(&mut self) {
        self.generation += 1;
        self.writer = false;
        self.readers = 0;
        self.inodes.values_mut().for_each(|file| file.open = 0);
        self.forget_unreachable();
    }
}

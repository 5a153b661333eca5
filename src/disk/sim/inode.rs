//! One file of the simulated disk: the content that reads show, the durable content, and the
//! changes between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

/// Number of bytes that the medium writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A sector, shared by all versions of its file; a change makes a copy.
type Sector = Arc<[u8; SECTOR_BYTES]>;

/// The content of a file. Missing sectors are zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: u64,
    sectors: BTreeMap<u64, Sector>,
}

/// A change that reaches the medium or not, independent of the others.
#[derive(Clone, Debug)]
enum Change {
    /// The sector as a whole, with all earlier writes to it, as the page cache passes it on.
    Sector(u64, Sector),
    Length(u64),
}

#[derive(Clone, Debug)]
struct Unsynced {
    /// Number of the change, among all changes of the disk.
    sequence: u64,
    change: Change,
    /// Whether a sync of it failed and left it as clean: no later sync covers it.
    abandoned: bool,
}

#[derive(Debug)]
pub(super) struct Inode {
    /// The current name, or the last one.
    pub(super) name: String,
    /// Number of open files that refer to it.
    pub(super) open: usize,
    now: Content,
    durable: Content,
    unsynced: Vec<Unsynced>,
    /// Live mappings.
    mappings: Vec<Weak<[u8]>>,
}

impl Inode {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            open: 0,
            now: Content::default(),
            durable: Content::default(),
            unsynced: Vec::new(),
            mappings: Vec::new(),
        }
    }

    pub(super) fn mapped(&mut self, bytes: &Arc<[u8]>) {
        self.mappings.retain(|mapping| mapping.strong_count() > 0);
        self.mappings.push(Arc::downgrade(bytes));
    }

    /// Whether a write from `offset` on would change bytes under a live mapping.
    pub(super) fn is_mapped_from(&self, offset: u64) -> bool {
        let beyond = |bytes: Arc<[u8]>| bytes.len() as u64 > offset;
        self.mappings.iter().filter_map(Weak::upgrade).any(beyond)
    }

    pub(super) fn len(&self) -> u64 {
        self.now.bytes
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        self.now.read(buffer, offset)
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, clock: &mut u64) {
        if bytes.is_empty() {
            return;
        }
        self.extend(offset + bytes.len() as u64, clock);
        let mut done = 0;
        while done < bytes.len() {
            let (number, start) = position(offset + done as u64);
            let end = SECTOR_BYTES.min(start + bytes.len() - done);
            let mut sector = self.now.sector(number);
            sector[start..end].copy_from_slice(&bytes[done..done + end - start]);
            self.change(Change::Sector(number, Arc::new(sector)), clock);
            done += end - start;
        }
    }

    /// Makes the file at least `bytes` long.
    pub(super) fn extend(&mut self, bytes: u64, clock: &mut u64) {
        if bytes > self.now.bytes {
            self.change(Change::Length(bytes), clock);
        }
    }

    fn change(&mut self, change: Change, clock: &mut u64) {
        self.now.apply(&change);
        self.unsynced.push(Unsynced { sequence: *clock, change, abandoned: false });
        *clock += 1;
    }

    pub(super) fn sync(&mut self) {
        for unsynced in self.unsynced.iter().filter(|unsynced| !unsynced.abandoned) {
            self.durable.apply(&unsynced.change);
        }
        // An abandoned change may or may not be on the medium, but not over a later version that is
        // there now.
        let mut covered = BTreeSet::new();
        for index in (0..self.unsynced.len()).rev() {
            let unsynced = &self.unsynced[index];
            let target = unsynced.change.target();
            if !unsynced.abandoned {
                covered.insert(target);
            }
            if covered.contains(&target) {
                self.unsynced.remove(index);
            }
        }
    }

    /// Marks every page as clean after a failed sync. A length is no page: it stays in the file
    /// system's journal, and the next successful sync covers it.
    pub(super) fn abandon_unsynced(&mut self) {
        for unsynced in &mut self.unsynced {
            unsynced.abandoned |= matches!(unsynced.change, Change::Sector(..));
        }
    }

    /// The numbers of the unsynced changes, in order.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = u64> + '_ {
        self.unsynced.iter().map(|unsynced| unsynced.sequence)
    }

    /// Makes the unsynced change number `index` survive the power cut. Callers go in order.
    pub(super) fn survive(&mut self, index: usize) {
        self.durable.apply(&self.unsynced[index].change);
    }

    /// Restores the content from the medium after a power cut.
    pub(super) fn restart(&mut self) {
        self.durable.cut_to_length();
        self.now = self.durable.clone();
        self.unsynced.clear();
        self.open = 0;
    }

    /// Flips bits of one byte, in every version of it. Returns whether the file has that byte.
    pub(super) fn corrupt(&mut self, offset: u64, xor: u8) -> bool {
        if offset >= self.now.bytes {
            return false;
        }
        let (number, start) = position(offset);
        self.now.flip(number, start, xor);
        if offset < self.durable.bytes {
            self.durable.flip(number, start, xor);
        }
        for unsynced in &mut self.unsynced {
            if let Change::Sector(changed, sector) = &mut unsynced.change
                && *changed == number
            {
                Arc::make_mut(sector)[start] ^= xor;
            }
        }
        true
    }
}

impl Change {
    /// The target of a change, whose later changes supersede it: a sector, or (`None`) the length.
    fn target(&self) -> Option<u64> {
        match self {
            Self::Sector(number, _) => Some(*number),
            Self::Length(_) => None,
        }
    }
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Sector(number, sector) => {
                self.sectors.insert(*number, Arc::clone(sector));
            }
            Change::Length(bytes) => self.bytes = *bytes,
        }
    }

    fn sector(&self, number: u64) -> [u8; SECTOR_BYTES] {
        self.sectors.get(&number).map_or([0; SECTOR_BYTES], |sector| **sector)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let readable = buffer.len().min(left);
        let mut done = 0;
        while done < readable {
            let (number, start) = position(offset + done as u64);
            let end = SECTOR_BYTES.min(start + readable - done);
            let target = &mut buffer[done..done + end - start];
            match self.sectors.get(&number) {
                Some(sector) => target.copy_from_slice(&sector[start..end]),
                None => target.fill(0),
            }
            done += end - start;
        }
        readable
    }

    fn flip(&mut self, number: u64, start: usize, xor: u8) {
        let mut sector = self.sector(number);
        sector[start] ^= xor;
        self.sectors.insert(number, Arc::new(sector));
    }

    /// Removes surviving sectors beyond a length that did not survive; they must not come back when
    /// the file grows.
    fn cut_to_length(&mut self) {
        let (last, kept) = position(self.bytes);
        self.sectors.split_off(&(last + 1));
        if let Some(sector) = self.sectors.get_mut(&last) {
            Arc::make_mut(sector)[kept..].fill(0);
        }
    }
}

/// The sector of a byte, and the byte's offset in it.
fn position(offset: u64) -> (u64, usize) {
    // The remainder is below the sector's length, so it fits.
    let start = usize::try_from(offset % SECTOR_BYTES as u64).unwrap_or_default();
    (offset / SECTOR_BYTES as u64, start)
}

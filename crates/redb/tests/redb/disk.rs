//! A backend in memory that forgets unsynced operations at a power cut.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use sprag::testing::Random;

/// Number of bytes that a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// A simulated disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// The content that every power cut leaves.
    synced: Vec<u8>,
    /// The content that a read returns.
    current: Vec<u8>,
    /// Operations since the last sync.
    pending: Vec<Operation>,
    /// Number of writes, changes of the length and syncs so far.
    operations: u64,
    syncs: u64,
    /// Number of the operation at which the power fails.
    cut_at: Option<u64>,
    /// Whether syncs do nothing.
    lies: bool,
    /// Number of the operation from which on the disk is full.
    full_at: Option<u64>,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>, mut keeps: impl FnMut() -> bool) {
        match self {
            Self::SetLen(len) => {
                if keeps() {
                    bytes.resize(*len as usize, 0);
                }
            }
            Self::Write(offset, data) => {
                let mut offset = *offset as usize;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let (part, more) = rest.split_at(rest.len().min(SECTOR - offset % SECTOR));
                    if keeps() {
                        bytes.resize(bytes.len().max(offset + part.len()), 0);
                        bytes[offset..offset + part.len()].copy_from_slice(part);
                    }
                    offset += part.len();
                    rest = more;
                }
            }
        }
    }
}

impl Disk {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cutting_at(operation: u64) -> Self {
        let disk = Self::new();
        disk.cut_at(operation);
        disk
    }

    pub fn cut_at(&self, operation: u64) {
        self.0.lock().unwrap().cut_at = Some(operation);
    }

    /// Makes a disk that reports syncs without doing them.
    pub fn lying() -> Self {
        let disk = Self::new();
        disk.0.lock().unwrap().lies = true;
        disk
    }

    pub fn fill_up(&self) {
        let mut inner = self.0.lock().unwrap();
        inner.full_at = Some(inner.operations);
    }

    pub fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    pub fn len(&self) -> u64 {
        self.0.lock().unwrap().current.len() as u64
    }

    /// The disk as another process would find it after this one.
    pub fn reopened(&self) -> Self {
        let current = self.0.lock().unwrap().current.clone();
        Self::of(current)
    }

    /// The disk after a power cut: each unsynced sector survives with a probability of `keep`
    /// percent.
    pub fn after_a_cut(&self, random: &mut Random, keep: usize) -> Self {
        let inner = self.0.lock().unwrap();
        let mut bytes = inner.synced.clone();
        for operation in &inner.pending {
            operation.apply(&mut bytes, || random.below(100) < keep);
        }
        drop(inner);
        Self::of(bytes)
    }

    pub fn of(bytes: Vec<u8>) -> Self {
        let inner = Inner { synced: bytes.clone(), current: bytes, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().current.clone()
    }
}

impl Inner {
    fn check(&self) -> io::Result<()> {
        if self.cut_at.is_some_and(|cut_at| self.operations >= cut_at) {
            return Err(io::Error::other("the power is off"));
        }
        Ok(())
    }

    /// Runs an operation in which the power may fail; its write is pending then.
    fn change(&mut self, operation: Operation) -> io::Result<()> {
        self.check()?;
        if self.full_at.is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        operation.apply(&mut self.current, || true);
        self.pending.push(operation);
        self.operations += 1;
        self.check()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let inner = self.0.lock().unwrap();
        inner.check()?;
        Ok(inner.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        inner.check()?;
        let found = inner.current.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().change(Operation::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.check()?;
        inner.operations += 1;
        inner.check()?;
        inner.syncs += 1;
        if inner.lies {
            return Ok(());
        }
        inner.pending.clear();
        inner.synced = inner.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().change(Operation::Write(offset, data.to_vec()))
    }
}

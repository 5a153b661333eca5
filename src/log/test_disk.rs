//! A directory in memory for unit tests, without faults except those that a test sets.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{Access, Disk, DiskFile, Mapping, WriteQueue};

#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
    sync_fails: Arc<AtomicBool>,
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    /// The length that the file reports, if it is not its true length.
    claimed_len: Option<u64>,
    sync_fails: Arc<AtomicBool>,
}

impl MemoryDisk {
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap()[name].bytes.lock().unwrap().clone()
    }

    pub(crate) fn set(&self, name: &str, bytes: Vec<u8>) {
        self.set_claiming(name, bytes, None);
    }

    pub(crate) fn set_claiming(&self, name: &str, bytes: Vec<u8>, claimed_len: Option<u64>) {
        let sync_fails = Arc::clone(&self.sync_fails);
        let file = Arc::new(MemoryFile { bytes: Mutex::new(bytes), claimed_len, sync_fails });
        self.files.lock().unwrap().insert(name.to_owned(), file);
    }

    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.sync_fails.store(fail, Ordering::Relaxed);
    }
}

impl Disk for MemoryDisk {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().unwrap().keys().rev().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let exists = self.files.lock().unwrap().contains_key(name);
        match (access, exists) {
            (Access::Create, true) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::Create, false) => self.set(name, Vec::new()),
            (_, false) => return Err(io::ErrorKind::NotFound.into()),
            (_, true) => {}
        }
        Ok(Arc::clone(&self.files.lock().unwrap()[name]) as Arc<dyn DiskFile>)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().unwrap().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.claimed_len.unwrap_or(self.bytes.lock().unwrap().len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let mut file = self.bytes.lock().unwrap();
        let end = file.len().max(start + bytes.len());
        file.resize(end, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut file = self.bytes.lock().unwrap();
        let end = file.len().max(usize::try_from(bytes).unwrap());
        file.resize(end, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("told to fail"));
        }
        Ok(())
    }

    fn map(&self, bytes: usize) -> io::Result<Mapping> {
        let file = self.bytes.lock().unwrap();
        Ok(Mapping::Copied(file[..bytes].into()))
    }
}

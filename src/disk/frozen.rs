//! A directory's files, held in memory: a copy of a directory that another process may be writing.

use crate::bytes::to_usize;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Access, Disk, DiskFile, Listed, Mapping, WriteQueue};

/// Files that no thread changes any more. The disk takes no writes.
#[derive(Debug)]
pub(crate) struct FrozenDisk {
    path: String,
    beside_a_writer: bool,
    files: BTreeMap<String, FrozenFile>,
    /// Files that are not the engine's: listed, and not copied.
    foreign: Vec<Listed>,
}

#[derive(Clone, Debug)]
struct FrozenFile(Arc<[u8]>);

impl FrozenDisk {
    /// Makes an empty disk with the name and properties of `disk`.
    pub(crate) fn beside(disk: &dyn Disk) -> Self {
        let (path, beside_a_writer) = (disk.describe(), disk.is_beside_a_writer());
        Self { path, beside_a_writer, files: BTreeMap::new(), foreign: Vec::new() }
    }

    /// Adds names that are listed and not copied.
    pub(crate) fn list_foreign(&mut self, foreign: Vec<Listed>) {
        self.foreign = foreign;
    }

    pub(crate) fn insert(&mut self, name: String, bytes: Vec<u8>) {
        self.insert_shared(name, bytes.into());
    }

    pub(crate) fn insert_shared(&mut self, name: String, bytes: Arc<[u8]>) {
        self.files.insert(name, FrozenFile(bytes));
    }
}

impl Disk for FrozenDisk {
    fn describe(&self) -> String {
        self.path.clone()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let foreign = self.foreign.iter().map(|listed| &listed.name);
        Ok(self.files.keys().chain(foreign).cloned().collect())
    }

    fn list_kinds(&self) -> io::Result<Vec<Listed>> {
        let files = self.files.keys().cloned().map(Listed::file);
        Ok(files.chain(self.foreign.iter().cloned()).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access != Access::Read {
            return Err(Errno::ROFS.into());
        }
        let file = self.files.get(name).ok_or(Errno::NOENT)?;
        Ok(Arc::new(file.clone()))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn is_beside_a_writer(&self) -> bool {
        self.beside_a_writer
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        Err(Errno::ROFS.into())
    }
}

impl DiskFile for FrozenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = to_usize(offset).min(self.0.len());
        let rest = &self.0[start..];
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(Errno::ROFS.into())
    }

    fn map(&self, bytes: usize) -> io::Result<Mapping> {
        if bytes != self.0.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Mapping::Copied(Arc::clone(&self.0)))
    }
}

//! Opening a file, or a backend, as a database of this storage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, MultimapTableHandle, ReadableDatabase, StorageBackend,
    TableHandle,
};
use sprag::machine::storage::Table;

use crate::config::RedbConfig;
use crate::error::OpenError;
use crate::snapshot::definition;

/// Length of redb's first bytes in a file, which redb writes last into a new file.
const MAGIC_LEN: usize = 9;
/// The header of a redb file is in its first page.
const PAGE_LEN: usize = 4096;
/// Length that a file exceeds once redb has finished making it.
const NEW_FILE_LEN_MAX: u64 = 2 << 20;

pub(crate) struct Opened {
    pub(crate) database: Arc<Database>,
    pub(crate) backend: Arc<dyn StorageBackend>,
    pub(crate) path: Option<PathBuf>,
    pub(crate) was_repaired: bool,
}

pub(crate) fn file(path: &Path, config: RedbConfig) -> Result<Opened, OpenError> {
    let name = path.display().to_string();
    let io = |what: &'static str| {
        let name = name.clone();
        move |source| OpenError::Io { what, name, source }
    };
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(OpenError::IsDirectory { path: path.into() }),
        Ok(found) if !found.is_file() => return Err(OpenError::NotRedb { name }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !parent.is_dir() {
                return Err(OpenError::NoParent { path: path.into() });
            }
        }
        Err(error) => return Err(io("opening")(error)),
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(io("opening"))?;
    // Without this sync, a power cut could remove the file, with durable batches in it.
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(io("syncing the directory of"))?;
    let file = FileBackend::new(file).map_err(|error| OpenError::of(&name, error.into()))?;
    let mut opened = backend(Arc::new(file), &name, config)?;
    opened.path = Some(path.into());
    Ok(opened)
}

pub(crate) fn backend(
    backend: Arc<dyn StorageBackend>,
    name: &str,
    config: RedbConfig,
) -> Result<Opened, OpenError> {
    clear_if_half_made(&*backend).map_err(|error| OpenError::of(name, error.into()))?;
    let was_repaired = Arc::new(AtomicBool::new(false));
    let mut builder = Builder::new();
    builder.set_cache_size(config.cache_bytes);
    builder.set_check_integrity_on_open(config.verify_on_open);
    let (repaired, file) = (Arc::clone(&was_repaired), name.to_owned());
    builder.set_repair_callback(move |_| {
        if !repaired.swap(true, Ordering::Relaxed) {
            tracing::warn!(file, "redb repairs a file that was not closed");
        }
    });
    let shared = Shared(Arc::clone(&backend));
    // redb may panic over a damaged file. Nothing that redb made outlives the closure.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = builder.create_with_backend(shared)?;
        match foreign_table(&database)? {
            Some(table) => Ok(Err(table)),
            None => Ok(Ok(database)),
        }
    }));
    match opened {
        Ok(Ok(Ok(database))) => Ok(Opened {
            database: Arc::new(database),
            backend,
            path: None,
            was_repaired: was_repaired.load(Ordering::Relaxed),
        }),
        Ok(Ok(Err(table))) => Err(OpenError::ForeignTable { name: name.to_owned(), table }),
        Ok(Err(error)) => Err(OpenError::of(name, error)),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            let message = format!("redb panicked: {}", message.unwrap_or("without a message"));
            Err(OpenError::Damaged { name: name.to_owned(), message })
        }
    }
}

/// Empties a file whose making a crash interrupted. The crate redb writes its magic number last. It
/// takes a file with a length and no magic number for another program's.
fn clear_if_half_made(backend: &dyn StorageBackend) -> Result<(), BackendError> {
    let whole = (Bound::Unbounded, Bound::Unbounded);
    if !is_half_made(backend)? {
        return Ok(());
    }
    // Another process may be making the file; then redb reports it as locked.
    let is_locked = match backend.try_lock_range(whole.0, whole.1) {
        Ok(false) => return Ok(()),
        Ok(true) => true,
        Err(BackendError::Unsupported) => false,
        Err(error) => return Err(error),
    };
    let result = is_half_made(backend).and_then(|is_so| {
        if is_so {
            backend.set_len(0)?;
        }
        Ok(())
    });
    if is_locked {
        backend.unlock_range(whole.0, whole.1)?;
    }
    result
}

/// Whether everything but the header's fields is zero.
fn is_half_made(backend: &dyn StorageBackend) -> Result<bool, BackendError> {
    let len = backend.len()?;
    if len == 0 || len > NEW_FILE_LEN_MAX {
        return Ok(false);
    }
    let mut page = [0; PAGE_LEN];
    let mut offset = 0;
    while offset < len {
        let part = (len - offset).min(PAGE_LEN as u64);
        // `part` is at most the length of the page.
        let read = page.get_mut(..usize::try_from(part).unwrap_or_default()).unwrap_or_default();
        backend.read(offset, read)?;
        let checked = if offset == 0 { MAGIC_LEN.min(read.len()) } else { read.len() };
        if read.iter().take(checked).any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += part;
    }
    Ok(true)
}

/// A table of the database that no state machine makes.
fn foreign_table(database: &Database) -> Result<Option<String>, redb::Error> {
    let transaction = database.begin_read()?;
    if let Some(table) = transaction.list_multimap_tables()?.next() {
        return Ok(Some(table.name().to_owned()));
    }
    for table in transaction.list_tables()? {
        let name = table.name();
        if name.parse::<Table>().is_err() {
            return Ok(Some(name.to_owned()));
        }
        match transaction.open_table(definition(name)) {
            Ok(_) => {}
            Err(redb::TableError::Storage(error)) => return Err(error.into()),
            // The keys or values of this table have another type than bytes.
            Err(_) => return Ok(Some(name.to_owned())),
        }
    }
    Ok(None)
}

/// A backend that this module reads beside redb.
#[derive(Debug)]
struct Shared(Arc<dyn StorageBackend>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

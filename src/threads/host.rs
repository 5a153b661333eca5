//! A host: threads that many engines of one process share.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::crew::Crew;
use super::start;
use crate::sync::thread;

/// Options of a [`Host`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct HostConfig {
    workers: Option<NonZeroUsize>,
    writers: Option<NonZeroUsize>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl HostConfig {
    /// Makes the default options: 2 threads for each core, and 3 more.
    pub fn new() -> Self {
        Self { workers: None, writers: None }
    }

    /// Sets the number of threads that apply. Default: one for each core. As many slow state
    /// machines delay no other engine; with more of them, engines wait for a free thread.
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets the number of threads that write and sync logs, which is the number of syncs under way
    /// at once. Default: one for each core, and 2 more.
    pub fn writers(mut self, writers: NonZeroUsize) -> Self {
        self.writers = Some(writers);
        self
    }
}

/// Threads that many engines of one process share, in place of threads for each engine.
///
/// An engine joins by [`ApplyConfig::host`](crate::ApplyConfig::host). It is bound to no thread of
/// the host: any worker may apply its entries next, and one at a time does. Limits, durability and
/// failures stay with each engine. An idle engine takes no processor time.
///
/// A host is cheap to clone. Its threads run until the last clone is dropped and the last of its
/// engines is closed, in any order.
///
/// ```
/// use sprag::{ApplyConfig, ApplyManager, Host, HostConfig, MemoryConfig, MemoryStateMachine};
///
/// let host = Host::new(HostConfig::new())?;
/// let mut groups = Vec::new();
/// for _ in 0..10 {
///     let machine = MemoryStateMachine::new(MemoryConfig::new())?;
///     groups.push(ApplyManager::new(machine, ApplyConfig::new().host(&host))?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Host(Arc<Crews>);

impl Host {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// Returns the system's error if it has no thread left.
    pub fn new(config: HostConfig) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = config.workers.map_or(cores, NonZeroUsize::get);
        // More cores than can be counted are more than threads can be started.
        let writers = config.writers.map_or(cores.saturating_add(2), NonZeroUsize::get);
        let host = Self(Arc::new(Crews {
            workers: Arc::new(Crew::new()),
            writers: Arc::new(Crew::new()),
            tenders: Arc::new(Crew::new()),
            process: std::process::id(),
        }));
        // If a start fails, the drop of the host ends the threads before it.
        host.0.workers.man("sprag-work", workers)?;
        host.0.writers.man("sprag-sync", writers)?;
        host.0.tenders.man("sprag-tend", 1)?;
        Ok(host)
    }

    /// The threads that apply.
    pub(crate) fn workers(&self) -> &Arc<Crew> {
        &self.0.workers
    }

    /// The threads that write and sync logs, and make their segments ready.
    pub(crate) fn writers(&self) -> &Arc<Crew> {
        &self.0.writers
    }

    /// The thread that compacts, and fills stores from their snapshots.
    pub(crate) fn tenders(&self) -> &Arc<Crew> {
        &self.0.tenders
    }
}

/// The crews of one host. The drop asks their threads to end, and waits for none: the last holder
/// may be one of these threads.
#[derive(Debug)]
struct Crews {
    workers: Arc<Crew>,
    writers: Arc<Crew>,
    tenders: Arc<Crew>,
    /// The process that has the threads.
    process: u32,
}

impl Drop for Crews {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // This is a copy that `fork` made. It has no threads, and a thread of the parent may
            // have held the locks.
            return;
        }
        [&self.workers, &self.writers, &self.tenders].into_iter().for_each(|crew| crew.stop());
    }
}

impl Crew {
    /// Starts `count` threads of this crew.
    fn man(self: &Arc<Self>, name: &str, count: usize) -> io::Result<()> {
        for number in 0..count {
            let crew = Arc::clone(self);
            // The handle is dropped: the threads end by themselves after `Crew::stop`.
            drop(start(format!("{name}-{number}"), move || crew.work())?);
        }
        Ok(())
    }
}

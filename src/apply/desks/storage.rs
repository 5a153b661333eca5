//! The storage under a machine without our log: it alone decides what is durable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::pipeline::latency::Latency;
use crate::apply::signals::Signals;
use crate::contract::run::call_storage;
use crate::contract::staging::Staging;
use crate::error::{Poison, WaitError};
use crate::numbers::Mark;
use crate::progress::waiter;
use crate::progress::watermark::{Progress, Stage};
use crate::sync::{Mutex, Rank};

/// The syncs of a storage without our log, which callers share.
#[derive(Debug)]
pub(crate) struct StorageDesk {
    /// Admits one sync at a time.
    turn: Mutex<()>,
    progress: Arc<Progress>,
    signals: Arc<Signals>,
    latency: Arc<Latency>,
}

impl StorageDesk {
    pub(in crate::apply) fn new(
        (progress, signals, latency): (Arc<Progress>, Arc<Signals>, Arc<Latency>),
    ) -> Self {
        Self { turn: Mutex::new(Rank::StorageSyncTurn, ()), progress, signals, latency }
    }

    /// Blocks until the storage has committed `index`, and makes that durable.
    pub(in crate::apply) fn wait(
        &self,
        staging: &dyn Staging,
        index: u64,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        let began = Instant::now();
        waiter::wait(&self.progress, index, Stage::Written, timeout)?;
        self.sync(staging, Mark::through(index)).map_err(WaitError::Poisoned)?;
        let left = timeout.saturating_sub(began.elapsed());
        waiter::wait(&self.progress, index, Stage::Durable, left)
    }

    /// Makes the commits of the storage durable, unless entries up to `mark` are. A failure has
    /// poisoned the engine.
    pub(in crate::apply) fn sync(&self, staging: &dyn Staging, mark: Mark) -> Result<(), Poison> {
        if self.progress.durable_mark() >= mark {
            return Ok(());
        }
        let _turn = self.turn.lock();
        self.progress.poison.check()?;
        let durable = self.progress.durable_mark();
        // Another caller's sync during the wait may have been enough.
        if durable >= mark {
            return Ok(());
        }
        let stored = self.progress.written_mark();
        let first = durable.max(self.progress.base()).next();
        let what = || match stored.last() {
            Some(last) => format!("its storage did not make entries {first} to {last} durable"),
            None => "its storage did not sync".to_owned(),
        };
        let sync = || self.latency.sync_storage(staging);
        call_storage(first, what, sync).map_err(|poison| self.signals.fail(poison))?;
        self.progress.stored_durably_to(stored)
    }
}

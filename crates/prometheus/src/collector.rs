//! The collector: engines with their names, and the output of a scrape.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sprag::{ApplyStats, StatsReader};
use thiserror::Error;

use crate::families::FAMILIES;
use crate::samples::Samples;

/// A collector of engines' figures, which it reads when it is scraped. It is cheap to clone, and
/// each clone has the same engines.
///
/// Every series has the label `engine` with the name that the engine was added by. A dropped engine
/// is left out of the next scrape. A scrape costs one
/// [`ApplyManager::stats`](sprag::ApplyManager::stats) for each engine.
#[derive(Clone, Default)]
pub struct SpragCollector {
    engines: Arc<Mutex<Vec<Engine>>>,
}

#[derive(Clone)]
struct Engine {
    name: Arc<str>,
    reader: StatsReader,
}

/// Error of [`SpragCollector::add`]: the collector has a running engine of this name. Choose
/// another name, or drop that engine first.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the collector has an engine named {name:?} already, which is open: choose another name")]
pub struct EngineNameTaken {
    /// The name.
    pub name: String,
}

impl SpragCollector {
    /// Makes a collector without engines.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an engine. It replaces an engine of the same name that was dropped.
    ///
    /// # Errors
    ///
    /// Returns [`EngineNameTaken`] if an engine that is not dropped has the name; nothing was added
    /// then.
    pub fn add(&self, name: impl Into<String>, reader: StatsReader) -> Result<(), EngineNameTaken> {
        let name = name.into();
        let mut engines = self.lock();
        engines.retain(|engine| engine.reader.is_open());
        if engines.iter().any(|engine| *engine.name == name) {
            return Err(EngineNameTaken { name });
        }
        engines.push(Engine { name: name.into(), reader });
        Ok(())
    }

    /// Leaves an engine out of later scrapes. Returns whether there was one of this name.
    pub fn remove(&self, name: &str) -> bool {
        let mut engines = self.lock();
        let before = engines.len();
        engines.retain(|engine| *engine.name != *name);
        engines.len() < before
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Engine>> {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures of all engines that are open. A state machine may take time to return its
    /// figures, so the list is not locked meanwhile.
    fn read(&self) -> Vec<(Arc<str>, ApplyStats)> {
        let engines = self.lock().clone();
        let read = |engine: Engine| Some((engine.name, engine.reader.stats()?));
        engines.into_iter().filter_map(read).collect()
    }
}

impl Collector for SpragCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let engines = self.read();
        for family in FAMILIES {
            // A family without a sample is left out: no engine has that metric.
            let mut count = Samples::counting();
            engines.iter().try_for_each(|(_, stats)| (family.read)(stats, &mut count))?;
            if count.is_empty() {
                continue;
            }
            let metric = encoder.encode_descriptor(
                family.name,
                family.help,
                family.unit.as_ref(),
                family.kind,
            )?;
            let mut samples = Samples::encoding(metric, family);
            for (name, stats) in &engines {
                samples.of_engine(name);
                (family.read)(stats, &mut samples)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SpragCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.lock().iter().map(|engine| Arc::clone(&engine.name)).collect();
        f.debug_struct("SpragCollector").field("engines", &names).finish()
    }
}

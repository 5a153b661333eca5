//! The figures of sprag engines as Prometheus metrics.
//!
//! A [`SpragCollector`] reads [`ApplyManager::stats`](sprag::ApplyManager::stats) when it is
//! scraped. No thread runs between scrapes, and scraping needs nothing of an engine but its
//! counters. `docs/operating.md` lists every metric; `docs/metrics/` has a dashboard and alert
//! rules.
//!
//! ```
//! use prometheus_client::encoding::text;
//! use prometheus_client::registry::Registry;
//! use sprag::{ApplyConfig, ApplyManager, MemoryConfig, MemoryStateMachine};
//! use sprag_prometheus::SpragCollector;
//!
//! let machine = MemoryStateMachine::new(MemoryConfig::new())?;
//! let manager = ApplyManager::new(machine, ApplyConfig::new())?;
//!
//! let collector = SpragCollector::new();
//! collector.add("orders", manager.stats_reader())?;
//! let mut registry = Registry::default();
//! registry.register_collector(Box::new(collector.clone()));
//!
//! let mut scrape = String::new();
//! text::encode(&mut scrape, &registry)?;
//! assert!(scrape.contains("sprag_applied_entries_total{engine=\"orders\"} 0\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Register one collector in a process, and [add](SpragCollector::add) each engine to it. The text
//! format allows each metric once in a scrape, so two collectors in one registry would make it
//! invalid.

mod collector;
mod families;
mod samples;

pub use collector::{EngineNameTaken, SpragCollector};
#[doc(hidden)]
pub use families::{Described, described};

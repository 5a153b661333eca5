//! Helpers of the tests: the types of a key-value node, and opening its store.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests; each file uses its own part of this"
)]

#[path = "../../../../tests/common/acting_disk.rs"]
pub mod acting_disk;
#[path = "../../../openraft-09/tests/common/held.rs"]
pub mod held;
#[path = "../../../openraft-09/tests/common/kinds.rs"]
pub mod kinds;

use std::path::Path;

use openraft::declare_raft_types;
use sprag::IoBackend;
use sprag_openraft::{KeyValue, Request, Response, Store};

pub use kinds::{Kind, apply_config, check_io, config, small};

declare_raft_types!(
    /// A key-value node.
    pub Data: D = Request, R = Response
);

pub type KvStore<M> = Store<Data, KeyValue<M>>;

/// Opens a store, and checks that its log is written in the way that is asked for.
pub fn open_store<M: Kind>(path: &Path, workers: usize, io: IoBackend) -> KvStore<M> {
    let machine = M::open(config(path).io(io), &path.with_extension("storage")).unwrap();
    let store = Store::new(machine, apply_config(workers)).unwrap();
    check_io(&store.handle.stats(), io);
    store
}

//! Types of a node: a put of a key and a value, which is answered by nothing but its commit.

use std::fmt;
use std::sync::Arc;

use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use serde::{Deserialize, Serialize};
use sprag::{Command, CommandRef, Reply};
use sprag_openraft::KeyValueData;

openraft::declare_raft_types!(
    /// A node of the comparison.
    pub(crate) Types: D = Put, R = Committed
);

pub(crate) type Entry = EntryOf<Types>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;

/// The answer to a put.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Committed;

impl From<Reply> for Committed {
    fn from(_: Reply) -> Self {
        Self
    }
}

/// A put. Its bytes are shared: a copy of the entry copies a pointer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u8>", into = "Vec<u8>")]
pub(crate) struct Put(Arc<[u8]>);

pub(crate) type Key = [u8; Put::KEY_BYTES];

impl Put {
    pub(crate) const KEY_BYTES: usize = 16;

    pub(crate) fn new(key: &Key, value: &[u8]) -> Self {
        Self([&key[..], value].concat().into())
    }

    pub(crate) fn key(&self) -> Key {
        let mut key = Key::default();
        key.copy_from_slice(&self.0[..Self::KEY_BYTES]);
        key
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.0[Self::KEY_BYTES..]
    }

    /// Key and value.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Put {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<Put> for Vec<u8> {
    fn from(put: Put) -> Self {
        put.0.to_vec()
    }
}

impl KeyValueData for Put {
    fn command<'a>(&'a self, _: &'a mut Vec<Command<'a>>) -> Command<'a> {
        Command::put(&self.0[..Self::KEY_BYTES], self.value())
    }

    fn from_command(command: &CommandRef<'_>) -> Option<Self> {
        match command {
            CommandRef::Put { key, value } => Some(Self([*key, value.bytes].concat().into())),
            _ => None,
        }
    }
}

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a put of {} bytes", self.0.len())
    }
}

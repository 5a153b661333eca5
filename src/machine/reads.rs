//! The read calls that both built-in machines share.

/// The read calls of a machine with a `state` of keys and values and a `journal`.
macro_rules! key_value_reads {
    ($machine:ident) => {
        impl $machine {
            /// Refuses reads after a failure: the state may be ahead of the durable entries.
            #[inline]
            fn check(&self) -> Result<(), $crate::error::ReadError> {
                self.journal.poison().check().map_err($crate::error::ReadError::Poisoned)
            }

            /// The value of `key`; `None` if it has none. Values of up to 128 bytes are copied.
            /// Longer ones are shared, unless they had to be copied.
            ///
            /// # Errors
            ///
            /// Returns [`ReadError::Poisoned`](crate::error::ReadError::Poisoned) after the engine
            /// has failed. Returns [`ReadError::Snapshot`](crate::error::ReadError::Snapshot) if
            /// the read needs a part of the opened snapshot that cannot be read back.
            #[inline]
            pub fn get(
                &self,
                key: &[u8],
            ) -> Result<Option<$crate::contract::value::Value>, $crate::error::ReadError> {
                self.check()?;
                self.state.get(key)
            }

            /// The result of `read` over the value of `key`; `None`, without a call of `read`, if
            /// it has none. No lock is held meanwhile.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            #[inline]
            pub fn get_with<R>(
                &self,
                key: &[u8],
                read: impl FnOnce(&[u8]) -> R,
            ) -> Result<Option<R>, $crate::error::ReadError> {
                self.check()?;
                self.state.get_with(key, read)
            }

            /// Replaces the content of `out` by the value of `key` (by nothing if it has none).
            /// Returns whether it has one.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn get_into(
                &self,
                key: &[u8],
                out: &mut Vec<u8>,
            ) -> Result<bool, $crate::error::ReadError> {
                self.check()?;
                self.state.get_into(key, out)
            }

            /// Whether `key` has a value.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn contains(&self, key: &[u8]) -> Result<bool, $crate::error::ReadError> {
                self.check()?;
                self.state.contains(key)
            }

            /// Number of keys with a value: exact while nothing is being applied. The call takes a
            /// moment for each 2,048 keys. After an opening from a snapshot, it first puts the rest
            /// of that into the store.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn len(&self) -> Result<usize, $crate::error::ReadError> {
                self.check()?;
                self.state.len()
            }

            /// Whether no key has a value. The call costs as much as `len`.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn is_empty(&self) -> Result<bool, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.len()? == 0)
            }

            /// The value of the note `name`, which a batch has set.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn note(&self, name: &[u8]) -> Result<Option<Vec<u8>>, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.note(name))
            }

            /// The newest membership applied, and the log id of its entry.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn membership(
                &self,
            ) -> Result<Option<($crate::entry::LogId, Vec<u8>)>, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.membership())
            }

            /// All keys and their values, sorted by key: for exports and digests. All are of one
            /// index only while nothing is being applied. The call takes memory for every key, and
            /// for values of up to 128 bytes. After an opening from a snapshot, it first puts the
            /// rest of that into the store.
            ///
            /// # Errors
            ///
            /// Returns the errors of `get`.
            pub fn scan_sorted(
                &self,
            ) -> Result<Vec<(Box<[u8]>, $crate::contract::value::Value)>, $crate::error::ReadError>
            {
                self.check()?;
                self.state.scan_sorted()
            }
        }

        impl crate::contract::view::Views for $machine {
            fn begin_view(&self) -> Result<(), $crate::error::SnapshotError> {
                self.state.begin_view()
            }

            fn reach_view_token(&self, partition: crate::ranges::partition::Partition) {
                self.state.reach_view_token(partition);
            }

            fn partitions_reached(&self) -> usize {
                self.state.partitions_reached()
            }

            fn finish_view(
                &self,
                hold: $crate::places::table::SegmentHold,
            ) -> Result<crate::contract::view::View, $crate::error::SnapshotError> {
                Ok(self.state.finish_view(self.journal.poison(), hold))
            }

            fn fill_some(&self) -> Result<bool, $crate::error::SnapshotError> {
                self.state.fill_some()
            }

            fn load(
                &self,
                snapshot: &$crate::snapshot::Snapshot,
            ) -> Result<(), $crate::error::SnapshotError> {
                self.load_snapshot(snapshot)
            }

            fn check_sources(
                &self,
                stopping: &dyn Fn() -> bool,
            ) -> Result<bool, $crate::error::SnapshotError> {
                self.check_what_is_read(stopping)
            }

            fn let_go(
                &self,
                snapshot: &$crate::snapshot::Snapshot,
                below: $crate::numbers::SegmentNumber,
            ) -> Result<(), $crate::error::SnapshotError> {
                self.let_go_of(snapshot, below)
            }
        }
    };
}

pub(crate) use key_value_reads;

//! What both built-in machines are read by, written once.

/// The read calls of a machine with a `state` of keys and values and a `journal`.
macro_rules! key_value_reads {
    ($machine:ident) => {
        impl $machine {
            /// Refuses reads after a failure: the state may be ahead of what is durable.
            #[inline]
            fn check(&self) -> Result<(), $crate::error::ReadError> {
                Ok(self.journal.poison().check()?)
            }

            /// The value of `key`; `None` if it has none. Copies up to 128 bytes, shares more.
            ///
            /// # Errors
            ///
            /// [`ReadError::Poisoned`](crate::error::ReadError::Poisoned) after the engine has failed;
            /// [`ReadError::Snapshot`](crate::error::ReadError::Snapshot) where a part of the snapshot that the directory was
            /// opened from is needed, and does not read back.
            #[inline]
            pub fn get(
                &self,
                key: &[u8],
            ) -> Result<Option<$crate::Value>, $crate::error::ReadError> {
                self.check()?;
                self.state.get(key)
            }

            /// What `read` makes of the value of `key`; `None`, and `read` is not called, if it has none. No lock is held
            /// meanwhile.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn get_with<R>(
                &self,
                key: &[u8],
                read: impl FnOnce(&[u8]) -> R,
            ) -> Result<Option<R>, $crate::error::ReadError> {
                self.check()?;
                self.state.get_with(key, read)
            }

            /// Replaces what is in `out` by the value of `key` (by nothing if it has none) and says whether it has one.
            ///
            /// # Errors
            ///
            /// As `get`.
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
            /// As `get`.
            pub fn contains(&self, key: &[u8]) -> Result<bool, $crate::error::ReadError> {
                self.check()?;
                self.state.contains(key)
            }

            /// How many keys have a value: exact while nothing is being applied. Takes a moment for each 512 keys.
            /// After an opening from a snapshot it puts all that is left of that into the store first.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn len(&self) -> Result<usize, $crate::error::ReadError> {
                self.check()?;
                self.state.len()
            }

            /// Whether no key has a value. Costs what `len` does.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn is_empty(&self) -> Result<bool, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.len()? == 0)
            }

            /// The value of the note `name`, which a batch has set.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn note(&self, name: &[u8]) -> Result<Option<Vec<u8>>, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.note(name))
            }

            /// The newest membership applied, and the log id of its entry.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn membership(
                &self,
            ) -> Result<Option<($crate::LogId, Vec<u8>)>, $crate::error::ReadError> {
                self.check()?;
                Ok(self.state.membership())
            }

            /// All keys and their values, sorted by key: for exports and digests. One index only while nothing is
            /// being applied. Takes memory for every key and for values of up to 128 bytes. After an opening from a snapshot it
            /// puts all that is left of that into the store first.
            ///
            /// # Errors
            ///
            /// As `get`.
            pub fn scan_sorted(
                &self,
            ) -> Result<Vec<(Box<[u8]>, $crate::Value)>, $crate::error::ReadError> {
                self.check()?;
                self.state.scan_sorted()
            }
        }

        impl super::Views for $machine {
            fn begin_view(&self) -> Result<(), $crate::error::SnapshotError> {
                self.state.begin_view()
            }

            fn reach_view_token(&self, partition: super::Partition) {
                self.state.reach_view_token(partition);
            }

            fn partitions_reached(&self) -> usize {
                self.state.partitions_reached()
            }

            fn finish_view(
                &self,
                hold: $crate::log::table::SegmentHold,
            ) -> Result<super::View, $crate::error::SnapshotError> {
                Ok(self.state.finish_view(self.journal.poison(), hold))
            }

            fn fill_some(&self) -> Result<bool, $crate::error::SnapshotError> {
                self.state.fill_some()
            }

            fn load(
                &self,
                snapshot: &$crate::Snapshot,
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
                snapshot: &$crate::Snapshot,
                below: u32,
            ) -> Result<(), $crate::error::SnapshotError> {
                self.let_go_of(snapshot, below)
            }
        }
    };
}

pub(crate) use key_value_reads;

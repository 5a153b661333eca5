//! Apply: committed entries are applied from the log, which already has their bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sprag::error::SubmitError;
use sprag::{CommittedReplies, Rejection, Reply};

use crate::append::to_entry;
use crate::consensus::Consensus;
use crate::data::Scratch;
use crate::failure::{Action, Failure, Subject};
use crate::node::{Installs, NO_LIMIT, Node, blocking};

/// Most bytes of entries that are applied in the caller's thread at once. Short puts take some
/// 0.05 ms then, and the shortest commands of a batch less than 1 ms.
const HERE_BYTES_MAX: usize = 32 << 10;
/// Time after which a caller that applies lets other tasks of its thread run.
const HERE_TIME_MAX: Duration = Duration::from_micros(500);

impl<E: Consensus> Node<E> {
    /// Applies committed entries, and waits until they are in the state. Returns the replies of
    /// those for which `wants` returns true, given the position in `entries`, in order.
    ///
    /// The caller's thread applies entries of a built-in machine, a few at a time. Otherwise the
    /// workers apply the entries. Either way they are applied from the log. The caller's thread may
    /// wait for a page of a mapped file, where a command reads the value that was there.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`].
    pub async fn apply(
        self: &Arc<Self>,
        entries: &[E::Entry],
        wants: impl Fn(usize) -> bool + Send,
    ) -> Result<Vec<Reply>, Failure> {
        let mut replies = Vec::with_capacity(entries.len());
        let (mut at, mut began) = (0, Instant::now());
        while let Some(first) = entries.get(at) {
            let here = self.applies_here()?;
            if here && at > 0 && began.elapsed() > HERE_TIME_MAX {
                tokio::task::yield_now().await;
                began = Instant::now();
            }
            let first = E::log_id_of(first).index();
            // `at` has an entry.
            let rest = entries.get(at..).unwrap_or_default();
            let wanted =
                |index: u64| usize::try_from(index - first).is_ok_and(|offset| wants(at + offset));
            let (held, bytes) =
                self.count_held(rest, if here { HERE_BYTES_MAX } else { usize::MAX });
            // One entry may be a batch of very many commands.
            let here = here && bytes <= HERE_BYTES_MAX;
            let committed = match held {
                0 => None,
                held => self.commit(first..=first + held as u64 - 1, wanted, here)?,
            };
            let count = held.max(1);
            let before = replies.len();
            match committed {
                Some(committed) => {
                    let applied = committed.await;
                    let applied =
                        applied.map_err(Failure::of(Subject::StateMachine, Action::Write));
                    replies.extend(applied?);
                }
                None => {
                    // `count` is at most the length of `rest`.
                    let all = self.apply_only(rest.get(..count).unwrap_or_default()).await?;
                    let wanted =
                        all.into_iter().enumerate().filter(|(offset, _)| wants(at + offset));
                    replies.extend(wanted.map(|(_, reply)| reply));
                }
            }
            let indexes = (0..count).filter(|offset| wants(at + offset));
            let indexes = indexes.map(|offset| first + offset as u64);
            self.tell_rejected(first + count as u64, indexes, replies.iter_mut().skip(before));
            at += count;
        }
        self.installs.send_replace(Installs::Possible);
        Ok(replies)
    }

    fn applies_here(&self) -> Result<bool, Failure> {
        let log = self.manager.consensus().map_err(Failure::of(Subject::Log, Action::Write))?;
        Ok(log.applies_here())
    }

    /// Number of entries at the front that the log holds, without a gap, and their bytes. Of those
    /// in the tail, they are as many as fit `bytes_max`, and at least one. The bytes of others are
    /// not known, and count as `usize::MAX`.
    fn count_held(&self, entries: &[E::Entry], bytes_max: usize) -> (usize, usize) {
        let Some(first) = entries.first() else { return (0, 0) };
        let first = E::log_id_of(first).index();
        let tail = self.tail();
        let mut bytes = 0_usize;
        let is_next = |(at, entry): &(usize, &E::Entry)| {
            let log_id = E::log_id_of(entry);
            let Some((held, held_bytes)) = tail.log_id(log_id.index()) else { return false };
            // The tail's limit is far below.
            let with = bytes.saturating_add(held_bytes);
            let is_next = log_id.index() == first + *at as u64
                && held == log_id.to_sprag()
                && (*at == 0 || with <= bytes_max);
            if is_next {
                bytes = with;
            }
            is_next
        };
        let in_tail = entries.iter().enumerate().take_while(is_next).count();
        drop(tail);
        if in_tail > 0 {
            return (in_tail, bytes);
        }
        let is_next = |(at, entry): &(usize, &E::Entry)| {
            let log_id = E::log_id_of(entry);
            let held = self.manager.log().and_then(|log| log.log_id(log_id.index()));
            // `apply_only` takes what the log does not show, or returns the failure of the log.
            log_id.index() == first + *at as u64 && held.ok().flatten() == Some(log_id.to_sprag())
        };
        (entries.iter().enumerate().take_while(is_next).count(), usize::MAX)
    }

    /// Commits entries that the log holds. Returns `None` if a gap before them prevents that.
    fn commit(
        &self,
        indexes: std::ops::RangeInclusive<u64>,
        wants: impl Fn(u64) -> bool,
        here: bool,
    ) -> Result<Option<CommittedReplies>, Failure> {
        let failed = Failure::of(Subject::StateMachine, Action::Write);
        let log = self.manager.consensus().map_err(Failure::of(Subject::Log, Action::Write))?;
        let committed = match here {
            true => log.commit_here(indexes, wants),
            false => log.commit_with_replies(indexes, wants),
        };
        match committed {
            Ok(committed) => Ok(Some(committed)),
            Err(SubmitError::Gap { .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Applies entries that the log does not hold, which no running cluster asks for. The machine
    /// gets them for the state only.
    async fn apply_only(self: &Arc<Self>, entries: &[E::Entry]) -> Result<Vec<Reply>, Failure> {
        let (node, entries) = (Arc::clone(self), entries.to_vec());
        let apply = move || {
            let mut scratches: Vec<_> = entries.iter().map(|_| Scratch::default()).collect();
            let mut ours = Vec::with_capacity(entries.len());
            for (entry, scratch) in entries.iter().zip(&mut scratches) {
                let ours_of = to_entry::<E>(entry, scratch);
                ours.push(ours_of.map_err(Failure::of(Subject::StateMachine, Action::Write))?);
            }
            let log = node.manager.consensus();
            let log = log.map_err(Failure::of(Subject::StateMachine, Action::Write))?;
            let mut replies = Vec::new();
            let applied = log.apply_only(&ours, NO_LIMIT, &mut replies);
            applied.map_err(Failure::of(Subject::StateMachine, Action::Write))?;
            Ok(replies)
        };
        blocking(Subject::StateMachine, apply).await
    }

    /// Fills in the replies of commands before `end` that could not be entries, and forgets these.
    fn tell_rejected<'r>(
        &self,
        end: u64,
        indexes: impl Iterator<Item = u64>,
        replies: impl Iterator<Item = &'r mut Reply>,
    ) {
        let mut rejected = self.rejected();
        if rejected.is_empty() {
            return;
        }
        for (index, reply) in indexes.zip(replies) {
            if rejected.contains(&index) {
                *reply = Reply::Rejected(Rejection::Unsupported);
            }
        }
        let later = rejected.split_off(&end);
        *rejected = later;
    }
}

//! The reference: the results of a log, one entry at a time, on one worker.

use std::num::NonZeroUsize;

use super::log::{Log, with_entries};
use super::{Check, Failure, Subject};
use crate::config::ApplyConfig;
use crate::contract::machine::StateMachine;
use crate::entry::{LogId, Reply};
use crate::error::{OpenError, Poison, SubmitError};
use crate::testing::Stepped;

/// Replies and states of a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// The reply of each entry.
    replies: Vec<Reply>,
    /// The state after each number of entries, from none to all.
    digests: Vec<Vec<u8>>,
    /// The applied entry according to the engine, and to the machine itself, for the same numbers.
    applied: Vec<[Option<LogId>; 2]>,
    /// [`reply_bytes_max`](StateMachine::reply_bytes_max) of a machine without state.
    reply_bytes_max: usize,
}

impl Reference {
    /// Takes the reference from two machines, and compares them.
    pub(super) fn take_twice<S: Subject>(subject: &S, log: &Log) -> Result<Self, Failure> {
        let one = Self::take(subject, log)?;
        let other = Self::take(subject, log)?;
        let what = "of two machines given the same entries one at a time";
        if one.digests.first() != other.digests.first() {
            let what = format!("{what}: the states differ before the first");
            return Err(Failure::new(Check::Determinism, None, what));
        }
        for (count, reply) in other.replies.iter().enumerate() {
            one.compare_reply(Check::Determinism, log, count, reply)
                .and_then(|()| {
                    let digest = other.digests.get(count + 1).map_or(&[][..], Vec::as_slice);
                    one.compare(Check::Determinism, log, count + 1, digest)
                })
                .map_err(|failure| failure.during(what))?;
        }
        Ok(one)
    }

    fn take<S: Subject>(subject: &S, log: &Log) -> Result<Self, Failure> {
        let check = Check::Determinism;
        let engine = stepped(check, subject.machine(), log, 1, 1)?;
        let machine = engine.machine();
        let mut reference = Self {
            replies: Vec::with_capacity(log.len()),
            digests: vec![subject.digest(machine)],
            applied: vec![[engine.applied(), machine.applied()]],
            reply_bytes_max: machine.reply_bytes_max(),
        };
        for count in 0..log.len() {
            submit(check, &engine, log, count, count + 1)?;
            engine.run_until_idle();
            check_poison(check, &engine)?;
            let index = log.last_of(count + 1).map_or(0, |last| last.index);
            reference.replies.push(engine.reply(index));
            reference.digests.push(subject.digest(machine));
            reference.applied.push([engine.applied(), machine.applied()]);
        }
        reference.check_reply_bytes_max(check, log, machine)?;
        Ok(reference)
    }

    /// Compares the reply to entry number `at`, from 0.
    pub(super) fn compare_reply(
        &self,
        check: Check,
        log: &Log,
        at: usize,
        reply: &Reply,
    ) -> Result<(), Failure> {
        let expected = self.replies.get(at);
        if expected == Some(reply) {
            return Ok(());
        }
        let index = log.last_of(at + 1).map(|last| last.index);
        let expected = expected.map_or("nothing".to_owned(), |reply| format!("{reply:?}"));
        Err(Failure::new(check, index, format!("replied {reply:?}, must be {expected}")))
    }

    /// Compares the state after the first `count` entries.
    pub(super) fn compare(
        &self,
        check: Check,
        log: &Log,
        count: usize,
        digest: &[u8],
    ) -> Result<(), Failure> {
        let expected = self.digests.get(count).map_or(&[][..], Vec::as_slice);
        if digest == expected {
            return Ok(());
        }
        let (len, must) = (digest.len(), expected.len());
        let same = digest.iter().zip(expected).take_while(|(one, other)| one == other).count();
        let what = format!(
            "after {count} entries the state differs from what one entry at a time comes to, from byte {same} of the digest on ({len} bytes, must be {must})"
        );
        Err(Failure::new(check, log.last_of(count).map(|last| last.index), what))
    }

    pub(super) fn check_rejections(&self, log: &Log) -> Result<(), Failure> {
        let around = self.digests.iter().zip(self.digests.iter().skip(1));
        for (at, (reply, (before, after))) in self.replies.iter().zip(around).enumerate() {
            if matches!(reply, Reply::Rejected(_)) && before != after {
                let index = log.last_of(at + 1).map(|last| last.index);
                let what = format!("replied {reply:?}, and the state changed all the same");
                return Err(Failure::new(Check::Rejection, index, what));
            }
        }
        Ok(())
    }

    /// Checks that a machine's declaration does not depend on its state: room is taken for it once.
    pub(super) fn check_reply_bytes_max<M: StateMachine>(
        &self,
        check: Check,
        log: &Log,
        machine: &M,
    ) -> Result<(), Failure> {
        let (must, is) = (self.reply_bytes_max, machine.reply_bytes_max());
        if must == is {
            return Ok(());
        }
        let index = log.last_of(log.len()).map(|last| last.index);
        let what = format!("reply_bytes_max() is {is} with state, and was {must} without");
        Err(Failure::new(check, index, what))
    }

    pub(super) fn check_applied(&self, log: &Log) -> Result<(), Failure> {
        for (count, [engine, own]) in self.applied.iter().enumerate() {
            compare_applied(log, count, *engine)?;
            self.compare_own_applied(log, count, *own)?;
        }
        Ok(())
    }

    /// Compares the machine's own applied entry: it must always be `None`, or exact.
    pub(super) fn compare_own_applied(
        &self,
        log: &Log,
        count: usize,
        own: Option<LogId>,
    ) -> Result<(), Failure> {
        let keeps_count = self.applied.iter().any(|[_, own]| own.is_some());
        if keeps_count || own.is_some() { compare_applied(log, count, own) } else { Ok(()) }
    }
}

/// Compares the applied entry after the first `count` entries.
pub(super) fn compare_applied(
    log: &Log,
    count: usize,
    applied: Option<LogId>,
) -> Result<(), Failure> {
    let must = log.last_of(count);
    if applied == must {
        return Ok(());
    }
    let say = |log_id: Option<LogId>| log_id.map_or("None".to_owned(), |id| id.to_string());
    let what =
        format!("after {count} entries applied() is {}, must be {}", say(applied), say(must));
    Err(Failure::new(Check::Applied, must.map(|last| last.index), what))
}

/// An engine without threads, whose replies stay for a whole log.
pub(super) fn stepped<M: StateMachine>(
    check: Check,
    machine: Result<M, OpenError>,
    log: &Log,
    workers: usize,
    batch_size: usize,
) -> Result<Stepped<M>, Failure> {
    let workers = NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN);
    let config = ApplyConfig::new().worker_count(workers).batch_size(batch_size);
    let config = config.pipeline_depth(log.len());
    let failed = |error| Failure::new(check, None, format!("opening: {error}"));
    Stepped::new(machine.map_err(failed)?, config).map_err(failed)
}

/// Submits entries number `from` up to and without `to` to `engine`, and steps it whenever it is
/// full.
pub(super) fn submit<M: StateMachine>(
    check: Check,
    engine: &Stepped<M>,
    log: &Log,
    from: usize,
    to: usize,
) -> Result<(), Failure> {
    let part = log.part(from, to);
    let outcome = with_entries(part, |entries| match engine.apply_entries(entries) {
        Err(SubmitError::Full { .. }) => {
            engine.run_until_idle();
            engine.apply_entries(entries)
        }
        outcome => outcome,
    });
    let index = part.first().map(|first| first.log_id.index);
    match outcome {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(SubmitError::Poisoned(poison))) => Err(poisoned(check, &poison)),
        Ok(Err(error)) => Err(Failure::new(check, index, format!("submitting: {error}"))),
        Err((index, what)) => Err(Failure::new(check, index, what)),
    }
}

/// Returns a failure if the machine has failed.
pub(super) fn check_poison<M: StateMachine>(
    check: Check,
    engine: &Stepped<M>,
) -> Result<(), Failure> {
    engine.poison().map_or(Ok(()), |poison| Err(poisoned(check, &poison)))
}

pub(super) fn poisoned(check: Check, poison: &Poison) -> Failure {
    let index = match poison {
        Poison::Panic { index } | Poison::Fatal { index, .. } => Some(*index),
        _ => None,
    };
    Failure::new(check, index, format!("the engine failed: {poison}"))
}

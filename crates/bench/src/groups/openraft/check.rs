//! The plain log is a limit only if its own thread costs little: this holds it against the bare
//! calls.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, LogId};

use super::cluster::put;
use super::gather::Gathered;
use super::log::Log;
use super::types::{Entry, Types};
use super::wal::{self, Wal};

/// Most that an append to its callback may take, in parts of `pwrite` and `fdatasync`.
const MOST: f64 = 1.1;
const FILE_BYTES: u64 = 1 << 20;
const CALLS: usize = 1_000;
/// Calls of one kind in a row.
const OF_BLOCK: u64 = 25;
/// A disk whose syncs wander can fail the check once; three times in a row it is the log.
const TRIES: usize = 3;

/// Compares medians of blocks of calls that alternate. Fails if the plain log is more than a tenth
/// behind.
pub(super) fn plain_log_is_near_the_bare_calls(dir: &Path) -> Result<()> {
    let mut last = 0.0;
    for _ in 0..TRIES {
        let (bare, log) = medians(dir)?;
        last = log.as_secs_f64() / bare.as_secs_f64();
        eprintln!("  pwrite + fdatasync {bare:?}, the plain log alone {log:?}: {last:.3}");
        if last <= MOST {
            return Ok(());
        }
    }
    bail!(
        "the plain log takes {last:.2} times the bare calls: it is no limit, and a full run is refused"
    )
}

fn medians(dir: &Path) -> Result<(Duration, Duration)> {
    let bare = wal::prepared(&dir.join("openraft-bare"), FILE_BYTES)?;
    let mut log =
        Log::new(Arc::new(Gathered::start(Wal::create(&dir.join("openraft-alone"), FILE_BYTES)?)?));
    let mut times = [Vec::new(), Vec::new()];
    let mut at = 0;
    for call in 0..CALLS as u64 {
        // The plain log is asked as often in a row as the bare calls, as a node would ask it.
        if (call / OF_BLOCK).is_multiple_of(2) {
            let bytes = [&[0; 46][..], put(call).bytes()].concat();
            let began = Instant::now();
            write(&bare, at, &bytes)?;
            times[0].push(began.elapsed());
            at += bytes.len() as u64;
        } else {
            times[1].push(append(&mut log, call)?);
        }
    }
    let [bare, log] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    Ok((bare, log))
}

/// Appends an entry with one put. Returns the time until its callback is called.
fn append(log: &mut Log<Gathered<Wal>>, index: u64) -> Result<Duration> {
    let leader_id = openraft::impls::leader_id_adv::LeaderId { term: 1, node_id: 1 };
    let log_id = LogId { leader_id, index };
    let entry = Entry { log_id, payload: EntryPayload::Normal(put(index)) };
    let (sender, mut receiver) = Types::oneshot();
    let began = Instant::now();
    at_once(log.append([entry], IOFlushed::signal(sender)))?;
    // The time ends where the callback is called, not where a runtime has woken for it.
    let done = loop {
        if let Some(done) = now(&mut receiver) {
            break done;
        }
        std::hint::spin_loop();
    };
    let time = began.elapsed();
    done.map_err(io::Error::other)??;
    Ok(time)
}

/// The outcome of a future, if it has one now.
fn now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// The outcome of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let waits = || Err(io::Error::other("an append waited"));
    now(&mut pin!(future)).unwrap_or_else(waits)
}

fn write(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, at)?;
    file.sync_data()
}

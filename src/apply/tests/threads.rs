//! Tests of waits between threads, with each schedule played out: threads at gates, or only the
//! test's thread.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::apply::manager::ApplyManager;
use crate::apply::threads;
use crate::config::CommitMode;
use crate::disk::{Access, Completion, Disk, DiskFile, LogWrite, WriteQueue};
use crate::error::{LogError, OpenError, Poison, SnapshotError, WaitError};
use crate::progress::watermark::Stage;
use crate::snapshot::SnapshotReceiver;
use crate::testing::SimDisk;
use crate::threads::Step;
use crate::{
    ApplyConfig, CommandRef, CompactionPolicy, Entry, EntryRange, Fatal, Footprint, Journaled,
    LogId, MemoryConfig, MemoryStateMachine, Partition, PayloadRef, PersistentConfig,
    PersistentStateMachine, Replies, Reply, SnapshotSink, SnapshotSource, StateMachine,
};

type Applied = Result<(), Fatal>;

/// Long enough for anything that is not stuck.
const LONG: Duration = Duration::from_secs(20);

/// The thread's end of a gate: it reports its arrival, and waits until the keeper opens.
#[derive(Debug)]
struct Gate {
    come: SyncSender<()>,
    open: Receiver<()>,
}

/// The keeper's end of a gate.
struct Keeper {
    come: Receiver<()>,
    open: SyncSender<()>,
}

fn gate() -> (Gate, Keeper) {
    let ((come_in, come_out), (open_in, open_out)) = (sync_channel(1), sync_channel(1));
    (Gate { come: come_in, open: open_out }, Keeper { come: come_out, open: open_in })
}

impl Gate {
    fn pass(&self) {
        self.come.send(()).unwrap();
        // The keeper may have waited for two things before it opens.
        self.open.recv_timeout(3 * LONG).unwrap();
    }
}

/// A disk with a gate at one place, to be passed once.
#[derive(Debug)]
struct GatedDisk {
    disk: Arc<dyn Disk>,
    /// The gate before a write of the log that a caller waits for.
    writing: Mutex<Option<Gate>>,
    /// The gate before a file gets another name.
    renaming: Mutex<Option<Gate>>,
}

impl GatedDisk {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed).open(true).unwrap();
        Self { disk, writing: Mutex::default(), renaming: Mutex::default() }
    }
}

#[derive(Debug)]
struct GatedQueue {
    queue: Box<dyn WriteQueue>,
    gate: Option<Gate>,
}

impl Disk for GatedDisk {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name, access)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if let Some(gate) = self.renaming.lock().unwrap().take() {
            gate.pass();
        }
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn queue(&self) -> io::Result<Box<dyn WriteQueue>> {
        let gate = self.writing.lock().unwrap().take();
        Ok(Box::new(GatedQueue { queue: self.disk.queue()?, gate }))
    }
}

impl WriteQueue for GatedQueue {
    fn backend(&self) -> &'static str {
        self.queue.backend()
    }

    fn depth(&self) -> usize {
        self.queue.depth()
    }

    fn submit(&mut self, write: LogWrite) {
        self.queue.submit(write);
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        if let Some(gate) = self.gate.take() {
            gate.pass();
        }
        self.queue.complete(wait)
    }
}

fn config() -> PersistentConfig {
    PersistentConfig::new("simulated").segment_bytes(64 << 10).expected_keys(16)
}

fn workers(count: usize) -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::new(count).unwrap()).pin_workers(false)
}

/// An embedder's machine that counts, with a hook for each entry.
#[derive(Debug, Default)]
struct Counter {
    count: AtomicU64,
    /// The hook, called once for each entry with its index.
    during: During,
    at_snapshot: Mutex<Option<Gate>>,
}

#[derive(Default)]
struct During(Option<Box<dyn Fn(u64) + Send + Sync>>);

impl fmt::Debug for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("During")
    }
}

impl Counter {
    fn during(during: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self { during: During(Some(Box::new(during))), ..Self::default() }
    }
}

impl StateMachine for Counter {
    fn apply(&self, range: &EntryRange<'_>, part: Partition, to: &mut Replies<'_>) -> Applied {
        for entry in range.entries(part) {
            let entry = entry?;
            let index = entry.log_id.index;
            if let During(Some(during)) = &self.during {
                during(index);
            }
            let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
            to.set(&entry, Reply::Counter(count.cast_signed()));
        }
        Ok(())
    }

    fn snapshot(&self, out: &mut dyn SnapshotSink) -> Result<(), SnapshotError> {
        if let Some(gate) = self.at_snapshot.lock().unwrap().take() {
            gate.pass();
        }
        let count = self.count.load(Ordering::Relaxed).to_le_bytes();
        out.write(&count).map_err(|error| SnapshotError::io("writing", "a count", error))
    }

    fn restore(&self, source: &mut dyn SnapshotSource) -> Result<(), SnapshotError> {
        let mut count = [0; 8];
        let read = source.read(&mut count);
        read.map_err(|error| SnapshotError::io("reading", "a count", error))?;
        self.count.store(u64::from_le_bytes(count), Ordering::Relaxed);
        Ok(())
    }
}

/// The same machine with a partition for the lowest keys and one for the highest.
#[derive(Debug)]
struct Keyed(Counter);

impl StateMachine for Keyed {
    fn footprint(&self, payload: &PayloadRef<'_>) -> Footprint {
        match payload {
            PayloadRef::Command(CommandRef::Put { key, .. }) => {
                Footprint::Key(u64::from(key[0]) << 49)
            }
            _ => Footprint::All,
        }
    }

    fn apply(&self, range: &EntryRange<'_>, part: Partition, to: &mut Replies<'_>) -> Applied {
        self.0.apply(range, part, to)
    }
}

#[test]
fn whoever_writes_the_log_itself_is_told_that_its_entry_was_truncated_meanwhile() {
    let (gate, keeper) = gate();
    let disk = GatedDisk { writing: Mutex::new(Some(gate)), ..GatedDisk::new(1) };
    let config = config().commit_mode(CommitMode::ByCommit);
    let machine = PersistentStateMachine::open_on_disk(Arc::new(disk), config).unwrap();
    let manager = ApplyManager::without_threads(machine, ApplyConfig::new()).unwrap();
    let _ = manager.consensus().unwrap().append(&[Entry::put(1, 1, b"key", b"old")]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| manager.wait_until(1, Stage::Durable, LONG));
        keeper.come.recv_timeout(LONG).unwrap();
        manager.consensus().unwrap().truncate_after(None).unwrap();
        let _ = manager.consensus().unwrap().append(&[Entry::put(1, 2, b"key", b"new")]).unwrap();
        keeper.open.send(()).unwrap();
        let waited = waiting.join().unwrap();
        assert!(matches!(waited, Err(WaitError::Truncated { index: 1 })), "{waited:?}");
    });
}

#[test]
fn nobody_is_told_that_the_log_is_durable_before_the_marks_say_so() {
    let (gate, keeper) = gate();
    let disk = GatedDisk { writing: Mutex::new(Some(gate)), ..GatedDisk::new(8) };
    let machine = PersistentStateMachine::open_on_disk(Arc::new(disk), config()).unwrap();
    let manager = ApplyManager::without_threads(machine, ApplyConfig::new()).unwrap();
    let _ = manager.apply_entries(&[Entry::put(1, 1, b"key", b"value")]).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| manager.wait_until(1, Stage::Durable, LONG));
        keeper.come.recv_timeout(LONG).unwrap();
        // The log writer is at the place where it moves the marks.
        let held = manager.engine.pipeline().progress().hold_log_marks();
        keeper.open.send(()).unwrap();
        let sync = || manager.engine.pipeline().log_desk().sync(Duration::from_millis(100));
        // Another thread: this one holds a lock of a higher rank than the call takes.
        let told = scope.spawn(sync).join().unwrap();
        assert!(matches!(told, Err(WaitError::Timeout { reached: None, .. })), "{told:?}");
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    manager.engine.pipeline().log_desk().sync(LONG).unwrap();
    assert_eq!(manager.stats().durable, Some(1));
}

#[test]
fn a_snapshot_of_a_machine_that_never_runs_dry_finds_its_moment() {
    // An entry ends when the next one waits for it.
    let (submitted, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (seen, over) = (Arc::clone(&submitted), Arc::clone(&ended));
    let machine = Counter::during(move |index| {
        while seen.load(Ordering::Acquire) <= index && !over.load(Ordering::Acquire) {
            thread::yield_now();
        }
    });
    let disk = SimDisk::new(2).open(true).unwrap();
    let machine = Journaled::open_on_disk(disk, config(), machine).unwrap();
    let manager = ApplyManager::new(machine, workers(1).pipeline_depth(8).batch_size(2)).unwrap();
    thread::scope(|scope| {
        let (manager, submitted, ended) = (&manager, &submitted, &ended);
        scope.spawn(move || {
            for index in 1.. {
                while manager.apply_entries(&[Entry::noop(index, 1)]).is_err() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    thread::yield_now();
                }
                submitted.store(index, Ordering::Release);
            }
        });
        let (done, result) = sync_channel(1);
        scope.spawn(move || {
            while manager.stats().applied.is_none() {
                thread::yield_now();
            }
            done.send(manager.snapshots().write().map(|report| report.log_id)).unwrap();
        });
        let taken = result.recv_timeout(LONG);
        manager.engine.pipeline().refuse_submissions();
        ended.store(true, Ordering::Release);
        assert!(taken.expect("it never came to it").unwrap().is_some());
    });
    // Entries that came meanwhile were not forgotten.
    let last = manager.stats().submitted.unwrap();
    manager.wait_for_apply(last, LONG).unwrap();
}

/// Gives `manager` all of a snapshot of entry 50, from another node.
fn received<M: StateMachine>(manager: &ApplyManager<M>) -> SnapshotReceiver {
    let disk = SimDisk::new(50).open(true).unwrap();
    let machine = Journaled::open_on_disk(disk, config(), Counter::default()).unwrap();
    let other = ApplyManager::new(machine, workers(1)).unwrap();
    let entries: Vec<Entry<'_>> = (1..=50).map(|index| Entry::noop(index, 1)).collect();
    let _ = other.apply_entries(&entries).unwrap();
    other.wait_for_apply(50, LONG).unwrap();
    other.snapshots().write().unwrap();
    let mut received = manager.snapshots().receive().unwrap();
    for piece in other.snapshots().newest().unwrap().unwrap().pieces(0, 1 << 20) {
        received.receive(&piece).unwrap();
    }
    received
}

#[test]
fn who_commits_while_an_installation_begins_gets_the_reply_of_its_entry() {
    let (gate, keeper) = gate();
    let gate = Mutex::new(Some(gate));
    let machine = Counter::during(move |_| {
        let gate = gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.pass();
        }
    });
    let disk = SimDisk::new(9).open(true).unwrap();
    let machine = Journaled::open_on_disk(disk, config(), machine).unwrap();
    let manager = ApplyManager::new(machine, workers(1)).unwrap();
    let snapshot = received(&manager);
    let _ = manager.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    keeper.come.recv_timeout(LONG).unwrap();
    thread::scope(|scope| {
        let manager = &manager;
        let installing = scope.spawn(move || manager.snapshots().install(snapshot, LONG));
        let committing = scope.spawn(move || {
            // Long enough for the installation to begin. Without it the sleep is useless, and the
            // assertions hold as well.
            thread::sleep(Duration::from_millis(50));
            manager.apply(&Entry::noop(2, 1), LONG)
        });
        while manager.stats().committed < Some(2) {
            thread::yield_now();
        }
        keeper.open.send(()).unwrap();
        assert_eq!(committing.join().unwrap().unwrap(), Reply::Counter(2));
        assert_eq!(installing.join().unwrap().unwrap().log_id, Some(LogId::new(50, 1)));
    });
    assert_eq!(manager.apply(&Entry::noop(51, 1), LONG).unwrap(), Reply::Counter(51));
}

#[test]
fn what_was_appended_is_read_while_the_log_writer_is_stuck_and_not_after_an_installation() {
    let (gate, keeper) = gate();
    let disk = GatedDisk { writing: Mutex::new(Some(gate)), ..GatedDisk::new(10) };
    let config = config().commit_mode(CommitMode::ByCommit);
    let machine = Journaled::open_on_disk(Arc::new(disk), config, Counter::default()).unwrap();
    let manager = ApplyManager::new(machine, workers(1)).unwrap();
    let snapshot = received(&manager);
    let entries: Vec<Entry<'_>> = (1..=100).map(|index| Entry::noop(index, 2)).collect();
    let _ = manager.consensus().unwrap().append(&entries).unwrap();
    keeper.come.recv_timeout(LONG).unwrap();
    let read = manager.log().unwrap().entries(90..=100, usize::MAX).unwrap();
    assert_eq!((read.len(), read.last()), (11, Some(LogId::new(100, 2))));
    keeper.open.send(()).unwrap();
    manager.snapshots().install(snapshot, LONG).unwrap();
    let read = manager.log().unwrap().entries(90..=100, usize::MAX);
    assert!(matches!(read, Err(LogError::NotInLog { .. })), "{read:?}");
}

#[test]
fn what_was_flushed_waits_for_room_and_then_not_for_more() {
    let disk = SimDisk::new(11).open(true).unwrap();
    let by_commit = config().commit_mode(CommitMode::ByCommit);
    let machine = Journaled::open_on_disk(disk, by_commit, Counter::default()).unwrap();
    let held_back = Duration::from_secs(1 << 20);
    let config = workers(1).pipeline_depth(64).batch_size(64).batch_timeout(held_back);
    let manager = ApplyManager::without_threads(machine, config).unwrap();
    let entries: Vec<Entry<'_>> = (1..=100).map(|index| Entry::noop(index, 1)).collect();
    let _ = manager.consensus().unwrap().append(&entries).unwrap();
    manager.consensus().unwrap().commit(100).unwrap();
    manager.engine.pipeline().feed_now().unwrap();
    // The rings are full: less than a range is left.
    while manager.engine.pipeline().step_worker(0) == Step::Worked {}
    assert_eq!(manager.stats().applied, Some(100));
}

#[test]
fn the_newest_snapshot_is_read_while_the_next_one_is_written() {
    let disk = Arc::new(GatedDisk::new(12));
    let machine =
        Journaled::open_on_disk(Arc::clone(&disk) as _, config(), Counter::default()).unwrap();
    let manager = ApplyManager::new(machine, workers(1)).unwrap();
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    manager.snapshots().write().unwrap();
    manager.apply(&Entry::noop(2, 1), LONG).unwrap();
    let (gate, keeper) = gate();
    *disk.renaming.lock().unwrap() = Some(gate);
    thread::scope(|scope| {
        let manager = &manager;
        let taking = scope.spawn(move || manager.snapshots().write().unwrap().log_id);
        keeper.come.recv_timeout(LONG).unwrap();
        let (done, result) = sync_channel(1);
        scope.spawn(move || done.send(manager.snapshots().newest().unwrap().unwrap().log_id()));
        let newest = result.recv_timeout(Duration::from_secs(5));
        keeper.open.send(()).unwrap();
        assert_eq!(newest.expect("it waits for the next one"), Some(LogId::new(1, 1)));
        assert_eq!(taking.join().unwrap(), Some(LogId::new(2, 1)));
    });
}

#[test]
fn apply_goes_on_while_a_snapshot_of_a_machine_of_ones_own_becomes_durable() {
    let (gate, keeper) = gate();
    let disk = GatedDisk::new(3);
    let disk = Arc::new(GatedDisk { renaming: Mutex::new(Some(gate)), ..disk });
    let machine = Journaled::open_on_disk(disk, config(), Counter::default()).unwrap();
    let manager = ApplyManager::new(machine, workers(2)).unwrap();
    manager.apply(&Entry::noop(1, 1), LONG).unwrap();
    thread::scope(|scope| {
        let taking = scope.spawn(|| manager.snapshots().write().unwrap().log_id);
        keeper.come.recv_timeout(LONG).unwrap();
        let applied = manager.apply(&Entry::noop(2, 1), LONG);
        keeper.open.send(()).unwrap();
        assert_eq!(taking.join().unwrap(), Some(LogId::new(1, 1)));
        applied.unwrap();
    });
}

/// A machine that stops at a gate with the entry of index 1 and then, in another partition, panics
/// at index 2.
fn stuck_and_broken(gate: Gate) -> Counter {
    let (gate, stuck) = (Mutex::new(Some(gate)), AtomicBool::new(false));
    Counter::during(move |index| match index {
        1 => {
            let gate = gate.lock().unwrap().take();
            stuck.store(true, Ordering::Release);
            gate.unwrap().pass();
        }
        2 => {
            while !stuck.load(Ordering::Acquire) {
                thread::yield_now();
            }
            panic!("told to")
        }
        _ => {}
    })
}

#[test]
fn closing_after_a_failure_does_not_wait_for_a_worker_that_is_stuck_in_the_machine() {
    for closes in [true, false] {
        let (gate, keeper) = gate();
        let machine = Keyed(stuck_and_broken(gate));
        let config = workers(2).close_timeout(Duration::from_millis(50));
        let manager = ApplyManager::new(machine, config).unwrap();
        let (one, other) = ([0_u8], [u8::MAX]);
        let entries = [Entry::put(1, 1, &one, b""), Entry::put(2, 1, &other, b"")];
        let _ = manager.apply_entries(&entries).unwrap();
        keeper.come.recv_timeout(LONG).unwrap();
        let failed = manager.wait_for_apply(2, LONG);
        assert!(matches!(failed, Err(WaitError::Poisoned(_))), "{failed:?}");
        let (done, result) = sync_channel(1);
        let closing = thread::spawn(move || {
            let closed = if closes {
                manager.close(Duration::from_millis(50)).map_err(|error| error.to_string())
            } else {
                drop(manager);
                Ok(())
            };
            done.send(closed).unwrap();
        });
        let closed = result.recv_timeout(LONG);
        keeper.open.send(()).unwrap();
        let closed = closed.expect("it waits for the one that is stuck");
        assert_eq!(closed.is_err_and(|error| error.contains("panicked")), closes);
        closing.join().unwrap();
    }
}

#[test]
fn closing_does_not_outlast_its_timeout_while_the_engine_takes_a_snapshot_of_the_users_machine() {
    let (gate, keeper) = gate();
    let machine = Counter { at_snapshot: Mutex::new(Some(gate)), ..Counter::default() };
    let disk = SimDisk::new(4);
    // A compaction is due when all of them are applied.
    let config = config().compaction(CompactionPolicy::new().entries(4));
    let open = |machine| Journaled::open_on_disk(disk.open(true)?, config.clone(), machine);
    let manager = ApplyManager::new(open(machine).unwrap(), workers(1)).unwrap();
    // The entries take more than a segment, so that there is something to give up.
    for index in 1..=4 {
        manager.apply(&Entry::put(index, 1, b"key", &[7; 30 << 10]), LONG).unwrap();
    }
    keeper.come.recv_timeout(LONG).unwrap();
    let (done, result) = sync_channel(1);
    let closing = thread::spawn(move || {
        done.send(manager.close(Duration::from_millis(200)).is_err()).unwrap();
    });
    let closed = result.recv_timeout(LONG);
    keeper.open.send(()).unwrap();
    assert!(closed.expect("it waits for the snapshot"), "not all of it has ended");
    closing.join().unwrap();
    // The abandoned thread releases the directory, and leaves it in order.
    let began = Instant::now();
    let again = loop {
        match open(Counter::default()) {
            Err(OpenError::Locked { .. }) if began.elapsed() < LONG => thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(again.applied(), Some(LogId::new(4, 1)));
}

#[test]
fn batch_timeout_holds_up_no_call_that_is_applied_inline() {
    let machine = MemoryStateMachine::new(MemoryConfig::new()).unwrap();
    // Use no threads: an entry would be handed over to a worker that looks for work at this moment.
    let config = workers(1).batch_timeout(Duration::from_secs(1 << 20));
    let manager = ApplyManager::without_threads(machine, config).unwrap();
    for index in 1..=3 {
        // Nothing else is pending, so nothing is handed over.
        manager.apply(&Entry::noop(index, 1), LONG).unwrap();
    }
}

#[test]
fn a_worker_goes_to_sleep_for_a_time_when_an_entry_is_held_back_after_it_had_looked() {
    let config = workers(1).batch_size(8).batch_timeout(Duration::from_secs(1 << 20));
    let manager = ApplyManager::without_threads(Counter::default(), config).unwrap();
    let engine = &manager.engine;
    let longest = threads::worker_sleeps(engine);
    assert_eq!(longest, None, "nothing is there");
    assert!(!threads::worker_wakes(engine, 0, longest));
    let _ = manager.apply_entries(&[Entry::noop(1, 1)]).unwrap();
    assert!(engine.pipeline().workers().rings().is_empty(0), "it is held back");
    assert!(threads::worker_wakes(engine, 0, longest), "it would sleep for good");
    let longest = threads::worker_sleeps(engine);
    assert!(longest.is_some() && !threads::worker_wakes(engine, 0, longest));
    engine.pipeline().signals().fail(Poison::Internal("of a test"));
    engine.pipeline().progress().wake_tasks(); // That tells the failure, and nothing is left to do.
    assert!(threads::worker_sleeps(engine).is_none() && !threads::worker_wakes(engine, 0, None));
}

#[test]
fn entries_that_wait_for_the_slots_of_kept_replies_are_applied_once_these_are_copied_out() {
    let config = config().commit_mode(CommitMode::ByCommit);
    let disk = SimDisk::new(5).open(true).unwrap();
    let machine = PersistentStateMachine::open_on_disk(disk, config).unwrap();
    let manager = ApplyManager::new(machine, workers(1).pipeline_depth(4)).unwrap();
    let engine = &manager.engine;
    let mut claim = engine.pipeline().in_flight().claim(engine.pipeline());
    claim.begin(1);
    let entries: Vec<Entry<'_>> = (1..=20).map(|index| Entry::noop(index, 1)).collect();
    let _ = manager.consensus().unwrap().append(&entries).unwrap();
    manager.consensus().unwrap().commit(20).unwrap();
    let kept = engine.pipeline().in_flight().ring().capacity();
    manager.wait_until(kept, Stage::Applied, LONG).unwrap();
    // Long enough for the worker to sleep.
    let more = manager.wait_until(kept + 1, Stage::Applied, Duration::from_millis(100));
    assert!(matches!(more, Err(WaitError::Timeout { .. })), "{more:?}");
    drop(claim);
    manager.wait_until(20, Stage::Applied, LONG).unwrap();
}

#[test]
fn what_a_caller_applies_inline_wakes_no_worker() {
    let disk = SimDisk::new(13).open(true).unwrap();
    let logged = Journaled::open_on_disk(disk, config(), Counter::default()).unwrap();
    wakes_no_worker(&ApplyManager::new(logged, workers(2)).unwrap());
    wakes_no_worker(&ApplyManager::new(Counter::default(), workers(2)).unwrap());
}

fn wakes_no_worker<M: StateMachine>(manager: &ApplyManager<M>) {
    let all_asleep = || {
        let began = Instant::now();
        loop {
            let worker = |id| manager.engine.pipeline().signals().worker(id)?.wakes_when_asleep();
            if let (Some(first), Some(second)) = (worker(0), worker(1)) {
                return first + second;
            }
            assert!(began.elapsed() < LONG, "they do not sleep");
            thread::yield_now();
        }
    };
    let before = all_asleep();
    for index in 1..=100 {
        manager.apply(&Entry::noop(index, 1), LONG).unwrap();
    }
    assert_eq!(all_asleep(), before);
    // Workers with work left are woken.
    let _ = manager.apply_entries(&[Entry::noop(101, 1)]).unwrap();
    manager.wait_for_apply(101, LONG).unwrap();
    assert!(all_asleep() > before);
}

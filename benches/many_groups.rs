//! Many engines in one process: in a host, and with threads of their own, beside bare writes.
//!
//! Each group has one put of 16 + 100 bytes in flight, and one thread gives all groups their next.
//! The bare writes have a thread for each group: `pwrite` and `fdatasync` of 256 bytes in a file
//! that was written before. Each line is a process of its own.
//!
//! `cargo bench --bench many_groups -- GROUPS_MAX` (default 100).

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, missing_docs, reason = "a bench")]

use std::future::Future;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Wake};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use sprag::{
    Acknowledged, ApplyConfig, ApplyManager, Entry, Host, HostConfig, PersistentConfig,
    PersistentStateMachine,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LONG: Duration = Duration::from_secs(60);
const VALUE: [u8; 100] = [7; 100];
/// Puts of all groups together.
const PUTS: u64 = 4_000;

type Manager = ApplyManager<PersistentStateMachine>;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|of| of != "--bench").collect();
    if let [kind, groups] = &arguments[..] {
        return measure(kind, groups.parse().unwrap());
    }
    let most = arguments.first().map_or(100, |most| most.parse().unwrap());
    println!(
        "kind groups | open ms, idle: threads, KiB, descriptors, disk KiB | puts/s, syncs a put"
    );
    for groups in [1, 10, 100, 1_000].into_iter().filter(|groups| *groups <= most) {
        for kind in ["host", "own", "bare"] {
            let child = Command::new(env::current_exe().unwrap())
                .args([kind, &groups.to_string()])
                .status();
            assert!(child.unwrap().success(), "{kind}, {groups}");
        }
    }
}

fn measure(kind: &str, groups: u64) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    match kind {
        "bare" => bare(groups, directory.path()),
        "host" => engines(Some(&Host::new(HostConfig::new()).unwrap()), groups, directory.path()),
        _ => engines(None, groups, directory.path()),
    }
}

/// Anonymous memory in KiB, threads and descriptors of this process.
fn taken() -> [u64; 3] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    [of("RssAnon:"), of("Threads:"), fs::read_dir("/proc/self/fd").unwrap().count() as u64]
}

/// Bytes on disk of a directory with directories of files.
fn disk_bytes(directory: &Path) -> u64 {
    let inner = fs::read_dir(directory).unwrap().map(|group| group.unwrap().path());
    let files = inner.flat_map(|group| fs::read_dir(group).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// A waker that tells which group is acknowledged.
struct Tell(u64, Sender<u64>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ended = self.1.send(self.0);
    }
}

/// A group with one put in flight at most.
struct Group {
    manager: Manager,
    next: u64,
    waits: Option<Pin<Box<Acknowledged>>>,
}

impl Group {
    fn open(path: &Path, host: Option<&Host>) -> Self {
        let machine = PersistentStateMachine::open(PersistentConfig::new(path)).unwrap();
        let config = host.into_iter().fold(ApplyConfig::new(), ApplyConfig::host);
        Self { manager: ApplyManager::new(machine, config).unwrap(), next: 1, waits: None }
    }

    fn put(&mut self) {
        let key = (self.next % 64).to_le_bytes().repeat(2);
        let _ = self.manager.apply_entries(&[Entry::put(self.next, 1, &key, &VALUE)]).unwrap();
        self.waits = Some(Box::pin(self.manager.acknowledged(self.next)));
        self.next += 1;
    }

    /// Whether its put is acknowledged.
    fn is_done(&mut self, context: &mut Context<'_>) -> bool {
        let waits = self.waits.as_mut().unwrap();
        waits.as_mut().poll(context).map(Result::unwrap).is_ready()
    }
}

fn engines(host: Option<&Host>, count: u64, directory: &Path) {
    let [memory, ..] = taken();
    let started = Instant::now();
    let path = |group: u64| directory.join(group.to_string());
    let mut groups: Vec<Group> = (0..count).map(|group| Group::open(&path(group), host)).collect();
    let open_ms = started.elapsed().as_secs_f64() * 1e3;
    let (tell, told) = channel();
    let wakers: Vec<_> =
        (0..count).map(|group| Arc::new(Tell(group, tell.clone())).into()).collect();
    let run = |groups: &mut Vec<Group>, puts: u64| {
        let (mut given, mut done) = (0, 0);
        let mut ready: Vec<u64> = (0..count).collect();
        while done < puts {
            while let Some(group) = ready.pop() {
                let at = usize::try_from(group).unwrap();
                let mut context = Context::from_waker(&wakers[at]);
                // A group without a wait has not begun.
                if groups[at].waits.is_some() {
                    if !groups[at].is_done(&mut context) {
                        continue;
                    }
                    groups[at].waits = None;
                    done += 1;
                }
                if given < puts {
                    given += 1;
                    groups[at].put();
                    ready.push(group);
                }
            }
            if done < puts {
                ready.push(told.recv_timeout(LONG).unwrap());
            }
            ready.retain(|group| groups[usize::try_from(*group).unwrap()].waits.is_some());
        }
    };
    run(&mut groups, count);
    thread::sleep(Duration::from_millis(500));
    let [memory_now, threads, descriptors] = taken();
    let disk = disk_bytes(directory) >> 10;
    let syncs = |groups: &[Group]| -> u64 {
        groups.iter().map(|group| group.manager.stats().log_writer.syncs).sum()
    };
    let before = syncs(&groups);
    let started = Instant::now();
    run(&mut groups, PUTS);
    let second = PUTS as f64 / started.elapsed().as_secs_f64();
    let each = (syncs(&groups) - before) as f64 / PUTS as f64;
    let kind = if host.is_some() { "host" } else { "own" };
    println!(
        "{kind:4} {count:5} | {open_ms:8.0}, {threads:5}, {:8}, {descriptors:5}, {disk:8} | \
         {second:8.0}, {each:.2}",
        memory_now.saturating_sub(memory),
    );
}

/// Writes and syncs one at a time in each of `count` threads.
fn bare(count: u64, directory: &Path) {
    let files: Vec<fs::File> = (0..count)
        .map(|number| {
            let options = fs::OpenOptions::new().create_new(true).write(true).clone();
            let file = options.open(directory.join(number.to_string())).unwrap();
            file.write_all_at(&[5; 64 << 10], 0).unwrap();
            file.sync_all().unwrap();
            file
        })
        .collect();
    let started = Instant::now();
    thread::scope(|scope| {
        for file in &files {
            scope.spawn(move || {
                for put in 0..PUTS / count {
                    file.write_all_at(&[6; 256], put % 256 * 256).unwrap();
                    file.sync_data().unwrap();
                }
            });
        }
    });
    let second = (PUTS / count * count) as f64 / started.elapsed().as_secs_f64();
    println!("bare {count:5} | {:>42} | {second:8.0}, 1.00", "");
}

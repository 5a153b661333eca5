//! Tests of the durable path over each back-end: the stats name the one in use, and a refusal is
//! reported and survived.

#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "tests; a system call that no crate makes for us"
)]
#![cfg(target_os = "linux")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::common::name_in;
use sprag::{
    ApplyConfig, ApplyManager, ApplyStats, Durability, Entry, IoBackend, PersistentConfig,
    PersistentStateMachine,
};

const LONG: Duration = Duration::from_secs(60);
const ENTRIES: u64 = 3000;
/// Variable of a child process: the directory to run in.
const CHILD: &str = "SPRAG_IO_CHILD";

type Manager = ApplyManager<PersistentStateMachine>;

/// The kernel's refusal of a ring to this process, asked without the engine.
fn kernel_refuses() -> Option<std::io::Error> {
    let mut parameters = [0_u8; 120];
    // SAFETY: the kernel writes at most the 120 bytes of its parameters, which are ours.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring < 0 {
        return Some(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made above, and nothing else uses it.
    unsafe { libc::close(i32::try_from(ring).unwrap()) };
    None
}

fn config(path: &Path, io: IoBackend) -> PersistentConfig {
    PersistentConfig::new(path).io(io).segment_bytes(256 << 10)
}

fn open(config: PersistentConfig) -> Manager {
    let machine = PersistentStateMachine::open(config).unwrap();
    ApplyManager::new(machine, ApplyConfig::new()).unwrap()
}

fn value(index: u64) -> Vec<u8> {
    let byte = u8::try_from(index % 251).unwrap();
    vec![byte; usize::try_from(index * 37 % 1500).unwrap()]
}

/// Applies entries one at a time, from several threads, and flat out; then checks everything after
/// another opening.
fn workload(config: &PersistentConfig, io: IoBackend) -> ApplyStats {
    let manager = open(config.clone());
    let put = |index: u64| {
        let (key, value) = (index.to_le_bytes(), value(index));
        manager.apply(&Entry::put(index, 1, &key, &value), LONG).map(|_reply| ()).unwrap();
    };
    (1..=100).for_each(put);
    let mut index = 101;
    while index <= ENTRIES {
        let batch: Vec<_> = (index..index + 10).map(|i| (i, i.to_le_bytes(), value(i))).collect();
        let entries: Vec<_> = batch.iter().map(|(i, k, v)| Entry::put(*i, 1, k, v)).collect();
        match manager.apply_entries(&entries) {
            Ok(_) => index += 10,
            Err(sprag::error::SubmitError::Full { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    manager.flush_pending(LONG).unwrap();
    let stats = manager.stats();
    assert_times(&stats, io);
    manager.close(LONG).unwrap();
    verify(config);
    stats
}

/// Checks that each group and each sync has its time, over each back-end.
fn assert_times(stats: &ApplyStats, io: IoBackend) {
    let (times, log) = (&stats.times, stats.log_writer);
    assert_eq!((times.group_entries.count(), times.group_entries.sum()), (log.groups, ENTRIES));
    assert_eq!(times.log_sync.count(), log.syncs);
    // A ring writes and syncs some groups in one request.
    let writes = times.log_write.count();
    let by_pwrite_only = io == IoBackend::Pwrite || stats.io_fallback.is_some();
    assert!(if by_pwrite_only { writes == log.groups } else { writes <= log.groups });
    assert!(writes > 0 && times.submit_to_durable.max() >= times.log_sync.percentile(0.0).unwrap());
}

fn verify(config: &PersistentConfig) {
    let manager = open(config.clone());
    assert_eq!(manager.stats().applied, Some(ENTRIES));
    for index in 1..=ENTRIES {
        let found = manager.machine().get(&index.to_le_bytes()).unwrap();
        assert_eq!(found.unwrap().as_ref() as &[u8], value(index), "{index}");
    }
    manager.close(LONG).unwrap();
}

fn assert_backend(stats: &ApplyStats, asked: IoBackend) {
    let refused = kernel_refuses();
    let uring = asked == IoBackend::Uring && refused.is_none();
    assert_eq!(stats.io_backend, if uring { "io_uring" } else { "pwrite" }, "{asked:?}");
    match refused {
        Some(error) if asked == IoBackend::Uring => {
            println!("io_uring is not tested, the kernel refuses: {error}");
            assert!(stats.io_fallback.is_some());
        }
        _ => assert_eq!(stats.io_fallback, None),
    }
}

#[test]
fn a_durable_log_is_the_same_over_each_back_end() {
    for durability in
        [Durability::Sync, Durability::Periodic(Duration::from_millis(5)), Durability::Os]
    {
        for io in [IoBackend::Pwrite, IoBackend::Uring, IoBackend::Auto] {
            let directory = tempfile::tempdir().unwrap();
            let stats = workload(&config(directory.path(), io).durability(durability), io);
            if io != IoBackend::Auto {
                assert_backend(&stats, io);
            }
            // Another back-end reads the log that one has written, and continues.
            for other in [IoBackend::Uring, IoBackend::Pwrite] {
                verify(&config(directory.path(), other).durability(durability));
            }
        }
    }
}

/// Segments of this length are long enough for zeros ahead of the log's end, which go through the
/// page cache. Groups that go past it follow.
#[test]
fn zeros_ahead_of_the_log_leave_it_whole_over_each_back_end() {
    for io in [IoBackend::Pwrite, IoBackend::Uring, IoBackend::Auto] {
        let directory = tempfile::tempdir().unwrap();
        workload(&config(directory.path(), io).segment_bytes(8 << 20), io);
        for other in [IoBackend::Uring, IoBackend::Pwrite] {
            verify(&config(directory.path(), other).segment_bytes(8 << 20));
        }
    }
}

/// The gate reads this output, to know over which back-ends to run all tests.
#[test]
fn a_ring_is_used_where_the_kernel_gives_one() {
    let directory = tempfile::tempdir().unwrap();
    let in_use = |io| open(config(directory.path(), io)).stats();
    assert_backend(&in_use(IoBackend::Uring), IoBackend::Uring);
    match kernel_refuses() {
        None => println!("io_uring: given"),
        Some(error) => println!("io_uring: refused, {error}"),
    }
    println!("default: {}", in_use(IoBackend::Auto).io_backend);
}

#[test]
fn many_callers_wait_for_the_same_log() {
    for io in [IoBackend::Pwrite, IoBackend::Uring] {
        let directory = tempfile::tempdir().unwrap();
        let manager = Arc::new(open(config(directory.path(), io)));
        let next = std::sync::Mutex::new(1_u64);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // Short-lived threads submit writes and end.
                    for _ in 0..100 {
                        let index = {
                            let mut next = next.lock().unwrap();
                            let (key, value) = (next.to_le_bytes(), value(*next));
                            let _ = manager
                                .apply_entries(&[Entry::put(*next, 1, &key, &value)])
                                .unwrap();
                            *next += 1;
                            *next - 1
                        };
                        manager.wait_for_apply(index, LONG).unwrap();
                    }
                });
            }
        });
        assert_eq!(manager.stats().durable, Some(800));
        assert_backend(&manager.stats(), io);
    }
}

#[test]
fn an_injected_refusal_is_survived_and_said() {
    for io in [IoBackend::Uring, IoBackend::Pwrite] {
        let directory = tempfile::tempdir().unwrap();
        let stats = workload(&config(directory.path(), io).io_uring_refused(true), io);
        assert_eq!(stats.io_backend, "pwrite");
        let reason = stats.io_fallback.unwrap_or_default();
        assert_eq!(reason.contains("io_uring is refused"), io == IoBackend::Uring, "{reason}");
    }
}

/// The gate runs it alone, in a build of the engine without the feature.
#[cfg(not(feature = "uring"))]
#[test]
fn without_the_feature_a_log_is_written_with_pwrite_and_the_stats_say_why() {
    for io in [IoBackend::Uring, IoBackend::Auto] {
        let directory = tempfile::tempdir().unwrap();
        let stats = workload(&config(directory.path(), io), io);
        assert_eq!(stats.io_backend, "pwrite");
        let reason = stats.io_fallback.unwrap_or_default();
        assert_eq!(reason.contains("without the feature `uring`"), io == IoBackend::Uring);
    }
}

/// Installs a filter that answers `io_uring_setup` with `EPERM` and lets every other call pass.
fn forbid_rings() -> std::io::Result<()> {
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    let call = u32::try_from(libc::SYS_io_uring_setup).unwrap_or(0);
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap_or(0);
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, refuse, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the call takes numbers only.
    let first = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let (mode, program) = (libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program));
    // SAFETY: the program and its four statements live until the call returns, which copies them.
    let second = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, program, 0, 0) };
    if first == 0 && second == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Runs `test` of this file in a child process, prepared by `before`.
fn in_child(test: &str, directory: &Path, before: fn() -> std::io::Result<()>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = name_in(module_path!(), test);
    command.args([&*test, "--exact", "--nocapture"]).env(CHILD, directory);
    // SAFETY: `before` makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(before) };
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_refusal_by_a_system_call_filter_is_survived_and_said() {
    let name = "a_refusal_by_a_system_call_filter_is_survived_and_said";
    if let Some(path) = std::env::var_os(CHILD) {
        assert!(kernel_refuses().is_some(), "the filter does not work");
        let stats = workload(&config(Path::new(&path), IoBackend::Uring), IoBackend::Uring);
        println!("in use: {}, {}", stats.io_backend, stats.io_fallback.unwrap_or_default());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let text = in_child(name, directory.path(), forbid_rings);
    assert!(text.contains("in use: pwrite, io_uring is refused"), "{text}");
}

/// Limits files to 200,000 bytes, with an error instead of the signal.
fn limit_files() -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: 200_000, rlim_max: 200_000 };
    // SAFETY: the disposition is no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: the call reads the limit, which lives until the call returns.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn a_write_that_a_limit_cuts_short_is_never_acknowledged() {
    let name = "a_write_that_a_limit_cuts_short_is_never_acknowledged";
    let asked = [("pwrite", IoBackend::Pwrite), ("io_uring", IoBackend::Uring)];
    if let Some(path) = std::env::var_os(CHILD) {
        let io = if path.to_string_lossy().ends_with("pwrite") { 0 } else { 1 };
        let manager = open(config(Path::new(&path), asked[io].1));
        let mut acknowledged = 0;
        let failed = (1..1000_u64).find(|index| {
            let applied =
                manager.apply(&Entry::put(*index, 1, &index.to_le_bytes(), &[7; 3000]), LONG);
            acknowledged += u64::from(applied.is_ok());
            applied.is_err()
        });
        assert!(failed.is_some() && manager.poison().is_some());
        let after = manager.apply(&Entry::put(acknowledged + 2, 1, b"k", b"v"), LONG);
        assert!(after.is_err(), "nothing after a failure");
        println!("acknowledged {acknowledged} by {}", manager.stats().io_backend);
        return;
    }
    for (backend, io) in asked {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(backend);
        // The file's length is reserved without the limit, which applies from then on.
        open(config(&path, io)).close(LONG).unwrap();
        let text = in_child(name, &path, limit_files);
        let count = text.split("acknowledged ").nth(1).and_then(|rest| rest.split(' ').next());
        let acknowledged: u64 = count.unwrap().parse().unwrap();
        assert!((50..67).contains(&acknowledged), "{text}");
        let manager = open(config(&path, io));
        assert!(manager.stats().applied >= Some(acknowledged), "{text}");
        assert_backend(&manager.stats(), io);
    }
}

fn open_things() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("io_uring")).count())
}

#[test]
fn opening_and_closing_leaks_nothing() {
    let name = "opening_and_closing_leaks_nothing";
    let Some(path) = std::env::var_os(CHILD) else {
        // This runs alone in a process, because other tests open files too.
        let directory = tempfile::tempdir().unwrap();
        in_child(name, directory.path(), || Ok(()));
        return;
    };
    let config = config(Path::new(&path), IoBackend::Uring);
    let mut before = (0, 0);
    for round in 0..200_u64 {
        let manager = open(config.clone());
        let key = round.to_le_bytes();
        manager.apply(&Entry::put(round + 1, 1, &key, b"v"), LONG).unwrap();
        assert_backend(&manager.stats(), IoBackend::Uring);
        manager.close(LONG).unwrap();
        if round == 9 {
            before = open_things();
        }
    }
    assert_eq!(open_things(), before);
}

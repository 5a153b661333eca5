//! Instructions that the hot paths execute, counted by valgrind's callgrind: figures that the
//! machine's load does not move.
//!
//! `cargo run --release -p sprag-instructions` counts, and compares with `figures.txt` beside the
//! manifest. It fails where a path executes over 3 % more than is committed there. With `--write`
//! behind ` -- ` it writes the file anew; that change belongs into the commit that moves the
//! figures.
//!
//! One thread steps the engines by hand, with a clock that it moves and one seed of the hash. What
//! the kernel executes in system calls is not counted.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss, reason = "a bench")]

use std::error::Error;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use sprag::machine::probe::Probe;
use sprag::testing::Stepped;
use sprag::{
    ApplyConfig, Durability, Entry, IoBackend, MemoryConfig, MemoryStateMachine, PersistentConfig,
    PersistentStateMachine, Reply, StateMachine,
};

/// Entries of a call, and of a group of the log.
const BATCH: u64 = 128;
/// Calls that a counted function makes, so that what it does once counts for little.
const CALLS: u64 = 200;
const KEYS: u64 = 10_000;
const SEED: u64 = 7;
const LONG: Duration = Duration::from_secs(60);
/// Gets of each kind.
const READS: u64 = 20_000;
/// The argument by which valgrind's run is told from the run that starts it.
const COUNTED: &str = "--counted";
/// The command that a failure names.
const COMMAND: &str = "cargo run --release -p sprag-instructions";
/// The first lines of the file of figures.
const HEAD: &str = "\
# Instructions an operation, counted by callgrind and written by
# `cargo run --release -p sprag-instructions -- --write`. The gate fails where a figure rises by
# over 3 % and this file was not written anew.
";
/// The most that a figure may rise by, in percent.
const RISE_PERCENT_MAX: f64 = 3.0;

#[allow(clippy::cast_possible_truncation, reason = "a few thousand")]
fn to_usize(number: u64) -> usize {
    number as usize
}

fn key(number: u64) -> [u8; 16] {
    u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS).to_be_bytes()
}

fn config() -> ApplyConfig {
    ApplyConfig::new().worker_count(NonZeroUsize::MIN)
}

fn memory_machine() -> MemoryStateMachine {
    let config = MemoryConfig::default().expected_keys(to_usize(KEYS)).hash_seed(SEED);
    MemoryStateMachine::new(config).unwrap()
}

fn log_machine(directory: &Path) -> PersistentStateMachine {
    let config = PersistentConfig::new(directory).hash_seed(SEED).durability(Durability::Os);
    let config = config.expected_keys(to_usize(KEYS)).io(IoBackend::Pwrite);
    PersistentStateMachine::open(config).unwrap()
}

/// An engine, and what is submitted next.
struct Run<M: StateMachine> {
    engine: Stepped<M>,
    keys: Vec<[u8; 16]>,
    next: u64,
}

impl<M: StateMachine> Run<M> {
    /// Puts all keys, so that what follows are overwrites.
    fn new(engine: Stepped<M>) -> Self {
        let keys: Vec<_> = (0..KEYS).map(|number| u128::from(number).to_be_bytes()).collect();
        for (index, key) in (1..).zip(&keys) {
            let taken = engine.apply_entries(&[Entry::put(index, 1, key, &[1; 100])]).unwrap();
            assert_eq!(taken.new, 1);
            if index % BATCH == 0 {
                engine.run_until_idle();
            }
        }
        engine.run_until_idle();
        Self { engine, next: KEYS + 1, keys: (0..KEYS).map(key).collect() }
    }

    fn settle(&self) {
        self.engine.advance(Duration::from_micros(10));
        self.engine.run_until_idle();
    }

    /// The next entries, and the engine for them.
    fn next(&mut self, count: u64) -> (Vec<Entry<'_>>, &Stepped<M>) {
        let indexes = self.next..self.next + count;
        self.next += count;
        let key = |index| &self.keys[to_usize(index % KEYS)];
        (indexes.map(|index| Entry::put(index, 1, key(index), &[7; 100])).collect(), &self.engine)
    }
}

/// Runs `$run` in a function that is found by its name in what callgrind writes.
macro_rules! counted {
    ($name:ident, $run:expr) => {{
        #[inline(never)]
        fn $name(run: &mut dyn FnMut()) {
            // Functions of the same body would be merged into one.
            black_box(stringify!($name));
            run();
        }
        $name(&mut || $run);
    }};
}

/// Each figure: the name of its counted function, and the operations in all of its calls.
const FIGURES: [(&str, u64); 12] = [
    ("counted_encode_and_hash", BATCH * CALLS),
    ("counted_memory_submit_128", BATCH * CALLS),
    ("counted_memory_apply_128", BATCH * CALLS),
    ("counted_memory_call_of_one", BATCH * CALLS),
    ("counted_memory_get_value", READS),
    ("counted_memory_get_with", READS),
    ("counted_memory_miss", READS),
    ("counted_log_append_128", BATCH * CALLS),
    ("counted_log_write_128", BATCH * CALLS),
    ("counted_log_apply_128", BATCH * CALLS),
    ("counted_log_steps_for_one", BATCH * CALLS),
    ("counted_log_get_with", READS),
];

fn encode() {
    let probe = Probe::new(1024);
    let keys: Vec<_> = (0..BATCH).map(key).collect();
    let entries: Vec<_> =
        (1..).zip(&keys).map(|(index, key)| Entry::put(index, 1, key, &[7; 100])).collect();
    let mut frame = probe.frame(&entries).unwrap();
    for _call in 0..CALLS {
        counted!(counted_encode_and_hash, probe.refill(&mut frame, black_box(&entries)).unwrap());
    }
}

fn memory() {
    let mut run = Run::new(Stepped::new(memory_machine(), config()).unwrap());
    for _call in 0..CALLS {
        let (entries, engine) = run.next(BATCH);
        counted!(
            counted_memory_submit_128,
            assert_eq!(engine.apply_entries(&entries).unwrap().new, BATCH)
        );
        counted!(counted_memory_apply_128, while engine.step_worker(0) {});
        run.settle();
    }
    let machine = run.engine.machine();
    for number in 0..READS {
        let (key, missing) = (key(number), (KEYS + number).to_be_bytes());
        counted!(
            counted_memory_get_value,
            assert_eq!(machine.get(&key).unwrap().map_or(0, |value| value.len()), 100)
        );
        counted!(counted_memory_get_with, {
            assert_eq!(machine.get_with(&key, <[u8]>::len).unwrap(), Some(100));
        });
        counted!(counted_memory_miss, assert!(machine.get(&missing).unwrap().is_none()));
    }
}

/// One call at a time, which applies its entry inline.
fn memory_inline() {
    let mut run = Run::new(Stepped::applying_inline(memory_machine(), config()).unwrap());
    for _call in 0..BATCH * CALLS {
        let (entries, engine) = run.next(1);
        counted!(counted_memory_call_of_one, {
            let reply = engine.apply(&entries[0], LONG).unwrap();
            assert_eq!(reply, Reply::Put { replaced: true });
        });
        engine.advance(Duration::from_nanos(400));
    }
}

fn log(directory: &Path) {
    let mut run = Run::new(Stepped::new(log_machine(directory), config()).unwrap());
    for _call in 0..CALLS {
        let (entries, engine) = run.next(BATCH);
        counted!(
            counted_log_append_128,
            assert_eq!(engine.apply_entries(&entries).unwrap().new, BATCH)
        );
        counted!(counted_log_write_128, while engine.step_log_writer() {});
        counted!(counted_log_apply_128, while engine.step_worker(0) {});
        run.settle();
    }
    for _entry in 0..BATCH * CALLS {
        let (entries, engine) = run.next(1);
        counted!(counted_log_steps_for_one, {
            assert_eq!(engine.apply_entries(&entries).unwrap().new, 1);
            while engine.step_log_writer() {}
            while engine.step_worker(0) {}
        });
        engine.advance(Duration::from_micros(2));
        engine.step_background();
    }
    for number in 0..READS {
        let key = key(number);
        counted!(counted_log_get_with, {
            assert_eq!(run.engine.machine().get_with(&key, <[u8]>::len).unwrap(), Some(100));
        });
    }
}

/// Counts in one run; returns the names of [`FIGURES`], each with its instructions an operation.
fn count() -> Result<Vec<(&'static str, f64)>, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind.out");
    let said = Command::new("valgrind")
        .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg(COUNTED)
        .arg(directory.path().join("log"))
        .output()?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).into());
    }
    let profile = std::fs::read_to_string(out)?;
    let figure = |(name, operations): &(&'static str, u64)| {
        (*name, cost_of_calls(&profile, name) as f64 / *operations as f64)
    };
    Ok(FIGURES.iter().map(figure).collect())
}

/// The cost of all calls of a function, in a profile of callgrind.
fn cost_of_calls(profile: &str, name: &str) -> u64 {
    let mut lines = profile.lines();
    let mut all = 0;
    // A call takes three lines: the function, the number of calls, and their cost.
    while let Some(line) = lines.next() {
        if line.starts_with("cfn=") && line.contains(name) {
            let cost = lines.nth(1).and_then(|cost| cost.rsplit(' ').next());
            all += cost.and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    all
}

/// The committed figures, as the file has them.
fn to_text(counted: &[(&str, f64)]) -> String {
    let lines = counted.iter().map(|(name, figure)| format!("{name} {figure:.1}\n"));
    std::iter::once(HEAD.to_owned()).chain(lines).collect()
}

/// Compares what was counted with the text of the committed figures. Returns a line for each
/// figure, and whether all of them are within the limit.
fn compare(counted: &[(&str, f64)], committed: &str) -> Result<(String, bool), String> {
    let committed: Vec<_> = committed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .collect();
    let mut said = String::new();
    let mut is_within = true;
    for (name, figure) in counted {
        let before = committed.iter().find(|(known, _)| known == name);
        let before = before.and_then(|(_, before)| before.parse::<f64>().ok());
        let before = before.ok_or_else(|| format!("{name} has no committed figure"))?;
        // A function that was not found counts 0.
        if *figure == 0.0 {
            return Err(format!("nothing was counted for {name}"));
        }
        let percent = (figure / before - 1.0) * 100.0;
        let note = if percent > RISE_PERCENT_MAX { "  TOO MANY" } else { "" };
        is_within &= note.is_empty();
        said +=
            &format!("{name:<28} {figure:>8.1}, committed {before:>8.1}, {percent:+.2} %{note}\n");
    }
    Ok((said, is_within))
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => eprintln!(
            "A path executes over {RISE_PERCENT_MAX} % more instructions than committed. Mend \
             that, or commit new figures with the change: {COMMAND} -- --write"
        ),
        Err(error) => eprintln!("{error}\nAfter a change of the figures: {COMMAND} -- --write"),
    }
    ExitCode::FAILURE
}

/// Returns whether every figure is within the limit.
fn run() -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, directory] = &arguments[..]
        && flag == COUNTED
    {
        encode();
        memory();
        memory_inline();
        log(Path::new(directory));
        return Ok(true);
    }
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the figures are those of x86-64");
        return Ok(true);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return Ok(true);
    }
    let counted = count()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("figures.txt");
    if arguments.iter().any(|argument| argument == "--write") {
        std::fs::write(&file, to_text(&counted))?;
    }
    let (said, is_within) = compare(&counted, &std::fs::read_to_string(&file)?)?;
    print!("instructions an operation:\n{said}");
    Ok(is_within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_rises_by_over_3_percent_is_refused_and_one_that_falls_is_not() {
        let committed = to_text(&[("put", 1000.0), ("get", 100.0)]);
        for (put, is_within) in [(1029.0, true), (1031.0, false), (500.0, true)] {
            let (said, found) = compare(&[("put", put), ("get", 100.0)], &committed).unwrap();
            assert_eq!((found, said.contains("TOO MANY")), (is_within, !is_within), "{said}");
        }
    }

    #[test]
    fn a_path_without_a_committed_figure_or_without_a_count_is_refused() {
        let committed = to_text(&[("put", 1000.0)]);
        assert!(compare(&[("get", 1.0)], &committed).is_err());
        assert!(compare(&[("put", 0.0)], &committed).is_err());
    }

    #[test]
    fn the_cost_of_all_calls_of_a_function_is_found_and_of_no_other() {
        let profile = "fn=main\n12 7\ncfn=app::put\ncalls=3 9\n12 300\n\
                       cfn=app::get\ncalls=1 9\n12 50\ncfn=app::put\ncalls=1 9\n13 5\n";
        assert_eq!(cost_of_calls(profile, "put"), 305);
    }
}

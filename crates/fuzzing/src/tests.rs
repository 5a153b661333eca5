//! Runs of every committed seed and every input found, on the stable toolchain.

use std::fs;
use std::path::{Path, PathBuf};

use super::{engine, frame, recovery, seeds, slots, snapshot};

pub(crate) fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind).join(target)
}

/// The files of a folder, by name.
pub(crate) fn inputs(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut inputs: Vec<_> = files.map(|path| (name(&path), fs::read(&path).unwrap())).collect();
    inputs.sort();
    inputs
}

fn run_all(target: &str, run: fn(&[u8])) {
    let found = inputs(&folder("regressions", target));
    let seeds = inputs(&folder("seeds", target));
    assert!(seeds.len() >= 10, "{} seeds of {target}", seeds.len());
    for (name, bytes) in found.iter().chain(&seeds) {
        // The name is shown if the test fails.
        println!("{target} {name}");
        run(bytes);
    }
    for len in 0..3 {
        run(&[0; 3][..len]);
    }
}

#[test]
fn frames_hold_for_every_input_kept() {
    run_all("frame", frame);
}

#[test]
fn recovery_holds_for_every_input_kept() {
    run_all("recovery", recovery);
}

#[test]
fn slots_hold_for_every_input_kept() {
    run_all("slots", slots);
}

#[test]
fn the_engine_holds_for_every_input_kept() {
    run_all("engine", engine);
}

#[test]
fn snapshots_hold_for_every_input_kept() {
    run_all("snapshot", snapshot);
}

/// Run `SPRAG_WRITE_SEEDS=1 cargo test --workspace seeds_are` to write the seeds anew.
#[test]
fn the_committed_seeds_are_what_the_engine_makes() {
    let targets = ["frame", "recovery", "slots", "engine", "snapshot"];
    let write = std::env::var_os("SPRAG_WRITE_SEEDS").is_some();
    let mut total_bytes = 0;
    for target in targets {
        let folder = folder("seeds", target);
        let mut made: Vec<_> = seeds()
            .into_iter()
            .filter(|seed| seed.target == target)
            .map(|seed| (seed.name, seed.bytes))
            .collect();
        made.sort();
        total_bytes += made.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        if write {
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &made {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        let names = |seeds: &[(String, Vec<u8>)]| -> Vec<_> {
            seeds.iter().map(|(name, _)| name.clone()).collect()
        };
        let kept = inputs(&folder);
        assert_eq!(names(&made), names(&kept), "seeds of {target}");
        assert!(made == kept, "seeds of {target}");
    }
    assert!(total_bytes < 1 << 20, "{total_bytes} bytes of seeds");
}

//! A test that the formula in `docs/operating.md` gives an engine's memory.

use sprag::{ApplyConfig, MemoryStats, PersistentConfig, PersistentStateMachine};

use crate::common::{LONG, Scratch, manage};

const DOCUMENT: &str = include_str!("../../docs/operating.md");

/// The last number of the line that begins with `part`.
fn number_of(part: &str) -> usize {
    let example = DOCUMENT.split("Example: the defaults with one worker.").nth(1).unwrap();
    let line = example.lines().find(|line| line.starts_with(part));
    let line = line.unwrap_or_else(|| panic!("no line of {part}"));
    line.split_whitespace().next_back().unwrap().replace(',', "").parse().unwrap()
}

/// Memory that an engine of these options reserves.
fn memory_of(scratch: &Scratch, config: PersistentConfig, apply: ApplyConfig) -> MemoryStats {
    let machine = PersistentStateMachine::open(config).unwrap();
    let manager = manage(machine, apply);
    let stats = manager.stats();
    let MemoryStats { images, log_queue, in_flight, rings, stamps, .. } = stats.memory;
    assert_eq!(images + log_queue + in_flight + rings + stamps, manager.memory_bytes());
    manager.close(LONG).unwrap();
    std::fs::remove_dir_all(scratch.path()).unwrap();
    stats.memory
}

/// Proves OPS-3.
#[test]
fn the_example_on_the_page_on_operations_is_what_the_defaults_take() {
    let scratch = Scratch::new();
    let apply = ApplyConfig::new().worker_count(std::num::NonZeroUsize::MIN);
    let memory = memory_of(&scratch, crate::common::io::config(scratch.path()), apply);
    let parts = [
        ("images ", memory.images),
        ("log_queue ", memory.log_queue),
        ("in_flight ", memory.in_flight),
        ("rings ", memory.rings),
        ("stamps ", memory.stamps),
    ];
    for (part, bytes) in parts {
        assert_eq!(number_of(part), bytes, "{part}");
    }
    assert_eq!(number_of("sum "), parts.iter().map(|(_, bytes)| bytes).sum::<usize>());
}

/// Proves OPS-3.
#[test]
fn the_formula_on_the_page_on_operations_holds_for_other_options() {
    let log_queue = number_of("log_queue ");
    for (workers, depth, segment, images, pinned) in
        [(1, 1, 64 << 10, 2, 0), (3, 5000, 128 << 10, 4, 2), (2, 64, 64 << 10, 3, 1)]
    {
        let scratch = Scratch::new();
        let config = scratch.config().segment_bytes(segment);
        let config = config.segment_images(images).pinned_images(pinned);
        let apply = ApplyConfig::new().worker_count(workers.try_into().unwrap());
        let memory = memory_of(&scratch, config, apply.pipeline_depth(depth));
        assert_eq!(memory.images, segment * (images + pinned));
        assert_eq!(memory.log_queue, log_queue);
        assert_eq!(memory.in_flight, ((2 * depth).next_power_of_two() + 256) * 32);
        assert_eq!(memory.rings, workers * 40 * depth.clamp(64, 4096));
        assert_eq!(memory.stamps, 24 * depth.max(64).next_power_of_two());
    }
}

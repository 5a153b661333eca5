//! The random choices of a seed, and running a test over many seeds.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use sprag::testing;

/// Random numbers of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(testing::Random);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(testing::Random::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Runs `test` for each seed of `0..seeds`, and prints the number of crashes. (`SPRAG_SIM_SEEDS`
/// sets another number, and `SPRAG_SIM_SEED` a single seed.) A failure names the seed.
pub(crate) fn for_seeds(name: &str, seeds: u64, mut test: impl FnMut(u64) -> Result<u64, String>) {
    let number = |variable| env::var(variable).ok().map(|text| text.parse::<u64>().unwrap());
    let range = match number("SPRAG_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SPRAG_SIM_SEEDS").unwrap_or(seeds),
    };
    let (count, mut crashes) = (range.end - range.start, 0);
    for seed in range {
        let replay =
            format!("seed {seed}; replay: SPRAG_SIM_SEED={seed} cargo test --test engine {name}");
        match catch_unwind(AssertUnwindSafe(|| test(seed))) {
            Ok(Ok(struck)) => crashes += struck,
            Ok(Err(violation)) => panic!("{violation}\n{replay}"),
            Err(panicked) => {
                eprintln!("{replay}");
                resume_unwind(panicked);
            }
        }
    }
    println!("{name}: {count} seeds, {crashes} crashes");
}

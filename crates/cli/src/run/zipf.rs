//! Random numbers of a seed, and Zipf-distributed ranks.

use rand_core::{Rng, SeedableRng};
use rand_distr::Distribution;
use rand_xoshiro::SplitMix64;

/// Random numbers of a seed. The same seed gives the same numbers, in every version.
#[derive(Clone, Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    /// Makes the generator of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    /// The next number, all of its bits random.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Draws a number from 0 to `limit`, without `limit`; 0 for a `limit` of 0.
pub(crate) fn below(random: &mut Random, limit: u32) -> u32 {
    // The remainder is below `limit`, so it fits.
    u32::try_from(random.next_u64() % u64::from(limit.max(1))).unwrap_or(0)
}

/// Spreads the bits of a number; two different numbers stay different.
pub(crate) fn mix(number: u64) -> u64 {
    Random::new(number).next_u64()
}

/// Draws ranks of 1 to `ranks`: the probability of rank k is proportional to 1 / k^exponent.
#[derive(Clone, Debug)]
pub(crate) struct Zipf(rand_distr::Zipf<f64>);

impl Zipf {
    /// Makes the distribution. `ranks` must be above 0, and `exponent` must not be negative.
    #[allow(clippy::expect_used, reason = "the only caller has a key, and a constant exponent")]
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        Self(rand_distr::Zipf::new(f64::from(ranks), exponent).expect("a rank and a weight"))
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a whole number of 1 to `ranks`, which is a u32"
    )]
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        self.0.sample(&mut random.0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed is in scripts and reports of runs. The first number of seed 0 is that of the paper.
    #[test]
    fn a_seed_gives_the_same_numbers_in_every_version() {
        let mut random = Random::new(0);
        assert_eq!(random.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next_u64(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!((below(&mut random, 1000), below(&mut random, 0)), (679, 0));
    }

    #[test]
    fn ranks_are_drawn_as_often_as_their_weights_say() {
        const DRAWS: u32 = 200_000;
        for (ranks, exponent) in
            [(1, 0.99), (2, 0.99), (10, 0.99), (1000, 0.99), (50, 1.0), (50, 2.0)]
        {
            let (zipf, mut random) = (Zipf::new(ranks, exponent), Random::new(7));
            let mut seen = vec![0_u32; ranks as usize + 1];
            for _ in 0..DRAWS {
                seen[zipf.draw(&mut random) as usize] += 1;
            }
            assert_eq!(seen[0], 0);
            let weights: Vec<f64> =
                (1..=ranks).map(|rank| f64::from(rank).powf(-exponent)).collect();
            let sum: f64 = weights.iter().sum();
            for (rank, weight) in (1..).zip(weights) {
                let expected = weight / sum * f64::from(DRAWS);
                // Allow five standard deviations.
                let slack = 5.0 * expected.sqrt() + 1.0;
                let got = f64::from(seen[rank]);
                assert!(
                    (got - expected).abs() <= slack,
                    "{ranks} {exponent} {rank}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn numbers_below_a_limit_are_spread_evenly() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 10];
        for _ in 0..100_000 {
            seen[below(&mut random, 10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)), "{seen:?}");
    }
}

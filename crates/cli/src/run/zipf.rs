//! Zipf-distributed ranks: the probability of rank k is proportional to 1 / k^exponent.

/// A small, fast generator of random numbers (splitmix64). The same seed gives the same numbers on
/// every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0.0 to 1.0, without 1.0.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from 0 to `limit`, without `limit`.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the high half of the product is below `limit`"
    )]
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        // The bias is 2^-32 for a limit of 2^32, which no workload can show.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u32
    }
}

/// Spreads the bits of a number; two different numbers stay different.
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Draws ranks of 1 to `ranks`, exactly, in constant time and memory, by rejection-inversion (W. Hoermann, G. Derflinger,
/// "Rejection-inversion to generate variates from monotone discrete distributions", 1996).
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    ranks: f64,
    exponent: f64,
    integral_of_first: f64,
    integral_of_last: f64,
    accept_at_once: f64,
}

impl Zipf {
    /// Makes the distribution; `exponent` must be above 0.
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        let ranks = f64::from(ranks);
        let mut zipf = Self {
            ranks,
            exponent,
            integral_of_first: 0.0,
            integral_of_last: 0.0,
            accept_at_once: 0.0,
        };
        zipf.integral_of_first = zipf.integral(1.5) - 1.0;
        zipf.integral_of_last = zipf.integral(ranks + 0.5);
        zipf.accept_at_once = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank is a whole number of 1 to `ranks`, which is a u32"
    )]
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        loop {
            let span = self.integral_of_first - self.integral_of_last;
            let area = self.integral_of_last + random.unit() * span;
            let at = self.integral_inverse(area);
            let rank = at.round().clamp(1.0, self.ranks);
            if rank - at <= self.accept_at_once
                || area >= self.integral(rank + 0.5) - self.weight(rank)
            {
                return rank as u32;
            }
        }
    }

    /// The weight x^-exponent.
    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// The integral of `weight` from 1 to x, in a form that also holds for an exponent of 1.
    fn integral(&self, x: f64) -> f64 {
        let ln = x.ln();
        let scaled = (1.0 - self.exponent) * ln;
        let factor =
            if scaled.abs() > 1e-8 { scaled.exp_m1() / scaled } else { 1.0 + scaled / 2.0 };
        factor * ln
    }

    fn integral_inverse(&self, area: f64) -> f64 {
        let scaled = (area * (1.0 - self.exponent)).max(-1.0);
        let factor = if scaled.abs() > 1e-8 { scaled.ln_1p() / scaled } else { 1.0 - scaled / 2.0 };
        (factor * area).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)), "{seen:?}");
    }
}

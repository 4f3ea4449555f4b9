//! Prices as the suites have them: `round(10^(6r) * 100)` cents for a uniform `r` in [0, 1).
//!
//! The power is looked up instead of computed: the C library's `pow` costs more than the rest of a bid, and rounds
//! differently from system to system, which would make the events of a seed depend on the machine.

/// The steps of one table: a byte of the random number.
const STEPS: usize = 256;

/// `10^(6/256)`, and the 256th and the 65536th root of it.
const COARSE: f64 = 1.055_449_600_878_603;
const MIDDLE: f64 = 1.000_210_830_182_954_5;
const FINE: f64 = 1.000_000_823_468_938_2;

/// The powers of ten for the first, the second and the third byte of a random number. Their product is the price, in
/// 2^24 steps.
#[derive(Debug)]
pub(super) struct Prices {
    coarse: [f64; STEPS],
    middle: [f64; STEPS],
    fine: [f64; STEPS],
}

impl Prices {
    pub(super) fn new() -> Self {
        const CENTS: f64 = 100.0;
        Self { coarse: powers(CENTS, COARSE), middle: powers(1.0, MIDDLE), fine: powers(1.0, FINE) }
    }

    /// Between 100 and 100,000,000 cents: as often between one and ten as between a hundred thousand and a million.
    #[inline]
    pub(super) fn pick(&self, random: u64) -> i64 {
        let [first, second, third, ..] = random.to_be_bytes();
        let exact = self.coarse[usize::from(first)] * self.middle[usize::from(second)] * self.fine[usize::from(third)];
        (exact + 0.5) as i64
    }
}

/// `first`, `first * factor`, `first * factor^2`, ...
fn powers(first: f64, factor: f64) -> [f64; STEPS] {
    let mut powers = [first; STEPS];
    for i in 1..STEPS {
        powers[i] = powers[i - 1] * factor;
    }
    powers
}

#[cfg(test)]
mod tests {
    use super::{
        super::random::{Random, Salt},
        *,
    };

    #[test]
    fn prices_follow_the_suite() {
        let (prices, random) = (Prices::new(), Random::new(3));
        for n in 0..100_000 {
            let random = random.draw(n, Salt::Price);
            let uniform = (random >> 40) as f64 / (1 << 24) as f64;
            let exact = (10_f64.powf(uniform * 6.0) * 100.0).round();
            let price = prices.pick(random) as f64;
            assert!((price - exact).abs() <= 1.0, "{price} instead of {exact}");
        }
        assert_eq!(prices.pick(0), 100);
        assert!((99_999_900..=100_000_000).contains(&prices.pick(u64::MAX)));
    }
}

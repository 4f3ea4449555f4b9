//! Random numbers that are a pure function of the seed, the event number and the purpose.
//!
//! Every random choice has a salt of its own, so that one column can be generated without the others and no two
//! choices of an event are related.

/// What a random number is used for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Salt {
    Lateness,
    Auction,
    Bidder,
    Price,
    Channel,
    Extra,
    Seller,
    Category,
    Reserve,
    Expiry,
    ItemName,
    Description,
    Name,
    Email,
    CreditCard,
    City,
    State,
    Letters,
    Url,
}

/// The last salt and one more.
const SALTS: usize = Salt::Url as usize + 1;

/// The odd constant of splitmix64: the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of splitmix64.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One stream of splitmix64 for every salt, of which any number can be had at once.
#[derive(Debug)]
pub(super) struct Random {
    keys: [u64; SALTS],
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { keys: std::array::from_fn(|salt| mix(seed ^ (salt as u64 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93))) }
    }

    /// The `n`-th number of the stream that belongs to a salt.
    #[inline]
    pub(super) fn draw(&self, n: u64, salt: Salt) -> u64 {
        mix(self.keys[salt as usize].wrapping_add(n.wrapping_mul(GOLDEN)))
    }
}

/// A number below `bound` from the high bits of `random`; 0 if `bound` is 0.
#[inline]
pub(super) fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_salts_give_unrelated_numbers() {
        let random = Random::new(0);
        let agrees = |n: &u64| random.draw(*n, Salt::Auction) % 4 == random.draw(*n, Salt::Bidder) % 4;
        let agreeing = (0..10_000).filter(agrees).count();
        assert!((2_300..2_700).contains(&agreeing), "{agreeing} of 10,000 agree; a quarter should");
    }

    #[test]
    fn below_stays_below() {
        assert_eq!(below(u64::MAX, 7), 6);
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u64::MAX, 0), 0);
    }
}

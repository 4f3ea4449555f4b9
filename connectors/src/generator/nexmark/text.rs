//! The strings of Nexmark: names, addresses, channels, padding.
//!
//! Random text is cut from a fixed supply of letters, which costs a copy instead of a draw per letter. A string is
//! written into a buffer that the caller reuses.

use super::{
    model::Model,
    random::{Random, Salt, below},
};

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];

const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];

const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// The channels beside the hot ones, which together carry half of the bids.
const CHANNELS: u64 = 10_000;

/// A supply of random letters, and one with a space for every thirteenth of them.
#[derive(Debug)]
pub(super) struct Letters {
    letters: String,
    prose: String,
}

impl Letters {
    /// Where a piece may begin, and how long it may be at most.
    const STARTS: u64 = 8192;
    const LONGEST: u64 = 512;

    pub(super) fn new(random: &Random) -> Self {
        let randoms = || (0..Self::STARTS + Self::LONGEST).map(|n| random.draw(n, Salt::Letters));
        let letter = |random: u64| char::from(b'a' + (random % 26) as u8);
        Self {
            letters: randoms().map(letter).collect(),
            prose: randoms().map(|r| if below(r, 13) == 0 { ' ' } else { letter(r) }).collect(),
        }
    }

    /// Between `shortest` and `longest - 1` letters.
    fn piece(&self, random: u64, shortest: u64, longest: u64) -> &str {
        &self.letters[Self::range(random, shortest, longest)]
    }

    /// The same of words; spaces at either end do not count.
    fn words(&self, random: u64, shortest: u64, longest: u64) -> &str {
        self.prose[Self::range(random, shortest, longest)].trim()
    }

    fn range(random: u64, shortest: u64, longest: u64) -> std::ops::Range<usize> {
        // The low bits choose the place, the high bits the length.
        let start = random % Self::STARTS;
        let length = (shortest + below(random, longest - shortest)).min(Self::LONGEST);
        start as usize..(start + length) as usize
    }
}

impl Model {
    /// The number of the channel that bid `n` came through: first the hot ones, then the others.
    fn channel_number(&self, n: u64) -> u64 {
        let random = self.random.draw(n, Salt::Channel);
        let hot = HOT_CHANNELS.len() as u64;
        if random.is_multiple_of(2) { hot + below(random, CHANNELS) } else { below(random, hot) }
    }

    pub(super) fn channel(&self, n: u64, out: &mut String) {
        let number = self.channel_number(n);
        match HOT_CHANNELS.get(number as usize) {
            Some(name) => out.push_str(name),
            None => {
                out.push_str("channel-");
                push_decimal(number - HOT_CHANNELS.len() as u64, out);
            }
        }
    }

    /// Every channel has one address.
    pub(super) fn url(&self, n: u64, out: &mut String) {
        let number = self.channel_number(n);
        out.push_str("https://www.nexmark.com/");
        for part in 0..3 {
            out.push_str(self.letters.piece(self.random.draw(number * 4 + part, Salt::Url), 3, 5));
            out.push('/');
        }
        out.push_str("item.htm?query=1");
        let Some(other) = number.checked_sub(HOT_CHANNELS.len() as u64) else { return };
        if below(self.random.draw(number * 4 + 3, Salt::Url), 10) > 0 {
            out.push_str("&channel_id=");
            push_decimal(u64::from((other as u32).reverse_bits() >> 1), out);
        }
    }

    /// A bid has its size from the address already.
    pub(super) fn bid_extra(&self, n: u64, out: &mut String) {
        out.push_str(self.letters.piece(self.random.draw(n, Salt::Extra), 0, 8));
    }

    pub(super) fn item_name(&self, n: u64, out: &mut String) {
        out.push_str(self.letters.words(self.random.draw(n, Salt::ItemName), 3, 20));
    }

    pub(super) fn description(&self, n: u64, out: &mut String) {
        out.push_str(self.letters.words(self.random.draw(n, Salt::Description), 3, 100));
    }

    pub(super) fn auction_extra(&self, n: u64, out: &mut String) {
        out.push_str(self.letters.piece(self.random.draw(n, Salt::Extra), 306, 460));
    }

    pub(super) fn name(&self, n: u64, out: &mut String) {
        let random = self.random.draw(n, Salt::Name);
        out.push_str(pick(&FIRST_NAMES, random));
        out.push(' ');
        out.push_str(pick(&LAST_NAMES, random.rotate_left(32)));
    }

    pub(super) fn email(&self, n: u64, out: &mut String) {
        let random = self.random.draw(n, Salt::Email);
        out.push_str(self.letters.piece(random, 3, 7));
        out.push('@');
        out.push_str(self.letters.piece(random.rotate_left(32), 3, 5));
        out.push_str(".com");
    }

    pub(super) fn credit_card(&self, n: u64, out: &mut String) {
        let mut rest = self.random.draw(n, Salt::CreditCard);
        for digit in 0..16 {
            if digit > 0 && digit % 4 == 0 {
                out.push(' ');
            }
            out.push(char::from(b'0' + (rest % 10) as u8));
            rest /= 10;
        }
    }

    pub(super) fn city(&self, n: u64, out: &mut String) {
        out.push_str(pick(&CITIES, self.random.draw(n, Salt::City)));
    }

    pub(super) fn state(&self, n: u64, out: &mut String) {
        out.push_str(pick(&STATES, self.random.draw(n, Salt::State)));
    }

    pub(super) fn person_extra(&self, n: u64, out: &mut String) {
        out.push_str(self.letters.piece(self.random.draw(n, Salt::Extra), 104, 155));
    }
}

fn pick(of: &[&'static str], random: u64) -> &'static str {
    of[below(random, of.len() as u64) as usize]
}

/// `write!` would do, at several times the cost.
fn push_decimal(mut number: u64, out: &mut String) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_as_by_the_standard_library() {
        for number in [0, 7, 10, 9_999, u64::MAX] {
            let mut out = String::new();
            push_decimal(number, &mut out);
            assert_eq!(out, number.to_string());
        }
    }

    #[test]
    fn the_extremes_of_a_random_number_stay_in_the_supply() {
        let letters = Letters::new(&Random::new(1));
        for random in [0, u64::MAX, 8191, 8191 << 51] {
            assert!((306..460).contains(&letters.piece(random, 306, 460).len()));
        }
    }
}

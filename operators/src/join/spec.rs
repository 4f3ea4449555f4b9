//! What a join is: which rows without a partner it gives, and how far apart in time partners may be.

use std::{fmt, time::Duration};

use crate::{
    OperatorError, Result,
    time::{micros_of, spelled},
};

/// Which rows a join gives. For the right rows that have (or lack) a left partner exchange the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinType {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a partner, with nulls for the right columns.
    Left,
    /// Pairs, and right rows without a partner, with nulls for the left columns.
    Right,
    /// Pairs, and rows of both sides without a partner.
    Full,
    /// Left rows that have a partner, once each, with the left columns only.
    LeftSemi,
    /// Left rows that have no partner, with the left columns only.
    LeftAnti,
}

impl JoinType {
    /// Whether it gives pairs. Otherwise it gives left rows only.
    pub(crate) fn gives_pairs(self) -> bool {
        !matches!(self, Self::LeftSemi | Self::LeftAnti)
    }

    /// Whether it gives rows of a side without a partner, next to pairs.
    pub(crate) fn is_outer(self, side: usize) -> bool {
        let other = if side == super::LEFT { Self::Left } else { Self::Right };
        self == Self::Full || self == other
    }

    /// Whether a row of this side gives a result on its own, depending on whether it has a partner.
    pub(crate) fn decides(self, side: usize) -> bool {
        self.is_outer(side) || (!self.gives_pairs() && side == super::LEFT)
    }

    /// Of the rows that give a result on their own, whether it is those with a partner.
    pub(crate) fn wants_partner(self) -> bool {
        self == Self::LeftSemi
    }
}

impl fmt::Display for JoinType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Full => "full",
            Self::LeftSemi => "left semi",
            Self::LeftAnti => "left anti",
        })
    }
}

/// How far the right row's event time may be from the left row's, both ends included.
///
/// ```text
///   left row            t
///   right rows    ├─────┼──────────┤     Interval::around(2 s, 4 s): from t − 2 s to t + 4 s
///                         ├────────┤     Interval::between(1, 4_000_000): after the left row, within 4 s
/// ```
///
/// ```
/// use std::time::Duration;
/// use windrow_operators::join::Interval;
/// let interval = Interval::around(Duration::from_secs(2), Duration::from_secs(4));
/// assert_eq!(interval, Interval::between(-2_000_000, 4_000_000));
/// assert_eq!(interval.to_string(), "right within -2s to 4s of left");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    lower: i64,
    upper: i64,
}

impl Interval {
    /// The right row is at most `before` earlier and at most `after` later than the left one, in whole microseconds (what
    /// is less is cut off).
    pub fn around(before: Duration, after: Duration) -> Self {
        Self { lower: -micros_of(before), upper: micros_of(after) }
    }

    /// The right row's time less the left row's is at least `lower` and at most `upper` microseconds. Both may be
    /// negative (the right row comes first) or positive (it comes later).
    pub fn between(lower: i64, upper: i64) -> Self {
        Self { lower, upper }
    }

    pub(super) fn check(self) -> Result<()> {
        if self.lower <= self.upper {
            return Ok(());
        }
        Err(OperatorError::Plan(format!(
            "an interval between {} and {} microseconds holds nothing: the lower bound comes first",
            self.lower, self.upper
        )))
    }

    /// As it is seen from one side: where the partners of a row are.
    pub(super) fn reach(self, side: usize) -> Reach {
        let (lower, upper) = (i128::from(self.lower), i128::from(self.upper));
        if side == super::LEFT { Reach { lower, upper } } else { Reach { lower: -upper, upper: -lower } }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "right within {} to {} of left", signed(self.lower), signed(self.upper))
    }
}

/// So many microseconds for people: `-1s`.
fn signed(micros: i64) -> String {
    match micros {
        0 => "0s".into(),
        _ => format!("{}{}", if micros < 0 { "-" } else { "" }, spelled(Duration::from_micros(micros.unsigned_abs()))),
    }
}

/// The partners of a row at `t` are at `t + lower ..= t + upper`. In 128 bits, because both ends of time are times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) lower: i128,
    pub(super) upper: i128,
}

impl Reach {
    /// Where the partners of a row at `time` are, both ends included; `None` when that is beyond all time.
    pub(super) fn of(self, time: i64) -> Option<(i64, i64)> {
        let (first, last) = (i128::from(time) + self.lower, i128::from(time) + self.upper);
        let exists = first <= i128::from(i64::MAX) && last >= i128::from(i64::MIN);
        exists.then(|| (clamp(first), clamp(last)))
    }
}

/// What of `time` an event time can say.
pub(super) fn clamp(time: i128) -> i64 {
    time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_are_found_from_both_sides_also_at_the_ends_of_time() {
        let times = [i64::MIN, i64::MIN + 3, -4, 0, 5, i64::MAX - 2, i64::MAX];
        for (lower, upper) in [(0, 0), (-5, 5), (3, 9), (-9, -4), (i64::MIN, i64::MAX), (i64::MAX, i64::MAX)] {
            let interval = Interval::between(lower, upper);
            for (left, right) in times.iter().flat_map(|&left| times.map(|right| (left, right))) {
                let apart = i128::from(right) - i128::from(left);
                let expected = i128::from(lower) <= apart && apart <= i128::from(upper);
                let from = |side, time, other| {
                    interval.reach(side).of(time).is_some_and(|(first, last)| first <= other && other <= last)
                };
                assert_eq!(from(super::super::LEFT, left, right), expected, "{left} {right} {interval}");
                assert_eq!(from(super::super::RIGHT, right, left), expected, "{left} {right} {interval}");
            }
        }
    }
}

//! The check of law 1 for an operator with two inputs: the same as for one, with rows, lateness and an oracle of two sides.

use super::{Check, Record, Row, check::Input, rows::batch_of};
use crate::{Port, Timestamp};

impl Check<'_> {
    /// [`Check::run`] for a pipeline that begins with [`Pipeline::two`](super::Pipeline::two).
    pub fn run_two<L, R, I>(&self, left: &[L], right: &[R], oracle: impl Fn(&[L], &[R]) -> I) -> Result<(), String>
    where
        L: Record + Clone,
        R: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        let expected: Vec<Row> = oracle(left, right).into_iter().map(Into::into).collect();
        self.run_within_bound(&[batch_of(left), batch_of(right)], &expected)
    }

    /// [`Check::run_beyond_bound`] for two inputs: `is_late` says for a row of the left one and for a row of the right one
    /// whether it may be called late. Returns how many rows of both were late over all scenarios.
    pub fn run_two_beyond_bound<L, R, I>(
        &self,
        left: &[L],
        right: &[R],
        is_late: (impl Fn(&L, Timestamp) -> bool, impl Fn(&R, Timestamp) -> bool),
        oracle: impl Fn(&[L], &[R]) -> I,
    ) -> Result<usize, String>
    where
        L: Record + Clone,
        R: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        let inputs = [batch_of(left), batch_of(right)];
        let (of_left, of_right) =
            (Input::new(Port::MAIN, left, &inputs[0])?, Input::new(Port::RIGHT, right, &inputs[1])?);
        let mut total = 0;
        self.scenarios(&self.beyond_bound(), &inputs, |outcome| {
            let kept = (of_left.kept(&outcome.late, &is_late.0)?, of_right.kept(&outcome.late, &is_late.1)?);
            total += left.len() - kept.0.len() + right.len() - kept.1.len();
            self.compare(oracle(&kept.0, &kept.1).into_iter().map(Into::into).collect(), &outcome.results)
        })?;
        Ok(total)
    }

    /// Like [`Check::run_two`], but panics when the check fails.
    #[track_caller]
    #[allow(clippy::panic, reason = "a failed assertion of a test is a panic")]
    pub fn assert_two<L, R, I>(&self, left: &[L], right: &[R], oracle: impl Fn(&[L], &[R]) -> I)
    where
        L: Record + Clone,
        R: Record + Clone,
        I: IntoIterator<Item: Into<Row>>,
    {
        if let Err(failure) = self.run_two(left, right, oracle) {
            panic!("{failure}");
        }
    }
}

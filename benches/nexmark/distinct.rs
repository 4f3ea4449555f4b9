//! More keys than memory: bids for tens of millions of auctions in ten seconds, of which q5 has an answer that is known.
//!
//! ```text
//!   place of the auction    0  1  2  3  4  5  6  7 …     its bids: as often as its place + 1 can be halved, and once more
//!   bids                    1  2  1  3  1  2  1  4       all at one instant; two on average; no order in the numbers of auctions
//!   time                    0 ─────────────────► 10 s
//! ```
//!
//! Among places side by side there is one that can be halved most often, so each window has one auction with most bids. Every
//! auction is in five windows of q5; all of them are in one.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
        error::ArrowError,
    },
    connectors::{ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource, Untyped},
    prelude::Timestamp,
};

use super::events::MIDNIGHT;

/// Auctions of a batch, of some 8,192 bids.
const BATCH: u64 = 4_096;
/// The time that all bids are made in, and the windows of q5, in microseconds.
const SPAN: i64 = 10_000_000;
const SIZE: i64 = 10_000_000;
const SLIDE: i64 = 2_000_000;
const START: i64 = MIDNIGHT as i64 * 1000;

/// Bids for so many auctions.
#[derive(Clone, Debug)]
pub struct Distinct {
    auctions: u64,
    splits: usize,
}

impl Distinct {
    /// At least one auction.
    pub fn new(auctions: u64) -> Self {
        Self { auctions: auctions.max(1), splits: 1 }
    }

    pub(super) fn splits(self, splits: usize) -> Self {
        Self { splits, ..self }
    }

    /// All bids: of every second auction one more, of every fourth another one …
    pub fn bids(&self) -> u64 {
        (0..u64::BITS).map(|halved| self.auctions >> halved).sum()
    }

    /// What q5 has to say: `auction` and `bids`, a row for each window.
    pub fn q5(&self) -> Result<RecordBatch, ArrowError> {
        let first = START - SIZE + SLIDE;
        let starts = (first..START + SPAN).step_by(SLIDE as usize);
        let winners = starts.filter_map(|start| self.winner(self.made_in(start, start + SIZE)));
        let (auctions, bids): (Vec<i64>, Vec<i64>) = winners.unzip();
        let columns = [("auction", auctions), ("bids", bids)];
        RecordBatch::try_from_iter(columns.map(|(name, values)| (name, Arc::new(Int64Array::from(values)) as ArrayRef)))
    }

    /// The auctions with bids from `start` until before `end`, by their places.
    fn made_in(&self, start: i64, end: i64) -> Range<u64> {
        let first_at = |time: i64| {
            let passed = i128::from((time - START).clamp(0, SPAN)) * i128::from(self.auctions);
            // A place is in time at its share of the span, rounded down: the first one that is not before `time`.
            u64::try_from((passed + i128::from(SPAN) - 1) / i128::from(SPAN)).unwrap_or(self.auctions)
        };
        first_at(start)..first_at(end).min(self.auctions)
    }

    /// The auction with most bids, and how many.
    fn winner(&self, places: Range<u64>) -> Option<(i64, i64)> {
        let halved = |halved: &u32| (places.end >> halved) << halved > places.start;
        let most = (0..u64::BITS).rev().find(halved)?;
        let place = ((places.end >> most) << most) - 1;
        Some((number(place), i64::from(most) + 1))
    }

    fn time(&self, place: u64) -> i64 {
        START + (u128::from(place) * SPAN as u128 / u128::from(self.auctions)) as i64
    }

    fn batch(&self, places: Range<u64>) -> Result<RecordBatch, ArrowError> {
        let rows = places.flat_map(|place| {
            let row = (number(place), self.time(place));
            std::iter::repeat_n(row, 1 + (place + 1).trailing_zeros() as usize)
        });
        let (auctions, times): (Vec<i64>, Vec<i64>) = rows.unzip();
        let auctions: ArrayRef = Arc::new(Int64Array::from(auctions));
        RecordBatch::try_from_iter([("auction", auctions), ("at", Timestamp::column(times))])
    }
}

/// The number of the auction at a place: a step of Fibonacci hashing, which gives no number twice.
fn number(place: u64) -> i64 {
    place.wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64
}

struct Reader {
    source: Distinct,
    /// Splits, and the batch that comes next in each.
    splits: VecDeque<(SplitId, u64)>,
}

#[async_trait]
impl Source for Distinct {
    fn name(&self) -> String {
        format!("bids for {} auctions", self.auctions)
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(self.batch(0..0)?.schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok((0..self.splits).map(|split| SplitId::new(split.to_string())).collect())
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let splits = assigned.into_iter().filter_map(|(id, position)| {
            let number: u64 = id.as_str().parse().ok()?;
            Some((id, number + position.unwrap_or_default().0 * self.splits as u64))
        });
        Ok(Box::new(Reader { source: self.clone(), splits: splits.collect() }))
    }
}

impl TypedSource for Distinct {
    type Row = Untyped;
}

#[async_trait]
impl SourceReader for Reader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        let Some((split, number)) = self.splits.pop_front() else { return Ok(Fetch::End) };
        let auctions = self.source.auctions;
        if number * BATCH >= auctions {
            return Ok(Fetch::SplitEnd(split));
        }
        let batch = self.source.batch(number * BATCH..((number + 1) * BATCH).min(auctions))?;
        let following = number + self.source.splits as u64;
        // The splits take turns.
        self.splits.push_back((split.clone(), following));
        let next = Position(following / self.source.splits as u64);
        Ok(Fetch::Rows(Rows { split, batch, rejected: Vec::new(), passed_over: 0, next, origins: None }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use windrow::arrow::{array::AsArray, datatypes::Int64Type};

    use super::*;

    /// The formula beside a count of all bids.
    #[test]
    fn the_answer_is_that_of_a_naive_count() {
        for auctions in [1, 2, 7, 4_096, 10_007] {
            let bids = Distinct::new(auctions);
            let mut windows: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
            let mut all = 0;
            for place in 0..auctions {
                for _ in 0..=(place + 1).trailing_zeros() {
                    all += 1;
                    let last = bids.time(place).div_euclid(SLIDE) * SLIDE;
                    for back in 0..SIZE / SLIDE {
                        let counts = windows.entry(last - back * SLIDE).or_default();
                        *counts.entry(number(place)).or_default() += 1;
                    }
                }
            }
            assert_eq!(bids.bids(), all);
            let mut expected = Vec::new();
            for counts in windows.values() {
                let most = *counts.values().max().unwrap();
                expected.extend(
                    counts.iter().filter(|(_, count)| **count == most).map(|(&auction, &bids)| (auction, bids)),
                );
            }
            let answer = bids.q5().unwrap();
            let column = |index: usize| answer.column(index).as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(column(0).into_iter().zip(column(1)).collect::<Vec<_>>(), expected, "{auctions}");
        }
    }
}

//! One scenario: how many tasks, which rows arrive where and when, in batches of which size, with which watermarks.
//!
//! Everything follows from one seed, so that a scenario that failed can be replayed.

use std::{fmt, ops::RangeInclusive, time::Duration};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
};
use fastrand::Rng;

use super::guard::range;
use crate::{StreamSchema, Timestamp, Watermark, time::micros_of};

/// What a source task sends, in order.
#[derive(Clone)]
pub(super) enum Message {
    Batch(RecordBatch),
    Watermark(Watermark),
}

/// Within which limits scenarios are drawn.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) bound: Duration,
    pub(super) parallelism: RangeInclusive<usize>,
    pub(super) batch_rows: RangeInclusive<usize>,
    /// Whether rows may arrive later than the bound allows.
    pub(super) beyond_bound: bool,
    /// Whether tasks fall idle while they still have rows.
    pub(super) idle: bool,
}

/// How the rows of a task are put out of order.
#[derive(Clone, Copy, Debug)]
enum Disorder {
    None,
    /// Each row is delayed by anything up to the bound.
    Any,
    /// Each row is delayed by nothing or by the whole bound: the hardest case.
    Extreme,
}

/// One way in which the rows arrive.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) parallelism: usize,
    batch_rows: usize,
    /// Whether each batch is of a random size up to `batch_rows`, rather than of exactly that size.
    ragged: bool,
    disorder: Disorder,
    /// Out of eight batches, how many are followed by a watermark.
    watermarks: u8,
    /// Whether one task has nearly all rows.
    skewed: bool,
    limits: Limits,
}

impl Scenario {
    /// The scenario of `seed`. Its low byte says where in a round of checks it stands: successive numbers give every
    /// parallelism in turn, and for each the least, the greatest and random sizes of batches.
    pub(super) fn new(seed: u64, limits: &Limits, rows: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let round = (seed & 0xff) as usize;
        let width = 1 + limits.parallelism.end().saturating_sub(*limits.parallelism.start());
        let most = (*limits.batch_rows.end()).min(rows).max(1);
        let least = (*limits.batch_rows.start()).clamp(1, most);
        let batch_rows = match (round / width) % 3 {
            0 => random.usize(least..=most),
            1 => least,
            _ => most,
        };
        Self {
            seed,
            parallelism: limits.parallelism.start() + round % width,
            batch_rows,
            ragged: random.bool(),
            disorder: [Disorder::Any, Disorder::Extreme, Disorder::None][random.usize(..3)],
            watermarks: [8, 8, 4, 1, 0][random.usize(..5)],
            skewed: random.u8(..4) == 0,
            limits: limits.clone(),
        }
    }

    /// Where it stands in a round of checks.
    pub(super) fn round(&self) -> usize {
        (self.seed & 0xff) as usize
    }

    /// The least number of tasks, and how many numbers there are.
    pub(super) fn tasks(&self) -> (usize, usize) {
        let (least, most) = (*self.limits.parallelism.start(), *self.limits.parallelism.end());
        (least, 1 + most.saturating_sub(least))
    }

    /// The same for a later part of the run: other tasks, and another order.
    pub(super) fn later(&self, leg: usize, parallelism: usize) -> Self {
        Self { seed: self.seed ^ (leg as u64) << 32, parallelism, ..self.clone() }
    }

    /// What each source task of the input of this number sends.
    pub(super) fn arrivals(
        &self,
        input: usize,
        stream: &StreamSchema,
        rows: &RecordBatch,
    ) -> Result<Vec<Vec<Message>>, String> {
        let mut random = Rng::with_seed(self.seed ^ 0x5eed ^ (input as u64) << 24);
        let mut shares = vec![Vec::new(); self.parallelism];
        for row in 0..rows.num_rows() as u32 {
            let task = if self.skewed && random.u8(..16) != 0 { 0 } else { random.usize(..self.parallelism) };
            shares[task].push(row);
        }
        let times = stream.time().and_then(|time| crate::time::event_times(rows, time));
        let mut tasks = Vec::with_capacity(self.parallelism);
        for mut share in shares {
            self.disturb(&mut share, times, &mut random);
            let share = take_record_batch(rows, &UInt32Array::from(share)).map_err(|error| error.to_string())?;
            tasks.push(self.messages(stream, &share, &mut random));
        }
        Ok(tasks)
    }

    /// Puts rows out of order. A row delayed by `d` arrives where a row that is later by `d` would: so, with delays of
    /// at most the bound, none arrives after one that is later by more than the bound.
    fn disturb(&self, share: &mut Vec<u32>, times: Option<&[i64]>, random: &mut Rng) {
        let Some(times) = times else { return random.shuffle(share) };
        let bound = micros_of(self.limits.bound);
        let (first, last) = (times.iter().min().copied(), times.iter().max().copied());
        let spread = i128::from(last.unwrap_or(0)) - i128::from(first.unwrap_or(0));
        let mut order: Vec<(i128, u32, u32)> = Vec::with_capacity(share.len());
        for &row in share.iter() {
            let mut delay = match self.disorder {
                Disorder::None => 0,
                Disorder::Any => i128::from(random.i64(0..=bound)),
                Disorder::Extreme => i128::from(bound) * i128::from(random.bool()),
            };
            if self.limits.beyond_bound && random.u8(..4) == 0 {
                delay += random.i128(0..=spread / 2 + 3 * i128::from(bound));
            }
            order.push((i128::from(times[row as usize]) + delay, random.u32(..), row));
        }
        order.sort_unstable();
        share.clear();
        share.extend(order.into_iter().map(|(_, _, row)| row));
    }

    /// Cuts the rows into batches and puts watermarks between them: the greatest time seen, less the bound.
    fn messages(&self, stream: &StreamSchema, share: &RecordBatch, random: &mut Rng) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut seen = Timestamp::MIN;
        let mut offset = 0;
        while offset < share.num_rows() {
            let rows = if self.ragged { random.usize(1..=self.batch_rows) } else { self.batch_rows };
            let rows = rows.min(share.num_rows() - offset);
            // A slice of a larger batch, as decoders make them; now and then one without rows.
            let batch = share.slice(offset, rows);
            if random.u8(..32) == 0 {
                messages.push(Message::Batch(batch.slice(0, 0)));
            }
            offset += rows;
            seen = range(stream, &batch).map_or(seen, |(_, last)| seen.max(last));
            messages.push(Message::Batch(batch));
            if random.u8(..8) < self.watermarks && seen > Timestamp::MIN {
                messages.push(Message::Watermark(Watermark::At(self.watermark(seen))));
            }
            if self.limits.idle && random.u8(..8) == 0 {
                messages.push(Message::Watermark(Watermark::Idle));
            }
        }
        // Within the bound only a task that has no more rows may fall idle: the others do not wait for it.
        if random.bool() {
            messages.push(Message::Watermark(Watermark::Idle));
        }
        messages.push(Message::Watermark(Watermark::At(Timestamp::MAX)));
        messages
    }

    /// The end of time is not a watermark but the end of the input.
    fn watermark(&self, seen: Timestamp) -> Timestamp {
        seen.saturating_sub(self.limits.bound).min(Timestamp::from_micros(i64::MAX - 1))
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parallelism, batch_rows, ragged, disorder, watermarks, skewed, limits, .. } = self;
        let size = if *ragged { "up to" } else { "exactly" };
        write!(f, "parallelism {parallelism}, batches of {size} {batch_rows} rows, ")?;
        match disorder {
            Disorder::None => write!(f, "in order within each task")?,
            Disorder::Any => write!(f, "each row delayed by up to {:?}", limits.bound)?,
            Disorder::Extreme => write!(f, "each row delayed by nothing or {:?}", limits.bound)?,
        }
        write!(f, ", a watermark after {watermarks} of 8 batches")?;
        f.write_str(if *skewed { ", most rows in task 0" } else { "" })?;
        f.write_str(if limits.beyond_bound { ", some rows beyond the bound" } else { "" })?;
        f.write_str(if limits.idle { ", tasks fall idle in between" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(beyond_bound: bool) -> Limits {
        Limits {
            bound: Duration::from_micros(7),
            parallelism: 1..=4,
            batch_rows: 1..=usize::MAX,
            beyond_bound,
            idle: false,
        }
    }

    /// Rows that come behind the watermark of their own task, over many scenarios.
    fn late_rows(limits: &Limits) -> usize {
        let times: Vec<i64> = (0..60).map(|row| (row * 37) % 101 - 50).collect();
        let rows = RecordBatch::try_from_iter([("at", Timestamp::column(times))]).unwrap();
        let stream = StreamSchema::with_time(rows.schema(), "at").unwrap();
        let mut late = 0;
        for seed in 0..200 {
            let tasks = Scenario::new(seed, limits, rows.num_rows()).arrivals(0, &stream, &rows).unwrap();
            let mut arrived = 0;
            for messages in tasks {
                let mut watermark = Timestamp::MIN;
                for message in messages {
                    match message {
                        Message::Batch(batch) => {
                            arrived += batch.num_rows();
                            let times = crate::time::event_times(&batch, 0).unwrap();
                            late += times.iter().filter(|&&time| time < watermark.micros()).count();
                        }
                        Message::Watermark(Watermark::At(time)) => {
                            assert!(time >= watermark);
                            watermark = time;
                        }
                        Message::Watermark(Watermark::Idle) => {}
                    }
                }
                assert_eq!(watermark, Timestamp::MAX);
            }
            assert_eq!(arrived, 60, "every row arrives once");
        }
        late
    }

    #[test]
    fn within_the_bound_no_row_is_behind_the_watermark_of_its_task() {
        assert_eq!(late_rows(&limits(false)), 0);
        assert!(late_rows(&limits(true)) > 500);
    }

    #[test]
    fn twelve_rounds_meet_every_parallelism_with_small_large_and_random_batches() {
        let scenarios = (0..12).map(|seed| Scenario::new(seed, &limits(false), 50));
        let met: std::collections::BTreeSet<_> = scenarios.map(|s| (s.parallelism, s.batch_rows)).collect();
        for parallelism in 1..=4 {
            assert!(met.contains(&(parallelism, 1)) && met.contains(&(parallelism, 50)), "{met:?}");
        }
    }
}

//! A source like a topic whose third partition is silent for hours at a time, and comes back.
//!
//! ```text
//!   split 0   ──────────── 0, 3, 6 … ── 0, 2, 4 … ─────────────── 0, 3, 6 … ──►
//!   split 1   ──────────── 1, 4, 7 … ── 1, 3, 5 … ─────────────── 1, 4, 7 … ──►    number n is n / rate seconds late
//!   split 2   ──────────── 2, 5, 8 … ┄┄┄┄ silence ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ 2, 5, 8 … ──►
//! ```
//!
//! A number is there when its time has come, read or not, as in a topic: after a failure there are some to catch up with.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;
use windrow::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    connectors::{
        ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource, Untyped, async_trait,
    },
    prelude::*,
};

type Outcome<T> = Result<T, ConnectorError>;

/// Numbers come in portions of so many.
const PORTION: u64 = 10;

#[derive(Clone)]
pub struct Shifts {
    pub numbers: u64,
    /// So many a second, over all splits.
    pub rate: u64,
    /// In seconds.
    pub silences: Vec<Range<u64>>,
    /// When the first reader did.
    began: Arc<OnceLock<Instant>>,
}

impl Shifts {
    pub fn new(numbers: u64, rate: u64, silences: Vec<Range<u64>>) -> Self {
        Self { numbers, rate, silences, began: Arc::default() }
    }

    fn split_of(&self, number: u64) -> u64 {
        let is_silent = self.silences.iter().any(|silence| silence.contains(&(number / self.rate)));
        number % if is_silent { 2 } else { 3 }
    }

    /// The first number of a split that is not before `from`, or where all end.
    fn next(&self, split: u64, from: u64) -> u64 {
        (from..self.numbers).find(|number| self.split_of(*number) == split).unwrap_or(self.numbers)
    }

    fn began(&self) -> Instant {
        *self.began.get_or_init(Instant::now)
    }

    fn batch(&self, numbers: &[i64]) -> Outcome<RecordBatch> {
        let values: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        let step = 1_000_000 / self.rate as i64;
        let times = Timestamp::column(numbers.iter().map(|number| number * step).collect());
        Ok(RecordBatch::try_from_iter([("value", values), ("at", times)])?)
    }
}

#[async_trait]
impl Source for Shifts {
    fn name(&self) -> String {
        "shifts".into()
    }

    fn schema(&self) -> Outcome<SchemaRef> {
        Ok(self.batch(&[])?.schema())
    }

    async fn splits(&self) -> Outcome<Vec<SplitId>> {
        Ok((0..3).map(|split| SplitId::new(split.to_string())).collect())
    }

    /// A position is the number that comes next.
    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Outcome<Box<dyn SourceReader>> {
        self.began();
        let cursors = assigned.into_iter().map(|(id, position)| {
            let split = id.as_str().parse().unwrap();
            Cursor { id, split, next: self.next(split, position.unwrap_or_default().0) }
        });
        Ok(Box::new(ShiftReader { shifts: self.clone(), cursors: cursors.collect() }))
    }
}

impl TypedSource for Shifts {
    type Row = Untyped;
}

struct Cursor {
    id: SplitId,
    split: u64,
    next: u64,
}

struct ShiftReader {
    shifts: Shifts,
    cursors: Vec<Cursor>,
}

#[async_trait]
impl SourceReader for ShiftReader {
    /// The oldest first.
    async fn fetch(&mut self) -> Outcome<Fetch> {
        let shifts = &self.shifts;
        let Some((at, cursor)) = self.cursors.iter_mut().enumerate().min_by_key(|(_, cursor)| cursor.next) else {
            return Ok(Fetch::End);
        };
        if cursor.next >= shifts.numbers {
            return Ok(Fetch::SplitEnd(self.cursors.remove(at).id));
        }
        let end = (cursor.next / PORTION + 1) * PORTION;
        tokio::time::sleep_until(shifts.began() + Duration::from_millis(end * 1_000 / shifts.rate)).await;
        let own = (cursor.next..end.min(shifts.numbers)).filter(|number| shifts.split_of(*number) == cursor.split);
        let batch = shifts.batch(&own.map(|number| number as i64).collect::<Vec<_>>())?;
        cursor.next = shifts.next(cursor.split, end);
        let (split, next) = (cursor.id.clone(), Position(cursor.next));
        Ok(Fetch::Rows(Rows { split, batch, rejected: Vec::new(), passed_over: 0, next, origins: None }))
    }

    /// About: of those that have come two or three splits have a share.
    fn lag(&self) -> Vec<(SplitId, u64)> {
        let come = self.shifts.began().elapsed().as_millis() as u64 * self.shifts.rate / 1_000 / PORTION * PORTION;
        let come = come.min(self.shifts.numbers);
        self.cursors.iter().map(|cursor| (cursor.id.clone(), come.saturating_sub(cursor.next).div_ceil(3))).collect()
    }
}

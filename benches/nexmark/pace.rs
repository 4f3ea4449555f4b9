//! Events that are offered at a fixed rate, whether the query keeps up or not, and how long each result takes.
//!
//! ```text
//!   number n is due n / rate after the start         result of number n: now - when n was due
//!   ──► Paced ──► query ──► Taken ──► histogram      result of a window: now - when the first event was due that is not before
//!                                                    its end, whose watermark closes it
//! ```
//!
//! What waits because the query is behind waits at the query's cost: an event that is offered late has been due for as long
//! (that is the correction for coordinated omission). What is due comes in batches, once in a millisecond or two, and at most as many
//! rows at a time as in a run at full speed. The first tenth of the events warms up, and does not count; nor does a result of a
//! window that only the end of the input closes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hdrhistogram::Histogram;
use serde::Serialize;
use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{
        ConnectorError, Epoch, Fetch, Incarnation, Position, Receipt, Rows, Sink, SinkWriter, Source, SourceReader,
        SplitId, TypedSource, Untyped,
    },
};
use windrow_operators::time::event_times;

use super::Events;

/// How often it is looked what is due.
const TICK: Duration = Duration::from_millis(1);

/// When events are due. The clock begins with the first reader of any source.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    began: OnceLock<Instant>,
}

impl Pace {
    /// So many events of all kinds a second.
    pub fn new(per_second: f64) -> Self {
        Self { per_second, began: OnceLock::new() }
    }

    /// Events per second.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    fn seconds(&self) -> f64 {
        self.began.get_or_init(Instant::now).elapsed().as_secs_f64()
    }

    /// How many events are due by now.
    fn due(&self) -> f64 {
        self.seconds() * self.per_second
    }

    /// For how long the event of this number has been due, in microseconds.
    fn overdue(&self, seconds: f64, number: f64) -> u64 {
        ((seconds - number / self.per_second) * 1e6).max(1.0) as u64
    }
}

/// Batches that lie ready, of which each row comes when it is due.
#[derive(Clone)]
pub(super) struct Paced {
    pub(super) schema: SchemaRef,
    pub(super) splits: Arc<[Vec<RecordBatch>]>,
    pub(super) pace: Arc<Pace>,
    pub(super) events: Events,
}

/// The rest of a split.
struct Split {
    id: SplitId,
    /// The numbers of the events of each batch are those from the first on, so many.
    batches: VecDeque<(u64, u64, RecordBatch)>,
    /// Rows of the first batch that are gone.
    gone: usize,
    next: Position,
}

impl Split {
    /// Rows of the first batch that have not gone and are due when `events` are. A batch without rows is due with its last event.
    fn due(&self, events: f64) -> Option<usize> {
        let (first, count, batch) = self.batches.front()?;
        let share = ((events - *first as f64) / *count as f64).clamp(0.0, 1.0);
        let rows = (share * batch.num_rows() as f64) as usize;
        (rows > self.gone || share == 1.0).then(|| rows - self.gone)
    }

    fn take(&mut self, rows: usize) -> Option<RecordBatch> {
        let (.., batch) = self.batches.front()?;
        let part = batch.slice(self.gone, rows);
        self.gone += rows;
        if self.gone == batch.num_rows() {
            self.batches.pop_front();
            self.gone = 0;
        }
        self.next = Position(self.next.0 + 1);
        Some(part)
    }
}

struct Reader {
    splits: VecDeque<Split>,
    pace: Arc<Pace>,
}

#[async_trait]
impl Source for Paced {
    fn name(&self) -> String {
        "paced events".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(self.schema.clone())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok((0..self.splits.len()).map(|split| SplitId::new(split.to_string())).collect())
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let splits = assigned.into_iter().filter_map(|(id, _)| {
            let number: usize = id.as_str().parse().ok()?;
            let positions = self.events.batches().skip(number).step_by(self.splits.len());
            let batches = positions.zip(self.splits.get(number)?);
            let batches =
                batches.map(|(positions, batch)| (positions.start, positions.end - positions.start, batch.clone()));
            Some(Split { id, batches: batches.collect(), gone: 0, next: Position(0) })
        });
        Ok(Box::new(Reader { splits: splits.collect(), pace: self.pace.clone() }))
    }
}

impl TypedSource for Paced {
    type Row = Untyped;
}

#[async_trait]
impl SourceReader for Reader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        if self.splits.is_empty() {
            return Ok(Fetch::End);
        }
        loop {
            let due = self.pace.due();
            // The splits take turns.
            for _ in 0..self.splits.len() {
                let Some(mut split) = self.splits.pop_front() else { break };
                if split.batches.is_empty() {
                    return Ok(Fetch::SplitEnd(split.id));
                }
                let part = split.due(due).and_then(|rows| split.take(rows));
                let (id, next) = (split.id.clone(), split.next);
                self.splits.push_back(split);
                if let Some(batch) = part {
                    let rows = Rows { split: id, batch, rejected: Vec::new(), passed_over: 0, next, origins: None };
                    return Ok(Fetch::Rows(rows));
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// What a result is about, by the column that says so.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// An event of this time.
    At(&'static str),
    /// A window that ends here.
    Ended(&'static str),
    /// The window of ten seconds that this instant is in.
    TenSeconds(&'static str),
}

impl Told {
    fn column(self) -> &'static str {
        let (Self::At(name) | Self::Ended(name) | Self::TenSeconds(name)) = self;
        name
    }

    /// The time of the event without which there was no result, in microseconds.
    fn caused_by(self, time: i64) -> i64 {
        match self {
            Self::At(_) | Self::Ended(_) => time,
            Self::TenSeconds(_) => (time.div_euclid(10_000_000) + 1) * 10_000_000,
        }
    }
}

/// Takes the time of each result.
#[derive(Clone, Debug)]
pub struct Taken {
    told: Told,
    pace: Arc<Pace>,
    events: Events,
    total: Arc<Mutex<Option<Histogram<u64>>>>,
}

/// How long results took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Events that were offered per second.
    pub rate: f64,
    /// Results whose time was taken.
    pub results: u64,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nor did 99 of 100.
    pub p99: f64,
    /// Nor did 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Taken {
    /// Of results that are about events of `events`, which are due as `pace` says.
    pub fn new(told: Told, pace: Arc<Pace>, events: &Events) -> Self {
        Self { told, pace, events: events.clone(), total: Arc::default() }
    }

    /// When the job has ended; `None` without results.
    pub fn latency(&self) -> Option<Latency> {
        let total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        let total = total.as_ref().filter(|total| !total.is_empty())?;
        let millis = |quantile| total.value_at_quantile(quantile) as f64 / 1e3;
        Some(Latency {
            rate: self.pace.per_second(),
            results: total.len(),
            p50: millis(0.5),
            p99: millis(0.99),
            p999: millis(0.999),
            max: total.max() as f64 / 1e3,
        })
    }
}

struct Writer {
    taken: Taken,
    column: usize,
    own: Histogram<u64>,
}

#[async_trait]
impl Sink for Taken {
    fn name(&self) -> String {
        "latencies".into()
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<(), ConnectorError> {
        schema.index_of(self.told.column()).map(|_| ()).map_err(ConnectorError::from)
    }

    async fn writer(
        &self,
        _: &Incarnation,
        _: usize,
        schema: SchemaRef,
    ) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let own = histogram()?;
        Ok(Box::new(Writer { taken: self.clone(), column: schema.index_of(self.told.column())?, own }))
    }
}

/// Of microseconds, up to ten minutes.
fn histogram() -> Result<Histogram<u64>, ConnectorError> {
    Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| ConnectorError::Config(error.to_string()))
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        let Taken { told, pace, events, .. } = &self.taken;
        let now = pace.seconds();
        let times = event_times(&batch, self.column)
            .ok_or_else(|| ConnectorError::Config(format!("column {:?} is no event time", told.column())))?;
        for same in times.chunk_by(|a, b| a == b) {
            let number = events.number_at(told.caused_by(same[0]));
            if (events.count as f64 / 10.0..events.count as f64).contains(&number) {
                self.own.saturating_record_n(pace.overdue(now, number), same.len() as u64);
            }
        }
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        let mut total = self.taken.total.lock().unwrap_or_else(PoisonError::into_inner);
        let total = match total.as_mut() {
            Some(total) => total,
            None => total.insert(histogram()?),
        };
        let added = total.add(&self.own);
        self.own.reset();
        added.map(|()| Vec::new()).map_err(|error| ConnectorError::Config(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_one_after_another() {
        use windrow::arrow::array::{ArrayRef, Int64Array};
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let batches = [(100, 20, batch.clone()), (120, 20, batch.slice(0, 0)), (140, 5, batch.slice(0, 1))];
        let mut split = Split { id: SplitId::new("0"), batches: batches.into(), gone: 0, next: Position(0) };
        let mut at = |events: f64| split.due(events).map(|rows| split.take(rows).unwrap().num_rows());
        // 20 events of which 10 are rows: every second one is.
        assert_eq!([99.0, 101.9, 102.0, 103.0].map(&mut at), [None, None, Some(1), None]);
        assert_eq!([107.0, 119.0, 130.0].map(&mut at), [Some(2), Some(6), Some(1)]);
        assert_eq!([139.0, 140.0, 144.0, 145.0, 1e9].map(&mut at), [None, Some(0), None, Some(1), None]);
        assert_eq!(split.next, Position(6));
    }

    #[test]
    fn a_result_is_due_with_the_event_that_causes_it() {
        let events = Events { rate: 1_000, start: 5_000, ..Events::default() };
        assert_eq!(events.number_at(5_250_000), 250.0);
        assert_eq!(Told::TenSeconds("at").caused_by(12_000_000), 20_000_000);
        assert_eq!(Told::Ended("window_end").caused_by(20_000_000), 20_000_000);
        // The 250th of 100 a second was due after 2.5 s.
        assert_eq!(Pace::new(100.0).overdue(3.5, 250.0), 1_000_000);
        assert_eq!(Pace::new(100.0).overdue(2.4, 250.0), 1, "before it was due: the time of an event is rounded");
    }
}

//! Reads any series of numbered rows: deals them to splits, keeps positions, waits until rows are due.
//!
//! It exists so that the generators contain only what their rows look like. A row has two numbers: its *row number*
//! among the rows of its series, and its *event number* on the time line that several series may share (the bids,
//! auctions and persons of Nexmark). Splits and positions count rows; order and pace follow events.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::pace::Pace;
use crate::{ConnectorError, Fetch, Position, Result, Rows, SourceReader, SplitId};

/// More rows than this in a batch bring no speed, and their strings could outgrow the 2 GiB of an Arrow column.
const MAX_BATCH_ROWS: usize = 1 << 20;

/// Rows that are pure functions of their number.
pub(super) trait Series: Send + Sync + 'static {
    /// How many rows there are.
    fn rows(&self) -> u64;

    /// The event number of a row; grows with the row number.
    fn event(&self, row: u64) -> u64;

    /// How many rows have an event number below `event`.
    fn rows_before(&self, event: u64) -> u64;

    /// Makes the given rows.
    fn batch(&self, rows: RowNumbers) -> Result<RecordBatch>;
}

/// The row numbers `first`, `first + step`, ...: `count` of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowNumbers {
    first: u64,
    step: u64,
    count: u64,
}

impl RowNumbers {
    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = u64> {
        // A batch has at most `MAX_BATCH_ROWS` rows, so the narrowing loses nothing.
        (0..self.count as usize).map(move |i| self.first + i as u64 * self.step)
    }
}

/// How the rows of a generator are handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) splits: usize,
    /// Events a second by the wall clock; `None` is as fast as possible.
    pub(super) rate: Option<u64>,
    pub(super) batch_rows: usize,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { splits: 1, rate: None, batch_rows: 8192 }
    }
}

impl Delivery {
    /// Refuses settings that cannot deliver anything; `name` is the source's.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let wrong = if self.splits == 0 {
            "0 splits hold no rows; use splits(1) or more".to_owned()
        } else if self.rate == Some(0) {
            "at a rate of 0 events a second no row is ever due; use rate(1) or more, or none to run at full speed"
                .to_owned()
        } else if !(1..=MAX_BATCH_ROWS).contains(&self.batch_rows) {
            format!("batch_rows({}) is out of range; use 1 to {MAX_BATCH_ROWS}", self.batch_rows)
        } else {
            return Ok(());
        };
        Err(ConnectorError::Config(format!("source {name}: {wrong}")))
    }

    pub(super) fn split_ids(&self) -> Vec<SplitId> {
        (0..self.splits).map(|index| Share { index: index as u64, of: self.splits as u64 }.id()).collect()
    }

    /// A reader of the `assigned` splits of `series`.
    pub(super) fn open<S: Series>(
        &self,
        name: &str,
        series: S,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>> {
        self.check(name)?;
        let mut cursors = Vec::with_capacity(assigned.len());
        for (id, position) in assigned {
            let share = Share::find(&id, self.splits).ok_or_else(|| self.unknown_split(name, &id))?;
            cursors.push(Cursor::new(name, id, share, position.unwrap_or_default(), &series)?);
        }
        let pace = self.rate.map(Pace::from_now);
        Ok(Box::new(GeneratorReader { series, cursors, pace, batch_rows: self.batch_rows as u64 }))
    }

    fn unknown_split(&self, name: &str, id: &SplitId) -> ConnectorError {
        ConnectorError::Config(format!(
            "source {name} has no split {id}: its splits are 0/{k} to {last}/{k}. A restart needs the same splits({k}) \
             that the checkpoint was made with",
            k = self.splits,
            last = self.splits - 1,
        ))
    }
}

/// The part of a series that a split holds: every `of`-th row, beginning with row `index`.
#[derive(Clone, Copy, Debug)]
struct Share {
    index: u64,
    of: u64,
}

impl Share {
    /// The name tells the number of splits too: with another number it would mean other rows.
    fn id(self) -> SplitId {
        SplitId::new(format!("{}/{}", self.index, self.of))
    }

    fn find(id: &SplitId, splits: usize) -> Option<Self> {
        let (index, of) = id.as_str().split_once('/')?;
        let share = Self { index: index.parse().ok()?, of: of.parse().ok()? };
        (share.of == splits as u64 && share.index < share.of && share.id() == *id).then_some(share)
    }

    /// How many of the first `rows` rows of the series are in this share.
    fn count(self, rows: u64) -> u64 {
        rows.saturating_sub(self.index).div_ceil(self.of)
    }

    /// The number in the series of row `position` of this share.
    fn row(self, position: u64) -> u64 {
        self.index + position * self.of
    }
}

/// How far one split has been read.
#[derive(Debug)]
struct Cursor {
    id: SplitId,
    share: Share,
    /// The position of the next row.
    next: u64,
    /// The position after the last row.
    end: u64,
    /// The event number from which the schedule counts: 0, or what follows the row before a restart.
    base: u64,
    paused: bool,
}

impl Cursor {
    fn new(name: &str, id: SplitId, share: Share, position: Position, series: &impl Series) -> Result<Self> {
        let (next, end) = (position.0, share.count(series.rows()));
        if next > end {
            return Err(ConnectorError::Config(format!(
                "source {name}: position {next} lies behind the end of split {id}, which has {end} rows. A restart \
                 needs at least as many events as the checkpoint was made with"
            )));
        }
        let base = if next == 0 { 0 } else { series.event(share.row(next - 1)) + 1 };
        Ok(Self { id, share, next, end, base, paused: false })
    }

    /// The event number of the row at `position`.
    fn event(&self, position: u64, series: &impl Series) -> u64 {
        series.event(self.share.row(position))
    }

    /// The end of a batch that takes all rows up to event `last` (at least one row, at most `batch_rows`).
    fn batch_end(&self, last: u64, batch_rows: u64, series: &impl Series) -> u64 {
        let most = self.end.min(self.next + batch_rows);
        self.share.count(series.rows_before(last.saturating_add(1))).clamp(self.next + 1, most)
    }

    /// When the next batch is complete: a portion's worth of rows, counted from the first.
    fn ready(&self, pace: &Pace, batch_rows: u64, series: &impl Series) -> tokio::time::Instant {
        let portion_end = self.event(self.next, series).saturating_add(pace.portion());
        let last_row = self.batch_end(portion_end, batch_rows, series) - 1;
        pace.due(self.event(last_row, series) - self.base)
    }

    fn take(&mut self, end: u64, series: &impl Series) -> Result<Rows> {
        let rows = RowNumbers { first: self.share.row(self.next), step: self.share.of, count: end - self.next };
        let batch = series.batch(rows)?;
        self.next = end;
        let (split, next) = (self.id.clone(), Position(end));
        Ok(Rows { split, batch, rejected: Vec::new(), passed_over: 0, next, origins: None })
    }
}

struct GeneratorReader<S> {
    series: S,
    /// The splits that have not been reported as ended.
    cursors: Vec<Cursor>,
    pace: Option<Pace>,
    batch_rows: u64,
}

#[async_trait]
impl<S: Series> SourceReader for GeneratorReader<S> {
    /// Cancel-safe: a cursor moves only after the one `await`.
    async fn fetch(&mut self) -> Result<Fetch> {
        let series = &self.series;
        if let Some(ended) = self.cursors.iter().position(|cursor| cursor.next == cursor.end) {
            return Ok(Fetch::SplitEnd(self.cursors.remove(ended).id));
        }
        if self.cursors.is_empty() {
            return Ok(Fetch::End);
        }
        let batch_rows = self.batch_rows;
        let cursors = self.cursors.iter_mut().filter(|cursor| !cursor.paused);
        let Some(pace) = self.pace else {
            // The split that lags behind is next, so that no split's event time runs ahead.
            let Some(cursor) = cursors.min_by_key(|cursor| cursor.event(cursor.next, series)) else {
                return std::future::pending().await;
            };
            let end = cursor.end.min(cursor.next + batch_rows);
            return cursor.take(end, series).map(Fetch::Rows);
        };
        let Some(cursor) = cursors.min_by_key(|cursor| cursor.ready(&pace, batch_rows, series)) else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(cursor.ready(&pace, batch_rows, series)).await;
        let latest = cursor.base.saturating_add(pace.latest_due());
        let end = cursor.batch_end(latest, batch_rows, series);
        cursor.take(end, series).map(Fetch::Rows)
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.cursors.iter_mut().for_each(|cursor| cursor.paused = splits.contains(&cursor.id));
        true
    }
}

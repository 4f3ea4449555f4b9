//! Small batches that a reader has ready are taken through the operators as one.
//!
//! ```text
//!   fetch ── 170 rows ── up to 1 s ─┐
//!   fetch ── 180 rows ── up to 2 s ─┼─ 520 rows ─ up to 3 s ──► chain
//!   fetch ── 170 rows ── up to 3 s ─┘
//!   nothing more is ready, or something else is to be done
//! ```
//!
//! A topic of many partitions, and a file of long records, come in batches of few rows, and operators cost some microseconds a batch,
//! however small. Nobody waits: when the reader has nothing more, or there is a barrier, or after some fetches, what has come goes on.
//! Nor do rows go together that would keep the thread for long: where a closure takes milliseconds for each, the batches of the source
//! are what bounds that.
//! The rules are those of batches that wait behind an exchange ([`gather`](crate::runtime::gather)): which rows are late does not
//! depend on it.

use std::time::Duration;

use arrow::datatypes::Schema;
use windrow_operators::{Port, Watermark};

use super::SourceTask;
use crate::{
    Result,
    clock::Moment,
    runtime::{
        channel::Message,
        gather::{self, Gathered},
    },
};

/// What goes together should not take longer than this.
const LONGEST: Duration = Duration::from_millis(5);

/// Rows wait for no more than so many fetches, which may all come to nothing.
const FETCHES: usize = 64;

/// What the chain has not been told yet.
pub(crate) struct Together {
    gathered: Gathered,
    /// Whether batches of such columns may be made one.
    joins: bool,
    /// The column of their event time. Without one nothing but rows and idleness is told.
    time: Option<usize>,
    /// It is to be told behind the rows, of which there are some.
    idle: bool,
    /// Since rows wait.
    fetches: usize,
    /// How many rows are enough, by the time that those before them took.
    enough: usize,
}

impl Together {
    /// Of rows with these columns. A channel holds so many bytes.
    pub(crate) fn of(schema: &Schema, time: Option<usize>, channel_bytes: usize) -> Self {
        let (gathered, joins) = (Gathered::new(channel_bytes), gather::joins(schema));
        Self { gathered, joins, time, idle: false, fetches: 0, enough: 0 }
    }

    /// Takes a message. Returns whether it may wait for more.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Batch(batch) if self.joins => self.gathered.batch((Port::MAIN, 0), batch, self.time),
            // Nobody gains when that waits alone.
            Message::Watermark(watermark @ Watermark::At(_)) if self.holds() && !self.idle => {
                self.gathered.watermark(watermark);
            }
            Message::Watermark(Watermark::Idle) if self.holds() && self.time.is_none() => self.idle = true,
            message => {
                self.tell_idle();
                self.gathered.say(Port::MAIN, message);
            }
        }
        self.gathered.wants_more() && self.gathered.rows() < self.enough
    }

    /// So many rows took so long.
    fn took(&mut self, rows: usize, long: Duration) {
        let times = LONGEST.as_secs_f64() / long.as_secs_f64().max(1e-6);
        self.enough = (rows as f64 * times) as usize;
    }

    fn tell_idle(&mut self) {
        if std::mem::take(&mut self.idle) {
            self.gathered.say(Port::MAIN, Message::Watermark(Watermark::Idle));
        }
    }

    /// Whether there are rows that could go on.
    pub(super) fn holds(&self) -> bool {
        self.gathered.holds()
    }

    /// Counts a fetch. Returns whether its rows, or those before, have waited long enough.
    pub(super) fn has_waited(&mut self) -> bool {
        self.fetches = if self.holds() { self.fetches + 1 } else { 0 };
        self.fetches >= FETCHES
    }
}

impl SourceTask {
    /// Tells the chain, now or with what comes next.
    pub(super) async fn tell(&mut self, message: Message) -> Result<()> {
        if self.together.take(message) { Ok(()) } else { self.go_on().await }
    }

    /// Tells the chain all that it has not been told.
    pub(super) async fn go_on(&mut self) -> Result<()> {
        let (rows, began) = (self.together.gathered.rows(), Moment::now());
        self.together.gathered.settle();
        if rows > 0 {
            self.counted().busy.add(began, Moment::now());
        }
        self.together.tell_idle();
        self.together.fetches = 0;
        self.excuse();
        while let Some((port, message)) = self.together.gathered.next() {
            self.body.take(self.counters.name(), port, message).await?;
        }
        let waited = self.excuse();
        if rows > 0 {
            self.together.took(rows, began.elapsed().saturating_sub(waited));
        }
        Ok(())
    }
}

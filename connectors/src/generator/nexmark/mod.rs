//! The Nexmark benchmark: an auction site with persons, auctions and bids.
//!
//! ```text
//!   event number n ──► timeline: which kind, which row of its kind, at what event time
//!         │
//!         └─► random(seed, n) ──► model: ids, prices ─┐
//!                                 text: names, urls  ─┴──► columns: those that were asked for ──► RecordBatch
//! ```
//!
//! The definitions follow the suites of Beam and Flink: one person, three auctions and 46 bids in every 50 events;
//! half of the bids go to the hot auction, three quarters come from the hot bidder, three quarters of the auctions
//! from the hot seller; the others spread over the last 100 auctions and 1,000 persons and a *lead* of ten that do not
//! exist yet (so an auction may see a bid shortly before it opens, as in the suites). The random numbers are our own,
//! so that every event is a pure function of the seed and its number: figures compare with other generators in
//! distribution, not row by row.

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;

use self::{
    columns::Columns,
    model::Model,
    timeline::{Kind, Timeline},
};
use super::{
    ENDLESS,
    reader::{Delivery, RowNumbers, Series},
};
use crate::{ConnectorError, Position, Result, Source, SourceReader, SplitId, TypedSource, Untyped};

mod columns;
mod model;
mod price;
mod random;
mod text;
mod timeline;

#[cfg(test)]
mod tests;

/// The settings of one auction site, from which its three sources are made: [`bids`](Self::bids),
/// [`auctions`](Self::auctions) and [`persons`](Self::persons). Sources of equal settings describe the same events, so
/// joins between them make sense.
///
/// ```
/// use std::time::Duration;
/// use windrow_connectors::{Nexmark, Source};
///
/// let nexmark = Nexmark::new().events(1_000_000).splits(2).out_of_order(Duration::from_secs(4));
/// let bids = nexmark.bids().columns(["auction", "price", "at"]);
/// let auctions = nexmark.auctions();
///
/// assert_eq!(bids.schema()?.fields().len(), 3);
/// assert_eq!(auctions.schema()?.field(0).name(), "id");
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Nexmark {
    seed: u64,
    events: u64,
    timeline: Timeline,
    delivery: Delivery,
}

impl Default for Nexmark {
    fn default() -> Self {
        Self { seed: 0, events: 10_000_000, timeline: Timeline::default(), delivery: Delivery::default() }
    }
}

impl Nexmark {
    /// Ten million events in one split, in order, 100,000 to a second of event time, as fast as possible.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of events of all three kinds together.
    pub fn events(mut self, events: u64) -> Self {
        self.events = events.min(ENDLESS);
        self
    }

    /// Never ends.
    pub fn endless(self) -> Self {
        self.events(ENDLESS)
    }

    /// Another seed gives other events.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Deals the rows of each source to `splits` splits.
    pub fn splits(mut self, splits: usize) -> Self {
        self.delivery.splits = splits;
        self
    }

    /// Delivers this many events a second by the wall clock, counting all three kinds, so that the sources stay in
    /// step: of 50,000 events a second, the bids are 46,000. Without it they come as fast as they are taken.
    pub fn rate(mut self, events_per_second: u64) -> Self {
        self.delivery.rate = Some(events_per_second);
        self
    }

    /// At most this many rows in a batch (8192 unless told).
    pub fn batch_rows(mut self, rows: usize) -> Self {
        self.delivery.batch_rows = rows;
        self
    }

    /// The event time of the first event, in microseconds since 1970 (midnight of 15 July 2015, UTC, unless told).
    pub fn start(mut self, micros: i64) -> Self {
        self.timeline.start = micros;
        self
    }

    /// How many events make a second of event time (100,000 unless told).
    pub fn event_rate(mut self, events_per_second: u64) -> Self {
        self.timeline = self.timeline.at_rate(events_per_second);
        self
    }

    /// Sets the event time of each event back by a pseudo-random amount below `bound`. The order of delivery stays.
    /// The first events may then be earlier than [`start`](Self::start).
    pub fn out_of_order(mut self, bound: Duration) -> Self {
        self.timeline.disorder = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).min(i64::MAX as u64);
        self
    }

    /// The bids: `auction`, `bidder`, `price` (in cents), `channel`, `url`, `at`, `extra`.
    pub fn bids(&self) -> NexmarkSource {
        self.source(Kind::Bid)
    }

    /// The auctions: `id`, `item_name`, `description`, `initial_bid`, `reserve`, `at`, `expires`, `seller`,
    /// `category`, `extra`.
    pub fn auctions(&self) -> NexmarkSource {
        self.source(Kind::Auction)
    }

    /// The persons: `id`, `name`, `email`, `credit_card`, `city`, `state`, `at`, `extra`.
    pub fn persons(&self) -> NexmarkSource {
        self.source(Kind::Person)
    }

    fn source(&self, kind: Kind) -> NexmarkSource {
        NexmarkSource { site: self.clone(), kind, columns: None }
    }

    fn check(&self, name: &str) -> Result<()> {
        self.delivery.check(name)?;
        if self.timeline.events_per_second() == 0 {
            return Err(ConnectorError::Config(format!(
                "source {name}: event time stands still at an event_rate of 0; use event_rate(1) or more"
            )));
        }
        Ok(())
    }
}

/// The bids, the auctions or the persons of a [`Nexmark`] site. Rows have about the size that the suites give them:
/// 100 bytes for a bid, 500 for an auction, 200 for a person; the last two are mostly the column `extra`.
#[derive(Clone, Debug)]
pub struct NexmarkSource {
    site: Nexmark,
    kind: Kind,
    columns: Option<Vec<String>>,
}

impl NexmarkSource {
    /// Only these columns, in this order. The others are not generated, which for strings saves most of the time. An
    /// unknown name is an error of [`Source::schema`].
    pub fn columns<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.columns = Some(names.into_iter().map(Into::into).collect());
        self
    }

    fn chosen(&self) -> Result<Columns> {
        let name = self.name();
        self.site.check(&name)?;
        Columns::choose(&name, self.kind, self.columns.as_deref())
    }
}

#[async_trait]
impl Source for NexmarkSource {
    fn name(&self) -> String {
        format!("nexmark.{}", self.kind.plural())
    }

    fn schema(&self) -> Result<SchemaRef> {
        Ok(self.chosen()?.schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        self.site.check(&self.name())?;
        Ok(self.site.delivery.split_ids())
    }

    async fn reader(&self, assigned: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>> {
        let columns = self.chosen()?;
        let rows = self.kind.rows_before(self.site.events);
        let model = Model::new(self.site.seed, self.site.timeline);
        let series = Events { kind: self.kind, rows, model, columns };
        self.site.delivery.open(&self.name(), series, assigned)
    }
}

impl TypedSource for NexmarkSource {
    type Row = Untyped;
}

/// The events of one kind.
struct Events {
    kind: Kind,
    rows: u64,
    model: Model,
    columns: Columns,
}

impl Series for Events {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn event(&self, row: u64) -> u64 {
        self.kind.event(row)
    }

    fn rows_before(&self, event: u64) -> u64 {
        self.kind.rows_before(event)
    }

    fn batch(&self, rows: RowNumbers) -> Result<RecordBatch> {
        let kind = self.kind;
        let events: Vec<u64> = rows.iter().map(|row| kind.event(row)).collect();
        self.columns.batch(&self.model, &events)
    }
}

//! What a query reads: the auction site's three streams, and a file.
//!
//! ```text
//!   ready    batches per kind in memory, dealt to splits      ─┬─ as fast as they are read
//!            (mixed: bids filtered out of all events)          └─ paced: each row when it is due        measured for latency
//!   inline   made as they are asked for
//!   distinct bids for many auctions, made as they are asked for: more keys than memory
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use windrow::{
    arrow::{
        array::RecordBatch,
        compute::cast,
        datatypes::{DataType, Schema, SchemaRef},
        error::ArrowError,
    },
    connectors::Untyped,
    prelude::*,
};

use super::{
    Distinct, Events, Kind,
    columns::{BID, batch, mixed},
    pace::{Pace, Paced},
    source::Inline,
};

/// Rows of the side input of q13: one for each remainder of an auction's number by this.
pub const SIDE_ROWS: i64 = 10_000;

/// The streams of the site with event time, and a directory of its own. A clone is of the same events.
#[derive(Clone)]
pub struct Site {
    events: Events,
    from: From,
    /// When each event is due; `None` when it is taken as fast as it is read.
    pace: Option<Arc<Pace>>,
    /// Whether text that lies ready comes as plain text instead of views.
    plain: bool,
    directory: Arc<TempDir>,
}

/// Where events come from.
#[derive(Clone)]
enum From {
    Inline,
    Ready(Arc<Ready>),
    Distinct(Distinct),
}

/// Batches of all splits, in order.
struct Ready {
    /// Persons, auctions, bids.
    kinds: [Vec<RecordBatch>; 3],
    /// All events as rows like bids: the bids are filtered out of these.
    mixed: Option<Vec<RecordBatch>>,
}

impl Site {
    /// All events are made now, and lie ready in memory.
    pub fn ready(events: Events) -> io::Result<Self> {
        let kinds = [Kind::Person, Kind::Auction, Kind::Bid].map(|kind| table(&events, kind));
        Self::of(events, From::Ready(Arc::new(Ready { kinds, mixed: None })))
    }

    /// All events are made now, and a query filters the bids out of those of all kinds, as in the suite.
    pub fn mixed(events: Events) -> io::Result<Self> {
        let all = events.batches().map(|positions| mixed(events.all(positions)));
        let all = all.map(|batch| batch.unwrap_or_else(|error| unreachable!("{error}"))).collect();
        let kinds = [table(&events, Kind::Person), table(&events, Kind::Auction), Vec::new()];
        Self::of(events, From::Ready(Arc::new(Ready { kinds, mixed: Some(all) })))
    }

    /// Events are made by the job, as it reads them.
    pub fn inline(events: Events) -> io::Result<Self> {
        Self::of(events, From::Inline)
    }

    /// There are these bids and nothing else; they have `auction` and `at`. They are made as they are read.
    pub fn distinct(bids: Distinct) -> io::Result<Self> {
        let events = Events { count: bids.bids(), ..Events::default() };
        Self::of(events, From::Distinct(bids))
    }

    fn of(events: Events, from: From) -> io::Result<Self> {
        let site = Self { events, from, pace: None, plain: false, directory: Arc::new(tempfile::tempdir()?) };
        let rows: String = (0..SIDE_ROWS).map(|key| format!("{key},side-{key}\n")).collect();
        fs::write(site.side_input(), format!("key,value\n{rows}"))?;
        Ok(site)
    }

    /// The same events in so many splits of each kind.
    #[must_use]
    pub fn splits(&self, splits: usize) -> Self {
        Self { events: Events { splits, ..self.events.clone() }, ..self.clone() }
    }

    /// The same events with text as a `String` of a record has it (`Utf8`), which is what a decoder of records makes. It is made when
    /// the job is built, before the clock starts; events that are made as they are read keep their text in views.
    #[must_use]
    pub fn of_records(&self) -> Self {
        Self { plain: true, ..self.clone() }
    }

    /// The same events, each when it is due. They must lie ready; others are not held up.
    #[must_use]
    pub fn paced(&self, pace: Arc<Pace>) -> Self {
        Self { pace: Some(pace), ..self.clone() }
    }

    /// Which events there are.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The batches of one kind that lie ready, of all splits.
    pub fn batches(&self, kind: Kind) -> &[RecordBatch] {
        match &self.from {
            From::Ready(ready) => &ready.kinds[kind as usize],
            _ => &[],
        }
    }

    /// The batches of all kinds that bids are filtered out of, if they are.
    pub fn mixed_batches(&self) -> Option<&[RecordBatch]> {
        match &self.from {
            From::Ready(ready) => ready.mixed.as_deref(),
            _ => None,
        }
    }

    /// How many bytes the events take that lie ready.
    pub fn bytes(&self) -> usize {
        let From::Ready(ready) = &self.from else { return 0 };
        let batches = ready.kinds.iter().chain(&ready.mixed).flatten();
        batches.map(RecordBatch::get_array_memory_size).sum()
    }

    /// These columns of the persons: `id`, `name`, `email`, `credit_card`, `city`, `state`, `at`, `extra`. All streams have event
    /// time in `at`, and watermarks that fit.
    pub fn persons<const N: usize>(&self, job: &Job, columns: [&str; N]) -> Stream<Untyped> {
        self.stream(job, Kind::Person, &columns)
    }

    /// These columns of the auctions: `id`, `item_name`, `description`, `initial_bid`, `reserve`, `at`, `expires`, `seller`,
    /// `category`, `extra`.
    pub fn auctions<const N: usize>(&self, job: &Job, columns: [&str; N]) -> Stream<Untyped> {
        self.stream(job, Kind::Auction, &columns)
    }

    /// These columns of the bids: `auction`, `bidder`, `price`, `channel`, `url`, `at`, `extra`.
    pub fn bids<const N: usize>(&self, job: &Job, columns: [&str; N]) -> Stream<Untyped> {
        if let Some(all) = self.mixed_batches() {
            let with_kind: Vec<&str> = std::iter::once("kind").chain(columns).collect();
            let schema = mixed(Vec::new()).map_or_else(|error| unreachable!("{error}"), |none| none.schema());
            let all = self.memory(job, all, schema, &with_kind);
            return all.filter_expr(col("kind").eq(lit(BID))).select(columns.map(col));
        }
        self.stream(job, Kind::Bid, &columns)
    }

    /// A CSV file with the columns `key` and `value` and a row for each number below [`SIDE_ROWS`].
    pub fn side_input(&self) -> PathBuf {
        self.directory.path().join("side.csv")
    }

    /// Where q10 writes its log.
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The directory that the files above are in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn stream(&self, job: &Job, kind: Kind, names: &[&str]) -> Stream<Untyped> {
        match &self.from {
            From::Ready(ready) => self.memory(job, &ready.kinds[kind as usize], schema(kind), names),
            From::Inline => {
                let columns = indices(&schema(kind), names);
                let source = Inline { events: self.events.clone(), kind, columns };
                job.source(source).event_time("at", self.events.watermarks()).fail_on_rejects()
            }
            From::Distinct(bids) => {
                let source = bids.clone().splits(self.events.splits);
                job.source(source).event_time("at", Watermarks::in_order()).fail_on_rejects()
            }
        }
    }

    /// Some columns of batches that lie ready.
    fn memory(&self, job: &Job, batches: &[RecordBatch], all: SchemaRef, names: &[&str]) -> Stream<Untyped> {
        let columns = indices(&all, names);
        let mut splits = vec![Vec::new(); self.events.splits];
        for (number, batch) in batches.iter().enumerate() {
            let some = batch.project(&columns).and_then(|some| if self.plain { plain(&some) } else { Ok(some) });
            splits[number % self.events.splits].extend(some.ok());
        }
        let schema = all.project(&columns).map_or(all, SchemaRef::new);
        let schema = if self.plain { plain_schema(&schema) } else { schema };
        let stream = match &self.pace {
            None => job.source(MemorySource::new(schema, splits)).event_time("at", self.events.watermarks()),
            Some(pace) => {
                let paced = Paced { schema, splits: splits.into(), pace: pace.clone(), events: self.events.clone() };
                job.source(paced).event_time("at", self.events.watermarks())
            }
        };
        stream.fail_on_rejects()
    }
}

/// With text that is not in views.
fn plain_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => field.clone(),
    });
    SchemaRef::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn plain(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = plain_schema(batch.schema_ref());
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema, columns)
}

/// A name that is not there is a mistake that the job tells: `at` is not, or what reads the column fails.
fn indices(all: &SchemaRef, names: &[&str]) -> Vec<usize> {
    names.iter().filter_map(|name| all.index_of(name).ok()).collect()
}

fn schema(kind: Kind) -> SchemaRef {
    batch(kind, Vec::new()).map_or_else(|error| unreachable!("{error}"), |none| none.schema())
}

/// All events of a kind. There is a batch, which may be empty, for each batch of events.
fn table(events: &Events, kind: Kind) -> Vec<RecordBatch> {
    let made = events.batches().map(|positions| batch(kind, events.of(kind, positions)));
    made.map(|batch| batch.unwrap_or_else(|error| unreachable!("{error}"))).collect()
}

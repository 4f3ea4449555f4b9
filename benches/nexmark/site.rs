//! What a query reads: the auction site's three streams, and a file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::Untyped,
    prelude::*,
};

use super::{Events, Kind, columns::batch, source::Inline};

/// Rows of the side input of q13: one for each remainder of an auction's number by this.
pub const SIDE_ROWS: i64 = 10_000;

/// The batches of each split of one kind.
type Table = Vec<Vec<RecordBatch>>;

/// The streams of the site with event time, from memory or from the generator, and a directory of its own.
pub struct Site {
    events: Events,
    /// Persons, auctions, bids; `None` when they are made as they are asked for.
    ready: Option<[Table; 3]>,
    directory: TempDir,
}

impl Site {
    /// All events are made now, and lie ready in memory.
    pub fn ready(events: Events) -> io::Result<Self> {
        let made = [Kind::Person, Kind::Auction, Kind::Bid].map(|kind| table(&events, kind));
        Ok(Self { ready: Some(made), ..Self::inline(events)? })
    }

    /// Events are made by the job, as it reads them.
    pub fn inline(events: Events) -> io::Result<Self> {
        let site = Self { events, ready: None, directory: tempfile::tempdir()? };
        let rows: String = (0..SIDE_ROWS).map(|key| format!("{key},side-{key}\n")).collect();
        fs::write(site.side_input(), format!("key,value\n{rows}"))?;
        Ok(site)
    }

    /// Which events there are.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// How many bytes the events take that lie ready.
    pub fn bytes(&self) -> usize {
        let batches = self.ready.iter().flatten().flatten().flatten();
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
        let all = schema(kind);
        // A name that is not there is a mistake that the job tells: `at` is not, or what reads the column fails.
        let columns: Vec<usize> = names.iter().filter_map(|name| all.index_of(name).ok()).collect();
        let stream = match &self.ready {
            None => job.source(Inline { events: self.events.clone(), kind, columns }),
            Some(tables) => {
                let project = |batch: &RecordBatch| batch.project(&columns).ok();
                let splits = tables[kind as usize].iter().map(|split| split.iter().filter_map(project).collect());
                let schema = all.project(&columns).map_or(all, SchemaRef::new);
                job.source(MemorySource::new(schema, splits.collect()))
            }
        };
        stream.event_time("at", self.events.watermarks()).fail_on_rejects()
    }
}

fn schema(kind: Kind) -> SchemaRef {
    batch(kind, Vec::new()).map_or_else(|error| unreachable!("{error}"), |none| none.schema())
}

/// All events of a kind, dealt to splits.
fn table(events: &Events, kind: Kind) -> Table {
    let mut splits = vec![Vec::new(); events.splits];
    for (number, positions) in events.batches().enumerate() {
        let made = batch(kind, events.of(kind, positions));
        splits[number % events.splits].push(made.unwrap_or_else(|error| unreachable!("{error}")));
    }
    splits
}

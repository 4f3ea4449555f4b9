//! The queries of the public Nexmark suite for Flink SQL, q0 to q22, and the keyed window that engines are compared by.
//!
//! Each is a function from the [`Site`] to a stream, in a file of its own that says what it computes and where it differs from the
//! suite. Three things differ everywhere:
//!
//! * The suite has one stream of events and filters the three kinds out of it; here each kind is a source.
//! * Times are microseconds, not milliseconds. The column `dateTime` is called `at`.
//! * Names of columns are in `snake_case`.
//!
//! SQL without a window gives a table that changes with every row. Where that table is not what the query is about, what leaves
//! here is its answer: a winning bid when its auction has closed, a number per day when the day is over.
//!
//! What a query does otherwise than the suite is said at the top of its file; where nothing is said its columns and rows are those of
//! the suite.
//!
//! | what it is about | |
//! |---|---|
//! | one row at a time | q0, q1, q2, q14, q21, q22 |
//! | windows | q5, q7, q11, q12, q15, q16, q17, q19, [`kt`] |
//! | joins | q3, q8, q13, q20 |
//! | auctions that close | q4, q6, q9, on [`closing`] |
//! | a table | q18 |
//! | files | q10 |

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::{fmt, sync::Arc, time::Duration};

use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{ConnectorError, Incarnation, Receipt, Sink, SinkWriter, Witness},
    prelude::*,
};

use super::Site;

pub mod closing;
pub mod kt;
pub mod q0;
pub mod q1;
pub mod q10;
pub mod q11;
pub mod q12;
pub mod q13;
pub mod q14;
pub mod q15;
pub mod q16;
pub mod q17;
pub mod q18;
pub mod q19;
pub mod q2;
pub mod q20;
pub mod q21;
pub mod q22;
pub mod q3;
pub mod q4;
pub mod q5;
pub mod q6;
pub mod q7;
pub mod q8;
pub mod q9;

/// How long a join that has no bound in the suite remembers its rows, in event time. What belongs together is at most 50,000 events
/// apart, so at 20 events per second or more the answer is the same.
pub const REMEMBERED: Duration = hours(1);

/// A bid of at least this many cents is of rank 2, or of rank 3, in q15, q16 and q17.
pub const RANK_2: i64 = 10_000;
/// See [`RANK_2`].
pub const RANK_3: i64 = 1_000_000;

/// What comes out of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Rows, each once.
    Rows,
    /// Changes of a table.
    Table,
}

/// One of the queries.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// As the suite calls it.
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What comes out of it.
    pub answer: Answer,
    /// Adds it to a job, up to its sink.
    pub build: fn(&Site, &Job, AnySink),
}

/// All queries, in the order of the suite.
#[rustfmt::skip]
pub const ALL: [Query; 24] = [
    rows("q0", "all bids as they are", |site, job, out| q0::pass_through(site, job).sink(out)),
    rows("q1", "prices in euros", |site, job, out| q1::currency(site, job).sink(out)),
    rows("q2", "bids for some auctions", |site, job, out| q2::selection(site, job).sink(out)),
    rows("q3", "who sells in these states", |site, job, out| q3::local_items(site, job).sink(out)),
    table("q4", "average closing price per category", |site, job, out| q4::category_average(site, job).sink(out)),
    rows("q5", "auctions with most bids", |site, job, out| q5::hot_items(site, job).sink(out)),
    rows("q6", "average of a seller's last ten", |site, job, out| q6::seller_average(site, job).sink(out)),
    rows("q7", "highest bids", |site, job, out| q7::highest_bids(site, job).sink(out)),
    rows("q8", "new users who sell at once", |site, job, out| q8::new_users(site, job).sink(out)),
    rows("q9", "winning bids", |site, job, out| q9::winning_bids(site, job).sink(out)),
    rows("q10", "bids to files by time", |site, job, out| q10::log(site, job).sink(out)),
    rows("q11", "sessions of bidders", |site, job, out| q11::sessions(site, job).sink(out)),
    rows("q12", "bids per bidder", |site, job, out| q12::per_bidder(site, job).sink(out)),
    rows("q13", "bids with a side input", |site, job, out| q13::side_input(site, job).sink(out)),
    rows("q14", "a function of one's own", |site, job, out| q14::calculation(site, job).sink(out)),
    rows("q15", "a day in numbers", |site, job, out| q15::per_day(site, job).sink(out)),
    rows("q16", "a day per channel", |site, job, out| q16::per_channel(site, job).sink(out)),
    rows("q17", "a day per auction", |site, job, out| q17::per_auction(site, job).sink(out)),
    table("q18", "last bid of each bidder", |site, job, out| q18::last_bids(site, job).sink(out)),
    rows("q19", "ten highest bids", |site, job, out| q19::top_bids(site, job).sink(out)),
    rows("q20", "bids with their auction", |site, job, out| q20::expanded(site, job).sink(out)),
    rows("q21", "which channel", |site, job, out| q21::channels(site, job).sink(out)),
    rows("q22", "parts of a URL", |site, job, out| q22::directories(site, job).sink(out)),
    rows("kt", "count, sum, max per auction", |site, job, out| kt::keyed_window(site, job).sink(out)),
];

const fn rows(name: &'static str, about: &'static str, build: fn(&Site, &Job, AnySink)) -> Query {
    Query { name, about, answer: Answer::Rows, build }
}

const fn table(name: &'static str, about: &'static str, build: fn(&Site, &Job, AnySink)) -> Query {
    Query { name, about, answer: Answer::Table, build }
}

/// The query of this name.
pub fn named(name: &str) -> Option<Query> {
    ALL.into_iter().find(|query| query.name == name)
}

/// Any sink, so that one list has queries that are measured and checked.
#[derive(Clone)]
pub struct AnySink(Arc<dyn Sink>);

impl AnySink {
    /// The same sink.
    pub fn new(sink: impl Sink) -> Self {
        Self(Arc::new(sink))
    }
}

impl fmt::Debug for AnySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name())
    }
}

#[async_trait::async_trait]
impl Sink for AnySink {
    fn name(&self) -> String {
        self.0.name()
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<(), ConnectorError> {
        self.0.accepts(schema)
    }

    fn accepts_changes(&self, schema: &SchemaRef, key: &[usize]) -> Result<(), ConnectorError> {
        self.0.accepts_changes(schema, key)
    }

    fn warnings(&self) -> Vec<String> {
        self.0.warnings()
    }

    fn max_writers(&self) -> usize {
        self.0.max_writers()
    }

    fn witness(&self) -> Option<Arc<dyn Witness>> {
        self.0.witness()
    }

    fn place(&self) -> Option<String> {
        self.0.place()
    }

    async fn writer(
        &self,
        incarnation: &Incarnation,
        task: usize,
        schema: SchemaRef,
    ) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        self.0.writer(incarnation, task, schema).await
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<(), ConnectorError> {
        self.0.commit(receipts).await
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<(), ConnectorError> {
        self.0.clean(incarnation).await
    }
}

//! The harness that holds operators against a naive batch computation. For the operators here, and for yours.
//!
//! ```text
//!   rows ──┬──► Scenario(seed): tasks, order within the bound, batches, watermarks ──► Pipeline ──► results ──┐
//!          │                         every call of every operator is watched (laws 2 and 3)                   ├─ equal?
//!          └──► your oracle: a loop and a HashMap, which shares no code with the operators ──────► expected ──┘
//! ```
//!
//! On every run:
//! 1. the results, as a bag of rows, are the oracle's, whatever the order of arrival within the bound, the sizes of the
//!    batches and the number of tasks;
//! 2. after each batch, rows processed and rows late make up the batch;
//! 3. promises never go back nor beyond the time that was given, and no result is earlier than the last one; within the
//!    bound nothing is late; [`Advance::Again`](crate::Advance::Again) and [`Outbox::again`](crate::Outbox::again) are followed
//!    up and do not go on for ever, and who says the latter emits little in each call (often [`Outbox::step`](crate::Outbox::step)
//!    is a few rows only); batches have the schema that was declared;
//! 4. all of that also when operators are saved and restored: after every call; after some calls, from what was saved in many
//!    increments; and at barriers, when the whole job goes on with another number of tasks. What is restored is made of the
//!    bytes of sealed segments, and a segment is found only when the last state named it. Each round runs without a restart and
//!    with one of these kinds in turn;
//! 5. processing time goes on between calls, and operators are woken when they have asked for it; before the end of the input
//!    comes all that they had asked for. What leaves by side outputs is not looked at;
//! 6. with [`Pipeline::keyed`]: rows are with the tasks that the plan says they are with, and tasks that are given the same time
//!    promise the same.
//!
//! ```
//! use std::{collections::BTreeMap, time::Duration};
//! use datafusion_expr::col;
//! use datafusion_functions_aggregate::expr_fn::sum;
//! use typed_arrow::{prelude::*, schema::SchemaMeta};
//! use windrow_operators::{StreamSchema, Timestamp, testing::{Check, Pipeline}, window::{AggregatePlan, Tumbling}};
//!
//! #[derive(Clone, Record)]
//! struct Bid { auction: i64, price: i64, at: Timestamp }
//!
//! // The pipeline: aggregated in two phases, with an exchange by key between them.
//! let bids = StreamSchema::with_time(Bid::schema(), "at").unwrap();
//! let window = Tumbling::of(Duration::from_micros(10));
//! let plan = AggregatePlan::new(&bids, &["auction"], window, &[sum(col("price"))]).unwrap();
//! let pipeline = Pipeline::new(&bids)
//!     .first_phase(plan.between(), || plan.partial())
//!     .exchange(plan.key_between())
//!     .stage(plan.output(), || plan.merging());
//!
//! // Some rows; let proptest generate them and the seed.
//! let rows: Vec<Bid> = (0..40)
//!     .map(|i| Bid { auction: i % 3, price: i, at: Timestamp::from_micros(i * 7 % 50 - 20) })
//!     .collect();
//!
//! Check::new(pipeline).out_of_order(Duration::from_micros(5)).seed(1).assert(&rows, |rows| {
//!     let mut sums = BTreeMap::new();
//!     for bid in rows {
//!         let start = bid.at.micros().div_euclid(10) * 10;
//!         *sums.entry((start, bid.auction)).or_insert(0) += bid.price;
//!     }
//!     sums.into_iter().map(|((start, auction), sum)| (start, start + 10, auction, sum))
//! });
//! ```
//!
//! A failure shows what is missing, what is too much, and the scenario:
//!
//! ```text
//! not the answer of the oracle (law 1): expected 12 rows, got 12
//!   missing: (-10, 0, 2, 49)
//!     extra: (-10, 0, 2, 9)
//!   in this scenario: 40 rows, parallelism 3, batches of up to 7 rows, each row delayed by nothing or 5µs, …
//!   again with: .replay(0x1302)
//! ```
//!
//! [`Check::reduced`] compares what changes add up to. [`Check::run_beyond_bound`] does the same with rows that come too late. [`Pipeline::two`] and [`Check::run_two`] are for an
//! operator with two inputs.

mod arrivals;
mod changes;
mod check;
mod guard;
mod pipeline;
mod placed;
mod restarts;
mod room;
mod rows;
mod run;
mod store;
mod two;

pub use changes::final_table;
pub use check::Check;
pub use pipeline::Pipeline;
pub use room::TestRoom;
pub use rows::{Row, Value};

pub use crate::state::bounded::with_batches_of;

use crate::typed::Record;

//! Tables that rows are looked up in: what one is, a file as one, and a cache in front of one.
//!
//! ```text
//!   a batch of rows ──► distinct keys ──► Cached ──those it does not have──► TableFile, or a service of yours
//!          │                                │                                     │
//!          └──────── joined by key ◄────────┴──────── rows, with their keys ◄─────┘
//! ```

use std::time::Duration;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use tokio::time::Instant;

use crate::Result;

mod cached;
mod file_table;

pub use cached::Cached;
pub use file_table::TableFile;

/// The instant `span` from now. What does not fit into the clock is never: a hundred years.
fn later(span: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + span.min(NEVER)
}

/// A table that can be asked for the rows of some keys.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{ArrayRef, AsArray, Int64Array, RecordBatch}, datatypes::{DataType, Field, Int64Type, Schema, SchemaRef}};
/// use windrow_connectors::{Lookup, Result, async_trait};
///
/// /// The squares of even numbers.
/// struct Squares;
///
/// #[async_trait]
/// impl Lookup for Squares {
///     fn name(&self) -> String { "squares".into() }
///     fn schema(&self) -> Result<SchemaRef> {
///         let columns = ["n", "square"].map(|name| Field::new(name, DataType::Int64, false));
///         Ok(Arc::new(Schema::new(columns.to_vec())))
///     }
///     async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch> {
///         let even: Vec<i64> = keys.column(0).as_primitive::<Int64Type>().values().iter().copied().filter(|n| n % 2 == 0).collect();
///         let squares = even.iter().map(|n| n * n).collect::<Vec<_>>();
///         let columns = [even, squares].map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
///         Ok(RecordBatch::try_new(self.schema()?, columns.to_vec())?)
///     }
/// }
/// ```
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// What to call it in messages and in the printed graph: `shops.csv`.
    fn name(&self) -> String;

    /// The columns of its rows, those of the key among them.
    fn schema(&self) -> Result<SchemaRef>;

    /// Makes it ready for lookups by the columns `keys`. Called for every task, before the job reads its first row: what
    /// can be known to fail should fail here.
    async fn open(&self, keys: &SchemaRef) -> Result<()> {
        let _ = keys;
        Ok(())
    }

    /// The rows whose key is among `keys`: any number per key, in any order, with the columns of [`Lookup::schema`]. The
    /// columns of `keys` are called as in the table; no key is in it twice or holds a null. Several lookups may be under way
    /// at a time, and one may be dropped before it is ready.
    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch>;

    /// What a person should know, although lookups work: that a new version of the table could not be read.
    fn warning(&self) -> Option<String> {
        None
    }
}

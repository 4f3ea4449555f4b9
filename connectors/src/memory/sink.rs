//! A sink that keeps what is written, and shows what was committed.
//!
//! ```text
//!   write ──► Written ──stage──► Staged(receipt) ──commit──► Committed     batches(), rows(), take()
//!                └───────────────────┴── clean, by a later generation: forgotten
//! ```
//!
//! It outlives the job that writes to it. So a test that lets a job crash and starts it again on the same sink sees
//! what a user of files or topics would see, and sees it fail if receipts are lost, forgotten or made up.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use typed_arrow::schema::{FromRecordBatch, SchemaMeta};

use super::{
    look,
    staging::{Staging, Writer, lock},
};
use crate::{Incarnation, Receipt, Result, Sink, SinkWriter};

/// Collects the rows of all tasks. A clone is another handle to the same rows, so a test keeps one and gives the
/// other to the job.
///
/// Rows become visible when they are committed, as with real sinks; a job that was aborted has published nothing since its
/// last checkpoint. They are there as [`batches`](Self::batches), as [`records`](Self::records), and as a table of text when the
/// sink is printed. [`written`](Self::written) shows also the others.
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::{Epoch, Incarnation, MemorySink, Sink, SinkWriter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3]))])?;
///
/// let sink = MemorySink::new();
/// let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
/// let mut writer = sink.writer(&incarnation, 0, schema).await?;
/// writer.write(batch).await?;
/// let receipts = writer.stage(Epoch(1)).await?;
/// assert_eq!(sink.rows(), 0);
/// sink.commit(&receipts).await?;
/// sink.commit(&receipts).await?; // again, as after a crash
/// assert_eq!(sink.rows(), 3);
/// assert_eq!(sink.to_string(), "\
/// +---+
/// | n |
/// +---+
/// | 1 |
/// | 2 |
/// | 3 |
/// +---+");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    kept: Arc<Mutex<Staging>>,
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// The committed batches, in the order in which they were written.
    pub fn batches(&self) -> Vec<RecordBatch> {
        lock(&self.kept).committed()
    }

    /// The number of rows in [`batches`](Self::batches).
    pub fn rows(&self) -> usize {
        self.batches().iter().map(RecordBatch::num_rows).sum()
    }

    /// The committed rows as records, in the order in which they were written. The fields of a record are found among the columns
    /// by name. Fails when one is not there or is of another type.
    ///
    /// ```
    /// # use windrow_connectors as windrow;
    /// use typed_arrow::{prelude::*, schema::SchemaMeta};
    /// # use windrow::{Epoch, Incarnation, MemorySink, Sink};
    /// #[derive(Record, Debug, PartialEq)]
    /// struct Bid { auction: i64, price: i64 }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windrow::Result<()> {
    /// # use typed_arrow::schema::BuildRows;
    /// # let out = MemorySink::new();
    /// # let mut rows = Bid::new_builders(1);
    /// # rows.append_rows([Bid { auction: 7, price: 100 }]);
    /// # let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
    /// # let mut writer = out.writer(&incarnation, 0, Bid::schema()).await?;
    /// # writer.write(rows.finish().into_record_batch()).await?;
    /// # out.commit(&writer.stage(Epoch(1)).await?).await?;
    /// assert_eq!(out.records::<Bid>()?, [Bid { auction: 7, price: 100 }]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn records<R>(&self) -> Result<Vec<R>>
    where
        R: FromRecordBatch + SchemaMeta,
        R: for<'a> TryFrom<R::View<'a>, Error: fmt::Display>,
    {
        look::records(&self.batches())
    }

    /// Removes and returns the committed batches.
    pub fn take(&self) -> Vec<RecordBatch> {
        lock(&self.kept).take_committed()
    }

    /// All batches, also those that are not committed and perhaps never will be.
    pub fn written(&self) -> Vec<RecordBatch> {
        lock(&self.kept).all()
    }
}

/// The committed rows as a table, in the order in which they were written.
impl fmt::Display for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        look::print(&self.batches(), f)
    }
}

impl AsMut<Self> for Staging {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn accepts(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    async fn writer(&self, incarnation: &Incarnation, task: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer::new(&self.kept, incarnation, task, "memory", |_| Ok(()))))
    }

    async fn commit(&self, receipts: &[Receipt]) -> Result<()> {
        let mut kept = lock(&self.kept);
        let mut result = Ok(());
        for receipt in receipts {
            result = result.and(kept.commit(receipt));
        }
        result
    }

    async fn clean(&self, incarnation: &Incarnation) -> Result<()> {
        lock(&self.kept).clean(incarnation);
        Ok(())
    }
}

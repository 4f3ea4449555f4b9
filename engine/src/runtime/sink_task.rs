//! A task that writes: gate and writer. At a barrier, and at the end, it stages what it has written; making that
//! visible is the coordinator's business, once the checkpoint is decided.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arrow::array::RecordBatch;
use windrow_connectors::{ConnectorError, Epoch, SinkWriter};
use windrow_operators::{StreamSchema, Watermark, time::event_times};

use super::{
    channel::{Disconnected, Message},
    gate::Gate,
    operator_task::disconnected,
    report::{Reporter, Snapshot},
};
use crate::{
    Error, Result,
    clock::{Moment, ProcessingTime},
    metrics::Counters,
};

pub(crate) struct SinkTask {
    /// The epoch that rows now belong to.
    pub(crate) epoch: Epoch,
    pub(crate) writer: Box<dyn SinkWriter>,
    pub(crate) schema: StreamSchema,
    pub(crate) gate: Gate,
    pub(crate) clock: ProcessingTime,
    pub(crate) counters: Arc<Counters>,
    pub(crate) reporter: Reporter,
}

impl SinkTask {
    pub(crate) async fn run(mut self) -> Result<()> {
        let counters = self.counters.clone();
        let counted = counters.task(self.reporter.task.task);
        loop {
            match self
                .gate
                .next()
                .await
                .map(|(_, message)| message)
                .map_err(|Disconnected| disconnected(self.counters.name()))?
            {
                Message::Batch(batch) => {
                    let rows = batch.num_rows() as u64;
                    let (began, latest) = (Moment::now(), self.latest(&batch));
                    let busy = counted.busy.running();
                    let delivered = self.schema.deliver(&batch);
                    let delivered =
                        delivered.map_err(|error| Error::Operator { operator: self.counters.name().into(), error })?;
                    counted.rows_in.fetch_add(rows, Relaxed);
                    self.writer.write(delivered).await.map_err(|error| self.failed(error))?;
                    drop(busy);
                    counted.calls.add(began.elapsed());
                    if let Some(latest) = latest {
                        let age = self.clock.now().micros().saturating_sub(latest);
                        counted.latency.add(Duration::from_micros(u64::try_from(age).unwrap_or(0)));
                    }
                    counted.processed.fetch_add(rows, Relaxed);
                    counted.rows_out.fetch_add(rows, Relaxed);
                }
                Message::Watermark(Watermark::At(time)) => {
                    counted.idles(false);
                    counted.reaches(time);
                }
                Message::Watermark(Watermark::Idle) => counted.idles(true),
                Message::Barrier(epoch) => {
                    self.epoch = epoch;
                    let snapshot = self.stage().await?;
                    self.reporter.barrier(epoch, snapshot);
                    self.epoch = Epoch(epoch.0 + 1);
                }
                // Exhausted or stopped: what was written is complete as far as it goes.
                Message::End(_) => {
                    let snapshot = self.stage().await?;
                    self.reporter.ended(snapshot);
                    return Ok(());
                }
            }
        }
    }

    /// The latest event time of its rows, if they have event time.
    fn latest(&self, batch: &RecordBatch) -> Option<i64> {
        event_times(batch, self.schema.time()?)?.iter().copied().max()
    }

    async fn stage(&mut self) -> Result<Snapshot> {
        let counters = self.counters.clone();
        let _busy = counters.task(self.reporter.task.task).busy.running();
        let receipts = self.writer.stage(self.epoch).await.map_err(|error| self.failed(error))?;
        Ok(Snapshot { receipts, ..Snapshot::default() })
    }

    fn failed(&self, error: ConnectorError) -> Error {
        Error::Sink { operator: self.counters.name().into(), error }
    }
}

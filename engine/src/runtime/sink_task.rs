//! A task that writes: gate and writer.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use windrow_connectors::{ConnectorError, Sink};
use windrow_operators::{StreamSchema, Watermark};

use super::{
    channel::{Disconnected, Message},
    gate::Gate,
    operator_task::disconnected,
};
use crate::{Error, Result, metrics::Counters};

pub(crate) struct SinkTask {
    pub(crate) task: usize,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) schema: StreamSchema,
    pub(crate) gate: Gate,
    pub(crate) counters: Arc<Counters>,
}

impl SinkTask {
    pub(crate) async fn run(mut self) -> Result<()> {
        let writer = self.sink.writer(self.task, self.schema.visible()).await;
        let mut writer = writer.map_err(|error| self.failed(error))?;
        loop {
            match self.gate.next().await.map_err(|Disconnected| disconnected(self.counters.name()))? {
                Message::Batch(batch) => {
                    let rows = batch.num_rows() as u64;
                    let visible = self.schema.show(&batch);
                    let visible =
                        visible.map_err(|error| Error::Operator { operator: self.counters.name().into(), error })?;
                    self.counters.rows_in.fetch_add(rows, Relaxed);
                    writer.write(visible).await.map_err(|error| self.failed(error))?;
                    self.counters.processed.fetch_add(rows, Relaxed);
                    self.counters.rows_out.fetch_add(rows, Relaxed);
                }
                Message::Watermark(Watermark::At(time)) => self.counters.watermark(self.task, time),
                Message::Watermark(Watermark::Idle) => {}
                // Exhausted or stopped: what was written is complete as far as it goes.
                Message::End(_) => return writer.finish().await.map_err(|error| self.failed(error)),
            }
        }
    }

    fn failed(&self, error: ConnectorError) -> Error {
        Error::Sink { operator: self.counters.name().into(), error }
    }
}

//! Writes the rows of one task: batches into records, and records to whoever takes them.
//!
//! ```text
//!   batch ──► Layout::split ──► values ──RowEncoder──► payloads ─┐
//!                         └──► parts: key, headers … ────────────┴──► send ──no room──► wait ──┐
//!                                                                       ▲──────────────────────┘
//!   stage ──► at least once: everything written       exactly once: the gate of all writers of the connection
//! ```

use std::{sync::Arc, time::SystemTime};

use arrow::array::RecordBatch;
use async_trait::async_trait;

use super::{
    super::{
        cluster::{Outgoing, Producer},
        transaction::{Member, Transactions},
    },
    KafkaOutput, dead_letter,
    record::Layout,
};
use crate::{
    ConnectorError, Epoch, Receipt, Result, SinkWriter,
    format::{Payloads, RowEncoder},
};

/// Memory that a writer keeps for payloads between batches.
const KEPT_BYTES: usize = 4 << 20;

/// Who takes the records.
pub(super) enum Target {
    Plain(Arc<dyn Producer>, Arc<Transactions>),
    Transaction(Member),
}

impl Target {
    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        match self {
            Self::Plain(producer, _) => Ok(producer.clone()),
            Self::Transaction(member) => member.producer().await,
        }
    }

    /// Whether to go on waiting.
    fn check(&self) -> Result<()> {
        match self {
            Self::Plain(..) => Ok(()),
            Self::Transaction(member) => member.check(),
        }
    }

    async fn stage(&self, epoch: Epoch) -> Result<()> {
        match self {
            Self::Plain(producer, _) => producer.flush().await,
            Self::Transaction(member) => member.stage(epoch).await,
        }
    }

    async fn failed(&self, failure: &ConnectorError) {
        match self {
            Self::Plain(producer, transactions) => transactions.forget(producer).await,
            Self::Transaction(member) => member.fail(failure),
        }
    }
}

/// What makes the bytes of values, and of keys that are not written as they are.
pub(super) struct Encoders {
    pub(super) keys: Option<Box<dyn RowEncoder>>,
    pub(super) values: Box<dyn RowEncoder>,
}

pub(super) struct KafkaWriter {
    output: Arc<KafkaOutput>,
    target: Target,
    layout: Layout,
    encoders: Encoders,
    payloads: Payloads,
    /// Its rows are rejected records, and this is the largest letter.
    letters: Option<usize>,
    /// A call failed or was given up half-way: records may be missing.
    broken: bool,
}

impl KafkaWriter {
    pub(super) fn new(
        output: Arc<KafkaOutput>,
        target: Target,
        layout: Layout,
        encoders: Encoders,
        letters: Option<usize>,
    ) -> Self {
        Self { output, target, layout, encoders, payloads: Payloads::new(), letters, broken: false }
    }

    async fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = match self.letters {
            Some(largest) => dead_letter::rows(&batch, largest, SystemTime::now())?,
            None => batch,
        };
        let (values, parts) = self.layout.split(&batch, self.encoders.keys.as_mut())?;
        self.payloads.clear();
        self.encoders.values.encode(&values, &mut self.payloads)?;
        if self.payloads.len() != values.num_rows() {
            let (rows, payloads, topic) = (values.num_rows(), self.payloads.len(), &self.output.topic);
            return Err(ConnectorError::Config(format!(
                "topic {topic}: the encoder made {payloads} payloads of {rows} rows"
            )));
        }
        let producer = self.target.producer().await?;
        let (mut headers, mut payload) = (Vec::new(), 0);
        for row in 0..batch.num_rows() {
            let value = if parts.is_delete(row) {
                None
            } else {
                payload += 1;
                self.payloads.get(payload - 1)
            };
            parts.headers(row, &mut headers);
            let record = Outgoing {
                topic: &self.output.topic,
                partition: parts.partition(row),
                key: parts.key(row),
                value,
                headers: &headers,
                timestamp: parts.timestamp(row),
            };
            while !producer.send(&record)? {
                self.target.check()?;
                producer.room().await;
            }
        }
        Ok(())
    }

    /// Makes the writer unusable until a call succeeds. It is said before the call and taken back after it, because the
    /// caller may also drop the call half-way.
    fn begin(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.broken, true) {
            false => Ok(()),
            true => Err(ConnectorError::Remote {
                system: format!("{}, topic {}", self.output.kafka.name(), self.output.topic),
                reason: "an earlier write failed: its writer takes no more rows".into(),
                passes: true,
            }),
        }
    }

    async fn end(&mut self, result: &Result<()>) {
        match result {
            Ok(()) => self.broken = false,
            Err(failure) => self.target.failed(failure).await,
        }
        if self.payloads.buffer().capacity() > KEPT_BYTES {
            self.payloads = Payloads::new();
        }
    }
}

#[async_trait]
impl SinkWriter for KafkaWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.begin()?;
        let taken = if batch.num_rows() == 0 { Ok(()) } else { self.take(batch).await };
        self.end(&taken).await;
        taken
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        self.begin()?;
        let staged = self.target.stage(epoch).await;
        self.end(&staged).await;
        staged.map(|()| Vec::new())
    }
}

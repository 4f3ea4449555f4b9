//! One partition on its way into columns.

use std::sync::atomic::Ordering::Relaxed;

use rdkafka::Message;

use super::{feed::Partition, layout::Builder, plan::Plan, watch::Watch};
use crate::{Origins, Position, Rejected, Result, Rows, SplitId, format::Decoder};

/// Of a record that is too long this much is kept.
const SAMPLE_BYTES: usize = 1 << 10;

/// A batch is given away when its records have this many bytes, or its columns that many: those of sparse records are larger.
const BATCH_BYTES: usize = 1 << 20;
const COLUMN_BYTES: usize = 16 << 20;

/// The columns are measured after so many records, and after each that is longer than that.
const MEASURED: usize = 16;
const LONG: usize = 4 << 10;

/// The records of a partition since its last batch.
pub(super) struct Lane {
    pub(super) at: Partition,
    pub(super) split: SplitId,
    /// The offset of the next record. What is below it was taken already, or is no record: at the end of a partition this is its end.
    pub(super) next: u64,
    /// Where to end, if it is to end.
    pub(super) end: Option<u64>,
    pub(super) ended: bool,
    pub(super) watch: Watch,
    /// The records of the batch, rejected ones too, and their bytes.
    records: usize,
    bytes: usize,
    /// The bytes of the columns when they were last measured, or of the records if these are more.
    held: usize,
    decoder: Option<Box<dyn Decoder>>,
    builders: Vec<Builder>,
    /// The messages that the rows are.
    origins: Origins,
    rejected: Vec<Rejected>,
    /// Records that are no rows by their format.
    passed_over: u64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was there already, or lies behind the end.
    No,
    /// It is in the batch, which has this many bytes more.
    Yes(usize),
    /// It is, and the batch should go now.
    Full(usize),
}

impl Lane {
    pub(super) fn new(at: Partition, next: u64, end: Option<u64>, plan: &Plan) -> Self {
        Self {
            at,
            split: at.split(&plan.topics),
            next,
            end,
            ended: false,
            watch: Watch::default(),
            records: 0,
            bytes: 0,
            held: 0,
            decoder: None,
            builders: plan.layout.builders(),
            origins: Origins::new(),
            rejected: Vec::new(),
            passed_over: 0,
        }
    }

    /// The records that wait for [`Lane::flush`].
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Their bytes, or those of their columns.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether everything up to the end has been taken.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// Takes a record, unless it comes again: after a reconnect librdkafka may repeat some. That offsets are missing is in order:
    /// transactions leave markers that are no records, aborted ones their records, and compaction takes some away.
    pub(super) fn take<M: Message>(&mut self, record: &M, plan: &Plan) -> Result<Taken> {
        let Ok(offset) = u64::try_from(record.offset()) else { return Ok(Taken::No) };
        if offset < self.next || self.ended {
            return Ok(Taken::No);
        }
        if self.end.is_some_and(|end| offset >= end) {
            self.next = self.next.max(offset);
            return Ok(Taken::No);
        }
        let own = record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
        let headers = plan.layout.header_bytes(record);
        let bytes = own + headers.as_ref().copied().unwrap_or_default();
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            empty => empty.insert(plan.decoder()?),
        };
        match headers.and_then(|_| decode(record, bytes, decoder.as_mut(), plan)) {
            Ok(true) => {
                self.builders.iter_mut().for_each(|builder| builder.push(record));
                if !plan.without_origins.load(Relaxed) {
                    self.origins.push(Position(offset), None, record.payload().unwrap_or_default(), record.key());
                }
            }
            Ok(false) => self.passed_over += 1,
            Err(reason) => match decoder.failure() {
                // The record is not to blame. The rows before it are read again with it.
                Some(error) => return Err(error),
                None => self.rejected.push(reject(record, offset, bytes, reason, plan)),
            },
        }
        self.next = offset + 1;
        self.records += 1;
        self.bytes += bytes;
        let measured = self.records.is_multiple_of(MEASURED) || bytes >= LONG;
        let columns = if measured { decoder.bytes() } else { 0 };
        let taken = self.bytes.max(columns).saturating_sub(self.held);
        self.held += taken;
        let full = self.records >= plan.batch_rows || self.bytes >= BATCH_BYTES || columns >= COLUMN_BYTES;
        Ok(if full { Taken::Full(taken) } else { Taken::Yes(taken) })
    }

    /// Gives away what was taken.
    pub(super) fn flush(&mut self, plan: &Plan) -> Result<Rows> {
        let payload = match &mut self.decoder {
            Some(decoder) => decoder.flush()?,
            None => arrow::array::RecordBatch::new_empty(plan.layout.payload.clone()),
        };
        let topic = plan.topics.get(self.at.topic).map_or("", String::as_str);
        let batch = plan.layout.join(payload, &mut self.builders, topic, self.at.number)?;
        (self.records, self.bytes, self.held) = (0, 0, 0);
        // The thread has begun to read before it could be told that nobody asks for them.
        let origins = Some(self.origins.take()).filter(|origins| origins.len() == batch.num_rows());
        Ok(Rows {
            split: self.split.clone(),
            batch,
            rejected: std::mem::take(&mut self.rejected),
            passed_over: std::mem::take(&mut self.passed_over),
            next: Position(self.next),
            origins,
        })
    }
}

/// Whether it is a row now; the reason, if it cannot be one.
fn decode<M: Message>(record: &M, bytes: usize, decoder: &mut dyn Decoder, plan: &Plan) -> Result<bool, String> {
    if bytes > plan.max_record_bytes {
        let limit = plan.max_record_bytes;
        return Err(format!("has {bytes} bytes, more than the {limit} of max_record_bytes"));
    }
    plan.layout.check(record)?;
    match record.payload() {
        Some(payload) => decoder.push(payload).map(|()| true),
        None => decoder.push_null(),
    }
}

#[cold]
fn reject<M: Message>(record: &M, offset: u64, bytes: usize, reason: String, plan: &Plan) -> Rejected {
    let keep = if bytes > plan.max_record_bytes { SAMPLE_BYTES } else { usize::MAX };
    let kept = |part: &[u8]| part.iter().take(keep).copied().collect::<Vec<u8>>();
    Rejected {
        position: Some(Position(offset)),
        line: None,
        reason,
        bytes: record.payload().map(kept),
        key: record.key().map(kept),
    }
}
